//! A log's key in SoftHSM2, which is to a program what an HSM is. Debian's package `softhsm2` brings it.
//!
//! The library reads where its tokens are from the environment, and once in a process: each act on a token runs in a process of its own, as
//! an issuer does between two restarts.

#![allow(clippy::unwrap_used, clippy::panic)]
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use cryptoki::context::{CInitializeArgs, CInitializeFlags};
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use cryptoki::session::Session;

use super::module::Module;
use super::*;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const LABEL: &str = "issuing";
const PIN: &str = "7391-user";
const TEXT: &[u8] = b"example.org/audit/1\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

type Act = (&'static str, fn(&Place));

/// Those that [`child`] does, by the names that [`Place::act`] gives it.
const ACTS: [Act; 6] = [
    ("make", make),
    ("open again", open_again),
    ("open for others", open_for_others),
    ("steal", steal),
    ("lose the token", lose_the_token),
    ("do without Ed25519", do_without_ed25519),
];

/// A folder with one token.
struct Place {
    folder: PathBuf,
}

impl Place {
    /// `settings`: lines for the module.
    fn new(folder: &tempfile::TempDir, settings: &str) -> Self {
        let place = Self { folder: folder.path().to_owned() };
        fs::create_dir(place.at("tokens")).unwrap();
        let tokens = place.at("tokens");
        let settings = format!("directories.tokendir = {}\nlog.level = ERROR\n{settings}", tokens.display());
        fs::write(place.at("softhsm2.conf"), settings).unwrap();
        fs::write(place.at("pin"), format!("{PIN}\n")).unwrap();
        let words = ["--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", "8264-officer"];
        let made = Command::new("softhsm2-util").args(words).env("SOFTHSM2_CONF", place.at("softhsm2.conf")).output();
        let made = made.unwrap_or_else(|error| panic!("softhsm2-util, of Debian's package softhsm2: {error}"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// In a process of its own.
    fn act(&self, name: &str) {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "authority::custody::pkcs11::tests::child", "--nocapture"])
            .env("SIGNET_TEST_CUSTODY", name)
            .env("SIGNET_TEST_CUSTODY_FOLDER", &self.folder)
            .env("SOFTHSM2_CONF", self.at("softhsm2.conf"))
            .output()
            .unwrap();
        let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success() && told.contains(&format!("done: {name}\n")), "{name}: {told}");
    }

    fn device(&self) -> Device {
        let token = TokenName::Label(LABEL.to_owned());
        Device::open(TokenPlace { module: MODULE.into(), token, pin_file: self.at("pin"), sessions: 2 }).unwrap()
    }

    /// The key that [`make`] made.
    fn name(&self) -> KeyName {
        KeyName::parse(&fs::read_to_string(self.at("name")).unwrap()).unwrap()
    }
}

#[test]
fn child() {
    let Ok(wanted) = std::env::var("SIGNET_TEST_CUSTODY") else { return };
    let place = Place { folder: std::env::var_os("SIGNET_TEST_CUSTODY_FOLDER").unwrap().into() };
    let (_, act) = ACTS.iter().find(|(name, _)| *name == wanted).unwrap();
    act(&place);
    println!("done: {wanted}");
}

fn acts(settings: &str, names: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(&folder, settings);
    for name in names {
        place.act(name);
    }
}

#[test]
fn a_logs_key_is_made_in_the_token_and_signs_again_after_a_restart() {
    acts("", &["make", "open again", "open again"]);
}

fn make(place: &Place) {
    let key = place.device().make_for_log().unwrap();
    signs(&key);
    assert_eq!(format!("{key:?}"), format!("LogKey(KeyName({:?}))", key.name().as_str()));
    fs::write(place.at("name"), key.name().as_str()).unwrap();
    fs::write(place.at("public"), key.public_key()).unwrap();
}

fn open_again(place: &Place) {
    let key = place.device().open_for_log(&place.name()).unwrap();
    assert_eq!((key.name().clone(), key.public_key().to_vec()), (place.name(), fs::read(place.at("public")).unwrap()));
    signs(&key);
}

/// What is a checkpoint, and nothing else.
fn signs(key: &LogKey) {
    let signature = key.sign(TEXT).unwrap();
    UnparsedPublicKey::new(&ED25519, key.public_key()).verify(TEXT, &signature).unwrap();
    for wrong in [&statement("signet key check v1", &[])[..], b"", &[TEXT, b"more\n"].concat()] {
        assert!(matches!(key.sign(wrong), Err(SignError::NotOfKind { .. })));
    }
}

#[test]
fn a_logs_key_in_a_token_opens_for_nothing_else_nor_any_other_for_a_log_until_it_is_destroyed() {
    acts("", &["make", "open for others"]);
}

fn open_for_others(place: &Place) {
    let (device, log) = (place.device(), place.name());
    let authority = device.make().unwrap().name();
    let tokens = [Algorithm::Es256, Algorithm::Rs256].map(|algorithm| {
        let key = device.make_for_tokens(algorithm).unwrap();
        (algorithm, key.name().clone())
    });
    let is_gone = |error: CustodyError| matches!(error, CustodyError::Gone { .. });
    assert!(is_gone(device.open(&log).unwrap_err()) && is_gone(device.open_for_log(&authority).unwrap_err()));
    device.destroy(&log, Purpose::Authority).unwrap();
    for (algorithm, name) in &tokens {
        assert!(is_gone(device.open_for_tokens(&log, *algorithm).unwrap_err()));
        assert!(is_gone(device.open_for_log(name).unwrap_err()));
        device.destroy(&log, Purpose::Tokens(*algorithm)).unwrap();
        device.destroy(name, Purpose::Log).unwrap();
        device.open_for_tokens(name, *algorithm).unwrap();
    }
    device.destroy(&authority, Purpose::Log).unwrap();
    device.open(&authority).unwrap();
    // There is no second key in a token.
    for refused in [device.make_second_for_log(), device.open_second_for_log(&log)] {
        assert!(matches!(refused, Err(CustodyError::NoMlDsa)));
    }
    device.open_for_log(&log).unwrap();

    device.destroy(&log, Purpose::Log).unwrap();
    device.destroy(&log, Purpose::Log).unwrap();
    assert!(is_gone(device.open_for_log(&log).unwrap_err()));
    // Of each, both halves.
    assert_eq!(halves(&device), [3, 3]);
}

/// How many private and public keys there are.
fn halves(device: &Device) -> [usize; 2] {
    [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY].map(|class| {
        let count = |session: &Session| Ok(session.find_objects(&[Attribute::Class(class)])?.len());
        device.token.attempt_writing(count).unwrap()
    })
}

#[test]
fn a_logs_key_never_leaves_the_token_and_one_that_could_is_not_taken() {
    acts("", &["make", "steal"]);
}

fn steal(place: &Place) {
    let (device, name) = (place.device(), place.name());
    let tried = |session: &Session| {
        let key = objects::private_half(session, Purpose::Log, &name)?;
        let value = session.get_attributes(key, &[AttributeType::Value]).unwrap_or_default();
        assert!(!value.iter().any(|told| matches!(told, Attribute::Value(bytes) if !bytes.is_empty())), "it was told");
        for open in [Attribute::Extractable(true), Attribute::Sensitive(false)] {
            session.update_attributes(key, std::slice::from_ref(&open)).unwrap_err();
            session.copy_object(key, &[open]).unwrap_err();
        }
        let wrapping = [Attribute::Wrap(true), Attribute::Token(false), Attribute::ValueLen(32.into())];
        let wrapping = session.generate_key(&Mechanism::AesKeyGen, &wrapping)?;
        session.wrap_key(&Mechanism::AesKeyWrapPad, wrapping, key).unwrap_err();
        Ok(())
    };
    device.token.attempt_writing(tried).unwrap();

    // What somebody else made there, so that it can leave, under a name and a label as ours have.
    let open = |session: &Session| {
        let params = Attribute::EcParams(vec![0x06, 0x03, 0x2b, 0x65, 0x70]);
        let public = [Attribute::Token(true), Attribute::Verify(true), params];
        let private =
            [Attribute::Token(true), Attribute::Sensitive(false), Attribute::Extractable(true), Attribute::Sign(true)];
        let halves = session.generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, &private)?;
        let name = "00112233445566778899aabbccddeeff00112233";
        for half in [halves.0, halves.1] {
            let id = Attribute::Id(hex::decode(name).unwrap());
            session.update_attributes(half, &[id, Attribute::Label(format!("signet log {name}").into_bytes())])?;
        }
        Ok(KeyName::parse(name).unwrap())
    };
    let open = device.token.attempt_writing(open).unwrap();
    let refused = device.open_for_log(&open).unwrap_err();
    assert!(matches!(refused, CustodyError::Token(TokenError::Exportable)), "{refused}");
}

