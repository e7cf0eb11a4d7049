//! An identity from an issuer: attested once with a credential, then renewed over mTLS for as long as the program runs.
//!
//! ```text
//!            credential                 renewal point, or "renew now"
//!  (nothing) ──────────► holds an SVID ──────────────────────────────► holds its successor …
//!      ▲                      │                                               │
//!      └──────────────────────┴── expired while the issuer was away ──────────┘
//! ```

mod addresses;
mod answer;
mod client;
mod credential;
mod follow;
mod request;
mod token;

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::uri::Authority;
use signet_identity::{
    BundleSet, ClientCredentials, ClientKey, ClientPolicy, Clock, Material, SharedClock, Snapshot, SpiffeIdError,
    SpiffeIdPatterns, TlsPolicies, TrustBundle, TrustDomain, WorkloadId, X509Svid,
};
use signet_proto::identity::v1::Resource;
use time::OffsetDateTime;
use tokio::time::Instant;

use self::{
    addresses::Addresses,
    answer::{Answered, Versions},
    client::{CallError, IssuerClient},
    follow::{Following, Wish},
};
use crate::{
    Delivery, Source,
    backoff::{self, Backoff, random_fraction},
    cause, wall_clock,
};

pub use self::{credential::Credential, token::JoinToken};

/// The path of an issuer's own identity, below its trust domain.
const ISSUER_PATH: &str = "/signet/issuer";

/// However short an SVID lives: this much any issuer may take.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(500);

/// Where there are several issuers: how long one of them may take to answer the holder of an SVID.
const OF_SEVERAL: Duration = Duration::from_millis(1500);

/// How long a call to the issuer may take; for the holder of a short-lived SVID it is less.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// TCP and TLS.
    pub connect: Duration,
    /// One call, connecting included.
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), request: Duration::from_secs(10) }
    }
}

/// Gets an identity from an issuer and renews it. Each certificate has a key of its own, made here, which never leaves
/// the process.
#[derive(Debug)]
pub struct IssuerSource {
    endpoint: Endpoint,
    credential: Credential,
    wanted: Option<WorkloadId>,
}

/// Where the issuer is and how it is recognized.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    addresses: Addresses,
    id: WorkloadId,
    bootstrap: TrustBundle,
    timeouts: Timeouts,
}

impl Endpoint {
    fn address(&self) -> String {
        self.addresses.to_string()
    }

    /// The same for the holder of an SVID with this life: no call takes longer than an eighth of it, so that one that
    /// hangs leaves time for others.
    fn in_time_for(&self, life: Duration) -> Self {
        let mut most = (life / 8).max(SHORTEST_TIMEOUT);
        // Another may answer sooner.
        if !self.addresses.is_one() {
            most = most.min(OF_SEVERAL);
        }
        let Timeouts { connect, request } = self.timeouts;
        Self { timeouts: Timeouts { connect: connect.min(most), request: request.min(most) }, ..self.clone() }
    }

    fn expected(&self) -> SpiffeIdPatterns {
        SpiffeIdPatterns::from(&self.id)
    }
}

/// An issuer that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address is not `host:port`.
    #[error("issuer address `{address}` is not `host:port`")]
    Address {
        /// What was given.
        address: String,
    },
    /// The issuer's name cannot be made of its trust domain's.
    #[error("issuer of {trust_domain} has no name")]
    Id {
        /// What was given.
        trust_domain: TrustDomain,
        /// What is wrong with it.
        source: SpiffeIdError,
    },
}

impl IssuerSource {
    /// The issuer at `address` (`host:port`), which proves itself as `spiffe://TRUST-DOMAIN/signet/issuer` under
    /// `bootstrap`, the bundle of its trust domain.
    pub fn new(
        address: &str,
        bootstrap: TrustBundle,
        credential: impl Into<Credential>,
    ) -> Result<Self, EndpointError> {
        Self::at([address], bootstrap, credential)
    }

