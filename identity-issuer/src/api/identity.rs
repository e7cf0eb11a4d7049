//! `signet.identity.v1`: how identities are fetched and kept alive.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use signet_identity::{PeerIdentity, SharedClock, WorkloadId};
use signet_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use signet_proto::identity::v1::{
    AttestRequest, AttestResponse, ChallengeRequest, ChallengeResponse, IssueJwtRequest, IssueJwtResponse,
    IssueRequest, IssueResponse, LogPlace, RenewRequest, RenewResponse, WatchRequest, WatchResponse,
    attest_request::Proof,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

use super::admin::GuardedAdmin;
use super::attestors::Attestors;
use super::watching::{Holder, Watching};
use super::{BUSY, bundles, companions, parse_id, report, span, store_status, svid, timestamp, too_many};
use crate::admission::{Admission, Limit};
use crate::agents::Agents;
use crate::attestation::{Attestation, Attested, Method, NotAttested, TokenError};
use crate::audit::{LogProofs, Refusals};
use crate::distribution::{Distribution, Watcher};
use crate::entitlement::{Entitlement, Grounds, NotEntitled, Wanted, entitle};
use crate::issuance::{Issuance, IssueError};
use crate::jwt::Tokens;
use crate::metrics::Metrics;
use crate::policy::Policies;
use crate::revocation::{Revocations, SerialNumber};
use crate::server::Caller;

#[derive(Debug)]
pub(crate) struct IdentityApi {
    pub(crate) attestors: Attestors,
    pub(crate) agents: Agents,
    pub(crate) policies: Policies,
    pub(crate) issuance: Issuance,
    /// None where no tokens are made.
    pub(crate) tokens: Option<Tokens>,
    pub(crate) distribution: Distribution,
    pub(crate) revocations: Revocations,
    pub(crate) admission: Admission,
    pub(crate) metrics: Metrics,
    pub(crate) clock: SharedClock,
    /// For an identity that the policy does not give yet.
    pub(crate) longest_wait: Duration,
    /// Of what is written of proofs that are not accepted.
    pub(crate) refusals: Refusals,
    pub(crate) log_proofs: LogProofs,
}

/// Any request is a CSR of 4 KiB at most, a proof of 32 KiB at most, and a few words.
const MAX_MESSAGE: usize = 64 * 1024;

impl IdentityApi {
    /// For the network, with the administration beside it.
    pub(crate) async fn into_routes(self, admin: GuardedAdmin) -> Result<Routes, tonic_reflection::server::Error> {
        let (health, reflection) = companions::<IdentityServiceServer<Self>>().await?;
        let service = IdentityServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE);
        Ok(Routes::new(service).add_service(admin).add_service(health).add_service(reflection).prepare())
    }

    /// Who calls, by the certificate of the connection, which must not have expired since its handshake.
    pub(super) fn peer<T>(&self, request: &Request<T>) -> Result<(Arc<PeerIdentity>, CancellationToken), Status> {
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        let peer = caller.peer.clone().ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        if self.clock.now() > peer.expires_at() {
            return Err(Status::unauthenticated("the client certificate has expired"));
        }
        Ok((peer, caller.ending.clone()))
    }

    async fn attest_by(&self, proof: &Proof, csr: &[u8], caller: &Caller) -> Result<Attested, Status> {
        let (method, attested) = self.attestors.attest(proof, csr).await;
        attested.map_err(|refused| self.refuse(method, &refused, caller))
    }

    /// What the policy gives, now or as soon as it does within this time.
    async fn entitle_within(
        &self,
        wait: Duration,
        grounds: &Grounds,
        wanted: Option<&WorkloadId>,
        ending: &CancellationToken,
    ) -> Result<Entitlement, NotEntitled> {
        let mut changes = self.policies.changes();
        let end = tokio::time::sleep(wait);
        let mut end = std::pin::pin!(end);
        loop {
            changes.mark_unchanged();
            let entitled = entitle(&self.policies.current(), grounds, Wanted::identity(wanted), self.clock.now());
            match &entitled {
                Err(NotEntitled::NoRule { .. } | NotEntitled::NotGiven { .. })
                    if !end.is_elapsed() && !ending.is_cancelled() => {}
                _ => return entitled,
            }
            tokio::select! {
                () = &mut end => {}
                () = ending.cancelled() => {}
                // The sender lives in `policies`.
                _ = changes.changed() => {}
            }
        }
    }

    /// Why somebody who was attested has no certificate all the same.
    fn not_issued(&self, method: Method, error: IssueError, caller: &Caller) -> Status {
        match error {
            IssueError::ProofUsed => {
                self.tell_refused(method, "used", &error.to_string(), caller);
                match method {
                    Method::JoinToken => token_not_accepted(),
                    _ => Status::unauthenticated(format!("{method}: {error}")),
                }
            }
            error => error.into(),
        }
    }

    /// Counts it, and writes it down as far as the log has room for such.
    fn tell_refused(&self, method: Method, reason: &'static str, cause: &str, caller: &Caller) {
        let method = method.as_str();
        self.metrics.attestation_refused(method, reason);
        let address = caller.address.map(|address| address.to_string());
        let whom = address.as_deref().unwrap_or_default();
        if let Some(suppressed) = self.refusals.tell(&format!("attestation {method}"), whom, cause) {
            tracing::warn!(peer.address = address, method, reason, cause, suppressed, "attestation refused");
        }
    }

    /// Where in the log an entry is. A certificate does not wait for ever for its proof: whoever cannot do without takes none.
    pub(super) async fn log_place(&self, index: u64, with_proof: bool) -> LogPlace {
        let origin = self.log_proofs.origin().to_string();
        let proof = if with_proof { self.log_proofs.of(index).await } else { Ok(String::new()) };
        let proof = proof.unwrap_or_else(|error| {
            tracing::error!(cause = report(&error), "a certificate leaves without the proof that was asked for");
            String::new()
        });
        LogPlace { origin, index, proof }
    }

    /// Has it in the log that somebody who is known was refused `what`, before anything was signed.
    pub(super) fn told(&self, what: &str, whom: &WorkloadId, status: Status) -> Status {
        if status.code() == Code::PermissionDenied {
            self.refusals.tell(what, whom.as_str(), status.message());
        }
        status
    }

    fn refuse(&self, method: Method, refused: &NotAttested, caller: &Caller) -> Status {
        if let NotAttested::Store(error) = refused {
            return store_status(error);
        }
        let (reason, cause) = (refused.reason(), report(refused));
        let field = refused.field();
        self.tell_refused(method, reason, &cause, caller);
        match refused {
            NotAttested::JoinToken(_) => token_not_accepted(),
            NotAttested::Token(TokenError::NoKeysYet) => Status::unavailable(format!("{method}: {cause}")),
            _ => Status::unauthenticated(format!("{method}{field}: {cause}")),
        }
    }
}

