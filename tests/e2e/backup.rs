//! An issuer that is backed up while it works, and restored: with all that it had, and a log that goes on or ends, and never forks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use signet_audit::Act;
use signet_tests::auditor::{Auditor, entries, joined, state_of, wait_until_published};
use signet_tests::clock::later;
use signet_tests::files::copy_all;
use signet_tests::wait::until;
use signet_tests::witness::{Answer, FakeWitness};
use signet_tests::{Issuer, S3, pages, program, secs};
use tempfile::TempDir;

/// An issuer, the key of its backups, and what was kept of its log by others.
struct Bench {
    folder: TempDir,
    issuer: Issuer,
    public: String,
}

impl Bench {
    fn new(more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let issuer = Issuer::start_with(folder.path(), "example.org", secs(3600), more);
        let secret = folder.path().join("backup.secret");
        let made = signet(&["backup", "keygen", "--out", secret.to_str().unwrap()]).unwrap();
        let public = made["public_key"].as_str().unwrap().to_owned();
        fs::copy(state_of(&issuer).join("audit/log.key.pub"), folder.path().join("log.key.pub")).unwrap();
        Self { folder, issuer, public }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Nothing comes by itself any more, and all is published.
    fn settle(&self) {
        // The first list is an entry.
        until("there is a list", secs(20), || {
            self.issuer.admin.sum("signet_issuer_crl_next_update_timestamp_seconds", &[]) > 0.0
        });
        wait_until_published(&self.issuer);
    }

    fn back_up(&self, name: &str) -> PathBuf {
        self.settle();
        let out = self.at(name);
        self.issuer.operate(&["backup", "--to", &self.public, "--out", out.to_str().unwrap()]);
        out
    }

    /// As `signet restore` sees it.
    fn restore(&self, backup: &Path, to: &Path, more: &[&str]) -> Result<Value, String> {
        let (secret, key) = (self.at("backup.secret"), self.at("log.key.pub"));
        let paths = [backup, Path::new("--secret-file"), &secret, Path::new("--key-file"), &key, Path::new("--to"), to];
        let words: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        signet(&[&["restore"], &words[..], more].concat())
    }

    /// The disk is gone, and the issuer is made anew from a backup.
    fn lose_and_restore(&mut self, backup: &Path, more: &[&str]) {
        let state = state_of(&self.issuer);
        self.issuer.process.kill();
        fs::remove_dir_all(&state).unwrap();
        let restored = self.restore(backup, &state, more).unwrap();
        assert_eq!((&restored["trust_domain"], &restored["records"]), (&"example.org".into(), &true.into()));
        assert!(!fs::exists(self.at("issuer.restoring")).unwrap());
    }

    fn is_exported(&self) {
        let size = wait_until_published(&self.issuer);
        let is_there = || self.issuer.admin.sum("signet_audit_exported_entries", &[]) >= size as f64;
        until("it is exported", secs(20), is_there);
    }

    fn start_again(&mut self) {
        self.issuer.process.start_again();
        self.issuer.wait_until_ready();
    }

    /// What it says as it ends.
    fn does_not_start(&mut self) -> String {
        self.issuer.process.start_again();
        assert_eq!(self.issuer.process.wait(secs(20)).code(), Some(1));
        self.issuer.process.log()
    }
}

fn signet(words: &[&str]) -> Result<Value, String> {
    let output = Command::new(program::ours("signet")).args(["-o", "json"]).args(words).output().unwrap();
    match output.status.code() {
        Some(0) => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        Some(1) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        status => panic!("{words:?}: {status:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
fn an_issuer_that_is_restored_goes_on_where_its_log_was_published_no_further() {
    let mut bench = Bench::new("");
    let auditor = Auditor::of(&bench.issuer);
    let mut before = joined(&bench.issuer);
    bench.issuer.operate(&["ban", "spiffe://example.org/gone", "--reason", "for good"]);
    wait_until_published(&bench.issuer);
    let backup = bench.back_up("one");
    // What opens the keys is not in it; the keys are, and nobody reads them.
    let bytes = fs::read(&backup).unwrap();
    assert!(!bytes.windows(11).any(|part| part == b"example.org"));
    let size = wait_until_published(&bench.issuer);
    let copy = auditor.copy(&bench.issuer, "copy");
    bench.lose_and_restore(&backup, &["--log", copy.to_str().unwrap()]);
    bench.start_again();
    before.renew().unwrap();
    let bans = bench.issuer.operate_json(&["get", "bans"]);
    assert!(bans.to_string().contains("spiffe://example.org/gone"), "{bans}");
    joined(&bench.issuer);
    assert!(wait_until_published(&bench.issuer) > size);
    // Whoever saw the log before finds it grown.
    let url = signet_tests::auditor::url_of(&bench.issuer);
    auditor.good(&["verify", copy.to_str().unwrap()]);
    let grown = auditor.good(&["verify", &url]);
    assert_eq!(grown["seen_before"].as_u64(), Some(size));
    auditor.both_find_good(&auditor.copy(&bench.issuer, "copy"));
}

#[test]
fn an_issuer_whose_log_was_published_further_serves_under_another_log_alone_which_names_the_old_one() {
    let mut bench = Bench::new("");
    let auditor = Auditor::of(&bench.issuer);
    let mut before = joined(&bench.issuer);
    let backup = bench.back_up("one");
    joined(&bench.issuer);
    wait_until_published(&bench.issuer);
    let copy = auditor.copy(&bench.issuer, "copy");
    let old = auditor.key();

    // Where nobody says what was published, and where somebody does.
    bench.lose_and_restore(&backup, &[]);
    let told = bench.does_not_start();
    assert!(told.contains("was restored from a backup") && told.contains("signet audit new-log"), "{told}");
    bench.lose_and_restore(&backup, &["--log", copy.to_str().unwrap()]);
    let told = bench.does_not_start();
    assert!(told.contains("the database is older than what was published"), "{told}");

    let state = state_of(&bench.issuer);
    let words = ["audit", "new-log", "--state", state.to_str().unwrap(), "--log", copy.to_str().unwrap()];
    let ended = signet(&words).unwrap();
    assert_eq!(ended["previous"]["size"].as_u64(), Some(entries(&copy).len() as u64));
    let kept = state.join("audit.1/log");
    signet(&["audit", "verify", kept.to_str().unwrap(), "--key", &old]).unwrap();
    bench.start_again();
    before.renew().unwrap();
    joined(&bench.issuer);
    wait_until_published(&bench.issuer);

    let auditor = Auditor::of(&bench.issuer);
    assert_ne!(auditor.key(), old);
    let new = auditor.copy(&bench.issuer, "new");
    auditor.both_find_good(&new);
    let Act::LogBegun { previous: Some(previous), .. } = &entries(&new)[0].act else {
        panic!("{:?}", entries(&new)[0])
    };
    assert_eq!(previous.origin, old.split('+').next().unwrap());
    let note = fs::read_to_string(copy.join("checkpoint")).unwrap();
    let of_the_copy: Vec<_> = note.lines().skip(1).take(2).collect();
    assert_eq!(of_the_copy, [previous.size.to_string(), previous.root.clone()]);
    // The old one is good as far as it went, and is no log of this key.
    let refused = signet(&["audit", "verify", copy.to_str().unwrap(), "--key", &auditor.key()]).unwrap_err();
    assert!(refused.contains("it is of the log"), "{refused}");
    // An issuer that runs has its log.
    let refused = signet(&words[..4]).unwrap_err();
    assert!(refused.contains("an issuer runs on"), "{refused}");
}

#[test]
fn an_issuer_that_is_restored_asks_the_bucket_what_was_published() {
    let folder = TempDir::new().unwrap();
    let mut s3 = S3::start(&folder.path().join("s3"), "logs");
    let mut bench = Bench::new(&format!("audit: {{ export: {{ {} }} }}\n", s3.target("s3://logs/audit")));
    joined(&bench.issuer);
    wait_until_published(&bench.issuer);
    let auditor = Auditor::of(&bench.issuer);
    let old = auditor.copy(&bench.issuer, "old");
    let backup = bench.back_up("one");
    bench.is_exported();
    bench.lose_and_restore(&backup, &[]);
    s3.go_away();
    let told = bench.does_not_start();
    assert!(told.contains("was restored from a backup"), "{told}");
    s3.come_back();
    bench.start_again();
    joined(&bench.issuer);
    bench.is_exported();
    // Now it is further.
    bench.lose_and_restore(&backup, &[]);
    let told = bench.does_not_start();
    assert!(told.contains("the database is older than what was published"), "{told}");

    // Also where somebody has named a copy that is older than the backup.
    bench.lose_and_restore(&backup, &["--log", old.to_str().unwrap()]);
    let restored = fs::read(state_of(&bench.issuer).join("audit/log/checkpoint")).unwrap();
    s3.go_away();
    let told = bench.does_not_start();
    assert!(told.contains("no checkpoint can be read where `audit.export` puts the audit log"), "{told}");
    s3.come_back();
    let told = bench.does_not_start();
    assert!(told.contains("the database is older than what was published"), "{told}");
    assert_eq!(fs::read(state_of(&bench.issuer).join("audit/log/checkpoint")).unwrap(), restored);
}

#[test]
fn the_digests_of_a_log_are_in_its_backup() {
    let mut bench = Bench::new("");
    bench.settle();
    bench.issuer.process.kill();
    let clock = later(bench.folder.path(), 3 * secs(3600));
    bench.issuer.process.start_again_with("LD_PRELOAD", clock.to_str().unwrap());
    bench.issuer.wait_until_ready();
    let state = state_of(&bench.issuer);
    until("there are digests", secs(20), || state.join("audit/log/digest/latest").exists());
    bench.settle();
    let backup = bench.back_up("one");
    bench.settle();
    let auditor = Auditor::of(&bench.issuer);
    let (old, copy) = (auditor.key(), auditor.copy(&bench.issuer, "copy"));
    let verify = |log: &Path| signet(&["audit", "digest", "verify", log.to_str().unwrap(), "--key", &old]);
    let count = verify(&copy).unwrap()["digests"].as_u64().unwrap();
    assert!(count >= 3, "{count}");
    let to = bench.at("elsewhere");
    bench.restore(&backup, &to, &["--log", copy.to_str().unwrap()]).unwrap();
    let restored = to.join("audit/log");
    assert_eq!(verify(&restored).unwrap()["digests"].as_u64(), Some(count));
    fs::remove_dir_all(restored.join("digest")).unwrap();
    let refused = verify(&restored).unwrap_err();
    assert!(refused.contains("there is no digest, and the log began at"), "{refused}");
}

#[test]
fn an_issuer_that_is_restored_asks_its_witnesses_what_they_have_seen() {
    let witnesses = ["w1", "w2", "w3"].map(|name| FakeWitness::start(&format!("{name}.example/fake"), Answer::Cosign));
    let shown = witnesses.each_ref().map(|witness| format!("{{ url: '{}', key: '{}' }}", witness.url(), witness.key));
    let mut bench = Bench::new(&format!("audit: {{ witnesses: [{}], quorum: 2 }}\n", shown.join(", ")));
    joined(&bench.issuer);
    let backup = bench.back_up("one");
    bench.settle();
    let auditor = Auditor::of(&bench.issuer);
    let copy = auditor.copy(&bench.issuer, "copy");
    let answers = |of: [Answer; 3]| {
        witnesses.iter().zip(of).for_each(|(witness, answer)| *witness.answer.lock().unwrap() = answer);
    };
    bench.lose_and_restore(&backup, &["--log", copy.to_str().unwrap()]);
    answers([Answer::Cosign, Answer::Status(503, ""), Answer::Status(404, "")]);
    let told = bench.does_not_start();
    assert!(told.contains("1 of 3 witnesses of the audit log say what they have seen"), "{told}");
    answers([Answer::Cosign, Answer::Status(503, ""), Answer::Status(409, "99999\n")]);
    let told = bench.does_not_start();
    assert!(told.contains("99999 that were published: the database is older"), "{told}");
    let size = entries(&copy).len().to_string();
    answers([Answer::Status(409, size.leak()), Answer::Status(503, ""), Answer::Cosign]);
    let told = bench.does_not_start();
    assert!(told.contains("the witness w1.example/fake has seen another audit log"), "{told}");
    answers([Answer::Cosign, Answer::Status(503, ""), Answer::Status(409, "1\n")]);
    bench.start_again();
    wait_until_published(&bench.issuer);
    // Once it runs, nobody else stops it.
    answers([Answer::Status(409, "99999\n"), Answer::Status(409, "99999\n"), Answer::Status(409, "99999\n")]);
    joined(&bench.issuer);
    wait_until_published(&bench.issuer);
}

/// As a disk that is set back to what it was, which nobody has told the issuer.
#[test]
fn an_issuer_that_was_set_back_signs_no_checkpoint_once_it_has_seen_the_exported_one() {
    let folder = TempDir::new().unwrap();
    let mut s3 = S3::start(&folder.path().join("s3"), "logs");
    let mut bench = Bench::new(&format!("audit: {{ export: {{ {} }} }}\n", s3.target("s3://logs/audit")));
    let (state, before) = (state_of(&bench.issuer), bench.at("before"));
    bench.is_exported();
    bench.issuer.process.kill();
    copy_as_is(&state, &before);
    bench.start_again();
    (0..4).for_each(|_| drop(joined(&bench.issuer)));
    bench.is_exported();
    bench.issuer.process.kill();
    fs::remove_dir_all(&state).unwrap();
    copy_as_is(&before, &state);
    s3.go_away();
    bench.start_again();
    joined(&bench.issuer);
    s3.come_back();
    let metric = |name: &str| bench.issuer.admin.sum(name, &[]);
    until("it is seen", secs(60), || metric("signet_audit_halted") == 1.0);
    let failures = metric("signet_audit_publish_failures_total");
    until("it is not published", secs(10), || metric("signet_audit_publish_failures_total") > failures + 1.0);
    let checkpoint = fs::read(state.join("audit/log/checkpoint")).unwrap();
    let failures = metric("signet_audit_publish_failures_total");
    until("it is not published", secs(10), || metric("signet_audit_publish_failures_total") > failures + 3.0);
    assert_eq!(fs::read(state.join("audit/log/checkpoint")).unwrap(), checkpoint);
    assert!(!bench.issuer.admin.is_ready());
    let told = bench.issuer.process.log();
    assert!(told.contains("no checkpoint is signed any more"), "{told}");
    bench.issuer.process.kill();
    let told = bench.does_not_start();
    assert!(told.contains("the database is older than what was published"), "{told}");
}

fn copy_as_is(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn a_log_does_not_end_while_entries_wait_unless_somebody_accepts_that_no_log_has_them() {
    let mut bench = Bench::new("");
    let state = state_of(&bench.issuer);
    let (blocked, records) = (state.join("audit/log/checkpoint.new"), state.join("issuer.db"));
    let entries_wait = |bench: &mut Bench| {
        wait_until_published(&bench.issuer);
        fs::create_dir(&blocked).unwrap();
        (0..3).for_each(|_| drop(bench.issuer.operate(&["token", "create", "spiffe://example.org/waits"])));
        bench.issuer.process.kill();
        fs::remove_dir(&blocked).unwrap();
    };
    let words = ["audit", "new-log", "--state", state.to_str().unwrap()];

    entries_wait(&mut bench);
    let refused = signet(&words).unwrap_err();
    assert!(refused.contains("entries on record were not published"), "{refused}");
    assert!(!state.join("audit.1").exists());
    bench.start_again();
    let all = wait_until_published(&bench.issuer);
    entries_wait(&mut bench);
    // As where they are in a database elsewhere, which this command does not look into: the issuer does.
    fs::rename(&records, bench.at("records")).unwrap();
    let ended = signet(&words).unwrap();
    assert!(ended["previous"]["size"].as_u64().unwrap() >= all && ended["left"] == 0, "{ended}");
    fs::rename(bench.at("records"), &records).unwrap();
    let told = bench.does_not_start();
    assert!(told.contains("that ended wait in the database, and are in no log"), "{told}");
    signet(&[&words[..], &["--leave-unpublished"]].concat()).unwrap();
    bench.start_again();
    let auditor = Auditor::of(&bench.issuer);
    wait_until_published(&bench.issuer);
    auditor.good(&["verify", auditor.copy(&bench.issuer, "new").to_str().unwrap()]);

    entries_wait(&mut bench);
    let ended = signet(&[&words[..], &["--leave-unpublished"]].concat()).unwrap();
    assert!(ended["left"].as_u64() >= Some(3), "{ended}");
    bench.start_again();
}

/// As by a power cut between any two of its steps.
#[test]
fn what_a_new_log_that_was_broken_off_has_left_is_finished_and_never_comes_back() {
    let mut bench = Bench::new("");
    let state = state_of(&bench.issuer);
    let (folder, next, kept) = (state.join("audit"), state.join("audit.new"), state.join("audit.1"));
    bench.settle();
    let old = Auditor::of(&bench.issuer).key();
    bench.issuer.process.kill();
    let words = ["audit", "new-log", "--state", state.to_str().unwrap()];
    // Before the two folders change places.
    fs::create_dir(&next).unwrap();
    fs::write(next.join("previous.json"), "{}").unwrap();
    let ended = signet(&words).unwrap();
    assert!(!next.exists() && kept.join("log.json").exists());
    // Behind that.
    fs::rename(&kept, &next).unwrap();
    let again = signet(&words).unwrap();
    assert_eq!((&again["previous"], &again["kept"]), (&ended["previous"], &ended["kept"]));
    assert!(!next.exists() && kept.join("log.json").exists() && !folder.join("log.json").exists());
    // The same, and the issuer was started meanwhile.
    fs::rename(&kept, &next).unwrap();
    bench.start_again();
    bench.settle();
    let new = Auditor::of(&bench.issuer).key();
    bench.issuer.process.kill();
    let ended = signet(&words).unwrap();
    assert_eq!(ended["previous"]["origin"].as_str(), new.split('+').next());
    let key_in = |folder: &str| fs::read_to_string(state.join(folder).join("log.key.pub")).unwrap().trim().to_owned();
    assert_eq!([key_in("audit.1"), key_in("audit.2")], [old, new]);
    // What this command has not put there stays.
    fs::create_dir(&next).unwrap();
    fs::write(next.join("mine"), "").unwrap();
    bench.start_again();
    bench.settle();
    bench.issuer.process.kill();
    let refused = signet(&words).unwrap_err();
    assert!(refused.contains("audit.new"), "{refused}");
}

/// In the page's order, on the issuer's host and where it is restored.
#[test]
fn each_command_of_the_page_works() {
    let mut bench = Bench::new("");
    joined(&bench.issuer);
    wait_until_published(&bench.issuer);
    let here = bench.folder.path();
    let socket = here.join("issuer-admin.sock");
    fs::remove_file(here.join("backup.secret")).unwrap();
    bench.settle();
    let [keygen, backup, restore, new_log] = &pages::typed("backup.md")[..] else {
        panic!("the page has other commands")
    };
    let run = |line: &str| pages::run(line, bench.folder.path(), &[("SIGNET_ISSUER", &socket)]);
    let made = run(keygen);
    let public = made.split_whitespace().find(|word| word.starts_with("signet-backup-v1+")).unwrap();
    run(&backup.replace("signet-backup-v1+5f0c1d2e+mBq…", public));
    wait_until_published(&bench.issuer);
    bench.issuer.process.kill();
    copy_all(&state_of(&bench.issuer).join("audit/log"), &here.join("copy"));
    run(restore);
    assert!(run(new_log).contains("entries"));
}

#[test]
fn a_backup_that_is_made_while_much_is_issued_is_as_all_was_at_one_moment() {
    let mut bench = Bench::new("");
    let issuing = std::sync::atomic::AtomicBool::new(true);
    let backup = std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut workload = joined(&bench.issuer);
            let issuing = &issuing;
            scope.spawn(move || {
                while issuing.load(std::sync::atomic::Ordering::Relaxed) {
                    // One that renews too often is told so.
                    let _ = workload.renew();
                }
            });
        }
        until("there is something", secs(20), || bench.issuer.records()[0] > 20);
        let backups: Vec<_> = (0..3).map(|number| bench.back_up(&format!("{number}"))).collect();
        issuing.store(false, std::sync::atomic::Ordering::Relaxed);
        backups.into_iter().next_back().unwrap()
    });
    wait_until_published(&bench.issuer);
    let old = Auditor::of(&bench.issuer).key();
    bench.issuer.process.kill();
    let published = bench.at("published");
    copy_all(&state_of(&bench.issuer).join("audit/log"), &published);
    bench.lose_and_restore(&backup, &[]);
    let state = state_of(&bench.issuer);
    signet(&["audit", "new-log", "--state", state.to_str().unwrap(), "--log", published.to_str().unwrap()]).unwrap();
    // What was restored of the old log is whole as far as it goes.
    let restored = state.join("audit.1/log");
    signet(&["audit", "verify", restored.to_str().unwrap(), "--key", &old]).unwrap();
    bench.start_again();
    // Each certificate that is on record has its place in the log.
    let check = "SELECT count(*) FROM issued WHERE log IS NULL OR log_index >= (SELECT size FROM audit_logs WHERE number = log)";
    assert_eq!(bench.issuer.query(check), ["0"]);
    assert_eq!(bench.issuer.query("PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn a_backup_that_was_changed_or_is_anothers_is_refused_and_leaves_nothing() {
    let (bench, other) = (Bench::new(""), Bench::new(""));
    // As where it lies there.
    let opens_the_keys = state_of(&bench.issuer).join("passphrase");
    fs::hard_link(bench.at("passphrase"), &opens_the_keys).unwrap();
    let backup = bench.back_up("one");
    let to = bench.at("elsewhere");
    let good = fs::read(&backup).unwrap();
    let tampered = bench.at("tampered");
    let refused = |bytes: &[u8], told: &str| {
        fs::write(&tampered, bytes).unwrap();
        let error = bench.restore(&tampered, &to, &[]).unwrap_err();
        assert!(error.contains(told), "{told:?} is not in {error}");
        assert!(!to.exists() && !bench.at("elsewhere.restoring").exists());
    };
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    refused(&flipped, "it was changed, or is not whole");
    refused(&good[..good.len() / 2], "it was changed, or is not whole");
    refused(b"", "it is no backup");
    refused(&fs::read(other.back_up("one")).unwrap(), "it is encrypted to another key");
    // By somebody who knows the public key.
    let forged = other.at("forged");
    other.issuer.operate(&["backup", "--to", &bench.public, "--out", forged.to_str().unwrap()]);
    refused(&fs::read(&forged).unwrap(), "is not signed by the log");

    bench.restore(&backup, &to, &[]).unwrap();
    let again = bench.restore(&backup, &to, &[]).unwrap_err();
    assert!(again.contains("is not empty"), "{again}");
    assert!(!to.join("passphrase").exists() && opens_the_keys.exists());
    for file in ["issuer.db", "audit/log.json"] {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(to.join(file)).unwrap().permissions().mode() & 0o077, 0, "{file}");
    }
    let secret = fs::read_to_string(bench.at("backup.secret")).unwrap();
    let taken = signet(&["backup", "--to", secret.trim(), "--out", "x"]);
    assert!(taken.is_err_and(|error| error.contains("it is a private key")));
}
