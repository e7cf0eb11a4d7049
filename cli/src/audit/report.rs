//! `signet audit report`: what was issued and revoked in some time, made by the issuer and signed, or made here of any copy of its log.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use signet_audit::report::{Claim, Format as ReportFormat, Made, ReportError, Terms, Window};
use signet_audit::{Checkpoint, SignedCheckpoint, Source, Statement};
use signet_proto::admin::v1::audit_report_response::Part;
use signet_proto::admin::v1::{AuditReportRequest, AuditReportResponse};
use time::{Duration, OffsetDateTime};

use super::key_of;
use super::meter::Meter;
use super::place::Place;
use super::verify_report::signature_beside;
use crate::admin;
use crate::args::{AuditReportOptions, KeyOptions};
use crate::failure::Failure;
use crate::output::{self, Format, Report};

const DEFAULT_WINDOW: Duration = Duration::days(30);

pub(crate) fn report(options: &AuditReportOptions, format: Format) -> Result<(), Failure> {
    let terms = terms(options)?;
    let told = match &options.log {
        Some(log) => of_copy(log, options, terms)?,
        None => of_issuer(options, terms)?,
    };
    // Whoever has the report on standard output is told nothing more.
    if told.file.is_some() { output::print(format, &told) } else { Ok(()) }
}

fn of_copy(log: &str, options: &AuditReportOptions, terms: Terms) -> Result<Told, Failure> {
    let key = KeyOptions { key: options.key.key.clone(), key_file: options.key.key_file.clone() };
    let (key, place) = (key_of(&key)?, Place::of(log)?);
    let note = place.checkpoint().map_err(|error| Failure::from_error(&error))?;
    let signed = SignedCheckpoint::open(&note, &key);
    let checkpoint = signed.map_err(|error| Failure::new(format!("{log}: the checkpoint: {error}")))?.checkpoint;
    let mut out = Out::open(options.out.as_deref())?;
    let made = make(&place, &checkpoint, terms, &mut out)?;
    out.keep();
    Ok(Told::new(&Claim::new(&checkpoint, terms, &made), options.out.as_deref(), None))
}

/// Made by the issuer. Beside the file comes what it signs.
fn of_issuer(options: &AuditReportOptions, terms: Terms) -> Result<Told, Failure> {
    let mut out = Out::open(options.out.as_deref())?;
    let signature = options.out.as_deref().map(signature_beside);
    let mut signature_out = Out::open_if(signature.as_deref())?;
    let time = |time: OffsetDateTime| prost_types::Timestamp { seconds: time.unix_timestamp(), nanos: 0 };
    // What is now, the issuer's clock says: no report is signed of a time that is not over.
    let (from, to) = (Some(time(terms.window.from())), options.to.map(|_| time(terms.window.to())));
    let request = AuditReportRequest { from, to, format: terms.format.to_string() };
    let mut meter = None;
    let note = admin::call(&options.issuer, async |mut client| {
        let mut parts = client.audit_report(request).await?.into_inner();
        let mut note = None;
        while let Some(AuditReportResponse { part }) = parts.message().await? {
            match part {
                Some(Part::Data(data)) => {
                    if let Err(error) = out.write_all(&data) {
                        return Ok(Err(Failure::new(format!("the report cannot be written: {error}"))));
                    }
                }
                Some(Part::Progress(progress)) => {
                    meter.get_or_insert_with(|| Meter::new(progress.of)).reach(progress.read);
                }
                Some(Part::Signature(signed)) => note = Some(signed),
                None => {}
            }
        }
        Ok(Ok(note))
    });
    if let Some(meter) = meter {
        meter.end();
    }
    let note = note
        .flatten()?
        .ok_or_else(|| Failure::new("the issuer ended the report before its end").remedy("try again"))?;
    // Whoever is to rely on it has the log's key; here it is shown alone.
    let claim = note.split_once("\n\n").and_then(|(text, _)| Statement::parse(&format!("{text}\n")));
    let claim = claim.and_then(|statement| Claim::of(&statement).ok());
    let claim = claim.ok_or_else(|| Failure::new("the issuer's signature is for another version of signet"))?;
    let written = out.flush().and_then(|()| match &mut signature_out {
        Some(out) => out.write_all(note.as_bytes()),
        None => Ok(()),
    });
    written.map_err(|error| Failure::new(format!("the report cannot be written: {error}")))?;
    out.keep();
    signature_out.iter_mut().for_each(Out::keep);
    Ok(Told::new(&claim, options.out.as_deref(), signature.as_deref()))
}

