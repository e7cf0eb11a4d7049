#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName, DnType, IsCa,
    Issuer, KeyPair, PublicKeyData, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::super::{Profiles, builtin};
use super::*;
use crate::authority::hierarchy::{Level, ca_certificate};
use crate::csr::ProvenKey;
use crate::key::P256Key;

/// An authority and a holder, and what is to be signed for them.
struct Bench {
    authority: Issuer<'static, P256Key>,
    subject: Vec<u8>,
    key_id: Vec<u8>,
    key: ProvenKey,
    spki: Vec<u8>,
    entitlement: Entitlement,
    validity: Validity,
    path_length: u8,
}

const SERIAL: [u8; 16] = [0x41; 16];
const CRL: &str = "http://crl.example.org/crl/4142/0.crl";
const POINTS: &str = "its cRLDistributionPoints is not what it should be";
const NAMES: &str = "its subjectAltName is not what it should be";
const CONSTRAINTS: &str = "its basicConstraints is not what it should be";
const USAGE: &str = "its keyUsage is not what it should be";
const PURPOSES: &str = "its extKeyUsage is not what it should be";

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

impl Bench {
    fn of(profile: Profile) -> Self {
        let path_length = 1;
        let authority = P256Key::generate().unwrap();
        let domain = "example.org".parse().unwrap();
        let end = now() + Duration::from_secs(1000 * 86_400);
        let params = ca_certificate(Level::Intermediate { path_length }, &domain, &authority, (now(), end)).unwrap();
        let certificate = params.self_signed(&authority).unwrap();
        let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
        let (subject, key_id) = (parsed.subject().as_raw().to_vec(), params.key_identifier(&authority));
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        let mut entitlement = Entitlement::plain("spiffe://example.org/shop/cart".parse().unwrap(), Arc::new(profile));
        entitlement.dns_names = vec!["cart.shop".to_owned(), "cart.example.org".to_owned()];
        let validity = Validity { not_before: now(), not_after: now() + Duration::from_secs(3600) };
        Self {
            authority: Issuer::new(params, authority),
            subject,
            key_id,
            key: ProvenKey::from_csr(csr.der(), &KeyType::ALL).unwrap(),
            spki: key.subject_public_key_info(),
            entitlement,
            validity,
            path_length,
        }
    }

    fn expected(&self) -> Expected<'_> {
        Expected {
            profile: &self.entitlement.profile,
            entitlement: &self.entitlement,
            key_type: self.key.key_type(),
            spki: &self.spki,
            serial: &SERIAL,
            validity: self.validity,
            crl: Some(CRL),
            authority: Above {
                subject: &self.subject,
                key_id: &self.key_id,
                not_after: now() + Duration::from_secs(1000 * 86_400),
                path_length: self.path_length,
            },
        }
    }

    fn params(&self) -> CertificateParams {
        let profile = &self.entitlement.profile;
        let params = profile.params(&self.entitlement, &self.key, &SERIAL, self.validity, self.path_length);
        let mut params = params.unwrap();
        params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![CRL.to_owned()] }];
        params
    }

    /// What the lint says of a certificate that was made with a fault.
    fn judge(&self, fault: impl FnOnce(&mut CertificateParams)) -> Result<LintedCertificate, Finding> {
        let mut params = self.params();
        fault(&mut params);
        let made = params.signed_by(&self.key, &self.authority).unwrap();
        LintedCertificate::check(made.der(), &self.expected())
    }
}

fn bench(name: &str) -> Bench {
    Bench::of(builtin(name, Duration::from_secs(3600), Duration::from_secs(60)).unwrap())
}

#[test]
fn what_each_profile_makes_is_in_order() {
    for name in Profiles::new((Duration::from_secs(3600), Duration::ZERO), []).names() {
        bench(name).judge(|_| {}).unwrap_or_else(|finding| unreachable!("{name}: {finding}"));
    }
}

#[test]
fn what_is_signed_is_what_was_looked_at_and_verifies() {
    let bench = bench("workload");
    let made = bench.params().signed_by(&bench.key, &bench.authority).unwrap();
    let linted = LintedCertificate::check(made.der(), &bench.expected()).unwrap();
    let key = CaKey::from(bench.authority.key().clone());
    let signed = linted.sign(&key).unwrap();
    let (rest, signed) = X509Certificate::from_der(&signed).unwrap();
    let (_, made) = X509Certificate::from_der(made.der()).unwrap();
    assert!(rest.is_empty() && signed.tbs_certificate.as_ref() == made.tbs_certificate.as_ref());
    let spki = bench.authority.key().subject_public_key_info();
    let (_, key) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&spki).unwrap();
    signed.verify_signature(Some(&key)).unwrap();
}

