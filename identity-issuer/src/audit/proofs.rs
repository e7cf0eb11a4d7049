//! Proofs for those who were just given something: as soon as there is a checkpoint with its entry.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use signet_audit::{Folder, Origin, ProofError, inclusion};
use tokio::sync::watch;

use super::publisher::Published;

/// Of one log. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LogProofs {
    origin: Origin,
    files: PathBuf,
    latest: watch::Receiver<Option<Arc<Published>>>,
}

/// Why there is no proof now. The entry is durable all the same.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoProof {
    #[error("no checkpoint with entry {index} was published within {} s", LIMIT.as_secs_f64())]
    Unpublished { index: u64 },
    #[error("the log's files do not prove entry {index}")]
    Files { index: u64, source: ProofError },
    #[error("reading broke off")]
    BrokeOff(#[from] tokio::task::JoinError),
}

/// A checkpoint is signed twice a second. Whoever holds a short-lived certificate does not wait much longer for the next one.
const LIMIT: Duration = Duration::from_millis(1200);

impl LogProofs {
    pub(crate) fn new(origin: Origin, files: PathBuf, latest: watch::Receiver<Option<Arc<Published>>>) -> Self {
        Self { origin, files, latest }
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// C2SP tlog-proof. Waits for the next checkpoint where it has to.
    pub(crate) async fn of(&self, index: u64) -> Result<String, NoProof> {
        let mut latest = self.latest.clone();
        let has_it = |latest: &Option<Arc<Published>>| latest.as_ref().is_some_and(|log| log.checkpoint.size > index);
        let published = match tokio::time::timeout(LIMIT, latest.wait_for(has_it)).await {
            Ok(Ok(published)) => published.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        let published = published.ok_or(NoProof::Unpublished { index })?;
        let files = Folder::new(&self.files);
        let proving = tokio::task::spawn_blocking(move || {
            let note = String::from_utf8_lossy(&published.note);
            inclusion(&files, &published.checkpoint, &note, index).map(|proof| proof.to_text())
        });
        proving.await?.map_err(|source| NoProof::Files { index, source })
    }
}
