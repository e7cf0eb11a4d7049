//! Keys sealed by one passphrase, each in a file of a folder, open in memory while the issuer runs.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{
    Algorithm, CaKey, Custody, CustodyError, JwtKey, JwtPair, KeyFileError, KeyName, LogKey, LogPair, Passphrase,
    Purpose, SealStrength, SecondKey, open, seal_new,
};
use crate::key::P256Key;

/// Stands before the PKCS#8 of a key for tokens, under the seal: whoever can write files, and knows no passphrase, makes no such key of an
/// authority's, nor the other way.
const FOR_TOKENS: &[u8] = b"signet jwt key v1\0";
/// The same, of a log's key.
const FOR_LOGS: &[u8] = b"signet log key v1\0";
const SECOND_FOR_LOGS: &[u8] = b"signet second log key v1\0";

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

    fn seal_marked(&self, name: &KeyName, mark: &[u8], pkcs8: &[u8]) -> Result<(), CustodyError> {
        self.make_folder()?;
        let marked = Zeroizing::new([mark, pkcs8].concat());
        Ok(seal_new(&self.path(name), &marked, &self.passphrase, self.strength)?)
    }

    /// `read` makes the key of its PKCS#8; of what is none of this name, nothing.
    fn open_marked<Key>(
        &self,
        name: &KeyName,
        mark: &[u8],
        read: impl FnOnce(&[u8]) -> Option<Key>,
    ) -> Result<Key, CustodyError> {
        let path = self.path(name);
        let marked = match open(&path, &self.passphrase) {
            Err(KeyFileError::Missing { .. }) => return Err(CustodyError::Gone { name: name.clone() }),
            opened => opened?,
        };
        let key = marked.strip_prefix(mark).and_then(read);
        key.ok_or_else(|| KeyFileError::Damaged { path }.into())
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
        let (key, pkcs8) = JwtPair::generate(algorithm).map_err(|_| CustodyError::Randomness)?;
        self.seal_marked(key.name(), FOR_TOKENS, &pkcs8)?;
        Ok(key)
    }

    fn open_for_tokens(&self, name: &KeyName, algorithm: Algorithm) -> Result<JwtKey, CustodyError> {
        let read = |pkcs8: &[u8]| JwtPair::open(algorithm, pkcs8).ok().filter(|key| key.name() == name);
        self.open_marked(name, FOR_TOKENS, read)
    }

    fn make_for_log(&self) -> Result<LogKey, CustodyError> {
        let (key, pkcs8) = LogPair::generate().map_err(|_| CustodyError::Randomness)?;
        self.seal_marked(key.name(), FOR_LOGS, &pkcs8)?;
        Ok(key)
    }

    fn open_for_log(&self, name: &KeyName) -> Result<LogKey, CustodyError> {
        let read = |pkcs8: &[u8]| LogPair::open(pkcs8).ok().filter(|key| key.name() == name);
        self.open_marked(name, FOR_LOGS, read)
    }

    fn make_second_for_log(&self) -> Result<SecondKey, CustodyError> {
        let (key, pkcs8) = SecondKey::generate().map_err(|_| CustodyError::Randomness)?;
        self.seal_marked(key.name(), SECOND_FOR_LOGS, &pkcs8)?;
        Ok(key)
    }

    fn open_second_for_log(&self, name: &KeyName) -> Result<SecondKey, CustodyError> {
        let read = |pkcs8: &[u8]| SecondKey::open(pkcs8).ok().filter(|key| key.name() == name);
        self.open_marked(name, SECOND_FOR_LOGS, read)
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
