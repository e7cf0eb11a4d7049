//! No connection outlives its identity: drained, then closed, within a second of its peer's expiry.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::time::{Duration, Instant, SystemTime};

use signet_tests::raw_http;
use signet_tests::tls::TlsClient;
use signet_tests::wait::{throughout, until};
use signet_tests::{Curl, Gateway, GatewayPlan, IdentityFiles, Nginx, Pki, SClient, millis, secs};
use tempfile::TempDir;

/// The promise, and what a busy machine adds to seeing it kept.
const PROMISED: Duration = millis(1000);
const SEEING_IT: Duration = millis(500);

/// Of the certificates that expire here: long enough for a handshake on a busy machine.
const LIFE: Duration = secs(4);

#[test]
fn an_http_1_1_connection_ends_at_its_peers_expiry() {
    let guarded = Guarded::start();
    let (identity, expires) = guarded.expiring_client(LIFE);
    let mut connection = SClient::to(guarded.address()).identity(&identity).trusting(&guarded.pki.bundle).start();
    connection.send("GET /hello HTTP/1.1\r\nhost: test\r\n\r\n");
    connection.wait_for("hello from nginx", LIFE);

    // It is let live for most of its life.
    let most = expires.saturating_duration_since(Instant::now()).mul_f64(0.8);
    throughout("the connection is open", most, || !connection.has_ended());
    until("the connection has ended", LIFE, || connection.has_ended());
    assert_in_time(expires);
    guarded.closed_for_expiry();
}

#[test]
fn a_busy_http_1_1_connection_is_told_to_close_and_loses_no_answer() {
    let guarded = Guarded::start();
    // It is told in the last tenth of that: long enough for one more request on a busy machine.
    let (identity, expires) = guarded.expiring_client(secs(15));
    let mut client = TlsClient::connect(guarded.address(), &identity, &["http/1.1"]).unwrap();
    client.set_read_timeout(Some(secs(10)));
    let mut answers = 0;
    let last = loop {
        // A connection that was closed between two requests takes no more.
        if client.write_all(b"GET /hello HTTP/1.1\r\nhost: test\r\n\r\n").is_err() {
            break None;
        }
        let head = read_answer(&mut client);
        assert!(head.starts_with("HTTP/1.1 200"), "after {answers} answers: {head:?}");
        answers += 1;
        if head.to_ascii_lowercase().contains("connection: close") {
            break Some(head);
        }
        assert!(Instant::now() < expires + PROMISED + SEEING_IT, "still answers after its peer's expiry");
        std::thread::sleep(millis(10));
    };
    assert!(last.is_some(), "closed without a word after {answers} answers");
    assert_eq!(client.read(&mut [0; 16]).unwrap_or(0), 0, "closed after it said so");
    assert_in_time(expires);
    guarded.closed_for_expiry();
}

#[test]
fn an_http_2_connection_gets_goaway_and_ends_at_its_peers_expiry() {
    let guarded = Guarded::start();
    let (identity, expires) = guarded.expiring_client(LIFE);
    let mut client = TlsClient::connect(guarded.address(), &identity, &["h2"]).unwrap();
    client.set_read_timeout(Some(secs(10)));
    client.write_all(HTTP2_PREFACE).unwrap();
    client.flush().unwrap();

    let mut frames = Vec::new();
    while let Some(kind) = read_frame(&mut client) {
        frames.push(kind);
    }
    assert!(frames.contains(&GOAWAY), "frames seen: {frames:?}");
    assert_in_time(expires);
    guarded.closed_for_expiry();
}

#[test]
fn an_answer_that_would_last_longer_is_cut_off() {
    let guarded = Guarded::start();
    guarded.nginx.serve_random("long", 1 << 20);
    for protocol in [Curl::http1, Curl::http2] {
        let (identity, expires) = guarded.expiring_client(LIFE);
        // At 1 KiB a second it would take a quarter of an hour.
        let slow = Curl::get(guarded.gateway.inbound_url("/slow/long")).identity(&identity);
        let answer = protocol(slow).run();
        assert_ne!(answer.exit, 0, "{answer:?}");
        assert_in_time(expires);
    }
}

#[test]
fn a_connection_that_is_not_used_at_all_ends_too() {
    let guarded = Guarded::start();
    let (identity, expires) = guarded.expiring_client(LIFE);
    let mut client = TlsClient::connect(guarded.address(), &identity, &["http/1.1"]).unwrap();
    client.set_read_timeout(Some(secs(10)));
    let answer = raw_http::read_answer(&mut client);
    assert_eq!((answer.end, answer.text.as_str()), (raw_http::End::Closed, ""));
    assert_in_time(expires);
}

#[test]
fn other_peers_connections_live_on() {
    let guarded = Guarded::start();
    let (identity, expires) = guarded.expiring_client(LIFE);
    let lasting = guarded.pki.identity("lasting", "/client/lasting");
    let mut short = SClient::to(guarded.address()).identity(&identity).start();
    let mut long = SClient::to(guarded.address()).identity(&lasting).start();
    for connection in [&mut short, &mut long] {
        connection.send("GET /hello HTTP/1.1\r\nhost: test\r\n\r\n");
        connection.wait_for("hello from nginx", LIFE);
    }
    until("the short one has ended", LIFE + secs(2), || short.has_ended());
    assert_in_time(expires);
    throughout("the other one is open", secs(1), || !long.has_ended());
    long.send("GET /missing HTTP/1.1\r\nhost: test\r\n\r\n");
    long.wait_for("404 Not Found", secs(5));
}

