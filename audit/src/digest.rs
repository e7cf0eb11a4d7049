//! Digests: for each hour a statement of what was logged in it, chained to the one before, also where nothing was.
//!
//! ```text
//! signet/audit-digest/v1
//! log example.org/audit/3f1c0d5a
//! from 2026-11-28T09:00:00Z
//! to 2026-11-28T10:00:00Z
//! entries 1263                                                          of them in this time
//! size 20852163                                                         all, at its end
//! root CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//! previous 2026-11-28T08:00:00Z 5f0c…                                   from when the one before is, and its SHA-256; or `none`
//! ```
//! They are files beside the tiles, `digest/2026/11/28/09`, named after the hour that they begin with. An entry belongs to the hour in which a checkpoint
//! with it was signed first.

use std::fmt;
use std::str::FromStr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tlog_tiles::Hash;

use crate::checkpoint::{Checkpoint, Origin, SignedCheckpoint};
use crate::entry::Entry;
use crate::proof::{ProofError, consistency, inclusion};
use crate::resource::Resource;
use crate::source::{ReadError, Source};
use crate::statement::{About, Statement, StatementError};
use crate::verifier_key::VerifierKey;
use crate::{MOST_ENTRIES, sha256};

/// An hour of the clock, UTC: before the year 10000.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Hour(u64);

#[derive(Clone, Debug, PartialEq)]
pub struct Digest {
    pub log: Origin,
    /// The hour that it begins with.
    pub from: Hour,
    /// The first one that is not in it: the next, but where somebody was away for very long.
    pub to: Hour,
    /// Logged in this time.
    pub entries: u64,
    /// Of the log, at the end.
    pub size: u64,
    pub root: Hash,
    /// None for the first one of a log.
    pub previous: Option<Link>,
}

/// What a digest says of the one before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    pub from: Hour,
    /// SHA-256 of the file.
    pub hash: [u8; 32],
}

/// What was found of a log's digests, all good.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Digests {
    pub count: u64,
    /// Of those, with no entry.
    pub empty: u64,
    pub from: Hour,
    pub to: Hour,
}

/// What is wrong with the digests of a log.
#[derive(Debug, thiserror::Error)]
pub enum DigestFault {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the digest of {hour} is not to be believed: {source}")]
    Statement { hour: Hour, source: StatementError },
    #[error("the digest of {hour} is none: {what}")]
    Form { hour: Hour, what: &'static str },
    #[error("the digest of {hour} was replaced: the one behind it was made over another")]
    Replaced { hour: Hour },
    #[error(
        "the digest of {hour} ends with {to}, and the next one begins with {next}: what was between them was taken out"
    )]
    Gap { hour: Hour, to: Hour, next: Hour },
    #[error("the digest of {hour} has {size} entries at its end, which does not fit the next one")]
    Sizes { hour: Hour, size: u64 },
    #[error("the log of today is not the one that the digest of {hour} is of: {source}")]
    OtherLog { hour: Hour, source: ProofError },
    #[error("the last digest ends with {to}, and the log goes on until {now}: those of the hours between are missing")]
    Late { to: Hour, now: Hour },
    #[error("the first digest is of {first}, and the log began at {began}: those before it are missing")]
    Begun { first: Hour, began: Hour },
    #[error("there is no digest, and the log began at {began} and goes on until {now}")]
    NoDigest { began: Hour, now: Hour },
    #[error("the first entry of the log cannot be read, which says since when there are digests")]
    FirstEntry(#[source] ProofError),
    #[error(
        "the last digest ends with {to}, and the log was last signed before that: it was made before its time was over, by a clock that was ahead"
    )]
    Early { to: Hour },
}

const HOUR: u64 = 3600;
/// The first hour of the year 10000.
const END: u64 = 70_389_528;
/// How long the one that ends takes to be there, in seconds: an issuer whose clock was set on waits for five minutes.
const GRACE: u64 = 600;
/// So many seconds a digest may be read later than the checkpoint of the same log.
const READ_LATER: u64 = 60;
/// Hours. What is logged just before one ends is published in the next one.
const FIRST_WITHIN: u64 = 1;

