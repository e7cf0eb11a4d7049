//! What `signet audit stream` hands on: all of it, whatever ends, breaks or is away meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;

use rcgen::SanType;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use signet_test_pki::{Authority, pem};
use signet_tests::address::Host;
use signet_tests::files::{IdentityFiles, copy_all};
use signet_tests::tap::Tap;
use signet_tests::wait::until;
use signet_tests::{GrowingLog, Process, Recipe, Rsyslog, Signal, millis, program, secs};
use tempfile::TempDir;

const HOSTILE: &str = "]\"\\ \n\u{1b}[2J\u{202e}é😀";

fn entries(from: u64, count: u64) -> Vec<String> {
    let entry = |index: u64| {
        let text = if index.is_multiple_of(97) { HOSTILE.repeat(20) } else { format!("number {index}") };
        serde_json::json!({ "v": 1, "time": "2026-11-28T09:30:00.5Z", "act": "banned", "spiffe_id": text }).to_string()
    };
    (from..from + count).map(entry).collect()
}

fn stream(folder: &Path, to: &str, more: &[&str]) -> Recipe {
    let at = |name: &str| folder.join(name);
    Recipe::new("stream", program::ours("signet"), folder)
        .args(["audit", "stream"])
        .arg(at("log"))
        .arg("--key-file")
        .arg(at("log.key.pub"))
        .args(["--to", to, "--cursor"])
        .arg(at("cursor"))
        .args(more)
}

/// That each entry of the log is there, as it is in the log.
#[track_caller]
fn nothing_is_missing<'a>(log: &GrowingLog, lines: impl Iterator<Item = &'a str>) -> usize {
    let expected = entries(0, log.size());
    let (mut found, mut count) = (BTreeSet::new(), 0);
    for line in lines {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let index = line["index"].as_u64().unwrap();
        let entry: Value = serde_json::from_str(&expected[index as usize]).unwrap();
        assert_eq!((&line["entry"], &line["log"]), (&entry, &"example.org/audit/grows".into()));
        // In the order of the log, but for what comes again.
        assert!(index == 0 || found.contains(&(index - 1)), "{index} came before the one that it follows");
        found.insert(index);
        count += 1;
    }
    assert_eq!(found.len() as u64, log.size());
    count
}

#[test]
fn nothing_is_missing_in_a_file_whenever_the_exporter_is_killed() {
    let folder = TempDir::new().unwrap();
    let mut log = GrowingLog::new(folder.path());
    let file = folder.path().join("lines");
    let to = format!("jsonl:{}", file.display());
    let mut process = stream(folder.path(), &to, &["--batch", "7"]).start();
    for round in 0..20 {
        log.grow(&entries(log.size(), 300));
        // At another point each time.
        sleep(millis(31 + 17 * round));
        process.kill();
        if round == 10 {
            // As if it had been killed within a line.
            let text = fs::read_to_string(&file).unwrap();
            fs::write(&file, format!("{text}{{\"log\":\"exa")).unwrap();
        }
        process.start_again();
    }
    process.kill();
    stream(folder.path(), &to, &["--once"]).run(secs(60)).success();
    let text = fs::read_to_string(&file).unwrap();
    nothing_is_missing(&log, text.lines());

    // Nothing comes again without a reason.
    stream(folder.path(), &to, &["--once"]).run(secs(60)).success();
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn a_log_that_was_set_back_or_changed_is_not_handed_on() {
    let folder = TempDir::new().unwrap();
    let mut log = GrowingLog::new(folder.path());
    log.grow(&entries(0, 300));
    let early = folder.path().join("early");
    copy_all(log.path(), &early);
    log.grow(&entries(300, 300));
    let to = format!("jsonl:{}", folder.path().join("lines").display());
    stream(folder.path(), &to, &["--once"]).run(secs(60)).success();
    let another = stream(folder.path(), &to, &[]).start();
    until("it has the cursor", secs(10), || another.log().contains("from entry 600"));
    let refused = stream(folder.path(), &to, &["--once"]).run(secs(10));
    assert!(refused.status.code() == Some(1) && refused.output.contains("another stream has this cursor"));
    drop(another);

    fs::remove_dir_all(log.path()).unwrap();
    copy_all(&early, log.path());
    let refused = stream(folder.path(), &to, &["--once"]).run(secs(10));
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.output.contains("it was set back: it had 600 entries, and has 300"), "{}", refused.output);

    fs::remove_file(folder.path().join("cursor")).unwrap();
    let bundle = log.path().join("tile/entries/000");
    let mut bytes = fs::read(&bundle).unwrap();
    bytes[9] ^= 1;
    fs::write(bundle, bytes).unwrap();
    let lines = folder.path().join("other");
    let refused = stream(folder.path(), &format!("jsonl:{}", lines.display()), &["--once"]).run(secs(10));
    assert!(refused.status.code() == Some(1) && refused.output.contains("was changed"), "{}", refused.output);
    assert!(!lines.exists());
}