#[test]
fn a_session_ticket_prolongs_no_life() {
    let guarded = Guarded::start();
    let (identity, expires) = guarded.expiring_client(LIFE);
    let ticket = guarded.folder.path().join("ticket.pem");
    let client = || SClient::to(guarded.address()).identity(&identity);
    let first = client().arg("-sess_out").arg(&ticket).get("/hello");
    assert!(first.contains("hello from nginx"), "{first}");

    let resumed = client().arg("-sess_in").arg(&ticket).arg("-sess_out").arg(&ticket).get("/hello");
    assert!(resumed.contains("Reused, TLSv1.3") && resumed.contains("hello from nginx"), "{resumed}");

    until("the certificate has expired", LIFE + secs(1), || Instant::now() > expires + millis(50));
    let late = client().arg("-sess_in").arg(&ticket).get("/hello");
    assert!(late.contains("CONNECTED") && !late.contains("hello from nginx"), "served after expiry: {late}");
}

#[test]
fn pooled_connections_to_a_peer_are_replaced_before_either_identity_expires() {
    let guarded = Guarded::start();
    let (identity, _) = guarded.expiring_client(LIFE);
    let tap = signet_tests::tap::Tap::before(guarded.address());
    let outbound = GatewayPlan::new("outbound")
        .identity_from_files(&identity, &guarded.pki.bundle)
        .outbound(tap.address(), &["spiffe://example.org/gateway/inbound"])
        .start();

    // Replaced files are the successor; requests go on all the while and none may meet a peer that hangs up.
    let end = Instant::now() + LIFE * 3;
    let mut renew_at = Instant::now() + LIFE / 2;
    let mut requests = 0;
    while Instant::now() < end {
        if Instant::now() >= renew_at {
            guarded.expiring_client(LIFE);
            renew_at = Instant::now() + LIFE / 2;
        }
        Curl::get(outbound.outbound_url("/hello")).run().expect_status(200);
        requests += 1;
    }
    let connections = tap.connections();
    assert!(connections.len() >= 3, "{} connections for {requests} requests", connections.len());
    assert!(connections.len() < requests / 2, "no pool: {} connections for {requests} requests", connections.len());
    for connection in connections {
        let lived = connection.closed.unwrap_or_else(Instant::now) - connection.opened;
        assert!(lived < LIFE + PROMISED + SEEING_IT, "a connection lived {lived:?} with a certificate of {LIFE:?}");
    }
    let retries = outbound.admin.sum("signet_gateway_upstream_retries_total", &[("upstream", "peer")]);
    assert_eq!(retries, 0.0, "a request met a peer that hung up");
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A frame's type (RFC 9113 §6.8).
const GOAWAY: u8 = 7;

/// Reads one HTTP/2 frame and tells its type; none at the end of the connection.
fn read_frame(stream: &mut impl Read) -> Option<u8> {
    let mut header = [0; 9];
    stream.read_exact(&mut header).ok()?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    stream.read_exact(&mut vec![0; length as usize]).ok()?;
    Some(header[3])
}

/// Reads one answer to `GET /hello` and returns it.
fn read_answer(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while !text.ends_with(b"hello from nginx\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// It is now: at or before the end of what was promised.
#[track_caller]
fn assert_in_time(expires: Instant) {
    let late = Instant::now().saturating_duration_since(expires);
    assert!(late <= PROMISED + SEEING_IT, "{late:?} after its peer's expiry");
}

/// An inbound gateway in front of nginx.
struct Guarded {
    nginx: Nginx,
    gateway: Gateway,
    pki: Pki,
    folder: TempDir,
}

impl Guarded {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path(), "example.org");
        let nginx = Nginx::start();
        let gateway = GatewayPlan::new("inbound")
            .identity_from_files(&pki.identity("server", "/gateway/inbound"), &pki.bundle)
            .inbound(&["spiffe://example.org/**"], &nginx.url())
            .start();
        Self { nginx, gateway, pki, folder }
    }

    fn address(&self) -> std::net::SocketAddr {
        self.gateway.listener("inbound")
    }

    /// A client's files with a certificate of [`LIFE`], and when it expires.
    fn expiring_client(&self, life: Duration) -> (IdentityFiles, Instant) {
        let issued = self.pki.issuing.leaf("spiffe://example.org/client/expiring").ttl(life).issue();
        // Certificates know whole seconds only: what counts is what the certificate says.
        let (_, parsed) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
        let not_after = Duration::from_secs(parsed.validity().not_after.timestamp().try_into().unwrap());
        let left = (SystemTime::UNIX_EPOCH + not_after).duration_since(SystemTime::now()).unwrap();
        (self.pki.write("expiring", &issued), Instant::now() + left)
    }

    #[track_caller]
    fn closed_for_expiry(&self) {
        let closed =
            || self.gateway.admin.sum("signet_gateway_connections_closed_total", &[("reason", "peer_expired")]);
        until("counted as closed for its peer's expiry", secs(2), || closed() >= 1.0);
    }
}
