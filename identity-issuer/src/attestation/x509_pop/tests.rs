#![allow(clippy::unwrap_used)]
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256,
    SerialNumber,
};
use signet_identity::ManualClock;
use time::OffsetDateTime;

use super::*;

struct Ca {
    key: KeyPair,
    params: CertificateParams,
    der: CertificateDer<'static>,
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (at(-1000), at(100_000));
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().into();
        Self { key, params, der }
    }

    fn machine(&self, change: impl FnOnce(&mut CertificateParams)) -> Machine {
        self.machine_with(KeyPair::generate().unwrap(), change)
    }

    fn machine_with(&self, key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Machine {
        let mut params = CertificateParams::new(["web-1.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "web-1");
        params.serial_number = Some(SerialNumber::from(vec![0x9a, 0x01]));
        (params.not_before, params.not_after) = (at(-1000), at(1000));
        change(&mut params);
        let issuer = Issuer::from_params(&self.params, &self.key);
        let der = params.signed_by(&key, &issuer).unwrap().der().to_vec();
        Machine { key, der }
    }

    fn registered(&self, name: &str) -> X509Authority {
        let anchors = vec![X509Anchor::of(&self.der).unwrap()];
        X509Authority { name: name.to_owned(), file: PathBuf::new(), anchors }
    }
}

struct Machine {
    key: KeyPair,
    der: Vec<u8>,
}

impl Machine {
    /// The proof of an honest machine.
    fn prove(&self, challenge: &[u8], csr: &[u8]) -> X509Possession {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.key.serialize_der()).unwrap();
        let signature = key.sign(&SystemRandom::new(), &signed_bytes(challenge, csr)).unwrap();
        X509Possession {
            chain: vec![self.der.clone()],
            challenge: challenge.to_vec(),
            scheme: 0x0403,
            signature: signature.as_ref().to_vec(),
        }
    }
}

fn registered(authorities: Vec<X509Authority>) -> (RegisteredAuthorities, ManualClock) {
    let clock = ManualClock::new(at(0));
    let challenges = Challenges::new(clock.shared()).unwrap();
    (RegisteredAuthorities { challenges, authorities, clock: clock.shared() }, clock)
}

fn challenge(authorities: &RegisteredAuthorities) -> Vec<u8> {
    authorities.challenges.give().unwrap().0
}

async fn reason(authorities: &RegisteredAuthorities, proof: &X509Possession, csr: &[u8]) -> &'static str {
    authorities.attest(proof, csr).await.unwrap_err().reason()
}

