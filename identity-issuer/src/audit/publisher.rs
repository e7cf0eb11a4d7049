//! Publishes what the log has, twice a second, also where nothing is new: so a gap between checkpoints shows that somebody was away.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use signet_audit::Checkpoint;
use signet_identity::SharedClock;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::export::{LogExport, LogTarget};
use super::halt::Halt;
use super::metrics::AuditMetrics;
use super::place::LogPlace;
use super::proofs::LogProofs;
use super::reports::Reports;
use super::scheduled::{Schedule, Scheduled};
use super::steady::SteadyTime;
use super::witnesses::{Cosigned, Witnesses, Witnessing};
use super::writer::{WriteError, Writer};
use crate::complaint::Complaint;
use crate::store::{Store, StoreError};
use crate::web::AuditFiles;

/// What the world may see of the log.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) checkpoint: Checkpoint,
    /// With the log's signatures alone.
    pub(crate) signed: Bytes,
    /// With all of them.
    pub(crate) note: Bytes,
    /// Unix seconds.
    pub(crate) time: u64,
    /// What is before this is over, in Unix seconds: no later than `time`, and less where the clock was set on just now.
    pub(crate) over: u64,
}

#[derive(Debug)]
pub(crate) struct LogPublisher {
    place: LogPlace,
    store: Store,
    metrics: AuditMetrics,
    clock: SharedClock,
    latest: watch::Sender<Option<Arc<Published>>>,
    cosigned: watch::Sender<Arc<Cosigned>>,
    halt: Halt,
}

#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the database does not give what waits to be published")]
    Store(#[from] StoreError),
    #[error("writing broke off")]
    BrokeOff(#[from] tokio::task::JoinError),
    /// Which was told once, and what is to be done.
    #[error("it has two histories")]
    Halted,
}

/// A checkpoint is due each second; whoever wakes late is in time.
const INTERVAL: Duration = Duration::from_millis(500);
/// After which what is published is synced, and forgotten by the database.
const SYNC_INTERVAL: Duration = Duration::from_secs(10);
/// Or so many entries, whichever is first: the database has room for them.
const MOST_UNSYNCED: u64 = 50_000;

impl LogPublisher {
    pub(crate) fn new(place: LogPlace, store: Store, metrics: AuditMetrics, halt: Halt, clock: SharedClock) -> Self {
        let latest = watch::Sender::new(place.last.clone().map(Arc::new));
        Self { place, store, metrics, clock, latest, cosigned: watch::Sender::default(), halt }
    }

    pub(crate) fn files(&self) -> AuditFiles {
        AuditFiles { files: self.place.files.clone(), latest: self.latest.subscribe() }
    }

    pub(crate) fn place(&self) -> &LogPlace {
        &self.place
    }

    pub(crate) fn proofs(&self) -> LogProofs {
        let origin = self.place.verifier.origin().clone();
        LogProofs::new(origin, self.place.files.clone(), self.latest.subscribe())
    }

    pub(crate) fn reports(&self) -> Reports {
        Reports::new(self.place.clone(), self.latest.subscribe())
    }

    /// To be run beside it. `reports` are those that others ask for, too.
    pub(crate) fn scheduled(&self, schedule: Schedule, reports: Reports, scratch: PathBuf) -> Scheduled {
        Scheduled {
            schedule,
            reports,
            key: self.place.verifier.clone(),
            files: self.place.files.clone(),
            scratch,
            metrics: self.metrics.clone(),
        }
    }

    /// To be run beside it.
    pub(crate) fn export(&self, to: LogTarget) -> LogExport {
        let stopping = (self.store.clone(), self.halt.clone());
        LogExport::new(to, self.place.clone(), self.metrics.clone(), stopping, self.latest.subscribe())
    }

    /// To be run beside it.
    pub(crate) fn witnessing(&self, witnesses: Witnesses) -> Witnessing {
        Witnessing {
            witnesses,
            place: self.place.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            latest: self.latest.subscribe(),
            cosigned: self.cosigned.clone(),
        }
    }

    /// Until cancelled. Where nothing can be written, issuing goes on, and all is published later.
    pub(crate) async fn run(self) {
        let mut complaint = Complaint::default();
        let mut steady = SteadyTime::new(self.now(), Instant::now());
        loop {
            // It ends by an error alone.
            if let Err(error) = self.publish_on(&mut steady, &mut complaint).await {
                self.metrics.failed();
                if !matches!(error, PublishError::Halted)
                    && let Some(cause) = complaint.of(&error)
                {
                    tracing::error!(
                        cause,
                        "the audit log is not published; what is issued is on record, and is published later"
                    );
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn publish_on(&self, steady: &mut SteadyTime, complaint: &mut Complaint) -> Result<(), PublishError> {
        let (kept, place) = (self.store.log_kept_from().await?, self.place.clone());
        let mut writer = tokio::task::spawn_blocking(move || Writer::open(place, kept)).await??;
        let (mut synced, mut synced_at) = (kept, Instant::now());
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.halt.is_halted() {
                return Err(PublishError::Halted);
            }
            writer = self.publish_once(writer, steady).await?;
            complaint.clear();
            let unsynced = writer.size() - synced;
            if unsynced >= MOST_UNSYNCED || unsynced > 0 && synced_at.elapsed() >= SYNC_INTERVAL {
                writer = tokio::task::spawn_blocking(move || writer.sync().map(|()| writer)).await??;
                (synced, synced_at) = (writer.size(), Instant::now());
                self.store.forget_published(synced).await?;
            }
        }
    }

    /// Unix seconds.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().unix_timestamp()).unwrap_or(0)
    }

    /// All that waits, and a checkpoint.
    async fn publish_once(&self, mut writer: Writer, steady: &mut SteadyTime) -> Result<Writer, PublishError> {
        loop {
            let (size, waiting) = self.store.log_from(writer.size()).await?;
            let there_is_more = waiting.iter().map(|waiting| waiting.entries.len()).sum::<usize>() > 0;
            // At no time in the future: a log says when it was so.
            let time = self.now();
            let over = steady.at(time, Instant::now());
            let cosigned = Arc::clone(&self.cosigned.borrow());
            let written = tokio::task::spawn_blocking(move || {
                waiting.into_iter().try_for_each(|waiting| writer.append(waiting))?;
                let published =
                    if writer.size() >= size || !there_is_more { writer.publish(time, over, &cosigned)? } else { None };
                Ok::<_, WriteError>((writer, published))
            });
            let published;
            (writer, published) = written.await??;
            if let Some(published) = published {
                self.metrics.published(published.checkpoint.size, size, published.time);
                self.latest.send_replace(Some(Arc::new(published)));
                return Ok(writer);
            }
            if !there_is_more {
                return Ok(writer);
            }
        }
    }
}
