//! The record of what a root signed: written by every ceremony, before it signs.
//!
//! ```text
//! ceremonies.jsonl   one entry a line; the line is what is signed and chained, byte for byte:
//!
//!     {"number":2,"previous":"…","time":"…","operator":"…","host":"…","act":{"sign":{…}},"signature":"…"}
//!     └───── signed by the root's key, behind 64 bytes 0x20, `CONTEXT`, a byte 0 ──────┘
//!
//!   previous    SHA-256 of the line before it; of the root's certificate (DER) in the first
//!   signature   ECDSA with SHA-256 in DER, hexadecimal
//!
//! ceremonies.head    number and SHA-256 of the last line: a record that was cut off is noticed where the root is
//! ```
//!
//! Altering, removing or reordering entries breaks the chain. Cutting off its end does not: that is what the head is for, and the heads that
//! people noted elsewhere.

mod reading;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub(super) use reading::time_of;
pub use reading::{Verified, verify};

use crate::authority::CaCertificate;
use crate::authority::custody::{CaKey, Kind, SignError, statement};
use crate::pem_files;
use crate::utc::Utc;

/// So that no entry passes for anything else that the root signs.
const CONTEXT: &str = "signet ceremony record v1";

/// One thing that was done with the root's key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// From 1, one more each time.
    pub number: u64,
    /// SHA-256 in lower-case hexadecimal, as all digests here.
    pub previous: String,
    /// RFC 3339, UTC, whole seconds, as all times here.
    pub time: String,
    pub operator: String,
    pub host: String,
    pub act: Act,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Act {
    /// The root was made.
    Init { trust_domain: String, certificate_sha256: String, not_after: String },
    /// An intermediate was signed, or was about to be.
    Sign(Signing),
    /// A revocation list was signed, or was about to be.
    List(Listed),
}

/// An intermediate, as it stands in the record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Signing {
    pub trust_domain: String,
    /// As RFC 4514 writes it.
    pub subject: String,
    pub key_id: String,
    pub purpose: String,
    pub path_length: u8,
    pub permitted_uri_domains: Vec<String>,
    pub serial: String,
    pub not_before: String,
    pub not_after: String,
    /// Of the request (DER).
    pub request_sha256: String,
    /// Of the certificate's TBSCertificate (DER): the bytes that the root's key signs, known before it does.
    pub tbs_sha256: String,
}

/// A revocation list, as it stands in the record; its CRL number is that of the entry.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    pub this_update: String,
    pub next_update: String,
    /// What was not on the list before it.
    pub revoked: Vec<Revoked>,
    /// How many are on it.
    pub entries: usize,
    /// Of the TBSCertList (DER).
    pub tbs_sha256: String,
}

/// An intermediate that is not good any more.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    pub serial: String,
    /// As [`Reason`](super::Reason) displays.
    pub reason: String,
    pub revoked_at: String,
}

/// Who is at the keyboard, and of which machine.
#[derive(Clone, Debug)]
pub struct Witness {
    pub operator: String,
    pub host: String,
}

