//! Gateways that take no certificate but one that is proved to be in the issuer's audit log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use signet_tests::auditor::state_of;
use signet_tests::wait::{throughout, until};
use signet_tests::{Gateway, GatewayPlan, Issuer, secs};
use tempfile::TempDir;

const TTL: u64 = 20;
const ID: &str = "spiffe://example.org/gateway/one";

fn plan(issuer: &Issuer, folder: &Path, key: &Path) -> GatewayPlan {
    let token = folder.join("token");
    fs::write(&token, issuer.join_token(ID)).unwrap();
    let credential = format!("join_token_file: {}\n    require_logged: [{}]", token.display(), key.display());
    let plan = GatewayPlan::new("one").identity_by(issuer.address, "example.org", &issuer.bundle, &credential);
    plan.inbound(&["spiffe://example.org/**"], "http://127.0.0.1:1")
}

fn rotations(gateway: &Gateway, result: &str) -> f64 {
    gateway.admin.sum("signet_svid_rotations_total", &[("result", result)])
}

/// Certificates that were not taken.
fn not_taken(gateway: &Gateway) -> f64 {
    rotations(gateway, "refused") + rotations(gateway, "failed")
}

#[test]
fn a_certificate_without_its_proof_never_takes_the_place_of_a_good_one() {
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(TTL));
    let state = state_of(&issuer);
    let gateway = plan(&issuer, folder.path(), &state.join("audit/log.key.pub")).start();
    until("it renews", secs(3 * TTL), || rotations(&gateway, "rotated") >= 2.0);
    assert_eq!(not_taken(&gateway), 0.0);

    // Nothing can be published: what is issued is on record, and comes without a proof.
    let (tiles, aside) = (state.join("audit/log/tile"), folder.path().join("aside"));
    fs::rename(&tiles, &aside).unwrap();
    fs::write(&tiles, "").unwrap();
    until("one was refused", secs(2 * TTL), || not_taken(&gateway) > 0.0);
    let taken = rotations(&gateway, "rotated");
    let issued = issuer.records()[0];
    throughout("it keeps what it has", secs(2), || rotations(&gateway, "rotated") == taken && gateway.admin.is_ready());
    assert!(gateway.process.log().contains("without a proof that it is in the issuer's audit log"));
    assert!(issuer.records()[0] >= issued);
    fs::remove_file(&tiles).unwrap();
    fs::rename(&aside, &tiles).unwrap();
    until("it renews again", secs(3 * TTL), || rotations(&gateway, "rotated") > taken);
}

#[test]
fn a_log_that_is_not_the_one_that_is_known_proves_nothing() {
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let issuer = Issuer::start(folder.path(), "example.org", secs(TTL));
    let another = Issuer::start(other.path(), "example.org", secs(TTL));
    let key = state_of(&another).join("audit/log.key.pub");
    let mut gateway = plan(&issuer, folder.path(), &key).launch();
    let line = gateway.process.wait_for_line_within("whose key is not known here", secs(20));
    assert!(line.contains("example.org/audit/"), "{line}");
    assert_eq!(rotations(&gateway, "rotated"), 0.0);
}
