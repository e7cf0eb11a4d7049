//! Authorities and roots follow each other under load, by the commands of the page, and when the issuer is killed at it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::watch_response::Event;
use signet_proto::identity::v1::{Applied, Resource, WatchRequest, WatchResponse};
use signet_tests::wait::until;
use signet_tests::workload::channel_of;
use signet_tests::{Direct, GatewayPlan, Issuer, Load, Mesh, Nginx, Signal, Workload, millis, pages, program, secs};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

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
    assert_eq!((&told["rotation"], &told["connected_clients"]), (&Value::Null, &2.into()), "{told}");
    // Of those that it was made active by: what they are told afterwards they acknowledge a moment later.
    let made = issuer.process.lines_with(&["the authority is active", "\"connected\":2", "\"missing\":0"]);
    assert_eq!(made.len(), 1, "{made:?}");
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
    // Nothing hangs on the first any more, though what it has signed has not expired.
    issuer.operate(&["revoke", "authority", &first, "--reason", "superseded", "--yes"]);
    assert_eq!(issuer.stages()[0], "revoked");
}

#[test]
fn an_authority_is_remembered_as_revoked_as_long_as_it_would_live_though_no_root_does() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let first = issuer.authority_keys()[0].clone();
    let lives = issuer.operate_json(&["status"])["authority"]["not_after"].as_str().unwrap().to_owned();
    let lives = OffsetDateTime::parse(&lives, &Rfc3339).unwrap().unix_timestamp();
    let next = issuer.make_root_for("next", "20d");
    let root = next.join("root.pem");
    let rotate = ["rotate", "root", "--root", root.to_str().unwrap(), "--apply", "--yes", "--override", "--no-wait"];
    issuer.operate(&rotate);
    issuer.hold_ceremony_for(&next, "10d");
    until("the root before is trusted no more", secs(30), || !issuer.is_rotating());
    issuer.operate(&["revoke", "authority", &first, "--reason", "ca-compromise", "--yes", "--force"]);
    let remembered: i64 = issuer.query("SELECT not_after FROM revoked WHERE kind = 2")[0].parse().unwrap();
    assert!(remembered >= lives, "{remembered} is before {lives}");
}

/// Clients that follow the issuer and say nothing of what they are told, until they are to. Each stays until its certificate ends.
struct Silent {
    runtime: tokio::runtime::Runtime,
    workloads: Vec<Workload>,
    streams: Vec<(tonic::Streaming<WatchResponse>, mpsc::Sender<WatchRequest>)>,
}

impl Silent {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { runtime, workloads: Vec::new(), streams: Vec::new() }
    }

    fn join(&mut self, issuer: &Issuer, id: &str) {
        let mut workload = Workload::of(issuer.address);
        workload.attest(&issuer.join_token(id)).unwrap();
        self.streams.push(self.follow(issuer, &workload));
        self.workloads.push(workload);
    }

    /// To an issuer that was started again.
    fn come_back(&mut self, issuer: &Issuer) {
        self.streams = self.workloads.iter().map(|workload| self.follow(issuer, workload)).collect();
    }

    fn follow(
        &self,
        issuer: &Issuer,
        workload: &Workload,
    ) -> (tonic::Streaming<WatchResponse>, mpsc::Sender<WatchRequest>) {
        let (say, said) = mpsc::channel(1);
        let watching = async {
            let also = vec![Resource::Authorities.into()];
            say.send(WatchRequest { also, ..WatchRequest::default() }).await.unwrap();
            let channel = channel_of(workload.svid(), issuer.address).await.unwrap();
            IdentityServiceClient::new(channel).watch(ReceiverStream::new(said)).await.unwrap().into_inner()
        };
        (self.runtime.block_on(watching), say)
    }

    /// Each says that it would believe so many authorities, once it is told of them.
    fn believe(&mut self, count: usize) {
        for (stream, say) in &mut self.streams {
            self.runtime.block_on(async {
                let version = loop {
                    let message = stream.message().await.unwrap().unwrap();
                    if let Some(Event::Authorities(told)) = message.event
                        && told.authorities.len() == count
                    {
                        break told.version;
                    }
                };
                let applied = Applied { resource: Resource::Authorities.into(), version, refused: String::new() };
                say.send(WatchRequest { applied: vec![applied], ..WatchRequest::default() }).await.unwrap();
            });
        }
    }
}

/// Whether a rotation waits for this client, and since when the issuer counts that.
fn is_waited_for(issuer: &Issuer, client: &str) -> bool {
    let status = issuer.operate_json(&["rotate", "status"]);
    status["missing"][0]["spiffe_id"] == client && !status["rotation"]["deadline"].is_null()
}

