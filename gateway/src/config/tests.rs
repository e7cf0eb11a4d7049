#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use super::*;

const WHOLE: &str = "\
identity:
  files: { certificate: server.pem, key: server.key, bundle: roots.pem }
admin: 127.0.0.1:0
workers: 2
listeners:
  - { name: inbound, mode: inbound, listen: 127.0.0.1:8443, allow: [\"spiffe://example.org/**\"], upstream: app }
  - { name: outbound, mode: outbound, listen: 127.0.0.1:8080, upstream: peer }
upstreams:
  - { name: app, address: \"http://127.0.0.1:9000\" }
  - { name: peer, address: \"mtls://gateway.example:8443\", identity: [\"spiffe://example.org/gateway\"] }
limits: { header_bytes: 32KiB, header_timeout: 3s }
shutdown: { drain: 2s }
";

fn parse(text: &str) -> Result<Gateway, String> {
    Gateway::parse(Path::new("etc/gateway.yaml"), text).map_err(|error| error.to_string())
}

#[test]
fn a_whole_configuration_is_resolved() {
    let gateway = parse(WHOLE).unwrap();
    assert_eq!(gateway.workers.get(), 2);
    assert_eq!(gateway.limits.header_bytes, 32 << 10);
    assert_eq!(gateway.limits.handshake_timeout, Duration::from_secs(10));
    assert_eq!(gateway.drain, Duration::from_secs(2));
    assert_eq!(gateway.upstreams[gateway.listeners[1].upstream.0].address.to_string(), "gateway.example:8443");
    let IdentitySource::Files { certificate, .. } = &gateway.identity else { panic!("files") };
    assert_eq!(certificate, Path::new("etc/server.pem"));
}

#[test]
fn an_upstream_address_without_a_scheme_is_plain_http() {
    for (written, address) in [
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("[::1]:9000", "[::1]:9000"),
        ("app.internal:80", "app.internal:80"),
        ("http://app.internal:80/", "app.internal:80"),
    ] {
        let gateway = parse(&WHOLE.replacen("http://127.0.0.1:9000", written, 1)).unwrap();
        assert_eq!(gateway.upstreams[0].address.to_string(), address, "{written}");
        assert!(matches!(gateway.upstreams[0].protocol, UpstreamProtocol::Plain), "{written}");
    }
}

#[test]
fn each_mistake_names_its_place_and_the_fix() {
    for (from, to, place, what, fix) in [
        ("upstream: app }", "upstrem: app }", "6:", "unknown key `upstrem`", "did you mean `upstream`?"),
        ("upstream: peer", "upstream: per", "7:", "no upstream `per`", "known upstreams: app, peer"),
        ("upstream: peer", "upstream: app", "7:", "without mTLS", "mtls://"),
        ("mode: outbound,", "mode: outbond,", "7:", "unknown value `outbond`", "did you mean `outbound`?"),
        ("mode: outbound,", "mode: outbound, allow: [],", "7:", "have no identity", "remove `allow`"),
        ("name: outbound", "name: inbound", "7:", "two listeners are called `inbound`", "its own name"),
        ("127.0.0.1:8080", "127.0.0.1:8443", "7:", "as `inbound` does", "its own address"),
        ("listen: 127.0.0.1:8080", "listen: localhost", "7:", "localhost", ""),
        ("spiffe://example.org/**", "spiffe://example.org/a*", "6:", "whole path segment", ""),
        ("http://127.0.0.1:9000", "127.0.0.1", "9:", "a host and a port", "`http://127.0.0.1:9000`"),
        ("http://127.0.0.1:9000", "127.0.0.1:0", "9:", "a host and a port", "`http://127.0.0.1:9000`"),
        ("http://127.0.0.1:9000", "127.0.0.1:9000/", "9:", "nothing after", ""),
        ("http://127.0.0.1:9000", "http:/127.0.0.1:9000", "9:", "a host and a port", "`http://127.0.0.1:9000`"),
        ("http://127.0.0.1:9000", "mtls:10.0.0.7:8443", "9:", "a host and a port", "mtls://"),
        (
            "mtls://gateway.example:8443",
            "gateway.example:8443",
            "10:",
            "proves no identity",
            "use an `mtls://` address",
        ),
        ("http://127.0.0.1:9000", "https://127.0.0.1:9000", "9:", "unknown scheme", "mtls://"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/x", "9:", "nothing after", ""),
        ("http://127.0.0.1:9000", "http://127.0.0.1", "9:", "a host and a port", ""),
        (", identity: [\"spiffe://example.org/gateway\"]", "", "10:", "no server is expected", "add `identity"),
        ("\"http://127.0.0.1:9000\"", "\"http://a:1\", identity: []", "9:", "proves no identity", "remove `identity`"),
        ("name: app,", "name: app, connections: 0,", "9:", "`connections` is out of range", "1 to"),
        ("workers: 2", "workers: 0", "4:", "out of range", "1 to 512"),
        ("32KiB", "1KiB", "11:", "`limits.header_bytes` is out of range", "8192 to"),
        ("header_timeout: 3s", "header_timeout: 3", "11:", "no duration", "with its unit"),
        ("header_timeout: 3s", "header_timeout: 0s", "11:", "out of range", "100ms to 1h"),
        ("name: app,", "name: \"a b\",", "9:", "cannot be the name of a upstream", "A-Z"),
    ] {
        assert!(WHOLE.contains(from), "{from}");
        let error = parse(&WHOLE.replacen(from, to, 1)).unwrap_err();
        assert!(error.starts_with(&format!("etc/gateway.yaml:{place}")), "{to}: {error}");
        assert!(error.contains(what), "{to}: {error}");
        assert!(error.split_once('\n').is_some_and(|(_, line)| line.contains(fix)), "{to}: {error}");
    }
}

#[test]
fn an_identity_has_exactly_one_source() {
    for files in [
        "identity: {}",
        "identity: { files: { certificate: a, key: b, bundle: c }, issuer: { address: \"a:1\", \
         trust_domain: example.org, bundle: x, join_token_file: t } }",
    ] {
        let rest = WHOLE.split_once("admin").unwrap().1;
        let error = parse(&format!("{files}\nadmin{rest}")).unwrap_err();
        assert!(error.contains("either `issuer:` or `files:`"), "{error}");
    }
}

#[test]
fn a_listener_without_allow_lets_nobody_in() {
    let gateway = parse(&WHOLE.replacen("allow: [\"spiffe://example.org/**\"], ", "", 1)).unwrap();
    let Mode::Inbound { allow } = &gateway.listeners[0].mode else { panic!("inbound") };
    assert!(allow.is_empty());
}
