//! What an issuer has to remember of its keys for tokens, in one file that is replaced whole: a process that is killed at any moment has
//! either made a step or not.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::JwtKeysError;
use super::plan::Times;
use crate::authority::KeyName;
use crate::authority::custody::Algorithm;
use crate::pem_files;

/// The file's contents.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    version: u32,
    pub(super) keys: Vec<Entry>,
    /// Of this issuer, and of others on its database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) revoked: Vec<Revoked>,
    /// Those that are to be destroyed, and sign nothing any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ending: Vec<Ending>,
    /// Who wants another key to sign, which is not published for long enough yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rotation: Option<Act>,
}

/// What an operator did, as it is remembered.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Act {
    /// Microseconds, Unix time.
    pub(crate) at: i64,
    pub(crate) actor: String,
    pub(crate) comment: String,
}

/// A key whose tokens are good nowhere any more.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoked {
    pub(super) kid: KeyName,
    /// A CRLReason by its name (RFC 5280 §5.3.1).
    pub(super) reason: String,
    pub(super) act: Act,
    /// By another issuer, whose word is kept: its own record may be lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) heard: bool,
}

/// A key that rests in the custody for nothing.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ending {
    pub(super) kid: KeyName,
    pub(super) algorithm: Algorithm,
}

/// Times are Unix seconds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    kid: String,
    pub(super) algorithm: Algorithm,
    made_at: i64,
    not_after: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activated_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tainted: Option<Act>,
}

const VERSION: u32 = 1;
/// No journal has more.
const MAX_KEYS: usize = 16;
/// By operators of this issuer; and as many by others.
pub(super) const MOST_REVOKED: usize = 128;
/// No journal names more that are revoked, nor does an issuer tell the others of more. Its own keys are among those that others revoke.
pub(crate) const MOST_NAMED: usize = 2 * MOST_REVOKED + MAX_KEYS;
/// One that cannot be destroyed for years makes place for others.
pub(super) const MOST_ENDING: usize = 64;

impl Journal {
    pub(super) fn of(keys: Vec<Entry>, revoked: Vec<Revoked>, ending: Vec<Ending>, rotation: Option<Act>) -> Self {
        Self { version: VERSION, keys, revoked, ending, rotation }
    }

    /// Empty where there is no file yet.
    pub(super) fn read(path: &Path) -> Result<Self, JwtKeysError> {
        let wrong = |what: String| JwtKeysError::Journal { path: path.to_owned(), what };
        let text = match pem_files::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self::of(Vec::new(), Vec::new(), Vec::new(), None));
            }
            Err(error) => return Err(wrong(error.to_string())),
        };
        let journal: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if journal.version != VERSION {
            return Err(wrong(format!("it is of version {}, and this program knows {VERSION}", journal.version)));
        }
        if !journal.is_bounded() {
            return Err(wrong(format!("it names more than {MAX_KEYS} keys, or {MOST_NAMED} that are revoked")));
        }
        Ok(journal)
    }

    fn is_bounded(&self) -> bool {
        self.keys.len() <= MAX_KEYS && self.revoked.len() <= MOST_NAMED && self.ending.len() <= MOST_ENDING
    }

    /// Durable when this returns.
    pub(super) fn write(&self, path: &Path) -> Result<(), JwtKeysError> {
        let wrong = |source| JwtKeysError::Write { path: path.to_owned(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|error| wrong(error.into()))?;
        // What could not be read again is not written: the step that made it so is not made.
        if text.len() as u64 > pem_files::MAX_FILE || !self.is_bounded() {
            return Err(wrong(ErrorKind::FileTooLarge.into()));
        }
        pem_files::write_whole(path, &text).map_err(wrong)
    }
}

impl Entry {
    pub(super) fn of(kid: &KeyName, algorithm: Algorithm, times: &Times, tainted: Option<Act>) -> Self {
        Self {
            kid: kid.to_string(),
            algorithm,
            made_at: times.made_at.unix_timestamp(),
            not_after: times.not_after.unix_timestamp(),
            activated_at: times.activated_at.map(OffsetDateTime::unix_timestamp),
            retired_at: times.retired_at.map(OffsetDateTime::unix_timestamp),
            tainted,
        }
    }

    /// None of one that names no key, or no times.
    pub(super) fn parsed(&self) -> Option<(KeyName, Times)> {
        let time = |seconds| OffsetDateTime::from_unix_timestamp(seconds).ok();
        let optional = |seconds: Option<i64>| match seconds {
            Some(seconds) => time(seconds).map(Some),
            None => Some(None),
        };
        let times = Times {
            made_at: time(self.made_at)?,
            not_after: time(self.not_after)?,
            activated_at: optional(self.activated_at)?,
            retired_at: optional(self.retired_at)?,
        };
        Some((KeyName::parse(&self.kid)?, times))
    }
}
