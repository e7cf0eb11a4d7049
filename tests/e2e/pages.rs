//! What the pages show as configuration is taken by the program that it is for, and each of its keys is read by it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use signet_audit::VerifierKey;
use signet_test_pki::{Authority, pem};
use signet_tests::pages::{self, Fragment};
use signet_tests::tokens::TokenMaker;
use signet_tests::{Issuer, foreign_ca, program, secs};
use tempfile::TempDir;

/// Keys of a fragment for an issuer, of one for a gateway, and of one that is for `signet apply`.
const OF_ISSUERS: [&str; 12] = [
    "administration",
    "attestation",
    "audit",
    "authority",
    "crl",
    "database",
    "federation",
    "inventory",
    "jwt",
    "profiles",
    "trust_bundle",
    "web",
];
const OF_GATEWAYS: [&str; 1] = ["identity"];
const OF_APPLY: [&str; 1] = ["rules"];
/// Kubernetes reads these.
const OF_OTHERS: [&str; 1] = ["volumes"];

/// A folder with the files that the pages name.
struct Etc(TempDir);

impl Etc {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, trust_domain) in [
            ("root.pem", "example.org"),
            ("partner.pem", "partner.example"),
            ("spiffe.pem", "spiffe.example"),
            ("witness-ca.pem", "witness.example"),
        ] {
            fs::write(at(name), pem("CERTIFICATE", Authority::root(trust_domain).certificate())).unwrap();
        }
        for (name, secret) in [
            ("passphrase", "the issuer's"),
            ("db-password", "the database's"),
            ("token", "a"),
            ("s3-id", "a"),
            ("s3-secret", "b"),
        ] {
            fs::write(at(name), secret).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o400)).unwrap();
        }
        fs::write(at("pin"), "1234").unwrap();
        let log = VerifierKey::new("example.org/audit/1".parse().unwrap(), [7; 32]);
        fs::write(at("log.key.pub"), format!("{log}\n")).unwrap();
        fs::write(at("reader-token"), "header.claims.signature").unwrap();
        drop(TokenMaker::at(folder.path()));
        foreign_ca::make_ca(folder.path(), "datacenter-1", "Datacenter 1");
        foreign_ca::make_ca(folder.path(), "cluster-ca", "Cluster");
        foreign_ca::make_ca(folder.path(), "web", "Web");
        foreign_ca::make_leaf(
            folder.path(),
            "datacenter-1",
            "machine",
            foreign_ca::EC,
            "keyUsage = digitalSignature\n",
        );
        Self(folder)
    }

    /// `PROGRAM --check` of this configuration.
    fn check(&self, program: &str, configuration: &str) -> Output {
        let path = self.0.path().join("checked.yaml");
        fs::write(&path, configuration).unwrap();
        let mut command = Command::new(program::ours(program));
        command.arg("--check").arg("--config").arg(path).current_dir(self.0.path()).output().unwrap()
    }

    fn check_issuer(&self, fragment: &str) -> Output {
        let mut text = "trust_domain: example.org\nstate: state\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\n".to_owned();
        if !fragment.starts_with("authority:") {
            text.push_str("authority: { certificate: authority.pem, passphrase_file: passphrase }\n");
        }
        if !fragment.starts_with("trust_bundle:") {
            text.push_str("trust_bundle: root.pem\n");
        }
        self.check("identity-issuer", &(text + fragment))
    }

    /// Pages show of the identity what they are about; here is the rest.
    fn check_gateway(&self, fragment: &str) -> Output {
        let mut text = fragment.to_owned();
        let credentials = ["join_token_file", "k8s_sa_token", "oidc", "x509_pop"];
        for (key, rest) in [
            (&["trust_domain"][..], "trust_domain: example.org"),
            (&["bundle"], "bundle: root.pem"),
            (&credentials, "join_token_file: token"),
        ] {
            // One that is misspelt is there.
            if !key.iter().any(|key| fragment.contains(&format!(" {key}"))) {
                text.push_str(&format!("    {rest}\n"));
            }
        }
        text.push_str(
            "listeners: [{ name: in, mode: inbound, listen: 127.0.0.1:0, allow: ['spiffe://example.org/a'], upstream: app }]\n\
             upstreams: [{ name: app, address: 'http://127.0.0.1:1' }]\n",
        );
        self.check("signet-gateway", &text)
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Of all pages, and what of them is for the programs with these keys.
fn fragments(keys: &[&str]) -> Vec<Fragment> {
    let all = pages::all().iter().flat_map(|page| pages::fragments(page)).collect::<Vec<_>>();
    all.into_iter().filter(|fragment| keys.contains(&fragment.key.as_str())).collect()
}

#[track_caller]
fn each_is_taken_and_each_key_of_it_read(keys: &[&str], take: impl Fn(&str) -> Output) {
    let fragments = fragments(keys);
    for key in keys {
        assert!(fragments.iter().any(|fragment| fragment.key == *key), "`{key}` is on none of the pages");
    }
    for fragment in fragments {
        let output = take(&fragment.text);
        assert!(output.status.success(), "{}: {}\n{}", fragment.place, told(&output), fragment.text);
        let misspelt = fragment.misspelt();
        assert!(!misspelt.is_empty(), "{}", fragment.place);
        for wrong in misspelt {
            let output = take(&wrong.text);
            assert_eq!(output.status.code(), Some(1), "{}: taken\n{}", wrong.place, wrong.text);
        }
    }
}

#[test]
fn what_the_pages_show_of_an_issuers_configuration_is_taken_by_it() {
    let etc = Etc::new();
    each_is_taken_and_each_key_of_it_read(&OF_ISSUERS, |fragment| etc.check_issuer(fragment));
}

#[test]
fn key_sets_may_be_fetched_as_the_page_says() {
    let etc = Etc::new();
    let by_file =
        fragments(&["attestation"]).into_iter().find(|fragment| fragment.text.contains("k8s_sa_token")).unwrap();
    let by_url = pages::spans("attestation.md").into_iter().find(|span| span.starts_with("jwks: { url:")).unwrap();
    let text = by_file.text.replace("jwks: { file: keys.json }", &by_url);
    assert_ne!(text, by_file.text);
    for wrong in [Fragment { text: text.clone(), ..by_file.clone() }].iter().flat_map(Fragment::misspelt) {
        assert_eq!(etc.check_issuer(&wrong.text).status.code(), Some(1), "{}", wrong.text);
    }
    let output = etc.check_issuer(&text);
    assert!(output.status.success(), "{}\n{text}", told(&output));
}

#[test]
fn what_the_pages_show_of_a_gateways_configuration_is_taken_by_it() {
    let etc = Etc::new();
    each_is_taken_and_each_key_of_it_read(&OF_GATEWAYS, |fragment| etc.check_gateway(fragment));
}

#[test]
fn what_the_pages_show_as_rules_can_be_applied() {
    let folder = TempDir::new().unwrap();
    // They name a trust domain and a kind of token.
    let partner = pem("CERTIFICATE", Authority::root("partner.example").certificate());
    fs::write(folder.path().join("partner.pem"), partner).unwrap();
    let jwt = pages::fragment("jwt.md", "jwt").text;
    let more = format!("federation: [{{ trust_domain: partner.example, bundle: partner.pem }}]\n{jwt}");
    let issuer = Issuer::start_with(folder.path(), "example.org", secs(60), &more);
    let file = folder.path().join("rules.yaml");
    each_is_taken_and_each_key_of_it_read(&OF_APPLY, |fragment| {
        fs::write(&file, fragment).unwrap();
        let mut command = Command::new(program::ours("signet"));
        command.args(["apply", "--dry-run", "-f"]).arg(&file).arg("--issuer").arg(&issuer.socket).output().unwrap()
    });
}

#[test]
fn whatever_a_page_shows_is_for_a_program_that_is_asked_here() {
    let known = [&OF_ISSUERS[..], &OF_GATEWAYS, &OF_APPLY, &OF_OTHERS].concat();
    for fragment in pages::all().iter().flat_map(|page| pages::fragments(page)) {
        assert!(known.contains(&fragment.key.as_str()), "{}: `{}`", fragment.place, fragment.key);
    }
}

#[test]
fn each_test_that_the_threat_model_names_is_there_and_run() {
    let is_sentence = |name: &String| name.matches('_').count() > 2;
    let named: Vec<_> = pages::spans("threat-model.md").into_iter().filter(is_sentence).collect();
    assert!(named.len() > 20, "{named:?}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut sources = String::new();
    for part in ["identity", "audit", "gateway", "sdk", "identity-issuer", "tests"] {
        read_sources(&root.join(part), &mut sources);
    }
    for name in named {
        assert!(is_run(&sources, &name), "the threat model names `{name}`, which is no test, or one that is not run");
    }
    assert!(is_run("\non_both! {\n    a_sentence,\n}\n", "a_sentence"));
    for (above, expected) in [
        ("#[test]\n", true),
        ("#[test]\n#[should_panic]\nasync ", true),
        ("    #[tokio::test(flavor = \"multi_thread\")]\n    async ", true),
        ("", false),
        ("#[test]\nfn other() {}\n", false),
        ("// #[test]\n", false),
        ("#[test]\n#[ignore]\n", false),
        ("#[ignore = \"slow\"]\n/// Why.\n#[test]\n", false),
        ("#[cfg_attr(unix, ignore)]\n#[test]\n", false),
    ] {
        assert_eq!(is_run(&format!("}}\n\n{above}fn a_sentence() {{"), "a_sentence"), expected, "{above}");
    }
}

/// Whether one is a test, by what stands above it, and none that is passed over; or is made into one for each database.
fn is_run(sources: &str, name: &str) -> bool {
    let is_attributed = sources.match_indices(&format!("fn {name}(")).any(|(at, _)| {
        let above = sources[..at].rsplit_once('\n').map_or("", |(above, _)| above);
        let above =
            above.lines().rev().map(str::trim).take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        let attributes: Vec<_> = above.filter(|line| line.starts_with("#[")).collect();
        let is_test = |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        attributes.iter().any(is_test) && !attributes.iter().any(|line| line.contains("ignore"))
    });
    let lists = sources.split("\non_both! {\n").skip(1).filter_map(|rest| rest.split_once("\n}"));
    let is_listed = lists.flat_map(|(list, _)| list.lines()).any(|line| line.trim() == format!("{name},"));
    is_attributed || is_listed
}

fn read_sources(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}
