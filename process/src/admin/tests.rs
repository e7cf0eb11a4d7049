#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::identity_metrics::IdentityMetrics;
use crate::test_identity::TestIdentity;

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

fn start(identity: &TestIdentity, readiness: &Readiness) -> AdminServer {
    let registry = Registry::new();
    IdentityMetrics::register(&registry, identity.slot.clone()).unwrap();
    let admin = AdminBuilder {
        process: "signet-test",
        address: "127.0.0.1:0".parse().unwrap(),
        registry,
        readiness: readiness.clone(),
        identity: identity.slot.clone(),
        config: "listen: 127.0.0.1:1\n".to_owned(),
        log: None,
        pages: vec![Page { path: "/peers", answer: Arc::new(peers) }],
    };
    admin.start().unwrap()
}

fn peers(below: &str) -> Option<Value> {
    let number = if below.is_empty() { 0 } else { below[1..].parse::<u32>().ok()? };
    Some(serde_json::json!({ "after": number }))
}

fn ask(server: &AdminServer, method: &str, target: &str, headers: &str) -> Answer {
    send(server, &format!("{method} {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n"))
}

fn send(server: &AdminServer, bytes: &str) -> Answer {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // A refusal may close the connection before all is written; what it says is still read.
    let _refused_early = stream.write_all(bytes.as_bytes());
    let mut answer = Vec::new();
    let _reset_after_answer = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn get(server: &AdminServer, target: &str) -> Answer {
    ask(server, "GET", target, "")
}

#[test]
fn readiness_says_why_until_everything_is_there() {
    let identity = TestIdentity::new();
    let readiness = Readiness::awaiting(["identity", "listeners"]);
    let server = start(&identity, &readiness);
    assert_eq!(get(&server, "/live").status, 200);

    readiness.set("identity", State::NotReady { reason: "issuer 127.0.0.1:8081: connection refused".to_owned() });
    let answer = get(&server, "/ready");
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json(),
        json!({"ready": false, "reasons": [
            {"component": "identity", "reason": "issuer 127.0.0.1:8081: connection refused"},
            {"component": "listeners", "reason": "starting"},
        ]})
    );
    assert_eq!(get(&server, "/identity").status, 503);

    let _live = identity.go_live();
    assert_eq!(
        get(&server, "/ready").json()["reasons"],
        json!([{"component": "listeners", "reason": "starting"}]),
        "a valid identity is enough, whatever was said before"
    );
    readiness.set("listeners", State::Ready);
    let answer = get(&server, "/ready");
    assert_eq!((answer.status, answer.json()), (200, json!({"ready": true, "reasons": []})));
}

#[test]
fn an_identity_that_runs_out_makes_the_process_not_ready() {
    let identity = TestIdentity::new();
    let readiness = Readiness::default();
    let server = start(&identity, &readiness);
    let _live = identity.go_live();
    assert_eq!(get(&server, "/ready").status, 200);

    identity.clock.set(identity.start + time::Duration::seconds(101));
    let answer = get(&server, "/ready");
    assert_eq!(answer.status, 503);
    let reason = answer.json()["reasons"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("spiffe://example.org/shop/cart expired at "), "{reason}");

    readiness.set("identity", State::NotReady { reason: "issuer: connection refused".to_owned() });
    let reason = get(&server, "/ready").json()["reasons"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.ends_with("; issuer: connection refused"), "{reason}");
    assert_eq!(get(&server, "/identity").json()["seconds_left"], 0);
}

#[test]
fn the_identity_is_told_with_its_expiry_and_its_trust_domains() {
    let identity = TestIdentity::new();
    let server = start(&identity, &Readiness::default());
    let (_publisher, live) = identity.go_live();
    identity.clock.set(identity.start + time::Duration::seconds(40));
    let told = get(&server, "/identity").json();
    assert_eq!(told["spiffe_id"], "spiffe://example.org/shop/cart");
    assert_eq!(told["serial"], live.load().svid().serial().to_string());
    assert_eq!(told["seconds_left"], 60);
    assert_eq!(told["generation"], live.load().generation().get());
    assert_eq!(told["trust_epoch"], live.load().trust_epoch().get());
    assert_eq!(told["trust_domains"][0]["trust_domain"], "example.org");
    assert_eq!(told["trust_domains"][0]["authorities"], 1);
    assert!(told["trust_domains"][0]["seconds_left"].as_i64().unwrap() > 1_000_000);
    assert!(told["not_after"].as_str().unwrap().ends_with('Z'));
    assert_eq!(told["trust_domains"][0]["revocations"], Value::Null);
    assert_eq!(told.get("revoked"), None);
}