#[tokio::test]
async fn a_machine_is_what_its_certificate_says() {
    let (ca, other) = (Ca::new("DC 1"), Ca::new("DC 2"));
    let (authorities, _) = registered(vec![other.registered("dc-2"), ca.registered("dc-1")]);
    let machine = ca.machine(|params| {
        params.subject_alt_names.push(rcgen::SanType::URI("urn:machine:1".try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let proof = machine.prove(&challenge(&authorities), b"csr");
    let attested = authorities.attest(&proof, b"csr").await.unwrap();
    let Subject::Proved(attributes) = attested.subject else { unreachable!() };
    let told: Vec<_> = attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let sha256 = format!("x509.sha256={}", hex::encode(digest(&SHA256, &machine.der)));
    assert_eq!(
        told,
        [
            "x509.authority=dc-1",
            "x509.common_name=web-1",
            "x509.dns=web-1.example",
            "x509.serial=9a01",
            &sha256,
            "x509.uri=urn:machine:1"
        ]
    );
    assert!(matches!(attested.evidence, Evidence::Proof { once_until: Some(until), .. } if until == at(60)));
    // As whoever revokes it would name it.
    let (_, leaf) = X509Certificate::from_der(&machine.der).unwrap();
    let shown = attested.shown.unwrap();
    assert_eq!((shown.serial, shown.keys), (vec![0x9a, 1], vec![KeyHash::of_spki(leaf.public_key().raw)]));
}

#[tokio::test]
async fn a_signature_is_for_one_challenge_and_one_request() {
    let ca = Ca::new("DC 1");
    let (authorities, clock) = registered(vec![ca.registered("dc-1")]);
    let machine = ca.machine(|_| {});
    let (one, two) = (challenge(&authorities), challenge(&authorities));
    let proof = machine.prove(&one, b"csr");
    assert_eq!(reason(&authorities, &proof, b"csr of somebody else").await, "signature");
    assert_eq!(reason(&authorities, &X509Possession { challenge: two, ..proof.clone() }, b"csr").await, "signature");
    let made_up = machine.prove(&[7; 56], b"csr");
    assert_eq!(reason(&authorities, &made_up, b"csr").await, "challenge");
    authorities.attest(&proof, b"csr").await.unwrap();
    clock.set(at(60));
    assert_eq!(reason(&authorities, &proof, b"csr").await, "challenge");
}

#[tokio::test]
async fn a_copied_certificate_proves_nothing() {
    let ca = Ca::new("DC 1");
    let (authorities, _) = registered(vec![ca.registered("dc-1")]);
    let (victim, thief) = (ca.machine(|_| {}), ca.machine(|_| {}));
    let mut proof = thief.prove(&challenge(&authorities), b"csr");
    proof.chain = vec![victim.der.clone()];
    assert_eq!(reason(&authorities, &proof, b"csr").await, "signature");
    let mut proof = victim.prove(&challenge(&authorities), b"csr");
    for signature in [Vec::new(), vec![0; 72], proof.signature[1..].to_vec()] {
        proof.signature = signature;
        assert_eq!(reason(&authorities, &proof, b"csr").await, "signature");
    }
}

#[tokio::test]
async fn a_signature_for_tls_is_none_for_us() {
    let ca = Ca::new("DC 1");
    let (authorities, _) = registered(vec![ca.registered("dc-1")]);
    let machine = ca.machine(|_| {});
    let challenge = challenge(&authorities);
    let mut proof = machine.prove(&challenge, b"csr");
    // What a TLS 1.3 server could make a client sign (RFC 8446 §4.4.3), with a transcript of its choice.
    let transcript = [digest(&SHA256, &challenge).as_ref(), digest(&SHA256, b"csr").as_ref()].concat();
    let tls = [&[0x20; 64][..], b"TLS 1.3, client CertificateVerify\0", &transcript].concat();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &machine.key.serialize_der()).unwrap();
    proof.signature = key.sign(&SystemRandom::new(), &tls).unwrap().as_ref().to_vec();
    assert_eq!(reason(&authorities, &proof, b"csr").await, "signature");
}

#[tokio::test]
async fn only_a_registered_ca_vouches() {
    let (ca, stranger) = (Ca::new("DC 1"), Ca::new("DC 1"));
    let (authorities, clock) = registered(vec![ca.registered("dc-1")]);
    let prove = |machine: &Machine| machine.prove(&challenge(&authorities), b"csr");
    assert_eq!(reason(&authorities, &prove(&stranger.machine(|_| {})), b"csr").await, "unknown");
    // For servers only.
    let server = ca.machine(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert_eq!(reason(&authorities, &prove(&server), b"csr").await, "unknown");
    // A machine that plays a CA.
    let machine = ca.machine(|_| {});
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "web-1");
    let forged = Ca { key: machine.key, params, der: machine.der.clone().into() }.machine(|_| {});
    let mut proof = prove(&forged);
    proof.chain.push(machine.der);
    assert_eq!(reason(&authorities, &proof, b"csr").await, "unknown");
    let machine = ca.machine(|_| {});
    clock.set(at(1001));
    assert_eq!(reason(&authorities, &prove(&machine), b"csr").await, "expired");
    clock.set(at(-1001));
    assert_eq!(reason(&authorities, &prove(&machine), b"csr").await, "unknown");
    let (none, _) = registered(Vec::new());
    assert_eq!(reason(&none, &prove(&machine), b"csr").await, "not_configured");
}

#[tokio::test]
async fn sizes_are_bounded_before_any_signature_is_looked_at() {
    let ca = Ca::new("DC 1");
    let (authorities, _) = registered(vec![ca.registered("dc-1")]);
    let machine = ca.machine(|_| {});
    let proof = |chain: Vec<Vec<u8>>| X509Possession { chain, ..machine.prove(&challenge(&authorities), b"csr") };
    let whole = &machine.der;
    for chain in [
        vec![],
        vec![whole.clone(); MAX_CHAIN + 1],
        vec![vec![0; MAX_CERTIFICATE + 1]],
        vec![whole[..whole.len() - 1].to_vec()],
        vec![[&whole[..], &[0]].concat()],
        vec![whole.clone(), b"no certificate".to_vec()],
    ] {
        assert_eq!(reason(&authorities, &proof(chain), b"csr").await, "malformed");
    }
    let scheme = |scheme| X509Possession { scheme, ..proof(vec![whole.clone()]) };
    for number in [0, 0x0401, 0x0603, 0x1_0403, u32::MAX] {
        assert_eq!(reason(&authorities, &scheme(number), b"csr").await, "malformed");
    }
    // Of another type of key.
    assert_eq!(reason(&authorities, &scheme(0x0807), b"csr").await, "signature");
    let large = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, rcgen::RsaKeySize::_4096).unwrap();
    Possession::read(&[ca.machine_with(large, |_| {}).der]).map(drop).unwrap();
    let params = CertificateParams::default();
    let huge = params.signed_by(&Huge, &Issuer::from_params(&ca.params, &ca.key)).unwrap().der().to_vec();
    assert!(matches!(Possession::read(&[huge]).map(drop), Err(PossessionError::KeyTooLarge)));
}

/// A public key that would take long to use.
struct Huge;

impl rcgen::PublicKeyData for Huge {
    fn der_bytes(&self) -> &[u8] {
        &[4; 600]
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

#[tokio::test]
async fn a_ca_out_of_its_life_vouches_for_nobody_until_it_is_certified_anew() {
    let old = Ca::new("DC 1");
    let (mut authorities, clock) = registered(vec![old.registered("dc-1")]);
    let machine = old.machine(|params| params.not_after = at(300_000));
    clock.set(at(200_000));
    let proof = machine.prove(&challenge(&authorities), b"csr");
    let refused = authorities.attest(&proof, b"csr").await.unwrap_err();
    assert_eq!(refused.reason(), "expired");
    assert!(refused.to_string().contains("`dc-1` is not valid now"), "{refused}");
    let mut params = old.params.clone();
    params.not_after = at(400_000);
    let renewed = params.self_signed(&old.key).unwrap().into();
    authorities.authorities[0].anchors.push(X509Anchor::of(&renewed).unwrap());
    authorities.attest(&proof, b"csr").await.unwrap();
}

#[test]
fn a_certificate_of_no_ca_is_no_authority() {
    let machine = Ca::new("DC 1").machine(|_| ());
    assert_eq!(X509Anchor::of(&machine.der.into()).unwrap_err(), NoAuthority::NotCa);
    assert_eq!(X509Anchor::of(&vec![0x30, 0].into()).unwrap_err(), NoAuthority::Malformed);
}

#[tokio::test]
async fn a_ca_that_may_give_certain_names_only_gives_no_common_name() {
    let mut ca = Ca::new("DC 1");
    let dns = rcgen::GeneralSubtree::DnsName("example".to_owned());
    ca.params.name_constraints =
        Some(rcgen::NameConstraints { permitted_subtrees: vec![dns], excluded_subtrees: vec![] });
    let told = async |authorities: &RegisteredAuthorities, proof: &X509Possession| {
        let attested = authorities.attest(proof, b"csr").await.unwrap();
        let Subject::Proved(attributes) = attested.subject else { unreachable!() };
        attributes
            .iter()
            .map(|(name, _)| name.to_string())
            .filter(|name| ["x509.common_name", "x509.dns"].contains(&name.as_str()))
            .collect::<Vec<_>>()
    };
    // In the anchor.
    ca.der = ca.params.self_signed(&ca.key).unwrap().into();
    let (authorities, _) = registered(vec![ca.registered("dc-1")]);
    let machine = ca.machine(|_| ());
    assert_eq!(told(&authorities, &machine.prove(&challenge(&authorities), b"csr")).await, ["x509.dns"]);
    // In an intermediate.
    let root = Ca::new("root");
    let issuer = Issuer::from_params(&root.params, &root.key);
    let intermediate = ca.params.signed_by(&ca.key, &issuer).unwrap().der().to_vec();
    let (authorities, _) = registered(vec![root.registered("root")]);
    let mut proof = machine.prove(&challenge(&authorities), b"csr");
    proof.chain.push(intermediate);
    assert_eq!(told(&authorities, &proof).await, ["x509.dns"]);
}

#[tokio::test]
async fn a_refusal_repeats_nothing_of_the_certificate() {
    let ca = Ca::new("DC 1");
    let (authorities, _) = registered(vec![ca.registered("dc-1")]);
    let usages: Vec<_> =
        (0..500).map(|number| ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 4, 1, number])).collect();
    let machine = ca.machine(|params| params.extended_key_usages = usages);
    let refused = authorities.attest(&machine.prove(&challenge(&authorities), b"csr"), b"csr").await.unwrap_err();
    let text = refused.to_string();
    assert!(text.ends_with("it is not for TLS clients"), "{text}");
    let stranger = Ca::new("somebody").machine(|_| ());
    let refused = authorities.attest(&stranger.prove(&challenge(&authorities), b"csr"), b"csr").await.unwrap_err();
    assert!(refused.to_string().ends_with("no registered CA signed it"), "{refused}");
}
