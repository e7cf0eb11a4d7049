//! A root that is only ever on a machine without a network, and an issuer on another machine: what is carried between them, and
//! where the root's key is.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use signet_tests::openssl::openssl_ok;
use signet_tests::wait::until;
use signet_tests::{Issuer, SoftHsm, Workload, pages, program, secs};
use tempfile::TempDir;

const PASSPHRASE: &str = "correct horse battery staple";

/// The machine with the root.
struct Offline {
    folder: TempDir,
    hsm: SoftHsm,
}

/// That of the issuer.
struct Online {
    folder: TempDir,
    issuer: Issuer,
}

impl Offline {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let hsm = SoftHsm::new(folder.path(), "root");
        fs::write(folder.path().join("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
        fs::copy(hsm.pin_file(), folder.path().join("pin")).unwrap();
        Self { folder, hsm }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a program does here: the only interface there is, is down.
    fn run(&self, program: &Path, words: &[&str]) -> Output {
        let mut command = Command::new(program::third_party("unshare"));
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--net", "--"]).arg(program).args(words);
        command.current_dir(self.folder.path()).env("SOFTHSM2_CONF", self.hsm.settings()).output().unwrap()
    }

    #[track_caller]
    fn signet(&self, words: &[&str]) {
        let output = self.run(&program::ours("signet"), words);
        assert!(output.status.success(), "signet {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Online {
    /// With an issuer that has the root's certificate, and nothing else of it.
    fn new(root: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        let issuer = Issuer::start_away_from_root(folder.path(), root, "example.org", secs(600));
        let online = Self { folder, issuer };
        until("somebody to talk to", secs(20), || online.run(&["status"]).status.code() != Some(1));
        online
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        self.issuer.signet_in(self.folder.path(), words)
    }

    #[track_caller]
    fn signet(&self, words: &[&str]) {
        let output = self.run(words);
        assert!(output.status.success(), "signet {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_commands_of_the_page_work_and_the_root_is_only_ever_on_its_side() {
    let offline = Offline::new();
    let mut commands = pages::commands("hierarchy.md").into_iter();
    let first = commands.next().unwrap();
    offline.signet(&first.iter().map(String::as_str).collect::<Vec<_>>());
    let online = Online::new(&offline.at("root/root.pem"));
    let mut verbs = Vec::new();
    for words in commands {
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        verbs.push(words[1].to_owned());
        match words[1] {
            "csr" => {
                online.signet(&words);
                fs::copy(online.at("authority.csr"), offline.at("authority.csr")).unwrap();
                fs::copy(online.at("authority.csr"), offline.at("successor.csr")).unwrap();
            }
            "sign" | "crl" => {
                words.push("--yes");
                offline.signet(&words);
            }
            "import" => {
                fs::copy(offline.at("authority.pem"), online.at("authority.pem")).unwrap();
                online.signet(&words);
            }
            _ => {
                fs::copy(offline.at("root/ceremonies.jsonl"), offline.at("ceremonies.jsonl")).unwrap();
                fs::copy(offline.at("root/root.pem"), offline.at("root.pem")).unwrap();
                offline.signet(&words);
            }
        }
    }
    assert_eq!(first[1], "init");
    assert_eq!(verbs, ["csr", "sign", "verify-log", "import", "crl", "log", "verify-log", "init", "sign"]);
    let mut issuer = online.issuer;
    issuer.wait_until_ready();
    assert_eq!(issuer.stages(), ["active", "prepared"]);
    let mut workload = Workload::of(issuer.address);
    workload.attest(&issuer.join_token("spiffe://example.org/shop/cart")).unwrap();
    fs::write(offline.at("leaf.pem"), workload.svid().chain_pem()).unwrap();
    let [root, leaf] = ["root/root.pem", "leaf.pem"].map(|name| offline.at(name).to_str().unwrap().to_owned());
    openssl_ok(&["verify", "-x509_strict", "-CAfile", &root, "-untrusted", &leaf, &leaf]);

    // While all of it is in use.
    let key = opened(&offline.at("root/root.key"), &offline.at("passphrase"), &offline.at("plain.key"));
    let plain = offline.at("plain.key");
    let public = openssl_ok(&["pkey", "-in", plain.to_str().unwrap(), "-pubout"]);
    assert_eq!(public, openssl_ok(&["x509", "-in", &root, "-noout", "-pubkey"]), "not the root's key");
    let sealed = without_spaces(&fs::read(offline.at("root/root.key")).unwrap());
    let needles =
        [forms(&key), vec![sealed, PASSPHRASE.as_bytes().to_vec(), SoftHsm::PIN.as_bytes().to_vec()]].concat();
    // They are found where they are.
    let mut found = holders(offline.folder.path(), &needles);
    found.sort();
    let expected = ["hsm/pin", "passphrase", "pin", "plain.key", "root/root.key"];
    assert_eq!(found, expected.map(|name| offline.at(name)));
    assert_eq!(holders(online.folder.path(), &needles), Vec::<PathBuf>::new());
    // What is sealed there is the issuer's own.
    let sealed: Vec<_> = holders(online.folder.path(), &[b"SIGNETSEALEDKEY".to_vec()]);
    assert_eq!(sealed.len(), 3, "{sealed:?}");
    // That of the audit log is of another kind.
    for file in sealed.into_iter().filter(|file| file.parent().unwrap().ends_with("authorities")) {
        assert_ne!(opened(&file, &online.folder.path().join("passphrase"), &offline.at("another.key")), key);
    }
}

#[test]
fn where_the_root_is_nobody_can_be_reached() {
    let offline = Offline::new();
    offline.signet(&[
        "ca",
        "init",
        "--dir",
        "root",
        "--trust-domain",
        "example.org",
        "--passphrase-file",
        "passphrase",
    ]);
    let online = Online::new(&offline.at("root/root.pem"));
    let curl = program::third_party("curl");
    let url = online.issuer.admin.url("/live");
    let words = ["--silent", "--max-time", "10", &url];
    assert!(Command::new(&curl).args(words).status().unwrap().success());
    // CURLE_COULDNT_CONNECT
    assert_eq!(offline.run(&curl, &words).status.code(), Some(7));
}

/// A key that was sealed, opened as its format says; in hexadecimal, and as PEM in a file.
#[track_caller]
fn opened(sealed: &Path, passphrase: &Path, plain: &Path) -> Vec<u8> {
    const OPEN: &str = "
import base64, sys
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
sealed, passphrase = (open(name).read() for name in sys.argv[1:3])
data = base64.b64decode(''.join(line for line in sealed.splitlines() if '-' not in line))
number = lambda at: int.from_bytes(data[at:at + 4], 'big')
sealing = Argon2id(salt=data[13:29], length=32, iterations=number(5), lanes=number(9), memory_cost=number(1))
sealing = sealing.derive(passphrase.rstrip('\\n').encode())
key = load_der_private_key(AESGCM(sealing).decrypt(data[29:41], data[41:-32], data[:41]), None)
open(sys.argv[3], 'wb').write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
print('%064x' % key.private_numbers().private_value)
";
    let output = Command::new(program::python()).args(["-c", OPEN]).args([sealed, passphrase, plain]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    hex::decode(String::from_utf8(output.stdout).unwrap().trim()).unwrap()
}

/// How a key may stand in a file: as it is, in hexadecimal, and in base64, where what is before it decides among three ways.
fn forms(key: &[u8]) -> Vec<Vec<u8>> {
    let in_base64 = |before: usize| {
        let encoded = STANDARD.encode([&vec![0; before], key].concat());
        let (begin, end) = ((before * 8).div_ceil(6), (before + key.len()) * 8 / 6);
        encoded.as_bytes()[begin..end].to_vec()
    };
    let hexadecimal = [hex::encode(key), hex::encode_upper(key)].map(String::into_bytes);
    [key.to_vec()].into_iter().chain(hexadecimal).chain((0..3).map(in_base64)).collect()
}

/// The files below a folder that have one of these in them, with the ends of lines or without.
fn holders(folder: &Path, needles: &[Vec<u8>]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(holders(&path, needles));
        } else if entry.file_type().unwrap().is_file() {
            let bytes = fs::read(&path).unwrap();
            let holds = |bytes: &[u8], needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
            let on_one_line = without_spaces(&bytes);
            if needles.iter().any(|needle| holds(&bytes, needle) || holds(&on_one_line, needle)) {
                found.push(path);
            }
        }
    }
    found
}

fn without_spaces(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
}
