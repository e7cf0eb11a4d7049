//! Witnesses of the audit log: who they are shown it by, what they refuse, and what whoever verifies can demand of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use signet_tests::auditor::{Auditor, joined, keep_state, published, set_back, url_of, wait_until_published};
use signet_tests::wait::{throughout, until};
use signet_tests::witness::{Answer, FakeWitness, Litewitness};
use signet_tests::{Curl, Issuer, secs};
use tempfile::TempDir;

fn start(folder: &Path, witnesses: &[(String, &str)], quorum: usize) -> Issuer {
    let witnesses: Vec<_> = witnesses.iter().map(|(url, key)| format!("{{ url: '{url}', key: '{key}' }}")).collect();
    let more = format!("audit: {{ witnesses: [{}], quorum: {quorum} }}\n", witnesses.join(", "));
    Issuer::start_with(folder, "example.org", secs(3600), &more)
}

/// Entries that a quorum has cosigned.
fn witnessed(issuer: &Issuer) -> u64 {
    let answer = Curl::get(format!("{}/checkpoint.witnessed", url_of(issuer))).run();
    if answer.status == 200 { answer.text().lines().nth(1).unwrap().parse().unwrap() } else { 0 }
}

#[track_caller]
fn wait_until_witnessed(issuer: &Issuer) -> u64 {
    let size = wait_until_published(issuer);
    until("a quorum has cosigned it", secs(90), || witnessed(issuer) >= size);
    size
}

fn failures(issuer: &Issuer, witness: &str) -> f64 {
    issuer.admin.sum("signet_audit_witness_failures_total", &[("witness", witness)])
}

