//! Reports that nobody has to ask for: of each hour, day or other time that has ended, put where others fetch them, under names as AWS Private CA
//! gives them: `audit-report/LOG/FROM--TO.csv`.
//!
//! What is there says what was done: nothing is written down here. A signature comes behind its report, so a report with one is whole. Others
//! may write there too: a signature counts where it is of this log, of that time, and of all of it.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use signet_audit::report::{Claim, Format, Terms, Window, WindowError};
use signet_audit::{About, Entry, Folder, MAX_STATEMENT, ReadError, Source as _, Statement, TILE, VerifierKey, Width};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::metrics::AuditMetrics;
use super::publisher::Published;
use super::reports::{MakeError, Reports};
use crate::complaint::Complaint;
use crate::target::{OpenTarget, ServedAs, Target, TargetError};

/// What is reported, and where to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Schedule {
    /// Of whole hours; the times begin with multiples of it since 1970, so days at midnight UTC.
    pub(crate) every: Duration,
    pub(crate) formats: Vec<Format>,
    pub(crate) to: Target,
}

#[derive(Debug)]
pub(crate) struct Scheduled {
    pub(super) schedule: Schedule,
    pub(super) reports: Reports,
    /// The log's.
    pub(super) key: VerifierKey,
    /// The log's own.
    pub(super) files: PathBuf,
    /// Where a report is made before it is put: a file of this module, in the state folder.
    pub(super) scratch: PathBuf,
    pub(super) metrics: AuditMetrics,
}