/// A certificate that says more, or less, than it should is not signed: one fault each.
#[test]
fn a_leaf_with_a_fault_is_not_signed() {
    type Fault = (&'static str, fn(&mut CertificateParams));
    let faults: [Fault; 32] = [
        ("its serial number is another", |p| p.serial_number = Some(SerialNumber::from_slice(&[1; 16]))),
        ("its validity is another", |p| p.not_after += Duration::from_secs(1)),
        ("its validity is another", |p| p.not_before -= Duration::from_secs(1)),
        (NAMES, |p| drop(p.subject_alt_names.remove(0))),
        (NAMES, |p| {
            p.subject_alt_names[0] = SanType::URI("spiffe://example.org/shop/admin".try_into().unwrap());
        }),
        (NAMES, |p| {
            p.subject_alt_names.push(SanType::URI("spiffe://example.org/a".try_into().unwrap()));
        }),
        (NAMES, |p| {
            p.subject_alt_names.push(SanType::DnsName("bank.example".try_into().unwrap()));
        }),
        (NAMES, |p| {
            p.subject_alt_names.push(SanType::Rfc822Name("a@b.example".try_into().unwrap()));
        }),
        (NAMES, |p| {
            p.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
        }),
        (NAMES, |p| drop(p.subject_alt_names.pop())),
        ("its subjectAltName is missing, or there twice", |p| p.subject_alt_names.clear()),
        ("its subject is not its profile's", |p| p.distinguished_name.push(DnType::CommonName, "root")),
        ("its subjectKeyIdentifier is not what it should be", |p| {
            p.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![1; 20]);
        }),
        (PURPOSES, |p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth)),
        ("its subjectKeyIdentifier is missing, or there twice", |p| p.is_ca = IsCa::NoCa),
        (CONSTRAINTS, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        (CONSTRAINTS, |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
        ("its keyUsage is missing, or there twice", |p| p.key_usages.clear()),
        (USAGE, |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        (USAGE, |p| p.key_usages.push(KeyUsagePurpose::KeyAgreement)),
        ("its extKeyUsage is missing, or there twice", |p| p.extended_key_usages.clear()),
        (PURPOSES, |p| drop(p.extended_key_usages.pop())),
        (PURPOSES, |p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::CodeSigning)),
        (PURPOSES, |p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::Any)),
        (PURPOSES, |p| {
            p.extended_key_usages.push(ExtendedKeyUsagePurpose::Other(vec![1, 2, 3]));
        }),
        ("its authorityKeyIdentifier is missing, or there twice", |p| p.use_authority_key_identifier_extension = false),
        ("an extension is there that its profile has not", |p| {
            p.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]));
        }),
        ("its keyUsage is missing, or there twice", |p| {
            // keyUsage once more, with everything.
            p.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 0, 0xff]));
        }),
        (POINTS, |p| {
            p.crl_distribution_points =
                vec![CrlDistributionPoint { uris: vec!["http://attacker.example/crl".to_owned()] }];
        }),
        (POINTS, |p| {
            let twice = vec![CRL.to_owned(), CRL.to_owned()];
            p.crl_distribution_points = vec![CrlDistributionPoint { uris: twice }];
        }),
        ("its cRLDistributionPoints is missing, or there twice", |p| p.crl_distribution_points.clear()),
        ("an extension is there that its profile has not", |p| {
            let everything = rcgen::GeneralSubtree::DnsName("example".to_owned());
            p.name_constraints =
                Some(rcgen::NameConstraints { permitted_subtrees: vec![everything], excluded_subtrees: Vec::new() });
        }),
    ];
    let bench = bench("workload");
    for (told, fault) in faults {
        let found = bench.judge(fault).err().map(|finding| finding.what);
        assert_eq!(found, Some(told));
    }
}

#[test]
fn no_list_is_named_where_there_is_none() {
    let bench = bench("workload");
    let made = bench.params().signed_by(&bench.key, &bench.authority).unwrap();
    let found = LintedCertificate::check(made.der(), &Expected { crl: None, ..bench.expected() });
    assert_eq!(found.err().map(|finding| finding.what), Some("an extension is there that its profile has not"));
    let mut params = bench.params();
    params.crl_distribution_points.clear();
    let made = params.signed_by(&bench.key, &bench.authority).unwrap();
    LintedCertificate::check(made.der(), &Expected { crl: None, ..bench.expected() }).unwrap();
}

