//! A token of SoftHSM2: what an HSM is to a program, in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program;

#[derive(Debug)]
pub struct SoftHsm {
    folder: PathBuf,
    pub label: &'static str,
}

impl SoftHsm {
    pub const MODULE: &'static str = "/usr/lib/softhsm/libsofthsm2.so";
    pub const PIN: &'static str = "7391-user";
    const OFFICER_PIN: &'static str = "8264-officer";

    /// A new one in `folder/hsm`, and its PIN in `folder/hsm/pin`.
    pub fn new(folder: &Path, label: &'static str) -> Self {
        let hsm = Self { folder: folder.join("hsm"), label };
        fs::create_dir_all(hsm.tokens()).expect("a folder");
        fs::write(hsm.pin_file(), format!("{}\n", Self::PIN)).expect("a file");
        let settings = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            hsm.tokens().display()
        );
        fs::write(hsm.settings(), settings).expect("a file");
        let words = ["--init-token", "--free", "--label", label, "--pin", Self::PIN, "--so-pin", Self::OFFICER_PIN];
        let mut command = Command::new(program::third_party("softhsm2-util"));
        let made = command.args(words).env("SOFTHSM2_CONF", hsm.settings()).output().expect("softhsm2-util");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        hsm
    }

    /// What the environment variable `SOFTHSM2_CONF` has to name.
    pub fn settings(&self) -> PathBuf {
        self.folder.join("softhsm2.conf")
    }

    pub fn pin_file(&self) -> PathBuf {
        self.folder.join("pin")
    }

    /// For an issuer's `authority`.
    pub fn configuration(&self) -> String {
        let (label, pin) = (self.label, self.pin_file());
        format!("key: {{ pkcs11: {{ module: {}, token_label: {label}, pin_file: {} }} }}", Self::MODULE, pin.display())
    }

    /// The token is gone, with all that is in it.
    pub fn take_out(&self) {
        fs::rename(self.tokens(), self.drawer()).expect("a token");
        fs::create_dir(self.tokens()).expect("a folder");
    }

    pub fn put_back(&self) {
        fs::remove_dir_all(self.tokens()).expect("a folder");
        fs::rename(self.drawer(), self.tokens()).expect("a token");
    }

    /// What a program that uses the module says, with this token in its slot.
    pub fn run(&self, program: PathBuf, words: &[&str]) -> String {
        let told =
            Command::new(&program).args(words).env("SOFTHSM2_CONF", self.settings()).output().expect("a program");
        let error = String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success(), "{} {words:?}: {error}", program.display());
        String::from_utf8_lossy(&told.stdout).into_owned()
    }

    fn tokens(&self) -> PathBuf {
        self.folder.join("tokens")
    }

    fn drawer(&self) -> PathBuf {
        self.folder.join("drawer")
    }
}
