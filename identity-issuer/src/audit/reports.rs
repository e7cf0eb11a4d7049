//! Reports of the log: made of what is published, and signed by the log's key.

use std::io::{BufWriter, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use signet_audit::report::{self, Claim, ReportError, Terms};
use signet_audit::{Folder, Progress, Resource, Source};
use time::OffsetDateTime;
use tokio::sync::{Mutex, mpsc, watch};

use super::place::LogPlace;
use super::publisher::Published;
use crate::authority::SignError;
use crate::slow_reader::{self, PATIENCE};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    place: LogPlace,
    latest: watch::Receiver<Option<Arc<Published>>>,
    /// Whoever asks for one. Those that nobody asked for are made one at a time beside it, and wait for nobody who reads.
    busy: Arc<Mutex<()>>,
}

/// What whoever asked for a report is sent, in this order; progress in between.
#[derive(Debug)]
pub(crate) enum Part {
    Data(Bytes),
    Progress {
        read: u64,
        of: u64,
    },
    /// The last.
    Signature(String),
}

/// After an error nothing comes, and what came is worth nothing.
type Parts = mpsc::Receiver<Result<Part, MakeError>>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    #[error("another report is being made")]
    Busy,
    #[error("nothing of the audit log is published yet")]
    Unpublished,
    #[error(
        "the time to report is not over: it ends at {to}, and the log is published until {now}; give an earlier --to"
    )]
    NotOver { to: OffsetDateTime, now: OffsetDateTime },
    #[error(
        "the audit log is not published any more, so no report is made of its last seconds; give an earlier --to, or try again"
    )]
    Stuck,
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error("the report cannot be signed")]
    Sign(#[from] SignError),
}

/// In bytes, of what is sent at once.
const PIECE: usize = 256 << 10;
/// Pieces that wait for whoever reads.
const WAITING: usize = 4;
/// The rest of the machine is for those who need certificates.
const THREADS: usize = 1;
/// Seconds after a time that all entries of it are published: each is written down with its time before it is.
const SETTLED: u64 = 3;
/// How long that is waited for.
const WAIT: Duration = Duration::from_secs(15);
/// Entries after which it is told how far it is.
const TOLD_EACH: u64 = 50_000;

impl Reports {
    pub(super) fn new(place: LogPlace, latest: watch::Receiver<Option<Arc<Published>>>) -> Self {
        Self { place, latest, busy: Arc::default() }
    }

    /// Until when a report is to be, as it was asked for or else now, and what is published once that is over: what is signed of a time has
    /// to be all of it.
    pub(crate) async fn over(&self, to: Option<OffsetDateTime>) -> Result<(OffsetDateTime, Arc<Published>), MakeError> {
        let latest = self.latest().ok_or(MakeError::Unpublished)?;
        let at = i64::try_from(latest.over).ok().and_then(|time| OffsetDateTime::from_unix_timestamp(time).ok());
        let now = at.ok_or(MakeError::Unpublished)?;
        let to = match to {
            Some(to) if to > now => return Err(MakeError::NotOver { to, now }),
            Some(to) => to,
            // With what was in this second.
            None => now + time::Duration::SECOND,
        };
        let settled = to.unix_timestamp().saturating_add(SETTLED.cast_signed());
        let mut watched = self.latest.clone();
        let is_over = |latest: &Option<Arc<Published>>| {
            latest.as_ref().is_some_and(|latest| i64::try_from(latest.over).is_ok_and(|over| over >= settled))
        };
        let waited = tokio::time::timeout(WAIT, watched.wait_for(is_over)).await;
        let published = waited.ok().and_then(|latest| latest.ok()?.clone());
        Ok((to, published.ok_or(MakeError::Stuck)?))
    }

    /// Begins one, which ends where nobody reads it any more, or nothing of it for a while. There is one at a time.
    pub(crate) fn begin(&self, terms: Terms, published: Arc<Published>) -> Result<Parts, MakeError> {
        let busy = Arc::clone(&self.busy).try_lock_owned().map_err(|_| MakeError::Busy)?;
        let (sender, parts) = mpsc::channel(WAITING);
        let reports = self.clone();
        tokio::task::spawn_blocking(move || {
            let to = Sending { to: sender, read: AtomicU64::new(0), of: published.checkpoint.size.saturating_mul(2) };
            let mut out = BufWriter::with_capacity(PIECE, &to);
            let made = reports.make(&published, terms, &mut out, &to, || !to.to.is_closed());
            // What was not flushed is of a report that was not made.
            drop(out.into_parts());
            // Up to here, whatever becomes of who asked.
            drop(busy);
            if let Err(MakeError::Report(ReportError::Write(error))) = &made
                && error.kind() == ErrorKind::TimedOut
            {
                tracing::warn!(cause = %error, "a report was given up");
            }
            // Whoever has left is told nothing, nor who reads no more.
            drop(slow_reader::send(&to.to, made.map(Part::Signature), PATIENCE));
        });
        Ok(parts)
    }

    pub(super) fn latest(&self) -> Option<Arc<Published>> {
        self.latest.borrow().clone()
    }

    /// Writes a report of what was published, as long as `goes_on` says so. Returns what the log's key signs of it. Blocks.
    pub(super) fn make(
        &self,
        published: &Published,
        terms: Terms,
        out: &mut impl Write,
        progress: &impl Progress,
        goes_on: impl Fn() -> bool + Sync,
    ) -> Result<String, MakeError> {
        let files = While { files: Folder::new(&self.place.files), goes_on };
        let made = report::write(&files, &published.checkpoint, terms, THREADS, out, progress)?;
        let statement = Claim::new(&published.checkpoint, terms, &made).statement();
        Ok(statement.sign(&self.place.verifier, |message| self.place.key.sign(message))?)
    }
}

/// A log that is read as long as somebody waits for what is made of it.
struct While<F> {
    files: Folder,
    goes_on: F,
}

impl<F: Fn() -> bool + Sync> Source for While<F> {
    fn read(&self, resource: Resource, most: usize) -> std::io::Result<Option<Vec<u8>>> {
        match (self.goes_on)() {
            true => self.files.read(resource, most),
            false => Err(std::io::Error::new(ErrorKind::Interrupted, "nobody waits for the report any more")),
        }
    }
}

/// To whoever asked.
struct Sending {
    to: mpsc::Sender<Result<Part, MakeError>>,
    read: AtomicU64,
    of: u64,
}

impl Write for &Sending {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let data = Part::Data(Bytes::copy_from_slice(bytes));
        slow_reader::send(&self.to, Ok(data), PATIENCE).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Progress for Sending {
    fn entries(&self, _index: u64, entries: &mut dyn Iterator<Item = &[u8]>) {
        let count = entries.count() as u64;
        let before = self.read.fetch_add(count, Ordering::Relaxed);
        if before / TOLD_EACH != (before + count) / TOLD_EACH {
            // Whoever has much to read yet knows that it goes on.
            drop(self.to.try_send(Ok(Part::Progress { read: before + count, of: self.of })));
        }
    }
}