/// The files of a receiver and of those who send to it.
fn identities(folder: &Path, root: &Authority, receiver: IpAddr) -> IdentityFiles {
    fs::write(folder.join("ca.pem"), pem("CERTIFICATE", root.certificate())).unwrap();
    let exporter = root.leaf("spiffe://example.org/exporter").dns("exporter.example.org").issue();
    IdentityFiles::write(folder, "exporter", &exporter);
    let own = root.leaf("spiffe://example.org/siem");
    let own = own.with(|params| params.subject_alt_names.push(SanType::IpAddress(receiver))).issue();
    IdentityFiles::write(folder, "siem", &own)
}

/// Who sends, as a receiver expects it.
fn known(folder: &Path, to: &str, more: &[&str]) -> Recipe {
    let at = |name: &str| folder.join(name).display().to_string();
    let (ca, certificate, key) = (at("ca.pem"), at("exporter.pem"), at("exporter.key"));
    let known = ["--ca-file", &ca, "--certificate", &certificate, "--certificate-key", &key];
    stream(folder, to, &[&known, more].concat())
}

fn cursor(folder: &Path) -> u64 {
    let json = fs::read(folder.join("cursor")).unwrap_or_default();
    serde_json::from_slice(&json).map_or(0, |cursor: Value| cursor["next"].as_u64().unwrap())
}

/// A receiver and somebody who may send to it.
struct Syslog {
    folder: TempDir,
    rsyslog: Rsyslog,
    _host: Host,
}

impl Syslog {
    fn start() -> Self {
        let (folder, host) = (TempDir::new().unwrap(), Host::new());
        let address = host.free();
        let root = Authority::root("example.org");
        let own = identities(folder.path(), &root, address.ip());
        let authorities = folder.path().join("ca.pem");
        let rsyslog = Rsyslog::start(folder.path(), address, &own, &authorities, "exporter.example.org");
        Self { folder, rsyslog, _host: host }
    }

    fn recipe(&self, to: impl std::fmt::Display, more: &[&str]) -> Recipe {
        known(self.folder.path(), &format!("syslog+tls://{to}"), more)
    }

    fn cursor(&self) -> u64 {
        cursor(self.folder.path())
    }

    fn wait_for(&self, log: &GrowingLog, process: &mut Process) {
        process.wait_until("all of it is sent", secs(60), |_| self.cursor() == log.size());
        let last = format!("\"index\":{},", log.size() - 1);
        let is_there = || self.rsyslog.messages().iter().any(|message| message.contains(&last));
        until("the receiver has written it", secs(20), is_there);
    }
}

const MANY: &[&str] = &["--batch", "100", "--timeout", "2s", "--max-message", "131072"];

