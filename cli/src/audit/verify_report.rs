//! `signet audit verify-report`: that the issuer signed a report, and that its log says the same.

use std::convert::Infallible;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use signet_audit::report::{Claim, Comparison, Difference, Terms};
use signet_audit::{
    About, Checkpoint, Entry, MAX_STATEMENT, OfSize, SignedCheckpoint, Source as _, Statement, Unread, VerifierKey,
    consistency, read_in_order_from,
};

use super::place::Place;
use super::{key_of, report};
use crate::args::AuditVerifyReportOptions;
use crate::failure::Failure;
use crate::output::{self, Format, Report};

pub(crate) fn verify_report(options: &AuditVerifyReportOptions, format: Format) -> Result<(), Failure> {
    let AuditVerifyReportOptions { report: path, log, key, signature } = options;
    let (key, place) = (key_of(key)?, Place::of(log)?);
    let signature = signature.clone().unwrap_or_else(|| signature_beside(path));
    let claim = signed(&signature, &key)?;
    let now = begins_so(&place, log, &claim.checkpoint, &key)?;
    let size = now.size;
    let wrong = |cause: &dyn std::fmt::Display| Failure::new(format!("{}: {cause}", path.display()));
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let mut comparison = Comparison::with(BufReader::new(file));
    let made = report::make(&OfSize { source: &place, size }, &claim.checkpoint, claim.terms, &mut comparison)?;
    let compared = comparison.end().map_err(|error| wrong(&error))?;
    let is_signed = compared.sha256 == claim.sha256;
    let is_true = made.sha256 == claim.sha256 && made.rows == claim.rows;
    match (compared.difference, is_true) {
        (None, true) => match left_out(&place, &now, &claim)? {
            0 => output::print(format, &Told::new(&claim)),
            count => {
                let entries = if count == 1 { "1 entry" } else { &format!("{count} entries") };
                Err(wrong(&format!(
                    "made before its time was over: {entries} of that time came later, and so are not in it"
                ))
                .remedy("ask the issuer for a new report of this time"))
            }
        },
        (None, false) => Err(wrong(&"it is what the log says, and the issuer signed something else")
            .remedy("the signature is of another report: see whether the right FILE.sig is beside it")),
        (Some(difference), is_true) => {
            let what = match (is_signed, is_true) {
                (false, true) => "it is not what the issuer signed",
                (true, _) => "the issuer signed it, and its log does not say so",
                (false, false) => "neither did the issuer sign it, nor does its log say so",
            };
            Err(wrong(&format!("{what}: line {}", difference.line)).remedy(in_words(&difference)))
        }
    }
}

pub(super) fn signature_beside(report: &Path) -> PathBuf {
    let mut path = report.to_owned().into_os_string();
    path.push(".sig");
    path.into()
}

/// What the issuer says of a report.
fn signed(path: &Path, key: &VerifierKey) -> Result<Claim, Failure> {
    let wrong = |cause: &dyn std::fmt::Display| Failure::new(format!("{}: {cause}", path.display()));
    let mut note = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_STATEMENT as u64 + 1).read_to_end(&mut note));
    read.map_err(|error| {
        wrong(&error)
            .remedy("give what the issuer signed by --signature; a report without it is checked by making it again")
    })?;
    let statement = Statement::open(&note, About::Report, key);
    let statement = statement.map_err(|error| {
        wrong(&error).remedy("do not rely on the report: whoever made it had not the key of this log")
    })?;
    Claim::of(&statement).map_err(|error| wrong(&error).remedy("it is for another version of signet"))
}

/// That a log has what a report was made of, and only grew since. Returns what it has.
fn begins_so(place: &Place, log: &str, reported: &Checkpoint, key: &VerifierKey) -> Result<Checkpoint, Failure> {
    let wrong = |cause: &dyn std::fmt::Display| Failure::new(format!("{log}: {cause}"));
    let note = place.checkpoint().map_err(|error| wrong(&error))?;
    let signed = SignedCheckpoint::open(&note, key).map_err(|error| wrong(&format!("the checkpoint: {error}")))?;
    let size = signed.checkpoint.size;
    if size < reported.size {
        return Err(wrong(&format!("it has {size} entries, and the report was made of {}", reported.size))
            .remedy("use a newer copy; if there is none, the log was set back: keep the report and its signature"));
    }
    let follows = consistency(place, (reported.size, reported.root), &signed.checkpoint).map_err(|error| {
        wrong(&error).remedy(
            "the log does not begin with what the report was made of: keep both, and ask whoever runs the issuer",
        )
    });
    follows.map(|_| signed.checkpoint)
}

/// How many entries of the time of a report came after it was made. What says no time may be of any.
fn left_out(place: &Place, now: &Checkpoint, claim: &Claim) -> Result<u64, Failure> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (window, mut count) = (claim.terms.window, 0);
    let read = read_in_order_from(place, now, claim.checkpoint.size, threads, |_, entries| {
        let is_of_it = |entry: &&[u8]| Entry::time_of(entry).is_none_or(|time| window.holds(time));
        count += entries.filter(is_of_it).count() as u64;
        Ok::<_, Infallible>(())
    });
    match read {
        Ok(()) => Ok(count),
        Err(Unread::Told(never)) => match never {},
        Err(Unread::Faults(faults)) => {
            let fault = faults.first().map(|fault| signet_process::start::Report::of(fault).cause).unwrap_or_default();
            Err(Failure::new(fault)
                .remedy("this log cannot be relied on; `signet audit verify` says all that is wrong"))
        }
    }
}

/// Characters of a line that are shown.
const SHOWN: usize = 400;

fn in_words(difference: &Difference) -> String {
    let shown = |line: &Option<String>| match line {
        None => "nothing more".to_owned(),
        Some(line) => output::harmless(&line.chars().take(SHOWN).collect::<String>()),
    };
    format!("the log says `{}`, and the file `{}`", shown(&difference.expected), shown(&difference.found))
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
    sha256: String,
}

impl Told {
    fn new(claim: &Claim) -> Self {
        let Claim { checkpoint: Checkpoint { origin, size, root }, terms: Terms { window, format }, rows, sha256 } =
            claim;
        Self {
            log: origin.to_string(),
            entries: *size,
            root: root.to_string(),
            from: output::timestamp(window.from()),
            to: output::timestamp(window.to()),
            format: format.as_str(),
            certificates: *rows,
            sha256: hex::encode(sha256),
        }
    }
}

impl Report for Told {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("report", "signed by the issuer, and what its log says".to_owned()),
            ("log", self.log.clone()),
            ("entries", self.entries.to_string()),
            ("root", self.root.clone()),
            ("from", self.from.clone()),
            ("to", self.to.clone()),
            ("certificates", self.certificates.to_string()),
            ("sha256", self.sha256.clone()),
        ]
    }
}
