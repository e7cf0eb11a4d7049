//! One SVID after the other: got by the credential, renewed by itself, and by the credential again where that is refused.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use signet_identity::{BundleSet, ClientKey, Clock, Material, SharedClock, Snapshot, WorkloadId, X509Svid};
use signet_proto::identity::v1::{self, Resource};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::debug;

use super::{
    Credential, Endpoint,
    answer::{Answered, Versions, version},
    client::{self, CallError, IssuerClient, Issuers},
    follow::{Following, Wish},
    revocations,
    turns::Turns,
};
use crate::{
    Delivery,
    backoff::{self, Backoff, random_fraction},
    cause, wall_clock,
};

/// Who holds, or wants to hold, an SVID of this issuer.
pub(super) struct Holder {
    pub(super) clock: SharedClock,
    pub(super) endpoint: Endpoint,
    pub(super) credential: Credential,
    pub(super) wanted: Option<WorkloadId>,
    pub(super) key: ClientKey,
    pub(super) in_force: Mutex<Versions>,
}

/// Over which those renew whose own certificate does not go with what is to be trusted.
const OTHER_ROOT: Duration = Duration::from_secs(10);

impl Holder {
    /// Exchanges the credential for an SVID.
    pub(super) async fn attest(&self, delivery: &mut Delivery, turns: &mut Turns) -> Accepted {
        let (mut waited, mut wait) = (false, None);
        let attested = match self.credential.read().await {
            Ok(shown) => {
                // Whoever had an identity wants none but that.
                let held = delivery.live().map(|live| live.load_full());
                let wanted = held.as_ref().map(|held| held.svid().id()).or(self.wanted.as_ref());
                let asked = Instant::now();
                let attested =
                    client::attest(&self.endpoint, &self.clock, shown, held.as_deref(), wanted, Duration::MAX).await;
                // Who is refused at once, for a ban or by an issuer that waits for nobody, is not to ask in a tight loop.
                let was_held = asked.elapsed() >= self.endpoint.wait() / 2;
                waited = was_held && attested.as_ref().is_err_and(CallError::is_not_given_yet);
                wait = attested.as_ref().err().map(|error| turns.after(error));
                attested.map_err(|error| {
                    let remedy = if error.is_proof_refused() { Remedy::Credential } else { Remedy::TimeOrCredential };
                    self.explain(delivery, cause::whole(&error), remedy)
                })
            }
            Err(error) => Err(self.explain(delivery, cause::whole(&error), Remedy::TimeOrCredential)),
        };
        match (self.accept(attested, delivery), wait) {
            // The issuer has waited for the policy already.
            (Accepted::No, _) if waited => Accepted::NotYet,
            (Accepted::No, Some(wait)) => Accepted::After(wait),
            (accepted, _) => accepted,
        }
    }