/// Number and digest of the last entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head {
    pub number: u64,
    pub sha256: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the record {} is gone\nrestore it from a copy: a root signs only what it can add to its record", path.display())]
    Gone { path: PathBuf },
    #[error("the record {} cannot be used", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("another ceremony is going on with this root ({} is locked)\nwait until it is over", path.display())]
    Locked { path: PathBuf },
    #[error("the record {}, line {line}: {what}\nrestore it from a copy, and find out who changed it", path.display())]
    Broken { path: PathBuf, line: u64, what: Break },
    #[error(
        "the record {} ends within a line\n\
         if this machine stopped in the middle of a ceremony, the next `signet ca sign` removes that line: nothing was signed for it; \
         if not, somebody cut the record off",
        path.display()
    )]
    Torn { path: PathBuf },
    #[error(
        "the record {} ends with entry {found}, and entry {expected} was the last one{}\n\
         restore it from a copy, and find out who cut it off",
        path.display(), if found >= expected { ", with other contents" } else { "" }
    )]
    CutOff { path: PathBuf, found: u64, expected: u64 },
    #[error(
        "the last entry of the record {} is of {}, and this machine's clock is at {}\nset the clock of this machine",
        path.display(), Utc(*last), Utc(*now)
    )]
    ClockWentBack { path: PathBuf, last: OffsetDateTime, now: OffsetDateTime },
    #[error("{} is not the head of a record: a number and a SHA-256\nrestore it from a copy", path.display())]
    BadHead { path: PathBuf },
    #[error("no entry of the record {} has the SHA-256 {sha256}\nthe record was changed since that was noted, or it is another root's", path.display())]
    HeadUnknown { path: PathBuf, sha256: String },
    #[error("the certificate {sha256} (SHA-256) is not on the record {}\nthe root signed it in no ceremony: find out who could", path.display())]
    NotOnRecord { path: PathBuf, sha256: String },
    #[error("the {what} is longer than {} bytes", Witness::MAX_BYTES)]
    WitnessTooLong { what: &'static str },
    #[error("the entry cannot be written")]
    Unwritable(#[source] serde_json::Error),
    #[error("the record was not signed")]
    Sign(#[from] SignError),
}

/// Where the chain of entries is broken.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Break {
    #[error("is longer than an entry can be")]
    TooLong,
    #[error("is one more than a record may have")]
    TooMany,
    #[error("is no entry with a signature")]
    NotAnEntry,
    #[error("is not signed by this root")]
    Signature,
    #[error("does not follow the line before it: something was altered, removed or put in between")]
    Chain,
    #[error("has a number that is not the next one")]
    Number,
    #[error("is earlier than the line before it")]
    Time,
}

/// Locked and verified whole; added to while it is held.
#[derive(Debug)]
pub(super) struct Record {
    file: File,
    path: PathBuf,
    head_path: PathBuf,
    head: Head,
    /// Of its last entry; none is earlier than the one before it.
    last: OffsetDateTime,
    /// Those that were there when it was opened.
    entries: Vec<Entry>,
}

impl Witness {
    pub const MAX_BYTES: usize = 128;

    /// The user that this process runs as, by the name that the session gives it or by its number, and this machine's name.
    pub fn of_this_process() -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let named = std::env::var("USER").ok().filter(|name| (1..=Self::MAX_BYTES).contains(&name.len()));
        let numbered = || std::fs::metadata("/proc/self").map(|process| format!("uid {}", process.uid()));
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            operator: named.or_else(|| numbered().ok()).unwrap_or_else(|| "unknown".to_owned()),
            host: host.trim_end().to_owned(),
        }
    }

    fn check(&self) -> Result<(), RecordError> {
        for (what, text) in [("operator's name", &self.operator), ("host's name", &self.host)] {
            if text.len() > Self::MAX_BYTES {
                return Err(RecordError::WitnessTooLong { what });
            }
        }
        Ok(())
    }
}

impl Record {
    /// Begins the record of a root that was just made.
    pub(super) fn begin(
        folder: &Path,
        (root, trust_domain): (&CaCertificate, &str),
        key: &CaKey,
        witness: &Witness,
        now: OffsetDateTime,
    ) -> Result<(), RecordError> {
        let (path, head_path) = paths(folder);
        let io = |source| RecordError::Io { path: path.clone(), source };
        let file = OpenOptions::new().append(true).create_new(true).mode(0o644).open(&path).map_err(io)?;
        let certificate_sha256 = hex::encode(digest(&SHA256, &root.der));
        let head = Head { number: 0, sha256: certificate_sha256.clone() };
        let act = Act::Init {
            trust_domain: trust_domain.to_owned(),
            certificate_sha256,
            not_after: Utc(root.not_after).to_string(),
        };
        let mut record = Self { file, path: path.clone(), head_path, head, last: now, entries: Vec::new() };
        record.append(act, key, witness, now)?;
        // The name of the file as well.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
    }

