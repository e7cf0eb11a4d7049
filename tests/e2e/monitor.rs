//! `signet audit monitor`: what it raises its voice at, and that it is quiet otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::Value;
use signet_audit::{Checkpoint, Edge, Folder, Resource, VerifierKey, sign};
use signet_test_postgres::Server;
use signet_tests::auditor::{Auditor, ID, joined, keep_state, set_back, state_of, url_of, wait_until_published};
use signet_tests::wait::{throughout, until};
use signet_tests::{Curl, Issuer, Process, Recipe, program, secs};
use tempfile::TempDir;

/// A log with a key that is at hand, so that whoever has it can do what it should not.
struct Log {
    pair: Ed25519KeyPair,
    key: VerifierKey,
}

impl Log {
    fn new() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        Self { pair, key: VerifierKey::new("example.org/audit/1".parse().unwrap(), public) }
    }

    /// So many entries that tell `story`, signed so many seconds from now.
    fn write(&self, folder: &Path, story: &str, size: u64, ahead: i64) {
        let (log, mut edge) = (Folder::new(folder), Edge::default());
        for index in 0..size {
            let story = if index < 100 { "the same" } else { story };
            let entry =
                format!(r#"{{"v":1,"time":"2026-11-28T09:30:00Z","act":"started","software":"{story} {index}"}}"#);
            edge.append(entry.as_bytes(), |resource, bytes| log.write(resource, &bytes).unwrap()).unwrap();
        }
        edge.partial().into_iter().for_each(|(resource, bytes)| log.write(resource, &bytes).unwrap());
        let checkpoint = Checkpoint { origin: self.key.origin().clone(), size, root: edge.root() };
        let time = (time::OffsetDateTime::now_utc().unix_timestamp() + ahead).cast_unsigned();
        let signing = |message: &[u8]| Ok::<[u8; 64], ()>(self.pair.sign(message).as_ref().try_into().unwrap());
        let note = sign(&checkpoint, &self.key, time, signing).unwrap();
        log.write(Resource::Checkpoint, note.as_bytes()).unwrap();
    }
}

struct Bench {
    folder: TempDir,
    log: Log,
}

impl Bench {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), log: Log::new() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, story: &str, size: u64) {
        self.log.write(&self.at(name), story, size, 0);
    }

    /// The alerts of one look.
    fn look(&self, logs: &[&str], more: &[&str]) -> Vec<Value> {
        let mut command = Command::new(program::ours("signet"));
        command.args(["audit", "monitor", "-o", "json", "--once", "--key", &self.log.key.to_string()]);
        command.args(logs.iter().map(|log| self.at(log))).args(more);
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let alerts: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(i32::from(!alerts.is_empty())), "{told}{error}");
        alerts
    }

    #[track_caller]
    fn one(&self, logs: &[&str], more: &[&str], kind: &str) -> Value {
        let alerts = self.look(logs, more);
        assert!(alerts.len() == 1 && alerts[0]["alert"] == kind, "{alerts:?}");
        alerts[0].clone()
    }
}

#[test]
fn a_log_that_was_set_back_replaced_or_changed_is_told_of_with_what_proves_it() {
    let bench = Bench::new();
    let state = bench.at("state").display().to_string();
    let remembering = ["--state", &*state];
    bench.write("log", "a", 700);
    assert_eq!(bench.look(&["log"], &remembering), [Value::Null; 0]);
    bench.write("log", "a", 1300);
    assert_eq!(bench.look(&["log"], &remembering), [Value::Null; 0]);

    bench.write("log", "a", 1000);
    let alert = bench.one(&["log"], &remembering, "set_back");
    assert_eq!(alert["cause"], "it has 1000 entries, and had 1300");
    let evidence: Vec<_> = alert["evidence"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect();
    assert!(evidence[0].contains("\n1300\n") && evidence[1].contains("\n1000\n"), "{evidence:?}");
    // It does not become good by being looked at.
    bench.one(&["log"], &remembering, "set_back");
    bench.write("log", "b", 1400);
    let alert = bench.one(&["log"], &remembering, "fork");
    assert_eq!(alert["evidence"].as_array().unwrap().len(), 2);
    fs::remove_dir_all(bench.at("log")).unwrap();
    bench.write("log", "a", 1300);
    let entries = bench.at("log/tile/entries/002");
    assert_eq!(bench.look(&["log"], &remembering), [Value::Null; 0]);
    let mut bytes = fs::read(&entries).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&entries, bytes).unwrap();
    let alert = bench.one(&["log"], &[], "tampered");
    assert!(alert["cause"].as_str().unwrap().contains("entry 767 was changed"), "{alert}");
}

