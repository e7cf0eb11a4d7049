//! Whoever is revoked is gone within a second, with its live connections, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use signet_tests::tls::TlsClient;
use signet_tests::wait::until_some;
use signet_tests::{Gateway, IdentityFiles, Load, Mesh, Nginx, Workload, secs};

/// From the command's beginning to the end of a connection.
const SOON: Duration = secs(1);
const LOAD: Duration = secs(12);
/// Requests each second, in each of the four streams of load. Two cores bear this unoptimized.
const RATE: u32 = 50;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// A connection over HTTP/1.1 that has been served once.
fn served(address: SocketAddr, files: &IdentityFiles) -> TlsClient {
    let mut client = TlsClient::connect(address, files, &["http/1.1"]).unwrap();
    assert_eq!(ask(&mut client).as_deref(), Some("200"));
    client
}

/// The status of the answer to one request; none where the connection ends first.
fn ask(client: &mut TlsClient) -> Option<String> {
    client.write_all(GET).ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        answer.extend_from_slice(&byte);
    }
    let head = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    client.read_exact(&mut vec![0; length]).ok()?;
    head.split(' ').nth(1).map(str::to_owned)
}

/// Reads until the connection ends, and says when that was.
fn end_of(mut client: TlsClient) -> Instant {
    let mut rest = [0; 4096];
    loop {
        match client.read(&mut rest) {
            Ok(0) => return Instant::now(),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("it is still open: {error}")
            }
            Err(_) => return Instant::now(),
        }
    }
}

fn closed(gateway: &Gateway, reason: &str) -> f64 {
    gateway.admin.sum("signet_gateway_connections_closed_total", &[("reason", reason)])
}

fn written(client: &Workload, folder: &Path, name: &str) -> IdentityFiles {
    client.svid().write(folder, name)
}

#[test]
fn a_revoked_caller_loses_its_live_connections_within_a_second_under_load_and_nobody_else_notices() {
    let nginx = Nginx::start();
    let mesh = Mesh::new().ttl(secs(3600)).upstream(&nginx.url()).start();
    let folder = mesh.folder();
    let (bad, good, load) = (mesh.client("bad"), mesh.client("good"), mesh.client("load"));
    let [bad_files, good_files, load_files] =
        [(&bad, "bad"), (&good, "good"), (&load, "load")].map(|(client, name)| written(client, &folder, name));
    let inbound = mesh.inbound_address();
    let idle = served(inbound, &bad_files);
    // Nothing was asked for on this one.
    let silent = TlsClient::connect(inbound, &bad_files, &["h2"]).unwrap();
    let mut stays = served(inbound, &good_files);

    let reports = thread::scope(|scope| {
        let (outbound, roots) = (mesh.outbound_address(), &mesh.issuer.bundle);
        let loads = [
            Load::http1(outbound).plain(),
            Load::http2(outbound).plain(),
            Load::http1(inbound).identity(&load_files, roots),
            Load::http2(inbound).identity(&load_files, roots),
        ];
        let running = loads.map(|load| load.rate(RATE, LOAD).start());
        let served = || mesh.inbound.admin.sum("signet_gateway_requests_total", &[("code", "200")]);
        until_some("load", secs(10), || (served() > 100.0).then_some(()));

        let ends = [idle, silent].map(|client| scope.spawn(|| end_of(client)));
        let begun = Instant::now();
        let serial = bad.svid().serial();
        mesh.issuer.operate(&["revoke", "serial", &serial, "--reason", "key-compromise", "--yes"]);
        let told = begun.elapsed();
        for end in ends {
            let took = end.join().unwrap() - begun;
            println!("a live connection of who is revoked ended {took:?} after the command began, which took {told:?}");
            assert!(took < SOON, "{took:?}");
        }
        running.map(signet_tests::load::Running::finish)
    });
    assert_eq!(closed(&mesh.inbound, "revoked"), 2.0);
    assert_eq!(ask(&mut stays).as_deref(), Some("200"));
    for report in &reports {
        report.expect_no_failure(u64::from(RATE) * LOAD.as_secs() * 9 / 10);
        assert_eq!(report.retried(), 0, "{report}");
    }
    for gateway in [&mesh.inbound, &mesh.outbound] {
        assert_eq!(closed(gateway, "peer_distrusted"), 0.0, "{}", gateway.process.name());
        let known = gateway.admin.json("/identity")["trust_domains"][0]["revocations"].clone();
        assert_eq!((&known["epoch"], &known["serials"]), (&1.into(), &1.into()), "{known}");
        assert_eq!(gateway.admin.sum("signet_revocation_epoch", &[("trust_domain", "example.org")]), 1.0);
    }
}

#[test]
fn a_gateway_that_was_stopped_during_a_revocation_refuses_the_revoked_from_its_first_handshake_on() {
    let nginx = Nginx::start();
    let mut mesh = Mesh::new().ttl(secs(3600)).upstream(&nginx.url()).start();
    let folder = mesh.folder();
    let (bad, good) = (mesh.client("bad"), mesh.client("good"));
    let (bad_files, good_files) = (written(&bad, &folder, "bad"), written(&good, &folder, "good"));
    let inbound = mesh.inbound_address();
    drop(served(inbound, &bad_files));

    mesh.inbound.process.kill();
    mesh.issuer.operate(&["revoke", "id", &bad.svid().spiffe_id, "--reason", "key-compromise", "--yes"]);
    mesh.write_join_token("inbound");
    mesh.inbound.process.start_again();
    // From the moment on at which it takes connections.
    let first = until_some("a connection", secs(30), || match TlsClient::connect(inbound, &bad_files, &["http/1.1"]) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => None,
        other => Some(other),
    });
    assert!(first.is_err() || ask(&mut first.unwrap()).is_none());
    for _ in 0..20 {
        let again = TlsClient::connect(inbound, &bad_files, &["http/1.1"]);
        assert!(again.is_err() || ask(&mut again.unwrap()).is_none());
    }
    mesh.inbound.wait_until_ready();
    let handshakes = |result| mesh.inbound.admin.sum("signet_gateway_handshakes_total", &[("result", result)]);
    until_some("all refused", secs(5), || (handshakes("revoked") >= 21.0).then_some(()));
    assert_eq!(handshakes("ok"), 0.0);
    drop(served(inbound, &good_files));
}
