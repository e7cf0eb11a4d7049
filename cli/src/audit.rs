//! `signet audit`: a log is verified by whoever has its files and its public key.

mod copy;
mod digests;
mod following;
mod meter;
mod monitor;
mod new_log;
mod place;
mod proofs;
mod report;
mod seen;
mod shown;
mod stream;
mod tail;
mod verify_report;
mod web;
mod witnessed;

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Serialize;
use signet_audit::{Entry, Progress, SignedCheckpoint, Source as _, consistency};
use time::OffsetDateTime;

use crate::args::{AuditVerifyOptions, KeyOptions};
use crate::failure::Failure;
use crate::output::{self, Format, Report};

pub(crate) use copy::export;
pub(crate) use digests::verify as verify_digests;
pub(crate) use monitor::monitor;
pub(crate) use new_log::new_log;
pub(crate) use place::Place;
pub(crate) use proofs::{prove, verify_proof};
pub(crate) use report::report;
pub(crate) use stream::stream;
pub(crate) use tail::{search, tail};
pub(crate) use verify_report::verify_report;

use meter::Meter;
use seen::Seen;
use witnessed::Vouched;

/// A clock may be ahead by so much: of whoever signs, or of whoever verifies.
const SKEW: Duration = Duration::from_secs(60);

pub(crate) fn verify(options: &AuditVerifyOptions, format: Format) -> Result<(), Failure> {
    let AuditVerifyOptions { log, max_age, state, whole, witnesses } = options;
    let key = key_of(&log.key)?;
    let place = Place::of(&log.log)?;
    let quorum = witnessed::quorum_of(witnesses, &key)?;
    let witnessed = if quorum.is_some() { witnessed::note_of(&place)? } else { None };
    let note = place.checkpoint().map_err(|error| Failure::from_error(&error))?;
    let signed = SignedCheckpoint::open(&note, &key);
    let signed = signed.map_err(|error| Failure::new(format!("{}: the checkpoint: {error}", log.log)))?;
    let now = OffsetDateTime::now_utc();
    let age = check_age(&signed, now, *max_age)?;
    let demand =
        |quorum| witnessed::demand_of_log(quorum, &place, &key, (&signed, &note), witnessed.as_deref(), *max_age);
    let vouched = quorum.as_ref().map(demand).transpose()?;
    let seen = Seen::read(state.as_deref(), &key)?;
    let from = match seen.last() {
        Some(before) => {
            seen.check_time(&signed)?;
            let root = (before.size, before.root()?);
            consistency(&place, root, &signed.checkpoint).map_err(|error| {
                Failure::from_error(&error).remedy(format!(
                    "keep both: {} has what was seen before, and the log what is there now",
                    seen.path()
                ))
            })?;
            if *whole { 0 } else { before.size }
        }
        None => 0,
    };
    let watch = Watch::new(signed.checkpoint.size.saturating_sub(from));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let verified = signet_audit::verify(&place, &signed.checkpoint, from, threads, &watch);
    let unreadable = watch.end();
    let faults: Vec<String> = match verified {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(|fault| signet_process::start::Report::of(fault).cause).collect(),
    };
    let faults: Vec<String> = faults
        .into_iter()
        .chain(
            unreadable.iter().map(|index| format!("entry {index} was logged so, and is no entry of a log of Signet")),
        )
        .collect();
    if let Some((first, more)) = faults.split_first() {
        for fault in more {
            output::tell(&format!("error: {fault}"))?;
        }
        return Err(Failure::new(first).remedy(format!(
            "this log cannot be relied on: {} found wrong; keep a copy of it, and ask whoever runs the issuer",
            match faults.len() {
                1 => "1 thing was".to_owned(),
                count => format!("{count} things were"),
            }
        )));
    }
    let checkpoint = &signed.checkpoint;
    let told = Told {
        log: checkpoint.origin.to_string(),
        entries: checkpoint.size,
        read: checkpoint.size - from.min(checkpoint.size),
        root: checkpoint.root.to_string(),
        signed_at: OffsetDateTime::from_unix_timestamp(signed.time.cast_signed())
            .map(output::timestamp)
            .unwrap_or_default(),
        age_seconds: age.as_secs(),
        seen_before: (from > 0).then_some(from),
        witnessed: vouched,
    };
    seen.write(&signed)?;
    output::print(format, &told)
}

