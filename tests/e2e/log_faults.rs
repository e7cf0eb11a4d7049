//! Faults of disks and of people, and what becomes of the audit log and of its copies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use signet_tests::auditor::{Auditor, joined, published, state_of, wait_until_published};
use signet_tests::files::copy_all;
use signet_tests::wait::{throughout, until};
use signet_tests::{GrowingLog, Issuer, secs};
use tempfile::TempDir;

#[test]
fn an_issuer_whose_database_is_older_than_its_published_log_does_not_start() {
    let folder = TempDir::new().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    joined(&issuer);
    wait_until_published(&issuer);
    issuer.process.kill();
    let kept = folder.path().join("kept");
    copy_all(&state_of(&issuer), &kept);
    issuer.process.start_again();
    issuer.wait_until_ready();
    joined(&issuer);
    let published = wait_until_published(&issuer);
    issuer.process.kill();
    for name in ["issuer.db", "issuer.db-wal", "issuer.db-shm"] {
        let _ = fs::remove_file(state_of(&issuer).join(name));
        let _ = fs::copy(kept.join(name), state_of(&issuer).join(name));
    }
    issuer.process.start_again();
    let status = issuer.process.wait(secs(20));
    assert_eq!(status.code(), Some(1));
    let log = issuer.process.log();
    assert!(
        log.contains("the database is older than what was published") && log.contains(&published.to_string()),
        "{log}"
    );
}

#[test]
fn what_cannot_be_published_is_published_later_and_issuing_goes_on() {
    let folder = TempDir::new().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let auditor = Auditor::of(&issuer);
    joined(&issuer);
    wait_until_published(&issuer);
    // As on a disk that is full: nothing can be put there.
    let (tiles, aside) = (state_of(&issuer).join("audit/log/tile"), folder.path().join("aside"));
    fs::rename(&tiles, &aside).unwrap();
    fs::write(&tiles, "").unwrap();
    joined(&issuer);
    let failures = |issuer: &Issuer| issuer.admin.sum("signet_audit_publish_failures_total", &[]);
    until("that is told", secs(10), || failures(&issuer) > 0.0);
    let before = published(&issuer);
    (0..3).for_each(|_| drop(joined(&issuer)));
    throughout("nothing more is", secs(2), || published(&issuer) == before);
    assert!(issuer.process.log().contains("the audit log is not published"));
    fs::remove_file(&tiles).unwrap();
    fs::rename(&aside, &tiles).unwrap();
    assert!(wait_until_published(&issuer) > before);
    auditor.both_find_good(&auditor.copy(&issuer, "copy"));
    // Synced, it is forgotten by the database.
    until("nothing waits", secs(20), || issuer.query("SELECT count(*) FROM audit_entries") == ["0"]);
    issuer.process.kill();
    issuer.process.start_again();
    issuer.wait_until_ready();
    joined(&issuer);
    wait_until_published(&issuer);
    auditor.both_find_good(&auditor.copy(&issuer, "copy"));
}

#[test]
fn a_checkpoint_that_a_power_cut_has_emptied_is_signed_anew() {
    let folder = TempDir::new().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let auditor = Auditor::of(&issuer);
    joined(&issuer);
    wait_until_published(&issuer);
    for lost in [Vec::new(), vec![0; 300]] {
        issuer.process.kill();
        fs::write(state_of(&issuer).join("audit/log/checkpoint"), &lost).unwrap();
        issuer.process.start_again();
        issuer.wait_until_ready();
        joined(&issuer);
        wait_until_published(&issuer);
    }
    auditor.both_find_good(&auditor.copy(&issuer, "copy"));
    assert!(issuer.process.log().contains("was lost, by a power cut perhaps"));
}

#[test]
fn what_an_auditor_has_copied_is_never_replaced_by_what_is_not_the_log() {
    let folder = TempDir::new().unwrap();
    let mut log = GrowingLog::new(folder.path());
    let auditor = Auditor::with(folder.path().join("log.key.pub"));
    let entry = |index| format!(r#"{{"v":1,"time":"2026-11-28T09:30:00Z","act":"started","software":"{index}"}}"#);
    let copy = folder.path().join("copy");
    let export = ["export", log.path().to_str().unwrap(), "--to", copy.to_str().unwrap()].map(str::to_owned);
    let export: Vec<_> = export.iter().map(String::as_str).collect();
    log.grow(&(0..302).map(entry).collect::<Vec<_>>());
    auditor.signet(&export);
    let before = auditor.both_find_good(&copy);

    // Rightly signed, and not what was signed: a mirror could do that, without any key.
    log.grow(&(302..526).map(entry).collect::<Vec<_>>());
    let bundle = log.path().join("tile/entries/001");
    let good = fs::read(&bundle).unwrap();
    for bad in [vec![b'x'; good.len()], Vec::new(), good.iter().rev().copied().collect()] {
        fs::write(&bundle, bad).unwrap();
        let (is_done, told) = auditor.signet(&export);
        assert!(!is_done && told.contains("stays as it was"), "{told}");
        assert_eq!(auditor.both_find_good(&copy), before);
        assert!(copy.join("tile/entries/001.p/46").exists() && !copy.join(".incoming").exists());
    }
    fs::write(&bundle, good).unwrap();
    let (is_done, told) = auditor.signet(&export);
    assert!(is_done, "{told}");
    assert_ne!(auditor.both_find_good(&copy), before);
}
