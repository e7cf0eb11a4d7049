//! What verifiers make of what was signed. OpenSSL's opinion is in the end-to-end tests.

#![allow(clippy::unwrap_used)]
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, UnixTime};
use signet_identity::{Clock as _, SystemClock, TrustBundle};
use tempfile::TempDir;
use webpki::{EndEntityCert, Error, KeyUsage};

use super::super::{init, sign};
use super::*;
use crate::attestation::Attestation;
use crate::authority::custody::CaKey;
use crate::authority::hierarchy::intermediate_request;
use crate::authority::testing::check_intermediate;
use crate::authority::{Authority, CertifyError};
use crate::authority::{Passphrase, SealStrength};
use crate::certificate::{ApprovedCsr, issuer_id};
use crate::crl::DistributionPoints;
use crate::entitlement::Entitlement;
use crate::key::P256Key;
use crate::key_type::KeyType;
use crate::pem_files;
use crate::profile::Profiles;

const DAY: Duration = Duration::from_secs(86_400);
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];

fn passphrase() -> Passphrase {
    Passphrase::read(&b"open sesame"[..]).unwrap()
}

struct Below {
    folder: TempDir,
    key: KeyPair,
    intermediate: CertificateDer<'static>,
}

impl Below {
    fn signed(purpose: Purpose, uris: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trust_domain = "example.org".parse().unwrap();
        init(folder.path(), &trust_domain, &passphrase(), SealStrength::MINIMAL, 100 * DAY, &SystemClock).unwrap();
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let permitted_uri_domains = uris.iter().map(|uri| uri.parse().unwrap()).collect();
        let terms = Terms { purpose, permitted_uri_domains, ..Terms::of(DAY) };
        let ceremony = Ceremony::plan(folder.path(), request.as_bytes(), &terms, &SystemClock).unwrap();
        let witness = Witness { operator: "Ada".to_owned(), host: "vault".to_owned() };
        let signed = ceremony.sign(&Unlock::Passphrase(&passphrase()), &witness, &SystemClock).unwrap().remove(0);
        Self { folder, key, intermediate: signed.certificate }
    }

    /// What rustls-webpki says of a leaf with this purpose, which it has to have.
    fn verified(&self, purpose: ExtendedKeyUsagePurpose, usage: KeyUsage) -> Result<(), Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.subject_alt_names = vec![SanType::URI("spiffe://example.org/a".try_into().unwrap())];
        params.extended_key_usages = vec![purpose];
        let issuer = Issuer::from_ca_cert_der(&self.intermediate, &self.key).unwrap();
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let root = super::super::show(self.folder.path()).unwrap().certificate;
        let anchor = webpki::anchor_from_trusted_cert(&root).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(SystemClock.now().unix_timestamp() as u64));
        let leaf = EndEntityCert::try_from(leaf.der()).unwrap();
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let above = [self.intermediate.clone()];
        leaf.verify_for_usage(algorithms, &[anchor], &above, now, usage, None, None).map(drop)
    }
}

#[test]
fn what_a_purpose_restricts_is_enforced_by_webpki() {
    for (purpose, signs_code) in [
        (Purpose::Any, true),
        (Purpose::Workload, false),
        (Purpose::Gateway, false),
        (Purpose::Device, false),
        (Purpose::CodeSigning, true),
        (Purpose::Subordinate, true),
    ] {
        let below = Below::signed(purpose, &[]);
        below.verified(ExtendedKeyUsagePurpose::ServerAuth, KeyUsage::server_auth()).unwrap();
        below.verified(ExtendedKeyUsagePurpose::ClientAuth, KeyUsage::client_auth()).unwrap();
        // rustls-webpki wants a usage that is required from those above as well; where they name none, it is optional.
        let code = match purpose.extended_key_usages().is_empty() {
            true => KeyUsage::required_if_present(CODE_SIGNING),
            false => KeyUsage::required(CODE_SIGNING),
        };
        let verified = below.verified(ExtendedKeyUsagePurpose::CodeSigning, code);
        assert_eq!(verified.is_ok(), signs_code, "{purpose}: {verified:?}");
    }
}

#[test]
fn webpki_refuses_whatever_is_below_a_constraint_on_uris() {
    let below = Below::signed(Purpose::Any, &["example.org"]);
    let verified = below.verified(ExtendedKeyUsagePurpose::ServerAuth, KeyUsage::server_auth());
    // Once this is no more so, `signet ca sign` need not warn of it.
    assert!(matches!(verified, Err(Error::NameConstraintViolation)), "{verified:?}");
}

