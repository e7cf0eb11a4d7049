//! Who is turned away: each is refused on the wire, counted with its reason, logged once with its address, and the listener goes
//! on serving those who may.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};
use signet_test_pki::Issued;
use signet_tests::wait::until;
use signet_tests::{Curl, Gateway, GatewayPlan, IdentityFiles, Nginx, Pki, SClient, secs};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

#[test]
fn a_caller_without_a_certificate_is_refused() {
    let guarded = Guarded::start();
    guarded.refuses(&Caller::Nobody, "no_certificate");
}

#[test]
fn a_certificate_of_another_ca_is_refused_even_for_the_right_name() {
    let guarded = Guarded::start();
    let forger = Pki::new(&guarded.folder.path().join("forger"), "example.org");
    let forged = forger.identity("forged", "/client/good");
    guarded.refuses(&Caller::With(forged), "untrusted_authority");
}

#[test]
fn a_certificate_of_another_trust_domain_is_refused() {
    let guarded = Guarded::start();
    let foreign = Pki::new(&guarded.folder.path().join("foreign"), "elsewhere.example");
    let foreigner = foreign.identity("foreigner", "/client/good");
    guarded.refuses(&Caller::With(foreigner), "unknown_trust_domain");
}

#[test]
fn a_name_of_another_trust_domain_signed_by_our_ca_is_refused() {
    let guarded = Guarded::start();
    let imposter = guarded.pki.issuing.leaf("spiffe://elsewhere.example/client/good").issue();
    guarded.refuses_issued(&imposter, "unknown_trust_domain");
}

#[test]
fn an_expired_certificate_is_refused() {
    let guarded = Guarded::start();
    let now = OffsetDateTime::now_utc();
    let expired = guarded.pki.issuing.leaf(GOOD).valid(now - Duration::hours(1), now - Duration::seconds(2)).issue();
    guarded.refuses_issued(&expired, "expired");
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_refused() {
    let guarded = Guarded::start();
    let now = OffsetDateTime::now_utc();
    let early = guarded.pki.issuing.leaf(GOOD).valid(now + Duration::minutes(5), now + Duration::hours(1)).issue();
    guarded.refuses_issued(&early, "not_yet_valid");
}

#[test]
fn a_certificate_with_two_uri_names_is_refused() {
    let guarded = Guarded::start();
    let two = guarded.pki.issuing.leaf(GOOD).uri("spiffe://example.org/client/other").issue();
    guarded.refuses_issued(&two, "several_uris");
}

#[test]
fn a_second_uri_name_of_another_scheme_is_refused_too() {
    let guarded = Guarded::start();
    let two = guarded.pki.issuing.leaf(GOOD).uri("https://example.org/").issue();
    guarded.refuses_issued(&two, "several_uris");
}

#[test]
fn a_ca_certificate_is_refused_as_a_leaf() {
    let guarded = Guarded::start();
    // Of the root: below the intermediate with its pathLen 0 the path itself would break.
    let ca = guarded.pki.root.leaf(GOOD).with(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    });
    guarded.refuses_issued(&ca.issue(), "ca_as_leaf");
}

#[test]
fn a_uri_that_is_no_spiffe_id_is_refused() {
    let guarded = Guarded::start();
    let web = guarded.pki.issuing.leaf("https://example.org/client/good").issue();
    guarded.refuses_issued(&web, "not_spiffe");
}

#[test]
fn a_certificate_without_a_uri_is_refused() {
    let guarded = Guarded::start();
    let dns_only = guarded.pki.issuing.leaf(GOOD).without_names().dns("client.example.org").issue();
    guarded.refuses_issued(&dns_only, "no_spiffe_id");
}

#[test]
fn the_trust_domain_itself_is_no_workload() {
    let guarded = Guarded::start();
    let root = guarded.pki.issuing.leaf("spiffe://example.org").issue();
    guarded.refuses_issued(&root, "root_path");
}

#[test]
fn tls_1_2_is_refused() {
    let guarded = Guarded::start();
    let before = guarded.refused_handshakes();

    let curl = guarded.get().identity(&guarded.good).arg("--tls-max").arg("1.2").run();
    assert_eq!(curl.status, 0, "{curl:?}");
    let openssl = SClient::to(guarded.address()).identity(&guarded.good).arg("-tls1_2").get("/hello");
    assert!(openssl.contains("alert protocol version"), "{openssl}");

    guarded.counts_handshakes(before + 2.0);
    guarded.logged_once(&curl.local_address);
    guarded.still_serves();
}

#[test]
fn plain_http_on_the_mtls_port_is_refused() {
    let guarded = Guarded::start();
    let before = guarded.refused_handshakes();

    let curl = Curl::get(format!("http://{}/hello", guarded.address())).run();
    assert_eq!(curl.status, 0, "{curl:?}");

    guarded.counts_handshakes(before + 1.0);
    guarded.logged_once(&curl.local_address);
    guarded.still_serves();
}

#[test]
fn a_caller_that_no_pattern_allows_gets_403() {
    let guarded = Guarded::start();
    let other = guarded.pki.identity("other", "/admin/good");
    let before = guarded.gateway.admin.sum("signet_gateway_denied_total", &[("listener", "inbound")]);
    for curl in [guarded.get().http1(), guarded.get().http2()] {
        let answer = curl.identity(&other).run().expect_status(403);
        guarded.logged_once(&answer.local_address);
    }
    let denied = guarded.gateway.admin.sum("signet_gateway_denied_total", &[("listener", "inbound")]);
    assert_eq!(denied, before + 2.0);
    guarded.still_serves();
}

