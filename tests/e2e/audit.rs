//! The audit log of a running issuer, verified by `signet audit` and by a program in Python that was written from the specifications; and
//! what both say to whoever has tampered with it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signet_audit::{Act, Bundle, Checkpoint, Edge, Entry, Folder, Resource, VerifierKey, sign};
use signet_tests::auditor::{Auditor, ID, entries, joined, published, state_of, url_of, wait_until_published};
use signet_tests::files::copy_all;
use signet_tests::wait::until;
use signet_tests::witness::{Answer, FakeWitness};
use signet_tests::{Curl, GatewayPlan, Issuer, Signal, SoftHsm, Workload, millis, pages, secs};
use tempfile::TempDir;

#[test]
fn what_an_issuer_does_is_in_its_log_and_two_implementations_agree_on_it() {
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let auditor = Auditor::of(&issuer);
    let mut workload = joined(&issuer);
    workload.renew().unwrap();
    let serial = workload.svid().serial();
    issuer.apply(&format!("rules: [{{ name: shop, match: {{ oidc.provider: ci }}, spiffe_id: {ID} }}]"));
    issuer.operate(&["revoke", "serial", &serial, "--reason", "key-compromise", "--comment", "stolen", "--yes"]);
    workload.renew().unwrap_err();
    issuer.operate(&["ban", ID, "--reason", "for good"]);
    // A list that is served has its entry on record.
    let authority = &issuer.query("SELECT DISTINCT lower(hex(authority_key_id)) FROM issued")[0];
    let list = format!("http://{}/crl/{authority}/0.crl", issuer.web);
    until("a list", secs(10), || Curl::get(&list).run().status == 200);
    wait_until_published(&issuer);

    let copy = auditor.copy(&issuer, "copy");
    let found = auditor.both_find_good(&copy);
    let acts = |act: &str| found["acts"][act].as_u64().unwrap_or(0);
    assert_eq!((acts("log_begun"), acts("started"), acts("join_token_made")), (1, 1, 1), "{found}");
    assert_eq!(
        (acts("policy_revised"), acts("revoked"), acts("revoked_serials"), acts("banned")),
        (1, 1, 1, 1),
        "{found}"
    );
    assert_eq!(acts("?"), 0);
    // The issuer's own, the first, and its successor.
    assert_eq!(acts("x509_issued"), 3, "{found}");
    // Four calls that change something; those that only look are none.
    assert_eq!(acts("administered"), 4, "{found}");
    assert!(acts("crl_signed") >= 1, "{found}");
    // Its key is made, and its certificate taken.
    assert_eq!(acts("authority_changed"), 2, "{found}");
    let entries = entries(&copy);
    let at = |is_it: fn(&Act) -> bool| entries.iter().position(|entry| is_it(&entry.act)).unwrap();
    let is_active = |act: &Act| matches!(act, Act::AuthorityChanged { stage, .. } if stage == "active");
    assert!(at(is_active) < at(|act| matches!(act, Act::X509Issued(_))));
    let is_revoking = |act: &Act| matches!(act, Act::Administered { action, .. } if action == "Revoke");
    assert!(at(is_revoking) < at(|act| matches!(act, Act::Revoked(_))));

    // A proof by the serial number, from the web address, is believed by both.
    let proof = auditor.at("one.tlog-proof");
    let proved = ["prove", &serial, "--log", &url_of(&issuer), "--out", proof.to_str().unwrap()];
    assert!(auditor.signet(&proved).0);
    let socket = folder.path().join("issuer-admin.sock");
    let quick = auditor.at("quick.tlog-proof");
    let asked = ["--out", quick.to_str().unwrap(), "--issuer", socket.to_str().unwrap()];
    assert!(auditor.signet(&[&proved[..4], &asked].concat()).0);
    let index = |path: &Path| fs::read_to_string(path).unwrap().lines().nth(2).unwrap().to_owned();
    assert_eq!(index(&quick), index(&proof));
    let pem = auditor.at("svid.pem");
    fs::write(&pem, workload.svid().chain_pem()).unwrap();
    let ours = auditor.good(&["verify-proof", proof.to_str().unwrap(), "--certificate", pem.to_str().unwrap()]);
    let theirs = auditor.python("proof", &proof).unwrap();
    assert_eq!(ours["entry"], theirs["entry"]);
    let entry = &ours["entry"];
    assert_eq!(
        (&entry["act"], &entry["serial"], &entry["spiffe_id"]),
        (&"x509_issued".into(), &serial.into(), &ID.into())
    );
    let indexes = issuer.query(&format!(
        "SELECT log_index FROM issued WHERE hex(serial) = upper('{}')",
        entry["serial"].as_str().unwrap()
    ));
    assert_eq!(indexes, [ours["index"].to_string()]);

    // That of another certificate proves nothing about this one.
    let other = auditor.at("other.tlog-proof");
    assert!(
        auditor.signet(&["prove", "--index", "0", "--log", copy.to_str().unwrap(), "--out", other.to_str().unwrap()]).0
    );
    let refused = auditor.refused(&["verify-proof", other.to_str().unwrap(), "--certificate", pem.to_str().unwrap()]);
    assert!(refused.contains("is not the issuing of"), "{refused}");
    let nobody = auditor.refused(&["prove", "00ff", "--log", copy.to_str().unwrap()]);
    assert!(nobody.contains("no certificate 00ff was issued"), "{nobody}");
}

