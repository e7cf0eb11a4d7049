//! What the steps of issuing hand on: an approved request, then a signed certificate that is not on record yet.

use rustls_pki_types::CertificateDer;
use signet_identity::WorkloadId;
use time::OffsetDateTime;

use crate::attestation::{Attestation, Attested};
use crate::authority::KeyId;
use crate::csr::{KeyHash, ProvenKey};
use crate::leaf_profile::Validity;

/// A proven key for an identity that its requester may have. Made by [`ApprovedCsr::approve`] alone.
#[derive(Debug)]
pub(crate) struct ApprovedCsr {
    pub(crate) id: WorkloadId,
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
    /// The policy of today: whoever was attested may be what the attestation says, within the issuer's own trust
    /// domain, and outside of the issuer's own names.
    pub(crate) fn approve(attested: Attested, key: ProvenKey, issuer: &WorkloadId) -> Result<Self, NotPermitted> {
        let Attested { id, attestation } = attested;
        if id.trust_domain() != issuer.trust_domain() {
            return Err(NotPermitted::OtherTrustDomain { id });
        }
        match attestation {
            Attestation::Issuer => {}
            Attestation::JoinToken(_) | Attestation::Svid(_) => {
                if is_reserved(&id) {
                    return Err(NotPermitted::Reserved { id });
                }
            }
        }
        Ok(Self { id, key, attestation })
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
        let attested = Attested { id: id.parse().unwrap(), attestation };
        let issuer = issuer_id(&"example.org".parse().unwrap()).unwrap();
        ApprovedCsr::approve(attested, ProvenKey::from_csr(csr.der()).unwrap(), &issuer)
    }

    #[test]
    fn only_the_issuer_itself_is_given_the_issuers_names() {
        for id in
            ["spiffe://example.org/signet", "spiffe://example.org/signet/issuer", "spiffe://example.org/signet/x/y"]
        {
            assert!(matches!(approve(id, Attestation::Svid(vec![1])), Err(NotPermitted::Reserved { .. })));
            approve(id, Attestation::Issuer).unwrap();
        }
        approve("spiffe://example.org/signets", Attestation::Svid(vec![1])).unwrap();
        approve("spiffe://example.org/a/signet/issuer", Attestation::Svid(vec![1])).unwrap();
    }

    #[test]
    fn nobody_is_given_an_identity_of_another_trust_domain() {
        for attestation in [Attestation::Svid(vec![1]), Attestation::Issuer] {
            let refused = approve("spiffe://other.org/shop", attestation).unwrap_err();
            assert!(matches!(refused, NotPermitted::OtherTrustDomain { .. }));
        }
    }
}
