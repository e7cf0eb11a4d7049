//! Keys that are gone with the process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Algorithm, CaKey, Custody, CustodyError, JwtKey, JwtPair, KeyName, LogKey, LogPair, Purpose, SecondKey};
use crate::key::P256Key;

#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Keys>);

#[derive(Debug, Default)]
struct Keys {
    authorities: HashMap<KeyName, CaKey>,
    tokens: HashMap<KeyName, JwtKey>,
    logs: HashMap<KeyName, LogKey>,
    second: HashMap<KeyName, SecondKey>,
}

impl Memory {
    /// Nothing panics while it is held.
    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Custody for Memory {
    fn make(&self) -> Result<CaKey, CustodyError> {
        let key = CaKey::from(P256Key::generate().map_err(|_| CustodyError::Randomness)?);
        self.keys().authorities.insert(key.name(), key.clone());
        Ok(key)
    }

    fn open(&self, name: &KeyName) -> Result<CaKey, CustodyError> {
        self.keys().authorities.get(name).cloned().ok_or_else(|| CustodyError::Gone { name: name.clone() })
    }

    fn make_for_tokens(&self, algorithm: Algorithm) -> Result<JwtKey, CustodyError> {
        let (key, _) = JwtPair::generate(algorithm).map_err(|_| CustodyError::Randomness)?;
        self.keys().tokens.insert(key.name().clone(), key.clone());
        Ok(key)
    }

    fn open_for_tokens(&self, name: &KeyName, algorithm: Algorithm) -> Result<JwtKey, CustodyError> {
        let key = self.keys().tokens.get(name).filter(|key| key.algorithm() == algorithm).cloned();
        key.ok_or_else(|| CustodyError::Gone { name: name.clone() })
    }

    fn make_for_log(&self) -> Result<LogKey, CustodyError> {
        let (key, _) = LogPair::generate().map_err(|_| CustodyError::Randomness)?;
        self.keys().logs.insert(key.name().clone(), key.clone());
        Ok(key)
    }

    fn open_for_log(&self, name: &KeyName) -> Result<LogKey, CustodyError> {
        self.keys().logs.get(name).cloned().ok_or_else(|| CustodyError::Gone { name: name.clone() })
    }

    fn make_second_for_log(&self) -> Result<SecondKey, CustodyError> {
        let (key, _) = SecondKey::generate().map_err(|_| CustodyError::Randomness)?;
        self.keys().second.insert(key.name().clone(), key.clone());
        Ok(key)
    }

    fn open_second_for_log(&self, name: &KeyName) -> Result<SecondKey, CustodyError> {
        self.keys().second.get(name).cloned().ok_or_else(|| CustodyError::Gone { name: name.clone() })
    }

    fn destroy(&self, name: &KeyName, purpose: Purpose) -> Result<(), CustodyError> {
        match purpose {
            Purpose::Authority => drop(self.keys().authorities.remove(name)),
            Purpose::Tokens(_) => drop(self.keys().tokens.remove(name)),
            Purpose::Log => {
                let mut keys = self.keys();
                drop((keys.logs.remove(name), keys.second.remove(name)));
            }
        }
        Ok(())
    }

    /// They are in memory.
    fn check(&self) -> Result<(), CustodyError> {
        Ok(())
    }
}