#[test]
fn a_ca_with_a_fault_is_not_signed() {
    type Fault = (&'static str, fn(&mut CertificateParams));
    let faults: [Fault; 7] = [
        (CONSTRAINTS, |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1))),
        (CONSTRAINTS, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        (CONSTRAINTS, |p| p.is_ca = IsCa::ExplicitNoCa),
        (USAGE, |p| p.key_usages.push(KeyUsagePurpose::DigitalSignature)),
        ("an extension is there that its profile has not", |p| {
            p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }),
        (NAMES, |p| {
            p.subject_alt_names[0] = SanType::URI("spiffe://other.org".try_into().unwrap());
        }),
        ("its subject is not its profile's", |p| p.distinguished_name = DistinguishedName::new()),
    ];
    let mut bench = bench("subordinate-ca");
    for (told, fault) in faults {
        assert_eq!(bench.judge(fault).err().map(|finding| finding.what), Some(told));
    }
    // Whatever the profile says, what its authority may not sign is not signed.
    bench.path_length = 0;
    let told = bench.judge(|_| {}).err().map(|finding| finding.what);
    assert_eq!(told, Some("its authority may have no CA below it"));
}

#[test]
fn what_another_authority_key_or_profile_would_have_is_not_signed() {
    let bench = bench("workload");
    let made = bench.params().signed_by(&bench.key, &bench.authority).unwrap();
    let judge = |change: fn(&mut Expected<'_>)| {
        let mut expected = bench.expected();
        change(&mut expected);
        LintedCertificate::check(made.der(), &expected).err().map(|finding| finding.what)
    };
    assert_eq!(judge(|expected| expected.authority.subject = b"0\0"), Some("it names another issuer"));
    assert_eq!(
        judge(|expected| expected.authority.key_id = b"1"),
        Some("its authorityKeyIdentifier is not what it should be")
    );
    assert_eq!(judge(|expected| expected.authority.not_after = now()), Some("it outlives its authority"));
    assert_eq!(judge(|expected| expected.spki = b"0\0"), Some("it is for another key"));
    let not_allowed = Some("its key is of a type that its profile has not");
    assert_eq!(judge(|expected| expected.key_type = KeyType::Rsa2048), not_allowed);
    let mut short = bench.entitlement.profile.as_ref().clone();
    short.max_ttl = Duration::from_secs(3599);
    let expected = Expected { profile: &short, ..bench.expected() };
    let found = LintedCertificate::check(made.der(), &expected).err().map(|finding| finding.what);
    assert_eq!(found, Some("it lives longer than its profile allows"));
}

#[test]
fn an_extension_of_the_profile_is_there_as_the_profile_has_it() {
    let mut profile = builtin("tls-server", Duration::from_secs(3600), Duration::ZERO).unwrap();
    let Form::Leaf(leaf) = &mut profile.form else { unreachable!() };
    leaf.extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0])];
    leaf.subject = vec![(DnType::OrganizationName, "Example".to_owned())];
    let bench = Bench::of(profile);
    bench.judge(|_| {}).unwrap();
    let judged = |fault: fn(&mut CertificateParams)| bench.judge(fault).err().map(|finding| finding.what);
    assert_eq!(judged(|p| p.custom_extensions.clear()), Some("its extension is missing, or there twice"));
    let other = Some("its extension is not what it should be");
    assert_eq!(judged(|p| p.custom_extensions[0].set_criticality(true)), other);
    let replaced = |p: &mut CertificateParams| {
        p.custom_extensions[0] = CustomExtension::from_oid_content(&[1, 2, 3], vec![1, 1, 0]);
    };
    assert_eq!(judged(replaced), other);
    assert_eq!(judged(|p| p.distinguished_name = DistinguishedName::new()), Some("its subject is not its profile's"));
}

/// What was altered by a bit is not signed, wherever that is.
#[test]
fn what_is_altered_is_not_signed() {
    let bench = bench("workload");
    let made = bench.params().signed_by(&bench.key, &bench.authority).unwrap();
    let (_, certificate) = X509Certificate::from_der(made.der()).unwrap();
    let tbs = certificate.tbs_certificate.as_ref().len();
    for at in 4..tbs + 4 {
        for bit in 0..8 {
            let mut altered = made.der().to_vec();
            altered[at] ^= 1 << bit;
            assert!(LintedCertificate::check(&altered, &bench.expected()).is_err(), "bit {bit} of byte {at}");
        }
    }
}
