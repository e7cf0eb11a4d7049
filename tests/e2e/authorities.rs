//! Authorities and roots follow each other under load, by the commands of the page, and when the issuer is killed at it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use signet_tests::wait::until;
use signet_tests::{Direct, Issuer, Load, Mesh, Nginx, millis, pages, program, secs};

const LOAD: Duration = secs(40);
/// Requests each second, in each stream of load.
const RATE: u32 = 100;

#[track_caller]
fn done(output: &Output) -> String {
    let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{error}");
    told.into_owned()
}

fn place_of(issuer: &Issuer) -> PathBuf {
    issuer.configuration.parent().unwrap().to_owned()
}

#[test]
fn an_authority_and_a_root_follow_under_load_and_no_request_fails() {
    let nginx = Nginx::start();
    let mesh = Mesh::new().ttl(secs(60)).upstream(&nginx.url()).start();
    let (issuer, outbound) = (&mesh.issuer, mesh.outbound_address());
    let folder = place_of(issuer);
    let next = issuer.make_root("next");
    let roots = [&*issuer.bundle, &next.join("root.pem")];
    let direct = Direct::start(mesh.client("load"), &roots, mesh.inbound_address(), RATE / 4, LOAD);
    let loads = [Load::http1(outbound).plain(), Load::http2(outbound).plain()];
    let running = loads.map(|load| load.rate(RATE, LOAD).start());
    let begun = Instant::now();

    issuer.hold_ceremony(&issuer.root, 1);
    let status = issuer.operate_json(&["rotate", "status"]);
    assert_eq!((&status["connected_clients"], &status["successor"]["stage"]), (&2.into(), &"prepared".into()));
    let told = done(&issuer.signet_in(&folder, &["rotate", "authority", "--apply", "--yes", "-o", "json"]));
    let told: Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
    assert_eq!((&told["acknowledged"], told["missing"].as_array().unwrap().len()), (&2.into(), 0), "{told}");
    assert_eq!(issuer.stages(), ["retired", "active"]);
    let first = issuer.operate_json(&["get", "authorities"])["authorities"][0]["key"].as_str().unwrap().to_owned();
    let tainted = issuer.operate_json(&["taint", &first, "-m", "to see that all renew"]);
    assert_eq!(tainted["clients"], 2);
    let without = || {
        let sql = "SELECT count(DISTINCT attestation_number) FROM issued WHERE authority_key_id = \
                   (SELECT authority_key_id FROM issued ORDER BY position DESC LIMIT 1) AND attestation_number IS NOT NULL";
        issuer.query(sql)[0] == "2"
    };
    until("both gateways have certificates of the successor", secs(20), without);

    let root = ["rotate", "root", "--root", "next/root.pem", "--apply", "--yes", "--no-wait", "-o", "json"];
    done(&issuer.signet_in(&folder, &root));
    issuer.hold_ceremony(&next, 1);
    let is_over = || issuer.operate_json(&["rotate", "status"])["rotation"].is_null();
    until("the root before is trusted no more", secs(30), is_over);
    let bundles = issuer.operate_json(&["get", "bundles"]);
    assert_eq!(bundles["bundles"][0]["x509_authorities"], 1);
    assert_eq!(issuer.stages(), ["tainted", "tainted", "active"]);
    assert!(begun.elapsed() < LOAD, "the load was over before: {:?}", begun.elapsed());

    let reports = running.map(signet_tests::load::Running::finish);
    for report in &reports {
        report.expect_no_failure(u64::from(RATE) * LOAD.as_secs() * 95 / 100);
        assert_eq!(report.retried(), 0, "{report}");
    }
    direct.expect_no_failure();
    for gateway in [&mesh.inbound, &mesh.outbound] {
        let name = gateway.process.name();
        let handshakes = gateway.admin.sum("signet_gateway_handshakes_total", &[]);
        let good = gateway.admin.sum("signet_gateway_handshakes_total", &[("result", "ok")]);
        assert!(handshakes == good, "{name}: {handshakes} handshakes, {good} good");
        // Those of the load, of which each was a new one.
        let least = if name == "inbound" { f64::from(RATE / 4) * LOAD.as_secs_f64() * 0.9 } else { 0.0 };
        assert!(good >= least, "{name}: {good} handshakes");
        assert!(gateway.process.lines_with(&["panicked"]).is_empty());
    }
}

#[test]
fn the_commands_of_the_page_do_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let first = issuer.operate_json(&["get", "authorities"])["authorities"][0]["key"].as_str().unwrap().to_owned();
    let mut ran = Vec::new();
    for words in pages::commands("rotation.md") {
        let words: Vec<String> =
            words.into_iter().map(|word| if word.starts_with("3f1c") { first.clone() } else { word }).collect();
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        // The root of the page is another one after its rotation, and a person answers for these.
        if words[..2] == ["ca", "sign"] || words.contains(&"--apply") {
            words.push("--yes");
        }
        done(&issuer.signet_in(folder.path(), &words));
        let waits = || !issuer.operate_json(&["rotate", "status"])["rotation"].is_null();
        if words[..2] == ["rotate", "root"] && words.contains(&"--no-wait") {
            until("a request", secs(10), || issuer.stages().contains(&"requested".to_owned()));
        } else if words[..2] == ["ca", "import"] && waits() {
            until("the rotation is over", secs(20), || !waits());
        }
        ran.push(words[..2].join(" "));
    }
    for wanted in
        ["ca csr", "ca sign", "ca import", "get authorities", "rotate authority", "rotate status", "rotate root"]
    {
        assert!(ran.iter().any(|ran| ran == wanted), "the page does not show `signet {wanted}`: {ran:?}");
    }
    assert!(ran.iter().any(|ran| ran.starts_with("taint")));
    assert_eq!(issuer.operate_json(&["get", "bundles"])["bundles"][0]["x509_authorities"], 1);
    // Nothing hangs on the first any more.
    issuer.operate(&["revoke", "authority", &first, "--reason", "superseded", "--yes", "--force"]);
    assert_eq!(issuer.stages()[0], "revoked");
}

#[test]
fn an_issuer_that_is_killed_at_any_moment_of_a_rotation_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let mut random: u64 = 0x5369_676e_6574;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    for round in 1..=3 {
        issuer.hold_ceremony(&issuer.root, 1);
        let place = folder.path().to_owned();
        let socket = issuer.socket.clone();
        // Whether it was heard before the end is for the issuer to know.
        let rotate = thread::spawn(move || {
            let mut command = Command::new(program::ours("signet"));
            let words = ["rotate", "authority", "--apply", "--yes", "--no-wait"];
            command.args(words).env("SIGNET_ISSUER", socket).current_dir(place).output().unwrap()
        });
        for _ in 0..5 {
            thread::sleep(millis(next() % 400));
            issuer.process.kill();
            issuer.process.start_again();
            issuer.wait_until_ready();
            let stages = issuer.stages();
            let active = stages.iter().filter(|stage| *stage == "active").count();
            assert_eq!((active, stages.len()), (1, round + 1), "{stages:?}");
        }
        let heard = rotate.join().unwrap().status.success();
        if !heard && issuer.stages().last().is_some_and(|last| last == "prepared") {
            issuer.operate(&["rotate", "authority", "--apply", "--yes"]);
        }
        let is_over = || issuer.stages().last().is_some_and(|last| last == "active");
        // Clients that were connected before are given time to come back.
        until("the successor signs", secs(40), is_over);
        issuer.join_token("spiffe://example.org/shop/cart");
    }
}