#[test]
fn a_logs_key_signs_again_after_its_sessions_were_lost_and_once_its_token_is_back() {
    acts("", &["make", "lose the token"]);
}

fn lose_the_token(place: &Place) {
    let key = place.device().open_for_log(&place.name()).unwrap();
    signs(&key);
    let module = Module::load(Path::new(MODULE)).unwrap();
    for _ in 0..3 {
        // As when a device was restarted: it knows nothing any more of sessions and logins.
        {
            let library = module.enter().library.clone();
            library.clone().finalize().unwrap();
            library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
        }
        signs(&key);
    }
    for _ in 0..2 {
        fs::rename(place.at("tokens"), place.at("drawer")).unwrap();
        fs::create_dir(place.at("tokens")).unwrap();
        until("nothing is signed", || matches!(key.sign(TEXT), Err(SignError::Token(_))));
        fs::remove_dir(place.at("tokens")).unwrap();
        fs::rename(place.at("drawer"), place.at("tokens")).unwrap();
        until("a signature", || key.sign(TEXT).is_ok());
        signs(&key);
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "in 20 seconds not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_token_that_does_not_sign_by_ed25519_says_so_keeps_no_key_and_is_good_for_all_others() {
    // It makes such keys nevertheless.
    acts("slots.mechanisms = CKM_EC_KEY_PAIR_GEN,CKM_ECDSA\n", &["do without Ed25519"]);
}

fn do_without_ed25519(place: &Place) {
    let device = place.device();
    let authority = device.make().unwrap().name();
    let refused = device.make_for_log().unwrap_err();
    assert!(matches!(refused, CustodyError::Token(TokenError::NoEd25519 { .. })), "{refused}");
    assert!(refused.to_string().contains("`audit.passphrase_file`"), "{refused}");
    assert_eq!(halves(&device), [1, 1]);
    device.open(&authority).unwrap();
}