    /// A successor of `held`: by itself, or by the credential where what it was attested as counts no more, or it is revoked. So
    /// whoever was evicted and can prove itself again never lacks an SVID.
    async fn succeed(&self, client: &IssuerClient, held: &Snapshot, patience: Duration) -> Result<Answered, CallError> {
        let refused = match client.renew(patience).await {
            // Nobody need speak with whoever shows a certificate that is revoked, not even to refuse it.
            Err(refused) if refused.is_standing_refused() || held.own_revoked().is_some() => refused,
            renewed => return renewed,
        };
        let again = match self.credential.read().await {
            Ok(shown) => {
                let svid = held.svid();
                let longest = wall_clock::remaining(&*self.clock, svid.not_after()).unwrap_or_default() / 4;
                client::attest(&self.endpoint, &self.clock, shown, Some(held), Some(svid.id()), longest).await
            }
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
        let Answered { mut material, versions } = match answered {
            Ok(answered) => answered,
            Err(cause) => {
                delivery.monitor().renewal_failed(cause);
                return Accepted::No;
            }
        };
        if let Some(live) = delivery.live() {
            let held = live.load();
            if let Err(other) = same_identity(&material, &held) {
                delivery.monitor().refused(cause::whole(&other));
                return Accepted::No;
            }
            material.revocations = held.revocations().clone();
        }
        match delivery.prepare(material) {
            Ok(snapshot) => {
                *self.versions() = versions;
                self.announce(&snapshot, delivery);
                Accepted::Yes
            }
            Err(_) => Accepted::No,
        }
    }

    /// Lets the first identity be used, once it is known what is revoked.
    fn announce(&self, held: &Snapshot, delivery: &mut Delivery) {
        if revocations::is_complete(held, self.endpoint.trust_domain()) && held.own_revoked().is_none() {
            delivery.announce();
        }
    }

    fn versions(&self) -> MutexGuard<'_, Versions> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews the live SVID and follows the issuer's stream. Returns when there is no valid SVID.
    pub(super) async fn keep_alive(&self, delivery: &mut Delivery) {
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
        let addresses = endpoint.addresses.clone();
        let issuers = Arc::new(Issuers::new(endpoint, live, self.key, self.clock.clone()));
        let monitor = delivery.monitor().clone();
        let turns = || Turns::new(&addresses, Backoff::for_life(life));
        let follow = |versions| Following::new(issuers.clone(), monitor.clone(), turns(), versions);
        let mut following = follow(self.versions().clone());
        let mut turns = turns();
        let mut due = Due::At(renewal_of(svid, clock.now()));
        let mut asking: Option<Asking<'_>> = None;
        let mut not_sooner = Instant::now() + backoff::FLOOR;

        loop {
            tokio::select! {
                () = due.reached(clock), if asking.is_none() => {
                    let now_held = delivery.live().map_or_else(|| held.clone(), |live| live.load_full());
                    asking = Some(self.ask(issuers.asked(), now_held, issuers.patience(turns.rounds())));
                }
                (client, renewed) = answer(&mut asking) => {
                    asking = None;
                    let error = match renewed {
                        Ok(answered) => match self.accept(Ok(answered), delivery) {
                            Accepted::Yes => return,
                            _ => None,
                        },
                        Err(error) => Some(error),
                    };
                    let error = error.as_ref();
                    if error.is_none_or(CallError::is_of_the_issuer) {
                        let is_elsewhere = issuers.give_up(&client, error);
                        // It may be dead without a word.
                        let is_dead = error.is_some_and(CallError::is_of_the_connection);
                        if is_elsewhere || is_dead && issuers.connect_anew(&client) {
                            following = follow(following.versions());
                        }
                    }
                    let wait = match error {
                        // It has failed when all have.
                        Some(error) if turns.is_anothers(error) => {
                            debug!(cause = %cause::whole(error), "another issuer is asked");
                            turns.after(error)
                        }
                        Some(error) => {
                            delivery.monitor().renewal_failed(cause::whole(error));
                            turns.after(error)
                        }
                        None => turns.pause(),
                    };
                    let next = Instant::now() + wait;
                    not_sooner = not_sooner.max(next);
                    due = Due::In(next);
                }
                wish = following.next() => match wish {
                    Wish::Bundles { bundles, version } => {
                        let replaced = self.replace_bundles(bundles, delivery);
                        if replaced.is_err() {
                            // What is trusted from now on may be what the next certificate is signed under.
                            due = due.no_later_than(OTHER_ROOT, not_sooner, clock);
                        }
                        following.applied(Resource::Bundles, version, replaced);
                        *self.versions() = following.versions();
                    }
                    // In force with the next certificate.
                    Wish::Entitlement { within } => due = due.no_later_than(within, not_sooner, clock),
                    Wish::NotGiven { version } => following.applied(Resource::Entitlement, version, Ok(())),
                    Wish::RenewNow { within } => due = due.no_later_than(within, not_sooner, clock),
                    Wish::Authorities { chains, version } => {
                        let judged = self.judge_authorities(&chains, delivery);
                        delivery.monitor().told_of_authorities(chains);
                        following.applied(Resource::Authorities, version, judged);
                    }
                    Wish::Revocations(sent) => {
                        if self.revoke(sent, &following, delivery) == Own::Revoked {
                            due = due.no_later_than(Duration::ZERO, not_sooner, clock);
                        }
                    }
                },
                () = wall_clock::until(clock, svid.not_after()) => return,
            }
        }
    }

    fn ask(&self, client: IssuerClient, held: Arc<Snapshot>, patience: Duration) -> Asking<'_> {
        Box::pin(async move {
            let renewed = self.succeed(&client, &held, patience).await;
            (client, renewed)
        })
    }

