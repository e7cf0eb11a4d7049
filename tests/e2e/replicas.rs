//! Two issuers on one PostgreSQL, and workloads that know both: what they notice of an issuer that is killed, and of a database that
//! goes away for a while.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use signet_audit::Act;
use signet_identity::{SystemClock, TlsPolicies, TrustBundle};
use signet_sdk::{IssuerSource, JoinToken, RotationResult, Running, State};
use signet_test_postgres::Server;
use signet_tests::auditor::{Auditor, entries, published};
use signet_tests::wait::{throughout, until, until_some};
use signet_tests::{Curl, Direct, Gateway, GatewayPlan, IdentityFiles, Issuer, Load, Nginx, Workload, pages, secs};
use tokio_util::sync::CancellationToken;

const TRUST_DOMAIN: &str = "example.org";
const TTL: Duration = Duration::from_secs(10);
const WORKLOADS: usize = 40;

struct Mesh {
    server: Server,
    url: String,
    one: Issuer,
    two: Issuer,
    runtime: tokio::runtime::Runtime,
    // After those whose logs are in it.
    folder: tempfile::TempDir,
}

impl Mesh {
    fn new() -> Self {
        Self::giving(TTL)
    }

    /// Leaves of this life.
    fn giving(ttl: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(true);
        let url = server.database();
        let database = format!("database: {{ url: \"{url}\" }}\nlimits: {{ renewals_per_minute: 1000000 }}\n");
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&two).unwrap();
        let one = Issuer::start_with(&one, TRUST_DOMAIN, ttl, &database);
        let two = one.beside(&two, TRUST_DOMAIN, ttl, &database);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { server, url, one, two, runtime, folder }
    }

    /// Workloads with the SDK.
    fn workloads(&self) -> Vec<Running> {
        let bundle = std::fs::read(&self.one.bundle).unwrap();
        let bundle = TrustBundle::from_pem(TRUST_DOMAIN.parse().unwrap(), &bundle).unwrap();
        let addresses = [self.one.address, self.two.address].map(|address| address.to_string());
        let starting: Vec<_> = (0..WORKLOADS)
            .map(|number| {
                let token = self.one.join_token(&format!("spiffe://{TRUST_DOMAIN}/workload/{number}"));
                let token = JoinToken::Value(token.into());
                let source = IssuerSource::at(addresses.iter().map(String::as_str), bundle.clone(), token).unwrap();
                let policies = TlsPolicies::new(Arc::new(SystemClock));
                self.runtime.spawn(signet_sdk::start(source, policies, CancellationToken::new()))
            })
            .collect();
        starting.into_iter().map(|starting| self.runtime.block_on(starting).unwrap().unwrap()).collect()
    }

    /// Those of which there is no record.
    fn unrecorded(&self, serials: &HashSet<String>) -> Vec<String> {
        let recorded = self.server.query(&self.url, "SELECT encode(serial, 'hex') FROM issued");
        let recorded: HashSet<_> = recorded.iter().map(|serial| trimmed(serial)).collect();
        serials.difference(&recorded).cloned().collect()
    }
}

fn serial(workload: &Running) -> String {
    trimmed(&workload.live.load().svid().serial().to_string())
}

fn trimmed(serial: &str) -> String {
    serial.trim_start_matches('0').to_owned()
}

/// Every workload has a successor of what it has now, and none has been without an identity meanwhile.
fn all_renew(workloads: &[Running], serials: &mut HashSet<String>) {
    let before: Vec<_> = workloads.iter().map(serial).collect();
    let begun = Instant::now();
    let mut waiting: HashSet<usize> = (0..workloads.len()).collect();
    while !waiting.is_empty() {
        for workload in workloads {
            assert!(matches!(workload.monitor.state(), State::Live { .. }), "{:?}", workload.monitor.state());
        }
        waiting.retain(|index| serial(&workloads[*index]) == before[*index]);
        assert!(begun.elapsed() < 3 * TTL, "{} have not renewed", waiting.len());
        std::thread::sleep(Duration::from_millis(20));
    }
    serials.extend(before);
    serials.extend(workloads.iter().map(serial));
}

