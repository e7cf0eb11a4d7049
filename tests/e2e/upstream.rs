//! Whatever is behind the gateway fails: an answer that says so, soon, and service again once it is back.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use signet_tests::address::Host;
use signet_tests::wait::until;
use signet_tests::{Curl, Gateway, GatewayPlan, Nginx, Pki, Signal, secs};
use tempfile::TempDir;

#[test]
fn an_upstream_that_is_down_is_answered_for_with_503_and_a_reason() {
    let mut chain = Chain::start("");
    chain.curl("/hello").run().expect_status(200);

    chain.nginx.kill();
    for protocol in [Curl::http1, Curl::http2_by_preface] {
        let answer = protocol(chain.curl("/hello")).max_time(secs(10)).run().expect_status(503);
        assert!(answer.header("x-signet-reason").is_some(), "{answer:?}");
    }
    let failures = chain.inbound.admin.sum("signet_gateway_upstream_failures_total", &[("upstream", "app")]);
    assert_eq!(failures, 2.0);

    chain.nginx.start_again();
    chain.curl("/hello").run().expect_status(200);
}

#[test]
fn a_peer_gateway_that_is_down_is_answered_for_with_503_and_a_reason() {
    let mut chain = Chain::start("");
    chain.curl("/hello").run().expect_status(200);

    chain.inbound.process.kill();
    let answer = chain.curl("/hello").max_time(secs(10)).run().expect_status(503);
    assert!(answer.header("x-signet-reason").is_some(), "{answer:?}");
    assert!(chain.outbound.admin.sum("signet_gateway_upstream_failures_total", &[("upstream", "peer")]) >= 1.0);

    chain.inbound.process.start_again();
    chain.inbound.wait_until_ready();
    chain.curl("/hello").run().expect_status(200);
}

#[test]
fn an_upload_to_an_upstream_that_is_down_does_not_hang() {
    let mut chain = Chain::start("");
    for (name, bytes) in [("small", 1 << 10), ("large", 64 << 20)] {
        chain.nginx.serve_random(name, bytes);
    }
    chain.nginx.kill();
    let upload = |name: &str| {
        Curl::put(chain.outbound.outbound_url(&format!("/stored/{name}")), &chain.nginx.file(name)).max_time(secs(20))
    };
    upload("small").http1().run().expect_status(503);
    upload("large").http1().run().expect_status(503);
    upload("small").http2_by_preface().run().expect_status(503);
    // An answer before the end of an upload is followed by RST_STREAM (RFC 9113 §8.1), which curl 7.88 takes for an error.
    let early = upload("large").http2_by_preface().run();
    assert!(early.status == 503 || early.exit == CURLE_HTTP2_STREAM, "{early:?}");
}

const CURLE_HTTP2_STREAM: i32 = 92;

#[test]
fn an_upstream_that_stands_still_is_given_up() {
    let chain = Chain::start_with_upstream("response_timeout: 1s", "");
    chain.curl("/hello").run().expect_status(200);
    chain.nginx.signal(Signal::Stop);
    let answer = chain.curl("/hello").max_time(secs(15)).run();
    assert!((502..=504).contains(&answer.status), "{answer:?}");
    chain.nginx.signal(Signal::Continue);
    chain.curl("/hello").run().expect_status(200);
}

#[test]
fn an_upstream_that_dies_within_its_answer_ends_the_answer() {
    let mut chain = Chain::start("");
    chain.nginx.serve_random("long", 1 << 20);
    for protocol in [Curl::http1, Curl::http2_by_preface] {
        let mut slow = protocol(chain.curl("/slow/long")).start();
        until("nginx has begun to answer", secs(10), || slow.body_bytes() > 0);
        chain.nginx.kill();
        let mut exit = None;
        until("curl has ended", secs(10), || {
            exit = slow.exit();
            exit.is_some()
        });
        assert_ne!(exit, Some(0), "half an answer looked whole");
        chain.nginx.start_again();
    }
}

