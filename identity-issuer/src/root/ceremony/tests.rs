//! What verifiers make of what was signed. OpenSSL's opinion is in the end-to-end tests.

#![allow(clippy::unwrap_used)]
use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, UnixTime};
use signet_identity::{Clock as _, SystemClock};
use tempfile::TempDir;
use webpki::{EndEntityCert, Error, KeyUsage};

use super::super::{init, sign};
use super::*;
use crate::authority::{Passphrase, SealStrength};

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
