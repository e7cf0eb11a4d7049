//! A token of SoftHSM2: what an HSM is to a program, in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files::copy_all;
use crate::process::{Process, Recipe};
use crate::program;
use crate::wait::secs;

#[derive(Debug)]
pub struct SoftHsm {
    folder: PathBuf,
    pub label: &'static str,
    place: Place,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// In the program that uses it.
    Inside,
    /// Behind a socket, as an HSM is behind a network.
    Remote,
}

impl SoftHsm {
    pub const MODULE: &'static str = "/usr/lib/softhsm/libsofthsm2.so";
    pub const PIN: &'static str = "7391-user";
    const OFFICER_PIN: &'static str = "8264-officer";

    /// A new one in `folder/hsm`, and its PIN in `folder/hsm/pin`.
    pub fn new(folder: &Path, label: &'static str) -> Self {
        Self::at(folder, label, Place::Inside)
    }

    /// One that programs reach by a server of p11-kit; [`serve`](Self::serve) starts that.
    pub fn remote(folder: &Path, label: &'static str) -> Self {
        Self::at(folder, label, Place::Remote)
    }

    fn at(folder: &Path, label: &'static str, place: Place) -> Self {
        let hsm = Self { folder: folder.join("hsm"), label, place };
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

    /// Keeps what is in it now. SoftHSM writes a token's file in place at each login: whoever is killed at that moment takes the token along,
    /// which no real one would have happen.
    pub fn keep(&self) {
        copy_all(&self.tokens(), &self.kept());
    }

    /// As it was kept, while nobody uses it.
    pub fn restore(&self) {
        fs::remove_dir_all(self.tokens()).expect("the folder of tokens");
        copy_all(&self.kept(), &self.tokens());
    }

    fn kept(&self) -> PathBuf {
        self.folder.join("kept")
    }

    pub fn serve(&self) -> Process {
        let _ = fs::remove_file(self.socket());
        let token = format!("pkcs11:token={}", self.label);
        let socket = self.socket();
        let mut process = Recipe::new("hsm", "/usr/libexec/p11-kit/p11-kit-server", &self.folder)
            .args(["-f", "--provider", Self::MODULE, "--name"])
            .arg(&socket)
            .arg(token)
            .env("SOFTHSM2_CONF", self.settings().to_str().expect("a path of ours"))
            .start();
        process.wait_until("its socket", secs(10), |_| socket.exists());
        process
    }

    /// For a program that uses the module.
    pub fn environment(&self) -> (&'static str, String) {
        match self.place {
            Place::Inside => ("SOFTHSM2_CONF", self.settings().display().to_string()),
            Place::Remote => ("P11_KIT_SERVER_ADDRESS", format!("unix:path={}", self.socket().display())),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("hsm.sock")
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
        let (module, pin) = (self.module(), self.pin_file());
        let (module, label, pin) = (module.display(), self.label, pin.display());
        format!("key: {{ pkcs11: {{ module: {module}, token_label: {label}, pin_file: {pin} }} }}")
    }

    fn module(&self) -> PathBuf {
        match self.place {
            Place::Inside => Self::MODULE.into(),
            // Where it lies depends on the machine's architecture.
            Place::Remote => fs::read_dir("/usr/lib")
                .expect("a system's libraries")
                .filter_map(|entry| Some(entry.ok()?.path().join("pkcs11/p11-kit-client.so")))
                .find(|path| path.exists())
                .expect("p11-kit-client.so; tests/run installs what the tests need"),
        }
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