    /// The same for several issuers that share their records: one is asked, another where that fails. A host name may stand for several
    /// too.
    pub fn at<'a>(
        addresses: impl IntoIterator<Item = &'a str>,
        bootstrap: TrustBundle,
        credential: impl Into<Credential>,
    ) -> Result<Self, EndpointError> {
        let named = addresses
            .into_iter()
            .map(|address| authority_of(address).ok_or_else(|| EndpointError::Address { address: address.to_owned() }));
        let named = named.collect::<Result<Vec<_>, _>>()?;
        if named.is_empty() {
            return Err(EndpointError::Address { address: String::new() });
        }
        let trust_domain = bootstrap.trust_domain();
        let id = format!("{}{ISSUER_PATH}", trust_domain.id())
            .parse()
            .map_err(|source| EndpointError::Id { trust_domain: trust_domain.clone(), source })?;
        let endpoint = Endpoint { addresses: Addresses::new(named), id, bootstrap, timeouts: Timeouts::default() };
        Ok(Self { endpoint, credential: credential.into(), wanted: None })
    }

    /// The SPIFFE ID to ask for, where the issuer's policy gives several to this program.
    pub fn spiffe_id(mut self, id: WorkloadId) -> Self {
        self.wanted = Some(id);
        self
    }

    /// Another SPIFFE ID that the issuer has to prove.
    pub fn issuer_id(mut self, id: WorkloadId) -> Self {
        self.endpoint.id = id;
        self
    }

    /// Other timeouts.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.endpoint.timeouts = timeouts;
        self
    }
}

fn authority_of(address: &str) -> Option<Authority> {
    let authority: Authority = address.parse().ok()?;
    let plain = !address.contains('@') && !authority.host().is_empty() && authority.port_u16().is_some();
    plain.then_some(authority)
}

impl Source for IssuerSource {
    type Keys = ClientKey;

    fn register(&self, policies: &mut TlsPolicies) -> ClientKey {
        policies.client(ClientPolicy {
            alpn: vec![b"h2".to_vec()],
            servers: self.endpoint.expected(),
            credentials: ClientCredentials::Svid,
        })
    }

    async fn run(self, key: ClientKey, mut delivery: Delivery) {
        delivery.monitor().uses_issuer();
        let holder = Holder {
            clock: delivery.monitor().clock().clone(),
            endpoint: self.endpoint,
            credential: self.credential,
            wanted: self.wanted,
            key,
            in_force: Mutex::default(),
        };
        let mut backoff = Backoff::new();
        loop {
            holder.keep_alive(&mut delivery).await;
            // Before it is read, so that one that is written meanwhile is a new one.
            let shown = holder.credential.version().await;
            match holder.attest(&mut delivery).await {
                Accepted::Yes => backoff.reset(),
                Accepted::After(pause) => tokio::time::sleep(backoff.delay().max(drawn_after(pause))).await,
                Accepted::NotYet => {
                    backoff.reset();
                    tokio::time::sleep(backoff.delay()).await;
                }
                Accepted::No => tokio::select! {
                    () = tokio::time::sleep(backoff.delay()) => {}
                    () = holder.credential.another_than(shown) => backoff.reset(),
                },
            }
        }
    }
}

/// Who holds, or wants to hold, an SVID of this issuer.
struct Holder {
    clock: SharedClock,
    endpoint: Endpoint,
    credential: Credential,
    wanted: Option<WorkloadId>,
    key: ClientKey,
    in_force: Mutex<Versions>,
}

impl Holder {
    /// Exchanges the credential for an SVID.
    async fn attest(&self, delivery: &mut Delivery) -> Accepted {
        let (mut waited, mut come_again) = (false, None);
        let attested = match self.credential.read().await {
            Ok(shown) => {
                // Whoever had an identity wants none but that.
                let held = delivery.live().map(|live| live.load_full().svid().id().clone());
                let wanted = held.as_ref().or(self.wanted.as_ref());
                let attested = client::attest(&self.endpoint, &self.clock, shown, wanted).await;
                waited = attested.as_ref().is_err_and(CallError::is_not_given_yet);
                come_again = attested.as_ref().err().and_then(CallError::come_again);
                attested.map_err(|error| {
                    let remedy = if error.is_proof_refused() { Remedy::Credential } else { Remedy::TimeOrCredential };
                    self.explain(delivery, cause::whole(&error), remedy)
                })
            }
            Err(error) => Err(self.explain(delivery, cause::whole(&error), Remedy::TimeOrCredential)),
        };
        match self.accept(attested, delivery) {
            // The issuer has waited for the policy already.
            Accepted::No if waited => Accepted::NotYet,
            Accepted::No if come_again.is_some() => Accepted::After(come_again.unwrap_or_default()),
            accepted => accepted,
        }
    }