#[test]
fn a_log_whose_clock_went_back_is_told_of_and_what_is_new_in_it_is_looked_at() {
    let bench = Bench::new();
    let state = bench.at("state").display().to_string();
    let remembering = ["--state", &*state];
    bench.write("log", "a", 700);
    assert_eq!(bench.look(&["log"], &remembering), [Value::Null; 0]);
    bench.log.write(&bench.at("log"), "a", 1300, -5);
    let alert = bench.one(&["log"], &remembering, "set_back");
    assert!(alert["cause"].as_str().unwrap().contains("older than the one before"), "{alert}");
    let entries = bench.at("log/tile/entries/004");
    let mut bytes = fs::read(&entries).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&entries, bytes).unwrap();
    let kinds: Vec<_> = bench.look(&["log"], &remembering).iter().map(|alert| alert["alert"].clone()).collect();
    assert_eq!(kinds, ["set_back", "tampered"]);
}

#[test]
fn a_checkpoint_that_is_late_or_of_the_future_or_not_to_be_read_is_told_of() {
    let bench = Bench::new();
    bench.log.write(&bench.at("late"), "a", 10, -30);
    bench.one(&["late"], &[], "late");
    assert_eq!(bench.look(&["late"], &["--max-age", "1m"]), [Value::Null; 0]);
    bench.log.write(&bench.at("future"), "a", 10, 300);
    bench.one(&["future"], &[], "future");
    fs::create_dir(bench.at("empty")).unwrap();
    let alert = bench.one(&["empty"], &[], "unreadable");
    assert_eq!(alert["cause"], "checkpoint is missing");
    Log::new().write(&bench.at("stranger"), "a", 10, 0);
    let alert = bench.one(&["stranger"], &[], "unreadable");
    assert!(alert["cause"].as_str().unwrap().contains("is not signed by the key"), "{alert}");
    // A log of which files are missing.
    bench.write("holes", "a", 600);
    fs::remove_file(bench.at("holes/tile/entries/001")).unwrap();
    bench.one(&["holes"], &[], "unreadable");
}

#[test]
fn sources_of_one_log_that_tell_different_stories_are_found_out() {
    let bench = Bench::new();
    bench.write("one", "a", 1000);
    bench.write("behind", "a", 700);
    assert_eq!(bench.look(&["one", "behind"], &[]), [Value::Null; 0]);
    for (size, which) in [(1000, "as long"), (700, "shorter"), (1300, "longer")] {
        bench.write(which, "b", size);
        let alert = bench.one(&["one", which], &[], "fork");
        let evidence = alert["evidence"].as_array().unwrap();
        let sizes: Vec<_> = evidence.iter().map(|note| note.as_str().unwrap().lines().nth(1).unwrap()).collect();
        assert!(sizes.contains(&"1000") && sizes.contains(&&*size.to_string()), "{alert}");
        // As a person sees it: both, signatures and all.
        let mut command = Command::new(program::ours("signet"));
        command.args(["audit", "monitor", "--once", "--key", &bench.log.key.to_string()]);
        let output = command.arg(bench.at("one")).arg(bench.at(which)).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(told.starts_with("fork: ") && told.matches("\n  \u{2014} example.org/audit/1 ").count() == 4, "{told}");
    }
}

/// The monitor, for as long as the test runs.
fn start(folder: &Path, issuers: &[&Issuer], more: &[&str]) -> Process {
    let mut recipe = Recipe::new("monitor", program::ours("signet"), folder).args(["audit", "-o", "json", "monitor"]);
    for issuer in issuers {
        recipe = recipe.arg(url_of(issuer)).arg("--key-file").arg(state_of(issuer).join("audit/log.key.pub"));
    }
    recipe.args(more).start()
}

