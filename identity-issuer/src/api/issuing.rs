//! `signet.identity.v1.IdentityService.Issue`: certificates for keys that their holder brings, for somebody who has an identity already.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use signet_identity::WorkloadId;
use signet_proto::identity::v1::{
    CertificateRequest, IssueRequest, IssueResponse, IssueResult, Refusal, X509Svid, issue_result,
};
use tonic::{Request, Response, Status};

use super::identity::{IdentityApi, serial_of};
use super::{PUSHBACK, parse_id, span, svid};
use crate::attestation::{Attestation, AttestationNumber};
use crate::entitlement::{Grounds, Wanted, entitle};

/// One message holds them all.
const MOST_REQUESTS: usize = 100;
/// So many are signed one after the other before others have the processor again.
const AT_ONCE: usize = 16;

/// In the log, of what was refused.
const CERTIFICATE: &str = "certificate";

/// Who asks, and by which certificate.
struct Holder {
    id: WorkloadId,
    serial: Vec<u8>,
    attestation: AttestationNumber,
    grounds: Grounds,
}

impl IdentityApi {
    pub(super) async fn issue_all(&self, request: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let (peer, _) = self.peer(&request)?;
        let serial = serial_of(&peer);
        self.admission.certificate(&serial)?;
        let requests = request.into_inner().requests;
        if requests.is_empty() || requests.len() > MOST_REQUESTS {
            return Err(Status::invalid_argument(format!("requests: not between 1 and {MOST_REQUESTS}")));
        }
        let refused = |status| self.told(CERTIFICATE, peer.id(), status);
        let origin = self.agents.standing(&peer).await.map_err(|error| refused(error.into()))?;
        // What was given beside an identity gives nothing more: a ban of any of them would have to follow it.
        if origin.attested != *peer.id() {
            return Err(refused(Status::permission_denied(format!("ask as {}, which was attested", origin.attested))));
        }
        self.admission.beside(origin.number, requests.len())?;
        let holder =
            Holder { id: peer.id().clone(), serial, attestation: origin.number, grounds: Grounds::beside(&origin) };
        // Some of them wait for the record together, so that one commit serves many.
        let issuing = requests.into_iter().enumerate().map(|(index, request)| self.issue_one(&holder, index, request));
        let results: Vec<_> = stream::iter(issuing).buffered(AT_ONCE).collect().await;
        let results = results.into_iter().enumerate().map(|(index, result)| {
            let result = match result {
                Ok(svid) => issue_result::Result::Certificate(svid),
                Err(status) => issue_result::Result::Refusal(refusal(index, &status)),
            };
            IssueResult { result: Some(result) }
        });
        Ok(Response::new(IssueResponse { results: results.collect() }))
    }

    async fn issue_one(&self, holder: &Holder, index: usize, request: CertificateRequest) -> Result<X509Svid, Status> {
        // Signing takes a processor: others get theirs in between.
        let place = self.admission.beside_place().await;
        if index > 0 {
            tokio::task::yield_now().await;
        }
        let CertificateRequest { csr, profile, spiffe_id, ttl } = request;
        let id = (!spiffe_id.is_empty()).then(|| parse_id(&spiffe_id, "spiffe_id")).transpose()?;
        let wanted = Wanted { id: id.as_ref(), profile: (!profile.is_empty()).then_some(profile.as_str()) };
        let (policy, now) = (self.policies.current(), self.clock.now());
        let entitled = entitle(&policy, &holder.grounds, wanted, now);
        let mut entitlement = entitled.map_err(|error| self.told(CERTIFICATE, &holder.id, error.into()))?;
        if let Some(ttl) = ttl {
            if entitlement.profile.is_identity() {
                return Err(Status::invalid_argument("ttl: an identity lives as long as its rule says"));
            }
            let shorter = span(ttl).ok_or_else(|| Status::invalid_argument("ttl: negative or malformed"))?;
            entitlement.shorten(shorter).map_err(|error| Status::invalid_argument(format!("ttl: {error}")))?;
        }
        let told = entitlement.clone();
        let shown = Attestation::Beside { serial: holder.serial.clone(), of: holder.attestation };
        let logged = self.issuance.issue(entitlement, shown, &csr, Some(place)).await?;
        let log = self.log_place(logged.index(), false).await;
        Ok(svid(logged.release(), &told, log))
    }
}

/// The status that a request by itself would have had.
fn refusal(index: usize, status: &Status) -> Refusal {
    let milliseconds = status.metadata().get(PUSHBACK).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = milliseconds.and_then(|after| prost_types::Duration::try_from(Duration::from_millis(after)).ok());
    Refusal { code: status.code().into(), message: format!("requests[{index}]: {}", status.message()), retry_after }
}