#[test]
fn who_is_refused_is_in_the_log_and_strangers_do_not_fill_it() {
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let auditor = Auditor::of(&issuer);
    let before = wait_until_published(&issuer);
    for _ in 0..200 {
        Workload::of(issuer.address).attest("a token that nobody made").unwrap_err();
    }
    let told = |entry: &Entry| match &entry.act {
        Act::Refused { what, whom, left_out, .. } => {
            assert_eq!((what.as_str(), whom.as_str().starts_with("127.")), ("attestation join_token", true));
            1 + left_out
        }
        _ => 0,
    };
    let copy = auditor.at("copy");
    until("those are told of", secs(20), || {
        // What is left out is counted by the next that is written down.
        let _ = Workload::of(issuer.address).attest("a token that nobody made");
        wait_until_published(&issuer);
        auditor.copy(&issuer, "copy");
        entries(&copy).iter().map(told).sum::<u64>() >= 200
    });
    assert!(published(&issuer) - before < 200, "{} entries", published(&issuer) - before);
    auditor.both_find_good(&copy);

    // Somebody who is known, and has lost what it had.
    let mut workload = joined(&issuer);
    issuer.operate(&["ban", ID, "--reason", "gone"]);
    workload.renew().unwrap_err();
    until("it is in the log who was refused", secs(10), || {
        wait_until_published(&issuer);
        auditor.copy(&issuer, "copy");
        let is_it =
            |act: &Act| matches!(act, Act::Refused { what, whom, .. } if what == "renewal" && whom.as_str() == ID);
        entries(&copy).iter().any(|entry| is_it(&entry.act))
    });
}