/// No attempt of any of them has failed: where one issuer did not answer, the other one did.
fn none_has_failed(workloads: &[Running]) {
    let failed: Vec<_> = workloads.iter().map(|workload| workload.monitor.rotations(RotationResult::Failed)).collect();
    assert_eq!(failed.iter().sum::<u64>(), 0, "{failed:?}");
}

/// Those who renew as fast as they can, wherever somebody answers.
#[derive(Default)]
struct Pressing {
    stop: AtomicBool,
    /// The serial numbers.
    given: Mutex<HashSet<String>>,
    refused: AtomicUsize,
}

impl Pressing {
    fn run(&self, issuers: [std::net::SocketAddr; 2], token: &str) {
        let mut workload = Workload::of(issuers[0]);
        workload.attest(token).unwrap();
        let mut turn = 0;
        while !self.stop.load(Relaxed) {
            match workload.renew() {
                Ok(svid) => drop(self.given.lock().unwrap().insert(svid.serial())),
                Err(_) => {
                    self.refused.fetch_add(1, Relaxed);
                    turn += 1;
                    workload.move_to(issuers[turn % 2]);
                }
            }
        }
    }
}

#[test]
fn an_issuer_that_is_killed_while_it_issues_costs_no_renewal_and_leaves_nothing_unrecorded() {
    let mut mesh = Mesh::new();
    let workloads = mesh.workloads();
    let pressing = Pressing::default();
    let mut serials = HashSet::new();
    let addresses = [mesh.one.address, mesh.two.address];
    let tokens: Vec<_> = (0..4).map(|_| mesh.one.join_token("spiffe://example.org/press")).collect();
    let token_file = mesh.folder.path().join("gateway-token");
    std::fs::write(&token_file, mesh.one.join_token("spiffe://example.org/gateway")).unwrap();
    let gateway: Gateway = GatewayPlan::new("gateway")
        .identity_from_issuers(&addresses, TRUST_DOMAIN, &mesh.one.bundle, &token_file)
        .inbound(&["spiffe://example.org/press"], "http://127.0.0.1:1")
        .start();
    std::thread::scope(|scope| {
        for token in &tokens {
            scope.spawn(|| pressing.run(addresses, token));
        }
        all_renew(&workloads, &mut serials);
        let of_gateway = gateway.admin.json("/identity")["serial"].clone();
        let watchers = |issuer: &Issuer| issuer.admin.sum("signet_issuer_connected_clients", &[]);
        assert!(watchers(&mesh.one) > 0.0, "there would be nothing to see");
        mesh.one.process.kill();
        let killed = Instant::now();
        // The gateway too.
        until("all are at the other", secs(10), || watchers(&mesh.two) > WORKLOADS as f64);
        println!("after {:?} all clients were served by the other issuer", killed.elapsed());
        all_renew(&workloads, &mut serials);
        all_renew(&workloads, &mut serials);
        until("the gateway renews", secs(20), || gateway.admin.json("/identity")["serial"] != of_gateway);
        mesh.one.process.start_again();
        mesh.one.wait_until_ready();
        all_renew(&workloads, &mut serials);
        pressing.stop.store(true, Relaxed);
    });
    none_has_failed(&workloads);
    let given = pressing.given.into_inner().unwrap();
    assert!(given.len() > 100, "{}", given.len());
    serials.extend(given);
    assert_eq!(mesh.unrecorded(&serials), Vec::<String>::new());
}

