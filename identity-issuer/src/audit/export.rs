//! The log's files are put where others serve them: what is new, and the checkpoint last.
//!
//! What cannot be put is tried again, after longer and longer; nothing waits for it. What is there already is read first: another log is
//! never overwritten, and a copy that is ahead of this issuer means that its log went back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use signet_audit::{
    Checkpoint, CheckpointError, Digest, DigestFault, Folder, Hour, MAX_CHECKPOINT, MAX_STATEMENT, ProofError,
    ReadError, Resource, SignedCheckpoint, Source as _, VerifierKey, Width, consistency, digests_behind, resources,
};
use tokio::sync::watch;

use super::halt::Halt;
use super::metrics::AuditMetrics;
use super::place::LogPlace;
use super::publisher::Published;
use crate::complaint::Complaint;
use crate::store::Store;
use crate::target::{OpenTarget, ServedAs, Target, TargetError};

/// Where, and how often at most.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LogTarget {
    pub(crate) to: Target,
    pub(crate) interval: Duration,
}

#[derive(Debug)]
pub(crate) struct LogExport {
    target: LogTarget,
    place: LogPlace,
    metrics: AuditMetrics,
    store: Store,
    halt: Halt,
    latest: watch::Receiver<Option<Arc<Published>>>,
}

/// What is there, as far as is known.
#[derive(Debug)]
struct Copy {
    /// Entries whose files are there, whole tiles at least.
    size: u64,
    /// Parts of tiles that were put, until the whole is there too.
    parts: Vec<Resource>,
    /// The last hour whose digest is there.
    digest: Option<Hour>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("the log's own files cannot be read")]
    Read(#[from] ReadError),
    #[error("the checkpoint that is there is not this log's: a log has a place of its own; name another")]
    Another(#[source] CheckpointError),
    #[error(
        "the copy has {copied} entries and this log {size}: the log went back, or another issuer writes it too; nothing more is put there"
    )]
    Ahead { copied: u64, size: u64 },
    #[error("the copy is not the beginning of this log; nothing more is put there")]
    Forked(#[source] ProofError),
    #[error("the digests cannot be gone on with")]
    Digest(#[from] DigestFault),
    #[error("reading broke off")]
    BrokeOff(#[from] tokio::task::JoinError),
}

const TILE: ServedAs =
    ServedAs { content_type: "application/octet-stream", cache_control: "public, max-age=31536000, immutable" };
const DIGEST: ServedAs =
    ServedAs { content_type: "text/plain; charset=utf-8", cache_control: "public, max-age=31536000, immutable" };
const CHECKPOINT: ServedAs = ServedAs { content_type: "text/plain; charset=utf-8", cache_control: "no-cache" };
/// Files that are put at the same time.
const AT_ONCE: usize = 16;
/// Entries after which it is remembered how far it came: what breaks off goes on there.
const STRIDE: u64 = 1 << 16;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl LogExport {
    pub(crate) fn new(
        target: LogTarget,
        place: LogPlace,
        metrics: AuditMetrics,
        (store, halt): (Store, Halt),
        latest: watch::Receiver<Option<Arc<Published>>>,
    ) -> Self {
        Self { target, place, metrics, store, halt, latest }
    }

    /// Until cancelled.
    pub(crate) async fn run(mut self) {
        let (mut complaint, mut wait) = (Complaint::default(), FIRST_WAIT);
        let mut copy = None;
        loop {
            let latest = self.latest.borrow_and_update().clone();
            if let Some(latest) = latest {
                match self.export(&latest, &mut copy).await {
                    Ok(()) => {
                        complaint.clear();
                        wait = FIRST_WAIT;
                        self.metrics.exported(latest.checkpoint.size, latest.time);
                        tokio::time::sleep(self.target.interval).await;
                    }
                    Err(error) => {
                        self.metrics.export_failed();
                        if let Some(cause) = complaint.of(&error) {
                            tracing::error!(cause, "the audit log is not exported, and is tried again");
                        }
                        if self.is_other_history(&error).await {
                            self.halt.halt(&signet_process::start::Report::of(&error).cause);
                        }
                        // Whatever it was: it is looked at anew.
                        if !matches!(error, ExportError::Target(_)) {
                            copy = None;
                        }
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(LONGEST_WAIT);
                        continue;
                    }
                }
            }
            if self.latest.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether what was found says that this log's key has signed what this log does not come to.
    async fn is_other_history(&self, error: &ExportError) -> bool {
        match error {
            // All that was exported is on record, unless the records went back; it is only not published here again.
            ExportError::Ahead { copied, .. } => {
                self.store.log_from(u64::MAX >> 1).await.is_ok_and(|(on_record, _)| on_record < *copied)
            }
            ExportError::Forked(error) => matches!(error, ProofError::NotConsistent { .. }),
            _ => false,
        }
    }

    async fn export(&self, latest: &Published, known: &mut Option<Copy>) -> Result<(), ExportError> {
        // Each time anew: a secret may be another by now.
        let to = self.target.to.open()?;
        let size = latest.checkpoint.size;
        if known.is_none() {
            *known = Some(self.look(&to, &latest.checkpoint).await?);
        }
        let Some(copy) = known else { return Ok(()) };
        while copy.size < size {
            let next = size.min((copy.size / STRIDE + 1) * STRIDE);
            let is_last = next == size;
            let files = resources(copy.size, next).filter(|resource| is_last || is_whole(*resource));
            self.put(&to, files.collect(), copy).await?;
            copy.size = next;
        }
        to.put(&Resource::Checkpoint.to_string(), latest.note.clone(), CHECKPOINT).await?;
        self.put_witnessed(&to, size).await?;
        self.put_digests(&to, size, copy).await
    }

    /// What a quorum of witnesses has cosigned, as far as the checkpoint there goes.
    async fn put_witnessed(&self, to: &OpenTarget, size: u64) -> Result<(), ExportError> {
        let files = Folder::new(&self.place.files);
        let note = match tokio::task::spawn_blocking(move || files.file(Resource::Witnessed)).await? {
            Err(ReadError::Missing { .. }) => return Ok(()),
            read => read?,
        };
        // One that is not this log's was left by another, and is written over once a quorum has cosigned this.
        match SignedCheckpoint::open(&note, &self.place.verifier) {
            Ok(signed) if signed.checkpoint.size <= size => {
                Ok(to.put(&Resource::Witnessed.to_string(), note.into(), CHECKPOINT).await?)
            }
            _ => Ok(()),
        }
    }

    /// Those of hours that have ended, as far as the checkpoint there goes.
    async fn put_digests(&self, to: &OpenTarget, size: u64, copy: &mut Copy) -> Result<(), ExportError> {
        let (files, key, known) = (Folder::new(&self.place.files), self.place.verifier.clone(), copy.digest);
        let digests = tokio::task::spawn_blocking(move || digests_behind(&files, &key, known)).await??;
        for (digest, note) in digests.into_iter().take_while(|(digest, _)| digest.size <= size) {
            to.put(&Resource::Digest(digest.from).to_string(), note.clone().into(), DIGEST).await?;
            to.put(&Resource::LatestDigest.to_string(), note.into(), CHECKPOINT).await?;
            copy.digest = Some(digest.from);
        }
        Ok(())
    }

    /// What is there already, which this log has to begin with.
    async fn look(&self, to: &OpenTarget, own: &Checkpoint) -> Result<Copy, ExportError> {
        let Some(copied) = checkpoint_at(to, &self.place.verifier).await? else {
            return Ok(Copy { size: 0, parts: Vec::new(), digest: None });
        };
        let (copied, size) = ((copied.checkpoint.size, copied.checkpoint.root), own.size);
        if copied.0 > size {
            return Err(ExportError::Ahead { copied: copied.0, size });
        }
        let (files, own) = (Folder::new(&self.place.files), own.clone());
        let checked = tokio::task::spawn_blocking(move || consistency(&files, copied, &own)).await?;
        checked.map_err(ExportError::Forked)?;
        let digest = match to.get(&Resource::LatestDigest.to_string(), MAX_STATEMENT).await? {
            None => None,
            Some(note) => Some(Digest::open(&note, None, &self.place.verifier)?.from),
        };
        Ok(Copy { size: copied.0, parts: Vec::new(), digest })
    }

    async fn put(&self, to: &OpenTarget, files: Vec<Resource>, copy: &mut Copy) -> Result<(), ExportError> {
        let own = Folder::new(&self.place.files);
        let putting = files.clone().into_iter().map(|resource| {
            let own = own.clone();
            async move {
                let bytes = tokio::task::spawn_blocking(move || own.file(resource)).await??;
                to.put(&resource.to_string(), bytes.into(), TILE).await?;
                Ok::<_, ExportError>(())
            }
        });
        stream::iter(putting).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        copy.parts.extend(files.iter().filter(|resource| !is_whole(**resource)));
        // The whole stands in for its parts.
        let (gone, kept): (Vec<_>, Vec<_>) = copy.parts.iter().partition(|part| files.contains(&part.whole()));
        copy.parts = kept;
        let removing = gone.into_iter().map(|part| async move {
            // What is left of them does no harm; and a bucket may be such that nothing is ever removed.
            drop(to.remove(&part.to_string()).await);
        });
        stream::iter(removing).buffer_unordered(AT_ONCE).collect::<()>().await;
        Ok(())
    }
}

/// The last checkpoint that is at a target, if there is one.
pub(crate) async fn checkpoint_at(to: &OpenTarget, key: &VerifierKey) -> Result<Option<SignedCheckpoint>, ExportError> {
    let note = to.get(&Resource::Checkpoint.to_string(), MAX_CHECKPOINT).await?;
    note.map(|note| SignedCheckpoint::open(&note, key).map_err(ExportError::Another)).transpose()
}

fn is_whole(resource: Resource) -> bool {
    match resource {
        Resource::Checkpoint | Resource::Witnessed | Resource::Digest(_) | Resource::LatestDigest => true,
        Resource::Tile { width, .. } | Resource::Entries { width, .. } => width == Width::Whole,
    }
}