/// Whoever guesses tokens learns nothing.
fn token_not_accepted() -> Status {
    Status::unauthenticated("join_token: not accepted")
}

/// Of the certificate that a caller shows.
pub(super) fn serial_of(peer: &PeerIdentity) -> Vec<u8> {
    peer.serial().as_bytes().to_vec()
}

#[tonic::async_trait]
impl IdentityService for IdentityApi {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn attest(&self, request: Request<AttestRequest>) -> Result<Response<AttestResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::internal("a connection without a caller"))?;
        let working = caller.work.begin();
        let AttestRequest { proof, csr, spiffe_id, wait, with_log_proof } = request.into_inner();
        let wait = span(wait.unwrap_or_default());
        let wait = wait.ok_or_else(|| Status::invalid_argument("wait: negative, or no time"))?;
        let wait = wait.min(self.longest_wait);
        let proof = proof.ok_or_else(|| Status::invalid_argument("proof: missing"))?;
        let wanted = (!spiffe_id.is_empty()).then(|| parse_id(&spiffe_id, "spiffe_id")).transpose()?;
        if let Some(address) = caller.address {
            self.admission.attestation(address.ip())?;
        }
        let place = self.admission.first().await?;
        let attested = self.attest_by(&proof, &csr, &caller).await?;
        // Whoever waits for a rule takes no place from others, and gives way to them.
        drop((place, proof, working));
        let waiting = self.admission.waiting();
        let wait = if waiting.is_some() { wait } else { Duration::ZERO };
        let grounds = Grounds::Attested(attested.subject.clone());
        let entitled = self.entitle_within(wait, &grounds, wanted.as_ref(), &caller.ending).await;
        drop(waiting);
        let _working = caller.work.begin();
        let method = attested.evidence.method();
        let entitlement = entitled.inspect_err(|error| {
            self.tell_refused(method, "not_entitled", &error.to_string(), &caller);
        })?;
        let told = entitlement.clone();
        let place = self.admission.first().await?;
        let issued = self.issuance.issue(entitlement, Attestation::First(attested), &csr, Some(place)).await;
        let logged = issued.map_err(|error| self.not_issued(method, error, &caller))?;
        let log = self.log_place(logged.index(), with_log_proof).await;
        let bundles = bundles(&self.distribution, &told);
        Ok(Response::new(AttestResponse { svid: Some(svid(logged.release(), &told, log)), bundles: Some(bundles) }))
    }

    async fn challenge(&self, _: Request<ChallengeRequest>) -> Result<Response<ChallengeResponse>, Status> {
        let (challenge, expires_at) = self.attestors.challenge().map_err(|_| Status::internal("no random numbers"))?;
        Ok(Response::new(ChallengeResponse { challenge, expires_at: Some(timestamp(expires_at)) }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let (peer, _) = self.peer(&request)?;
        let serial = serial_of(&peer);
        self.admission.certificate(&serial)?;
        let refused = |status| self.told("renewal", peer.id(), status);
        let origin = self.agents.standing(&peer).await.map_err(|error| refused(error.into()))?;
        self.admission.renewal(origin.number)?;
        let (grounds, wanted) = (Grounds::to_keep(peer.id(), &origin), Wanted::identity(Some(peer.id())));
        let entitled = entitle(&self.policies.current(), &grounds, wanted, self.clock.now());
        let entitlement = entitled.map_err(|error| refused(error.into()))?;
        let told = entitlement.clone();
        let renewal = Attestation::Renewal { serial, of: origin.number };
        let RenewRequest { csr, with_log_proof } = request.into_inner();
        let logged = self.issuance.issue(entitlement, renewal, &csr, None).await?;
        let log = self.log_place(logged.index(), with_log_proof).await;
        let bundles = bundles(&self.distribution, &told);
        Ok(Response::new(RenewResponse { svid: Some(svid(logged.release(), &told, log)), bundles: Some(bundles) }))
    }

    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        self.issue_all(request).await
    }

    async fn issue_jwt(&self, request: Request<IssueJwtRequest>) -> Result<Response<IssueJwtResponse>, Status> {
        self.issue_token(request).await
    }

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (peer, ending) = self.peer(&request)?;
        let serial = serial_of(&peer);
        self.admission.certificate(&serial)?;
        let origin = self.agents.standing(&peer).await?;
        let grounds = Grounds::to_keep(peer.id(), &origin);
        let watcher = Watcher {
            id: peer.id().clone(),
            attested: origin.attested,
            attestation: origin.number,
            position: origin.position,
            serial: SerialNumber::from_be_bytes(&serial)
                .ok_or_else(|| Status::internal("a serial number that is none"))?,
            authority: origin.authority,
        };
        let subscription = self
            .distribution
            .subscribe(watcher, self.clock.now())
            .map_err(|full| too_many(full.to_string(), self.admission.refuse(Limit::Watchers, BUSY).after))?;
        // Once more: whoever lost its standing before it had a place was not among those whose streams were ended.
        self.agents.standing(&peer).await?;
        let holder = Holder {
            id: peer.id().clone(),
            grounds,
            policies: self.policies.clone(),
            revocations: self.revocations.clone(),
            clock: self.clock.clone(),
        };
        let watching = Watching::new(holder, subscription, request.into_inner(), ending, self.metrics.client());
        Ok(Response::new(Box::pin(futures_util::stream::unfold(Some(watching), Watching::next))))
    }
}