#[test]
fn a_proof_that_was_changed_is_refused_by_both() {
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let auditor = Auditor::of(&issuer);
    for _ in 0..3 {
        joined(&issuer);
    }
    wait_until_published(&issuer);
    let proof = auditor.at("one.tlog-proof");
    assert!(auditor.signet(&["prove", "--index", "4", "--log", &url_of(&issuer), "--out", proof.to_str().unwrap()]).0);
    let text = fs::read_to_string(&proof).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let changed = |number: usize, line: &str| {
        let lines = lines.iter().enumerate().map(|(at, kept)| if at == number { line } else { kept });
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let size = lines.iter().position(|line| line.is_empty()).unwrap() + 2;
    for wrong in [
        changed(1, "extra e30="),
        changed(2, "index 5"),
        changed(2, "index 4711"),
        changed(3, lines[4]),
        text.replacen(&format!("{}\n", lines[3]), "", 1),
        changed(size, "99"),
        text.replacen("AT", "AU", 1).replacen("— ", "- ", 1),
        changed(0, "c2sp.org/tlog-proof@v2"),
    ] {
        fs::write(auditor.at("wrong.tlog-proof"), &wrong).unwrap();
        auditor.refused(&["verify-proof", auditor.at("wrong.tlog-proof").to_str().unwrap()]);
        auditor.python("proof", &auditor.at("wrong.tlog-proof")).unwrap_err();
    }
    auditor.python("proof", &proof).unwrap();
}

/// As an issuer would write it.
fn large_log(folder: &Path, size: u64) -> (Auditor, VerifierKey) {
    large_log_at(folder, size, secs(0))
}

/// The same by a clock that is so far ahead.
fn large_log_at(folder: &Path, size: u64, ahead: Duration) -> (Auditor, VerifierKey) {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    let pair = Ed25519KeyPair::generate().unwrap();
    let public = pair.public_key().as_ref().try_into().unwrap();
    let key = VerifierKey::new("example.org/audit/large".parse().unwrap(), public);
    let (log, mut edge) = (Folder::new(folder), Edge::default());
    for index in 0..size {
        let entry = format!(r#"{{"v":1,"time":"2026-11-28T09:30:00Z","act":"started","software":"number {index}"}}"#);
        let whole = |resource: Resource, bytes: Vec<u8>| log.write(resource, &bytes).unwrap();
        edge.append(entry.as_bytes(), whole).unwrap();
    }
    edge.partial().into_iter().for_each(|(resource, bytes)| log.write(resource, &bytes).unwrap());
    let checkpoint = Checkpoint { origin: key.origin().clone(), size, root: edge.root() };
    let time = time::OffsetDateTime::now_utc().unix_timestamp().cast_unsigned() + ahead.as_secs();
    let note =
        sign(&checkpoint, &key, time, |message| Ok::<[u8; 64], ()>(pair.sign(message).as_ref().try_into().unwrap()));
    log.write(Resource::Checkpoint, note.unwrap().as_bytes()).unwrap();
    let auditor = Auditor::with(folder.join("key"));
    fs::write(&auditor.key_file, key.to_string()).unwrap();
    (auditor, key)
}

#[test]
fn both_agree_over_100_000_entries_and_refuse_what_was_done_to_them() {
    let folder = TempDir::new().unwrap();
    let log = folder.path();
    let (auditor, _) = large_log(log, 100_000);
    assert_eq!(auditor.both_find_good(log)["size"], 100_000);

    let tampered = |name: &str, change: &dyn Fn(&mut Vec<u8>), told: &str| {
        let path = log.join(name);
        let kept = fs::read(&path).unwrap();
        let mut bytes = kept.clone();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        auditor.both_refuse(log, told);
        fs::write(&path, kept).unwrap();
    };
    let flip = |bytes: &mut Vec<u8>| bytes[40] ^= 0x10;
    tampered("tile/entries/123", &flip, "entry 31488 was changed: number 0 in tile/entries/123");
    tampered("tile/entries/390.p/160", &flip, "entry 99840 was changed: number 0 in tile/entries/390.p/160");
    tampered("tile/0/123", &flip, "tile/0/123 was changed");
    tampered("tile/1/000", &flip, "tile/1/000 was changed");
    tampered("tile/1/001.p/134", &flip, "tile/1/001.p/134 was changed: hash 1 is not that of tile/0/257");
    tampered("tile/2/000.p/1", &|bytes| bytes[0] ^= 1, "tile/2/000.p/1 was changed: hash 0 is not that of tile/1/000");
    tampered(
        "tile/entries/123",
        &|bytes| bytes.truncate(bytes.len() - 1),
        "tile/entries/123 was changed: it ends within entry 255",
    );
    tampered("tile/0/123", &|bytes| bytes.truncate(8000), "tile/0/123 has 8000 bytes, not 8192");
    let of_one = |bytes: &[u8]| 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    tampered(
        "tile/entries/123",
        &|bytes| drop(bytes.drain(..of_one(bytes))),
        "tile/entries/123 was changed: it has 255 entries",
    );
    tampered(
        "tile/entries/123",
        &|bytes| {
            let first = of_one(bytes);
            bytes.rotate_left(first);
        },
        "entry 31488 was changed",
    );
    let repeat = |bytes: &mut Vec<u8>| {
        let one = bytes[..of_one(bytes)].to_vec();
        bytes.splice(..0, one);
        let all = Bundle::parse_all(bytes.clone()).unwrap();
        let last = all.entries().last().unwrap().len() + 2;
        bytes.truncate(bytes.len() - last);
    };
    tampered("tile/entries/123", &repeat, "entry 31489 was changed: number 1 in tile/entries/123");
    tampered(
        "checkpoint",
        &|bytes| *bytes = String::from_utf8_lossy(bytes).replacen("100000", "100001", 1).into(),
        "not signed",
    );
    for missing in ["tile/entries/123", "tile/0/123", "tile/1/000", "tile/2/000.p/1", "checkpoint"] {
        let path = log.join(missing);
        fs::rename(&path, log.join("aside")).unwrap();
        auditor.both_refuse(log, &format!("{missing} is missing"));
        fs::rename(log.join("aside"), &path).unwrap();
    }
    auditor.both_find_good(log);
}

#[test]
fn a_log_that_was_set_back_or_replaced_is_found_out_by_whoever_saw_it_before() {
    let folder = TempDir::new().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let auditor = Auditor::of(&issuer);
    joined(&issuer);
    wait_until_published(&issuer);
    let (url, before) = (url_of(&issuer), auditor.copy(&issuer, "before"));
    let kept = folder.path().join("kept");
    issuer.process.kill();
    copy_all(&state_of(&issuer), &kept);
    issuer.process.start_again();
    issuer.wait_until_ready();
    joined(&issuer);
    wait_until_published(&issuer);
    let seen = auditor.good(&["verify", &url]);
    let later = auditor.copy(&issuer, "later");
    assert!(seen["entries"].as_u64() > Some(0) && seen["seen_before"].is_null());
    // What is new alone is read the next time.
    let again = auditor.good(&["verify", later.to_str().unwrap(), "--max-age", "1h"]);
    assert_eq!(again["seen_before"], seen["entries"]);

    // An older copy is good by itself, and not to whoever has seen a newer one.
    auditor.both_find_good(&before);
    let told = auditor.refused(&["verify", before.to_str().unwrap()]);
    assert!(told.contains("older than the one that was seen before"), "{told}");
    // The state folder of before, all of it: the issuer knows no better, and its log forks.
    issuer.process.kill();
    fs::remove_dir_all(state_of(&issuer)).unwrap();
    copy_all(&kept, &state_of(&issuer));
    issuer.process.start_again();
    issuer.wait_until_ready();
    for _ in 0..4 {
        joined(&issuer);
    }
    wait_until_published(&issuer);
    auditor.both_find_good(&auditor.copy(&issuer, "forked"));
    let told = auditor.refused(&["verify", &url]);
    assert!(told.contains("does not begin with the") && told.contains("it was replaced by another"), "{told}");
    let told = auditor.refused(&["export", &url, "--to", later.to_str().unwrap()]);
    assert!(told.contains("it was replaced by another"), "{told}");
}

#[test]
fn a_checkpoint_of_another_time_another_log_or_another_key_is_refused() {
    let folder = TempDir::new().unwrap();
    let (auditor, key) = large_log(folder.path(), 10);
    assert!(auditor.verify_anew(folder.path(), &["--max-age", "1h"]).0);
    until("the checkpoint is older than a second", secs(5), || {
        let (is_good, told) = auditor.verify_anew(folder.path(), &["--max-age", "1s"]);
        assert!(is_good || told.contains("old, and 1 s is the most"), "{told}");
        !is_good
    });
    fs::write(auditor.at("unseen"), "{}").unwrap();
    let state = auditor.at("unseen");
    let told = auditor.refused(&["verify", folder.path().to_str().unwrap(), "--state", state.to_str().unwrap()]);
    assert!(told.contains("it says what was seen of the log before"), "{told}");
    let other = TempDir::new().unwrap();
    let (_, another) = large_log(other.path(), 10);
    fs::write(&auditor.key_file, another.to_string()).unwrap();
    auditor.both_refuse(folder.path(), "not signed by the key of example.org/audit/large");
    let renamed = key.to_string().replacen("large", "small", 1);
    fs::write(&auditor.key_file, &renamed).unwrap();
    let (is_good, told) = auditor.verify_anew(folder.path(), &[]);
    assert!(!is_good && told.contains("its hash is not that of its key and its origin"), "{told}");
    let elsewhere = VerifierKey::new("example.org/audit/other".parse().unwrap(), [7; 32]);
    fs::write(&auditor.key_file, elsewhere.to_string()).unwrap();
    auditor.both_refuse(folder.path(), "it is of the log example.org/audit/large, not of example.org/audit/other");
    // Of the future, by the clock of whoever looks.
    let (future, _) = large_log_at(folder.path(), 10, secs(3600));
    let (is_good, told) = future.verify_anew(folder.path(), &[]);
    assert!(!is_good && told.contains("the checkpoint is of the future"), "{told}");
}

/// All that the page shows to be typed, in its order, as somebody would who has `signet dev` running and an SVID in a file.
#[test]
fn each_command_of_the_page_works() {
    let folder = TempDir::new().unwrap();
    let witness = FakeWitness::start("w1.example", Answer::Cosign);
    let witnesses = format!("audit: {{ witnesses: [{{ url: '{}', key: '{}' }}] }}\n", witness.url(), witness.key);
    let issuer = Issuer::start_with(folder.path(), "example.org", secs(3600), &witnesses);
    let auditor = Auditor::of(&issuer);
    let workload = joined(&issuer);
    let serial = workload.svid().serial();
    wait_until_published(&issuer);
    until("it is witnessed", secs(20), || state_of(&issuer).join("audit/log/checkpoint.witnessed").exists());
    let here = auditor.at("here");
    fs::create_dir(&here).unwrap();
    fs::write(here.join("witnesses.policy"), format!("witness A {}\nquorum A\n", witness.key)).unwrap();
    fs::write(here.join("svid.pem"), workload.svid().chain_pem()).unwrap();
    let own = workload.svid().write(&here, "gateway");
    let gateway = GatewayPlan::new("gateway").identity_from_files(&own, &issuer.bundle);
    let gateway = gateway.inbound(&["spiffe://example.org/**"], "http://127.0.0.1:1").start();
    let is_there = [
        ("http://127.0.0.1:8082/audit", url_of(&issuer)),
        ("http://127.0.0.1:9901", gateway.admin.url("")),
        (".signet/issuer/audit/log.key.pub", auditor.key_file.display().to_string()),
        ("6d1f0c5ab2e4987610fedcba98765432", serial),
    ];
    let (socket, state) = (folder.path().join("issuer-admin.sock"), auditor.at("state"));
    let typed = pages::typed("audit.md");
    assert!(typed.len() > 4, "{typed:?}");
    for line in typed {
        let line = is_there.iter().fold(line, |line, (shown, real)| line.replace(shown, real));
        pages::run(&line, &here, &[("XDG_STATE_HOME", &state), ("SIGNET_ISSUER", &socket)]);
    }
}

/// Another one for another run.
const SEED: u64 = 0x6175_6469_7421;
const KILLS: usize = 200;

#[test]
fn an_issuer_that_is_killed_200_times_has_an_entry_for_each_certificate_that_anybody_has() {
    let folder = TempDir::new().unwrap();
    // Keys in a token are found at once, where each sealed one takes its time to be opened at a start.
    let hsm = SoftHsm::new(folder.path(), "issuing");
    let generous = "limits: { renewals_per_minute: 600000, attestations_per_minute: 600000 }\n";
    let mut issuer = Issuer::start_in_token(folder.path(), "example.org", secs(3600), generous, &hsm);
    let auditor = Auditor::of(&issuer);
    println!("seed {SEED:#x}");
    let mut random = SEED;
    let mut below = |end: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % end
    };
    hsm.keep();
    let received = Mutex::new(BTreeMap::new());
    let over = AtomicBool::new(false);
    let workloads: Vec<_> = (0..8).map(|_| joined(&issuer)).collect();
    thread::scope(|scope| {
        for mut workload in workloads {
            let (received, over) = (&received, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    match workload.renew() {
                        Ok(svid) => drop(received.lock().unwrap().insert(svid.serial(), svid.clone())),
                        Err(_) => thread::sleep(millis(5)),
                    }
                }
            });
        }
        // Also where something is wrong: whoever renews would do so for ever.
        let _end = OnDrop(&over);
        for _ in 0..KILLS {
            // While issuing, committing, writing tiles, or starting.
            thread::sleep(millis(below(250)));
            issuer.process.signal(Signal::Kill);
            issuer.process.kill();
            hsm.restore();
            issuer.process.start_again();
            if below(4) > 0 {
                issuer.wait_until_ready();
            }
        }
        issuer.wait_until_ready();
    });
    let size = wait_until_published(&issuer);
    let log = state_of(&issuer).join("audit/log");
    let copy = auditor.copy(&issuer, "copy");
    assert_eq!(auditor.both_find_good(&copy)["size"], size);
    auditor.good(&["verify", log.to_str().unwrap()]);
    let logged: BTreeSet<String> = entries(&copy)
        .into_iter()
        .filter_map(|entry| match entry.act {
            Act::X509Issued(issued) => Some(issued.serial),
            _ => None,
        })
        .collect();
    let received = received.into_inner().unwrap();
    assert!(received.len() > KILLS, "{} certificates", received.len());
    let missing: Vec<_> = received.keys().filter(|serial| !logged.contains(*serial)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // No index is used twice, and each is that of its own entry.
    let rows = issuer.query("SELECT count(*), count(DISTINCT log_index) FROM issued");
    let (all, distinct) = rows[0].split_once('|').unwrap();
    assert_eq!(all, distinct);
    assert_eq!(logged.len().to_string(), all);
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
