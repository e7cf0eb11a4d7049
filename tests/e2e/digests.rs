//! Digests of an audit log: one for each hour, also of those in which nobody was there, wherever the log is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use signet_audit::SignedCheckpoint;
use signet_tests::auditor::{Auditor, joined, state_of, url_of, wait_until_published};
use signet_tests::clock::{later, later_while};
use signet_tests::files::copy_all;
use signet_tests::wait::until;
use signet_tests::{Curl, Issuer, secs};
use tempfile::TempDir;
use time::OffsetDateTime;

const HOURS: u32 = 5;

/// The digests in a folder, the first one first.
fn digests(log: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![log.join("digest")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.ends_with("latest") => {}
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn each_hour_has_its_digest_also_those_in_which_the_issuer_was_away() {
    let folder = TempDir::new().unwrap();
    let exported = folder.path().join("exported");
    let export = format!("audit: {{ export: {{ url: 'file://{}' }} }}\n", exported.display());
    let mut issuer = Issuer::start_with(folder.path(), "example.org", secs(3600), &export);
    let auditor = Auditor::of(&issuer);
    joined(&issuer);
    wait_until_published(&issuer);
    let verify = |log: &str| auditor.good(&["digest", "verify", log]);
    assert_eq!(verify(&url_of(&issuer))["digests"], 0);
    issuer.process.kill();
    let clock = later(folder.path(), HOURS * secs(3600));
    issuer.process.start_again_with("LD_PRELOAD", clock.to_str().unwrap());
    issuer.wait_until_ready();
    issuer.join_token("spiffe://example.org/later");
    wait_until_published(&issuer);

    let own = state_of(&issuer).join("audit/log");
    until("they are exported", secs(20), || digests(&own).len() == digests(&exported).len());
    let count = digests(&own).len() as u64;
    // One more where the test began just before the hour.
    assert!((u64::from(HOURS)..=u64::from(HOURS) + 1).contains(&count), "{count}");
    let copy = auditor.copy(&issuer, "copy");
    for log in [url_of(&issuer), exported.display().to_string(), copy.display().to_string()] {
        let found = verify(&log);
        assert_eq!(found["digests"], count, "{log}");
        // All that was logged before is in the first.
        assert_eq!(found["empty"], count - 1, "{log}");
    }
    let last = verify(&url_of(&issuer))["to"].as_str().unwrap().to_owned();
    let text = Curl::get(format!("{}/digest/latest", url_of(&issuer))).run().expect_status(200).text();
    assert!(text.starts_with("signet/audit-digest/v1\n") && text.contains(&format!("\nto {last}\n")), "{text}");

    // A copy is gone on with.
    issuer.process.kill();
    let folder = folder.path().join("later");
    fs::create_dir(&folder).unwrap();
    let clock = later(&folder, 2 * HOURS * secs(3600));
    issuer.process.start_again_with("LD_PRELOAD", clock.to_str().unwrap());
    issuer.wait_until_ready();
    wait_until_published(&issuer);
    until("they are exported", secs(20), || digests(&exported).len() as u64 == count + u64::from(HOURS));
    auditor.copy(&issuer, "copy");
    for log in [&exported, &copy] {
        let found = verify(log.to_str().unwrap());
        assert_eq!(found["digests"], count + u64::from(HOURS), "{}", log.display());
    }
    refuses_what_was_done_to(&auditor, &copy);
}

/// What is signed of an hour stays signed.
#[test]
fn a_clock_that_is_ahead_for_seconds_ends_no_hour() {
    let folder = TempDir::new().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let auditor = Auditor::of(&issuer);
    issuer.process.kill();
    let flag = folder.path().join("ahead");
    let clock = later_while(folder.path(), 11 * secs(3600), &flag);
    issuer.process.start_again_with("LD_PRELOAD", clock.to_str().unwrap());
    issuer.wait_until_ready();
    joined(&issuer);
    wait_until_published(&issuer);
    let signed_at = || {
        let path = state_of(&issuer).join("audit/log/checkpoint");
        let key = auditor.key().parse().unwrap();
        let signed = SignedCheckpoint::open(&fs::read(path).unwrap(), &key).unwrap();
        i128::from(signed.time) - i128::from(OffsetDateTime::now_utc().unix_timestamp())
    };
    fs::write(&flag, "").unwrap();
    until("the clock is ahead", secs(20), || signed_at() > 10 * 3600);
    issuer.join_token("spiffe://example.org/later");
    wait_until_published(&issuer);
    fs::remove_file(&flag).unwrap();
    until("it is right again", secs(20), || signed_at() < 3600);
    let found = auditor.good(&["digest", "verify", &url_of(&issuer)]);
    // One where the test began just before the hour.
    assert!(found["digests"].as_u64().unwrap() <= 1, "{found}");
}

fn refuses_what_was_done_to(auditor: &Auditor, log: &Path) {
    let tampered = |name: &str, change: &dyn Fn(&Path, &[PathBuf]), told: &str| {
        let folder = auditor.at(name);
        copy_all(log, &folder);
        change(&folder, &digests(&folder));
        let refused = auditor.refused(&["digest", "verify", folder.to_str().unwrap()]);
        assert!(refused.contains(told), "{name}: {told:?} is not in {refused}");
    };
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let place = bytes.len() / 2;
        bytes[place] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    tampered("flipped", &|_, found| flip(&found[2]), "was replaced");
    tampered("removed", &|_, found| fs::remove_file(&found[2]).unwrap(), "is missing");
    let swap = |_: &Path, found: &[PathBuf]| {
        fs::copy(&found[1], &found[2]).unwrap();
    };
    tampered("swapped", &swap, "was replaced");
    tampered("latest", &|folder, _| flip(&folder.join("digest/latest")), "is not to be believed");
    let keep_back = |folder: &Path, found: &[PathBuf]| {
        fs::copy(&found[3], folder.join("digest/latest")).unwrap();
    };
    tampered("kept-back", &keep_back, "are missing");
    let other = "example.org/audit/other+dd5c3c2f+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let path = log.to_str().unwrap();
    let output = std::process::Command::new(signet_tests::program::ours("signet"))
        .args(["audit", "digest", "verify", path, "--key", other])
        .output()
        .unwrap();
    assert!(!output.status.success());
}
