//! What an issuer has to remember of its authorities, in one file that is replaced whole: a process that is killed at any moment has
//! either made a step or not.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::AuthorityError;
use super::stage::Stage;
use crate::bundles::Roots;
use crate::pem_files;

/// The file's contents.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    pub(super) version: u32,
    pub(super) authorities: Vec<Entry>,
    /// Of the file in which certificates are dropped: the SHA-256 of what was taken from it last, hexadecimal.
    pub(super) taken: Option<String>,
    /// The one that is under way.
    pub(super) rotation: Option<Rotation>,
    pub(super) roots: Roots,
}

/// How the one that signs is being replaced.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    /// The key of the one to come; none where that has yet to be signed.
    pub(crate) successor: Option<String>,
    /// With a new root above it.
    pub(crate) root: Option<RootChange>,
    /// Microseconds, Unix time.
    pub(crate) begun_at: i64,
    pub(crate) actor: String,
    pub(crate) comment: String,
    /// Who did not want to wait for all that are connected.
    pub(crate) overridden_by: Option<String>,
    /// Since when those who are connected are told of the successor: microseconds, Unix time.
    pub(crate) told_at: Option<i64>,
}

/// Roots are named by the SHA-256 of their certificates, hexadecimal.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RootChange {
    pub(crate) to: Vec<String>,
    pub(crate) from: Vec<String>,
    /// What the roots before have signed is being replaced.
    pub(crate) tainted: bool,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Of its key, as the custody has it.
    pub(super) key: String,
    pub(super) stage: Stage,
    /// When it came to that: microseconds, Unix time.
    pub(super) since: i64,
    /// PEM: its own certificate, and those above it.
    pub(super) chain: Option<String>,
}

pub(super) const VERSION: u32 = 1;

impl Default for Journal {
    fn default() -> Self {
        Self { version: VERSION, authorities: Vec::new(), taken: None, rotation: None, roots: Roots::default() }
    }
}

impl Journal {
    /// Empty where there is no file yet.
    pub(super) fn read(path: &Path) -> Result<Self, AuthorityError> {
        let wrong = |what: String| AuthorityError::Journal { path: path.to_owned(), what };
        let text = match pem_files::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let journal: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if journal.version != VERSION {
            return Err(wrong(format!("it is of version {}, and this program knows {VERSION}", journal.version)));
        }
        Ok(journal)
    }

    /// Durable when this returns.
    pub(super) fn write(&self, path: &Path) -> Result<(), AuthorityError> {
        let wrong = |source| AuthorityError::Write { path: path.to_owned(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|error| wrong(error.into()))?;
        // What could not be read again is not written: the step that made it so is not made.
        if text.len() as u64 > pem_files::MAX_FILE {
            return Err(wrong(ErrorKind::FileTooLarge.into()));
        }
        pem_files::write_whole(path, &text).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_what_is_damaged_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authorities.json");
        assert_eq!(Journal::read(&path).unwrap(), Journal::default());
        let entry = Entry { key: "00".repeat(20), stage: Stage::Retired, since: 1, chain: Some("PEM".to_owned()) };
        let journal = Journal { authorities: vec![entry], taken: Some("ab".to_owned()), ..Journal::default() };
        journal.write(&path).unwrap();
        assert_eq!(Journal::read(&path).unwrap(), journal);
        let text = std::fs::read_to_string(&path).unwrap();
        for wrong in
            [&text[..20], "", &text.replace("retired", "tired"), &text.replace("\"version\": 1", "\"version\": 2")]
        {
            std::fs::write(&path, wrong).unwrap();
            assert!(matches!(Journal::read(&path), Err(AuthorityError::Journal { .. })), "{wrong}");
        }
    }
}
