//! The largest tree of each log that any source has shown, and that was verified.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use signet_audit::{SignedCheckpoint, VerifierKey};

use super::super::place::Place;

/// One for each log that has a key: they stay few.
#[derive(Default)]
pub(super) struct Heads<'a>(Mutex<BTreeMap<String, Arc<Head<'a>>>>);

pub(super) struct Head<'a> {
    pub(super) signed: SignedCheckpoint,
    /// The same, as it was shown.
    pub(super) note: String,
    /// Where.
    pub(super) source: String,
    pub(super) place: &'a Place,
}

/// Another source was first.
pub(super) struct Overtaken;

impl<'a> Heads<'a> {
    pub(super) fn of(&self, key: &VerifierKey) -> Option<Arc<Head<'a>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key.to_string()).cloned()
    }

    /// Puts one in the place of the one that it was compared with. Not where another has taken that place meanwhile: whoever shows a log
    /// has to be compared with that one too.
    pub(super) fn advance(
        &self,
        key: &VerifierKey,
        compared: Option<&Arc<Head<'a>>>,
        head: Head<'a>,
    ) -> Result<(), Overtaken> {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = match (heads.get(&key.to_string()), compared) {
            (None, None) => true,
            (Some(now), Some(compared)) => Arc::ptr_eq(now, compared),
            _ => false,
        };
        if !is_same {
            return Err(Overtaken);
        }
        heads.insert(key.to_string(), Arc::new(head));
        Ok(())
    }
}