    /// Puts into force what is revoked, and tells the issuer so, or why it is not.
    fn revoke(&self, mut sent: v1::Revocations, following: &Following, delivery: &mut Delivery) -> Own {
        let Some(held) = delivery.live().map(|live| live.load_full()) else { return Own::Good };
        let sent_version = version(Some(std::mem::take(&mut sent.version)));
        let known = match revocations::added(&sent, self.endpoint.trust_domain(), &held, self.clock.now()) {
            Ok(known) => known,
            Err(why) => {
                let cause = cause::whole(&why);
                following.applied(Resource::Revocations, sent_version, Err(cause.to_string()));
                match why.leaves_a_gap() {
                    true => following.give_up(why),
                    // What comes later is refused too, or goes on from what is known.
                    false => delivery.monitor().refused(cause),
                }
                return Own::Good;
            }
        };
        let in_force = match known == *held.revocations() {
            true => Ok(held),
            false => {
                let (svid, bundles) = (held.svid().clone(), held.bundles().clone());
                delivery.prepare(Material { svid, bundles, revocations: known })
            }
        };
        match in_force {
            Ok(held) => {
                following.applied(Resource::Revocations, sent_version, Ok(()));
                self.announce(&held, delivery);
                if delivery.monitor().live().is_some() {
                    // Before that, there was nobody who could have been connected.
                    delivery.monitor().connected();
                }
                if held.own_revoked().is_some() { Own::Revoked } else { Own::Good }
            }
            Err(refused) => {
                following.applied(Resource::Revocations, sent_version, Err(cause::whole(&refused).to_string()));
                Own::Good
            }
        }
    }

    /// Whether peers of each authority would be believed, by what is in force here and by this clock. The issuer hears of it before
    /// one of them signs.
    fn judge_authorities(&self, chains: &[Vec<CertificateDer<'static>>], delivery: &Delivery) -> Result<(), String> {
        let Some(held) = delivery.live().map(|live| live.load_full()) else {
            return Err("there is no identity".to_owned());
        };
        let trust_domain = self.endpoint.trust_domain();
        for (position, chain) in (1..).zip(chains) {
            held.accepts_authority(trust_domain, chain)
                .map_err(|refused| format!("authority {position}: {}", cause::whole(&refused)))?;
        }
        Ok(())
    }

    /// A refusal is counted and logged; the stream goes on, and its next message may be better.
    fn replace_bundles(&self, bundles: BundleSet, delivery: &mut Delivery) -> Result<(), String> {
        let Some(current) = delivery.live().map(|live| live.load_full()) else { return Ok(()) };
        if *current.bundles() == bundles {
            return Ok(());
        }
        let revocations = current.revocations().clone();
        let offered = delivery.prepare(Material { svid: current.svid().clone(), bundles, revocations });
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

/// What became of our own SVID.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Own {
    Good,
    Revoked,
}

/// Whether there is a new SVID. If not, why has been told, and what is left to do is to wait.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Accepted {
    Yes,
    No,
    /// The policy gives nothing yet: asking again is waiting.
    NotYet,
    /// The next attempt is due after this.
    After(Duration),
}

/// A renewal that the issuer has not answered yet.
type Asking<'a> = Pin<Box<dyn Future<Output = (IssuerClient, Result<Answered, CallError>)> + Send + 'a>>;

async fn answer(asking: &mut Option<Asking<'_>>) -> (IssuerClient, Result<Answered, CallError>) {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// When to renew.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
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
    pub(super) fn no_later_than(self, within: Duration, not_sooner: Instant, clock: &dyn Clock) -> Self {
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
pub(super) fn renewal_of(svid: &X509Svid, now: OffsetDateTime) -> OffsetDateTime {
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
