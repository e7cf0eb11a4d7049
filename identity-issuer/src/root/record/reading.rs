//! Reading a record: each line is believed by its signature, then by the line before it, and only then for what it says.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::super::{RootError, read_certificate};
use super::{Act, Break, CONTEXT, Entry, Head, RecordError, SIGNATURE, paths, read_head};
use crate::authority::CaCertificate;
use crate::authority::custody::statement;

/// A record whose every entry was made by the root.
#[derive(Debug)]
pub struct Verified {
    pub entries: Vec<Entry>,
    pub head: Head,
    /// SHA-256 of each line, in order.
    lines: Vec<String>,
    pub(super) is_torn: bool,
    /// How long its complete lines are.
    pub(super) bytes: u64,
}

/// A root that signs each day for two centuries has fewer.
const MAX_ENTRIES: usize = 100_000;

/// No entry is longer: names have their limits, and there are 32 constraints at most.
const MAX_LINE: u64 = 32 * 1024;

/// The record in `folder`, by its root's certificate, both perhaps copies on another machine. Where the head is there too, the end is checked.
pub fn verify(folder: &Path) -> Result<Verified, RootError> {
    let (root, _) = super::super::read_root(folder)?;
    let (path, head_path) = paths(folder);
    let found = read_file(&path, &root)?;
    if head_path.exists() {
        check_end(&path, &found, &read_head(&head_path)?)?;
    }
    whole(&path, found).map_err(RootError::from)
}

impl Verified {
    /// The same, of files by any name and with no head.
    pub fn read(record: &Path, root: &Path) -> Result<Self, RootError> {
        let (root, _) = read_certificate(root)?;
        whole(record, read_file(record, &root)?).map_err(RootError::from)
    }

    /// Whether the record is the one whose head was noted, or has grown from it.
    pub fn grew_from(&self, path: &Path, sha256: &str) -> Result<(), RecordError> {
        match self.lines.iter().any(|line| line.eq_ignore_ascii_case(sha256)) {
            true => Ok(()),
            false => Err(RecordError::HeadUnknown { path: path.to_owned(), sha256: sha256.to_owned() }),
        }
    }

    /// The entry by which this certificate (DER) was signed.
    pub fn entry_of(&self, path: &Path, certificate: &[u8]) -> Result<&Entry, RecordError> {
        let tbs = X509Certificate::from_der(certificate)
            .map(|(_, certificate)| hex::encode(digest(&SHA256, certificate.tbs_certificate.as_ref())));
        let is_it = |entry: &&Entry| match &entry.act {
            Act::Init { certificate_sha256, .. } => *certificate_sha256 == hex::encode(digest(&SHA256, certificate)),
            Act::Sign(signing) => tbs.as_ref().is_ok_and(|tbs| *tbs == signing.tbs_sha256),
            Act::List(_) => false,
        };
        self.entries.iter().find(is_it).ok_or_else(|| RecordError::NotOnRecord {
            path: path.to_owned(),
            sha256: hex::encode(digest(&SHA256, certificate)),
        })
    }
}

fn whole(path: &Path, found: Verified) -> Result<Verified, RecordError> {
    match found.is_torn {
        true => Err(RecordError::Torn { path: path.to_owned() }),
        false => Ok(found),
    }
}

fn read_file(path: &Path, root: &CaCertificate) -> Result<Verified, RecordError> {
    let file = File::open(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => RecordError::Gone { path: path.to_owned() },
        _ => RecordError::Io { path: path.to_owned(), source },
    })?;
    read(path, BufReader::new(file), root)
}

/// All complete lines; the first one that is not as it should be is an error.
pub(super) fn read(path: &Path, mut source: impl BufRead, root: &CaCertificate) -> Result<Verified, RecordError> {
    let head = Head { number: 0, sha256: hex::encode(digest(&SHA256, &root.der)) };
    let mut found = Verified { entries: Vec::new(), head, lines: Vec::new(), is_torn: false, bytes: 0 };
    let mut last = None;
    loop {
        let mut line = Vec::new();
        let read = source.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line);
        let length = read.map_err(|source| RecordError::Io { path: path.to_owned(), source })? as u64;
        let at = found.entries.len() as u64 + 1;
        let broken = |what| RecordError::Broken { path: path.to_owned(), line: at, what };
        if length > MAX_LINE {
            return Err(broken(Break::TooLong));
        }
        if found.entries.len() == MAX_ENTRIES && length > 0 {
            return Err(broken(Break::TooMany));
        }
        let Some(line) = line.strip_suffix(b"\n") else {
            found.is_torn = length > 0;
            return Ok(found);
        };
        let (entry, time) = follow(line, &found.head, last, root).map_err(broken)?;
        let sha256 = hex::encode(digest(&SHA256, line));
        found.head = Head { number: entry.number, sha256: sha256.clone() };
        found.lines.push(sha256);
        found.entries.push(entry);
        found.bytes += length;
        last = Some(time);
    }
}

fn follow(
    line: &[u8],
    head: &Head,
    last: Option<OffsetDateTime>,
    root: &CaCertificate,
) -> Result<(Entry, OffsetDateTime), Break> {
    let line = std::str::from_utf8(line).map_err(|_| Break::NotAnEntry)?;
    let (open, rest) = line.rsplit_once(SIGNATURE).ok_or(Break::NotAnEntry)?;
    let signature = rest.strip_suffix("\"}").and_then(|text| hex::decode(text).ok()).ok_or(Break::NotAnEntry)?;
    if !root.has_signed(&statement(CONTEXT, open.as_bytes()), &signature) {
        return Err(Break::Signature);
    }
    let entry: Entry = serde_json::from_str(&format!("{open}}}")).map_err(|_| Break::NotAnEntry)?;
    if entry.previous != head.sha256 {
        return Err(Break::Chain);
    }
    if Some(entry.number) != head.number.checked_add(1) {
        return Err(Break::Number);
    }
    let time = time_of(&entry.time).ok_or(Break::NotAnEntry)?;
    if last.is_some_and(|last| last > time) {
        return Err(Break::Time);
    }
    Ok((entry, time))
}

/// Whether the record goes as far as its head says it went. It may go further: a ceremony that was cut short wrote the entry, and no head.
pub(super) fn check_end(path: &Path, found: &Verified, head: &Head) -> Result<(), RecordError> {
    let at = head.number.checked_sub(1).and_then(|index| usize::try_from(index).ok());
    match at.and_then(|index| found.lines.get(index)) {
        Some(line) if *line == head.sha256 => Ok(()),
        _ => Err(RecordError::CutOff { path: path.to_owned(), found: found.head.number, expected: head.number }),
    }
}

pub(in super::super) fn time_of(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}
