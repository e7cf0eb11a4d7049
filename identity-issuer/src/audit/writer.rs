//! The files of the log: tiles and entries as they become whole, and a checkpoint that says what there is.
//!
//! What is published is in the database until the files are on disk to stay. So whatever becomes of a file that was not synced, the
//! writer begins again where the database does, and writes the same.

use std::fs::File;
use std::path::PathBuf;

use signet_audit::{
    AppendError, Bundle, BundleError, Checkpoint, DigestFault, Edge, Folder, Resource, RestoreError, sign,
};

use super::hours::Hours;
use super::place::{AuditError, LogPlace, last_checkpoint};
use super::publisher::Published;
use super::witnesses::Cosigned;
use crate::authority::SignError;
use crate::store::Waiting;

/// Holds the end of the tree. After an error it is of no use any more: another one is opened.
#[derive(Debug)]
pub(super) struct Writer {
    place: LogPlace,
    edge: Edge,
    /// The last that was signed: the tree has to come to it again.
    last: Option<Checkpoint>,
    hours: Hours,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("{} cannot be written", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the end of the log cannot be read from its files")]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Place(#[from] AuditError),
    #[error("what waits to be published begins at entry {found}, not at {expected}")]
    Gap { found: u64, expected: u64 },
    #[error("what waits to be published is damaged")]
    Waiting(#[from] BundleError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(
        "the database and the files of the log have different entries before {size}: one of both is not of this issuer, or was replaced; \
         nothing more is published"
    )]
    Forked { size: u64 },
    #[error("the checkpoint cannot be signed")]
    Sign(#[from] SignError),
    #[error("the digests of the log cannot be gone on with")]
    Digest(#[from] DigestFault),
}

impl Writer {
    /// Goes on behind the first `kept` entries: those are in files that stay.
    pub(super) fn open(place: LogPlace, kept: u64) -> Result<Self, WriteError> {
        let edge = Edge::restore(&Folder::new(&place.files), kept)?;
        let last = last_checkpoint(&place.files, &place.verifier)?;
        let hours = Hours::open(&place, last.as_ref().map(|last| last.time))?;
        let writer = Self { place, edge, last: last.map(|last| last.checkpoint), hours };
        writer.check()?;
        Ok(writer)
    }

    /// Entries that were written.
    pub(super) fn size(&self) -> u64 {
        self.edge.size()
    }

    pub(super) fn append(&mut self, waiting: Waiting) -> Result<(), WriteError> {
        if waiting.first != self.edge.size() {
            return Err(WriteError::Gap { found: waiting.first, expected: self.edge.size() });
        }
        let mut files = Vec::new();
        for entry in Bundle::parse_all(waiting.entries)?.entries() {
            self.edge.append(entry, |resource, bytes| files.push((resource, bytes)))?;
            self.check()?;
        }
        files.into_iter().try_for_each(|(resource, bytes)| self.write(resource, &bytes))
    }

    /// Signs what is written, as of `time` in Unix seconds, and a digest of each hour that is `over`; what witnesses say of the same tree stands below it. None where the tree is not where it was yet.
    pub(super) fn publish(
        &mut self,
        time: u64,
        over: u64,
        cosigned: &Cosigned,
    ) -> Result<Option<Published>, WriteError> {
        let verifier = &self.place.verifier;
        let checkpoint =
            Checkpoint { origin: verifier.origin().clone(), size: self.edge.size(), root: self.edge.root() };
        if self.last.as_ref().is_some_and(|last| last.size > checkpoint.size) {
            return Ok(None);
        }
        if self.last.as_ref() != Some(&checkpoint) {
            for (resource, bytes) in self.edge.partial() {
                self.write(resource, &bytes)?;
            }
        }
        // As it was before this.
        self.hours.end(&self.place, self.last.as_ref().unwrap_or(&checkpoint), over)?;
        let key = &self.place.key;
        let mut note = sign(&checkpoint, verifier, time, |message| key.sign(message))?;
        if let Some((verifier, key)) = &self.place.second {
            note.push_str(&verifier.cosign(&checkpoint, time, |message| key.sign(message))?);
        }
        let is_same = cosigned.checkpoint.as_ref() == Some(&checkpoint);
        let shown = if is_same { format!("{note}{}", cosigned.lines) } else { note.clone() };
        self.write(Resource::Checkpoint, shown.as_bytes())?;
        self.last = Some(checkpoint.clone());
        Ok(Some(Published { checkpoint, signed: note.into(), note: shown.into(), time, over }))
    }

    /// Returns once what was written stays there, whatever happens to the power.
    pub(super) fn sync(&self) -> Result<(), WriteError> {
        let files = &self.place.files;
        let synced = File::open(files).and_then(|folder| Ok(rustix::fs::syncfs(folder)?));
        synced.map_err(|source| WriteError::Io { path: files.clone(), source })
    }

    /// That a tree as large as the one that was signed last is the same.
    fn check(&self) -> Result<(), WriteError> {
        match &self.last {
            Some(last) if last.size == self.edge.size() && last.root != self.edge.root() => {
                Err(WriteError::Forked { size: last.size })
            }
            _ => Ok(()),
        }
    }

    fn write(&self, resource: Resource, bytes: &[u8]) -> Result<(), WriteError> {
        let files = Folder::new(&self.place.files);
        files.write(resource, bytes).map_err(|source| {
            let path = self.place.files.join(resource.to_string());
            WriteError::Io { path, source }
        })
    }
}