fn alerts(monitor: &Process) -> Vec<Value> {
    monitor.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn two_replicas_that_issue_are_followed_quietly_and_what_is_watched_is_told_of_once() {
    let folder = TempDir::new().unwrap();
    let server = Server::start(true);
    let url = server.database();
    let database = format!(
        "database: {{ url: \"{url}\" }}\nlimits: {{ renewals_per_minute: 1000000, attestations_per_minute: 1000000 }}\n"
    );
    let on_record = |issuer: &Issuer| {
        let key = Auditor::of(issuer).key();
        let origin = key.split('+').next().unwrap().to_owned();
        let size = server.query(&url, &format!("SELECT size FROM audit_logs WHERE origin = '{origin}'"));
        size[0].parse::<u64>().unwrap()
    };
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    let one = Issuer::start_with(&one, "example.org", secs(3600), &database);
    let mut two = one.beside(&two, "example.org", secs(3600), &database);
    let metrics = signet_tests::address::Host::new().free();
    let state = folder.path().join("monitor");
    let watch = "spiffe://example.org/payments/*";
    let words = ["--watch", watch, "--metrics", &metrics.to_string(), "--state", state.to_str().unwrap()];
    let monitor = start(folder.path(), &[&one, &two], &words);

    // Each at one of the two.
    let mut workloads: Vec<_> = [&one, &two].into_iter().map(joined).collect();
    for number in 0..150 {
        workloads[number % 2].renew().unwrap();
    }
    let followed = |issuer: &Issuer| {
        let size = on_record(issuer);
        let name = hex(&signet_audit::sha256(url_of(issuer).as_bytes())[..8]);
        until("it has read that", secs(20), || {
            let note = fs::read_to_string(state.join(format!("{name}.checkpoint"))).unwrap_or_default();
            note.lines().nth(1).is_some_and(|seen| seen.parse::<u64>().unwrap() >= size)
        });
    };
    followed(&one);
    throughout("it is quiet", secs(3), || alerts(&monitor).is_empty());

    // At the other replica.
    let mut paid = signet_tests::Workload::of(two.address);
    paid.attest(&one.join_token("spiffe://example.org/payments/api")).unwrap();
    until("that is told of", secs(20), || !alerts(&monitor).is_empty());
    let [alert] = &alerts(&monitor)[..] else { panic!("{:?}", alerts(&monitor)) };
    assert_eq!(
        (&alert["alert"], &alert["spiffe_id"], &alert["id"]),
        (&"issued".into(), &"spiffe://example.org/payments/api".into(), &paid.svid().serial().into()),
    );
    assert!(!monitor.log().contains(ID));
    let page = Curl::get(format!("http://{metrics}/metrics")).run().expect_status(200).text();
    assert!(page.contains("signet_audit_monitor_alerts_total{kind=\"issued\"} 1"), "{page}");

    // One of them goes away, and comes back: told of once, and the other is followed meanwhile.
    two.process.kill();
    let kinds = |kind: &str| alerts(&monitor).iter().filter(|alert| alert["alert"] == kind).count();
    until("that is told of", secs(60), || kinds("unreadable") == 1);
    workloads[0].renew().unwrap();
    followed(&one);
    two.process.start_again();
    two.wait_until_ready();
    paid.renew().unwrap();
    until("it is followed again", secs(60), || kinds("issued") == 2);
    assert_eq!((kinds("unreadable"), kinds("fork"), kinds("set_back")), (1, 0, 0), "{:?}", alerts(&monitor));
}

#[test]
fn an_issuer_that_was_set_back_is_told_of_by_whoever_followed_it() {
    let folder = TempDir::new().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    joined(&issuer);
    wait_until_published(&issuer);
    let kept = folder.path().join("kept");
    keep_state(&mut issuer, &kept);
    joined(&issuer);
    wait_until_published(&issuer);
    let auditor = Auditor::of(&issuer);
    auditor.copy(&issuer, "copy");
    let monitor = start(folder.path(), &[&issuer], &["--max-age", "1h", auditor.at("copy").to_str().unwrap()]);
    throughout("it is quiet", secs(3), || alerts(&monitor).is_empty());
    set_back(&mut issuer, &kept);
    issuer.process.start_again();
    issuer.wait_until_ready();
    for _ in 0..5 {
        joined(&issuer);
    }
    until("that is told of", secs(60), || {
        alerts(&monitor).iter().any(|alert| alert["alert"] == "fork" || alert["alert"] == "set_back")
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
