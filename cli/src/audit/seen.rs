//! What was verified of a log before: whoever shows another past later is found out.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use signet_audit::{Hash, SignedCheckpoint, VerifierKey};

use crate::failure::Failure;
use crate::output;

/// On record in a file for each log.
pub(super) struct Seen {
    /// None where there is nowhere to write.
    path: Option<PathBuf>,
    last: Option<Last>,
    key: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Last {
    /// The public key.
    key: String,
    pub(super) size: u64,
    root: String,
    /// Unix seconds.
    time: u64,
}

impl Last {
    pub(super) fn root(&self) -> Result<Hash, Failure> {
        Hash::parse_hash(&self.root).map_err(|_| Failure::new("what was seen of the log before has no root"))
    }
}

impl Seen {
    /// In `path`, else in a file of the user's that is named after the key.
    pub(super) fn read(path: Option<&Path>, key: &VerifierKey) -> Result<Self, Failure> {
        let Some(path) = path.map(Path::to_owned).or_else(|| default_path(key)) else {
            output::warn("there is no home folder to write down how far the log was verified: give --state")?;
            return Ok(Self { path: None, last: None, key: key.to_string() });
        };
        let wrong = |cause: &dyn std::fmt::Display| {
            Failure::new(format!("{}: {cause}", path.display()))
                .remedy("it says what was seen of the log before; restore it, or remove it to begin anew")
        };
        let last: Option<Last> = match std::fs::read(&path) {
            Ok(json) => Some(serde_json::from_slice(&json).map_err(|error| wrong(&error))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(wrong(&error)),
        };
        match last.as_ref().is_some_and(|last| last.key != key.to_string()) {
            true => Err(wrong(&"it is of a log with another key")),
            false => Ok(Self { path: Some(path), last, key: key.to_string() }),
        }
    }

    pub(super) fn last(&self) -> Option<&Last> {
        self.last.as_ref()
    }

    pub(super) fn path(&self) -> String {
        self.path.as_ref().map_or_else(String::new, |path| path.display().to_string())
    }

    /// That the log does not show an older checkpoint than before.
    pub(super) fn check_time(&self, signed: &SignedCheckpoint) -> Result<(), Failure> {
        match self.last.as_ref().filter(|last| last.time > signed.time) {
            None => Ok(()),
            Some(last) => Err(Failure::new(format!(
                "the checkpoint is older than the one that was seen before, by {}",
                output::span(last.time - signed.time)
            ))
            .remedy("this is an older copy of the log, or somebody keeps newer checkpoints back")),
        }
    }

    pub(super) fn write(&self, signed: &SignedCheckpoint) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let last = Last {
            key: self.key.clone(),
            size: signed.checkpoint.size,
            root: signed.checkpoint.root.to_string(),
            time: signed.time,
        };
        let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let next = path.with_extension("new");
        std::fs::write(&next, output::serialized(output::Format::Json, &last)?).map_err(failed)?;
        std::fs::rename(&next, path).map_err(failed)
    }
}

fn default_path(key: &VerifierKey) -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = folder.or_else(|| Some(std::env::home_dir()?.join(".local/state")))?;
    // The hash in it tells logs of one name apart.
    let name: String = key.to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    Some(folder.join("signet/audit").join(format!("{name:.200}.json")))
}
