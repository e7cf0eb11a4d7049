//! The issuer's own SVID: issued by its own authority through the same path as everybody's, record included, and
//! renewed by itself.

use std::sync::Arc;
use std::time::Duration;

use rcgen::CertificateParams;
use rustls_pki_types::PrivatePkcs8KeyDer;
use signet_identity::{
    BundleSet, IdentityPublisher, LiveIdentity, Material, RevocationSet, SharedClock, Snapshot, SnapshotError,
    SvidError, TlsPolicies, X509Svid, live,
};
use signet_process::identity_metrics::{IdentityMetrics, Rotation};
use tokio::sync::watch;

use crate::attestation::Attestation;
use crate::entitlement::Entitlement;
use crate::issuance::{Issuance, IssueError};
use crate::key::P256Key;
use crate::profile::Profile;
use crate::revocation::Revocations;

#[derive(Debug)]
pub(crate) struct OwnIdentity {
    issuance: Issuance,
    profile: Arc<Profile>,
    bundles: watch::Receiver<BundleSet>,
    policies: TlsPolicies,
    revocations: Revocations,
    metrics: IdentityMetrics,
    clock: SharedClock,
}

#[derive(Debug, thiserror::Error)]
pub enum OwnIdentityError {
    #[error("no key can be made")]
    Key,
    #[error("no request can be made")]
    Request(#[source] rcgen::Error),
    #[error("the issuer did not issue to itself")]
    Issue(#[from] IssueError),
    #[error("the issuer's own SVID is refused")]
    Svid(#[from] SvidError),
    #[error("the issuer's own SVID is refused")]
    Snapshot(#[from] SnapshotError),
}

/// Between attempts that failed; a wall clock that was set is noticed after this long too.
const ATTEMPT: Duration = Duration::from_secs(1);

impl OwnIdentity {
    pub(crate) fn new(
        issuance: Issuance,
        profile: Arc<Profile>,
        bundles: watch::Receiver<BundleSet>,
        policies: TlsPolicies,
        revocations: Revocations,
        metrics: IdentityMetrics,
        clock: SharedClock,
    ) -> Self {
        Self { issuance, profile, bundles, policies, revocations, metrics, clock }
    }

    pub(crate) async fn first(&self) -> Result<(IdentityPublisher, LiveIdentity), OwnIdentityError> {
        let snapshot = self.next(None).await?;
        self.metrics.rotation(Rotation::Rotated);
        Ok(live(snapshot))
    }

    /// Renews until cancelled, and keeps its bundle in step. The old identity stays while a new one cannot be had.
    pub(crate) async fn keep_fresh(mut self, mut publisher: IdentityPublisher) {
        let mut authority = self.issuance.authorities().state();
        let (mut revoked, mut looked) = (self.revocations.told(), 0);
        // Whether it is to be replaced though its time has not come: until it is.
        let mut is_due = false;
        loop {
            let renew_at = publisher.current().svid().renew_at();
            while !is_due && self.clock.now() < renew_at {
                let left = Duration::try_from(renew_at - self.clock.now()).unwrap_or_default();
                tokio::select! {
                    () = tokio::time::sleep(left.min(ATTEMPT)) => {}
                    // Neither sender ends before what serves.
                    Ok(()) = self.bundles.changed() => is_due = !self.follow_bundle(&mut publisher),
                    Ok(()) = authority.changed() => is_due = !self.is_of_authority(&publisher),
                    // With one that is revoked, no client would come to hear of anything.
                    Ok(()) = revoked.changed() => {
                        let serial = publisher.current().svid().serial().as_bytes().to_vec();
                        (is_due, looked) = self.revocations.revokes(&serial, looked);
                    }
                }
            }
            match self.renew(&mut publisher).await {
                Ok(()) => {
                    is_due = false;
                    self.metrics.rotation(Rotation::Rotated);
                }
                Err(error) => {
                    self.metrics.rotation(match error {
                        OwnIdentityError::Svid(_) | OwnIdentityError::Snapshot(_) => Rotation::Refused,
                        OwnIdentityError::Key | OwnIdentityError::Request(_) | OwnIdentityError::Issue(_) => {
                            Rotation::Failed
                        }
                    });
                    let cause = signet_process::start::Report::of(&error).cause;
                    tracing::error!(cause, "the issuer's own SVID is not renewed");
                    tokio::time::sleep(ATTEMPT).await;
                }
            }
        }
    }

    async fn renew(&self, publisher: &mut IdentityPublisher) -> Result<(), OwnIdentityError> {
        let next = self.next(Some(&publisher.current())).await?;
        publish(publisher, next);
        Ok(())
    }

    /// Whether the SVID is signed by the authority in force. Another one may be there because this one is trusted no longer.
    fn is_of_authority(&self, publisher: &IdentityPublisher) -> bool {
        let current = publisher.current();
        let above = current.svid().chain().get(1);
        self.issuance.authorities().active().is_none_or(|authority| above == authority.certificate())
    }

    /// The same SVID, with what is trusted now; false where it is not among that any more.
    fn follow_bundle(&mut self, publisher: &mut IdentityPublisher) -> bool {
        let bundles = self.own_bundle();
        let current = publisher.current();
        if *current.bundles() == bundles {
            return true;
        }
        let material = Material { svid: current.svid().clone(), bundles, revocations: current.revocations().clone() };
        match Snapshot::build(material, &self.policies, Some(&current)) {
            Ok(next) => {
                publish(publisher, next);
                true
            }
            Err(error) => {
                let cause = signet_process::start::Report::of(&error).cause;
                tracing::info!(cause, "the issuer renews its own SVID for its new trust bundle");
                false
            }
        }
    }

    /// Nobody of another trust domain has anything to do with an issuer.
    fn own_bundle(&self) -> BundleSet {
        let trust_domain = self.issuance.issuer().trust_domain();
        self.bundles.borrow().get(trust_domain).cloned().into_iter().collect()
    }

    async fn next(&self, previous: Option<&Snapshot>) -> Result<Snapshot, OwnIdentityError> {
        let key = P256Key::generate().map_err(|_| OwnIdentityError::Key)?;
        let csr = CertificateParams::default().serialize_request(&key).map_err(OwnIdentityError::Request)?;
        let myself = Entitlement::plain(self.issuance.issuer().clone(), Arc::clone(&self.profile));
        let certificate = self.issuance.issue(myself, Attestation::Issuer, csr.der(), None).await?.release();
        let pkcs8 = key.to_pkcs8().map_err(|_| OwnIdentityError::Key)?;
        let svid = X509Svid::from_der(certificate.chain, PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()).into())?;
        let material = Material { svid, bundles: self.own_bundle(), revocations: RevocationSet::default() };
        Ok(Snapshot::build(material, &self.policies, previous)?)
    }
}

fn publish(publisher: &mut IdentityPublisher, next: Snapshot) {
    if let Err(stale) = publisher.publish(next) {
        // One task alone publishes.
        tracing::error!(%stale, "the issuer's own SVID overtook itself");
    }
}