#[test]
fn rsyslog_has_all_of_it_after_being_away_slow_and_cut_off_and_the_exporter_killed() {
    let mut syslog = Syslog::start();
    let mut log = GrowingLog::new(syslog.folder.path());
    log.grow(&entries(0, 1000));
    let tap = Tap::before(syslog.rsyslog.address);
    let mut process = syslog.recipe(tap.address(), MANY).start();
    for round in 0..8 {
        log.grow(&entries(log.size(), 300));
        sleep(millis(40 + 23 * round));
        tap.cut();
        if round % 3 == 0 {
            process.kill();
            process.start_again();
        }
    }
    // Away.
    syslog.rsyslog.process.signal(Signal::Terminate);
    syslog.rsyslog.process.wait(secs(20));
    log.grow(&entries(log.size(), 300));
    until("it is told", secs(20), || process.log().contains("it waits, and tries again"));
    syslog.rsyslog.process.start_again();
    syslog.rsyslog.wait_until_it_listens();
    syslog.wait_for(&log, &mut process);
    // There, and not answering.
    syslog.rsyslog.process.signal(Signal::Stop);
    log.grow(&entries(log.size(), 300));
    until("it is told", secs(20), || process.log().contains("did not answer in time"));
    syslog.rsyslog.process.signal(Signal::Continue);
    syslog.wait_for(&log, &mut process);

    let messages = syslog.rsyslog.messages();
    let head = "<109>1 2026-11-28T09:30:00.5Z example.org signet - banned [origin software=\"signet\" ";
    assert!(messages.iter().all(|message| message.starts_with(head)), "{}", messages[0]);
    nothing_is_missing(&log, messages.iter().map(|message| &message[message.find(" {\"log\"").unwrap() + 1..]));
}

#[test]
fn who_is_not_believed_gets_nothing_and_nothing_counts_as_sent() {
    let syslog = Syslog::start();
    let mut log = GrowingLog::new(syslog.folder.path());
    log.grow(&entries(0, 10));
    let other = Authority::root("example.org");
    let at = |name: &str| syslog.folder.path().join(name).display().to_string();
    fs::write(at("other.pem"), pem("CERTIFICATE", other.certificate())).unwrap();
    let stranger = other.leaf("spiffe://example.org/exporter").dns("exporter.example.org").issue();
    IdentityFiles::write(syslog.folder.path(), "stranger", &stranger);
    let to = format!("syslog+tls://{}", syslog.rsyslog.address);
    let (ca, other) = (at("ca.pem"), at("other.pem"));
    let named = |name: &str| (at(&format!("{name}.pem")), at(&format!("{name}.key")));
    let (stranger, exporter) = (named("stranger"), named("exporter"));
    for words in [
        &["--ca-file", &other, "--certificate", &exporter.0, "--certificate-key", &exporter.1][..],
        &["--ca-file", &ca],
        &["--ca-file", &ca, "--certificate", &stranger.0, "--certificate-key", &stranger.1],
    ] {
        let refused = stream(syslog.folder.path(), &to, &[words, &["--once"]].concat()).run(secs(60));
        assert_eq!(refused.status.code(), Some(1), "{words:?}: {}", refused.output);
        assert_eq!(syslog.cursor(), 0, "{words:?}");
    }
    assert_eq!(syslog.rsyslog.messages(), Vec::<String>::new());
    syslog.recipe(syslog.rsyslog.address, &["--once"]).run(secs(60)).success();
    assert_eq!(syslog.cursor(), 10);
}

/// How a receiver of syslog ends its sessions.
#[derive(Clone, Copy)]
enum Ending {
    /// By itself, once there is one; what comes then is thrown away.
    AtOnce,
    /// After it has read all, without a word.
    WithoutAnswer,
}

fn ends_so(own: &IdentityFiles, ip: IpAddr, ending: Ending) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let chain = CertificateDer::pem_file_iter(&own.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut tcp = tcp.unwrap();
            let mut session = ServerConnection::new(config.clone()).unwrap();
            while session.is_handshaking() {
                session.complete_io(&mut tcp).unwrap();
            }
            if let Ending::AtOnce = ending {
                session.send_close_notify();
                session.complete_io(&mut tcp).unwrap();
            }
            // What is left, to the end of the session.
            let mut stream = rustls::Stream::new(&mut session, &mut tcp);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    address
}

