//! Where the log rests, and whose it is: decided once, at the first start.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use signet_audit::{
    CheckpointError, Folder, Origin, OriginError, Previous, ReadError, Resource, SignedCheckpoint, Source as _,
    VerifierKey, WitnessKey,
};
use signet_identity::TrustDomain;

use super::publisher::Published;
use crate::authority::custody::{Custody, CustodyError, KeyName, LogKey, SecondKey};
use crate::pem_files;

/// A log with its key, before it is written to.
#[derive(Clone, Debug)]
pub(crate) struct LogPlace {
    /// Of the log's files, as they are published.
    pub(crate) files: PathBuf,
    pub(crate) key: LogKey,
    pub(crate) verifier: VerifierKey,
    /// Cosigns its checkpoints, where that is wanted.
    pub(crate) second: Option<(WitnessKey, SecondKey)>,
    /// What was published last.
    pub(crate) last: Option<Published>,
    /// The log that this one follows, if it follows one.
    pub(crate) previous: Option<Previous>,
    /// As long as the state is one that was restored from a backup, and nobody has seen to it yet that nothing else was published.
    restored: Option<Restored>,
    folder: PathBuf,
    record: Record,
}

/// A state that was restored.
#[derive(Clone, Debug)]
struct Restored {
    /// What was published, as far as whoever restored it knew.
    published: Option<Published>,
}

/// Why there is no log, and so no issuer.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Key(#[from] CustodyError),
    #[error("the audit log in {} cannot be used", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} was not written by this program\nrestore it from a backup", path.display())]
    Damaged { path: PathBuf },
    #[error("the checkpoint in {} is not this issuer's\nrestore the folder from a backup", path.display())]
    Checkpoint { path: PathBuf, source: CheckpointError },
    #[error("the audit log in {} cannot be read", path.display())]
    Read { path: PathBuf, source: ReadError },
    #[error(
        "the audit log in {} is {found}, and `audit.origin` says {wanted}\n\
         a log keeps its name for ever: change it back, or begin another log in another `state` folder", path.display()
    )]
    OtherOrigin { path: PathBuf, found: Origin, wanted: Origin },
    #[error("the audit log has no name that fits")]
    Origin(#[from] OriginError),
}

/// What is written down of a log beside its files.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    origin: String,
    key: KeyName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    second_key: Option<KeyName>,
}