#[test]
fn a_database_that_is_restarted_under_load_costs_no_identity() {
    let mesh = Mesh::new();
    let workloads = mesh.workloads();
    let mut serials = HashSet::new();
    let pressing = Pressing::default();
    let tokens: Vec<_> = (0..4).map(|_| mesh.one.join_token("spiffe://example.org/press")).collect();
    std::thread::scope(|scope| {
        for token in &tokens {
            scope.spawn(|| pressing.run([mesh.one.address, mesh.two.address], token));
        }
        all_renew(&workloads, &mut serials);
        let given = || pressing.given.lock().unwrap().len();
        until("it is busy", secs(20), || given() > 100);
        mesh.server.down();
        let refused = pressing.refused.load(Relaxed);
        until("it is missed", secs(20), || pressing.refused.load(Relaxed) > refused + 8);
        mesh.server.up();
        let before = given();
        until("it is used again", secs(20), || given() > before + 100);
        all_renew(&workloads, &mut serials);
        pressing.stop.store(true, Relaxed);
    });
    serials.extend(pressing.given.into_inner().unwrap());
    assert_eq!(mesh.unrecorded(&serials), Vec::<String>::new());
}

/// A gateway that knows both issuers.
fn gateway(mesh: &Mesh, name: &str) -> GatewayPlan {
    let token = mesh.folder.path().join(format!("{name}.token"));
    std::fs::write(&token, mesh.one.join_token(&format!("spiffe://{TRUST_DOMAIN}/gateway/{name}"))).unwrap();
    let addresses = [mesh.one.address, mesh.two.address];
    GatewayPlan::new(name).identity_from_issuers(&addresses, TRUST_DOMAIN, &mesh.one.bundle, &token)
}

/// How many roots an issuer has its clients trust, and how many this gateway trusts.
fn roots(issuer: &Issuer, gateway: &Gateway) -> [u64; 2] {
    let bundles = issuer.operate_json(&["get", "bundles"]);
    let own = bundles["bundles"].as_array().unwrap().iter().find(|bundle| bundle["own"] == true).unwrap().clone();
    let trusted = gateway.admin.json("/identity")["trust_domains"][0]["authorities"].as_u64();
    [own["x509_authorities"].as_u64().unwrap(), trusted.unwrap()]
}