impl Hour {
    /// That of a time, in Unix seconds.
    pub fn of(time: u64) -> Option<Self> {
        Some(Self(time / HOUR)).filter(|hour| hour.0 < END)
    }

    /// Its beginning, in Unix seconds.
    pub fn begins(self) -> u64 {
        self.0 * HOUR
    }

    pub fn next(self) -> Option<Self> {
        Some(Self(self.0 + 1)).filter(|hour| hour.0 < END)
    }

    /// How many lie between.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    fn time(self) -> OffsetDateTime {
        // It is before the year 10000.
        i64::try_from(self.begins())
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// `2026/11/28/09`, as the path has it.
    pub(crate) fn parse_path(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let [year, month, day, hour] = parts[..] else { return None };
        let is_number =
            |(part, length): (&str, usize)| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
        if ![(year, 4), (month, 2), (day, 2), (hour, 2)].into_iter().all(is_number) {
            return None;
        }
        format!("{year}-{month}-{day}T{hour}:00:00Z").parse().ok()
    }

    pub(crate) fn path(self) -> String {
        let time = self.time();
        format!("{:04}/{:02}/{:02}/{:02}", time.year(), u8::from(time.month()), time.day(), time.hour())
    }
}

/// RFC 3339.
impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.time().format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Hour {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(drop)?;
        let hour = u64::try_from(time.unix_timestamp()).ok().and_then(Self::of).ok_or(())?;
        // It has one form.
        if hour.to_string() == text { Ok(hour) } else { Err(()) }
    }
}

impl Digest {
    pub fn statement(&self) -> Statement {
        let previous = self
            .previous
            .map_or_else(|| "none".to_owned(), |Link { from, hash }| format!("{from} {}", hex::encode(hash)));
        Statement::new(About::Digest, self.log.clone())
            .with("from", self.from)
            .with("to", self.to)
            .with("entries", self.entries)
            .with("size", self.size)
            .with("root", self.root)
            .with("previous", previous)
    }

    /// One that `key` has signed, and that is the digest of that hour.
    pub fn open(note: &[u8], hour: Option<Hour>, key: &VerifierKey) -> Result<Self, DigestFault> {
        let epoch = hour.unwrap_or(Hour(0));
        let statement = Statement::open(note, About::Digest, key)
            .map_err(|source| DigestFault::Statement { hour: epoch, source })?;
        let wrong = |what| DigestFault::Form { hour: epoch, what };
        let digest = Self::parse(&statement).ok_or_else(|| wrong("it is not written as one"))?;
        if digest.statement() != statement {
            return Err(wrong("it is not written as one"));
        }
        if hour.is_some_and(|hour| hour != digest.from) {
            return Err(wrong("it is of another hour"));
        }
        let is_sound = digest.from < digest.to
            && digest.entries <= digest.size
            && digest.size <= MOST_ENTRIES
            // What is before lies before; the first one has all entries.
            && match digest.previous {
                Some(link) => link.from < digest.from,
                None => digest.entries == digest.size,
            };
        if is_sound { Ok(digest) } else { Err(wrong("it contradicts itself")) }
    }

    fn parse(statement: &Statement) -> Option<Self> {
        let number = |name| statement.get(name)?.parse().ok();
        let hour = |name| statement.get(name)?.parse().ok();
        let previous = match statement.get("previous")? {
            "none" => None,
            link => {
                let (from, hash) = link.split_once(' ')?;
                Some(Link { from: from.parse().ok()?, hash: hex::decode(hash).ok()?.try_into().ok()? })
            }
        };
        Some(Self {
            log: statement.log.clone(),
            from: hour("from")?,
            to: hour("to")?,
            entries: number("entries")?,
            size: number("size")?,
            root: Hash::parse_hash(statement.get("root")?).ok()?,
            previous,
        })
    }
}

