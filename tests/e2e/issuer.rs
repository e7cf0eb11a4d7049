//! The issuer: what it signs, whom it believes, and that nothing is lost when it dies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use signet_tests::issuer::{Issuer, signet};
use signet_tests::mesh::TRUST_DOMAIN;
use signet_tests::openssl::{openssl, openssl_ok};
use signet_tests::wait::until;
use signet_tests::{Gateway, Load, Mesh, Nginx, SClient, Workload, millis, open_keys, secs};
use tempfile::TempDir;
use tonic::Code;

#[test]
fn every_certificate_that_left_an_issuer_killed_at_work_has_its_record() {
    const WORKLOADS: usize = 8;
    const KILLS: usize = 4;
    let (mut issuer, _folder) = issuer(secs(3600));
    let workloads: Vec<_> = (0..WORKLOADS).map(|number| attested(&issuer, &format!("/client/{number}"))).collect();

    let over = AtomicBool::new(false);
    let (received, all_received) = mpsc::channel::<String>();
    thread::scope(|scope| {
        for mut workload in workloads {
            let (received, over) = (received.clone(), &over);
            scope.spawn(move || {
                received.send(workload.svid().serial()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    match workload.renew() {
                        Ok(svid) => received.send(svid.serial()).unwrap(),
                        // The issuer is dead or dying. Its certificate, if it made one, has not come: ours is the old one.
                        Err(_) => thread::sleep(millis(20)),
                    }
                }
            });
        }
        drop(received);
        let mut serials = BTreeSet::new();
        for round in 0..=KILLS {
            // All of them are at it again, by themselves.
            let known = serials.len();
            until(&format!("certificates in round {round}"), secs(30), || {
                serials.extend(all_received.try_iter());
                serials.len() >= known + 4 * WORKLOADS
            });
            if round < KILLS {
                issuer.process.kill();
                issuer.process.start_again();
                issuer.wait_until_ready();
            }
        }
        over.store(true, Ordering::Relaxed);
        serials.extend(all_received.iter());

        let recorded: BTreeSet<_> = issuer
            .query("SELECT lower(hex(serial)) FROM issued")
            .into_iter()
            .map(|serial| serial.trim_start_matches('0').to_owned())
            .collect();
        let without_record: Vec<_> = serials.difference(&recorded).collect();
        assert!(without_record.is_empty(), "{} of {} have no record", without_record.len(), serials.len());
        println!("{} certificates, {} records, {KILLS} kills", serials.len(), recorded.len());
    });
    assert_eq!(issuer.query("PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn an_issuer_away_for_longer_than_a_renewal_point_stops_no_traffic() {
    let nginx = Nginx::start();
    let mut mesh = Mesh::new().ttl(secs(20)).upstream(&nginx.url()).start();
    let load = Load::http1(mesh.outbound_address()).plain().rate(50, secs(40)).start();

    mesh.issuer.process.kill();
    for gateway in [&mesh.inbound, &mesh.outbound] {
        until("the gateway knows that the issuer is away", secs(10), || is_connected(gateway) == 0.0);
    }
    // Renewal is due at 60 % of a life at the latest; what is left then is 40 %.
    until("a renewal is overdue", secs(20), || age_ratio(&mesh.inbound).max(age_ratio(&mesh.outbound)) > 0.65);
    mesh.curl("/hello").run().expect_status(200);
    let rotations = [&mesh.inbound, &mesh.outbound].map(rotated);

    mesh.issuer.process.start_again();
    mesh.issuer.wait_until_ready();
    for (gateway, before) in [&mesh.inbound, &mesh.outbound].into_iter().zip(rotations) {
        until("the gateway is connected again", secs(10), || is_connected(gateway) == 1.0);
        until("the gateway has renewed", secs(20), || rotated(gateway) > before);
    }
    load.finish().expect_no_failure(40 * 50 * 9 / 10);
}

#[test]
fn gateways_whose_certificates_have_expired_serve_nobody_and_recover_by_a_new_token() {
    let nginx = Nginx::start();
    let mut mesh = Mesh::new().ttl(secs(6)).upstream(&nginx.url()).start();
    mesh.curl("/hello").run().expect_status(200);
    mesh.issuer.process.kill();
    until("both certificates have expired", secs(15), || {
        age_ratio(&mesh.inbound) > 1.0 && age_ratio(&mesh.outbound) > 1.0
    });
    for gateway in [&mesh.inbound, &mesh.outbound] {
        until("the gateway says that it is not ready", secs(5), || !gateway.admin.is_ready());
    }
    let refused = mesh.curl("/hello").max_time(secs(10)).run();
    assert!((502..=503).contains(&refused.status), "{refused:?}");
    assert!(nginx.accesses_of("/hello").len() == 1, "served without an identity");
    mesh.issuer.process.start_again();
    mesh.issuer.wait_until_ready();
    // An expired certificate renews nothing and the old tokens are used: an operator brings new ones.
    for gateway in ["inbound", "outbound"] {
        mesh.write_join_token(gateway);
    }
    for gateway in [&mut mesh.inbound, &mut mesh.outbound] {
        gateway.wait_until_ready();
    }
    mesh.curl("/hello").run().expect_status(200);
}

#[test]
fn an_issuer_started_again_goes_on_with_its_authority_and_remembers_its_tokens() {
    let (mut issuer, _folder) = issuer(secs(60));
    let (used, unused) = (token(&issuer, "/client/used"), token(&issuer, "/client/unused"));
    let mut workload = Workload::of(issuer.address);
    let before = workload.attest(&used).unwrap().chain[1].clone();
    issuer.process.kill();
    issuer.process.start_again();
    issuer.wait_until_ready();

    assert_eq!(workload.renew().unwrap().chain[1], before, "the intermediate is another");
    let mut other = Workload::of(issuer.address);
    assert_eq!(other.attest(&used).unwrap_err().code(), Code::Unauthenticated);
    other.attest(&unused).unwrap();
}

#[test]
fn a_join_token_is_good_once_for_its_own_identity() {
    let (issuer, _folder) = issuer(secs(60));
    let token = token(&issuer, "/client/once");
    let mut workload = Workload::of(issuer.address);
    assert_eq!(workload.attest(&token).unwrap().spiffe_id, "spiffe://example.org/client/once");

    let refusal = |token: &str| Workload::of(issuer.address).attest(token).unwrap_err();
    let (again, unknown) = (refusal(&token), refusal(&format!("signet_join_{}", "0".repeat(64))));
    assert_eq!(again.code(), Code::Unauthenticated);
    assert_eq!((unknown.code(), unknown.message()), (again.code(), again.message()), "which of them is not told");
    assert_eq!(refusal("").code(), Code::Unauthenticated);
    assert_eq!(refusal(&"x".repeat(10_000)).code(), Code::Unauthenticated);
}

#[test]
fn many_that_share_a_token_get_one_certificate() {
    let (issuer, _folder) = issuer(secs(60));
    let token = token(&issuer, "/client/shared");
    let won = thread::scope(|scope| {
        let tries: Vec<_> =
            (0..50).map(|_| scope.spawn(|| Workload::of(issuer.address).attest(&token).is_ok())).collect();
        tries.into_iter().map(|attempt| attempt.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!(won, 1);
    assert_eq!(issuer.query("SELECT count(*) FROM issued WHERE spiffe_id LIKE '%/client/shared'"), ["1"]);
}

#[test]
fn an_expired_join_token_is_refused() {
    let (issuer, _folder) = issuer(secs(60));
    let words = ["token", "create", "spiffe://example.org/client/late", "--ttl", "1s", "-o", "json"];
    let told = signet(&words, &[("--issuer", &issuer.socket)]);
    let answer: serde_json::Value = serde_json::from_str(&told).unwrap();
    let begin = Instant::now();
    until("the token has expired", secs(5), || begin.elapsed() > millis(1100));
    let refused = Workload::of(issuer.address).attest(answer["join_token"].as_str().unwrap()).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[test]
fn a_join_token_cannot_name_the_issuer_or_another_trust_domain() {
    let (issuer, _folder) = issuer(secs(60));
    for id in ["spiffe://example.org/signet/issuer", "spiffe://elsewhere.example/client"] {
        let output = std::process::Command::new(signet_tests::program::ours("signet"))
            .args(["token", "create", id, "--issuer"])
            .arg(&issuer.socket)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{id}: {error}");
        assert!(error.starts_with("error: "), "{error}");
    }
}

#[test]
fn a_leaf_follows_the_profile_and_openssl_verifies_it_strictly() {
    let (issuer, folder) = issuer(secs(3600));
    let workload = attested(&issuer, "/shop/cart");
    let files = workload.svid().write(folder.path(), "leaf");
    let intermediate = folder.path().join("intermediate.pem");
    fs::write(&intermediate, signet_test_pki::pem("CERTIFICATE", &workload.svid().chain[1])).unwrap();

    let leaf = files.certificate.to_str().unwrap();
    let text = openssl_ok(&["x509", "-in", leaf, "-noout", "-text", "-nameopt", "RFC2253"]);
    for expected in [
        "X509v3 Subject Alternative Name: critical\n                URI:spiffe://example.org/shop/cart\n",
        "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "TLS Web Server Authentication",
        "TLS Web Client Authentication",
        "X509v3 Authority Key Identifier",
        "X509v3 Subject Key Identifier",
        "Subject: \n",
    ] {
        assert!(text.contains(expected), "no `{expected}` in {text}");
    }
    let svid = workload.svid();
    assert_eq!(svid.not_after - svid.not_before, 3600);
    let verified = openssl_ok(&[
        "verify",
        "-x509_strict",
        "-purpose",
        "sslclient",
        "-CAfile",
        issuer.bundle.to_str().unwrap(),
        "-untrusted",
        intermediate.to_str().unwrap(),
        leaf,
    ]);
    assert!(verified.contains("OK"), "{verified}");
    let (alone, told) = openssl(&["verify", "-CAfile", issuer.bundle.to_str().unwrap(), leaf]);
    assert!(!alone, "verified without its intermediate: {told}");
}

#[test]
fn a_renewal_is_for_the_same_identity_with_a_new_serial() {
    let (issuer, _folder) = issuer(secs(60));
    let mut workload = attested(&issuer, "/client/renewing");
    let first = workload.svid().clone();
    let second = workload.renew().unwrap();
    assert_eq!(second.spiffe_id, first.spiffe_id);
    assert_ne!(second.serial(), first.serial());
    assert!(second.not_after >= first.not_after);
}

#[test]
fn nobody_renews_without_a_certificate_of_this_issuer() {
    let (first, _folder) = issuer(secs(60));
    let (second, _other_folder) = issuer(secs(60));
    let before = records(&first);
    assert_eq!(Workload::of(first.address).renew_as(None).unwrap_err().code(), Code::Unauthenticated);

    // Refused within the handshake: what comes of that is not always a gRPC status.
    let mut stranger = attested(&second, "/client/stranger");
    stranger.move_to(first.address);
    stranger.renew().unwrap_err();
    assert_eq!(records(&first), before);
}

#[test]
fn an_expired_certificate_renews_nothing() {
    let (issuer, _folder) = issuer(secs(5));
    let mut workload = attested(&issuer, "/client/late");
    let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(workload.svid().not_after.try_into().unwrap());
    until("the certificate has expired", secs(8), || SystemTime::now() > not_after + millis(100));
    let before = records(&issuer);
    // Refused within the handshake: what comes of that is not always a gRPC status.
    workload.renew().unwrap_err();
    assert_eq!(records(&issuer), before);
}

#[test]
fn the_issuer_proves_its_own_identity_to_openssl() {
    let (issuer, folder) = issuer(secs(60));
    let told = SClient::to(issuer.address).trusting(&issuer.bundle).arg("-alpn").arg("h2").get("/");
    assert!(told.contains("Verification: OK") && told.contains("ALPN protocol: h2"), "{told}");
    let leaf = told.split("-----BEGIN CERTIFICATE-----").nth(1).unwrap();
    let leaf = leaf.split("-----END CERTIFICATE-----").next().unwrap();
    let file = folder.path().join("issuer.pem");
    fs::write(&file, format!("-----BEGIN CERTIFICATE-----{leaf}-----END CERTIFICATE-----\n")).unwrap();
    let text = openssl_ok(&["x509", "-in", file.to_str().unwrap(), "-noout", "-ext", "subjectAltName"]);
    assert!(text.contains("URI:spiffe://example.org/signet/issuer"), "{text}");
}

#[test]
fn no_private_key_lies_open_in_the_issuers_files() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = "jwt: { issuer: 'https://tokens.example.org' }\n";
    let issuer = Issuer::start_with(folder.path(), TRUST_DOMAIN, secs(60), tokens);
    let workload = attested(&issuer, "/client/any");
    issuer.hold_ceremony(&issuer.root, 1);
    let is_sealed = |path: &PathBuf| fs::read(path).is_ok_and(|text| text.starts_with(b"-----BEGIN SIGNET SEALED KEY"));
    let sealed = || open_keys::files(folder.path()).iter().filter(|path| is_sealed(path)).count();
    // That of the root, of the authority, of the one to follow, and of tokens.
    until("all keys are there", secs(10), || sealed() >= 4);
    assert_eq!(open_keys::find(folder.path()), Vec::<String>::new());
    // It would be seen, by whatever name it goes.
    let open = workload.svid().key_pem().replace("PRIVATE KEY", "SIGNET SEALED KEY");
    fs::write(issuer.database.with_file_name("left"), open).unwrap();
    assert!(!open_keys::find(folder.path()).is_empty());
}

#[test]
fn a_gateway_whose_identity_comes_from_an_issuer_writes_its_log_and_nothing_else() {
    let mesh = Mesh::new().ttl(secs(10)).upstream("http://127.0.0.1:1").start();
    for gateway in [&mesh.inbound, &mesh.outbound] {
        let name = gateway.process.name();
        until("it has another identity", secs(20), || rotated(gateway) >= 2.0);
        let folder = gateway.configuration.parent().unwrap();
        assert_eq!(open_keys::find(folder), Vec::<String>::new());
        let mut written = open_keys::files(folder);
        written.retain(|path| *path != gateway.configuration);
        assert_eq!(written, [folder.join(format!("{name}.log"))]);
        // Nor has it a file open anywhere else.
        let open = fs::read_dir(format!("/proc/{}/fd", gateway.process.pid())).unwrap();
        let open = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        let files: BTreeSet<_> = open.filter(|path| path.is_file()).collect();
        assert_eq!(files, BTreeSet::from_iter(written));
    }
}

#[test]
fn no_message_of_an_interface_has_a_place_for_a_private_key() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/proto");
    let mut fields = 0;
    for file in open_keys::files(&root) {
        let text = fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let Some((declared, _)) = line.split_once(" = ") else { continue };
            let name = declared.split_whitespace().next_back().unwrap().to_lowercase();
            let is_secret = ["private", "secret", "pkcs8", "keypair"].iter().any(|word| name.contains(word));
            assert!(!is_secret, "{}: {line}", file.display());
            fields += 1;
        }
    }
    assert!(fields > 200, "{fields}");
}

fn issuer(ttl: Duration) -> (Issuer, TempDir) {
    let folder = tempfile::Builder::new().prefix("signet-issuer-").tempdir().unwrap();
    (Issuer::start(folder.path(), TRUST_DOMAIN, ttl), folder)
}

fn token(issuer: &Issuer, path: &str) -> String {
    issuer.join_token(&format!("spiffe://{TRUST_DOMAIN}{path}"))
}

fn attested(issuer: &Issuer, path: &str) -> Workload {
    let mut workload = Workload::of(issuer.address);
    workload.attest(&token(issuer, path)).unwrap();
    workload
}

/// How many certificates the issuer has on record.
fn records(issuer: &Issuer) -> Vec<String> {
    issuer.query("SELECT count(*) FROM issued")
}

fn is_connected(gateway: &Gateway) -> f64 {
    gateway.admin.sum("signet_issuer_connected", &[])
}

fn age_ratio(gateway: &Gateway) -> f64 {
    gateway.admin.sum("signet_svid_renewal_age_ratio", &[])
}

fn rotated(gateway: &Gateway) -> f64 {
    gateway.admin.sum("signet_svid_rotations_total", &[("result", "rotated")])
}
