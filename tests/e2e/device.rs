//! Devices that nobody entered beforehand: each shows the certificate that its manufacturer gave it, and becomes what the provisioning
//! template of the example policy says. CA, device and judge are OpenSSL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use signet_identity::{SystemClock, TlsPolicies, TrustBundle};
use signet_proto::identity::v1::X509Possession;
use signet_proto::identity::v1::attest_request::Proof;
use signet_sdk::{Credential, IssuerSource, Running};
use signet_test_pki::pem;
use signet_tests::foreign_ca::{EC, make_ca, make_leaf, openssl_in, possession};
use signet_tests::{Issuer, Workload, secs};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

const TRUST_DOMAIN: &str = "example.org";
const WEEK: i64 = 7 * 86_400;

/// An issuer that knows the manufacturer, with the example policy, and a folder with certificates.
struct Factory {
    issuer: Issuer,
    runtime: tokio::runtime::Runtime,
    folder: TempDir,
}

impl Factory {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        make_ca(folder.path(), "acme", "Acme Devices");
        let more = "attestation: { x509_pop: [{ authority: acme-devices, ca: acme.pem }] }\n";
        let issuer = Issuer::start_with(folder.path(), TRUST_DOMAIN, secs(3600), more);
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/policy.yaml");
        issuer.apply(&fs::read_to_string(example).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { issuer, runtime, folder }
    }

    /// A device leaves the factory of this CA.
    fn make(&self, ca: &str, name: &str) {
        make_leaf(self.folder.path(), ca, name, EC, "extendedKeyUsage=clientAuth\n");
    }

    /// The device with the SDK, by the files it was made with.
    fn switch_on(&self, name: &str) -> Running {
        let file = |suffix: &str| self.folder.path().join(format!("{name}.{suffix}"));
        let bundle = fs::read(&self.issuer.bundle).unwrap();
        let bundle = TrustBundle::from_pem(TRUST_DOMAIN.parse().unwrap(), &bundle).unwrap();
        let credential = Credential::X509 { certificate: file("pem"), key: file("key") };
        let source = IssuerSource::new(&self.issuer.address.to_string(), bundle, credential).unwrap();
        let policies = TlsPolicies::new(Arc::new(SystemClock));
        self.runtime.block_on(signet_sdk::start(source, policies, CancellationToken::new())).unwrap()
    }

    /// Shows the certificate in one file with a signature by the key in another.
    fn show(&self, certificate: &str, key: &str) -> Result<Workload, Status> {
        let mut device = Workload::of(self.issuer.address);
        let challenge = device.challenge()?;
        device.prove(|csr| possession(self.folder.path(), certificate, key, &challenge, csr))?;
        Ok(device)
    }

    /// In hexadecimal, as the template writes it.
    fn serial(&self, name: &str) -> String {
        let told = openssl_in(self.folder.path(), &["x509", "-in", &format!("{name}.pem"), "-noout", "-serial"]);
        String::from_utf8(told).unwrap().trim().strip_prefix("serial=").unwrap().to_lowercase()
    }
}

#[test]
fn a_device_of_a_registered_manufacturer_is_provisioned_at_first_contact() {
    let factory = Factory::new();
    factory.make("acme", "sensor-1");
    assert!(factory.issuer.operate_json(&["get", "agents"])["agents"].as_array().unwrap().is_empty());
    let device = factory.switch_on("sensor-1");

    let id = format!("spiffe://example.org/device/acme/{}", factory.serial("sensor-1"));
    let svid = device.live.load();
    let chain: String = svid.svid().chain().iter().map(|der| pem("CERTIFICATE", der)).collect();
    fs::write(factory.folder.path().join("svid.pem"), chain).unwrap();
    let text = openssl_in(factory.folder.path(), &["x509", "-in", "svid.pem", "-noout", "-text"]);
    let text = String::from_utf8(text).unwrap();
    for expected in [
        &format!("X509v3 Subject Alternative Name: critical\n                URI:{id}\n"),
        "X509v3 Extended Key Usage: \n                TLS Web Server Authentication, TLS Web Client Authentication\n",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
    ] {
        assert!(text.contains(expected), "no `{expected}` in {text}");
    }
    // Not `svid.ttl`: that is for those who are never away for so long.
    assert_eq!((svid.svid().not_after() - svid.svid().not_before()).whole_seconds(), WEEK);
    let root = factory.issuer.bundle.to_str().unwrap();
    openssl_in(
        factory.folder.path(),
        &["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", root, "-untrusted", "svid.pem", "svid.pem"],
    );

    let agents = factory.issuer.operate_json(&["get", "agents"]);
    let agent = &agents["agents"][0];
    assert_eq!((&agent["spiffe_id"], &agent["method"]), (&json!(id), &json!("x509_pop")));
    let manufacturer = json!({"name": "x509.authority", "value": "acme-devices"});
    assert!(agent["attributes"].as_array().unwrap().contains(&manufacturer), "{agent}");
    assert_eq!(factory.issuer.query("SELECT profile FROM issued WHERE attestation = 'x509_pop'"), ["device"]);
}

