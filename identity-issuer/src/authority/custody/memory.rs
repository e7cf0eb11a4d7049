//! Keys that are gone with the process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{CaKey, Custody, CustodyError, KeyName};
use crate::key::P256Key;

#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<HashMap<KeyName, CaKey>>);

impl Memory {
    /// Nothing panics while it is held.
    fn keys(&self) -> MutexGuard<'_, HashMap<KeyName, CaKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Custody for Memory {
    fn make(&self) -> Result<CaKey, CustodyError> {
        let key = CaKey::from(P256Key::generate().map_err(|_| CustodyError::Randomness)?);
        self.keys().insert(key.name(), key.clone());
        Ok(key)
    }

    fn open(&self, name: &KeyName) -> Result<CaKey, CustodyError> {
        self.keys().get(name).cloned().ok_or_else(|| CustodyError::Gone { name: name.clone() })
    }

    fn destroy(&self, name: &KeyName) -> Result<(), CustodyError> {
        self.keys().remove(name);
        Ok(())
    }

    /// They are in memory.
    fn check(&self) -> Result<(), CustodyError> {
        Ok(())
    }
}