/// From when to when, and how it is written.
fn terms(options: &AuditReportOptions) -> Result<Terms, Failure> {
    let to = options.to.unwrap_or_else(OffsetDateTime::now_utc);
    let from = options.from.map_or_else(|| to.checked_sub(DEFAULT_WINDOW), Some);
    let wrong = |error: &dyn std::fmt::Display| Failure::new(format!("the time to report: {error}"));
    let from = from.ok_or_else(|| wrong(&"it begins before all time"))?;
    let window =
        Window::new(from, to).map_err(|error| wrong(&error).remedy("give --from and --to, such as 2026-11-01"))?;
    let by_name = options.out.as_deref().and_then(Path::extension).and_then(|end| end.to_str()?.parse().ok());
    Ok(Terms { window, format: options.format.or(by_name).unwrap_or(ReportFormat::Csv) })
}

/// A log that cannot be relied on is told of as `signet audit verify` does.
pub(super) fn make(
    log: &impl Source,
    checkpoint: &Checkpoint,
    terms: Terms,
    out: &mut impl Write,
) -> Result<Made, Failure> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // It is read twice.
    let meter = Meter::new(checkpoint.size.saturating_mul(2));
    let made = signet_audit::report::write(log, checkpoint, terms, threads, out, &meter);
    meter.end();
    made.map_err(|error| match error {
        ReportError::Log { fault, more } => {
            for fault in &more {
                // The first is the one that ends the command.
                let _ = output::tell(&format!("error: {}", signet_process::start::Report::of(fault).cause));
            }
            Failure::from_error(&fault)
                .remedy("this log cannot be relied on, and no report was made of it; `signet audit verify` says all that is wrong")
        }
        error => Failure::from_error(&error),
    })
}

/// A new file, or standard output. A file that does not become whole is removed.
pub(super) enum Out {
    Standard(std::io::Stdout),
    File { file: File, path: PathBuf, kept: bool },
}

impl Out {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::Standard(std::io::stdout())) };
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(|error| {
            Failure::new(format!("{}: {error}", path.display())).remedy("name a file that is not there yet")
        })?;
        Ok(Self::File { file, path: path.to_owned(), kept: false })
    }

    /// None where no file is wanted.
    fn open_if(path: Option<&Path>) -> Result<Option<Self>, Failure> {
        path.map(|path| Self::open(Some(path))).transpose()
    }

    pub(super) fn keep(&mut self) {
        if let Self::File { kept, .. } = self {
            *kept = true;
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Standard(out) => out.write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Standard(out) => out.flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if let Self::File { path, kept: false, .. } = self {
            // It is of no use to anybody.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[derive(Serialize)]
struct Told {
    log: String,
    entries: u64,
    root: String,
    from: String,
    to: String,
    format: &'static str,
    certificates: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    sha256: String,
}

impl Told {
    fn new(claim: &Claim, file: Option<&Path>, signature: Option<&Path>) -> Self {
        let shown = |path: &Path| path.display().to_string();
        let Claim { checkpoint, terms: Terms { window, format }, rows, sha256 } = claim;
        Self {
            log: checkpoint.origin.to_string(),
            entries: checkpoint.size,
            root: checkpoint.root.to_string(),
            from: output::timestamp(window.from()),
            to: output::timestamp(window.to()),
            format: format.as_str(),
            certificates: *rows,
            file: file.map(shown),
            signature: signature.map(shown),
            sha256: hex::encode(sha256),
        }
    }
}

impl Report for Told {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("log", self.log.clone()),
            ("entries", self.entries.to_string()),
            ("root", self.root.clone()),
            ("from", self.from.clone()),
            ("to", self.to.clone()),
            ("certificates", self.certificates.to_string()),
        ];
        let files = [("file", &self.file), ("signature", &self.signature)];
        rows.extend(files.into_iter().filter_map(|(name, file)| Some((name, file.clone()?))));
        rows.push(("sha256", self.sha256.clone()));
        rows
    }
}
