//! The second key of an audit log, ML-DSA-44: whoever knows both demands both, our programs and one in Python from the specifications.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use signet_tests::auditor::{Auditor, state_of, url_of, wait_until_published};
use signet_tests::files::copy_all;
use signet_tests::{Issuer, secs};
use tempfile::TempDir;

/// The last line of a checkpoint left out, or changed in one letter.
fn without_its_end(note: &str) -> String {
    let end = note.trim_end().rfind('\n').unwrap() + 1;
    note[..end].to_owned()
}

fn changed_at_its_end(note: &str) -> String {
    let at = note.len() - 40;
    let other = if &note[at..=at] == "A" { "B" } else { "A" };
    format!("{}{other}{}", &note[..at], &note[at + 1..])
}

#[test]
fn a_log_that_gets_a_second_key_is_believed_by_both_and_by_whoever_has_the_first_alone() {
    let folder = TempDir::new().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    wait_until_published(&issuer);
    let public = state_of(&issuer).join("audit/log.key.pub");
    let before = folder.path().join("before.pub");
    fs::copy(&public, &before).unwrap();
    let first = Auditor::with(before);
    let early = first.copy(&issuer, "early");

    issuer.process.kill();
    let text = fs::read_to_string(&issuer.configuration).unwrap();
    fs::write(&issuer.configuration, format!("{text}audit: {{ ml_dsa: true }}\n")).unwrap();
    issuer.process.start_again();
    issuer.wait_until_ready();
    wait_until_published(&issuer);
    assert_eq!(fs::read_dir(state_of(&issuer).join("audit/keys")).unwrap().count(), 2);
    let lines = fs::read_to_string(&public).unwrap();
    assert!(lines.starts_with(&fs::read_to_string(&first.key_file).unwrap()) && lines.lines().count() == 2, "{lines}");

    let both = Auditor::of(&issuer);
    let copy = both.copy(&issuer, "copy");
    both.both_find_good(&copy);
    first.both_find_good(&copy);
    let proof = both.at("proof");
    let proved = ["prove", "--index", "0", "--log", &url_of(&issuer), "--out", proof.to_str().unwrap()];
    assert!(both.signet(&proved).0);
    both.good(&["verify-proof", proof.to_str().unwrap()]);
    both.python("proof", &proof).unwrap();
    // A copy that was begun before is gone on with.
    both.good(&["export", &url_of(&issuer), "--to", early.to_str().unwrap()]);

    let note = fs::read_to_string(copy.join("checkpoint")).unwrap();
    for (name, forged) in [("without", without_its_end(&note)), ("changed", changed_at_its_end(&note))] {
        let forgery = folder.path().join(name);
        copy_all(&copy, &forgery);
        fs::write(forgery.join("checkpoint"), forged).unwrap();
        let refused = both.refused(&["verify", forgery.to_str().unwrap(), "--state", both.at(name).to_str().unwrap()]);
        assert!(refused.contains("is not signed by the second key of"), "{refused}");
        both.python("verify", &forgery).unwrap_err();
        first.both_find_good(&forgery);
    }

    // It is the same key after a restart.
    issuer.process.kill();
    issuer.process.start_again();
    issuer.wait_until_ready();
    assert_eq!(fs::read_to_string(&public).unwrap(), lines);
}