#[test]
fn the_end_of_a_session_counts_as_an_answer_only_where_it_is_one() {
    let folder = TempDir::new().unwrap();
    let host = Host::new();
    let own = identities(folder.path(), &Authority::root("example.org"), host.ip());
    let mut log = GrowingLog::new(folder.path());
    log.grow(&entries(0, 10));
    let run = |address: SocketAddr, more: &[&str]| {
        known(folder.path(), &format!("syslog+tls://{address}"), &[&["--once"], more].concat()).run(secs(60))
    };
    let leaves = ends_so(&own, host.ip(), Ending::AtOnce);
    for more in [&[][..], &["--accept-tcp-close"]] {
        let refused = run(leaves, more);
        assert!(refused.status.code() == Some(1) && refused.output.contains("by itself"), "{}", refused.output);
        assert_eq!(cursor(folder.path()), 0);
    }
    let silent = ends_so(&own, host.ip(), Ending::WithoutAnswer);
    let refused = run(silent, &[]);
    assert!(refused.status.code() == Some(1) && refused.output.contains("--accept-tcp-close"), "{}", refused.output);
    assert_eq!(cursor(folder.path()), 0);
    run(silent, &["--accept-tcp-close"]).success();
    assert_eq!(cursor(folder.path()), 10);
}

fn otlp_receiver(folder: &Path, address: SocketAddr, tls: &[&Path]) -> Process {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/otlp_receiver.py");
    let recipe = Recipe::new("receiver", program::python(), folder).arg(script).arg(address.to_string());
    let mut process = recipe.arg(folder.join("kept")).args(tls).start();
    process.wait_for_line("ready");
    process
}

#[test]
fn an_otlp_receiver_of_another_hand_has_all_of_it_after_refusing_dying_and_answering_late() {
    let folder = TempDir::new().unwrap();
    let host = Host::new();
    let (address, root) = (host.free(), Authority::root("example.org"));
    let own = identities(folder.path(), &root, address.ip());
    let tls = [&own.certificate, &own.key, &folder.path().join("ca.pem")];
    let mut log = GrowingLog::new(folder.path());
    let mut receiver = otlp_receiver(folder.path(), address, &tls.map(|path| path.as_path()));
    let to = format!("otlp+tls://{address}");

    // Without a certificate nothing is taken.
    log.grow(&entries(0, 500));
    let ca = folder.path().join("ca.pem");
    let refused = stream(folder.path(), &to, &["--once", "--ca-file", ca.to_str().unwrap()]).run(secs(60));
    assert!(refused.status.code() == Some(1) && cursor(folder.path()) == 0, "{}", refused.output);

    let mut process = known(folder.path(), &to, &["--batch", "100", "--timeout", "1s"]).start();
    for round in 0..4 {
        sleep(millis(150 + 90 * round));
        log.grow(&entries(log.size(), 200));
        match round {
            1 => {
                receiver.kill();
                receiver.start_again();
            }
            _ => {
                process.kill();
                process.start_again();
            }
        }
    }
    process.wait_until("all of it is sent", secs(60), |_| cursor(folder.path()) == log.size());
    assert!(process.log().contains("it answered Unavailable: not\\u{1b}[2J now"), "{}", process.log());
    let kept = fs::read_to_string(folder.path().join("kept")).unwrap();
    assert!(nothing_is_missing(&log, kept.lines()) as u64 > log.size(), "what was not answered in time comes again");
    let first: Value = serde_json::from_str(kept.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["event"], &first["act"], &first["time"], &first["severity"], &first["service"]),
        (
            &"signet.banned".into(),
            &"banned".into(),
            &1_795_858_200_500_000_000_u64.into(),
            &10.into(),
            &"signet".into()
        )
    );
}

#[test]
fn a_receiver_on_this_machine_needs_no_tls() {
    let folder = TempDir::new().unwrap();
    let host = Host::new();
    let address = host.free();
    let mut log = GrowingLog::new(folder.path());
    log.grow(&entries(0, 300));
    let _receiver = otlp_receiver(folder.path(), address, &[]);
    stream(folder.path(), &format!("otlp://{address}"), &["--once"]).run(secs(60)).success();
    nothing_is_missing(&log, fs::read_to_string(folder.path().join("kept")).unwrap().lines());
}