#[test]
fn who_was_connected_when_the_issuer_was_killed_is_waited_for_until_it_is_back_and_believes_the_successor() {
    const CLIENT: &str = "spiffe://example.org/shop/cart";
    let folder = tempfile::tempdir().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    issuer.hold_ceremony(&issuer.root, 1);
    let mut silent = Silent::new();
    silent.join(&issuer, CLIENT);
    issuer.operate(&["rotate", "authority", "--apply", "--yes", "--no-wait"]);
    until("it is waited for", secs(10), || is_waited_for(&issuer, CLIENT));

    issuer.process.kill();
    issuer.process.start_again();
    issuer.wait_until_ready();
    // Nobody is connected while the issuer looks a few times at what it can do next.
    thread::sleep(secs(1));
    assert_eq!(issuer.stages(), ["active", "prepared"]);
    silent.come_back(&issuer);
    until("it is waited for again", secs(10), || is_waited_for(&issuer, CLIENT));
    // Longer than clients are given to come back.
    thread::sleep(secs(11));
    assert_eq!(issuer.stages(), ["active", "prepared"]);
    assert!(is_waited_for(&issuer, CLIENT));
    silent.believe(2);
    until("the successor signs", secs(10), || issuer.stages() == ["retired", "active"]);
}

#[test]
fn a_client_that_is_stopped_is_waited_for_until_it_is_found_dead_and_comes_back_to_the_successor() {
    const CLIENT: &str = "spiffe://example.org/gateway/stopped";
    let folder = tempfile::tempdir().unwrap();
    // As it is by itself, but sooner.
    let sooner = "limits: { keepalive_interval: 10s, keepalive_timeout: 10s }\n";
    let mut issuer = Issuer::start_with(folder.path(), "example.org", secs(3600), sooner);
    let token = folder.path().join("token");
    std::fs::write(&token, issuer.join_token(CLIENT)).unwrap();
    let gateway = GatewayPlan::new("stopped")
        .identity_from_issuer(issuer.address, "example.org", &issuer.bundle, &token)
        .inbound(&["spiffe://example.org/any"], "http://127.0.0.1:1")
        .start();
    let acknowledged = |issuer: &Issuer| issuer.operate_json(&["rotate", "status"])["acknowledged"].clone();
    until("it is connected", secs(10), || acknowledged(&issuer) == 1);

    gateway.process.signal(Signal::Stop);
    issuer.hold_ceremony(&issuer.root, 1);
    issuer.operate(&["rotate", "authority", "--apply", "--yes", "--no-wait"]);
    until("it is waited for", secs(10), || is_waited_for(&issuer, CLIENT));
    assert_eq!(issuer.stages(), ["active", "prepared"]);
    until("it is waited for no more", secs(60), || issuer.stages() == ["retired", "active"]);
    // Neither the deadline nor a person has to do with it.
    let told = issuer.process.wait_for_line("the authority is active");
    assert!(told.contains("\"connected\":0") && !told.contains("overridden_by"), "{told}");
    gateway.process.signal(Signal::Continue);
    until("it is back", secs(30), || acknowledged(&issuer) == 1);
}