    /// That of `root`, for a ceremony that begins at `now`. What a ceremony that was cut short left half written is removed.
    pub(super) fn open(folder: &Path, root: &CaCertificate, now: OffsetDateTime) -> Result<Self, RecordError> {
        let (path, head_path) = paths(folder);
        let io = |source| RecordError::Io { path: path.clone(), source };
        let opened = OpenOptions::new().read(true).append(true).open(&path);
        let mut file = opened.map_err(|source| match source.kind() {
            ErrorKind::NotFound => RecordError::Gone { path: path.clone() },
            _ => io(source),
        })?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => RecordError::Locked { path: path.clone() },
            TryLockError::Error(source) => io(source),
        })?;
        let found = reading::read(&path, BufReader::new(&file), root)?;
        reading::check_end(&path, &found, &read_head(&head_path)?)?;
        let last = found.entries.last().and_then(|entry| time_of(&entry.time)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        if last > now {
            return Err(RecordError::ClockWentBack { path, last, now });
        }
        if found.is_torn {
            file.set_len(found.bytes).and_then(|()| file.sync_all()).map_err(io)?;
        }
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(Self { file, path, head_path, head: found.head, last, entries: found.entries })
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn next_number(&self) -> u64 {
        self.head.number.saturating_add(1)
    }

    /// Returns when the entry is durable.
    pub(super) fn append(
        &mut self,
        act: Act,
        key: &CaKey,
        witness: &Witness,
        now: OffsetDateTime,
    ) -> Result<(), RecordError> {
        witness.check()?;
        let time = now.replace_nanosecond(0).unwrap_or(now);
        // It may have been set since the record was opened: a person was asked in between.
        if time < self.last.replace_nanosecond(0).unwrap_or(self.last) {
            return Err(RecordError::ClockWentBack { path: self.path.clone(), last: self.last, now });
        }
        let entry = Entry {
            number: self.next_number(),
            previous: self.head.sha256.clone(),
            time: Utc(time).to_string(),
            operator: witness.operator.clone(),
            host: witness.host.clone(),
            act,
        };
        let line = signed_line(&entry, key)?;
        let io = |source| RecordError::Io { path: self.path.clone(), source };
        let mut file = &self.file;
        file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        self.last = time;
        self.head = Head { number: entry.number, sha256: hex::encode(digest(&SHA256, line.as_bytes())) };
        let text = format!("{} {}\n", self.head.number, self.head.sha256);
        pem_files::write_whole(&self.head_path, text.as_bytes())
            .map_err(|source| RecordError::Io { path: self.head_path.clone(), source })
    }
}

/// Without the line's end.
fn signed_line(entry: &Entry, key: &CaKey) -> Result<String, RecordError> {
    let object = serde_json::to_string(entry).map_err(RecordError::Unwritable)?;
    // All but the brace that ends it.
    let (open, _) = object.split_at(object.len() - 1);
    let signature = key.sign(Kind::Statement, &statement(CONTEXT, open.as_bytes()))?;
    Ok(format!("{open}{SIGNATURE}{}\"}}", hex::encode(signature)))
}

/// Between what is signed and its signature.
const SIGNATURE: &str = ",\"signature\":\"";

/// The record, and its head.
fn paths(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("ceremonies.jsonl"), folder.join("ceremonies.head"))
}

fn read_head(path: &Path) -> Result<Head, RecordError> {
    let bad = || RecordError::BadHead { path: path.to_owned() };
    let text = match pem_files::read(path) {
        Ok(text) => String::from_utf8(text).map_err(|_| bad())?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(bad()),
        Err(source) => return Err(RecordError::Io { path: path.to_owned(), source }),
    };
    let (number, sha256) = text.trim_end().split_once(' ').ok_or_else(bad)?;
    Ok(Head { number: number.parse().map_err(|_| bad())?, sha256: sha256.to_owned() })
}

#[cfg(test)]
mod tests;