#[test]
fn a_device_renews_what_it_was_provisioned_with() {
    let factory = Factory::new();
    factory.make("acme", "sensor-1");
    let mut device = factory.show("sensor-1", "sensor-1").unwrap();
    let first = device.svid().clone();
    let next = device.renew().unwrap();
    assert_eq!((&next.spiffe_id, next.not_after - next.not_before), (&first.spiffe_id, WEEK));
    assert_ne!(next.serial(), first.serial());
    let profiles = factory.issuer.query("SELECT profile FROM issued WHERE attestation <> 'issuer'");
    assert_eq!(profiles, ["device", "device"]);
}

#[test]
fn who_is_no_device_of_the_manufacturer_is_refused_and_leaves_nothing() {
    let factory = Factory::new();
    // Another CA, which calls itself the same; a device of it, and one of the right CA that the template is not for.
    make_ca(factory.folder.path(), "forger", "Acme Devices");
    factory.make("forger", "sensor-2");
    factory.make("acme", "lamp-1");
    factory.make("acme", "sensor-1");
    let before = factory.issuer.records();
    for (certificate, key, code, told) in [
        (
            "sensor-2",
            "sensor-2",
            Code::Unauthenticated,
            "x509_pop.chain: its certificate is none that a registered CA vouches for",
        ),
        // A certificate is public: whoever has seen one is not the device.
        (
            "sensor-1",
            "sensor-2",
            Code::Unauthenticated,
            "x509_pop.signature: its signature is not by the certificate's key",
        ),
        (
            "lamp-1",
            "lamp-1",
            Code::PermissionDenied,
            "spiffe_id: the policy (revision 1) has no rule for x509.authority=acme-devices",
        ),
    ] {
        let refused = factory.show(certificate, key).unwrap_err();
        assert_eq!(refused.code(), code, "{}", refused.message());
        assert!(refused.message().starts_with(told), "{}", refused.message());
    }
    assert_eq!(factory.issuer.records(), before);
    factory.show("sensor-1", "sensor-1").unwrap();
}

#[test]
fn a_challenge_is_good_for_one_certificate_of_the_issuer_that_gave_it() {
    let factory = Factory::new();
    factory.make("acme", "sensor-1");
    let mut device = Workload::of(factory.issuer.address);
    let challenge = device.challenge().unwrap();
    let mut answer = |challenge: &[u8], signed: &[u8]| {
        let prove = |csr: &[u8]| match possession(factory.folder.path(), "sensor-1", "sensor-1", signed, csr) {
            Proof::X509Pop(proof) => Proof::X509Pop(X509Possession { challenge: challenge.to_vec(), ..proof }),
            other => other,
        };
        device.prove(prove).map(drop)
    };
    answer(&challenge, &challenge).unwrap();
    let before = factory.issuer.records();
    let (mut altered, other) = (challenge.clone(), Workload::of(factory.issuer.address).challenge().unwrap());
    altered[10] ^= 1;
    for (challenge, signed, told) in [
        (&challenge, &challenge, "x509_pop: the proof was used before, or has expired"),
        (
            &altered,
            &altered,
            "x509_pop.challenge: the challenge is none of this issuer, or was given before it was started again",
        ),
        (
            &other,
            &challenge,
            "x509_pop.signature: its signature is not by the certificate's key, or over something else",
        ),
    ] {
        let refused = answer(challenge, signed).unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, told));
    }
    assert_eq!(factory.issuer.records(), before);
    answer(&other, &other).unwrap();
}
