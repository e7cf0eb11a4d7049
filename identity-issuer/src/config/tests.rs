#![allow(clippy::unwrap_used)]

use super::*;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = signet_test_pki::Authority::root("example.org");
        let pem = signet_test_pki::pem("CERTIFICATE", root.certificate());
        std::fs::write(folder.path().join("root.pem"), pem).unwrap();
        std::fs::write(folder.path().join("empty.pem"), "").unwrap();
        Self(folder)
    }

    fn parse(&self, text: &str) -> Result<Config, ConfigError> {
        Config::parse(&self.0.path().join("issuer.yaml"), text)
    }

    /// The error without the folder.
    fn refusal(&self, text: &str) -> String {
        let error = self.parse(text).unwrap_err().to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }
}

const MINIMAL: &str = "trust_domain: example.org\nstate: state\ntrust_bundle: root.pem\n\
    authority: { certificate: authority.pem, passphrase_file: passphrase }\n";

fn with(line: &str) -> String {
    format!("{MINIMAL}{line}\n")
}

#[test]
fn a_minimal_file_has_sound_defaults() {
    let files = Files::new();
    let config = files.parse(MINIMAL).unwrap();
    assert_eq!(config.listen, "127.0.0.1:8081".parse().unwrap());
    assert_eq!(config.admin, "127.0.0.1:9902".parse().unwrap());
    assert_eq!(config.state, files.0.path().join("state"));
    assert_eq!(config.admin_socket, files.0.path().join("state/issuer-admin.sock"));
    assert_eq!(config.svid.ttl, Duration::from_secs(3600));
    assert_eq!(config.svid.backdate, Duration::from_secs(60));
}

#[test]
fn a_short_life_shortens_the_backdate() {
    let config = Files::new().parse(&with("svid: { ttl: 10s }")).unwrap();
    assert_eq!(config.svid.backdate, Duration::from_secs(1));
}

#[test]
fn what_is_shown_of_a_configuration_is_that_configuration() {
    let files = Files::new();
    let config = files.parse(&with("svid: { ttl: 10s }\nlimits: { pending: 7 }")).unwrap();
    let again = files.parse(&config.redacted).unwrap();
    assert_eq!(again.redacted, config.redacted);
    assert!(config.redacted.contains("pending: 7\n"), "{}", config.redacted);
}

#[test]
fn wrong_values_are_refused_with_their_place_and_the_fix() {
    let files = Files::new();
    for (line, expected) in [
        ("svid: { ttl: 4s }", "issuer.yaml:5:14: `ttl` is 4s\nwrite 5s to 31d"),
        (
            "svid: { ttl: 5500ms }",
            "issuer.yaml:5:14: `ttl` is not in whole seconds\ncertificates know whole seconds only",
        ),
        ("limits: { pending: 0 }", "issuer.yaml:5:20: `pending` is 0\nwrite 1 to 1000000"),
        (
            "svid: { tll: 10s }",
            "issuer.yaml:5:9: unknown key `tll` in `svid`\ndid you mean `ttl`? known keys: ttl, backdate",
        ),
    ] {
        assert_eq!(files.refusal(&with(line)), expected);
    }
}

#[test]
fn the_trust_bundle_must_hold_roots_of_the_trust_domain() {
    let files = Files::new();
    let missing = files.refusal(&MINIMAL.replace("root.pem", "no.pem"));
    assert!(missing.starts_with("issuer.yaml:3:15: trust_bundle no.pem: No such file"), "{missing}");
    let empty = files.refusal(&MINIMAL.replace("root.pem", "empty.pem"));
    assert!(empty.starts_with("issuer.yaml:3:15: trust_bundle empty.pem: it holds no certificate"), "{empty}");
    let foreign = files.refusal(&MINIMAL.replace("example.org", "other.org"));
    assert!(foreign.starts_with("issuer.yaml:3:15: trust_bundle root.pem: "), "{foreign}");
}
