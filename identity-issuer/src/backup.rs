//! Backups of a running issuer: its state folder, the records as they were at one moment, and its audit log, in one encrypted stream.
//!
//! Nothing waits for it: the records are copied beside those who write them, and whoever reads slowly holds up the backup alone.

use std::fs::{DirBuilder, File, Metadata};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use signet_audit::{
    Digest, DigestFault, Folder, ReadError, Resource, Source as _, VerifierKey, latest_digest, resources,
};
use signet_backup::{BackupKey, Manifest, PackError, Packer, Sealer};
use signet_identity::{SharedClock, TrustDomain};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};

use crate::audit::{AuditError, LogPlace, last_checkpoint};
use crate::slow_reader::{self, PATIENCE};
use crate::store::{Store, StoreError};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Backups {
    state: PathBuf,
    /// Files that are left out.
    secrets: Arc<[PathBuf]>,
    trust_domain: TrustDomain,
    log: LogPlace,
    store: Store,
    clock: SharedClock,
    busy: Arc<Mutex<()>>,
}

/// The stream, as it is made. After an error nothing comes, and what came is worth nothing.
pub(crate) type Pieces = mpsc::Receiver<Result<Bytes, BackupError>>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error("another backup is being made")]
    Busy,
    #[error("the records cannot be copied")]
    Records(#[from] StoreError),
    #[error("{} cannot be used", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} is neither a file nor a folder: move it out of the state folder", path.display())]
    Kind { path: PathBuf },
    #[error("{} leads back to a folder that it is in: remove the link", path.display())]
    Circle { path: PathBuf },
    #[error(
        "{} has a name that no file of a backup has: give it a short one of plain ASCII without spaces, or move it out of the state folder",
        path.display()
    )]
    Name { path: PathBuf },
    #[error("the audit log cannot be read")]
    Log(#[from] ReadError),
    #[error(transparent)]
    Checkpoint(#[from] AuditError),
    #[error(transparent)]
    Digest(#[from] DigestFault),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error("making it broke off")]
    BrokeOff(#[from] tokio::task::JoinError),
}

/// The records, as they are in the state folder.
const RECORDS: &str = "issuer.db";
/// Of this module, in the state folder; removed when a backup ends.
const SCRATCH: &str = "backup";
const LOG: &str = "audit/log";
/// In each folder that a file system begins at.
const LOST_AND_FOUND: &str = "lost+found";
/// In bytes, of what is sent at once.
const PIECE: usize = 256 << 10;
/// Pieces that wait for whoever reads.
const WAITING: usize = 4;

impl Backups {
    pub(crate) fn new(
        (state, secrets): (PathBuf, Vec<PathBuf>),
        trust_domain: TrustDomain,
        log: LogPlace,
        store: Store,
        clock: SharedClock,
    ) -> Self {
        Self { state, secrets: secrets.into(), trust_domain, log, store, clock, busy: Arc::default() }
    }

    /// Begins one, which ends where nobody reads it any more. There is one at a time.
    pub(crate) fn begin(&self, key: BackupKey) -> Result<Pieces, BackupError> {
        let busy = Arc::clone(&self.busy).try_lock_owned().map_err(|_| BackupError::Busy)?;
        let (sender, pieces) = mpsc::channel(WAITING);
        let backups = self.clone();
        tokio::spawn(async move {
            if let Err(error) = backups.make(&key, &sender, busy).await {
                // Whoever has left is told nothing.
                drop(sender.send(Err(error)).await);
            }
        });
        Ok(pieces)
    }

    async fn make(
        &self,
        key: &BackupKey,
        to: &mpsc::Sender<Result<Bytes, BackupError>>,
        busy: OwnedMutexGuard<()>,
    ) -> Result<(), BackupError> {
        let scratch = Scratch::make(self.state.join(SCRATCH))?;
        // Older than the checkpoint, which goes on behind it.
        let (files, verifier) = (Folder::new(&self.log.files), self.log.verifier.clone());
        let digest = tokio::task::spawn_blocking(move || latest_digest(&files, &verifier)).await??;
        // Older than the records: an issuer that is restored from it has all that its own checkpoint says.
        let checkpoint = last_checkpoint(&self.log.files, &self.log.verifier)?;
        // What is in files and not on record is the same before and after.
        let held = self.store.hold_log().await;
        let (kept, entries) = (self.store.log_kept_from().await?, self.store.log_from(u64::MAX >> 1).await?.0);
        let records = scratch.0.join(RECORDS);
        let has_records = self.store.copy_to(&records).await?;
        drop(held);
        let manifest = Manifest::new(
            format!("signet {}", env!("CARGO_PKG_VERSION")),
            self.trust_domain.to_string(),
            self.log.verifier.origin(),
            entries,
            self.clock.now().unix_timestamp(),
            has_records,
        );
        let (state, secrets) = (self.state.clone(), Arc::clone(&self.secrets));
        let (log, key) = (self.log.clone(), key.clone());
        let to = BufWriter::with_capacity(PIECE, ToChannel(to.clone()));
        let packing = tokio::task::spawn_blocking(move || {
            // Until the end, whatever becomes of who asked.
            let _busy = busy;
            let mut packer = Packer::new(Sealer::new(to, &key).map_err(PackError::Write)?);
            Walk { packer: &mut packer, secrets: &secrets, above: Vec::new() }.pack_folder(&state, "")?;
            if has_records {
                pack_file(&mut packer, &records, RECORDS)?;
            }
            let files = Folder::new(&log.files);
            // What the issuer goes on behind; and all that the checkpoint is of, for whoever verifies it.
            let size = checkpoint.as_ref().map_or(0, |last| last.checkpoint.size);
            let (less, more) = (kept.min(size), kept.max(size));
            for resource in resources(0, less).chain(resources(less, more)) {
                pack_bytes(&mut packer, &format!("{LOG}/{resource}"), &files.file(resource)?)?;
            }
            if let Some(checkpoint) = checkpoint {
                pack_bytes(&mut packer, &format!("{LOG}/{}", Resource::Checkpoint), &checkpoint.note)?;
            }
            if let Some((digest, note)) = digest {
                pack_digests(&mut packer, &files, &log.verifier, digest, &note)?;
            }
            packer.finish(manifest, &log.verifier, |message| log.key.sign(message))?;
            drop(scratch);
            Ok(())
        });
        packing.await?
    }
}

/// The last digest, and those that it follows as far as they are there: what is missing among them no backup brings back.
fn pack_digests(
    packer: &mut Packer<impl Write>,
    files: &Folder,
    key: &VerifierKey,
    last: Digest,
    note: &[u8],
) -> Result<(), BackupError> {
    let name = |resource: Resource| format!("{LOG}/{resource}");
    pack_bytes(packer, &name(Resource::LatestDigest), note)?;
    pack_bytes(packer, &name(Resource::Digest(last.from)), note)?;
    let mut next = last.previous;
    while let Some(link) = next {
        let resource = Resource::Digest(link.from);
        let note = match files.file(resource) {
            Err(ReadError::Missing { .. }) => {
                tracing::warn!(%resource, "a digest of the audit log is missing, and those before it are in no backup");
                return Ok(());
            }
            read => read?,
        };
        pack_bytes(packer, &name(resource), &note)?;
        next = Digest::open(&note, Some(link.from), key)?.previous;
    }
    Ok(())
}

/// Packs the state folder.
struct Walk<'a, W: Write> {
    packer: &'a mut Packer<W>,
    /// What the configuration keeps secret, and a backup does not have.
    secrets: &'a [PathBuf],
    /// The folders that the one is in that is packed now, and itself.
    above: Vec<FileId>,
}

impl<W: Write> Walk<'_, W> {
    /// All files of a folder but those that are packed in another way, or are of this process alone. Where a link leads is packed as what it
    /// is there: the issuer works with it as with its own.
    fn pack_folder(&mut self, folder: &Path, name: &str) -> Result<(), BackupError> {
        let failed = |source| BackupError::Io { path: folder.to_owned(), source };
        let id = FileId::of(&std::fs::metadata(folder).map_err(failed)?);
        if self.above.contains(&id) {
            return Err(BackupError::Circle { path: folder.to_owned() });
        }
        self.above.push(id);
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let failed = |source| BackupError::Io { path: path.clone(), source };
            let file = entry.file_name();
            let name = file.to_str().map(|file| format!("{name}{file}"));
            // What a file system has found after a crash is its own, and nobody but root reads it.
            if name.as_deref().is_some_and(is_elsewhere) || file == LOST_AND_FOUND {
                continue;
            }
            let is_link = entry.file_type().map_err(failed)?.is_symlink();
            let found = match std::fs::metadata(&path) {
                // It was there a moment ago: what the issuer has replaced or removed meanwhile. A link stays, and leads nowhere.
                Err(error) if error.kind() == ErrorKind::NotFound && !is_link => continue,
                found => found.map_err(failed)?,
            };
            let kind = found.file_type();
            if kind.is_socket() || kind.is_file() && self.is_secret(&path, &found) {
                continue;
            }
            let name = name.ok_or_else(|| BackupError::Name { path: path.clone() })?;
            if kind.is_dir() {
                self.pack_folder(&path, &format!("{name}/"))?;
            } else if kind.is_file() {
                pack_file(self.packer, &path, &name)?;
            } else {
                return Err(BackupError::Kind { path });
            }
        }
        self.above.pop();
        Ok(())
    }

    /// By whatever name it is reached.
    fn is_secret(&self, path: &Path, found: &Metadata) -> bool {
        let is_same = |secret: &Metadata| FileId::of(secret) == FileId::of(found);
        self.secrets
            .iter()
            .any(|secret| path == secret || std::fs::metadata(secret).is_ok_and(|secret| is_same(&secret)))
    }
}

