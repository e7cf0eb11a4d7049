//! Authorities and roots of an issuer that follow each other, by the commands that an operator gives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::issuer::{Issuer, signet};
use crate::program;

impl Issuer {
    /// `signet WORDS` in a folder, about this issuer, however that ends.
    pub fn signet_in(&self, folder: &Path, words: &[&str]) -> Output {
        let mut command = Command::new(program::ours("signet"));
        command.args(words).env("SIGNET_ISSUER", &self.socket).current_dir(folder).output().expect("signet")
    }

    /// Another root of the trust domain, in a folder of this name.
    pub fn make_root(&self, name: &str) -> PathBuf {
        self.make_root_for(name, "3650d")
    }

    /// One that is good for so long.
    #[track_caller]
    pub fn make_root_for(&self, name: &str, life: &str) -> PathBuf {
        let root = self.root.with_file_name(name);
        signet(
            &["ca", "init", "--trust-domain", "example.org", "--life", life],
            &[("--dir", &root), ("--passphrase-file", &self.passphrase)],
        );
        root
    }

    /// Has the root in `root` sign `count` keys, of which those that wait already are a part, and brings the certificates back.
    #[track_caller]
    pub fn hold_ceremony(&self, root: &Path, count: u32) {
        let signed = self.have_signed(root, count);
        self.operate(&["ca", "import", signed.to_str().expect("a path of ours")]);
    }

    /// The same as far as to the file with the certificates.
    #[track_caller]
    pub fn have_signed(&self, root: &Path, count: u32) -> PathBuf {
        self.have_signed_from(root, &self.requests(count), &[])
    }

    /// One whose certificate is good for so long.
    #[track_caller]
    pub fn hold_ceremony_for(&self, root: &Path, life: &str) {
        let signed = self.have_signed_from(root, &self.requests(1), &["--life", life]);
        self.operate(&["ca", "import", signed.to_str().expect("a path of ours")]);
    }

    /// Has the root sign a file of requests.
    #[track_caller]
    pub fn have_signed_from(&self, root: &Path, requests: &Path, options: &[&str]) -> PathBuf {
        let signed = self.configuration.with_file_name("successors.pem");
        // There is none the first time.
        let _ = fs::remove_file(&signed);
        signet(
            &[&["ca", "sign", "--yes"], options].concat(),
            &[("--dir", root), ("--passphrase-file", &self.passphrase), ("--csr", requests), ("--out", &signed)],
        );
        signed
    }

    fn requests(&self, count: u32) -> PathBuf {
        let requests = self.configuration.with_file_name("successors.csr");
        let _ = fs::remove_file(&requests);
        let socket = ("--issuer", &*self.socket);
        signet(&["ca", "csr", "--count", &count.to_string()], &[("--out", &requests), socket]);
        requests
    }

    /// Names of the keys of its authorities, in the order in which they were made, and the stage of each.
    #[track_caller]
    pub fn authorities(&self) -> Vec<(String, String)> {
        let listed = self.operate_json(&["get", "authorities"]);
        let text = |authority: &Value, what: &str| authority[what].as_str().expect("a text").to_owned();
        let of = |authority: &Value| (text(authority, "key"), text(authority, "stage"));
        listed["authorities"].as_array().expect("a list").iter().map(of).collect()
    }

    #[track_caller]
    pub fn stages(&self) -> Vec<String> {
        self.authorities().into_iter().map(|(_, stage)| stage).collect()
    }

    #[track_caller]
    pub fn authority_keys(&self) -> Vec<String> {
        self.authorities().into_iter().map(|(key, _)| key).collect()
    }

    /// Whether an authority, or a root, gives way to another.
    #[track_caller]
    pub fn is_rotating(&self) -> bool {
        !self.operate_json(&["rotate", "status"])["rotation"].is_null()
    }
}
