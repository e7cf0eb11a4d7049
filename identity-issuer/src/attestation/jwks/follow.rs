//! Keeps a key set in step with what is published.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use prometheus::IntGauge;
use signet_identity::SharedClock;
use tokio::time::Instant;

use super::{Jwks, JwksError, KeySet, Published};
use crate::complaint::Complaint;

/// One set and where it comes from.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) keys: Jwks,
    pub(crate) published: Published,
    /// What the log calls it.
    pub(crate) source: String,
    /// When it was last seen to be what is published, in Unix seconds.
    pub(crate) read_at: IntGauge,
    pub(crate) clock: SharedClock,
}

/// One state of a file.
type Version = (u64, u64, (i64, i64));

impl Follower {
    /// Until cancelled.
    pub(crate) async fn run(self) {
        let mut seen: Option<Version> = None;
        let mut good_at = Instant::now();
        let mut complaint = Complaint::default();
        loop {
            match self.look(&mut seen).await {
                Ok(changed) => {
                    if let Some(set) = changed {
                        tracing::debug!(source = self.source, keys = set.len(), "keys of tokens read");
                        self.keys.replace(set);
                    }
                    good_at = Instant::now();
                    self.read_at.set(self.clock.now().unix_timestamp());
                    complaint.clear();
                }
                Err(error) => {
                    let kept = self.keys.current().is_some();
                    if let Some(cause) = complaint.of(&error) {
                        tracing::warn!(source = self.source, cause, kept, "keys of tokens not read");
                    }
                    if kept && good_at.elapsed() > MAX_AGE {
                        tracing::error!(source = self.source, "keys of tokens are too old: no token is believed");
                        self.keys.forget();
                    }
                }
            }
            self.pause().await;
        }
    }

    /// What is published, where it is not what was `seen`.
    async fn look(&self, seen: &mut Option<Version>) -> Result<Option<KeySet>, JwksError> {
        let path = match &self.published {
            Published::Url(remote) => return remote.fetch().await.map(Some),
            Published::File(path) => path.clone(),
        };
        // One that is bad may only be half written yet.
        let before = seen.take();
        let reading = tokio::task::spawn_blocking(move || read_other(&path, before));
        let (version, set) = reading.await.map_err(|_| JwksError::BrokenOff)??;
        *seen = Some(version);
        Ok(set)
    }

    async fn pause(&self) {
        let pause = match (&self.published, self.keys.current().is_some()) {
            (Published::File(_), _) => LOOK_AT_FILE,
            (Published::Url(_), true) => REFRESH,
            (Published::Url(_), false) => RETRY,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Whoever shows keys that do not exist makes it fetched no more often than this.
            () = async { tokio::time::sleep(NOT_SOONER).await; self.keys.0.look.notified().await } => {}
        }
    }
}

/// The file's version, and its set unless that is the version `before`.
fn read_other(path: &Path, before: Option<Version>) -> Result<(Version, Option<KeySet>), JwksError> {
    let file = std::fs::metadata(path).map_err(|source| JwksError::File { path: path.to_owned(), source })?;
    let version = (file.ino(), file.len(), (file.ctime(), file.ctime_nsec()));
    let set = if before == Some(version) { None } else { Some(KeySet::read(path)?) };
    Ok((version, set))
}

const LOOK_AT_FILE: Duration = Duration::from_secs(1);
const REFRESH: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_secs(5);
const NOT_SOONER: Duration = Duration::from_secs(5);
/// How long keys are believed that cannot be had any more: an outage, and not a key that was taken back long ago.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests;