#[test]
fn what_is_revoked_is_told_by_trust_domain_and_that_we_are_ourselves() {
    let identity = TestIdentity::new();
    let server = start(&identity, &Readiness::default());
    let (mut publisher, live) = identity.go_live();
    assert_eq!(get(&server, "/ready").status, 200);
    publisher.publish(identity.revoked(&live.load_full())).unwrap();
    let told = get(&server, "/identity").json();
    let known = serde_json::json!({ "epoch": 7, "serials": 2, "keys": 0, "authorities": 1 });
    assert_eq!(told["trust_domains"][0]["revocations"], known);
    assert!(told["revoked"].as_str().unwrap().starts_with("the authority whose key"), "{told}");
    let answer = get(&server, "/ready");
    assert_eq!(answer.status, 503);
    let reason = answer.json()["reasons"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("peers refuse spiffe://example.org/shop/cart: revoked is the authority"), "{reason}");
}

#[test]
fn metrics_configuration_and_build_are_told() {
    let identity = TestIdentity::new();
    let server = start(&identity, &Readiness::default());
    let metrics = get(&server, "/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    assert!(metrics.body.contains("# TYPE signet_svid_rotations_total counter"), "{}", metrics.body);
    assert_eq!(get(&server, "/config").body, "listen: 127.0.0.1:1\n");
    let build = get(&server, "/build").json();
    assert_eq!(build["process"], "signet-test");
    assert!(build["rustc"].as_str().unwrap().starts_with("rustc "));
    let head = ask(&server, "HEAD", "/metrics", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn other_paths_and_methods_are_refused() {
    let identity = TestIdentity::new();
    let server = start(&identity, &Readiness::default());
    for target in ["/", "/metric", "/metrics/", "/identity/../config", "/quit", "/peersonal", "/peers/x"] {
        assert_eq!(get(&server, target).status, 404, "{target}");
    }
    for target in ["/metrics", "/live", "/ready", "/identity", "/config", "/build", "/peers"] {
        let answer = ask(&server, "POST", target, "content-length: 0\r\n");
        assert_eq!(answer.status, 405, "{target}");
        assert!(answer.head.contains("allow: GET, HEAD"), "{}", answer.head);
    }
    assert_eq!(ask(&server, "DELETE", "/log", "").status, 405);
}

#[test]
fn a_process_has_pages_of_its_own() {
    let server = start(&TestIdentity::new(), &Readiness::default());
    assert_eq!(get(&server, "/peers").json(), json!({ "after": 0 }));
    assert_eq!(get(&server, "/peers/17").json(), json!({ "after": 17 }));
    assert!(get(&server, "/quit").body.contains(", /peers"));
}

#[test]
fn the_log_level_is_changed_only_to_a_level_by_no_browser_and_where_it_is_ours() {
    let identity = TestIdentity::new();
    let server = start(&identity, &Readiness::default());
    for query in ["", "?level=", "?level=loud", "?level=hyper=trace", "?lvl=debug"] {
        assert_eq!(ask(&server, "POST", &format!("/log{query}"), "content-length: 0\r\n").status, 400, "{query}");
    }
    let across_origins = "origin: https://example.com\r\ncontent-length: 0\r\n";
    assert_eq!(ask(&server, "POST", "/log?level=debug", across_origins).status, 403);
    assert_eq!(ask(&server, "POST", "/log?level=debug", "content-length: 0\r\n").status, 409);
}

#[test]
fn oversized_headers_and_what_is_no_http_are_refused_and_the_next_caller_is_served() {
    let identity = TestIdentity::new();
    let server = start(&identity, &Readiness::default());
    let big = format!("x: {}\r\n", "a".repeat(64 << 10));
    assert_eq!(ask(&server, "GET", "/live", &big).status, 431);
    let many: String = (0..100).map(|n| format!("x{n}: 1\r\n")).collect();
    assert_eq!(ask(&server, "GET", "/live", &many).status, 431);
    assert_eq!(send(&server, "\u{16}\u{3}\u{1}\u{2}\r\n\r\n").status, 400);
    assert_eq!(get(&server, "/live").status, 200);
}

#[test]
fn callers_who_say_nothing_do_not_keep_others_out_for_ever() {
    let identity = TestIdentity::new();
    let server = start(&identity, &Readiness::default());
    let silent: Vec<TcpStream> = (0..MAX_CONNECTIONS).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    let begun = Instant::now();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(begun.elapsed() < HEADER_TIMEOUT + Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(silent);
}

#[test]
fn an_address_in_use_is_an_error_that_says_so() {
    let identity = TestIdentity::new();
    let server = start(&identity, &Readiness::default());
    let second = AdminBuilder {
        process: "signet-test",
        address: server.address(),
        registry: Registry::new(),
        readiness: Readiness::default(),
        identity: identity.slot.clone(),
        config: String::new(),
        log: None,
        pages: Vec::new(),
    };
    let error = second.start().unwrap_err();
    assert!(matches!(error, AdminError::AddressInUse { address } if address == server.address()));
    assert!(error.to_string().contains(" is in use\n"), "{error}");
}

#[test]
fn stopping_frees_the_address_even_with_an_idle_connection_open() {
    let identity = TestIdentity::new();
    let server = start(&identity, &Readiness::default());
    let address = server.address();
    let mut idle = TcpStream::connect(address).unwrap();
    idle.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut some = [0; 16];
    idle.read_exact(&mut some).unwrap();
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(TcpStream::connect(address).is_err());
}
