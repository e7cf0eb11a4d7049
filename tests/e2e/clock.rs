//! A clock that is an hour back, on each of the machines that there are: nothing that was refused is good again, and whoever stops says why.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use signet_tests::clock::{earlier, later};
use signet_tests::openssl::openssl_ok;
use signet_tests::wait::until_some;
use signet_tests::{Curl, Issuer, Mesh, Nginx, Workload, program, secs};
use tonic::Code;

const HOUR: Duration = secs(3600);

fn attested(issuer: &Issuer, name: &str) -> Workload {
    let mut workload = Workload::of(issuer.address);
    workload.attest(&issuer.join_token(&format!("spiffe://example.org/{name}"))).unwrap();
    workload
}

/// The number of the list that is served, and how many entries it has; once it has as many as are wanted.
fn list(issuer: &Issuer, entries: usize) -> (u128, usize) {
    let file = issuer.configuration.with_file_name("list.crl");
    until_some("the list", secs(10), || {
        let key_id = issuer.operate_json(&["status"])["authority"]["key_id"].as_str()?.to_owned();
        let url = format!("http://{}/crl/{key_id}/0.crl", issuer.web);
        let answer = Curl::get(url).run();
        if answer.status != 200 {
            return None;
        }
        fs::write(&file, answer.bytes()).unwrap();
        let words = ["crl", "-inform", "DER", "-in", file.to_str()?, "-noout", "-crlnumber", "-text"];
        let told = openssl_ok(&words);
        let number = told.lines().find_map(|line| line.strip_prefix("crlNumber=0x"))?;
        let found = told.matches("Serial Number:").count();
        (found == entries).then(|| (u128::from_str_radix(number, 16).unwrap(), found))
    })
}

#[test]
fn an_issuer_whose_clock_goes_back_an_hour_takes_no_revocation_back_and_numbers_its_lists_on() {
    let folder = tempfile::tempdir().unwrap();
    let (shift, hour) = (|hours| folder.path().join(format!("{hours}")), HOUR);
    let crl = "crl: { url: 'http://crl.example.org/crl' }\n";
    let mut issuer = Issuer::start_with(folder.path(), "example.org", 3 * hour, crl);
    let clocks = [1, 2].map(|hours| {
        fs::create_dir(shift(hours)).unwrap();
        later(&shift(hours), hours * hour)
    });
    let start = |issuer: &mut Issuer, clock: &Path| {
        issuer.process.kill();
        issuer.process.start_again_with("LD_PRELOAD", clock.to_str().unwrap());
        issuer.wait_until_ready();
    };
    let revoke = |issuer: &Issuer, id: &str| {
        let done = issuer.operate_json(&["revoke", "id", id, "--reason", "key-compromise", "--yes"]);
        assert_eq!(done["certificates"], 1, "{done}");
    };
    start(&mut issuer, &clocks[0]);
    let [mut bad, mut next, mut good] = ["bad", "next", "good"].map(|name| attested(&issuer, name));
    start(&mut issuer, &clocks[1]);
    revoke(&issuer, &bad.svid().spiffe_id);
    let (number, _) = list(&issuer, 1);

    start(&mut issuer, &clocks[0]);
    assert_eq!(bad.renew().unwrap_err().code(), Code::PermissionDenied);
    good.renew().unwrap();
    let (then, _) = list(&issuer, 1);
    assert!(then >= number, "{then:x} after {number:x}");
    revoke(&issuer, &next.svid().spiffe_id);
    assert_eq!(next.renew().unwrap_err().code(), Code::PermissionDenied);
    let (after, _) = list(&issuer, 2);
    assert!(after > number && after > then, "{after:x} after {number:x} and {then:x}");
}

#[test]
fn an_issuer_to_which_its_authority_is_not_valid_yet_says_so_and_serves_nobody_until_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", HOUR);
    let mut workload = attested(&issuer, "workload");
    issuer.process.kill();
    issuer.process.start_again_with("LD_PRELOAD", earlier(folder.path(), HOUR).to_str().unwrap());
    issuer.process.wait_for_line("authority not usable");
    let told = issuer.process.lines_with(&["authority not usable", "is not valid before"]);
    assert!(!told.is_empty() && !issuer.admin.is_ready(), "{told:?}");
    workload.renew().unwrap_err();
    issuer.process.kill();
    issuer.process.start_again_with("LD_PRELOAD", "");
    issuer.wait_until_ready();
    workload.renew().unwrap();
}

#[test]
fn a_gateway_to_which_its_certificate_is_not_valid_yet_says_so_and_nobody_else_is_touched() {
    let nginx = Nginx::start();
    let mut mesh = Mesh::new().ttl(HOUR).upstream(&nginx.url()).start();
    let other = || ["serial", "generation"].map(|name| mesh.inbound.admin.json("/identity")[name].clone());
    let before = other();
    mesh.write_join_token("outbound");
    mesh.outbound.process.kill();
    let back = earlier(&mesh.folder(), HOUR);
    mesh.outbound.process.start_again_with("LD_PRELOAD", back.to_str().unwrap());
    let told = mesh.outbound.process.wait_for_line("not valid");
    assert!(!mesh.outbound.admin.is_ready(), "{told}");
    mesh.outbound.process.kill();
    mesh.write_join_token("outbound");
    mesh.outbound.process.start_again_with("LD_PRELOAD", "");
    mesh.outbound.wait_until_ready();
    mesh.curl("/hello").run().expect_status(200);
    assert_eq!(other(), before);
}

#[test]
fn a_root_signs_nothing_where_the_clock_is_behind_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", HOUR);
    let request = folder.path().join("next.csr");
    issuer.operate(&["ca", "csr", "--out", request.to_str().unwrap()]);
    let record = issuer.root.join("ceremonies.jsonl");
    let before = fs::read(&record).unwrap();
    let sign = |clock: &str| {
        let mut signet = Command::new(program::ours("signet"));
        signet.args(["ca", "sign", "--yes"]).arg("--csr").arg(&request).arg("--dir").arg(&issuer.root);
        signet
            .arg("--passphrase-file")
            .arg(folder.path().join("passphrase"))
            .arg("--out")
            .arg(folder.path().join("next.pem"));
        let output = signet.env("LD_PRELOAD", clock).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = sign(earlier(folder.path(), HOUR).to_str().unwrap());
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("clock"), "{told}");
    assert_eq!(fs::read(&record).unwrap(), before);
    assert!(!folder.path().join("next.pem").exists());
    let (code, told) = sign("");
    assert_eq!(code, Some(0), "{told}");
}
