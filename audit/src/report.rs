//! What was issued and revoked in some time, made from a log: for spreadsheets, for programs, for people who look rather than read.
//!
//! ```text
//! log, verified ─┬─► Revocations                       what was revoked, ever: bounded by their number
//!                └─► rows ─► csv, json, Figures ─► html   in the order of the log, none of them kept
//! ```
//! A report follows from the log's first entries, the window and the format, to the byte, on any machine: so it is checked by making it
//! again. No time of day, no locale and no address is in it. The log is read twice; each entry is verified both times.

mod act;
mod claim;
mod comparison;
mod figures;
mod html;
mod revocations;
mod row;
mod window;

use std::io::Write;

use aws_lc_rs::digest::{Context, SHA256};
use time::OffsetDateTime;

use crate::checkpoint::Checkpoint;
use crate::source::Source;
use crate::verify::{Fault, Progress, Unread, read_in_order};

pub use claim::{Claim, ClaimError};
pub use comparison::{Compared, Comparison, Difference};
pub use window::{Window, WindowError};

use act::{Certificate, Told};
use figures::Figures;
use revocations::Revocations;
use row::Row;

/// How a report is written.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Format {
    /// RFC 4180 with a header; lines end with a line feed alone.
    Csv,
    /// One array, an object for each row, a row to a line.
    Json,
    /// One page that needs nothing else.
    Html,
}

/// What a report was made of, beside the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Terms {
    pub window: Window,
    pub format: Format,
}

/// What was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Made {
    /// Certificates in it.
    pub rows: u64,
    pub bytes: u64,
    /// Of the file.
    pub sha256: [u8; 32],
}

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("the log cannot be relied on")]
    Log {
        /// The first thing that is wrong.
        #[source]
        fault: Fault,
        /// What else is.
        more: Vec<Fault>,
    },
    #[error("more than {MOST_REVOKED} certificates were revoked: no report has room for them")]
    TooManyRevoked,
    #[error("the report cannot be written")]
    Write(#[from] std::io::Error),
}

/// Some 60 bytes of memory each.
pub const MOST_REVOKED: usize = 4_000_000;

/// Writes the report of the log under a checkpoint that is believed. `threads` verify ahead; `progress` is told of each entry twice.
pub fn write(
    source: &impl Source,
    checkpoint: &Checkpoint,
    terms: Terms,
    threads: usize,
    to: &mut impl Write,
    progress: &impl Progress,
) -> Result<Made, ReportError> {
    let reading = Reading { source, checkpoint, window: &terms.window, threads, progress };
    let mut out = Out::new(to);
    let rows = match terms.format {
        Format::Csv => {
            row::csv_header(&mut out)?;
            reading.rows(|row| row.csv(&mut out))?
        }
        Format::Json => {
            let mut before = "[\n";
            let rows = reading.rows(|row| {
                out.write_all(std::mem::replace(&mut before, ",\n").as_bytes())?;
                row.json(&mut out)
            })?;
            out.write_all(if rows == 0 { b"[\n]\n" } else { b"\n]\n" })?;
            rows
        }
        Format::Html => {
            let mut figures = Figures::new(&terms.window);
            let rows = reading.known(|known| {
                figures.count(&known);
                Ok(())
            })?;
            out.write_all(html::page(checkpoint, &terms.window, &figures).as_bytes())?;
            rows
        }
    };
    Ok(out.end(rows)?)
}

/// One making of a report.
struct Reading<'a, S, P> {
    source: &'a S,
    checkpoint: &'a Checkpoint,
    window: &'a Window,
    threads: usize,
    progress: &'a P,
}

/// What the second reading comes upon.
enum Known<'a> {
    /// A certificate that was issued or revoked in the window.
    Row(&'a Row<'a>),
    /// In the window.
    Refused { at: OffsetDateTime, reason: &'a str },
}

