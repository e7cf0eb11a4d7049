//! Identities rotate under load and nobody notices.
//!
//! One test, alone in its binary: it has both cores to itself.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signet_tests::{Gateway, Load, Mesh, Nginx, secs};

/// Of each SVID.
const LIFE: Duration = secs(10);
const LOAD: Duration = secs(120);
/// Requests each second, in each of the four streams of load. Two cores bear this unoptimized.
const RATE: u32 = 100;

#[test]
fn two_minutes_of_load_over_rotating_identities_lose_no_request() {
    let nginx = Nginx::start();
    let mesh = Mesh::new().ttl(LIFE).upstream(&nginx.url()).start();
    let identities = mesh.folder().join("current");
    let client = mesh.client("load");
    client.svid().write_behind_link(&identities, "client");

    let over = AtomicBool::new(false);
    let reports = thread::scope(|scope| {
        scope.spawn(|| client.keep_renewing(&identities, LIFE / 2, &over));
        let (outbound, inbound, roots) = (mesh.outbound_address(), mesh.inbound_address(), &mesh.issuer.bundle);
        let loads = [
            Load::http1(outbound).plain(),
            Load::http2(outbound).plain(),
            Load::http1(inbound).identities(&identities, roots),
            Load::http2(inbound).identities(&identities, roots),
        ];
        let running = loads.map(|load| load.rate(RATE, LOAD).start());
        let reports = running.map(signet_tests::load::Running::finish);
        over.store(true, Ordering::Relaxed);
        reports
    });

    let due = u64::from(RATE) * LOAD.as_secs();
    for report in &reports {
        println!("{report}");
    }
    for report in &reports {
        report.expect_no_failure(due * 95 / 100);
    }
    // No identity of theirs ends, so no connection of theirs does.
    for plain in &reports[..2] {
        assert_eq!(plain.retried(), 0, "{plain}");
    }
    for direct in &reports[2..] {
        let serials = direct.server_certificates_seen();
        assert!(serials >= 11, "{serials} certificates are fewer than 10 rotations: {direct}");
        let oldest = direct.oldest_peer_certificate_seconds();
        assert!(oldest < LIFE.as_secs_f64(), "a certificate was {oldest} s old: {direct}");
    }
    for gateway in [&mesh.inbound, &mesh.outbound] {
        let rotations = gateway.admin.sum("signet_svid_rotations_total", &[("result", "rotated")]);
        assert!(rotations >= 11.0, "{rotations} rotations of {}", gateway.process.name());
        let told = gateway.process.lines_with(&["WARN"]);
        assert_eq!(failed_rotations(gateway), 0.0, "{}: {told:?}", gateway.process.name());
        assert!(gateway.process.lines_with(&["panicked"]).is_empty());
    }
    // The log of nginx counts what the generators count.
    let served = nginx.accesses().iter().filter(|access| access.status == 200).count() as u64;
    assert!(served >= 4 * due * 95 / 100, "{served} requests reached nginx");
}

fn failed_rotations(gateway: &Gateway) -> f64 {
    ["refused", "failed"]
        .iter()
        .map(|result| gateway.admin.sum("signet_svid_rotations_total", &[("result", result)]))
        .sum()
}
