//! What an audit log, its proofs and its digests consist of, as whoever verifies gets it from anybody: nothing panics, what is read is written the same,
//! and nothing is believed, as the key has signed nothing.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use signet_audit::{
    About, Bundle, Digest, Entry, InclusionProof, Resource, SignedCheckpoint, Statement, VerifierKey, Width, push_entry,
};

static KEY: LazyLock<VerifierKey> =
    LazyLock::new(|| VerifierKey::new("example.org/audit/1".parse().unwrap(), [7; 32]));

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    let text = || std::str::from_utf8(bytes).ok();
    match which % 8 {
        0 => {
            if let Some(resource) = text().and_then(Resource::parse) {
                assert_eq!(Some(resource.to_string().as_str()), text());
            }
        }
        1 => bundle(bytes),
        2 => assert!(SignedCheckpoint::open(bytes, &KEY).is_err(), "a forgery was believed"),
        3 => {
            if let Some(proof) = text().and_then(|text| InclusionProof::parse(text).ok()) {
                let again = InclusionProof::parse(&proof.to_text()).unwrap();
                assert_eq!(again, proof);
                assert!(proof.verify(&KEY).is_err(), "a forgery was believed");
            }
        }
        4 => {
            if let Some(key) = text().and_then(|text| text.parse::<VerifierKey>().ok()) {
                assert_eq!(key.to_string().parse(), Ok(key));
            }
        }
        5 => {
            assert!(!Entry::is_one(bytes) || Entry::time_of(bytes).is_some(), "an entry of no time");
            if let Some(entry) = Entry::decode(bytes) {
                assert!(Entry::is_one(bytes));
                // What was left out of it is not known here; what is known stays.
                let again = entry.encode().ok().and_then(|json| Entry::decode(&json));
                assert!(again.is_none_or(|again| again == entry));
            }
        }
        6 => {
            if let Some((statement, text)) = text().and_then(|text| Some((Statement::parse(text)?, text))) {
                assert_eq!(statement.text(), text);
            }
        }
        _ => {
            for about in [About::Report, About::Digest, About::Backup] {
                assert!(Statement::open(bytes, about, &KEY).is_err(), "a forgery was believed");
            }
            assert!(Digest::open(bytes, None, &KEY).is_err(), "a forgery was believed");
        }
    }
});

fn bundle(bytes: &[u8]) {
    let Some((count, bytes)) = bytes.split_first() else { return };
    let Some(width) = Width::of(u64::from(*count) + 1) else { return };
    if let Ok(bundle) = Bundle::parse(bytes.to_vec(), width) {
        let mut again = Vec::new();
        for entry in bundle.entries() {
            push_entry(&mut again, entry).unwrap();
        }
        assert_eq!(again, bytes);
    }
}
