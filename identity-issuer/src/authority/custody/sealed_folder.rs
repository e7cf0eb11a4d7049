//! Keys sealed by one passphrase, each in a file of a folder, open in memory while the issuer runs.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{
    Algorithm, CaKey, Custody, CustodyError, JwtKey, JwtPair, KeyFileError, KeyName, Passphrase, Purpose, SealStrength,
    open, seal_new,
};
use crate::key::P256Key;

/// Stands before the PKCS#8 of a key for tokens, under the seal: whoever can write files, and knows no passphrase, makes no such key of an
/// authority's, nor the other way.
const FOR_TOKENS: &[u8] = b"signet jwt key v1\0";

#[derive(Debug)]
pub(crate) struct SealedFolder {
    folder: PathBuf,
    passphrase: Passphrase,
    /// Of keys that are made.
    strength: SealStrength,
}

impl SealedFolder {
    /// The folder is made with the first key.
    pub(crate) fn new(folder: PathBuf, passphrase: Passphrase, strength: SealStrength) -> Self {
        Self { folder, passphrase, strength }
    }

    fn path(&self, name: &KeyName) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    fn make_folder(&self) -> Result<(), KeyFileError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|source| KeyFileError::Write { path: self.folder.clone(), source })
    }
}

impl Custody for SealedFolder {
    fn make(&self) -> Result<CaKey, CustodyError> {
        self.make_folder()?;
        let key = P256Key::generate().map_err(|_| CustodyError::Randomness)?;
        key.seal(&self.path(&CaKey::from(key.clone()).name()), &self.passphrase, self.strength)?;
        Ok(key.into())
    }

    fn open(&self, name: &KeyName) -> Result<CaKey, CustodyError> {
        let path = self.path(name);
        let key = match P256Key::open_sealed(&path, &self.passphrase) {
            Err(KeyFileError::Missing { .. }) => return Err(CustodyError::Gone { name: name.clone() }),
            opened => CaKey::from(opened?),
        };
        // The seal says that whoever knows the passphrase made it, and not for which name.
        if key.name() != *name {
            return Err(KeyFileError::Damaged { path }.into());
        }
        Ok(key)
    }

    fn make_for_tokens(&self, algorithm: Algorithm) -> Result<JwtKey, CustodyError> {
        self.make_folder()?;
        let (key, pkcs8) = JwtPair::generate(algorithm).map_err(|_| CustodyError::Randomness)?;
        let marked = Zeroizing::new([FOR_TOKENS, &pkcs8].concat());
        seal_new(&self.path(key.name()), &marked, &self.passphrase, self.strength)?;
        Ok(key)
    }

    fn open_for_tokens(&self, name: &KeyName, algorithm: Algorithm) -> Result<JwtKey, CustodyError> {
        let path = self.path(name);
        let marked = match open(&path, &self.passphrase) {
            Err(KeyFileError::Missing { .. }) => return Err(CustodyError::Gone { name: name.clone() }),
            opened => opened?,
        };
        let pkcs8 = marked.strip_prefix(FOR_TOKENS);
        let key = pkcs8.and_then(|pkcs8| JwtPair::open(algorithm, pkcs8).ok()).filter(|key| key.name() == name);
        key.ok_or_else(|| KeyFileError::Damaged { path }.into())
    }

    /// Whatever it is for: a file is known by its name.
    fn destroy(&self, name: &KeyName, _purpose: Purpose) -> Result<(), CustodyError> {
        let path = self.path(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(KeyFileError::Write { path, source }.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// They are in memory.
    fn check(&self) -> Result<(), CustodyError> {
        Ok(())
    }
}
