//! Keys sealed by one passphrase, each in a file of a folder, open in memory while the issuer runs.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use super::{CaKey, Custody, CustodyError, KeyFileError, KeyName, Passphrase, SealStrength};
use crate::key::P256Key;

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
}

impl Custody for SealedFolder {
    fn make(&self) -> Result<CaKey, CustodyError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|source| KeyFileError::Write { path: self.folder.clone(), source })?;
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

    fn destroy(&self, name: &KeyName) -> Result<(), CustodyError> {
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