#[derive(Debug, thiserror::Error)]
enum ScheduledError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Make(#[from] MakeError),
    #[error("the log's own files cannot be read")]
    Read(#[from] ReadError),
    #[error("{} cannot be written", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("a time that no report can be of")]
    Window(#[from] WindowError),
    #[error("making it broke off")]
    BrokeOff(#[from] tokio::task::JoinError),
}

/// In the place of a report.
enum Found {
    Whole,
    Nothing,
    /// And what that is.
    Else(&'static str),
}

/// How often it is looked whether one is due, and how soon what failed is tried again at first.
const EACH: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Seconds after its end that all of a time is published.
const GRACE: u64 = 60;
/// So many times back it is seen that each has its report.
const MOST_BACK: u64 = 62;
const STATEMENT: ServedAs =
    ServedAs { content_type: "text/plain; charset=utf-8", cache_control: "public, max-age=31536000, immutable" };

impl Scheduled {
    /// Until cancelled.
    pub(crate) async fn run(self) {
        let (mut complaint, mut wait) = (Complaint::default(), EACH);
        let mut done = 0;
        loop {
            match self.catch_up(&mut done).await {
                Ok(()) => {
                    complaint.clear();
                    wait = EACH;
                }
                Err(error) => {
                    self.metrics.report_failed();
                    if let Some(cause) = complaint.of(&error) {
                        tracing::error!(cause, "a report is not there yet, and is tried again");
                    }
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// All that are due and not there, the first of them first. `done`: up to which time, in Unix seconds, nothing is.
    async fn catch_up(&self, done: &mut u64) -> Result<(), ScheduledError> {
        let Some(published) = self.reports.latest() else { return Ok(()) };
        let every = self.schedule.every.as_secs();
        let last = published.over.saturating_sub(GRACE) / every * every;
        // After a clock that was ahead, what is over comes again.
        *done = last.min(*done);
        if last == *done {
            return Ok(());
        }
        let to = self.schedule.to.open()?;
        let begin = self.begin(&published).await?;
        let mut due = Vec::new();
        let mut end = last;
        for _ in 0..MOST_BACK {
            if end <= begin.max(*done) {
                break;
            }
            let missing = self.missing(&to, &published, end - every, end).await?;
            if !missing.is_empty() {
                due.push((end - every, end, missing));
            }
            end -= every;
        }
        for (from, until, formats) in due.into_iter().rev() {
            for format in formats {
                self.report(&to, &published, window(from, until)?, format).await?;
            }
        }
        self.metrics.reported(last);
        *done = last;
        Ok(())
    }

    /// When the log begins, in Unix seconds.
    async fn begin(&self, published: &Published) -> Result<u64, ScheduledError> {
        if published.checkpoint.size == 0 {
            return Ok(u64::MAX);
        }
        let first = self.times_from(published, 0).await?.into_iter().next().flatten();
        Ok(first.and_then(|time| u64::try_from(time.unix_timestamp()).ok()).unwrap_or(0))
    }

    /// Of some entries, from `index` on: as many as are in one file.
    async fn times_from(
        &self,
        published: &Published,
        index: u64,
    ) -> Result<Vec<Option<OffsetDateTime>>, ScheduledError> {
        let (files, bundle) = (Folder::new(&self.files), index / TILE);
        let Some(width) = Width::of(published.checkpoint.size.saturating_sub(bundle * TILE)) else {
            return Ok(Vec::new());
        };
        let read = tokio::task::spawn_blocking(move || files.entries(bundle, width)).await??;
        let skipped = usize::try_from(index % TILE).unwrap_or(usize::MAX);
        Ok(read.map(|bundle| bundle.entries().skip(skipped).map(Entry::time_of).collect()).unwrap_or_default())
    }

    /// The formats in which the report of a time is not there.
    async fn missing(
        &self,
        to: &OpenTarget,
        published: &Published,
        from: u64,
        until: u64,
    ) -> Result<Vec<Format>, ScheduledError> {
        let window = window(from, until)?;
        let mut missing = Vec::new();
        for format in &self.schedule.formats {
            let terms = Terms { window, format: *format };
            match self.find(to, published, terms).await? {
                Found::Whole => {}
                Found::Nothing => missing.push(*format),
                Found::Else(what) => {
                    let name = self.name(window, *format);
                    tracing::warn!(name, what, "what is in the place of a scheduled report is none, and is replaced");
                    missing.push(*format);
                }
            }
        }
        Ok(missing)
    }

    /// What is where a report is to be.
    async fn find(&self, to: &OpenTarget, published: &Published, terms: Terms) -> Result<Found, ScheduledError> {
        let name = self.name(terms.window, terms.format);
        let note = match to.get(&format!("{name}.sig"), MAX_STATEMENT).await {
            Err(TargetError::TooLong { .. }) => return Ok(Found::Else("its signature is too long")),
            note => note?,
        };
        let Some(note) = note else { return Ok(Found::Nothing) };
        let statement = Statement::open(&note, About::Report, &self.key).ok();
        let Some(claim) = statement.and_then(|statement| Claim::of(&statement).ok()) else {
            return Ok(Found::Else("its signature is not this log's"));
        };
        if claim.terms != terms {
            return Ok(Found::Else("its signature is of another report"));
        }
        // Any length is too much: it is asked whether there is something.
        if !matches!(to.get(&name, 0).await, Err(TargetError::TooLong { .. })) {
            return Ok(Found::Else("its signature is there alone"));
        }
        let later = self.times_from(published, claim.checkpoint.size).await?;
        match later.into_iter().flatten().any(|time| terms.window.holds(time)) {
            true => Ok(Found::Else("it was made before its time was over")),
            false => Ok(Found::Whole),
        }
    }

    async fn report(
        &self,
        to: &OpenTarget,
        published: &Arc<Published>,
        window: Window,
        format: Format,
    ) -> Result<(), ScheduledError> {
        let (reports, published, scratch) = (self.reports.clone(), Arc::clone(published), self.scratch.clone());
        let making = tokio::task::spawn_blocking(move || {
            let failed = |source| ScheduledError::Io { path: scratch.clone(), source };
            let mut file = std::io::BufWriter::new(File::create(&scratch).map_err(failed)?);
            let signature = reports.make(&published, Terms { window, format }, &mut file, &(), || true)?;
            file.into_inner().map_err(|error| failed(error.into_error()))?;
            Ok::<_, ScheduledError>(signature)
        });
        let signature = making.await??;
        let name = self.name(window, format);
        let put = async {
            to.put_file(&name, &self.scratch, served_as(format)).await?;
            to.put(&format!("{name}.sig"), signature.into(), STATEMENT).await
        };
        let put = put.await;
        // What is left of it the next one takes the place of.
        let _ = tokio::fs::remove_file(&self.scratch).await;
        Ok(put?)
    }

    fn name(&self, window: Window, format: Format) -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let log: String = self.key.origin().as_str().chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
        // Nothing that leads to another folder.
        let log = log.trim_start_matches('.');
        let time = |time: OffsetDateTime| time.format(TIME).unwrap_or_default();
        format!("audit-report/{log}/{}--{}.{format}", time(window.from()), time(window.to()))
    }
}

const TIME: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour][minute]Z");

fn window(from: u64, until: u64) -> Result<Window, WindowError> {
    let time = |seconds: u64| {
        let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        time.ok_or(WindowError::Form)
    };
    Window::new(time(from)?, time(until)?)
}

fn served_as(format: Format) -> ServedAs {
    let content_type = match format {
        Format::Csv => "text/csv; charset=utf-8",
        Format::Json => "application/json",
        Format::Html => "text/html; charset=utf-8",
    };
    ServedAs { content_type, ..STATEMENT }
}