    /// A successor of `held`: by itself, or by the credential where what it was attested as counts no more. So whoever was evicted
    /// and can prove itself again never lacks an SVID.
    async fn succeed(&self, client: IssuerClient, held: WorkloadId) -> Result<Answered, CallError> {
        let refused = match client.renew().await {
            Err(refused) if refused.is_standing_refused() => refused,
            renewed => return renewed,
        };
        let again = match self.credential.read().await {
            Ok(shown) => client::attest(&self.endpoint, &self.clock, shown, Some(&held)).await,
            Err(error) => Err(error.into()),
        };
        again.map_err(|source| CallError::NorAgain { refused: Box::new(refused), source: Box::new(source) })
    }

    /// Why there is no SVID, and what an operator can do.
    fn explain(&self, delivery: &Delivery, cause: Arc<str>, remedy: Remedy) -> Arc<str> {
        let advice = match (self.credential.advice(), remedy) {
            (None, _) => String::new(),
            (Some(advice), Remedy::Credential) => format!("; waiting does not help: {advice}"),
            (Some(advice), Remedy::TimeOrCredential) => format!("; if waiting does not help, {advice}"),
        };
        match (delivery.live(), remedy) {
            (None, Remedy::TimeOrCredential) => cause,
            (None, Remedy::Credential) => format!("{cause}{advice}").into(),
            (Some(live), _) => {
                let snapshot = live.load();
                let (id, not_after) = (snapshot.svid().id(), wall_clock::written(&snapshot.svid().not_after()));
                format!(
                    "the certificate of {id} is not valid now (its end: {not_after}), so that it cannot renew itself: \
                     {cause}{advice}"
                )
                .into()
            }
        }
    }

    /// Makes an answer live, if it is one and of the identity that is held.
    fn accept(&self, answered: Result<Answered, Arc<str>>, delivery: &mut Delivery) -> Accepted {
        let Answered { material, versions } = match answered {
            Ok(answered) => answered,
            Err(cause) => {
                delivery.monitor().renewal_failed(cause);
                return Accepted::No;
            }
        };
        if let Some(live) = delivery.live()
            && let Err(other) = same_identity(&material, &live.load())
        {
            delivery.monitor().refused(cause::whole(&other));
            return Accepted::No;
        }
        match delivery.offer(material) {
            Ok(_) => {
                *self.versions() = versions;
                Accepted::Yes
            }
            Err(_) => Accepted::No,
        }
    }

    fn versions(&self) -> MutexGuard<'_, Versions> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews the live SVID and follows the issuer's stream. Returns when there is no valid SVID.
    async fn keep_alive(&self, delivery: &mut Delivery) {
        while let Some(snapshot) = self.valid(delivery) {
            self.keep(snapshot, delivery).await;
        }
    }

    fn valid(&self, delivery: &Delivery) -> Option<Arc<Snapshot>> {
        delivery.live().map(|live| live.load_full()).filter(|held| held.svid().is_valid_at(self.clock.now()))
    }

    /// Sees one SVID through its life: until it has a successor, or expires.
    async fn keep(&self, held: Arc<Snapshot>, delivery: &mut Delivery) {
        let Some(live) = delivery.live().cloned() else { return };
        let (svid, clock) = (held.svid(), &*self.clock);
        let life = Duration::try_from(svid.not_after() - svid.not_before()).unwrap_or_default();
        let endpoint = self.endpoint.in_time_for(life);
        let connect = || IssuerClient::new(&endpoint, live.clone(), self.key, self.clock.clone());
        let mut client = connect();
        let monitor = delivery.monitor().clone();
        let follow = |client, versions| Following::new(client, monitor.clone(), Backoff::for_life(life), versions);
        let mut following = follow(client.clone(), self.versions().clone());
        let mut backoff = Backoff::for_life(life);
        let mut due = Due::At(renewal_of(svid, clock.now()));
        let mut asking: Option<Asking<'_>> = None;
        let not_sooner = Instant::now() + backoff::FLOOR;

        loop {
            tokio::select! {
                () = due.reached(clock), if asking.is_none() => {
                    asking = Some(Box::pin(self.succeed(client.clone(), svid.id().clone())));
                }
                renewed = answer(&mut asking) => {
                    asking = None;
                    let connection_failed = renewed.as_ref().is_err_and(CallError::is_of_the_connection);
                    let come_again = renewed.as_ref().err().and_then(CallError::come_again).unwrap_or_default();
                    let is_ours = renewed.as_ref().is_err_and(|error| !error.is_of_the_issuer());
                    if self.accept(renewed.map_err(|error| cause::whole(&error)), delivery) == Accepted::Yes {
                        return;
                    }
                    if connection_failed || !is_ours && !endpoint.addresses.is_one() {
                        // The connection may be dead without a word, or the issuer: the next attempt makes another, perhaps elsewhere.
                        client.give_up();
                        client = connect();
                        following = follow(client.clone(), following.versions());
                    }
                    due = Due::In(Instant::now() + backoff.delay().max(drawn_after(come_again)));
                }
                wish = following.next() => match wish {
                    Wish::Bundles { bundles, version } => {
                        let replaced = self.replace_bundles(bundles, delivery);
                        following.applied(Resource::Bundles, version, replaced);
                        *self.versions() = following.versions();
                    }
                    // In force with the next certificate.
                    Wish::Entitlement { within } => due = due.no_later_than(within, not_sooner, clock),
                    Wish::NotGiven { version } => following.applied(Resource::Entitlement, version, Ok(())),
                    Wish::RenewNow { within } => due = due.no_later_than(within, not_sooner, clock),
                },
                () = wall_clock::until(clock, svid.not_after()) => return,
            }
        }
    }