/// The last digest of a log, and its file; None where no hour has ended yet.
pub fn latest(source: &impl Source, key: &VerifierKey) -> Result<Option<(Digest, Vec<u8>)>, DigestFault> {
    match source.file(Resource::LatestDigest) {
        Err(ReadError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(note) => Ok(Some((Digest::open(&note, None, key)?, note))),
    }
}

/// The digests behind the one of `known`, or all, by their hours: as they are chained, the first of them first. What is before the last
/// one is verified by nobody here.
pub fn digests_behind(
    source: &impl Source,
    key: &VerifierKey,
    known: Option<Hour>,
) -> Result<Vec<(Digest, Vec<u8>)>, DigestFault> {
    let mut found = Vec::new();
    let mut next = latest(source, key)?;
    while let Some((digest, note)) = next.filter(|(digest, _)| Some(digest.from) != known) {
        next = match digest.previous {
            Some(link) if Some(link.from) != known => {
                let note = source.file(Resource::Digest(link.from))?;
                Some((Digest::open(&note, Some(link.from), key)?, note))
            }
            _ => None,
        };
        found.push((digest, note));
    }
    found.reverse();
    Ok(found)
}

/// All digests from the last one back to `from`, or to the first of the log: that each is signed and follows the one before, that there is one
/// for each hour since the first entry was made, and that what it says is the beginning of the log as it is today. None where no hour has ended
/// yet.
pub fn verify_digests(
    source: &impl Source,
    today: &SignedCheckpoint,
    key: &VerifierKey,
    from: Option<Hour>,
    mut progress: impl FnMut(&Digest),
) -> Result<Option<Digests>, DigestFault> {
    let now = Hour::of(today.time.saturating_sub(GRACE));
    let Some((mut digest, _)) = latest(source, key)? else {
        return match (began(source, &today.checkpoint)?, now) {
            (Some(began), Some(now)) if now.since(began) > FIRST_WITHIN => Err(DigestFault::NoDigest { began, now }),
            _ => Ok(None),
        };
    };
    if let Some(now) = now.filter(|now| *now > digest.to) {
        return Err(DigestFault::Late { to: digest.to, now });
    }
    if digest.to.begins() > today.time.saturating_add(READ_LATER) {
        return Err(DigestFault::Early { to: digest.to });
    }
    // The last one stands under its hour as well.
    let note = source.file(Resource::Digest(digest.from))?;
    if Digest::open(&note, Some(digest.from), key)? != digest {
        return Err(DigestFault::Replaced { hour: digest.from });
    }
    let mut found = Digests { count: 0, empty: 0, from: digest.from, to: digest.to };
    let mut later = today.checkpoint.clone();
    loop {
        let hour = digest.from;
        consistency(source, (digest.size, digest.root), &later)
            .map_err(|source| DigestFault::OtherLog { hour, source })?;
        progress(&digest);
        found.count += 1;
        found.empty += u64::from(digest.entries == 0);
        found.from = hour;
        let Some(link) = digest.previous else {
            return match began(source, &today.checkpoint)? {
                Some(began) if hour.since(began) > FIRST_WITHIN => Err(DigestFault::Begun { first: hour, began }),
                _ => Ok(Some(found)),
            };
        };
        if from.is_some_and(|from| hour <= from) {
            return Ok(Some(found));
        }
        let note = source.file(Resource::Digest(link.from))?;
        if sha256(&note) != link.hash {
            return Err(DigestFault::Replaced { hour: link.from });
        }
        let before = Digest::open(&note, Some(link.from), key)?;
        if before.to != hour {
            return Err(DigestFault::Gap { hour: before.from, to: before.to, next: hour });
        }
        if before.size + digest.entries != digest.size {
            return Err(DigestFault::Sizes { hour: before.from, size: before.size });
        }
        later = Checkpoint { origin: digest.log.clone(), size: digest.size, root: digest.root };
        digest = before;
    }
}

/// The hour in which the first entry was made. None where the log has none, or one that is not known here.
fn began(source: &impl Source, today: &Checkpoint) -> Result<Option<Hour>, DigestFault> {
    if today.size == 0 {
        return Ok(None);
    }
    let proved = inclusion(source, today, "", 0).map_err(DigestFault::FirstEntry)?;
    let time = Entry::decode(&proved.entry).and_then(|entry| OffsetDateTime::parse(&entry.time, &Rfc3339).ok());
    Ok(time.and_then(|time| u64::try_from(time.unix_timestamp()).ok()).and_then(Hour::of))
}

#[cfg(test)]
mod tests;