impl Record {
    fn write(&self, path: &Path) -> Result<(), AuditError> {
        let json = serde_json::to_vec(self).map_err(|_| AuditError::Damaged { path: path.to_owned() })?;
        pem_files::write_whole(path, &json).map_err(io(path))
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> AuditError {
    let path = path.to_owned();
    move |source| AuditError::Io { path, source }
}

impl LogPlace {
    /// In the folder `audit` of the state folder. Makes the key at the first start, which may take seconds. The name of a log is
    /// `origin`; else one that follows from its key, so that no two issuers have the same.
    pub(crate) fn open(
        custody: &dyn Custody,
        state: &Path,
        trust_domain: &TrustDomain,
        origin: Option<&Origin>,
    ) -> Result<Self, AuditError> {
        let folder = state.join("audit");
        let (record_path, files) = (folder.join("log.json"), folder.join("log"));
        DirBuilder::new().recursive(true).mode(0o700).create(&files).map_err(io(&files))?;
        let (record, key) = match std::fs::read(&record_path) {
            Ok(json) => {
                let damaged = || AuditError::Damaged { path: record_path.clone() };
                let record: Record = serde_json::from_slice(&json).map_err(|_| damaged())?;
                let key = custody.open_for_log(&record.key)?;
                (record, key)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let key = custody.make_for_log()?;
                let short = &key.name().as_str()[..SHORT];
                let origin = origin.map_or_else(|| format!("{trust_domain}/audit/{short}"), Origin::to_string);
                let record = Record { origin, key: key.name().clone(), second_key: None };
                record.write(&record_path)?;
                (record, key)
            }
            Err(source) => return Err(io(&record_path)(source)),
        };
        let found: Origin = record.origin.parse()?;
        if let Some(wanted) = origin.filter(|wanted| **wanted != found) {
            return Err(AuditError::OtherOrigin { path: folder, found, wanted: wanted.clone() });
        }
        let verifier = VerifierKey::new(found, *key.public_key());
        // For whoever is to verify the log: to be handed on by people, not by the log.
        let public = folder.join("log.key.pub");
        pem_files::write_whole(&public, format!("{verifier}\n").as_bytes()).map_err(io(&public))?;
        let last = last_checkpoint(&files, &verifier)?;
        let previous = match std::fs::read(folder.join(PREVIOUS)) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            read => {
                let path = folder.join(PREVIOUS);
                let json = read.map_err(io(&path))?;
                Some(serde_json::from_slice(&json).map_err(|_| AuditError::Damaged { path })?)
            }
        };
        let restored = Restored::read(&folder.join(RESTORED), &verifier)?;
        Ok(Self { files, key, verifier, second: None, last, previous, restored, folder, record })
    }

    /// With the log's second key, which is made where there is none. May take seconds.
    pub(crate) fn with_second_key(mut self, custody: &dyn Custody) -> Result<Self, AuditError> {
        let key = match &self.record.second_key {
            Some(name) => custody.open_second_for_log(name)?,
            None => {
                let key = custody.make_second_for_log()?;
                self.record.second_key = Some(key.name().clone());
                self.record.write(&self.folder.join("log.json"))?;
                key
            }
        };
        let verifier = WitnessKey::ml_dsa_44(self.verifier.origin().clone(), key.public_key());
        let public = self.folder.join("log.key.pub");
        let lines = format!("{}\n{verifier}\n", self.verifier);
        pem_files::write_whole(&public, lines.as_bytes()).map_err(io(&public))?;
        self.second = Some((verifier, key));
        Ok(self)
    }

    /// Whether the state was restored, and nobody has seen to it yet that nothing was published behind the backup.
    pub(crate) fn is_restored(&self) -> bool {
        self.restored.is_some()
    }

    /// Whether whoever restored it has said what was published.
    pub(crate) fn is_told(&self) -> bool {
        self.restored.as_ref().is_some_and(|restored| restored.published.is_some())
    }

    /// The largest checkpoint that is known.
    pub(crate) fn newest(&self) -> Option<&Published> {
        let restored = self.restored.as_ref().and_then(|restored| restored.published.as_ref());
        self.last.iter().chain(restored).max_by_key(|published| published.checkpoint.size)
    }

    /// Somebody has. What is appended has to come to what was published.
    pub(crate) fn goes_on(&self) -> Result<(), AuditError> {
        let Some(restored) = &self.restored else { return Ok(()) };
        let own = self.last.as_ref().map_or(0, |last| last.checkpoint.size);
        if let Some(published) = restored.published.as_ref().filter(|published| published.checkpoint.size > own) {
            let written = Folder::new(&self.files).write(Resource::Checkpoint, &published.note);
            written.map_err(io(&self.files))?;
        }
        let path = self.folder.join(RESTORED);
        std::fs::remove_file(&path).map_err(io(&path))
    }

    /// The log that this one follows, where that may not leave entries behind that are in no log.
    pub(crate) fn follows(&self) -> Option<Previous> {
        self.previous.clone().filter(|_| !self.folder.join(LEAVES_UNPUBLISHED).exists())
    }

    /// Entries that the world has seen.
    pub(crate) fn published(&self) -> u64 {
        self.newest().map_or(0, |published| published.checkpoint.size)
    }
}

impl Restored {
    fn read(path: &Path, key: &VerifierKey) -> Result<Option<Self>, AuditError> {
        match std::fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io(path)(source)),
            Ok(note) if note.is_empty() => Ok(Some(Self { published: None })),
            Ok(note) => {
                let published = Published::open(note.into(), key);
                let published = published.map_err(|source| AuditError::Checkpoint { path: path.to_owned(), source })?;
                Ok(Some(Self { published: Some(published) }))
            }
        }
    }
}

/// The last checkpoint in a folder, which has to be signed by this key.
pub(crate) fn last_checkpoint(files: &Path, key: &VerifierKey) -> Result<Option<Published>, AuditError> {
    let path = || files.to_owned();
    let note = match Folder::new(files).checkpoint() {
        // Written twice a second, it is not synced each time: after a power cut a file system may have its name and not its bytes.
        Ok(note) if note.iter().all(|byte| *byte == 0) => {
            tracing::warn!(path = %files.display(), "the log's last checkpoint was lost, by a power cut perhaps: it is signed anew");
            return Ok(None);
        }
        Ok(note) => note,
        Err(ReadError::Missing { .. }) => return Ok(None),
        Err(source) => return Err(AuditError::Read { path: path(), source }),
    };
    let published = Published::open(note.into(), key);
    published.map(Some).map_err(|source| AuditError::Checkpoint { path: path(), source })
}

impl Published {
    fn open(note: Bytes, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let SignedCheckpoint { checkpoint, time } = SignedCheckpoint::open(&note, key)?;
        let signed = without_cosignatures(&note, key);
        Ok(Self { checkpoint, signed, note, time, over: time })
    }
}

/// A checkpoint with the signatures of its log alone.
fn without_cosignatures(note: &Bytes, key: &VerifierKey) -> Bytes {
    let text = String::from_utf8_lossy(note);
    let Some((text, lines)) = text.split_once("\n\n") else { return note.clone() };
    let own = format!("\u{2014} {} ", key.origin());
    let lines: String = lines.lines().filter(|line| line.starts_with(&own)).map(|line| format!("{line}\n")).collect();
    format!("{text}\n\n{lines}").into()
}

/// In the folder `audit`: JSON of [`Previous`], written by `signet audit new-log`.
pub const PREVIOUS: &str = "previous.json";
/// In the folder `audit`: written by `signet audit new-log` where the log before may leave entries that nobody publishes.
pub const LEAVES_UNPUBLISHED: &str = "leaves-unpublished";
/// In the folder `audit`: written by `signet restore`. The checkpoint that was published last, where that is known, else nothing.
pub const RESTORED: &str = "restored";
/// Hexadecimal digits of a key's name: enough that no two issuers of a trust domain have the same.
const SHORT: usize = 8;