pub(crate) fn key_of(options: &KeyOptions) -> Result<signet_audit::VerifierKey, Failure> {
    if let Some(key) = &options.key {
        return Ok(key.clone());
    }
    // clap demands one or the other.
    let path = options.key_file.as_deref().ok_or_else(|| Failure::new("no key").remedy("give --key or --key-file"))?;
    key_in(path)
}

/// The one that a file has.
pub(crate) fn key_in(path: &std::path::Path) -> Result<signet_audit::VerifierKey, Failure> {
    let wrong = |cause: &dyn std::fmt::Display| {
        Failure::new(format!("{}: {cause}", path.display()))
            .remedy("give the public key of the log, ORIGIN+HASH+KEY, as the people who run the issuer have it")
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    match signet_audit::VerifierKey::read(&text).map_err(|error| wrong(&error))?.as_slice() {
        [key] => Ok(key.clone()),
        [] => Err(wrong(&"it has no key")),
        [_, _, ..] => Err(wrong(&"it has the keys of several logs")),
    }
}

/// How old a checkpoint is.
fn check_age(signed: &SignedCheckpoint, now: OffsetDateTime, most: Option<Duration>) -> Result<Duration, Failure> {
    check_age_of("the checkpoint", signed.time, now, most)
}

/// Of what was signed at `time`, in Unix seconds.
fn check_age_of(what: &str, time: u64, now: OffsetDateTime, most: Option<Duration>) -> Result<Duration, Failure> {
    let age = i128::from(now.unix_timestamp()) - i128::from(time);
    if age < -i128::from(SKEW.as_secs()) {
        return Err(Failure::new(format!(
            "{what} is of the future: it was signed {} s ahead of this machine's clock",
            -age
        ))
        .remedy("set the clock of this machine, or of the issuer"));
    }
    let age = Duration::from_secs(u64::try_from(age.max(0)).unwrap_or(u64::MAX));
    match most.filter(|most| age > *most) {
        None => Ok(age),
        Some(most) => Err(Failure::new(format!(
            "{what} is {} old, and {} is the most: the log is not published any more, or kept back",
            output::span(age.as_secs()),
            output::span(most.as_secs())
        ))
        .remedy("see whether the issuer runs; a copy of the log has to be made again")),
    }
}

/// Looks at entries as they are verified, and tells a person how far it is.
struct Watch {
    meter: Meter,
    unreadable: Mutex<Vec<u64>>,
}

impl Watch {
    const MOST_UNREADABLE: usize = 20;

    fn new(entries: u64) -> Self {
        Self { meter: Meter::new(entries), unreadable: Mutex::default() }
    }

    /// The entries that are none of ours.
    fn end(self) -> Vec<u64> {
        self.meter.end();
        let mut unreadable = self.unreadable.into_inner().unwrap_or_else(PoisonError::into_inner);
        unreadable.sort_unstable();
        unreadable
    }
}

impl Progress for Watch {
    fn entries(&self, index: u64, entries: &mut dyn Iterator<Item = &[u8]>) {
        let mut count = 0;
        for entry in entries {
            if !Entry::is_one(entry) {
                let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
                if unreadable.len() < Self::MOST_UNREADABLE {
                    unreadable.push(index + count);
                }
            }
            count += 1;
        }
        self.meter.add(count);
    }
}

#[derive(Serialize)]
struct Told {
    log: String,
    entries: u64,
    /// Of these each one, this time.
    read: u64,
    root: String,
    signed_at: String,
    age_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    witnessed: Option<Vouched>,
}

impl Report for Told {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("log", self.log.clone()),
            ("entries", format!("{}, each as it was logged", self.entries)),
            ("read", self.read.to_string()),
            ("root", self.root.clone()),
            ("signed at", format!("{} ({} ago)", self.signed_at, output::span(self.age_seconds))),
        ];
        if let Some(before) = self.seen_before {
            rows.push(("seen before", format!("{before} entries, which the log still begins with")));
        }
        if let Some(vouched) = &self.witnessed {
            rows.push(("witnessed", vouched.shown()));
        }
        rows
    }
}
