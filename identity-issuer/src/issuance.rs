//! How a certificate is issued: one straight path, on which nothing can be left out.

use std::sync::Arc;
use std::time::Instant;

use signet_identity::{SharedClock, WorkloadId};
use time::OffsetDateTime;
use tokio::sync::broadcast;

use crate::admission::Place;
use crate::attestation::Attestation;
use crate::audit::Refusals;
use crate::authority::{Authorities, CertifyError, sign_with};
use crate::certificate::{ApprovedCsr, Certificate, NotPermitted};
use crate::crl::DistributionPoints;
use crate::csr::{CsrError, ProvenKey};
use crate::entitlement::Entitlement;
use crate::metrics::{IssueResult, Metrics};
use crate::store::{LogError, Logged, Store, StoreError};
use crate::utc::Utc;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Issuance(Arc<Parts>);

#[derive(Debug)]
pub(crate) struct Parts {
    /// The issuer's own name.
    pub(crate) issuer: WorkloadId,
    pub(crate) authorities: Authorities,
    /// Where leaves say that what is revoked is listed.
    pub(crate) crl_points: DistributionPoints,
    pub(crate) store: Store,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: Metrics,
    pub(crate) announce: broadcast::Sender<Issued>,
    pub(crate) refusals: Refusals,
}

/// Tells an onlooker in the same process of a certificate that is on record.
#[derive(Clone, Debug)]
pub struct Issued {
    pub spiffe_id: WorkloadId,
    pub profile: String,
    /// Lower-case hexadecimal.
    pub serial: String,
    pub not_after: OffsetDateTime,
    /// How the requester proved who it is: a method of attestation, `x509_svid` or `issuer`.
    pub attestation: &'static str,
}

#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("csr: {0}")]
    Csr(#[from] CsrError),
    #[error("csr: its key was certified before; make a new one for each certificate")]
    KeyReused,
    #[error("the proof was used before, or has expired")]
    ProofUsed,
    #[error("it is banned")]
    Banned,
    #[error("it was evicted: it has to attest itself again")]
    Evicted,
    #[error("its key is revoked, or the certificate that was shown for it, or the authority that signed it")]
    Revoked,
    #[error("spiffe_id: {0}")]
    NotPermitted(#[from] NotPermitted),
    #[error("no authority yet")]
    NoAuthority,
    #[error(transparent)]
    Certify(#[from] CertifyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl IssueError {
    /// Whether the transaction that refused it says so in the log.
    fn is_logged(&self) -> bool {
        matches!(self, Self::KeyReused | Self::ProofUsed | Self::Banned | Self::Evicted | Self::Revoked)
    }
}

impl Issuance {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// A certificate for the key of `csr` and an identity that its requester is entitled to, on record when this returns. The place is
    /// given back when it is signed.
    pub(crate) async fn issue(
        &self,
        entitlement: Entitlement,
        attestation: Attestation,
        csr: &[u8],
        place: Option<Place>,
    ) -> Result<Logged<Certificate>, IssueError> {
        let started = Instant::now();
        let (profile, id) = (Arc::clone(&entitlement.profile), entitlement.id.clone());
        let outcome = self.0.issue(entitlement, attestation, csr, place).await;
        let result = IssueResult::of(&outcome);
        if let (Err(error), IssueResult::Refused) = (&outcome, result)
            && !error.is_logged()
        {
            // Whoever asked is told.
            let _ = self.0.refusals.tell(&format!("x509 {}", profile.name), id.as_str(), &error.to_string());
        }
        self.0.metrics.issue(&profile.name, result, started.elapsed());
        outcome
    }

    pub(crate) fn authorities(&self) -> &Authorities {
        &self.0.authorities
    }

    pub(crate) fn issuer(&self) -> &WorkloadId {
        &self.0.issuer
    }
}

impl Parts {
    async fn issue(
        &self,
        entitlement: Entitlement,
        attestation: Attestation,
        csr: &[u8],
        place: Option<Place>,
    ) -> Result<Logged<Certificate>, IssueError> {
        let key = ProvenKey::from_csr(csr, &entitlement.profile.keys)?;
        let approved = ApprovedCsr::approve(entitlement, attestation, key, &self.issuer)?;
        let authority = self.authorities.active().ok_or(IssueError::NoAuthority)?;
        let (now, points) = (self.clock.now(), self.crl_points.clone());
        let certificate = sign_with(authority, move |authority| authority.certify(approved, &points, now)).await;
        let certificate = certificate.ok_or(CertifyError::Cryptography(None))??;
        // To wait for the record takes no processor.
        drop(place);
        let announcement = Issued::of(&certificate);
        let logged = self.store.log(certificate).await?;
        self.announce(announcement);
        Ok(logged)
    }

    fn announce(&self, issued: Issued) {
        tracing::info!(
            spiffe_id = %issued.spiffe_id, profile = issued.profile, serial = issued.serial, not_after = %Utc(issued.not_after),
            attestation = issued.attestation, "certificate issued"
        );
        // Mostly nobody listens.
        let _ = self.announce.send(issued);
    }
}

impl Issued {
    fn of(certificate: &Certificate) -> Self {
        Self {
            spiffe_id: certificate.id.clone(),
            profile: certificate.profile.name.to_string(),
            serial: hex::encode(certificate.serial),
            not_after: certificate.validity.not_after,
            attestation: certificate.attestation.kind(),
        }
    }
}

impl From<LogError> for IssueError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::KeyReused => Self::KeyReused,
            LogError::ProofUsed => Self::ProofUsed,
            LogError::Banned => Self::Banned,
            LogError::Evicted => Self::Evicted,
            LogError::Revoked => Self::Revoked,
            LogError::Store(error) => Self::Store(error),
        }
    }
}

impl IssueResult {
    fn of<T>(outcome: &Result<T, IssueError>) -> Self {
        match outcome {
            Ok(_) => Self::Issued,
            Err(
                IssueError::Csr(_)
                | IssueError::KeyReused
                | IssueError::ProofUsed
                | IssueError::Banned
                | IssueError::Evicted
                | IssueError::Revoked
                | IssueError::NotPermitted(_)
                | IssueError::Certify(
                    CertifyError::EntitlementExpired { .. }
                    | CertifyError::NoSubordinates
                    | CertifyError::OtherPurpose { .. },
                ),
            ) => Self::Refused,
            Err(IssueError::Store(StoreError::Busy)) => Self::Shed,
            Err(IssueError::NoAuthority | IssueError::Certify(_) | IssueError::Store(_)) => Self::Failed,
        }
    }
}
