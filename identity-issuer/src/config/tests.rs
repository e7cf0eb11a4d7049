#![allow(clippy::unwrap_used)]

use super::*;
use crate::authority::{TokenName, TokenPlace};

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
fn lists_are_named_by_plain_http_and_put_where_nobody_listens_on_the_way() {
    let files = Files::new();
    let bucket = "access_key_id_file: id, secret_access_key_file: key";
    for (crl, told) in [
        ("url: 'https://crl.example.org'", "issuer.yaml:5:13: `url` is \"https://crl.example.org\""),
        ("url: 'http://crl.example.org/?a'", "`url` is"),
        ("url: 'http://crl.example.org/é'", "`url` is"),
        ("shards: 2", "`shards` without `url`"),
        ("shards: 2000", "`shards` is 2000"),
        ("life: 30s", "`life` is 30s"),
        ("export: { url: 'ftp://a' }", "`url` is neither a folder nor a bucket"),
        ("export: { url: 'file://srv' }", "`url` names no absolute folder"),
        ("export: { url: 'file:///srv', region: a }", "`url` is a folder, which needs nothing else"),
        ("export: { url: 's3://bucket' }", "`url` is a bucket without a key"),
        (&format!("export: {{ url: 's3://B', {bucket} }}"), "`url` names no bucket"),
        (&format!("export: {{ url: 's3://bucket', endpoint: 'http://s3.example', {bucket} }}"), "`endpoint` is"),
        (&format!("export: {{ url: 's3://bucket', secret: a, {bucket} }}"), "unknown"),
    ] {
        let refusal = files.refusal(&with(&format!("crl: {{ {crl} }}")));
        assert!(refusal.contains(told), "{crl}: {refusal}");
    }
    for good in [
        "url: 'http://crl.example.org/crl', shards: 16, life: 1h, export: { url: 'file:///srv/crl' }".to_owned(),
        format!("export: {{ url: 's3://bucket/a/b', endpoint: 'http://127.0.0.1:9000', region: eu, {bucket} }}"),
    ] {
        let config = files.parse(&with(&format!("crl: {{ {good} }}"))).unwrap();
        assert_eq!(files.parse(&config.redacted).unwrap().redacted, config.redacted);
    }
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
fn the_issuers_keys_are_opened_by_one_thing_and_shown_without_it() {
    let files = Files::new();
    let of = |keys: &str| MINIMAL.replace("passphrase_file: passphrase", keys);
    let sealed = |path: &str| KeyPlace::Sealed { passphrase: path.into() };
    let at = |name: &str| files.0.path().join(name);
    assert_eq!(files.parse(MINIMAL).unwrap().authority.key, sealed(at("passphrase").to_str().unwrap()));
    assert_eq!(files.parse(&of("passphrase_fd: 3")).unwrap().authority.key, sealed("/dev/fd/3"));
    let token = "key: { pkcs11: { module: /lib/hsm.so, token_label: ca, pin_file: pin, sessions: 3 } }";
    let config = files.parse(&of(token)).unwrap();
    let expected = TokenPlace {
        module: "/lib/hsm.so".into(),
        token: TokenName::Label("ca".to_owned()),
        pin_file: at("pin"),
        sessions: 3,
    };
    assert_eq!(config.authority.key, KeyPlace::Token(expected.clone()));
    assert_eq!(files.parse(&config.redacted).unwrap().authority.key, KeyPlace::Token(expected));
    for (keys, expected) in [
        ("path_length: 0", "`authority` does not say what opens its key"),
        ("passphrase_file: a, passphrase_fd: 3", "`authority` says in several ways what opens its key"),
        ("key: { pkcs11: { module: a, pin_file: b } }", "`pkcs11` does not name one token"),
        (
            "key: { pkcs11: { module: a, pin_file: b, token_label: c, token_serial: d } }",
            "`pkcs11` does not name one token",
        ),
        ("key: { pkcs11: { module: a, pin_file: b, token_label: c, sessions: 0 } }", "`sessions` is 0"),
        ("key: { pkcs11: { module: a, pin: '1234', token_label: c } }", "unknown key `pin`"),
    ] {
        let refusal = files.refusal(&of(keys));
        assert!(refusal.starts_with("issuer.yaml:4:") && refusal.contains(expected), "{keys}: {refusal}");
    }
}

#[test]
fn how_long_a_rotation_waits_and_for_how_many_is_configured_within_bounds() {
    let files = Files::new();
    let of = |rotation: &str| {
        MINIMAL
            .replace("passphrase_file: passphrase", &format!("passphrase_file: passphrase, rotation: {{ {rotation} }}"))
    };
    for (rotation, seconds, percent) in [
        ("", 600, 95),
        ("deadline: 2h", 7200, 95),
        ("quorum_percent: 80", 600, 80),
        ("deadline: 1s, quorum_percent: 0", 1, 0),
        ("deadline: 30d, quorum_percent: 100", 30 * 86_400, 100),
    ] {
        let config = files.parse(&of(rotation)).unwrap();
        for config in [&config, &files.parse(&config.redacted).unwrap()] {
            let patience = config.authority.patience;
            assert_eq!((patience.deadline.as_secs(), patience.quorum), (seconds, percent), "{rotation}");
        }
    }
    for (rotation, expected) in [
        ("deadline: 0s", "`deadline` is 0s\nwrite 1s to 30d"),
        ("deadline: 31d", "`deadline` is 31d\nwrite 1s to 30d"),
        ("quorum_percent: 101", "`quorum_percent` is 101\nwrite 0 to 100"),
        ("quorum_percent: -1", "issuer.yaml:4:"),
        ("quorum: 95", "unknown key `quorum` in `rotation` of `authority`"),
    ] {
        let refusal = files.refusal(&of(rotation));
        assert!(refusal.starts_with("issuer.yaml:4:") && refusal.contains(expected), "{rotation}: {refusal}");
    }
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

const KEYS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "one",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

#[test]
fn attestors_are_shown_as_they_are_configured() {
    let files = Files::new();
    std::fs::write(files.0.path().join("keys.json"), KEYS).unwrap();
    let config = files
        .parse(&with(
            "attestation:
  k8s_sa_token:
    - { cluster: prod, issuer: \"https://k8s\", jwks: { file: keys.json } }
  oidc:
    - { provider: ci, issuer: \"https://ci\", audience: us, claims: [a, b], once: false,
        jwks: { url: \"https://ci/keys\", ca: root.pem, token_file: t } }
  x509_pop:
    - { authority: dc-1, ca: root.pem }",
        ))
        .unwrap();
    assert!(config.redacted.contains("audience: \"spiffe://example.org/signet/issuer\""), "{}", config.redacted);
    assert!(config.redacted.contains("claims: [\"a\", \"b\"], once: false"), "{}", config.redacted);
    let again = files.parse(&config.redacted).unwrap();
    assert_eq!(again.redacted, config.redacted);
    let keys = |config: &Config| config.attestation.authorities[0].anchors[0].name_and_key();
    assert_eq!(keys(&again), keys(&config));
}

#[test]
fn attestors_that_could_vouch_for_nobody_are_refused_with_their_place() {
    let files = Files::new();
    std::fs::write(files.0.path().join("keys.json"), KEYS).unwrap();
    std::fs::write(files.0.path().join("none.json"), "{\"keys\": []}").unwrap();
    let cluster = |more: &str| format!("attestation: {{ k8s_sa_token: [{{ cluster: a, issuer: i, {more} }}] }}");
    for (line, expected) in [
        (cluster("jwks: {}"), "5:62: `jwks` says not where the keys are"),
        (cluster("jwks: { file: keys.json, url: \"https://a/b\" }"), "5:62: `jwks` says not where the keys are"),
        (cluster("jwks: { file: no.json }"), "5:62: jwks no.json: no.json cannot be read"),
        (cluster("jwks: { file: none.json }"), "5:62: jwks none.json: it holds no key that verifies signatures"),
        (cluster("jwks: { file: keys.json, ca: root.pem }"), "5:62: `jwks` has a `file`, and `ca`"),
        (cluster("jwks: { url: \"http://a/b\" }"), "5:62: `http://a/b` is no https URL"),
        (cluster("jwks: { url: \"https://a/b\", ca: empty.pem }"), "5:88: ca empty.pem: it holds no certificate"),
        (cluster("jwks: { url: \"https://me:secret@a/b\" }"), "5:62: `url` holds a user or a password"),
        (cluster("audience: \"\", jwks: { file: keys.json }"), "5:66: `audience` is empty"),
        (cluster("jwks: { file: keys.json }").replace("cluster: a", "cluster: A"), "5:42: `A` is no name"),
        (
            "attestation: { x509_pop: [{ authority: a, ca: root.pem }, { authority: a, ca: root.pem }] }".to_owned(),
            "5:72: there is another `a`",
        ),
        (
            "attestation: { x509_pop: [{ authority: a, ca: root.pem }, { authority: b, ca: root.pem }] }".to_owned(),
            "5:79: one of its certificates is of `a` too",
        ),
        ("attestation: { x509_pop: [{ authority: a, ca: no.pem }] }".to_owned(), "5:47: ca no.pem: No such file"),
        ("attestation: { x509: [] }".to_owned(), "5:16: unknown key `x509` in `attestation`"),
    ] {
        let refusal = files.refusal(&with(&line));
        assert!(refusal.starts_with(&format!("issuer.yaml:{expected}")), "{line}: {refusal}");
    }
}

#[test]
fn roles_are_bound_to_somebody_for_a_path() {
    let files = Files::new();
    let bound = |more: &str| with(&format!("administration: [{{ role: operator, {more} }}]"));
    let config = files.parse(&bound("scope: /shop, users: [7], spiffe_ids: [\"spiffe://example.org/a/*\"]")).unwrap();
    assert_eq!(files.parse(&config.redacted).unwrap().redacted, config.redacted);
    assert!(config.redacted.contains("role: operator, scope: /shop, users: [7]"), "{}", config.redacted);
    for (more, expected) in [
        ("scope: /shop", "5:26: the role is bound to nobody"),
        ("users: [7], scope: shop", "5:55: `shop` is no path"),
        ("spiffe_ids: [\"spiffe://other.org/a\"]", "of another trust domain"),
    ] {
        let refusal = files.refusal(&bound(more));
        assert!(refusal.contains(expected), "{more}: {refusal}");
    }
}

#[test]
fn bundles_of_other_trust_domains_are_each_there_once_and_never_this_ones() {
    let files = Files::new();
    let partner = signet_test_pki::Authority::root("partner.example");
    std::fs::write(files.0.path().join("partner.pem"), signet_test_pki::pem("CERTIFICATE", partner.certificate()))
        .unwrap();
    let entry = "{ trust_domain: partner.example, bundle: partner.pem }";
    let config = files.parse(&with(&format!("federation: [{entry}]"))).unwrap();
    assert_eq!(config.federation[0].bundle.trust_domain().as_str(), "partner.example");
    let shown =
        format!("federation:\n  - trust_domain: partner.example\n    bundle: {:?}\n", config.federation[0].path);
    assert!(config.redacted.contains(&shown), "{}", config.redacted);
    for (federation, expected) in [
        (
            format!("[{entry}, {entry}]"),
            "issuer.yaml:5:86: partner.example stands here twice\nput all its roots in one file".to_owned(),
        ),
        (
            entry.replace("partner.example", "example.org"),
            "issuer.yaml:5:30: example.org is this issuer's own trust domain\nits bundle is `trust_bundle`".to_owned(),
        ),
        (
            entry.replace("partner.pem", "root.pem"),
            "issuer.yaml:5:55: bundle root.pem: certificate 1 cannot be an authority of the bundle".to_owned(),
        ),
    ] {
        let federation = if federation.starts_with('[') { federation } else { format!("[{federation}]") };
        let refusal = files.refusal(&with(&format!("federation: {federation}")));
        assert!(refusal.starts_with(&expected), "{refusal}");
    }
}

/// Files of a certificate for the web, and of another trust domain.
fn with_partners(files: &Files) {
    let partner = signet_test_pki::Authority::root("partner.example");
    let pem = signet_test_pki::pem("CERTIFICATE", partner.certificate());
    std::fs::write(files.0.path().join("partner.pem"), pem).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(files.0.path().join("web.pem"), certificate.pem()).unwrap();
    std::fs::write(files.0.path().join("web.key"), key.serialize_pem()).unwrap();
}

const PUBLISHED: &str = "web:
  listen: \"[::1]:8082\"
  tls: { listen: 127.0.0.1:443, certificate: web.pem, key: web.key }
  spiffe_listen: 127.0.0.1:8444
  refresh_hint: 2m
jwt:
  algorithm: RS256
  issuer: https://Oidc.example.org/prod/
  passphrase_file: passphrase
  access_tokens:
    - { profile: cloud, audiences: [sts], scopes: [read], ttl: 1m }
federation:
  - { trust_domain: partner.example, bundle: partner.pem }
  - { trust_domain: web.example, endpoint: { url: \"https://web.example/b\", profile: https_web, ca: web.pem } }
  - trust_domain: other.example
    endpoint: { url: \"https://a/\", profile: https_spiffe, spiffe_id: \"spiffe://partner.example/a\", bundle: partner.pem }";

#[test]
fn what_is_published_and_fetched_is_shown_as_it_is_configured() {
    let files = Files::new();
    with_partners(&files);
    let config = files.parse(&with(PUBLISHED)).unwrap();
    let again = files.parse(&config.redacted).unwrap();
    assert_eq!(again.redacted, config.redacted);
    let jwt = again.jwt.unwrap();
    // Four times the hint, and whatever the issuer is called.
    assert_eq!((jwt.publish_ahead, jwt.ttl), (Duration::from_secs(480), Duration::from_secs(300)));
    let oidc = jwt.oidc.unwrap();
    assert_eq!((oidc.path.as_str(), &oidc.domains[..]), ("/prod", &["oidc.example.org".to_owned()][..]));
    assert_eq!(again.federated_endpoints.len(), 2);
    assert!(files.parse(MINIMAL).unwrap().jwt.is_none(), "no tokens are made unless somebody wants them");
}

#[test]
fn what_could_not_be_published_or_believed_is_refused_with_its_place() {
    let files = Files::new();
    with_partners(&files);
    let endpoint = |more: &str| {
        format!("federation: [{{ trust_domain: b.example, endpoint: {{ url: \"https://a/\", {more} }} }}]")
    };
    let tokens =
        |more: &str| format!("jwt: {{ issuer: \"https://a\", access_tokens: [{{ profile: cloud, {more} }}] }}");
    for (line, expected) in [
        ("web: { refresh_hint: 1s }".to_owned(), "`refresh_hint` is 1s"),
        (
            "web: { tls: { listen: 127.0.0.1:1, certificate: web.pem, key: partner.pem } }".to_owned(),
            "partner.pem holds no private key",
        ),
        (
            "web: { tls: { listen: 127.0.0.1:1, certificate: partner.pem, key: web.key } }".to_owned(),
            "web.key is not the key of partner.pem",
        ),
        ("jwt: { ttl: 2h }".to_owned(), "`ttl` is 2h"),
        ("jwt: { algorithm: HS256 }".to_owned(), "HS256"),
        ("jwt: { key_life: 1h, publish_ahead: 16m }".to_owned(), "`key_life` is less than 4 times"),
        ("jwt: { issuer: \"http://a\" }".to_owned(), "`http://a/` cannot be an issuer of tokens"),
        ("jwt: { issuer: \"https://a?b\" }".to_owned(), "cannot be an issuer of tokens"),
        ("jwt: { domains: [a] }".to_owned(), "`domains` without `issuer`"),
        ("jwt: { access_tokens: [{ profile: a, audiences: [b] }] }".to_owned(), "`access_tokens` without `issuer`"),
        (tokens("audiences: []"), "`audiences` names nobody"),
        (tokens("audiences: [a], scopes: [\"a b\"]"), "`a b` is no scope"),
        (tokens("audiences: [a]").replace("cloud", "workload"), "there is another profile `workload`"),
        ("federation: [{ trust_domain: b.example }]".to_owned(), "b.example says not where its bundle is"),
        (
            endpoint("profile: https_web, spiffe_id: \"spiffe://b.example/a\""),
            "`spiffe_id` and `bundle` are for `https_spiffe`",
        ),
        (endpoint("profile: https_spiffe"), "`https_spiffe` without `spiffe_id`"),
        (endpoint("profile: https_spiffe, spiffe_id: \"spiffe://b.example/a\""), "its first bundle has to be given"),
        (endpoint("profile: https_spiffe, spiffe_id: \"spiffe://b.example/a\", bundle: partner.pem"), "bootstrap: "),
        (endpoint("profile: https_web").replace("https://a/", "http://a/"), "url: `http://a/` is no https URL"),
    ] {
        let refusal = files.refusal(&with(&line));
        assert!(refusal.starts_with("issuer.yaml:5:") && refusal.contains(expected), "{line}: {refusal}");
    }
}

#[test]
fn a_second_key_of_the_log_is_asked_for() {
    let files = Files::new();
    for (line, expected) in
        [("audit: { ml_dsa: true }", true), ("audit: { ml_dsa: false }", false), ("audit: {}", false)]
    {
        let config = files.parse(&with(line)).unwrap();
        assert_eq!(config.audit.ml_dsa, expected, "{line}");
        assert_eq!(files.parse(&config.redacted).unwrap().audit.ml_dsa, expected, "{line}");
    }
    assert!(files.refusal(&with("audit: { ml_dsa: 44 }")).starts_with("issuer.yaml:5:"));
}

#[test]
fn witnesses_that_could_not_be_asked_or_believed_are_refused_with_their_place() {
    let files = Files::new();
    let key = "w1.example.net+f4c9b829+BPFAdD72xfDpfo0bK0zRTl1qBueM/OloPK90k2h1T6ng";
    let one = |url: &str, key: &str, more: &str| {
        format!("audit: {{ witnesses: [{{ url: \"{url}\", key: \"{key}\" }}], {more} }}")
    };
    let config = files.parse(&with(&one("http://127.0.0.1:1/w/", key, "quorum: 1"))).unwrap();
    assert_eq!(config.audit.witnesses.unwrap().witnesses[0].url, "http://127.0.0.1:1/w/add-checkpoint");
    assert_eq!(files.parse(&config.redacted).unwrap().redacted, config.redacted);
    let twice = format!(
        "audit: {{ witnesses: [{{ url: \"https://a\", key: \"{key}\" }}, {{ url: \"https://b\", key: \"{key}\" }}] }}"
    );
    for (line, expected) in [
        (one("http://a.example", key, ""), "`url` is \"http://a.example\""),
        (one("https://a.example/?b", key, ""), "`url` is \"https://a.example/?b\""),
        (one("http://127.0.0.1", &key.replace("w1", "w2"), ""), "`key`: its hash is not that of its key"),
        (one("http://127.0.0.1", key, "quorum: 2"), "a quorum is 1 to as many as there are witnesses"),
        (one("http://127.0.0.1", key, "quorum: 0"), "a quorum is 1 to as many as there are witnesses"),
        (one("http://127.0.0.1", key, "witness_interval: 100ms"), "`witness_interval` is 100ms"),
        (twice, "stands here twice"),
        ("audit: { quorum: 1 }".to_owned(), "`quorum` without `witnesses`"),
    ] {
        let refusal = files.refusal(&with(&line));
        assert!(refusal.starts_with("issuer.yaml:5:") && refusal.contains(expected), "{line}: {refusal}");
    }
}

#[test]
fn each_file_of_a_secret_is_known_as_one() {
    let files = Files::new();
    let names = |config: &Config| {
        let mut names: Vec<_> = config.secret_files().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&files.parse(MINIMAL).unwrap()), ["passphrase"]);
    let all = with(
        "database: { url: 'postgres://a@b/c', password_file: s1 }\n\
         jwt: { passphrase_file: s2 }\n\
         crl: { export: { url: 's3://bucket/c', access_key_id_file: s3, secret_access_key_file: s4 } }\n\
         audit:\n  passphrase_file: s5\n  export: { url: 's3://bucket/a', access_key_id_file: s6, secret_access_key_file: s7 }\n\
         \x20 reports: { every: 1d, to: { url: 's3://bucket/r', access_key_id_file: s8, secret_access_key_file: s9 } }",
    );
    let expected = ["passphrase", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"];
    assert_eq!(names(&files.parse(&all).unwrap()), expected);
}
