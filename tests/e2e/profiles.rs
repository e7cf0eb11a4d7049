//! `signet issue`: certificates for keys that were made elsewhere, judged by OpenSSL, curl and a gateway.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;
use signet_tests::address::Host;
use signet_tests::tokens::{PROVIDER, TokenMaker, proof};
use signet_tests::{Issuer, Recipe, Workload, pages, program, secs};
use tempfile::TempDir;

const RULES: &str = "rules:
  - name: release
    match: { svid.spiffe_id: 'spiffe://example.org/ci/*' }
    spiffe_id: spiffe://example.org/signing/shop
    profile: code-signing
    ttl: 10m
  - name: database
    match: { svid.spiffe_id: 'spiffe://example.org/ci/*' }
    spiffe_id: spiffe://example.org/db/orders
    dns_names: [db.shop.example.org]
    profile: tls-server
";

/// A CI job with an identity in files, at an issuer with these rules.
struct Job {
    issuer: Issuer,
    folder: TempDir,
}

impl Job {
    fn new() -> Self {
        Self::at("", RULES)
    }

    /// With more configuration of the issuer, and other rules.
    fn at(configuration: &str, rules: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let issuer = Issuer::start_with(folder.path(), "example.org", secs(600), configuration);
        issuer.apply(rules);
        let mut job = Workload::of(issuer.address);
        job.attest(&issuer.join_token("spiffe://example.org/ci/shop-deploy")).unwrap();
        let identity = folder.path().join("identity");
        fs::create_dir(&identity).unwrap();
        fs::write(identity.join("svid.pem"), job.svid().chain_pem()).unwrap();
        fs::write(identity.join("svid.key"), job.svid().key_pem()).unwrap();
        fs::copy(&issuer.bundle, identity.join("bundle.pem")).unwrap();
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A key and a request for it: `NAME.key`, `NAME.csr`.
    fn request(&self, name: &str, algorithm: &[&str]) {
        let (key, csr) = (format!("{name}.key"), format!("{name}.csr"));
        let words = ["req", "-new", "-nodes", "-subj", "/CN=whatever", "-keyout", &key, "-out", &csr];
        openssl(self.folder.path(), &[&words[..], algorithm].concat());
    }

    fn signet(&self, words: &[&str]) -> Output {
        let mut command = Command::new(program::ours("signet"));
        command.args(words).current_dir(self.folder.path());
        command.env("SIGNET_ISSUER", self.issuer.address.to_string()).env("SIGNET_IDENTITY", self.path("identity"));
        command.output().unwrap()
    }

    #[track_caller]
    fn told(&self, words: &[&str]) -> String {
        let output = self.signet(words);
        assert!(output.status.success(), "signet {words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    #[track_caller]
    fn refused(&self, words: &[&str]) -> String {
        let output = self.signet(words);
        assert_eq!(output.status.code(), Some(1), "signet {words:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// Whether OpenSSL takes the certificates in a file for this purpose, under the issuer's root.
    fn is_good_for(&self, purpose: &str, certificates: &str) -> bool {
        let mut command = Command::new(program::third_party("openssl"));
        command.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]).arg(&self.issuer.bundle);
        command.args(["-untrusted", certificates, certificates]).current_dir(self.folder.path());
        command.output().unwrap().status.success()
    }
}

const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn openssl(folder: &Path, words: &[&str]) -> String {
    let output = Command::new(program::third_party("openssl")).args(words).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {words:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_server_that_knows_nothing_of_spiffe_is_believed_by_curl() {
    let job = Job::new();
    job.request("db", &["-newkey", "rsa:3072"]);
    job.told(&["issue", "--profile", "tls-server", "--csr", "db.csr", "--ttl", "1h", "--out", "db.pem"]);
    assert!(job.is_good_for("sslserver", "db.pem") && !job.is_good_for("sslclient", "db.pem"));

    let host = Host::new();
    let address = host.free();
    let mut server = Recipe::new("s_server", program::third_party("openssl"), job.folder.path())
        .args(["s_server", "-www", "-accept"])
        .arg(address.to_string())
        .args(["-cert", "db.pem", "-cert_chain", "db.pem", "-key", "db.key"])
        .start();
    server.wait_until("listening", secs(10), |_| std::net::TcpStream::connect(address).is_ok());
    let get = |name: &str| {
        let mut curl = Command::new(program::third_party("curl"));
        curl.args(["--silent", "--show-error", "--max-time", "10", "--cacert"]).arg(&job.issuer.bundle);
        curl.arg("--resolve").arg(format!("{name}:{}:{}", address.port(), address.ip()));
        curl.arg(format!("https://{name}:{}/", address.port())).output().unwrap()
    };
    let believed = get("db.shop.example.org");
    assert!(believed.status.success(), "{}", text(&believed.stderr));
    // CURLE_PEER_FAILED_VERIFICATION
    assert_eq!(get("bank.example").status.code(), Some(60));
}

#[test]
fn what_was_signed_with_a_certificate_for_code_is_verified_by_openssl() {
    let job = Job::new();
    job.request("release", &EC);
    let told = job.told(&["issue", "--profile", "code-signing", "--csr", "release.csr", "-o", "json"]);
    let issued: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(issued["spiffe_id"], "spiffe://example.org/signing/shop");
    let told = job.told(&["entitlements"]);
    let lines: Vec<Vec<&str>> = told.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let given = [
        ["spiffe://example.org/ci/shop-deploy", "workload"],
        ["spiffe://example.org/db/orders", "tls-server"],
        ["spiffe://example.org/signing/shop", "code-signing"],
    ];
    assert_eq!(lines, given, "{told}");
    let pem = issued["pem"].as_str().unwrap();
    let (_, intermediates) = pem.split_once("-----END CERTIFICATE-----\n").unwrap();
    fs::write(job.path("release.pem"), pem).unwrap();
    fs::write(job.path("intermediates.pem"), intermediates).unwrap();
    for purpose in ["sslserver", "sslclient", "smimesign"] {
        assert!(!job.is_good_for(purpose, "release.pem"), "{purpose}");
    }
    assert!(job.is_good_for("any", "release.pem"));
    let shown = openssl(
        job.folder.path(),
        &["x509", "-in", "release.pem", "-noout", "-ext", "extendedKeyUsage,basicConstraints"],
    );
    assert!(shown.contains("Code Signing") && shown.contains("CA:FALSE"), "{shown}");

    fs::write(job.path("program"), "#!/bin/sh\n").unwrap();
    let sign = [
        "cms",
        "-sign",
        "-binary",
        "-in",
        "program",
        "-signer",
        "release.pem",
        "-certfile",
        "intermediates.pem",
        "-inkey",
        "release.key",
        "-outform",
        "DER",
        "-out",
        "program.sig",
    ];
    openssl(job.folder.path(), &sign);
    let root = job.issuer.bundle.to_str().unwrap();
    let verify = [
        "cms",
        "-verify",
        "-binary",
        "-content",
        "program",
        "-in",
        "program.sig",
        "-inform",
        "DER",
        "-CAfile",
        root,
        "-purpose",
        "any",
        "-out",
        "verified",
    ];
    openssl(job.folder.path(), &verify);

    // It says whose it is, and is not taken for an identity all the same.
    let identity = job.path("identity");
    fs::copy(job.path("release.pem"), identity.join("svid.pem")).unwrap();
    fs::copy(job.path("release.key"), identity.join("svid.key")).unwrap();
    job.request("second", &EC);
    job.refused(&["issue", "--profile", "code-signing", "--csr", "second.csr"]);
}

#[test]
fn what_is_not_given_is_refused_with_the_reason_and_leaves_no_file() {
    let job = Job::new();
    job.request("a", &EC);
    job.request("ed25519", &["-newkey", "ed25519"]);
    fs::write(job.path("no.csr"), "-----BEGIN NOTHING-----\n-----END NOTHING-----\n").unwrap();
    fs::write(job.path("taken.pem"), "mine").unwrap();
    for (words, told) in [
        (
            &["issue", "--profile", "device", "--csr", "a.csr", "--out", "a.pem"][..],
            "no rule for svid.spiffe_id=spiffe://example.org/ci/shop-deploy",
        ),
        (&["issue", "--profile", "gold", "--csr", "a.csr", "--out", "a.pem"], "there is no profile `gold`"),
        (
            &["issue", "--profile", "code-signing", "--csr", "ed25519.csr", "--out", "a.pem"],
            "p256, p384, rsa3072, rsa4096",
        ),
        (
            &["issue", "--profile", "code-signing", "--csr", "a.csr", "--ttl", "11m", "--out", "a.pem"],
            "ttl: not between 10s and 10m",
        ),
        (
            &["issue", "--profile", "code-signing", "--csr", "no.csr", "--out", "a.pem"],
            "not one PEM block `CERTIFICATE REQUEST`",
        ),
        (&["issue", "--profile", "code-signing", "--csr", "a.csr", "--out", "taken.pem"], "nothing is overwritten"),
        (&["issue", "--profile", "code-signing", "--csr", "nowhere.csr"], "openssl req -new"),
    ] {
        let refused = job.refused(words);
        assert!(refused.contains(told), "{words:?}: {refused}");
        assert!(!job.path("a.pem").exists());
    }
    assert_eq!(fs::read_to_string(job.path("taken.pem")).unwrap(), "mine");
    assert_eq!(job.issuer.query("SELECT count(*) FROM issued WHERE profile <> 'workload'"), ["0"]);
}

#[test]
fn what_one_may_have_is_told_again_when_it_changes_and_not_before() {
    let job = Job::new();
    let mut watching = Recipe::new("watching", program::ours("signet"), job.folder.path())
        .args(["entitlements", "--watch", "-o", "json"])
        .env("SIGNET_ISSUER", &job.issuer.address.to_string())
        .env("SIGNET_IDENTITY", job.path("identity").to_str().unwrap())
        .start();
    let told = |log: String| {
        let (_, json) = log.split_once('\n').unwrap_or_default();
        // The last may be half written.
        let told = serde_json::Deserializer::from_str(json).into_iter::<serde_json::Value>().map_while(Result::ok);
        let profiles = |one: serde_json::Value| {
            let lines = one["entitlements"].as_array().unwrap().clone();
            lines.into_iter().map(|line| line["profile"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        told.map(profiles).collect::<Vec<_>>()
    };
    let all = ["workload", "tls-server", "code-signing"];
    watching.wait_until("it tells", secs(10), |process| told(process.log()) == [&all[..]]);
    let stranger = "  - { name: x, match: { k8s.pod: x }, spiffe_id: spiffe://example.org/x }\n";
    job.issuer.apply(&format!("{RULES}{stranger}"));
    let (release, rest) = RULES.split_once("  - name: database").unwrap();
    job.issuer.apply(release);
    let less = ["workload", "code-signing"];
    watching.wait_until("it tells again", secs(10), |process| told(process.log()).len() > 1);
    assert_eq!(told(watching.log()), [&all[..], &less[..]], "nothing of others' rules");
    job.issuer.apply(&format!("rules:\n  - name: database{rest}"));
    let other = ["workload", "tls-server"];
    watching.wait_until("it tells of what is there instead", secs(10), |process| {
        told(process.log()).last().is_some_and(|last| *last == other)
    });
}

#[test]
fn the_profile_of_the_page_makes_certificates_as_it_says() {
    let profile = pages::fragment("profiles.md", "profiles");
    let rules = "rules:
  - name: web
    match: { svid.spiffe_id: 'spiffe://example.org/ci/*' }
    spiffe_id: spiffe://example.org/web/cart
    dns_names: [cart.web.example.org]
    profile: web
  - name: month
    match: { svid.spiffe_id: 'spiffe://example.org/ci/*' }
    spiffe_id: spiffe://example.org/web/month
    dns_names: [cart.web.example.org]
    profile: web
    ttl: 30d
  - name: elsewhere
    match: { svid.spiffe_id: 'spiffe://example.org/ci/*' }
    spiffe_id: spiffe://example.org/web/bank
    dns_names: [cart.web.example.org, bank.example]
    profile: web
";
    let job = Job::at(&profile.text, rules);
    for name in ["cart", "month", "third"] {
        job.request(name, &EC);
    }
    job.request("other", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    let issue = |csr: &str, more: &[&str]| {
        let csr = format!("{csr}.csr");
        let words = ["issue", "--profile", "web", "--csr", &csr, "--spiffe-id"];
        job.signet(&[&words, more].concat())
    };
    let [cart, month, bank] = ["cart", "month", "bank"].map(|name| format!("spiffe://example.org/web/{name}"));
    let (cart, month, bank) = (cart.as_str(), month.as_str(), bank.as_str());
    let issued = issue("cart", &[cart, "--out", "cart.pem"]);
    assert!(issued.status.success(), "{}", text(&issued.stderr));
    let words = ["x509", "-in", "cart.pem", "-noout", "-text", "-nameopt", "RFC2253", "-certopt", "ext_dump"];
    let shown = openssl(job.folder.path(), &words);
    // An UTF8String of four characters.
    let extension = "1.3.6.1.4.1.99999.1: \n                0000 - 0c 04 73 68 6f 70  ";
    for expected in [
        "X509v3 Extended Key Usage: \n                TLS Web Server Authentication, ipsec Internet Key Exchange\n",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Subject Alternative Name: \n                DNS:cart.web.example.org\n",
        "Subject: CN=example.org/web/cart,OU=Web,O=Example,C=DE\n",
        extension,
    ] {
        assert!(shown.contains(expected), "no `{expected}` in {shown}");
    }
    assert!(job.is_good_for("sslserver", "cart.pem") && !job.is_good_for("sslclient", "cart.pem"));
    assert_eq!(seconds_of(&fs::read(job.path("cart.pem")).unwrap()), 12 * 3600, "its `ttl`");
    let issued = issue("month", &[month]);
    assert!(issued.status.success(), "{}", text(&issued.stderr));
    // Of the 90 days that `signet ca sign` gives an authority, and five minutes for clocks that are late.
    assert_eq!(seconds_of(&issued.stdout), 15 * 24 * 3600 + 50, "a sixth of the authority's life");
    fs::write(job.path("longer.yaml"), rules.replace("ttl: 30d", "ttl: 31d")).unwrap();
    let socket = job.issuer.socket.to_str().unwrap();
    let longer = job.refused(&["apply", "--yes", "-f", "longer.yaml", "--issuer", socket]);
    assert!(longer.contains("longer.yaml:12:10: ttl: it is not between 10s and 30d"), "{longer}");

    let before = job.issuer.query("SELECT count(*) FROM issued");
    for (refused, why) in [
        (issue("third", &[cart, "--ttl", "13h"]), "ttl: not between 10s and 12h"),
        (issue("third", &[month, "--ttl", "721h"]), "ttl: not between 10s and 30d"),
        (issue("other", &[cart]), "p256, rsa3072"),
        (issue("third", &[bank]), "permit"),
    ] {
        let error = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{why}");
        assert!(error.contains(why), "{why}: {error}");
    }
    assert_eq!(job.issuer.query("SELECT count(*) FROM issued"), before);
}

/// How long the first certificate of a PEM text is valid, in seconds.
fn seconds_of(pem: &[u8]) -> i64 {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).unwrap();
    let validity = pem.parse_x509().unwrap().validity().clone();
    validity.not_after.timestamp() - validity.not_before.timestamp()
}

#[test]
fn a_rule_with_the_profile_of_gateways_gives_an_identity_that_is_told_apart() {
    let folder = TempDir::new().unwrap();
    let maker = TokenMaker::at(folder.path());
    let issuer = Issuer::start_with(folder.path(), "example.org", secs(600), PROVIDER);
    issuer.apply(
        "rules:
  - { name: edge, match: { oidc.subject: edge }, spiffe_id: spiffe://example.org/gateway/edge, profile: gateway }
  - { name: other, match: { oidc.subject: other }, spiffe_id: spiffe://example.org/other }
",
    );
    let of_gateways =
        || issuer.admin.sum("signet_issuer_issued_total", &[("profile", "gateway"), ("result", "issued")]);
    let mut other = Workload::of(issuer.address);
    other.prove(|_| proof(&maker.token("other", json!({})))).unwrap();
    assert_eq!(of_gateways(), 0.0);
    let mut edge = Workload::of(issuer.address);
    edge.prove(|_| proof(&maker.token("edge", json!({})))).unwrap();
    assert_eq!(edge.renew().unwrap().spiffe_id, "spiffe://example.org/gateway/edge");
    assert_eq!(of_gateways(), 2.0);
    let recorded =
        issuer.query("SELECT profile, count(*) FROM issued WHERE spiffe_id LIKE '%/gateway/edge' GROUP BY profile");
    assert_eq!(recorded, ["gateway|2"]);
    edge.svid().write(folder.path(), "edge");
    let words = ["x509", "-in", "edge.pem", "-noout", "-ext", "subjectAltName,extendedKeyUsage"];
    let shown = openssl(folder.path(), &words);
    assert!(shown.contains("URI:spiffe://example.org/gateway/edge") && shown.contains("TLS Web Client"), "{shown}");
}

#[test]
fn the_commands_of_the_page_work() {
    let job = Job::new();
    for name in ["release", "db"] {
        job.request(name, &EC);
    }
    let mut ran = 0;
    for words in pages::commands("profiles.md") {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[0] {
            "issue" | "entitlements" => drop(job.told(&words)),
            "explain" => assert!(job.issuer.operate(&words).contains("granted")),
            other => panic!("{other}"),
        }
        ran += 1;
    }
    assert_eq!(ran, 4);
}
