//! The offline root: `signet ca init`, `sign` and `show`, judged by openssl.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use signet_tests::ceremony::Ceremony;
use signet_tests::openssl::{openssl, openssl_ok};
use signet_tests::program;

#[test]
fn a_root_follows_the_profile_and_its_key_is_sealed() {
    let ceremony = Ceremony::new();
    ceremony.init();
    let text = ceremony.text("root/root.pem");
    for expected in [
        "X509v3 Basic Constraints: critical\n                CA:TRUE",
        "X509v3 Key Usage: critical\n                Certificate Sign",
        "URI:spiffe://example.org\n",
        "X509v3 Subject Key Identifier",
    ] {
        assert!(text.contains(expected), "no `{expected}` in {text}");
    }
    assert!(!text.contains("pathlen"), "{text}");
    let root = ceremony.path("root/root.pem");
    openssl_ok(&["verify", "-x509_strict", "-CAfile", &root, &root]);

    let key = ceremony.folder.path().join("root/root.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(ceremony.folder.path().join("root")).unwrap().permissions().mode() & 0o777, 0o700);
    let (readable, _) = openssl(&["pkey", "-in", key.to_str().unwrap(), "-passin", "pass:", "-noout"]);
    assert!(!readable, "the root key lies open");
    assert!(!fs::read(&key).unwrap().windows(11).any(|part| part == b"PRIVATE KEY"), "the root key lies open");
}

#[test]
fn an_intermediate_signs_leaves_only_and_openssl_verifies_it_strictly() {
    let ceremony = Ceremony::new();
    ceremony.init();
    ceremony.request("prime256v1");
    ceremony.sign().success();

    let text = ceremony.text("authority.pem");
    for expected in [
        "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0\n",
        "X509v3 Key Usage: critical\n                Certificate Sign",
        "URI:spiffe://example.org\n",
        "X509v3 Authority Key Identifier",
    ] {
        assert!(text.contains(expected), "no `{expected}` in {text}");
    }
    let (root, authority) = (ceremony.path("root/root.pem"), ceremony.path("authority.pem"));
    openssl_ok(&["verify", "-x509_strict", "-CAfile", &root, &authority]);

    let key = |file: &str, kind: &str| openssl_ok(&[kind, "-in", &ceremony.path(file), "-noout", "-pubkey"]);
    assert_eq!(key("authority.pem", "x509"), key("authority.csr", "req"));
}

#[test]
fn of_a_request_only_the_key_is_taken() {
    let ceremony = Ceremony::new();
    ceremony.init();
    let extensions = "subjectAltName=URI:https://evil.example/,DNS:evil.example";
    ceremony.request_with("prime256v1", &["-addext", extensions, "-addext", "basicConstraints=critical,CA:TRUE"]);
    ceremony.sign().success();
    let text = ceremony.text("authority.pem");
    assert!(!text.contains("evil"), "{text}");
    assert!(text.contains("pathlen:0"), "{text}");
}

#[test]
fn a_request_of_another_trust_domain_is_refused() {
    let ceremony = Ceremony::new();
    ceremony.init();
    ceremony.request_with("prime256v1", &["-addext", "subjectAltName=URI:spiffe://other.org"]);
    let error = ceremony.sign().refused();
    assert!(error.contains("spiffe://other.org") && error.contains("example.org"), "{error}");
    assert!(!ceremony.folder.path().join("authority.pem").exists());
}

#[test]
fn an_intermediate_does_not_outlive_its_root() {
    let ceremony = Ceremony::new();
    ceremony.signet(&["ca", "init", "--dir", "root", "--trust-domain", "example.org", "--life", "30d"]).success();
    ceremony.request("prime256v1");
    ceremony.signet(&[&Ceremony::SIGN[..], &["--life", "90d"]].concat()).success();
    let end = |file: &str| openssl_ok(&["x509", "-in", &ceremony.path(file), "-noout", "-enddate"]);
    assert_eq!(end("authority.pem"), end("root/root.pem"));
}

#[test]
fn a_request_that_does_not_prove_its_key_is_refused() {
    let ceremony = Ceremony::new();
    ceremony.init();
    ceremony.request("prime256v1");
    let request = ceremony.folder.path().join("authority.csr");
    let der = openssl_ok(&["req", "-in", request.to_str().unwrap(), "-outform", "PEM"]);
    // A character of the signature, which is what the last line holds.
    let mut lines: Vec<_> = der.lines().map(str::to_owned).collect();
    let last = lines.len() - 2;
    let changed = if lines[last].starts_with('A') { "B" } else { "A" };
    lines[last].replace_range(..1, changed);
    fs::write(&request, lines.join("\n") + "\n").unwrap();
    ceremony.sign().refused();
    assert!(!ceremony.folder.path().join("authority.pem").exists());
}

#[test]
fn keys_of_other_kinds_and_files_that_are_no_request_are_refused() {
    let ceremony = Ceremony::new();
    ceremony.init();
    let (key, request) = (ceremony.path("rsa.key"), ceremony.path("authority.csr"));
    openssl_ok(&[
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        &key,
        "-out",
        &request,
        "-subj",
        "/CN=issuer",
    ]);
    ceremony.sign().refused();
    for content in ["", "noise", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
        fs::write(&request, content).unwrap();
        ceremony.sign().refused();
    }
    fs::remove_file(&request).unwrap();
    ceremony.sign().refused();
}

#[test]
fn a_wrong_passphrase_is_refused() {
    let ceremony = Ceremony::new();
    ceremony.init();
    ceremony.request("prime256v1");
    fs::write(ceremony.folder.path().join("passphrase"), "another\n").unwrap();
    let error = ceremony.sign().refused();
    assert!(error.contains("passphrase"), "{error}");
    assert!(!error.contains("another"), "a passphrase in an error: {error}");
}

#[test]
fn nothing_is_ever_overwritten() {
    let ceremony = Ceremony::new();
    ceremony.init();
    let root = fs::read(ceremony.folder.path().join("root/root.pem")).unwrap();
    ceremony.signet(&["ca", "init", "--dir", "root", "--trust-domain", "example.org"]).refused();
    assert_eq!(fs::read(ceremony.folder.path().join("root/root.pem")).unwrap(), root);

    ceremony.request("prime256v1");
    ceremony.sign().success();
    let authority = fs::read(ceremony.folder.path().join("authority.pem")).unwrap();
    ceremony.sign().refused();
    assert_eq!(fs::read(ceremony.folder.path().join("authority.pem")).unwrap(), authority);
}

#[test]
fn show_tells_what_openssl_tells() {
    let ceremony = Ceremony::new();
    ceremony.init();
    let output = ceremony.run(&["ca", "show", "--dir", "root", "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["trust_domain"], "example.org");
    let told = openssl_ok(&["x509", "-in", &ceremony.path("root/root.pem"), "-noout", "-fingerprint", "-sha256"]);
    let fingerprint = told.split('=').nth(1).unwrap().trim().replace(':', "").to_lowercase();
    assert_eq!(shown["sha256"].as_str().unwrap().replace(':', "").to_lowercase(), fingerprint);

    let table = ceremony.run(&["ca", "show", "--dir", "root"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("example.org"));
}

#[test]
fn a_passphrase_comes_from_a_descriptor_too_and_never_from_the_command_line() {
    let ceremony = Ceremony::new();
    let script = "exec \"$0\" ca init --dir root --trust-domain example.org --passphrase-fd 3 3<passphrase";
    let status = Command::new("sh")
        .args(["-c", script])
        .arg(program::ours("signet"))
        .current_dir(ceremony.folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    ceremony.request("prime256v1");
    ceremony.sign().success();

    let without = ceremony.run(&["ca", "init", "--dir", "other", "--trust-domain", "example.org"]);
    assert_eq!(without.status.code(), Some(2), "a usage error");
}
