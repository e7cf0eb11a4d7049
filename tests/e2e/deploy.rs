//! What `deploy/` ships works with the programs that it is for.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use signet_test_pki::{Authority, pem};
use signet_tests::{Mesh, Nginx, program, secs};
use tempfile::TempDir;

#[test]
fn each_example_is_taken_by_its_program() {
    let etc = Etc::with_examples();
    for (program, example) in EXAMPLES {
        let output = etc.check(program, example);
        assert!(output.status.success(), "{example}: {}", told(&output));
    }
}

#[test]
fn an_example_with_a_misspelt_key_is_refused_at_its_place() {
    let etc = Etc::with_examples();
    for (program, example) in EXAMPLES {
        let path = etc.0.path().join(example);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("adnim: 127.0.0.1:1\n{text}")).unwrap();
        let output = etc.check(program, example);
        assert_eq!(output.status.code(), Some(1), "{example}");
        let told = told(&output);
        assert!(told.contains(&format!("{example}:1:1: unknown key `adnim`")), "{told}");
        assert!(told.contains("did you mean `admin`?"), "{told}");
    }
}

#[test]
fn the_alerts_fire_and_stay_silent_as_their_tests_say() {
    let folder = deploy().join("prometheus");
    for words in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]] {
        let output = Command::new(program::third_party("promtool")).args(words).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "promtool {words:?}: {}", told(&output));
    }
}

#[test]
fn every_metric_of_the_alerts_is_exported() {
    let nginx = Nginx::start();
    let mesh = Mesh::new().ttl(secs(60)).upstream(&nginx.url()).start();
    let exported = [mesh.inbound.admin.metrics(), mesh.issuer.admin.metrics()];
    let alerts = fs::read_to_string(deploy().join("prometheus/alerts.yaml")).unwrap();
    let named: BTreeSet<&str> = alerts
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("signet_"))
        .collect();
    assert!(named.len() >= 6, "{named:?}");
    for metric in named {
        assert!(exported.iter().any(|metrics| metrics.has(metric)), "nobody exports {metric}");
    }
}

const EXAMPLES: [(&str, &str); 3] = [
    ("identity-issuer", "issuer.yaml"),
    ("signet-gateway", "gateway-inbound.yaml"),
    ("signet-gateway", "gateway-outbound.yaml"),
];

/// A folder as `/etc/signet` is after the installation of `deploy/README.md`.
struct Etc(TempDir);

impl Etc {
    fn with_examples() -> Self {
        let etc = Self(TempDir::new().unwrap());
        for (_, example) in EXAMPLES {
            fs::copy(deploy().join("examples").join(example), etc.0.path().join(example)).unwrap();
        }
        let root = Authority::root("example.org");
        fs::write(etc.0.path().join("root.pem"), pem("CERTIFICATE", root.root_certificate())).unwrap();
        fs::write(etc.0.path().join("passphrase"), "opens the issuer's key").unwrap();
        fs::write(etc.0.path().join("join-token"), "a token").unwrap();
        etc
    }

    fn check(&self, program: &str, example: &str) -> Output {
        Command::new(program::ours(program))
            .args(["--config", example, "--check"])
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn told(output: &Output) -> String {
    [output.stdout.as_slice(), output.stderr.as_slice()].map(String::from_utf8_lossy).concat()
}
