//! What the admin addresses tell, judged by promtool and by the names that users build on.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use signet_tests::metrics::Metrics;
use signet_tests::wait::until;
use signet_tests::{Curl, Mesh, Nginx, program, secs};

#[test]
fn promtool_accepts_the_metrics_of_gateway_and_issuer() {
    let (mesh, _nginx) = used_mesh();
    for (name, admin) in
        [("inbound", mesh.inbound.admin), ("outbound", mesh.outbound.admin), ("issuer", mesh.issuer.admin)]
    {
        let text = admin.metrics().text().to_owned();
        let mut promtool = Command::new(program::third_party("promtool"))
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && told.trim().is_empty(), "{name}: {told}\n{text}");
    }
}

#[test]
fn the_metrics_that_users_build_on_are_there() {
    let (mesh, _nginx) = used_mesh();
    let identity = [
        "signet_svid_expiration_timestamp_seconds",
        "signet_svid_issued_timestamp_seconds",
        "signet_svid_rotations_total",
        "signet_svid_renewal_age_ratio",
        "signet_bundle_expiration_timestamp_seconds",
        "signet_trust_epoch",
        "signet_issuer_connected",
    ];
    let gateway = [
        "signet_gateway_handshakes_total",
        "signet_gateway_handshake_duration_seconds_count",
        "signet_gateway_connections",
        "signet_gateway_connections_closed_total",
        "signet_gateway_requests_total",
        "signet_gateway_request_duration_seconds_count",
    ];
    let issuer = [
        "signet_ca_expiration_timestamp_seconds",
        "signet_issuer_issued_total",
        "signet_issuer_issue_duration_seconds_count",
        "signet_issuer_identities",
        "signet_svid_expiration_timestamp_seconds",
        "signet_bundle_expiration_timestamp_seconds",
    ];
    has_all(&mesh.inbound.admin.metrics(), identity.iter().chain(&gateway));
    has_all(&mesh.issuer.admin.metrics(), issuer.iter());
}

#[test]
fn expiry_is_told_as_it_is_in_the_certificate() {
    let (mesh, _nginx) = used_mesh();
    let metrics = mesh.inbound.admin.metrics();
    let id = [("spiffe_id", "spiffe://example.org/gateway/inbound")];
    let expires = metrics.sum("signet_svid_expiration_timestamp_seconds", &id);
    let issued = metrics.sum("signet_svid_issued_timestamp_seconds", &[]);
    assert_eq!(expires - issued, 60.0);

    let recorded = mesh.issuer.query(
        "SELECT not_after FROM issued WHERE spiffe_id = 'spiffe://example.org/gateway/inbound' ORDER BY position",
    );
    assert!(recorded.contains(&format!("{expires:.0}")), "{expires} is none of {recorded:?}");
}

#[test]
fn requests_are_counted_by_their_status() {
    let (mesh, _nginx) = used_mesh();
    let counted = |code: &str| {
        let labels = [("listener", "inbound"), ("code", code)];
        mesh.inbound.admin.sum("signet_gateway_requests_total", &labels)
    };
    // Workers add what they counted to the shared series a few times a second.
    until("the mesh's first requests are counted", secs(5), || (counted("200"), counted("404")) == (1.0, 1.0));
    for path in ["/hello", "/hello", "/missing"] {
        mesh.curl(path).run();
    }
    until("three more are counted", secs(5), || (counted("200"), counted("404")) == (3.0, 2.0));
}

#[test]
fn the_admin_address_tells_what_is_live() {
    let (mesh, _nginx) = used_mesh();
    for gateway in [&mesh.inbound, &mesh.outbound] {
        let get = |path: &str| Curl::get(gateway.admin.url(path)).run();
        get("/live").expect_status(200);
        get("/ready").expect_status(200);
        get("/build").expect_status(200);
        let identity = get("/identity").expect_status(200).text();
        let id = format!("spiffe://example.org/gateway/{}", gateway.process.name());
        assert!(identity.contains(&id), "{identity}");
        let config = get("/config").expect_status(200).text();
        assert!(config.contains("listeners"), "{config}");
        get("/nothing-here").expect_status(404);
        Curl::get(gateway.admin.url("/log?level=debug")).arg("--request").arg("POST").run().expect_status(200);
    }
}

fn has_all<'a>(metrics: &Metrics, names: impl Iterator<Item = &'a &'a str>) {
    let missing: Vec<_> = names.filter(|name| !metrics.has(name)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}\n{}", metrics.text());
}

/// A mesh with SVIDs of a minute that has served, refused and answered with errors.
fn used_mesh() -> (Mesh, Nginx) {
    let nginx = Nginx::start();
    let mesh = Mesh::new().upstream(&nginx.url()).start();
    mesh.curl("/hello").run().expect_status(200);
    mesh.curl("/missing").http2_by_preface().run().expect_status(404);
    Curl::get(mesh.inbound.inbound_url("/hello")).insecure().run();
    (mesh, nginx)
}
