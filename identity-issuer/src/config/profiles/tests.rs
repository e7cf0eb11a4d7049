#![allow(clippy::unwrap_used)]

use super::super::Config;
use super::*;

/// A file with this profile.
fn read(profile: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let root = signet_test_pki::Authority::root("example.org");
    std::fs::write(folder.path().join("root.pem"), signet_test_pki::pem("CERTIFICATE", root.certificate())).unwrap();
    let text = format!(
        "trust_domain: example.org\nstate: state\ntrust_bundle: root.pem\n\
         authority: {{ certificate: authority.pem, passphrase_file: passphrase }}\nprofiles: [{profile}]\n"
    );
    Config::parse(&folder.path().join("issuer.yaml"), &text).map_err(|error| error.to_string())
}

fn profile(text: &str) -> Profile {
    read(text).unwrap().profiles.remove(0)
}

#[test]
fn a_profile_is_as_the_one_that_it_is_like_but_for_what_it_says() {
    let web = profile(
        "{ name: web, like: tls-server, keys: [p256, rsa3072], ttl: 12h, max_ttl: 30d, \
         extended_key_usage: [server_auth, 1.3.6.1.5.5.7.3.17], subject: { organization: Example, country: DE }, \
         extensions: [{ oid: 1.3.6.1.4.1.99999.1, value: 0c0473686f70 }], permit: 'size(dns_names) > 0' }",
    );
    assert_eq!(web.keys, [KeyType::P256, KeyType::Rsa3072]);
    assert_eq!((web.ttl, web.max_ttl), (Duration::from_secs(43_200), Duration::from_secs(30 * 86_400)));
    assert!(!web.is_identity() && web.permit.is_some());
    let Form::Leaf(leaf) = &web.form else { unreachable!() };
    assert_eq!(leaf.key_usages, [KeyUsagePurpose::DigitalSignature]);
    let other = ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
    assert_eq!(leaf.extended_key_usages, [ExtendedKeyUsagePurpose::ServerAuth, other]);
    assert_eq!(leaf.extensions[0].content(), b"\x0c\x04shop");

    let short = profile("{ name: short, like: subordinate-ca, max_ttl: 1d }");
    assert!(matches!(short.form, Form::SubordinateCa));
    assert_eq!(short.ttl, Duration::from_secs(86_400), "a default beyond the most is cut");
}

#[test]
fn what_is_shown_of_a_profile_is_that_profile() {
    for text in [
        "{ name: web, like: tls-server, subject: { organization: \"A: {b}\", organizational_unit: \"'\" }, \
         extensions: [{ oid: 2.999.1, value: '0500', critical: true }, { oid: 1.3.6.1.4.1.1, value: '0500' }], \
         key_usage: [digital_signature, key_agreement], extended_key_usage: [1.3.6.1.5.5.7.3.1, 1.2.3], \
         permit: \"path != '/x: {y}'\" }",
        "{ name: ca, like: subordinate-ca, keys: [p384] }",
    ] {
        let written = profile(text).written.unwrap();
        assert_eq!(profile(&written).written.unwrap(), written);
    }
    let config = read("{ name: web, like: tls-server }").unwrap();
    assert!(
        config.redacted.contains("profiles:\n  - { name: web, like: workload, keys: [p256, "),
        "{}",
        config.redacted
    );
}

#[test]
fn a_change_of_a_profile_is_another_version_of_it() {
    let one = profile("{ name: web, like: tls-server }");
    assert_eq!(one, profile("{ name: web, like: tls-server }"));
    for other in [
        "{ name: web, like: tls-server, keys: [p256] }",
        "{ name: web, like: tls-client }",
        "{ name: web, like: tls-server, permit: 'true' }",
        "{ name: web, like: tls-server, extensions: [{ oid: 1.2.3, value: '0500' }] }",
    ] {
        assert_ne!(one, profile(other), "{other}");
    }
}

#[test]
fn what_is_no_profile_is_refused_with_its_place_and_the_fix() {
    for (profile, told) in [
        ("{ name: Web, like: tls-server }", "`Web` is no name of a profile"),
        ("{ name: device, like: tls-server }", "there is another profile `device`"),
        ("{ name: web, like: web }", "there is no built-in profile `web`"),
        ("{ name: web, like: tls-server, keys: [] }", "no key would do"),
        ("{ name: web, like: tls-server, keys: [rsa1024] }", "no type of key"),
        ("{ name: web, like: tls-server, ttl: 91d }", "`ttl` is 91d"),
        ("{ name: web, like: tls-server, max_ttl: 1s }", "`max_ttl` is 1s"),
        ("{ name: web, like: tls-server, key_usage: [key_cert_sign] }", "`key_cert_sign` is no usage of a leaf's key"),
        ("{ name: web, like: tls-server, key_usage: [] }", "a key that may do nothing"),
        ("{ name: web, like: tls-server, extended_key_usage: [] }", "good for everything"),
        ("{ name: web, like: tls-server, extended_key_usage: [2.5.29.37.0] }", "is good for everything"),
        ("{ name: web, like: tls-server, extended_key_usage: [1.3.6.1.5.5.7.3.9] }", "would answer for certificates"),
        ("{ name: web, like: tls-server, extended_key_usage: [ocsp_signing] }", "is no purpose"),
        ("{ name: web, like: tls-server, extended_key_usage: [1.40.3] }", "is no purpose"),
        ("{ name: web, like: tls-server, extended_key_usage: [1.2.03] }", "is no purpose"),
        ("{ name: web, like: tls-server, subject: { country: Germany } }", "`Germany` cannot stand in a subject"),
        ("{ name: web, like: tls-server, subject: { country: é } }", "`é` cannot stand in a subject"),
        ("{ name: web, like: tls-server, subject: { common_name: x } }", "unknown key `common_name`"),
        ("{ name: web, like: tls-server, extensions: [{ oid: 2.5.29.19, value: '0500' }] }", "is for X.509 itself"),
        (
            "{ name: web, like: tls-server, extensions: [{ oid: 1.3.6.1.5.5.7.1.1, value: '0500' }] }",
            "for X.509 itself",
        ),
        ("{ name: web, like: tls-server, extensions: [{ oid: 1.2.3, value: xyz }] }", "not hexadecimal"),
        ("{ name: web, like: tls-server, extensions: [{ oid: 1.2.3, value: '050000' }] }", "not DER"),
        (
            "{ name: web, like: tls-server, extensions: [{ oid: 1.2.3, value: '0500' }, { oid: 1.2.3, value: '0500' }] }",
            "twice",
        ),
        (
            "{ name: dev, like: device, extensions: [{ oid: 1.2.3, value: '0500', critical: true }] }",
            "Signet's own peers",
        ),
        ("{ name: ca, like: subordinate-ca, extended_key_usage: [server_auth] }", "of a CA are fixed"),
        ("{ name: web, like: tls-server, permit: dns_name }", "`permit`: it cannot be evaluated"),
        ("{ name: web, like: tls-server, permit: '1 +' }", "`permit`: no expression in CEL"),
        ("{ name: web, like: tls-server }, { name: web, like: device }", "there is another profile `web`"),
    ] {
        let refused = read(profile).unwrap_err();
        assert!(refused.contains("issuer.yaml:5:") && refused.contains(told), "{profile}: {refused}");
    }
}
