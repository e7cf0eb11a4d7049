//! What the steps of issuing hand on: an approved request, then a signed certificate that is not on record yet.

use rustls_pki_types::CertificateDer;
use signet_identity::WorkloadId;
use time::OffsetDateTime;

use crate::attestation::Attestation;
use crate::authority::KeyId;
use crate::csr::{KeyHash, ProvenKey};
use crate::entitlement::Entitlement;
use crate::leaf_profile::Validity;

/// A proven key for an identity that its requester may have. Made by [`ApprovedCsr::approve`] alone.
#[derive(Debug)]
pub(crate) struct ApprovedCsr {
    pub(crate) entitlement: Entitlement,
    pub(crate) key: ProvenKey,
    pub(crate) attestation: Attestation,
}

/// A signed leaf and its chain. It has no way out of the process: only a
/// [`Logged`](crate::store::Logged) one has.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) id: WorkloadId,
    pub(crate) key_hash: KeyHash,
    pub(crate) serial: [u8; 16],
    pub(crate) validity: Validity,
    pub(crate) issued_at: OffsetDateTime,
    pub(crate) attestation: Attestation,
    pub(crate) authority: KeyId,
}

#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotPermitted {
    #[error("{id} is of another trust domain")]
    OtherTrustDomain { id: WorkloadId },
    #[error("{id} is reserved for the issuer itself")]
    Reserved { id: WorkloadId },
}

impl ApprovedCsr {
    /// Whatever a policy or a token says: nothing outside of the issuer's own trust domain, and the issuer's own names to
    /// the issuer alone.
    pub(crate) fn approve(
        entitlement: Entitlement,
        attestation: Attestation,
        key: ProvenKey,
        issuer: &WorkloadId,
    ) -> Result<Self, NotPermitted> {
        let id = &entitlement.id;
        if id.trust_domain() != issuer.trust_domain() {
            return Err(NotPermitted::OtherTrustDomain { id: id.clone() });
        }
        match attestation {
            Attestation::Issuer => {}
            Attestation::First(_) | Attestation::Renewal { .. } => {
                if is_reserved(id) {
                    return Err(NotPermitted::Reserved { id: id.clone() });
                }
            }
        }
        Ok(Self { entitlement, key, attestation })
    }
}

/// `/signet` and everything below it is the issuer's own.
pub(crate) fn is_reserved(id: &WorkloadId) -> bool {
    id.path() == "/signet" || id.path().starts_with("/signet/")
}

/// The name the issuer itself goes by.
pub(crate) fn issuer_id(trust_domain: &signet_identity::TrustDomain) -> Option<WorkloadId> {
    format!("spiffe://{trust_domain}/signet/issuer").parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn approve(id: &str, attestation: Attestation) -> Result<ApprovedCsr, NotPermitted> {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let issuer = issuer_id(&"example.org".parse().unwrap()).unwrap();
        let entitlement = Entitlement::plain(id.parse().unwrap());
        ApprovedCsr::approve(entitlement, attestation, ProvenKey::from_csr(csr.der()).unwrap(), &issuer)
    }

    fn renewal() -> Attestation {
        Attestation::Renewal { serial: vec![1], of: None }
    }

    #[test]
    fn only_the_issuer_itself_is_given_the_issuers_names() {
        for id in
            ["spiffe://example.org/signet", "spiffe://example.org/signet/issuer", "spiffe://example.org/signet/x/y"]
        {
            assert!(matches!(approve(id, renewal()), Err(NotPermitted::Reserved { .. })));
            approve(id, Attestation::Issuer).unwrap();
        }
        approve("spiffe://example.org/signets", renewal()).unwrap();
        approve("spiffe://example.org/a/signet/issuer", renewal()).unwrap();
    }

    #[test]
    fn nobody_is_given_an_identity_of_another_trust_domain() {
        for attestation in [renewal(), Attestation::Issuer] {
            let refused = approve("spiffe://other.org/shop", attestation).unwrap_err();
            assert!(matches!(refused, NotPermitted::OtherTrustDomain { .. }));
        }
    }
}