#[test]
fn whoever_has_a_rotation_wait_for_nobody_is_named_by_it_in_what_the_issuer_keeps_and_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let id = Command::new("id").arg("-u").output().unwrap();
    let person = format!("uid:{}", String::from_utf8(id.stdout).unwrap().trim());
    issuer.hold_ceremony(&issuer.root, 1);
    let mut silent = Silent::new();
    silent.join(&issuer, "spiffe://example.org/silent");
    issuer.operate(&["rotate", "authority", "--apply", "--yes", "--no-wait"]);
    let status = issuer.operate_json(&["rotate", "status"]);
    assert!(status["rotation"]["actor"] == person.as_str() && status["rotation"]["overridden_by"].is_null());
    issuer.operate(&["rotate", "authority", "--apply", "--yes", "--override"]);
    assert_eq!(issuer.stages(), ["retired", "active"]);
    let is_named = |told: &str, what: &str| {
        let named = format!("\"overridden_by\":\"{person}\"");
        assert!(told.contains(&named) && told.contains(what), "{told}");
    };
    let told = issuer.process.wait_for_line("the authority is active");
    is_named(&told, "\"missing\":1");

    // One that waits for a ceremony shows it meanwhile.
    let next = issuer.make_root("next");
    let root = next.join("root.pem");
    let rotate = ["rotate", "root", "--root", root.to_str().unwrap(), "--apply", "--yes", "--override", "--no-wait"];
    issuer.operate(&rotate);
    assert_eq!(issuer.operate_json(&["rotate", "status"])["rotation"]["overridden_by"], person.as_str());
    assert!(issuer.operate(&["rotate", "status"]).contains(&format!("{person} waits for nobody")));
    let kept = std::fs::read_to_string(issuer.database.with_file_name("authorities.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["rotation"]["overridden_by"], person.as_str(), "{kept}");
    until("a request", secs(10), || issuer.stages().contains(&"requested".to_owned()));
    issuer.hold_ceremony(&next, 1);
    let told = issuer.process.wait_for_line("the roots are withdrawn");
    is_named(&told, "\"action\":\"Rotate\"");
}

#[test]
fn whoever_says_nothing_is_named_a_rotation_is_cancelled_and_a_request_given_up() {
    const CLIENT: &str = "spiffe://example.org/shop/cart";
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let signet = |words: &[&str]| issuer.signet_in(folder.path(), words);
    let refused = |words: &[&str]| {
        let output = signet(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let told = done(&signet(&["status"]));
    assert!(told.contains("successors         none, and none is due before 20"), "{told}");
    issuer.hold_ceremony(&issuer.root, 1);
    assert_eq!(issuer.operate_json(&["status"])["successors"], 1);

    let mut silent = Silent::new();
    silent.join(&issuer, CLIENT);
    done(&signet(&["rotate", "authority", "--apply", "--yes", "--no-wait"]));
    let told = done(&signet(&["rotate", "status"]));
    assert!(told.contains(CLIENT), "{told}");
    let status = issuer.operate_json(&["rotate", "status"]);
    assert_eq!(status["missing"][0]["spiffe_id"], CLIENT, "{status}");
    assert!(refused(&["rotate", "authority", "--apply", "--yes"]).contains("a rotation is under way"));
    assert_eq!(done(&signet(&["rotate", "cancel"])), "cancelled; what it has done stays\n");
    assert!(issuer.operate_json(&["rotate", "status"])["rotation"].is_null());
    assert!(refused(&["rotate", "cancel"]).contains("no rotation is under way"));
    assert_eq!(issuer.stages(), ["active", "prepared"]);
    // A program reads what is under way then: nothing.
    done(&signet(&["rotate", "authority", "--apply", "--yes", "--no-wait"]));
    assert!(issuer.is_rotating());
    let cancelled = issuer.operate_json(&["rotate", "cancel"]);
    assert_eq!(cancelled, issuer.operate_json(&["rotate", "status"]));
    assert!(cancelled["rotation"].is_null(), "{cancelled}");

    done(&signet(&["ca", "csr", "--out", "first.csr"]));
    assert_eq!(issuer.stages(), ["active", "prepared", "requested"]);
    let waits = issuer.authority_keys()[2].clone();
    done(&signet(&["ca", "csr", "--discard", &waits, "--out", "second.csr"]));
    assert_eq!(issuer.stages(), ["active", "prepared", "revoked", "requested"]);
    assert_eq!(issuer.authority_keys()[2], waits);
    let [first, second] = ["first.csr", "second.csr"].map(|name| std::fs::read(folder.path().join(name)).unwrap());
    assert_ne!(first, second);
    let signs = issuer.authority_keys()[0].clone();
    let told = refused(&["ca", "csr", "--discard", &signs, "--out", "third.csr"]);
    assert!(told.contains(&signs), "{told}");
    // What was signed for a key that is given up is of no use any more.
    let signed = issuer.have_signed_from(&issuer.root, &folder.path().join("first.csr"), &[]);
    let imported = signet(&["ca", "import", signed.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&imported.stderr);
    assert!(imported.status.success() && told.contains(&format!("{waits} is given up or revoked")), "{told}");
    assert_eq!(issuer.stages(), ["active", "prepared", "revoked", "requested"]);
}

#[test]
fn an_authority_that_is_at_its_end_gives_way_whoever_says_nothing_and_the_log_says_so() {
    // With the five minutes by which it is dated back, it begins to give way at once, and waits for nobody once 45 s are left.
    const LIFE: &str = "60s";
    let folder = tempfile::tempdir().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    issuer.hold_ceremony_for(&issuer.root, LIFE);
    issuer.operate(&["rotate", "authority", "--apply", "--yes"]);
    assert_eq!(issuer.stages(), ["retired", "active"]);
    let end = issuer.operate_json(&["status"])["authority"]["not_after"].as_str().unwrap().to_owned();
    let end = OffsetDateTime::parse(&end, &Rfc3339).unwrap();
    let mut silent = Silent::new();
    silent.join(&issuer, "spiffe://example.org/silent");
    issuer.hold_ceremony(&issuer.root, 1);
    until("it gives way", secs(10), || issuer.is_rotating());
    assert_eq!(issuer.stages(), ["retired", "active", "prepared"]);
    assert!(end - OffsetDateTime::now_utc() > time::Duration::seconds(46), "it took too long to see it wait");
    until("the next one signs", secs(60), || issuer.stages() == ["retired", "retired", "active"]);
    let left = end - OffsetDateTime::now_utc();
    assert!(left <= time::Duration::seconds(45), "{left}");
    let told = issuer.process.wait_for_line("the authority in force expires soon");
    for part in ["\"outcome\":\"the authority is active\"", "\"connected\":1", "\"missing\":1"] {
        assert!(told.contains(part), "{told}");
    }
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