#[test]
fn a_client_that_goes_away_takes_its_request_to_the_upstream_with_it() {
    let chain = Chain::start("");
    chain.nginx.serve_random("long", 1 << 20);
    let slow = chain.curl("/slow/long").start();
    until("nginx has begun to answer", secs(10), || slow.body_bytes() > 0);
    drop(slow);
    // nginx logs a request when it is over; at 1 KiB a second this one would take a quarter of an hour.
    until("nginx has given it up", secs(10), || !chain.nginx.accesses_of("/slow/long").is_empty());
    chain.curl("/hello").run().expect_status(200);
}

#[test]
fn a_gateway_told_to_end_finishes_what_it_has_begun() {
    let mut chain = Chain::start("shutdown: { drain: 20s }\n");
    // Four seconds at 1 KiB a second.
    let sent = chain.nginx.serve_random("short", 4 << 10);
    let answer = std::thread::scope(|scope| {
        let curl = chain.curl("/slow/short");
        let answer = scope.spawn(|| curl.run());
        let connections = || chain.inbound.admin.sum("signet_gateway_upstream_connections", &[("upstream", "app")]);
        until("the request is under way", secs(10), || connections() >= 1.0);
        chain.outbound.process.signal(Signal::Terminate);
        answer.join().unwrap()
    });
    assert_eq!(answer.expect_status(200).sha256(), sent);
    let status = chain.outbound.process.wait(secs(20));
    assert_eq!(status.code(), Some(0));
    assert!(!Curl::get(chain.outbound.outbound_url("/hello")).run().error.is_empty(), "nobody listens there any more");
}

#[test]
fn a_gateway_without_work_ends_at_once() {
    let mut chain = Chain::start("");
    chain.curl("/hello").run().expect_status(200);
    for gateway in [&mut chain.outbound, &mut chain.inbound] {
        gateway.process.signal(Signal::Interrupt);
        assert_eq!(gateway.process.wait(secs(5)).code(), Some(0));
    }
}

#[test]
fn a_gateway_that_cannot_have_its_address_says_so_and_ends() {
    let chain = Chain::start("");
    let taken = chain.outbound.listener("outbound");
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::new(folder.path(), "example.org");
    let mut second = GatewayPlan::new("second")
        .identity_from_files(&pki.identity("client", "/client"), &pki.bundle)
        .outbound_at(taken, Host::new().free(), &["spiffe://example.org/**"])
        .launch();
    assert_eq!(second.process.wait(secs(10)).code(), Some(1));
    let errors = second.process.lines_with(&["error: "]);
    assert_eq!(errors.len(), 1, "{}", second.process.log());
    assert!(errors[0].contains(&taken.to_string()), "{errors:?}");
}

/// An outbound gateway, an inbound one, nginx.
struct Chain {
    nginx: Nginx,
    inbound: Gateway,
    outbound: Gateway,
    _folder: TempDir,
}

impl Chain {
    fn start(configuration: &str) -> Self {
        Self::start_with_upstream("", configuration)
    }

    fn start_with_upstream(upstream: &str, configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path(), "example.org");
        let nginx = Nginx::start();
        let inbound = GatewayPlan::new("inbound")
            .identity_from_files(&pki.identity("server", "/gateway/inbound"), &pki.bundle)
            .upstream_option(upstream)
            .inbound(&["spiffe://example.org/**"], &nginx.url())
            .configure(configuration)
            .start();
        let outbound = GatewayPlan::new("outbound")
            .identity_from_files(&pki.identity("client", "/client"), &pki.bundle)
            .outbound(inbound.listener("inbound"), &["spiffe://example.org/gateway/inbound"])
            .configure(configuration)
            .start();
        Self { nginx, inbound, outbound, _folder: folder }
    }

    fn curl(&self, path: &str) -> Curl {
        Curl::get(self.outbound.outbound_url(path))
    }
}
