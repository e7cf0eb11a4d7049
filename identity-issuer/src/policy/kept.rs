//! The policy that was in force last, in the state folder: an issuer that is started while the record is not what it was goes on with it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use signet_policy::Rule;

use super::{Actor, Revision, RevisionHead};
use crate::pem_files::write_whole;
use crate::utc::{microseconds, of_microseconds};

/// Where it is. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct KeptPolicy(PathBuf);

/// What is in the file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    revision: u64,
    /// Microseconds, Unix time.
    created_at: i64,
    actor: String,
    comment: String,
    removed: usize,
    rules: Vec<Rule>,
}

/// Somewhat more than a policy with as many rules as there may be.
const MOST: u64 = 64 << 20;

impl KeptPolicy {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// None where there is none, or where it cannot be read: then the record alone counts.
    pub(super) fn read(&self) -> Option<Revision> {
        let length = std::fs::metadata(&self.0).ok()?.len();
        let text = if length <= MOST { std::fs::read_to_string(&self.0).ok() } else { None };
        let written: Option<Written> = text.and_then(|text| serde_json::from_str(&text).ok());
        let Some(Written { revision, created_at, actor, comment, removed, rules }) = written else {
            tracing::warn!(path = %self.0.display(), "the policy that was in force last cannot be read");
            return None;
        };
        let created_at = of_microseconds(created_at)?;
        let head =
            RevisionHead { number: revision, created_at, actor: Actor::of_record(actor), comment, rules: rules.len() };
        Some(Revision { head, removed, rules })
    }

    /// Blocks. What cannot be written is told, and holds nobody up.
    pub(super) fn write(&self, revision: &Revision) {
        let Revision { head, removed, rules } = revision;
        let written = Written {
            revision: head.number,
            created_at: microseconds(head.created_at),
            actor: head.actor.as_str().to_owned(),
            comment: head.comment.clone(),
            removed: *removed,
            rules: rules.clone(),
        };
        let outcome =
            serde_json::to_vec(&written).map_err(std::io::Error::other).and_then(|text| write_whole(&self.0, &text));
        if let Err(error) = outcome {
            tracing::warn!(%error, path = %self.0.display(), "the policy in force is not kept for the next start");
        }
    }
}
