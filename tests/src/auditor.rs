//! The audit log of an issuer, and two who look into it: `signet audit`, and a program in Python from the specifications.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use signet_audit::{Bundle, Entry, Folder};
use tempfile::TempDir;

use crate::files::copy_all;
use crate::wait::{secs, until};
use crate::{Curl, Issuer, Workload, program};

const AUDITOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/auditor.py");
/// Of whoever has joined.
pub const ID: &str = "spiffe://example.org/shop/orders";

/// A log, wherever it is, and whoever looks into it.
#[derive(Debug)]
pub struct Auditor {
    folder: TempDir,
    pub key_file: PathBuf,
}

impl Auditor {
    pub fn of(issuer: &Issuer) -> Self {
        Self::with(state_of(issuer).join("audit/log.key.pub"))
    }

    pub fn with(key_file: PathBuf) -> Self {
        Self { folder: TempDir::new().unwrap(), key_file }
    }

    pub fn key(&self) -> String {
        fs::read_to_string(&self.key_file).unwrap().trim().to_owned()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it says, and whether that is good.
    pub fn signet(&self, words: &[&str]) -> (bool, String) {
        let mut command = Command::new(program::ours("signet"));
        command.args(["audit", "-o", "json"]).args(words).arg("--key-file").arg(&self.key_file);
        let output = command.env("XDG_STATE_HOME", self.at("state")).output().unwrap();
        let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(matches!(output.status.code(), Some(0 | 1)), "{words:?}: {}\n{told}{error}", output.status);
        (output.status.success(), format!("{told}{error}"))
    }

    #[track_caller]
    pub fn good(&self, words: &[&str]) -> Value {
        let (is_good, told) = self.signet(words);
        assert!(is_good, "{words:?}: {told}");
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
    }

    #[track_caller]
    pub fn refused(&self, words: &[&str]) -> String {
        let (is_good, told) = self.signet(words);
        assert!(!is_good, "{words:?}: {told}");
        told
    }

    /// As if nothing had been seen of it before.
    pub fn verify_anew(&self, folder: &Path, words: &[&str]) -> (bool, String) {
        let state = self.at("unseen");
        let _ = fs::remove_file(&state);
        let verify = ["verify", folder.to_str().unwrap(), "--state", state.to_str().unwrap()];
        self.signet(&[&verify, words].concat())
    }

    pub fn python(&self, what: &str, path: &Path) -> Result<Value, String> {
        let output = Command::new(program::python()).args([AUDITOR, what]).arg(path).arg(self.key()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
            false => {
                assert!(error.starts_with("wrong: "), "{error}");
                Err(error)
            }
        }
    }

    /// A copy of the log of an issuer.
    pub fn copy(&self, issuer: &Issuer, name: &str) -> PathBuf {
        let to = self.at(name);
        self.good(&["export", &url_of(issuer), "--to", to.to_str().unwrap()]);
        to
    }

    /// Of a folder: that both implementations find it good, and find the same.
    #[track_caller]
    pub fn both_find_good(&self, folder: &Path) -> Value {
        let (is_good, told) = self.verify_anew(folder, &[]);
        assert!(is_good, "{told}");
        let ours: Value = serde_json::from_str(&told).unwrap();
        let theirs = self.python("verify", folder).unwrap();
        assert_eq!((&ours["entries"], &ours["root"]), (&theirs["size"], &theirs["root"]));
        theirs
    }

    #[track_caller]
    pub fn both_refuse(&self, folder: &Path, told: &str) {
        let (is_good, ours) = self.verify_anew(folder, &[]);
        assert!(!is_good && ours.contains(told), "{told:?} is not in {ours}");
        self.python("verify", folder).unwrap_err();
    }
}

pub fn state_of(issuer: &Issuer) -> PathBuf {
    issuer.database.parent().unwrap().to_owned()
}

pub fn url_of(issuer: &Issuer) -> String {
    format!("http://{}/audit", issuer.web)
}

/// How many entries are published.
pub fn published(issuer: &Issuer) -> u64 {
    let note = Curl::get(format!("{}/checkpoint", url_of(issuer))).run().expect_status(200).text();
    note.lines().nth(1).unwrap().parse().unwrap()
}

pub fn on_record(issuer: &Issuer) -> u64 {
    issuer.query("SELECT size FROM audit_logs ORDER BY number DESC LIMIT 1")[0].parse().unwrap()
}

pub fn wait_until_published(issuer: &Issuer) -> u64 {
    let size = on_record(issuer);
    until("what is on record is published", secs(10), || published(issuer) >= size);
    size
}

/// Each entry of a log in a folder.
pub fn entries(folder: &Path) -> Vec<Entry> {
    use signet_audit::{Source as _, TILE, Width};
    let log = Folder::new(folder);
    let note = String::from_utf8(log.checkpoint().unwrap()).unwrap();
    let size: u64 = note.lines().nth(1).unwrap().parse().unwrap();
    let bundles = (0..size.div_ceil(TILE)).map(|index| log.entries(index, Width::of(size - index * TILE).unwrap()));
    let entries = |bundle: Bundle| bundle.entries().map(|entry| Entry::decode(entry).unwrap()).collect::<Vec<_>>();
    bundles.flat_map(|bundle| entries(bundle.unwrap().unwrap())).collect()
}

pub fn joined(issuer: &Issuer) -> Workload {
    let mut workload = Workload::of(issuer.address);
    workload.attest(&issuer.join_token(ID)).unwrap();
    workload
}

/// Keeps all of an issuer's state as it is now, its own copy of the log too, and has it go on.
pub fn keep_state(issuer: &mut Issuer, kept: &Path) {
    issuer.process.kill();
    copy_all(&state_of(issuer), kept);
    issuer.process.start_again();
    issuer.wait_until_ready();
}

/// Ends an issuer, and brings back the state that was kept.
pub fn set_back(issuer: &mut Issuer, kept: &Path) {
    issuer.process.kill();
    fs::remove_dir_all(state_of(issuer)).unwrap();
    copy_all(kept, &state_of(issuer));
}
