//! Whoever reads an audit log as it grows: people at a terminal, and programs that others have.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;
use signet_tests::auditor::{Auditor, ID, joined, state_of, url_of, wait_until_published};
use signet_tests::files::copy_all;
use signet_tests::{Issuer, program, secs};
use tempfile::TempDir;

/// `signet audit tail --follow`, line by line.
struct Tail {
    child: Child,
    lines: Receiver<String>,
}

impl Tail {
    fn of(auditor: &Auditor, log: &str, more: &[&str]) -> Self {
        let mut child = command(auditor, &[&["tail", log, "--follow"], more].concat()).spawn().unwrap();
        let lines = lines(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next one in which this stands.
    fn wait_for(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(secs(20)).unwrap_or_else(|error| panic!("{text}: {error}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// How it ended, and what it said.
    fn wait(mut self) -> (Option<i32>, String) {
        let mut error = String::new();
        std::io::Read::read_to_string(&mut self.child.stderr.take().unwrap(), &mut error).unwrap();
        (self.child.wait().unwrap().code(), error)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(auditor: &Auditor, words: &[&str]) -> Command {
    let mut command = Command::new(program::ours("signet"));
    command.arg("audit").args(words).arg("--key-file").arg(&auditor.key_file);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn lines(from: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What is found, entry by entry.
fn found(auditor: &Auditor, words: &[&str]) -> Vec<Value> {
    let output = command(auditor, &[words, &["-o", "json"]].concat()).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_logged_is_shown_as_it_comes_and_again_after_the_issuer_was_away() {
    let folder = TempDir::new().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let auditor = Auditor::of(&issuer);
    wait_until_published(&issuer);
    let tail = Tail::of(&auditor, &url_of(&issuer), &["-n", "1000"]);
    tail.wait_for("log_begun");
    let workload = joined(&issuer);
    let line = tail.wait_for(&workload.svid().serial());
    assert!(line.contains(ID) && line.contains("x509_issued"), "{line}");
    issuer.process.kill();
    issuer.process.start_again();
    issuer.wait_until_ready();
    issuer.operate(&["ban", "spiffe://example.org/gone", "--reason", "for good"]);
    tail.wait_for(" started ");
    tail.wait_for("spiffe://example.org/gone");
}

#[test]
fn a_log_that_is_set_back_is_told_of_by_whoever_follows_it() {
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let auditor = Auditor::of(&issuer);
    wait_until_published(&issuer);
    let early = auditor.copy(&issuer, "early");
    joined(&issuer);
    wait_until_published(&issuer);
    let log = auditor.copy(&issuer, "log");
    let tail = Tail::of(&auditor, log.to_str().unwrap(), &["--act", "x509_issued"]);
    tail.wait_for(ID);
    // Something that comes shows that it follows.
    fs::remove_dir_all(&log).unwrap();
    copy_all(&early, &log);
    let (status, error) = tail.wait();
    assert_eq!(status, Some(1));
    assert!(error.contains("it was set back"), "{error}");

    // What was changed is not shown.
    let changed = auditor.at("changed");
    copy_all(&state_of(&issuer).join("audit/log"), &changed);
    flip_an_entry(&changed);
    let output = command(&auditor, &["search", changed.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("was changed"));
    assert_eq!(output.stdout, b"");
}

fn flip_an_entry(log: &Path) {
    let parts = log.join("tile/entries/000.p");
    for part in fs::read_dir(parts).unwrap() {
        let part = part.unwrap().path();
        let mut bytes = fs::read(&part).unwrap();
        let place = bytes.len() / 2;
        bytes[place] ^= 1;
        fs::write(part, bytes).unwrap();
    }
}

#[test]
fn entries_are_found_by_act_actor_identity_serial_and_time() {
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let auditor = Auditor::of(&issuer);
    let mut workload = joined(&issuer);
    workload.renew().unwrap();
    let serial = workload.svid().serial();
    issuer.operate(&["ban", "spiffe://example.org/gone", "--reason", "\u{202e}=cmd"]);
    issuer.operate(&["revoke", "serial", &serial, "--reason", "superseded", "--yes"]);
    wait_until_published(&issuer);
    let log = auditor.copy(&issuer, "log");
    let log = log.to_str().unwrap();
    let search = |more: &[&str]| found(&auditor, &[&["search", log], more].concat());
    let all = search(&[]);
    assert!(all.iter().enumerate().all(|(index, found)| found["index"] == index));
    let acts = |found: &[Value]| -> Vec<String> {
        found.iter().map(|found| found["entry"]["act"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(acts(&search(&["--identity", "spiffe://example.org/shop/*", "--act", "x509_issued"])).len(), 2);
    assert_eq!(acts(&search(&["--serial", &serial])), ["x509_issued", "revoked_serials"]);
    assert_eq!(acts(&search(&["--act", "banned,revoked"])), ["banned", "revoked"]);
    assert_eq!(search(&["--actor", "uid:0", "--act", "banned"]).len(), 1);
    assert_eq!(search(&["--actor", "uid:1", "--act", "banned"]).len(), 0);
    assert_eq!(search(&["--limit", "2"]).len(), 2);
    let none = command(&auditor, &["search", log, "--act", "unbanned"]).output().unwrap();
    assert!(none.status.success() && String::from_utf8_lossy(&none.stderr).contains("entries fits"));
    assert_eq!(search(&["--to", "2020-01-01"]).len(), 0);
    assert_eq!(search(&["--from", "2020-01-01"]).len(), all.len());
    assert_eq!(found(&auditor, &["tail", log, "-n", "3"]), all[all.len() - 3..]);
    // Nothing that somebody wrote is a command to a terminal.
    let output = command(&auditor, &["search", log, "--act", "banned"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\\u{202e}=cmd"), "{text}");
    assert!(!text.contains('\u{202e}'), "{text}");
}