/// Of a file or folder, whatever names it has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }
}

fn is_elsewhere(name: &str) -> bool {
    let of_records = name.strip_prefix(RECORDS).is_some_and(|rest| matches!(rest, "" | "-wal" | "-shm" | "-journal"));
    // What is about to take the place of another file.
    of_records || matches!(name, LOG | SCRATCH | "lock") || name.ends_with(".new")
}

fn pack_file(packer: &mut Packer<impl Write>, path: &Path, name: &str) -> Result<(), BackupError> {
    let failed = |source| BackupError::Io { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        // It was there a moment ago: what the issuer has replaced or removed meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    let length = file.metadata().map_err(failed)?.len();
    packer.file(name, length, &mut file).map_err(|error| match error {
        PackError::Name { .. } => BackupError::Name { path: path.to_owned() },
        error => error.into(),
    })
}

fn pack_bytes(packer: &mut Packer<impl Write>, name: &str, bytes: &[u8]) -> Result<(), BackupError> {
    Ok(packer.file(name, bytes.len() as u64, &mut &*bytes)?)
}

/// A folder for the copy of the records, and nothing in it when it is made.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn make(path: PathBuf) -> Result<Self, BackupError> {
        let failed = |source| BackupError::Io { path: path.clone(), source };
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => DirBuilder::new().mode(0o700).create(&path).map_err(failed)?,
        }
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left of it the next one removes.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Of a blocking thread.
struct ToChannel(mpsc::Sender<Result<Bytes, BackupError>>);

impl Write for ToChannel {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        slow_reader::send(&self.0, Ok(Bytes::copy_from_slice(bytes)), PATIENCE).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
