//! An identity from an issuer: attested once with a credential, then renewed over mTLS for as long as the program runs. The
//! first one goes live when the issuer's stream has told all that is revoked: nobody is served before.
//!
//! ```text
//!            credential                 renewal point, "renew now", or revoked
//!  (nothing) ──────────► holds an SVID ──────────────────────────────► holds its successor …
//!      ▲                      │                                               │
//!      └──────────────────────┴── expired while the issuer was away ──────────┘
//! ```

mod addresses;
mod answer;
mod client;
mod credential;
mod follow;
mod holder;
mod logged;
mod request;
mod revocations;
mod token;
mod turns;
mod way;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::uri::Authority;
use signet_audit::VerifierKey;
use signet_identity::{
    ClientCredentials, ClientKey, ClientPolicy, Snapshot, SpiffeIdError, SpiffeIdPatterns, TlsPolicies, TrustBundle,
    TrustDomain, WorkloadId,
};

use self::{
    addresses::Addresses,
    holder::{Accepted, Holder},
    turns::Turns,
};
use crate::{Delivery, Source, backoff::Backoff};

pub use self::{credential::Credential, token::JoinToken};
/// The public key of an issuer's audit log: `ORIGIN+HASH+KEY`, as in its `audit/log.key.pub`.
pub use signet_audit::VerifierKey as LogKey;

/// What was signed, for `fuzz/targets/revocations.rs`.
#[cfg(fuzzing)]
#[allow(missing_docs)]
pub fn decoded_revocations(statement: &[u8]) -> Option<signet_identity::RevocationStatement> {
    revocations::decoded(statement).ok()
}

/// The path of an issuer's own identity, below its trust domain.
const ISSUER_PATH: &str = "/signet/issuer";

/// However short an SVID lives: this much any issuer may take.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(500);

/// Where there are several issuers: how long one of them may take to connect, and to answer the holder of an SVID.
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
    /// For a call where none that was shorter came to anything.
    longest: Duration,
    /// Of the audit logs that certificates have to be in; none where they need be in none.
    log_keys: Arc<[VerifierKey]>,
}

impl Endpoint {
    fn address(&self) -> String {
        self.addresses.to_string()
    }

    /// The issuer's.
    fn trust_domain(&self) -> &TrustDomain {
        self.bootstrap.trust_domain()
    }

    /// The same for the holder of an SVID with this life: no call takes longer than an eighth of it, so that one that
    /// hangs leaves time for others.
    fn in_time_for(&self, life: Duration) -> Self {
        let mut most = (life / 8).max(SHORTEST_TIMEOUT);
        let Timeouts { connect, request } = self.timeouts;
        let longest = request.min(most);
        // Another may answer sooner.
        if !self.addresses.is_one() {
            most = most.min(OF_SEVERAL);
        }
        let timeouts = Timeouts { connect: connect.min(most), request: request.min(most) };
        Self { timeouts, longest, ..self.clone() }
    }

    /// For one call, when so many rounds of all issuers have come to nothing: it may be that none of them is that quick today.
    fn patience(&self, rounds: u32) -> Duration {
        self.timeouts.request.saturating_mul(1 << rounds.min(8)).min(self.longest)
    }

    /// Whom to believe without an SVID. Issuers may have gone over to another root since the program began.
    fn believed(&self, held: Option<&Snapshot>) -> TrustBundle {
        let live = held.and_then(|held| held.bundles().get(self.bootstrap.trust_domain()));
        let Some(live) = live else { return self.bootstrap.clone() };
        let both = self.bootstrap.authorities().iter().chain(live.authorities()).cloned().collect();
        TrustBundle::new(live.trust_domain().clone(), both).unwrap_or_else(|_| live.clone())
    }

    /// For a rule, in a call that attests: shorter than the call may take, so that the answer comes within it.
    fn wait(&self) -> Duration {
        self.timeouts.request * 3 / 5
    }

    fn requires_log(&self) -> bool {
        !self.log_keys.is_empty()
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
        let timeouts = Timeouts::default();
        let endpoint = Endpoint {
            addresses: Addresses::new(named),
            id,
            bootstrap,
            longest: timeouts.request,
            timeouts,
            log_keys: Arc::default(),
        };
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

    /// Takes certificates only with a proof that they are in an audit log that one of these keys signs: of each issuer, its log's. One that
    /// comes without never takes the place of a good one, and is asked for again. Costs half a second at each renewal.
    pub fn require_logged(mut self, keys: impl IntoIterator<Item = LogKey>) -> Self {
        self.endpoint.log_keys = keys.into_iter().collect();
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
        let mut turns = Turns::new(&holder.endpoint.addresses, Backoff::new());
        loop {
            holder.keep_alive(&mut delivery).await;
            turns.is_there_one().await;
            // Before it is read, so that one that is written meanwhile is a new one.
            let shown = holder.credential.version().await;
            let wait = match holder.attest(&mut delivery, &mut turns).await {
                Accepted::Yes => {
                    turns.reset();
                    continue;
                }
                Accepted::NotYet => {
                    turns.reset();
                    tokio::time::sleep(turns.pause()).await;
                    continue;
                }
                Accepted::After(wait) => wait,
                Accepted::No => turns.pause(),
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = holder.credential.another_than(shown) => turns.reset(),
            }
        }
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