#[test]
fn an_authority_and_a_root_follow_at_two_issuers_under_load_and_the_root_before_stays_while_one_needs_it() {
    const LOAD: Duration = secs(50);
    const RATE: u32 = 50;
    let mesh = Mesh::new();
    let (one, two) = (&mesh.one, &mesh.two);
    let nginx = Nginx::start();
    let inbound = gateway(&mesh, "inbound")
        .inbound(&["spiffe://example.org/gateway/outbound", "spiffe://example.org/client/**"], &nginx.url())
        .start();
    let peer = inbound.listener("inbound");
    let outbound = gateway(&mesh, "outbound").outbound(peer, &["spiffe://example.org/gateway/inbound"]).start();
    let gateways = [&inbound, &outbound];
    let next = one.make_root("next");
    let mut client = Workload::of(one.address);
    client.attest(&one.join_token("spiffe://example.org/client/load")).unwrap();
    let mut direct = Direct::start(client, &[&*one.bundle, &next.join("root.pem")], peer, RATE / 2, LOAD);
    let target = outbound.listener("outbound");
    let mut running = [Load::http1(target), Load::http2(target)].map(|load| load.plain().rate(RATE, LOAD).start());

    // Who is connected to the other issuer is waited for too.
    one.hold_ceremony(&one.root, 1);
    one.operate(&["rotate", "authority", "--apply", "--yes"]);
    let told = one.process.lines_with(&["the authority is active", "\"connected\":2", "\"missing\":0"]);
    assert_eq!(told.len(), 1, "{:?}", one.process.lines_with(&["the authority is active"]));
    assert_eq!((one.stages(), two.stages()), (words(&["retired", "active"]), words(&["active"])));

    // The one goes over to the next root. The other is below the one before.
    let to_next =
        ["rotate", "root", "--root", next.join("root.pem").to_str().unwrap(), "--apply", "--yes", "--no-wait"]
            .map(str::to_owned);
    let to_next: Vec<_> = to_next.iter().map(String::as_str).collect();
    one.operate(&to_next);
    one.hold_ceremony(&next, 1);
    until("the one is below the next root", secs(20), || one.stages() == ["tainted", "tainted", "active"]);
    // The other has not heard of that root but by the one, and has its clients believe what is signed below it all the same.
    let is_trusted = || gateways.iter().all(|gateway| [one, two].map(|issuer| roots(issuer, gateway)[1]) == [2, 2]);
    throughout("both roots are trusted", secs(4), is_trusted);
    two.operate(&to_next);
    // Longer than it takes where nobody needs it.
    throughout("the root before is trusted", secs(7), || one.is_rotating() && is_trusted());
    two.hold_ceremony(&next, 1);
    until("both are below the next root alone", secs(30), || !one.is_rotating() && !two.is_rotating());
    assert_eq!(two.stages(), ["tainted", "active"]);
    until("nobody trusts the root before", secs(10), || {
        gateways.iter().all(|gateway| [roots(one, gateway), roots(two, gateway)] == [[1, 1]; 2])
    });
    let is_running = running.iter_mut().all(signet_tests::load::Running::is_running) && direct.is_running();
    assert!(is_running, "the load was over before");

    for report in running.map(signet_tests::load::Running::finish) {
        report.expect_no_failure(u64::from(RATE) * LOAD.as_secs() * 9 / 10);
        assert_eq!(report.retried(), 0, "{report}");
    }
    direct.expect_no_failure();
    for gateway in gateways {
        let handshakes = |labels: &[(&str, &str)]| gateway.admin.sum("signet_gateway_handshakes_total", labels);
        let (all, good) = (handshakes(&[]), handshakes(&[("result", "ok")]));
        assert!(all == good, "{}: {all} handshakes, {good} good", gateway.process.name());
        let failed = |result| gateway.admin.sum("signet_svid_rotations_total", &[("result", result)]);
        assert_eq!((failed("refused"), failed("failed")), (0.0, 0.0), "{}", gateway.process.name());
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn the_commands_of_the_page_work_at_either_issuer() {
    let mesh = Mesh::new();
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/policy.yaml");
    let commands = pages::commands("replicas.md");
    assert!(commands.len() > 3);
    for issuer in [&mesh.one, &mesh.two] {
        for words in &commands {
            let words = words.iter().map(|word| if word == "policy/" { example.to_str().unwrap() } else { word });
            issuer.operate(&words.collect::<Vec<_>>());
        }
    }
    mesh.one.operate(&["apply", "-f", example.to_str().unwrap(), "--yes"]);
    let rules = |issuer: &Issuer| issuer.operate_json(&["get", "rules"]);
    until("the rules are at the other", secs(5), || rules(&mesh.two) == rules(&mesh.one));
}

#[test]
fn the_line_of_the_page_for_postgresql_draws_another_lineage_and_clients_begin_anew_and_keep_what_they_have() {
    let mut mesh = Mesh::giving(secs(3600));
    let nginx = Nginx::start();
    nginx.serve_random("page", 64);
    let inbound = gateway(&mesh, "inbound").inbound(&["spiffe://example.org/client/**"], &nginx.url()).start();
    let client = |name: &str| {
        let mut client = Workload::of(mesh.one.address);
        client.attest(&mesh.one.join_token(&format!("spiffe://example.org/client/{name}"))).unwrap();
        client.svid().write(mesh.folder.path(), name)
    };
    let [before, after, stays] = ["before", "after", "stays"].map(client);
    let is_served =
        |identity: &IdentityFiles| Curl::get(inbound.inbound_url("/page")).identity(identity).run().status == 200;
    let revoke = |issuer: &Issuer, name: &str| {
        let id = format!("spiffe://example.org/client/{name}");
        let done = issuer.operate_json(&["revoke", "id", &id, "--reason", "key-compromise", "--yes"]);
        assert_eq!((&done["in_force"]["applied"], &done["in_force"]["following"]), (&1.into(), &1.into()), "{done}");
    };
    // Whoever is connected to one issuer is told of by the other once that has written it down.
    let is_known = |issuer: &Issuer| {
        let agents = issuer.operate_json(&["get", "agents"]);
        let is_gateway = |agent: &serde_json::Value| {
            agent["spiffe_id"] == "spiffe://example.org/gateway/inbound" && agent["applied"]["revocations"].is_u64()
        };
        agents["agents"].as_array().unwrap().iter().any(is_gateway)
    };
    until("the gateway is known to the issuer that is asked", secs(20), || is_known(&mesh.one));
    let epoch = || inbound.admin.sum("signet_revocation_epoch", &[]);
    assert!(is_served(&before) && is_served(&after) && is_served(&stays));
    revoke(&mesh.one, "before");
    assert!(!is_served(&before) && is_served(&after) && is_served(&stays));
    assert_eq!(epoch(), 1.0);

    for issuer in [&mut mesh.one, &mut mesh.two] {
        issuer.process.kill();
    }
    // What comes back from a backup that was made before.
    mesh.server.query(&mesh.url, "DELETE FROM revoked");
    mesh.server.query(&mesh.url, "UPDATE revocation_epoch SET epoch = 0");
    let lineage = || mesh.server.query(&mesh.url, "SELECT encode(lineage, 'hex') FROM revocation_epoch");
    let of_before = lineage();
    let [line] = &pages::shell("revocation.md", &["psql"])[..] else { panic!("the page has another psql") };
    let done = Command::new("sh").args(["-c", line]).env("DATABASE", &mesh.url).output().unwrap();
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    assert!(lineage() != of_before && lineage()[0].len() == 16, "{of_before:?}, {:?}", lineage());
    for issuer in [&mut mesh.one, &mut mesh.two] {
        issuer.process.start_again();
        issuer.wait_until_ready();
    }
    let connected = |issuer: &Issuer| issuer.admin.sum("signet_issuer_connected_clients", &[]);
    until("the gateway is back", secs(20), || connected(&mesh.one) + connected(&mesh.two) == 1.0);
    until("the gateway is known to the issuer that is asked", secs(20), || is_known(&mesh.one));
    revoke(&mesh.one, "after");
    // By the numbers of the new lineage; and what it had is not taken back.
    assert_eq!(epoch(), 1.0);
    assert!(!is_served(&before) && !is_served(&after) && is_served(&stays));
    let lost = |issuer: &Issuer| issuer.admin.sum("signet_issuer_revocations_lost_total", &[]);
    assert_eq!(lost(&mesh.one) + lost(&mesh.two), 0.0);
    assert_eq!(inbound.admin.sum("signet_svid_rotations_total", &[("result", "refused")]), 0.0);
}

#[test]
fn an_issuer_that_is_gone_for_good_is_forgotten_and_one_that_is_there_is_not() {
    let mut mesh = Mesh::new();
    let bundles = |issuer: &Issuer| issuer.operate_json(&["get", "bundles"])["bundles"].as_array().unwrap().clone();
    let of_others = |issuer: &Issuer| bundles(issuer).into_iter().filter(|one| one["own"] == false).collect::<Vec<_>>();
    let other = until_some("one knows of the other", secs(10), || of_others(&mesh.one).pop());
    let other = other["issuer"].as_str().unwrap().to_owned();
    // As the page says it.
    let spans = pages::spans("replicas.md");
    let command = spans.iter().find_map(|span| span.strip_prefix("signet forget ")).expect("on the page");
    let command = ["forget", &command.replace("ISSUER", &other)].map(str::to_owned);
    let forget = |issuer: &Issuer| {
        let mut signet = Command::new(signet_tests::program::ours("signet"));
        let output = signet.args(&command).arg("--issuer").arg(&issuer.socket).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let refused = |(code, told): (Option<i32>, String)| {
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("heard of"), "{told}");
    };
    refused(forget(&mesh.one));
    mesh.two.process.kill();
    // It may come back at once.
    refused(forget(&mesh.one));
    assert_eq!(of_others(&mesh.one).len(), 1);

    // An hour later: what it said is signed, with its date.
    mesh.one.process.kill();
    let later = signet_tests::clock::later(mesh.folder.path(), secs(3600));
    mesh.one.process.start_again_with("LD_PRELOAD", later.to_str().unwrap());
    mesh.one.wait_until_ready();
    until("it knows of the other", secs(10), || of_others(&mesh.one).len() == 1);
    let (code, told) = forget(&mesh.one);
    assert!(code == Some(0) && told.contains(&other), "{told}");
    assert!(of_others(&mesh.one).is_empty());
    assert_eq!(bundles(&mesh.one).len(), 1, "its own stays");
    assert_eq!(forget(&mesh.one).0, Some(1), "there is none any more");

    // Where it was not gone for good after all, it says again what it has its clients trust.
    mesh.two.process.start_again();
    mesh.two.wait_until_ready();
    until("it is back", secs(10), || of_others(&mesh.one).iter().any(|one| one["issuer"] == *other));
}

/// Renewed at both, as fast as they can, while one and the other is killed.
#[test]
fn each_issuer_on_a_database_has_a_log_of_its_own_and_each_certificate_is_in_one_of_them() {
    let mut mesh = Mesh::giving(secs(3600));
    let over = AtomicBool::new(false);
    let received = Mutex::new(HashSet::new());
    let addresses = [mesh.one.address, mesh.two.address];
    let starting: Vec<_> = (0..6)
        .map(|number| {
            let mut workload = Workload::of(addresses[number % 2]);
            workload.attest(&mesh.one.join_token(&format!("spiffe://{TRUST_DOMAIN}/workload/{number}"))).unwrap();
            workload
        })
        .collect();
    std::thread::scope(|scope| {
        for mut workload in starting {
            let (over, received) = (&over, &received);
            scope.spawn(move || {
                while !over.load(Relaxed) {
                    // Whoever is away answers nobody.
                    if workload.renew().is_ok() {
                        received.lock().unwrap().insert(trimmed(&workload.svid().serial()));
                    }
                }
            });
        }
        for _ in 0..5 {
            for issuer in [&mut mesh.one, &mut mesh.two] {
                let before = received.lock().unwrap().len();
                until("some renew", secs(30), || received.lock().unwrap().len() > before + 50);
                issuer.process.kill();
                issuer.process.start_again();
                issuer.wait_until_ready();
            }
        }
        over.store(true, Relaxed);
    });
    let received = received.into_inner().unwrap();
    assert_eq!(mesh.unrecorded(&received), Vec::<String>::new());

    let mut logged = HashSet::new();
    for issuer in [&mesh.one, &mesh.two] {
        let auditor = Auditor::of(issuer);
        let origin = auditor.key().split('+').next().unwrap().to_owned();
        let size = format!("SELECT size FROM audit_logs WHERE origin = '{origin}'");
        let size: u64 = mesh.server.query(&mesh.url, &size)[0].parse().unwrap();
        until("what is on record is published", secs(20), || published(issuer) >= size);
        let copy = auditor.copy(issuer, "copy");
        auditor.both_find_good(&copy);
        let places = format!(
            "SELECT log_index || ' ' || encode(serial, 'hex') FROM issued JOIN audit_logs ON log = number WHERE origin = '{origin}'"
        );
        let mut places: HashSet<String> = mesh.server.query(&mesh.url, &places).into_iter().collect();
        for (index, entry) in entries(&copy).into_iter().enumerate() {
            if let Act::X509Issued(issued) = entry.act {
                // None is in both, and each is where the record says.
                assert!(logged.insert(trimmed(&issued.serial)), "{}", issued.serial);
                assert!(places.remove(&format!("{index} {}", issued.serial)), "{index} {}", issued.serial);
            }
        }
        assert_eq!(places, HashSet::new());
    }
    assert!(received.is_subset(&logged), "{:?}", received.difference(&logged).collect::<Vec<_>>());
}
