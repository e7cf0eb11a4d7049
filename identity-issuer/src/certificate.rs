//! What the steps of issuing hand on: an approved request, then a signed certificate that is not on record yet.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use signet_identity::WorkloadId;
use signet_policy::RuleName;
use time::OffsetDateTime;

use crate::attestation::Attestation;
use crate::authority::KeyId;
use crate::csr::{KeyHash, ProvenKey};
use crate::entitlement::Entitlement;
use crate::profile::{PermitError, Profile, Request, Validity, fits_common_name};

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
    pub(crate) profile: Arc<Profile>,
    /// Of the policy, where one gave it.
    pub(crate) rule: Option<RuleName>,
    pub(crate) key_hash: KeyHash,
    pub(crate) serial: [u8; 16],
    pub(crate) validity: Validity,
    pub(crate) issued_at: OffsetDateTime,
    pub(crate) attestation: Attestation,
    pub(crate) authority: KeyId,
}

impl Certificate {
    /// Of the leaf, as its holder shows it.
    pub(crate) fn sha256(&self) -> Option<[u8; 32]> {
        digest(&SHA256, self.chain.first()?).as_ref().try_into().ok()
    }
}

#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotPermitted {
    #[error("{id} is of another trust domain")]
    OtherTrustDomain { id: WorkloadId },
    #[error("{id} is reserved for the issuer itself")]
    Reserved { id: WorkloadId },
    #[error(
        "{id} has more than 64 characters, which a certificate of the profile `{profile}` cannot have for its name"
    )]
    TooLong { id: WorkloadId, profile: Box<str> },
    #[error("{id} and its DNS names are not such as the profile `{profile}` permits")]
    Names { id: WorkloadId, profile: Box<str> },
    #[error("the profile `{profile}` has no verdict on {id} and its DNS names: {cause}")]
    NoVerdict { id: WorkloadId, profile: Box<str>, cause: PermitError },
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
            Attestation::First(_) | Attestation::Renewal { .. } | Attestation::Beside { .. } => {
                if is_reserved(id) {
                    return Err(NotPermitted::Reserved { id: id.clone() });
                }
            }
        }
        check_names(&entitlement, &key)?;
        Ok(Self { entitlement, key, attestation })
    }
}

fn check_names(entitlement: &Entitlement, key: &ProvenKey) -> Result<(), NotPermitted> {
    let Entitlement { id, dns_names, ttl, profile, .. } = entitlement;
    if profile.has_common_name() && !fits_common_name(id) {
        return Err(NotPermitted::TooLong { id: id.clone(), profile: profile.name.clone() });
    }
    let Some(permit) = &profile.permit else { return Ok(()) };
    let request = Request {
        spiffe_id: id.as_str(),
        path: id.path(),
        dns_names,
        key_type: key.key_type().as_str(),
        ttl_seconds: ttl.unwrap_or(profile.ttl).as_secs(),
    };
    let profile = profile.name.clone();
    match permit.allows(request) {
        Ok(true) => Ok(()),
        Ok(false) => Err(NotPermitted::Names { id: id.clone(), profile }),
        Err(cause) => Err(NotPermitted::NoVerdict { id: id.clone(), profile, cause }),
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
    use crate::attestation::AttestationNumber;
    use crate::key_type::KeyType;
    use crate::profile::{Permit, Profiles};

    fn profiles() -> Profiles {
        Profiles::new((std::time::Duration::from_secs(60), std::time::Duration::ZERO), [])
    }

    fn approve(id: &str, attestation: Attestation) -> Result<ApprovedCsr, NotPermitted> {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let issuer = issuer_id(&"example.org".parse().unwrap()).unwrap();
        let entitlement = Entitlement::plain(id.parse().unwrap(), profiles().workload());
        ApprovedCsr::approve(
            entitlement,
            attestation,
            ProvenKey::from_csr(csr.der(), &KeyType::ELLIPTIC).unwrap(),
            &issuer,
        )
    }

    fn renewal() -> Attestation {
        Attestation::Renewal { serial: vec![1], of: AttestationNumber(1) }
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

    #[test]
    fn nobody_is_given_a_name_that_its_profile_does_not_permit() {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let issuer = issuer_id(&"example.org".parse().unwrap()).unwrap();
        let approve = |permit: &str, dns_names: &[&str]| {
            let mut profile = profiles().workload().as_ref().clone();
            profile.permit = Some(Permit::parse(permit).unwrap());
            let mut entitlement = Entitlement::plain("spiffe://example.org/web/a".parse().unwrap(), Arc::new(profile));
            entitlement.dns_names = dns_names.iter().map(|name| (*name).to_owned()).collect();
            let key = ProvenKey::from_csr(csr.der(), &KeyType::ELLIPTIC).unwrap();
            ApprovedCsr::approve(entitlement, renewal(), key, &issuer).map(drop)
        };
        let web = "path.startsWith('/web/') && dns_names.all(name, name.endsWith('.web'))";
        approve(web, &["a.web"]).unwrap();
        assert!(matches!(approve(web, &["a.web", "bank"]), Err(NotPermitted::Names { .. })));
        assert!(matches!(approve("ttl_seconds < 60", &[]), Err(NotPermitted::Names { .. })));
        assert!(matches!(approve("key_type == 'p384'", &[]), Err(NotPermitted::Names { .. })));
        // No verdict is none.
        assert!(matches!(approve("dns_names[0] != 'x'", &[]), Err(NotPermitted::NoVerdict { .. })));
    }
}