#[test]
fn a_listener_that_allows_nobody_serves_nobody() {
    let guarded = Guarded::allowing(&[]);
    guarded.get().identity(&guarded.good).run().expect_status(403);
    assert_eq!(guarded.nginx.accesses(), []);
}

#[test]
fn a_server_that_is_not_who_was_expected_gets_no_request() {
    let guarded = Guarded::start();
    let expecting = |server: &str| {
        GatewayPlan::new("outbound")
            .identity_from_files(&guarded.good, &guarded.pki.bundle)
            .outbound(guarded.address(), &[server])
            .start()
    };
    let deceived = expecting("spiffe://example.org/somebody/else");
    let answer = Curl::get(deceived.outbound_url("/hello")).run();
    assert!((502..=503).contains(&answer.status), "{answer:?}");
    assert_eq!(guarded.nginx.accesses(), []);

    let content = expecting("spiffe://example.org/gateway/inbound");
    Curl::get(content.outbound_url("/hello")).run().expect_status(200);
}

#[test]
fn a_server_of_another_ca_gets_no_request() {
    let guarded = Guarded::start();
    let forger = Pki::new(&guarded.folder.path().join("forger"), "example.org");
    let outbound = GatewayPlan::new("outbound")
        .identity_from_files(&forger.identity("client", "/client/good"), &forger.bundle)
        .outbound(guarded.address(), &["spiffe://example.org/**"])
        .start();
    let answer = Curl::get(outbound.outbound_url("/hello")).run();
    assert!((502..=503).contains(&answer.status), "{answer:?}");
    assert_eq!(guarded.nginx.accesses(), []);
}

const GOOD: &str = "spiffe://example.org/client/good";

/// An inbound gateway in front of nginx, open to `spiffe://example.org/client/**`.
struct Guarded {
    nginx: Nginx,
    gateway: Gateway,
    pki: Pki,
    good: IdentityFiles,
    folder: TempDir,
}

/// Who tries.
enum Caller {
    Nobody,
    With(IdentityFiles),
}

impl Guarded {
    fn start() -> Self {
        Self::allowing(&["spiffe://example.org/client/**"])
    }

    fn allowing(patterns: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path(), "example.org");
        let nginx = Nginx::start();
        let gateway = GatewayPlan::new("inbound")
            .identity_from_files(&pki.identity("server", "/gateway/inbound"), &pki.bundle)
            .inbound(patterns, &nginx.url())
            .start();
        Self { nginx, gateway, good: pki.identity("good", "/client/good"), pki, folder }
    }

    fn address(&self) -> std::net::SocketAddr {
        self.gateway.listener("inbound")
    }

    fn get(&self) -> Curl {
        Curl::get(self.gateway.inbound_url("/hello")).insecure()
    }

    fn refuses_issued(&self, issued: &Issued, reason: &str) {
        self.refuses(&Caller::With(self.pki.write("refused", issued)), reason);
    }

    /// By curl and by openssl.
    #[track_caller]
    fn refuses(&self, caller: &Caller, reason: &str) {
        let before = self.refused(reason);
        let (curl, openssl) = (self.get(), SClient::to(self.address()));
        let (curl, openssl) = match caller {
            Caller::Nobody => (curl, openssl),
            Caller::With(files) => (curl.identity(files), openssl.identity(files)),
        };
        let answer = curl.run();
        assert_eq!(answer.status, 0, "curl was served: {answer:?}");
        assert_ne!(answer.exit, 0, "{answer:?}");
        let told = openssl.get("/hello");
        assert!(told.contains("CONNECTED") && !told.contains("HTTP/1.1"), "openssl was served: {told}");

        let admin = self.gateway.admin;
        until(&format!("two more refused for {reason}: {}", admin.metrics().text()), secs(5), || {
            self.refused(reason) == before + 2.0
        });
        self.logged_once(&answer.local_address);
        assert_eq!(self.nginx.accesses(), [], "a refused caller's request reached nginx");
        self.still_serves();
    }

    fn refused(&self, reason: &str) -> f64 {
        self.gateway.admin.sum("signet_gateway_handshakes_total", &[("listener", "inbound"), ("result", reason)])
    }

    /// Handshakes that did not succeed.
    fn refused_handshakes(&self) -> f64 {
        let metrics = self.gateway.admin.metrics();
        let all = metrics.sum("signet_gateway_handshakes_total", &[("listener", "inbound")]);
        all - metrics.sum("signet_gateway_handshakes_total", &[("listener", "inbound"), ("result", "ok")])
    }

    #[track_caller]
    fn counts_handshakes(&self, refused: f64) {
        until(&format!("{refused} refused handshakes"), secs(5), || self.refused_handshakes() == refused);
    }

    #[track_caller]
    fn logged_once(&self, peer: &str) {
        let lines = || self.gateway.process.lines_with(&[&format!("\"{peer}\"")]);
        until(&format!("a log line about {peer}"), secs(5), || !lines().is_empty());
        assert_eq!(lines().len(), 1, "{:#?}", lines());
    }

    #[track_caller]
    fn still_serves(&self) {
        let answer = self.get().identity(&self.good).run().expect_status(200);
        assert_eq!(answer.text(), "hello from nginx\n");
    }
}
