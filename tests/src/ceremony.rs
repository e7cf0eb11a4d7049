//! A root that is made and used by `signet ca`, with requests by openssl.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::openssl::openssl_ok;
use crate::program;

/// A folder in which a root is made and used.
#[derive(Debug)]
pub struct Ceremony {
    pub folder: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended(pub Output);

impl Ceremony {
    pub const SIGN: [&'static str; 9] =
        ["ca", "sign", "--yes", "--dir", "root", "--csr", "authority.csr", "--out", "authority.pem"];

    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("signet-ca-").tempdir().expect("a folder of ours");
        fs::write(folder.path().join("passphrase"), "correct horse battery staple\n").expect("a folder of ours");
        Self { folder }
    }

    pub fn init(&self) {
        self.signet(&["ca", "init", "--dir", "root", "--trust-domain", "example.org"]).success();
    }

    pub fn sign(&self) -> Ended {
        self.signet(&Self::SIGN)
    }

    pub fn request(&self, curve: &str) {
        self.request_with(curve, &[]);
    }

    /// A request by openssl for a new key.
    pub fn request_with(&self, curve: &str, more: &[&str]) {
        let (key, request) = (self.path("authority.key"), self.path("authority.csr"));
        openssl_ok(&["ecparam", "-name", curve, "-genkey", "-noout", "-out", &key]);
        let words = ["req", "-new", "-key", &key, "-subj", "/CN=evil", "-out", &request];
        openssl_ok(&[&words[..], more].concat());
    }

    /// With the passphrase's file.
    pub fn signet(&self, words: &[&str]) -> Ended {
        Ended(self.run(&[words, &["--passphrase-file", "passphrase"]].concat()))
    }

    pub fn run(&self, words: &[&str]) -> Output {
        Command::new(program::ours("signet")).args(words).current_dir(self.folder.path()).output().expect("a program")
    }

    pub fn path(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        path.to_str().expect("a plain path").to_owned()
    }

    pub fn text(&self, name: &str) -> String {
        openssl_ok(&["x509", "-in", &self.path(name), "-noout", "-text"])
    }
}

impl Ended {
    #[track_caller]
    pub fn success(self) {
        let Self(output) = self;
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }

    /// Its standard output; it has to succeed.
    #[track_caller]
    pub fn told(self) -> String {
        let text = String::from_utf8_lossy(&self.0.stdout).into_owned();
        self.success();
        text
    }

    /// Exit 1 with one line of cause on standard error; returns what was said.
    #[track_caller]
    pub fn refused(self) -> String {
        let error = String::from_utf8_lossy(&self.0.stderr).into_owned();
        assert_eq!(self.0.status.code(), Some(1), "{error}");
        assert!(error.starts_with("error: ") && error.lines().count() <= 2, "{error}");
        error
    }
}