#[test]
fn what_was_shown_is_what_is_signed_or_nothing_is() {
    let folder = tempfile::tempdir().unwrap();
    let trust_domain = "example.org".parse().unwrap();
    init(folder.path(), &trust_domain, &passphrase(), SealStrength::MINIMAL, 100 * DAY, &SystemClock).unwrap();
    let request = || {
        let key = KeyPair::generate().unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
    };
    let plan = |purpose| {
        let terms = Terms { purpose, permitted_uri_domains: vec!["example.org".parse().unwrap()], ..Terms::of(DAY) };
        Ceremony::plan(folder.path(), request().as_bytes(), &terms, &SystemClock).unwrap()
    };
    type Change = fn(&mut Planned);
    let changes: [Change; 9] = [
        |planned| planned.subject.push('x'),
        |planned| planned.key_id.replace_range(..1, "x"),
        |planned| planned.purpose = Purpose::Any,
        |planned| planned.path_length = 1,
        |planned| planned.permitted_uri_domains.clear(),
        |planned| planned.serial.replace_range(..1, "x"),
        |planned| planned.not_after += DAY,
        |planned| planned.not_before -= DAY,
        |planned| planned.trust_domain = "other.org".parse().unwrap(),
    ];
    let witness = Witness { operator: "Ada".to_owned(), host: "vault".to_owned() };
    for (index, change) in changes.into_iter().enumerate() {
        let mut ceremony = plan(Purpose::Workload);
        change(&mut ceremony.planned[0]);
        let error = ceremony.sign(&Unlock::Passphrase(&passphrase()), &witness, &SystemClock).unwrap_err();
        assert!(matches!(error, RootError::NotAsPlanned { .. }), "{index}: {error}");
    }
    assert_eq!(super::super::record::verify(folder.path()).unwrap().entries.len(), 1);
    plan(Purpose::Workload).sign(&Unlock::Passphrase(&passphrase()), &witness, &SystemClock).unwrap();
    sign(folder.path(), &passphrase(), request().as_bytes(), 0, DAY, &SystemClock).unwrap();
}

#[test]
fn an_issuer_signs_nothing_that_its_purpose_has_verifiers_refuse() {
    let now = SystemClock.now();
    let profiles = Profiles::new((Duration::from_secs(60), Duration::ZERO), []);
    let certify = |purpose, profile: &str| {
        let folder = tempfile::tempdir().unwrap();
        let trust_domain: TrustDomain = "example.org".parse().unwrap();
        let root = init(folder.path(), &trust_domain, &passphrase(), SealStrength::MINIMAL, 900 * DAY, &SystemClock);
        let key = CaKey::from(P256Key::generate().unwrap());
        let request = intermediate_request(&trust_domain, &key).unwrap();
        let request = pem_files::encode(pem_files::REQUEST, &request);
        let terms = Terms { purpose, ..Terms::of(800 * DAY) };
        let ceremony = Ceremony::plan(folder.path(), request.as_bytes(), &terms, &SystemClock).unwrap();
        let witness = Witness { operator: "Ada".to_owned(), host: "vault".to_owned() };
        let pem = ceremony.sign(&Unlock::Passphrase(&passphrase()), &witness, &SystemClock).unwrap()[0].to_pem();
        let bundle = TrustBundle::new(trust_domain.clone(), vec![root.unwrap().certificate]).unwrap();
        let spki = key.subject_public_key_info();
        let authority =
            Authority::new(key, check_intermediate(pem.as_bytes(), &spki, &bundle, 4, now).unwrap()).unwrap();

        let holder = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&holder).unwrap();
        let holder = ProvenKey::from_csr(csr.der(), &KeyType::ELLIPTIC).unwrap();
        let profile = Arc::clone(profiles.get(profile).unwrap());
        let entitlement = Entitlement::plain("spiffe://example.org/a".parse().unwrap(), profile);
        let issuer = issuer_id(&trust_domain).unwrap();
        let approved = ApprovedCsr::approve(entitlement, Attestation::Issuer, holder, &issuer).unwrap();
        authority.certify(approved, &DistributionPoints::new(None, 1), now).map(drop)
    };
    use Purpose::{Any, CodeSigning, Device, Gateway, Subordinate, Workload};
    for (purpose, profile, is_signed) in [
        (Any, "code-signing", true),
        (Any, "tls-client", true),
        (Workload, "workload", true),
        (Workload, "tls-client", true),
        (Workload, "code-signing", false),
        (Gateway, "code-signing", false),
        (Device, "device", true),
        (Device, "code-signing", false),
        (CodeSigning, "code-signing", true),
        (CodeSigning, "workload", true),
        (Subordinate, "subordinate-ca", true),
        (Any, "subordinate-ca", false),
    ] {
        let outcome = certify(purpose, profile);
        assert_eq!(outcome.is_ok(), is_signed, "{purpose}, {profile}: {outcome:?}");
        let expected =
            matches!(outcome, Ok(()) | Err(CertifyError::OtherPurpose { .. } | CertifyError::NoSubordinates));
        assert!(expected, "{purpose}, {profile}: {outcome:?}");
    }
}
