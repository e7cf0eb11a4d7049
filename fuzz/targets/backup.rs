//! What is in a backup once it is opened, by whoever knows the public key: nothing panics, nothing is written elsewhere, and none is believed,
//! as the log's key has signed nothing.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use signet_audit::VerifierKey;
use signet_backup::{BackupKey, BackupSecret, Opener, unpack};

static KEY: LazyLock<VerifierKey> =
    LazyLock::new(|| VerifierKey::new("example.org/audit/1".parse().unwrap(), [7; 32]));
static SECRET: LazyLock<BackupSecret> = LazyLock::new(|| BackupSecret::generate().unwrap());

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("state");
    std::fs::create_dir(&to).unwrap();
    assert!(unpack(data, &KEY, &to).is_err(), "a forgery was believed");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was written elsewhere");
    if let Ok(opener) = Opener::new(data, &SECRET) {
        assert!(unpack(opener, &KEY, &to).is_err(), "a forgery was believed");
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(key) = text.parse::<BackupKey>() {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        drop(BackupSecret::parse(text));
    }
});
