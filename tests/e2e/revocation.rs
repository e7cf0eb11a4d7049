//! Whoever is revoked is gone within a second, with its live connections, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use signet_tests::issuer::signet;
use signet_tests::load::Running;
use signet_tests::openssl::openssl_ok;
use signet_tests::tls::TlsClient;
use signet_tests::wait::{until, until_some};
use signet_tests::{Gateway, IdentityFiles, Load, Mesh, Nginx, Workload, pages, program, secs};

/// From the command's beginning to the end of a connection.
const SOON: Duration = secs(1);
const LOAD: Duration = secs(20);
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

/// A caller with what it holds, and what `signet revoke` is told to end that.
struct Caller {
    name: &'static str,
    files: IdentityFiles,
    revoke: Vec<String>,
}

/// What the rule gives to whoever holds another identity.
const RULE: &str = "rules:
  - name: by-rule
    match: { svid.spiffe_id: 'spiffe://example.org/client/holder' }
    spiffe_id: spiffe://example.org/client/by-rule
    profile: workload
";

/// A certificate that the rule gives to this holder.
fn given_by_rule(mesh: &Mesh, holder: &Workload, folder: &Path) -> IdentityFiles {
    let identity = folder.join("holder");
    fs::create_dir(&identity).unwrap();
    fs::write(identity.join("svid.pem"), holder.svid().chain_pem()).unwrap();
    fs::write(identity.join("svid.key"), holder.svid().key_pem()).unwrap();
    fs::copy(&mesh.issuer.bundle, identity.join("bundle.pem")).unwrap();
    let at = |end: &str| folder.join(format!("by-rule.{end}"));
    let words = ["req", "-new", "-nodes", "-subj", "/", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let (key, csr) = (at("key"), at("csr"));
    openssl_ok(&[&words[..], &["-keyout", key.to_str().unwrap(), "-out", csr.to_str().unwrap()]].concat());
    let mut command = Command::new(program::ours("signet"));
    command.args(["issue", "--profile", "workload", "--issuer", &mesh.issuer.address.to_string()]);
    let issued = command.arg("--csr").arg(csr).arg("--out").arg(at("pem")).arg("--identity").arg(identity).output();
    let issued = issued.unwrap();
    assert!(issued.status.success(), "{}", String::from_utf8_lossy(&issued.stderr));
    IdentityFiles { certificate: at("pem"), key }
}

/// One caller for each key by which something is revoked, and those who have to notice nothing. From here on, the gateways have certificates
/// of a second authority.
fn callers(mesh: &Mesh, folder: &Path) -> (Vec<Caller>, [IdentityFiles; 2]) {
    let issuer = &mesh.issuer;
    let old = written(&mesh.client("authority"), folder, "authority");
    let first = issuer.authority_keys()[0].clone();
    issuer.hold_ceremony(&issuer.root, 1);
    issuer.operate(&["rotate", "authority", "--apply", "--yes"]);
    let serials = || [&mesh.inbound, &mesh.outbound].map(|gateway| gateway.admin.json("/identity")["serial"].clone());
    let before = serials();
    issuer.operate(&["taint", &first]);
    let have_renewed = || serials().iter().zip(&before).all(|(now, before)| now != before);
    until("both gateways have certificates of the successor", secs(20), have_renewed);

    issuer.apply(RULE);
    let [serial, id, key, agent, holder] = ["serial", "id", "key", "agent", "holder"].map(|name| mesh.client(name));
    let mut made = vec![Caller { name: "authority", files: old, revoke: words(&["authority", &first, "--force"]) }];
    let files = given_by_rule(mesh, &holder, folder);
    made.push(Caller { name: "rule", files, revoke: words(&["rule", "by-rule"]) });
    let files = written(&serial, folder, "serial");
    made.push(Caller { name: "serial", files, revoke: words(&["serial", &serial.svid().serial()]) });
    let files = written(&id, folder, "id");
    made.push(Caller { name: "id", files, revoke: words(&["id", &id.svid().spiffe_id]) });
    let files = written(&key, folder, "key");
    let public = openssl_ok(&["x509", "-in", files.certificate.to_str().unwrap(), "-noout", "-pubkey"]);
    let public_file = folder.join("key.pub");
    fs::write(&public_file, public).unwrap();
    made.push(Caller { name: "key", files, revoke: words(&["key", public_file.to_str().unwrap()]) });
    let agents = issuer.operate_json(&["get", "agents"]);
    let is_it = |known: &&serde_json::Value| known["spiffe_id"] == agent.svid().spiffe_id.as_str();
    let number = agents["agents"].as_array().unwrap().iter().find(is_it).unwrap()["number"].to_string();
    made.push(Caller { name: "agent", files: written(&agent, folder, "agent"), revoke: words(&["agent", &number]) });
    (made, [written(&holder, folder, "good"), written(&mesh.client("load"), folder, "load")])
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn whoever_is_revoked_by_any_key_loses_its_live_connections_within_a_second_under_load_and_nobody_else_notices() {
    let nginx = Nginx::start();
    let mesh = Mesh::new().ttl(secs(3600)).upstream(&nginx.url()).start();
    let folder = mesh.folder();
    let (callers, [good, load]) = callers(&mesh, &folder);
    let inbound = mesh.inbound_address();
    let mut stays = served(inbound, &good);
    // One that has been served, and one on which nothing was asked for.
    let open = |caller: &Caller| {
        [served(inbound, &caller.files), TlsClient::connect(inbound, &caller.files, &["h2"]).unwrap()]
    };
    let mut connections: Vec<_> = callers.iter().map(open).collect();

    let reports = thread::scope(|scope| {
        let (outbound, roots) = (mesh.outbound_address(), &mesh.issuer.bundle);
        let loads = [
            Load::http1(outbound).plain(),
            Load::http2(outbound).plain(),
            Load::http1(inbound).identity(&load, roots),
            Load::http2(inbound).identity(&load, roots),
        ];
        let mut running = loads.map(|load| load.rate(RATE, LOAD).start());
        let requests = || mesh.inbound.admin.sum("signet_gateway_requests_total", &[("code", "200")]);
        until("load", secs(10), || requests() > 100.0);

        for (position, caller) in callers.iter().enumerate() {
            let ends = connections.remove(0).map(|client| scope.spawn(|| end_of(client)));
            let begun = Instant::now();
            let revoke: Vec<_> = caller.revoke.iter().map(String::as_str).collect();
            mesh.issuer.operate(&[&["revoke"], &revoke[..], &["--reason", "key-compromise", "--yes"]].concat());
            let told = begun.elapsed();
            for end in ends {
                let took = end.join().unwrap() - begun;
                println!(
                    "by {}: a live connection ended {took:?} after the command began, which took {told:?}",
                    caller.name
                );
                assert!(took < SOON, "by {}: {took:?}", caller.name);
            }
            // Those of this one, and no other.
            assert_eq!(closed(&mesh.inbound, "revoked"), 2.0 * (position as f64 + 1.0), "by {}", caller.name);
            for [served, _] in &mut connections {
                assert_eq!(ask(served).as_deref(), Some("200"), "by {}", caller.name);
            }
            assert_eq!(ask(&mut stays).as_deref(), Some("200"), "by {}", caller.name);
            // Nor does it come back.
            let again = TlsClient::connect(inbound, &caller.files, &["http/1.1"]);
            assert!(again.is_err() || ask(&mut again.unwrap()).is_none(), "by {}", caller.name);
        }
        assert!(running.iter_mut().all(Running::is_running), "the load was over before");
        running.map(Running::finish)
    });
    for report in &reports {
        report.expect_no_failure(u64::from(RATE) * LOAD.as_secs() * 9 / 10);
        assert_eq!(report.retried(), 0, "{report}");
    }
    for gateway in [&mesh.inbound, &mesh.outbound] {
        assert_eq!(closed(gateway, "peer_distrusted"), 0.0, "{}", gateway.process.name());
        let known = gateway.admin.json("/identity")["trust_domains"][0]["revocations"].clone();
        let counts = ["epoch", "serials", "keys", "authorities"].map(|kind| known[kind].as_u64().unwrap());
        // With a key, its certificates are revoked by their serial numbers as well, which the CRL needs.
        assert_eq!(counts, [7, 5, 1, 1], "{known}");
        assert_eq!(gateway.admin.sum("signet_revocation_epoch", &[("trust_domain", "example.org")]), 7.0);
    }
    assert_eq!(closed(&mesh.outbound, "revoked"), 0.0);
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

#[test]
fn a_gateway_that_was_cut_off_during_a_revocation_goes_on_and_catches_up_as_soon_as_it_is_back() {
    let nginx = Nginx::start();
    let mesh = Mesh::new().ttl(secs(3600)).upstream(&nginx.url()).issuer_tapped().start();
    let folder = mesh.folder();
    let [bad, good, load] = ["bad", "good", "load"].map(|name| mesh.client(name));
    let files = |client: &Workload, name| written(client, &folder, name);
    let [bad_files, good_files, load_files] = [files(&bad, "bad"), files(&good, "good"), files(&load, "load")];
    let (inbound, tap) = (mesh.inbound_address(), mesh.issuer_tap.as_ref().unwrap());
    let (mut revoked, mut stays) = (served(inbound, &bad_files), served(inbound, &good_files));
    let (outbound, roots) = (mesh.outbound_address(), &mesh.issuer.bundle);
    let loads = [
        Load::http1(outbound).plain(),
        Load::http2(outbound).plain(),
        Load::http1(inbound).identity(&load_files, roots),
        Load::http2(inbound).identity(&load_files, roots),
    ];
    let mut running = loads.map(|load| load.rate(RATE, LOAD).start());
    let requests = || mesh.inbound.admin.sum("signet_gateway_requests_total", &[("code", "200")]);
    until("load", secs(10), || requests() > 100.0);

    tap.sever();
    let connected = || mesh.issuer.operate_json(&["status"])["connected_clients"].clone();
    until("the issuer has lost the gateway", secs(10), || connected() == 1);
    let words = ["revoke", "id", &bad.svid().spiffe_id, "--reason", "key-compromise", "--yes"];
    let done = mesh.issuer.operate_json(&words);
    assert_eq!(done["in_force"]["following"], 1, "{done}");
    // It knows of nothing, and serves with what it knows.
    assert_eq!(ask(&mut revoked).as_deref(), Some("200"));

    tap.mend();
    end_of(revoked);
    for _ in 0..20 {
        let again = TlsClient::connect(inbound, &bad_files, &["http/1.1"]);
        assert!(again.is_err() || ask(&mut again.unwrap()).is_none());
    }
    assert_eq!(closed(&mesh.inbound, "revoked"), 1.0);
    assert_eq!(ask(&mut stays).as_deref(), Some("200"));
    assert!(running.iter_mut().all(Running::is_running), "the load was over before");
    for report in running.map(Running::finish) {
        report.expect_no_failure(u64::from(RATE) * LOAD.as_secs() * 9 / 10);
        assert_eq!(report.retried(), 0, "{report}");
    }
}

#[test]
fn a_record_that_went_back_is_told_of_and_clients_keep_what_they_know_and_go_on_by_another_lineage() {
    let nginx = Nginx::start();
    let mut mesh = Mesh::new().ttl(secs(3600)).upstream(&nginx.url()).start();
    let folder = mesh.folder();
    let [first, lost, later] = ["first", "lost", "later"].map(|name| mesh.client(name));
    let files = |client: &Workload, name| written(client, &folder, name);
    let [lost_files, later_files] = [files(&lost, "lost"), files(&later, "later")];
    let inbound = mesh.inbound_address();
    let revoke = |mesh: &Mesh, client: &Workload| {
        let words = ["revoke", "id", &client.svid().spiffe_id, "--reason", "key-compromise", "--yes"];
        mesh.issuer.operate_json(&words)
    };
    let refuses = |files: &IdentityFiles| {
        let again = TlsClient::connect(inbound, files, &["http/1.1"]);
        again.is_err() || ask(&mut again.unwrap()).is_none()
    };

    // A backup is made, somebody is revoked, and the backup comes back.
    revoke(&mesh, &first);
    mesh.issuer.process.kill();
    let files = ["issuer.db", "issuer.db-wal", "issuer.db-shm"].map(|name| mesh.issuer.database.with_file_name(name));
    let backup: Vec<_> = files.iter().map(|path| fs::read(path).ok()).collect();
    let start = |mesh: &mut Mesh| {
        mesh.issuer.process.start_again();
        mesh.issuer.wait_until_ready();
    };
    start(&mut mesh);
    let known = |mesh: &Mesh| mesh.inbound.admin.sum("signet_revocation_epoch", &[]);
    until("the issuer tells the gateway", secs(20), || mesh.issuer.operate_json(&["status"])["connected_clients"] == 2);
    revoke(&mesh, &lost);
    until("it is in force", secs(10), || known(&mesh) == 2.0);
    mesh.issuer.process.kill();
    for (path, bytes) in files.iter().zip(backup) {
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => drop(fs::remove_file(path)),
        }
    }
    // The audit log that was published is ahead of it: it does not go on from there.
    mesh.issuer.process.start_again();
    assert_eq!(mesh.issuer.process.wait(secs(20)).code(), Some(1));
    assert!(mesh.issuer.process.log().contains("`signet audit new-log`"));
    let state = mesh.issuer.database.parent().unwrap();
    signet(&["audit", "new-log"], &[("--state", state)]);
    start(&mut mesh);
    let told = || mesh.issuer.admin.sum("signet_issuer_revocations_ahead_clients", &[]);
    until("both gateways say that they know more", secs(20), || told() >= 2.0);
    let lines = mesh.issuer.process.lines_with(&["not on record", "spiffe://example.org/gateway/"]);
    assert!((1..=2).contains(&lines.len()), "each minute, with a name: {lines:?}");
    assert!(refuses(&lost_files), "it was taken back");
    assert_eq!((mesh.issuer.operate_json(&["get", "revocations"])["revocations"].as_array().unwrap().len()), 1);

    // As the page says.
    revoke(&mesh, &lost);
    mesh.issuer.process.kill();
    let [line] = &pages::shell("revocation.md", &["sqlite3"])[..] else { panic!("the page has another sqlite3") };
    let at = mesh.issuer.database.parent().unwrap();
    assert!(Command::new("sh").args(["-c", line]).current_dir(at).status().unwrap().success(), "{line}");
    start(&mut mesh);
    until("the issuer tells the gateway", secs(20), || mesh.issuer.operate_json(&["status"])["connected_clients"] == 2);
    let live = served(inbound, &later_files);
    let done = revoke(&mesh, &later);
    assert_eq!((&done["in_force"]["applied"], &done["in_force"]["following"]), (&2.into(), &2.into()), "{done}");
    end_of(live);
    assert!(refuses(&lost_files) && refuses(&later_files));
    assert_eq!(mesh.issuer.admin.sum("signet_issuer_revocations_ahead_clients", &[]), 0.0);
}
