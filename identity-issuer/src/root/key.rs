//! Where a root's key rests: in a file that a passphrase seals, or in a token (PKCS#11).

use std::path::{Path, PathBuf};

use rcgen::PublicKeyData as _;
use serde::{Deserialize, Serialize};

use super::{RootError, paths};
use crate::authority::custody::{
    CaKey, Custody as _, Device, KeyFileError, KeyName, Passphrase, SealStrength, TokenName, TokenPlace,
};
use crate::authority::{CaCertificate, CustodyError};
use crate::key::P256Key;
use crate::pem_files;

/// What opens it.
#[derive(Debug)]
pub enum Unlock<'a> {
    Passphrase(&'a Passphrase),
    /// File whose first line is the PIN of the token's user.
    PinFile(&'a Path),
}

/// Which token the key is in; the key is found there by the name that follows from the root's certificate.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    module: PathBuf,
    token: Named,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Named {
    Label(String),
    Serial(String),
}

pub(super) fn make_sealed(folder: &Path, passphrase: &Passphrase, strength: SealStrength) -> Result<CaKey, RootError> {
    refuse_another(folder)?;
    let made = P256Key::generate_sealed(&paths(folder).0, passphrase, strength);
    made.map(CaKey::from).map_err(|error| match error {
        KeyFileError::Exists { .. } => RootError::Exists { folder: folder.to_owned() },
        error => RootError::Key(error),
    })
}

pub(super) fn make_in_token(folder: &Path, place: &TokenPlace) -> Result<CaKey, RootError> {
    refuse_another(folder)?;
    let named = match &place.token {
        TokenName::Label(label) => Named::Label(label.clone()),
        TokenName::Serial(serial) => Named::Serial(serial.clone()),
    };
    let path = token_path(folder);
    let file = TokenFile { module: place.module.clone(), token: named };
    let text = serde_json::to_string_pretty(&file).map_err(|_| RootError::TokenFile { path: path.clone() })?;
    let device = Device::open(place.clone()).map_err(CustodyError::from)?;
    let key = device.make()?;
    pem_files::write_whole(&path, format!("{text}\n").as_bytes()).map_err(|source| RootError::Io { path, source })?;
    Ok(key)
}

/// A folder has one key.
fn refuse_another(folder: &Path) -> Result<(), RootError> {
    match paths(folder).0.exists() || token_path(folder).exists() {
        true => Err(RootError::Exists { folder: folder.to_owned() }),
        false => Ok(()),
    }
}

/// The key in `folder`, which has to be that of the root's certificate.
pub(super) fn open(folder: &Path, root: &CaCertificate, unlock: &Unlock<'_>) -> Result<CaKey, RootError> {
    let is_in_token = token_path(folder).exists();
    let key = match unlock {
        Unlock::Passphrase(passphrase) if !is_in_token => P256Key::open_sealed(&paths(folder).0, passphrase)?.into(),
        Unlock::PinFile(pin_file) if is_in_token => {
            let device = Device::open(place(folder, pin_file)?).map_err(CustodyError::from)?;
            device.open(&KeyName::of(&root.spki))?
        }
        Unlock::Passphrase(_) | Unlock::PinFile(_) => {
            let (rests, wanted) = match is_in_token {
                true => ("in a token", "its PIN with --pin-file"),
                false => ("sealed by a passphrase", "it with --passphrase-file or --passphrase-fd"),
            };
            return Err(RootError::WrongUnlock { folder: folder.to_owned(), rests, wanted });
        }
    };
    match key.subject_public_key_info() == root.spki {
        true => Ok(key),
        false => Err(RootError::Certificate { path: paths(folder).1, what: "it is not of the key beside it" }),
    }
}

fn place(folder: &Path, pin_file: &Path) -> Result<TokenPlace, RootError> {
    let path = token_path(folder);
    let text = pem_files::read(&path).map_err(|source| RootError::Io { path: path.clone(), source })?;
    let TokenFile { module, token } = serde_json::from_slice(&text).map_err(|_| RootError::TokenFile { path })?;
    let token = match token {
        Named::Label(label) => TokenName::Label(label),
        Named::Serial(serial) => TokenName::Serial(serial),
    };
    Ok(TokenPlace { module, token, pin_file: pin_file.to_owned(), sessions: 1 })
}

pub(super) fn token_path(folder: &Path) -> PathBuf {
    folder.join("root.token")
}
