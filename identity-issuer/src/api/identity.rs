//! `signet.identity.v1`: how identities are fetched and kept alive.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use signet_identity::{PeerIdentity, SharedClock};
use signet_process::log_limit::LogLimit;
use signet_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use signet_proto::identity::v1::{
    AttestRequest, AttestResponse, RenewNow, RenewRequest, RenewResponse, WatchRequest, WatchResponse,
    attest_request::Proof, watch_response,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::{bundles, companions, not_attested, report, store_status, svid};
use crate::attestation::{Attestation, Attested, JoinTokens, NotAttested};
use crate::distribution::{Distribution, Event, Subscription};
use crate::issuance::Issuance;
use crate::metrics::{Counted, Metrics};
use crate::server::Caller;

#[derive(Debug)]
pub(crate) struct IdentityApi {
    pub(crate) join_tokens: JoinTokens,
    pub(crate) issuance: Issuance,
    pub(crate) distribution: Distribution,
    pub(crate) metrics: Metrics,
    pub(crate) clock: SharedClock,
    /// Of what is written of proofs that are not accepted.
    pub(crate) refusals: LogLimit,
}

/// Any request is a CSR of 4 KiB at most, and a few words.
const MAX_MESSAGE: usize = 64 * 1024;

impl IdentityApi {
    pub(crate) async fn into_routes(self) -> Result<Routes, tonic_reflection::server::Error> {
        let (health, reflection) = companions::<IdentityServiceServer<Self>>().await?;
        let service = IdentityServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE);
        Ok(Routes::new(service).add_service(health).add_service(reflection).prepare())
    }

    /// Who calls, by the certificate of the connection, which must not have expired since its handshake.
    fn peer<T>(&self, request: &Request<T>) -> Result<(Arc<PeerIdentity>, CancellationToken), Status> {
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        let peer = caller.peer.clone().ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        if self.clock.now() > peer.expires_at() {
            return Err(Status::unauthenticated("the client certificate has expired"));
        }
        Ok((peer, caller.ending.clone()))
    }

    async fn attest_by(&self, proof: &Proof, request: &Caller) -> Result<Attested, Status> {
        let Proof::JoinToken(token) = proof;
        self.join_tokens.attest(token).await.map_err(|refused| {
            let reason = match &refused {
                NotAttested::Malformed => "malformed",
                NotAttested::Unknown => "unknown",
                NotAttested::Used { .. } => "used",
                NotAttested::Expired { .. } => "expired",
                NotAttested::Store(error) => return store_status(error),
            };
            self.metrics.attestation_refused("join_token", reason);
            if let Some(suppressed) = self.refusals.admit() {
                let address = request.address.map(|address| address.to_string());
                let cause = report(&refused);
                tracing::warn!(peer.address = address, reason, cause, suppressed, "attestation refused");
            }
            not_attested()
        })
    }
}

#[tonic::async_trait]
impl IdentityService for IdentityApi {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn attest(&self, request: Request<AttestRequest>) -> Result<Response<AttestResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Status::internal("a connection without a caller"))?;
        let _working = caller.work.begin();
        let AttestRequest { proof, csr } = request.into_inner();
        let proof = proof.ok_or_else(|| Status::invalid_argument("proof: missing"))?;
        let attested = self.attest_by(&proof, &caller).await?;
        let certificate = self.issuance.issue(attested, &csr).await?.release();
        let bundles = bundles(&self.distribution.bundles());
        Ok(Response::new(AttestResponse { svid: Some(svid(certificate)), bundles: Some(bundles) }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let (peer, _) = self.peer(&request)?;
        let serial = hex::decode(peer.serial().to_string()).unwrap_or_default();
        let attested = Attested { id: peer.id().clone(), attestation: Attestation::Svid(serial) };
        let certificate = self.issuance.issue(attested, &request.into_inner().csr).await?.release();
        let bundles = bundles(&self.distribution.bundles());
        Ok(Response::new(RenewResponse { svid: Some(svid(certificate)), bundles: Some(bundles) }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (peer, ending) = self.peer(&request)?;
        let subscription = self
            .distribution
            .subscribe(peer.id().clone())
            .map_err(|full| Status::resource_exhausted(full.to_string()))?;
        let watching = Watching { subscription, ending, _counted: self.metrics.client() };
        Ok(Response::new(Box::pin(futures_util::stream::unfold(Some(watching), Watching::next))))
    }
}

/// One Watch stream.
struct Watching {
    subscription: Subscription,
    /// The connection's end: it comes with its certificate's.
    ending: CancellationToken,
    _counted: Counted,
}

impl Watching {
    async fn next(watching: Option<Self>) -> Option<(Result<WatchResponse, Status>, Option<Self>)> {
        let mut watching = watching?;
        let event = watching.ending.run_until_cancelled(watching.subscription.next()).await.flatten();
        match event {
            Some(event) => Some((Ok(message(event)), Some(watching))),
            // An end that the caller can tell from a broken connection: it opens another stream.
            None => Some((Err(Status::unavailable("this connection ends; watch on a new one")), None)),
        }
    }
}

fn message(event: Event) -> WatchResponse {
    let event = match event {
        Event::Bundles(set) => watch_response::Event::Bundles(bundles(&set)),
        Event::RenewNow(renew_now) => watch_response::Event::RenewNow(RenewNow {
            // Bounded by the administrator's API to far less than a Duration holds.
            within: prost_types::Duration::try_from(renew_now.within).ok(),
        }),
    };
    WatchResponse { event: Some(event) }
}