    /// A refusal is counted and logged; the stream goes on, and its next message may be better.
    fn replace_bundles(&self, bundles: BundleSet, delivery: &mut Delivery) -> Result<(), String> {
        let Some(current) = delivery.live().map(|live| live.load_full()) else { return Ok(()) };
        if *current.bundles() == bundles {
            return Ok(());
        }
        let offered = delivery.offer(Material { svid: current.svid().clone(), bundles });
        offered.map(drop).map_err(|refused| cause::whole(&refused).to_string())
    }
}

/// What may help whoever has no SVID.
#[derive(Clone, Copy, Debug)]
enum Remedy {
    /// The issuer does not accept the proof that there is.
    Credential,
    /// The issuer may come back; after an expiry it wants proof all the same.
    TimeOrCredential,
}

/// Whether there is a new SVID. If not, why has been told, and what is left to do is to wait.
#[derive(Debug, Eq, PartialEq)]
enum Accepted {
    Yes,
    No,
    /// The policy gives nothing yet: asking again is waiting.
    NotYet,
    /// The issuer wants to be left alone for so long.
    After(Duration),
}

/// Not before `pause`, and up to half of it later: those who were told the same do not come at once.
fn drawn_after(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + random_fraction() / 2.0)
}

/// A renewal that the issuer has not answered yet.
type Asking<'a> = Pin<Box<dyn Future<Output = Result<Answered, CallError>> + Send + 'a>>;

async fn answer(asking: &mut Option<Asking<'_>>) -> Result<Answered, CallError> {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// When to renew.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// The point drawn for the certificate.
    At(OffsetDateTime),
    /// After a failure, or because the issuer wishes it.
    In(Instant),
}

impl Due {
    async fn reached(self, clock: &dyn Clock) {
        match self {
            Self::At(moment) => wall_clock::until(clock, moment).await,
            Self::In(instant) => tokio::time::sleep_until(instant).await,
        }
    }

    /// A moment drawn from the time that the issuer grants, unless this comes first. Not before `not_sooner`: an issuer
    /// that wishes all the time shall not be asked all the time.
    fn no_later_than(self, within: Duration, not_sooner: Instant, clock: &dyn Clock) -> Self {
        let drawn = Instant::now() + within.mul_f64(random_fraction());
        let planned = match self {
            Self::At(moment) => Instant::now() + wall_clock::remaining(clock, moment).unwrap_or_default(),
            Self::In(instant) => instant,
        };
        if planned <= drawn { self } else { Self::In(drawn.max(not_sooner)) }
    }
}

/// When to renew what was received `now`: at the point drawn for it, but not before a fifth of what is left of its life.
/// Of a short life that was backdated far, the point may be over already, and so it would be with each successor.
fn renewal_of(svid: &X509Svid, now: OffsetDateTime) -> OffsetDateTime {
    svid.renew_at().max(now + (svid.not_after() - now) / 5)
}

/// An issuer gave an SVID to somebody else's name.
#[derive(Debug, thiserror::Error)]
#[error("the issuer answered with a certificate of {got}, this is {held}")]
struct OtherIdentity {
    held: WorkloadId,
    got: WorkloadId,
}

fn same_identity(material: &Material, held: &Snapshot) -> Result<(), OtherIdentity> {
    let (got, held) = (material.svid.id(), held.svid().id());
    if got == held { Ok(()) } else { Err(OtherIdentity { held: held.clone(), got: got.clone() }) }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