impl<S: Source, P: Progress> Reading<'_, S, P> {
    fn rows(&self, mut each: impl FnMut(&Row<'_>) -> std::io::Result<()>) -> Result<u64, ReportError> {
        self.known(|known| match known {
            Known::Row(row) => each(row),
            Known::Refused { .. } => Ok(()),
        })
    }

    /// In the order of the log; and then the certificates that another log has, and that were revoked in this one. How many rows.
    fn known(&self, mut each: impl FnMut(Known<'_>) -> std::io::Result<()>) -> Result<u64, ReportError> {
        let window = self.window;
        let mut revocations = Revocations::default();
        self.entries(|index, entry| match act::first_look(entry, window) {
            Some(found) => revocations.note(index, found, window),
            None => Ok(()),
        })?;
        let mut rows = 0;
        self.entries(|index, entry| {
            match act::second_look(entry, window, |serial| revocations.matters(serial)) {
                Some(Told::Issued { issued_at, certificate }) => {
                    let revoked = revocations.of(index, &certificate);
                    if window.holds(issued_at) || revoked.is_some_and(|revoked| window.holds(revoked.at)) {
                        let requester = revocations.requester(&certificate);
                        let (issued_at, index) = (Some(issued_at), Some(index));
                        rows += 1;
                        each(Known::Row(&Row { certificate, issued_at, index, revoked, requester }))?;
                    }
                }
                Some(Told::Refused { at, reason }) => each(Known::Refused { at, reason: &reason })?,
                None => {}
            }
            Ok(())
        })?;
        for (serial, authority, revoked) in revocations.of_other_logs(window) {
            rows += 1;
            let certificate =
                Certificate { serial: serial.into(), authority: authority.into(), ..Certificate::default() };
            let revoked = Some(revoked);
            each(Known::Row(&Row { certificate, issued_at: None, index: None, revoked, requester: None }))?;
        }
        Ok(rows)
    }

    fn entries(&self, mut each: impl FnMut(u64, &[u8]) -> Result<(), ReportError>) -> Result<(), ReportError> {
        let read = read_in_order(self.source, self.checkpoint, self.threads, |first, entries| {
            let entries: Vec<&[u8]> = entries.collect();
            (first..).zip(&entries).try_for_each(|(index, entry)| each(index, entry))?;
            self.progress.entries(first, &mut entries.into_iter());
            Ok(())
        });
        read.map_err(ReportError::from_reading)
    }
}

impl ReportError {
    fn from_reading(unread: Unread<Self>) -> Self {
        match unread {
            Unread::Told(error) => error,
            Unread::Faults(faults) => {
                let mut faults = faults.into_iter();
                match faults.next() {
                    Some(fault) => Self::Log { fault, more: faults.collect() },
                    None => Self::Write(std::io::Error::other("reading ended early")),
                }
            }
        }
    }
}

impl Format {
    pub const ALL: [Self; 3] = [Self::Csv, Self::Json, Self::Html];

    /// Also how the names of such files end.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Html => "html",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|format| format.as_str() == text).ok_or(UnknownFormat)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a report is csv, json or html")]
pub struct UnknownFormat;

/// Hashes and counts what goes through it, and puts small pieces together.
struct Out<'a, W: Write> {
    to: &'a mut W,
    waiting: Vec<u8>,
    hash: Context,
    bytes: u64,
}

/// In bytes.
const PIECE: usize = 64 << 10;

impl<'a, W: Write> Out<'a, W> {
    fn new(to: &'a mut W) -> Self {
        Self { to, waiting: Vec::with_capacity(PIECE), hash: Context::new(&SHA256), bytes: 0 }
    }

    fn end(mut self, rows: u64) -> std::io::Result<Made> {
        self.flush()?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.hash.finish().as_ref());
        Ok(Made { rows, bytes: self.bytes, sha256 })
    }
}

impl<W: Write> Write for Out<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.hash.update(&self.waiting);
        self.bytes += self.waiting.len() as u64;
        self.to.write_all(&self.waiting)?;
        self.waiting.clear();
        self.to.flush()
    }
}

#[cfg(test)]
mod tests;
