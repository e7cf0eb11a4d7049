//! The audit log in a folder and in a bucket: whoever reads it there finds what the issuer has, and nothing there is ever replaced.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use signet_tests::auditor::{Auditor, entries, joined, keep_state, on_record, set_back, wait_until_published};
use signet_tests::wait::{throughout, until};
use signet_tests::{Issuer, S3, secs};
use tempfile::TempDir;

/// An issuer that exports its log to `url`, which is the folder `at` on this machine.
fn start(folder: &Path, target: &str) -> Issuer {
    let more = format!("audit: {{ export: {{ {target} }} }}\n");
    Issuer::start_with(folder, "example.org", secs(3600), &more)
}

fn size_at(log: &Path) -> u64 {
    let note = fs::read_to_string(log.join("checkpoint")).unwrap_or_default();
    note.lines().nth(1).map_or(0, |size| size.parse().unwrap())
}

/// All that is on record by now.
fn wait_until_exported(issuer: &Issuer, log: &Path) -> u64 {
    let size = on_record(issuer);
    until("what is on record is exported", secs(20), || size_at(log) >= size);
    size
}

fn failures(issuer: &Issuer) -> f64 {
    issuer.admin.sum("signet_audit_export_failures_total", &[])
}

#[test]
fn a_bucket_has_what_the_issuer_has_and_catches_up_after_it_was_away() {
    let folder = TempDir::new().unwrap();
    let mut s3 = S3::start(&folder.path().join("s3"), "logs");
    let issuer = start(folder.path(), &s3.target("s3://logs/audit/eu-1"));
    let log = folder.path().join("s3/logs/audit/eu-1");
    let auditor = Auditor::of(&issuer);
    joined(&issuer);
    let before = wait_until_exported(&issuer, &log);
    auditor.both_find_good(&log);

    s3.go_away();
    // Beyond a whole tile, so that parts are left behind.
    while on_record(&issuer) < before + 300 {
        for _ in 0..20 {
            issuer.join_token("spiffe://example.org/shop/orders");
        }
    }
    joined(&issuer);
    let size = wait_until_published(&issuer);
    until("that is told", secs(20), || failures(&issuer) > 0.0);
    assert!(issuer.process.log().contains("the audit log is not exported"));
    assert!(size_at(&log) <= before + 2, "{} of {size}", size_at(&log));

    s3.come_back();
    until("it catches up", secs(90), || size_at(&log) >= size);
    let found = auditor.both_find_good(&log);
    assert!(found["size"].as_u64().unwrap() >= size);
    let at = issuer.admin.sum("signet_audit_exported_checkpoint_timestamp_seconds", &[]);
    assert!(at > 1.7e9, "{at}");
    assert!(!issuer.process.log().contains(S3::SECRET));
}

#[test]
fn a_restored_issuer_does_not_start_where_its_exported_log_is_ahead_of_it() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("exported");
    let mut issuer = start(folder.path(), &format!("url: 'file://{}'", log.display()));
    joined(&issuer);
    wait_until_exported(&issuer, &log);
    let kept = folder.path().join("kept");
    keep_state(&mut issuer, &kept);
    joined(&issuer);
    let exported = wait_until_exported(&issuer, &log);
    set_back(&mut issuer, &kept);
    issuer.process.start_again();
    assert_eq!(issuer.process.wait(secs(20)).code(), Some(1));
    let told = issuer.process.log();
    assert!(
        told.contains("the database is older than what was published") && told.contains(&exported.to_string()),
        "{told}"
    );
    assert_eq!(size_at(&log), exported);
}

/// An issuer that was set back while the bucket with its log was away.
struct Behind {
    issuer: Issuer,
    s3: S3,
    /// The bucket's.
    log: PathBuf,
    exported: u64,
    note: Vec<u8>,
    _folder: TempDir,
}

impl Behind {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut s3 = S3::start(&folder.path().join("s3"), "logs");
        let mut issuer = start(folder.path(), &s3.target("s3://logs/audit"));
        let log = folder.path().join("s3/logs/audit");
        joined(&issuer);
        wait_until_exported(&issuer, &log);
        let kept = folder.path().join("kept");
        keep_state(&mut issuer, &kept);
        for _ in 0..10 {
            joined(&issuer);
        }
        let exported = wait_until_exported(&issuer, &log);
        set_back(&mut issuer, &kept);
        let note = fs::read(log.join("checkpoint")).unwrap();
        // Nobody can tell at the start.
        s3.go_away();
        issuer.process.start_again();
        issuer.wait_until_ready();
        issuer.process.wait_for_line_within("the exported copy of the audit log was not looked at", secs(20));
        Self { issuer, s3, log, exported, note, _folder: folder }
    }
}

#[test]
fn a_log_that_falls_behind_its_copy_while_that_was_away_leaves_the_copy_as_it_is() {
    let Behind { mut issuer, mut s3, log, exported, note, _folder } = Behind::new();
    s3.come_back();
    let told = issuer.process.wait_for_line_within("the log went back", secs(60));
    assert!(told.contains(&exported.to_string()), "{told}");
    // As long as it is behind, and for ever once it has gone another way: that is seen by nobody.
    until("it signs no more", secs(20), || issuer.admin.sum("signet_audit_halted", &[]) == 1.0);
    for _ in 0..15 {
        joined(&issuer);
    }
    throughout("the copy stays", secs(3), || fs::read(log.join("checkpoint")).unwrap() == note);
    assert_eq!(fs::read(log.join("checkpoint")).unwrap(), note);
    assert_eq!(entries(&log).len() as u64, exported);
}

#[test]
fn a_log_that_went_another_way_while_its_copy_was_away_ends_and_leaves_the_copy_as_it_is() {
    let Behind { mut issuer, mut s3, log, exported, note, _folder } = Behind::new();
    for _ in 0..15 {
        joined(&issuer);
    }
    wait_until_published(&issuer);
    s3.come_back();
    issuer.process.wait_for_line_within("the copy is not the beginning of this log", secs(90));
    issuer.process.wait_for_line_within("no checkpoint is signed any more", secs(20));
    assert_eq!(fs::read(log.join("checkpoint")).unwrap(), note);
    assert_eq!(entries(&log).len() as u64, exported);
    issuer.process.kill();
    issuer.process.start_again();
    assert_eq!(issuer.process.wait(secs(20)).code(), Some(1));
    let told = issuer.process.log();
    assert!(told.contains("where `audit.export` puts the audit log is another history"), "{told}");
}

#[test]
fn the_place_of_another_log_is_never_written_to() {
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let log: PathBuf = folder.path().join("exported");
    let target = format!("url: 'file://{}'", log.display());
    let first = start(folder.path(), &target);
    joined(&first);
    wait_until_exported(&first, &log);
    let auditor = Auditor::of(&first);
    let mut second = start(other.path(), &target);
    joined(&second);
    second.process.wait_for_line_within("the checkpoint that is there is not this log's", secs(20));
    assert!(failures(&second) > 0.0);
    joined(&first);
    wait_until_exported(&first, &log);
    auditor.both_find_good(&log);
    assert_eq!(failures(&first), 0.0);
}