#[test]
fn what_witnesses_have_cosigned_is_demanded_by_whoever_verifies() {
    let folder = TempDir::new().unwrap();
    let mut real = Litewitness::start(&folder.path().join("w1"), "w1.example/lite");
    let fake = FakeWitness::start("w2.example/fake", Answer::Cosign);
    let mut issuer = start(folder.path(), &[(real.url(), &real.key), (fake.url(), &fake.key)], 2);
    let auditor = Auditor::of(&issuer);
    // It does not know the log yet.
    until("that is told", secs(20), || failures(&issuer, "w1.example/lite") > 0.0);
    assert!(issuer.process.log().contains("it has another public key for this log (403)"));
    real.know(&auditor.key());
    let mut workload = joined(&issuer);
    let size = wait_until_witnessed(&issuer);
    let metric = |name: &str| issuer.admin.sum(name, &[]);
    assert!(metric("signet_audit_witnessed_entries") >= size as f64);
    assert!(metric("signet_audit_witnessed_timestamp_seconds") > 1.7e9);
    // Below a tree that is as they saw it, they stand too.
    let both = |note: String| note.contains("— w1.example/lite ") && note.contains("— w2.example/fake ");
    let checkpoint = format!("{}/checkpoint", url_of(&issuer));
    until("both stand below it", secs(20), || both(Curl::get(&checkpoint).run().expect_status(200).text()));

    // The log, from the web address and as a copy; and a proof.
    let quorum = ["--witness", &real.key, "--witness", &fake.key, "--quorum", "2"];
    let copy = auditor.copy(&issuer, "copy");
    for log in [&url_of(&issuer), copy.to_str().unwrap()] {
        let found = auditor.good(&[&["verify", log], &quorum[..]].concat());
        assert_eq!(found["witnessed"]["by"].as_array().unwrap().len(), 2, "{found}");
        assert!(found["witnessed"]["entries"].as_u64().unwrap() >= size, "{found}");
    }
    auditor.both_find_good(&copy);
    let proof = auditor.at("one.tlog-proof");
    let serial = workload.svid().serial();
    auditor.signet(&["prove", &serial, "--log", &url_of(&issuer), "--witnessed", "--out", proof.to_str().unwrap()]);
    auditor.good(&[&["verify-proof", proof.to_str().unwrap()], &quorum[..]].concat());
    auditor.python("proof", &proof).unwrap();

    // By a policy; and not where somebody is missing.
    let stranger = FakeWitness::start("w3.example/stranger", Answer::Cosign);
    let policy = |name: &str, last: &str| {
        let path = auditor.at(name);
        let text = format!(
            "log {}\nwitness A {}\nwitness B {}\nwitness C {}\ngroup one any B C\ngroup two all A one\nquorum {last}\n",
            auditor.key(),
            real.key,
            fake.key,
            stranger.key
        );
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    auditor.good(&["verify", copy.to_str().unwrap(), "--policy", &policy("good.policy", "two")]);
    for words in [&["verify", copy.to_str().unwrap()], &["verify-proof", proof.to_str().unwrap()]] {
        let refused = auditor.refused(&[&words[..], &["--policy", &policy("bad.policy", "C")]].concat());
        assert!(refused.contains("w3.example/stranger: it has not cosigned"), "{refused}");
        let refused = auditor.refused(&[&words[..], &quorum[..4], &["--witness", &stranger.key]].concat());
        assert!(refused.contains("w3.example/stranger: it has not cosigned"), "{refused}");
    }

    // One is away: all goes on, but for the quorum; and it catches up.
    real.process.kill();
    workload.renew().unwrap();
    let before = witnessed(&issuer);
    let size = wait_until_published(&issuer);
    until("that is told", secs(20), || issuer.process.log().contains("a witness has not cosigned the audit log"));
    assert!(published(&issuer) >= size && witnessed(&issuer) <= before + 1);
    real.process.start_again();
    wait_until_witnessed(&issuer);

    // So is the issuer: what it publishes then has each cosignature once.
    issuer.process.kill();
    issuer.process.start_again();
    issuer.wait_until_ready();
    wait_until_witnessed(&issuer);
    let note = Curl::get(format!("{}/checkpoint.witnessed", url_of(&issuer))).run().expect_status(200).text();
    assert_eq!(note.matches("\u{2014} w2.example/fake ").count(), 1, "{note}");
    auditor.good(&[&["verify", &url_of(&issuer)], &quorum[..]].concat());
}

#[test]
fn a_witness_that_lies_or_is_slow_holds_nobody_up() {
    let folder = TempDir::new().unwrap();
    let good = FakeWitness::start("good.example", Answer::Cosign);
    let bad: Vec<_> = [
        (Answer::CosignAnother, "its cosignature is wrong"),
        (Answer::CosignByAnother, "its cosignature is wrong"),
        (Answer::Huge(1 << 20), "length limit exceeded"),
        (Answer::Silence, "no answer within 5 s"),
        (Answer::Status(409, "999999\n"), "it has seen 999999 entries of this log"),
        (Answer::Status(409, "many\n"), "it answers 409 without the size"),
        (Answer::Status(404, ""), "it does not know this log"),
        (Answer::Status(422, ""), "of this log that it does not begin with"),
        (Answer::Status(500, ""), "it answers 500"),
        (Answer::Status(200, "\u{2014} bad.example AAAA\n"), "it has not cosigned"),
    ]
    .into_iter()
    .enumerate()
    .map(|(number, (answer, told))| (FakeWitness::start(&format!("bad.example/{number}"), answer), told))
    .collect();
    let mut all = vec![(good.url(), &*good.key)];
    all.extend(bad.iter().map(|(witness, _)| (witness.url(), &*witness.key)));
    let issuer = start(folder.path(), &all, 1);
    joined(&issuer);
    let size = wait_until_witnessed(&issuer);
    until("each is told of", secs(20), || bad.iter().all(|(_, told)| issuer.process.log().contains(told)));
    // Checkpoints come as they should meanwhile.
    let at = |issuer: &Issuer| issuer.admin.sum("signet_audit_checkpoint_timestamp_seconds", &[]);
    let now = || time::OffsetDateTime::now_utc().unix_timestamp() as f64;
    throughout("each checkpoint is new", secs(4), || now() - at(&issuer) <= 2.0);
    let auditor = Auditor::of(&issuer);
    let found = auditor.good(&["verify", &url_of(&issuer), "--witness", &good.key]);
    assert!(found["witnessed"]["entries"].as_u64().unwrap() >= size);
    let refused = auditor.refused(&["verify", &url_of(&issuer), "--witness", &bad[0].0.key]);
    assert!(refused.contains("no quorum of witnesses has cosigned this"), "{refused}");
    // Once it does what it should it is heard again.
    *bad[4].0.answer.lock().unwrap() = Answer::Cosign;
    let at = || issuer.admin.sum("signet_audit_cosignature_timestamp_seconds", &[("witness", "bad.example/4")]);
    until("it cosigns", secs(90), || at() > 0.0);
}

#[test]
fn a_forked_log_is_refused_by_a_witness_and_found_out_by_whoever_has_what_it_saw() {
    let folder = TempDir::new().unwrap();
    let real = Litewitness::start(&folder.path().join("w1"), "w1.example/lite");
    let mut issuer = start(folder.path(), &[(real.url(), &real.key)], 1);
    let auditor = Auditor::of(&issuer);
    real.know(&auditor.key());
    joined(&issuer);
    wait_until_witnessed(&issuer);
    let kept = folder.path().join("kept");
    keep_state(&mut issuer, &kept);
    joined(&issuer);
    wait_until_witnessed(&issuer);
    let copy = auditor.copy(&issuer, "copy");

    // Somebody sets all of it back, and tells another story.
    set_back(&mut issuer, &kept);
    issuer.process.start_again();
    issuer.wait_until_ready();
    for _ in 0..5 {
        joined(&issuer);
    }
    wait_until_published(&issuer);
    until("the witness refuses", secs(90), || {
        issuer.process.log().contains("entries of this log that it does not begin with")
    });
    let forked = auditor.copy(&issuer, "forked");
    auditor.both_find_good(&forked);
    // By itself it is good; not beside what the witness saw.
    fs::copy(copy.join("checkpoint.witnessed"), forked.join("checkpoint.witnessed")).unwrap();
    let (is_good, told) = auditor.verify_anew(&forked, &["--witness", &real.key]);
    assert!(!is_good && told.contains("witnesses have seen another log"), "{told}");
    let (is_good, told) = auditor.verify_anew(&copy, &["--witness", &real.key]);
    assert!(is_good, "{told}");
}
