//! One place that shows a log: what it shows now, beside what it showed before, and beside what others show.

use std::collections::BTreeSet;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError};

use signet_audit::{Act, Entry, Fault, Progress, ProofError, SignedCheckpoint, Source as _, VerifierKey, consistency};
use signet_policy::Pattern;

use super::super::place::Place;
use super::alert::{Alert, What};
use super::certificates::Certificates;
use super::heads::Head;
use super::{SKEW, Watching, now, state_file};
use crate::failure::Failure;

pub(super) struct Followed<'a> {
    name: &'a str,
    place: &'a Place,
    last: Option<Shown>,
    /// What is wrong already, and was told of.
    lasting: BTreeSet<&'static str>,
}

#[derive(Clone)]
struct Shown {
    key: VerifierKey,
    signed: SignedCheckpoint,
    note: String,
}

/// What is wrong, and the checkpoints that prove it.
type Proved = Box<(What, Vec<String>)>;

/// Nobody hears any more.
pub(super) struct Unheard;

/// Issued for the watch list, told one by one: of each round.
const MOST_TOLD: usize = 100;
/// In one alert.
const MOST_FAULTS: usize = 3;

impl<'a> Followed<'a> {
    pub(super) fn new(name: &'a str, place: &'a Place) -> Self {
        Self { name, place, last: None, lasting: BTreeSet::new() }
    }

    /// What it showed when the monitor ran last.
    pub(super) fn remember(&mut self, watching: &Watching<'a>) -> Result<(), Failure> {
        let Some(folder) = &watching.options.state else { return Ok(()) };
        let path = state_file(folder, self.name, "checkpoint");
        let wrong = |cause: &dyn std::fmt::Display| {
            Failure::new(format!("{}: {cause}", path.display()))
                .remedy("it says what was seen of the log before; restore it, or remove it to begin anew")
        };
        let note = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            read => read.map_err(|error| wrong(&error))?,
        };
        let first: Vec<_> = watching.keys.iter().map(VerifierKey::first).collect();
        let shown = open(note, &first).map_err(|error| wrong(&error))?;
        // The largest of those that were there. Whether all of them are of one history shows when they are looked at.
        let head = watching.heads.of(&shown.key);
        let size = |head: &std::sync::Arc<Head<'_>>| head.signed.checkpoint.size;
        if head.as_ref().is_none_or(|head| size(head) < shown.signed.checkpoint.size) {
            // Nobody else looks yet.
            let _ = watching.heads.advance(&shown.key, head.as_ref(), self.head(&shown));
        }
        self.last = Some(shown);
        Ok(())
    }

    /// Looks once, and tells what is wrong.
    pub(super) fn look(&mut self, watching: &Watching<'a>, alerts: &SyncSender<Alert>) -> Result<(), Unheard> {
        let mut found = Vec::new();
        self.check(watching, &mut found);
        let kinds = found.iter().filter(|alert| alert.what.lasts()).map(|alert| alert.what.kind()).collect();
        let known = std::mem::replace(&mut self.lasting, kinds);
        for alert in found {
            if !alert.what.lasts() || !known.contains(alert.what.kind()) {
                alerts.send(alert).map_err(|_| Unheard)?;
            }
        }
        Ok(())
    }

    fn check(&mut self, watching: &Watching<'a>, found: &mut Vec<Alert>) {
        let alert = |what, evidence| Alert { source: self.name.to_owned(), what, evidence };
        let shown = self.place.checkpoint().map_err(|error| cause(&error));
        let shown = match shown.and_then(|note| open(note, &watching.keys)) {
            Ok(shown) => shown,
            Err(cause) => return found.push(alert(What::Unreadable { cause }, Vec::new())),
        };
        let (now, time) = (now(), shown.signed.time);
        if now.saturating_sub(time) > watching.options.max_age.as_secs() {
            found.push(alert(What::Late { age_seconds: now - time }, Vec::new()));
        }
        if time.saturating_sub(now) > SKEW.as_secs() {
            found.push(alert(What::Future { ahead_seconds: time - now }, vec![shown.note.clone()]));
        }
        let last = self.last.as_ref();
        let set_back = last.and_then(|last| went_back(last, &shown));
        // What it was is remembered: it is not to become good by being looked at again.
        let is_kept = set_back.is_none();
        found.extend(set_back.map(|(what, evidence)| alert(what, evidence)));
        if !is_kept && last.is_some_and(|last| !goes_further(last, &shown)) {
            return;
        }
        match self.follow(watching, &shown) {
            Ok(issued) => {
                found.extend(issued.into_iter().map(|what| alert(what, Vec::new())));
                if is_kept && let Err(cause) = self.keep(watching, shown) {
                    found.push(Alert {
                        source: self.name.to_owned(),
                        what: What::Unreadable { cause },
                        evidence: Vec::new(),
                    });
                }
            }
            Err(proved) => {
                let (what, evidence) = *proved;
                found.push(alert(what, evidence));
            }
        }
    }

    /// That what is shown and the head are of one history; what is new is read, and verified.
    fn follow(&self, watching: &Watching<'a>, shown: &Shown) -> Result<Vec<What>, Proved> {
        loop {
            let head = watching.heads.of(&shown.key);
            let from = match &head {
                Some(head) => self.compare(head, shown)?,
                None => 0,
            };
            let is_longer = head.is_none() || from < shown.signed.checkpoint.size;
            // Of what was verified before this monitor began, the certificates are not known.
            let is_unread = watching.follows_gateways() && !watching.certificates.has_read(&shown.key);
            // Where there is a head, it is what others verified.
            let issued = match is_longer || is_unread {
                true => self.read(watching, shown, if is_unread { 0 } else { from }, from)?,
                false => Vec::new(),
            };
            if is_longer && watching.heads.advance(&shown.key, head.as_ref(), self.head(shown)).is_err() {
                continue;
            }
            if from <= shown.signed.checkpoint.size {
                watching.certificates.note_read(&shown.key, shown.signed.time);
            }
            return Ok(issued);
        }
    }

    /// The entries that both have, and others have verified.
    fn compare(&self, head: &Head<'_>, shown: &Shown) -> Result<u64, Proved> {
        let (theirs, ours) = (&head.signed.checkpoint, &shown.signed.checkpoint);
        let is_longer = ours.size >= theirs.size;
        let proved = match is_longer {
            true => consistency(self.place, (theirs.size, theirs.root), ours),
            false => consistency(head.place, (ours.size, ours.root), theirs),
        };
        match proved {
            Ok(_) => Ok(theirs.size),
            Err(error @ ProofError::NotConsistent { .. }) => {
                let what = What::Fork { beside: head.source.clone(), cause: error.to_string() };
                Err(Box::new((what, vec![head.note.clone(), shown.note.clone()])))
            }
            // Another source's files are its own trouble: it is compared again at the next look.
            Err(_) if !is_longer => Ok(theirs.size),
            Err(ProofError::Read(error)) => Err(Box::new((What::Unreadable { cause: cause(&error) }, Vec::new()))),
            Err(error) => Err(Box::new((What::Tampered { cause: error.to_string() }, vec![shown.note.clone()]))),
        }
    }

    /// All entries from this one on, verified; and what of them is on the watch list, where it was not told before.
    fn read(&self, watching: &Watching<'a>, shown: &Shown, from: u64, told: u64) -> Result<Vec<What>, Proved> {
        let checkpoint = &shown.signed.checkpoint;
        let log = checkpoint.origin.as_str();
        let certificates = watching.follows_gateways().then_some(&watching.certificates);
        let watched = &watching.options.watch;
        let issued = Issued { from, told, watched, log, certificates, found: Mutex::default() };
        signet_audit::verify(self.place, checkpoint, from, 1, &issued).map_err(|faults| {
            let all: Vec<_> = faults.iter().take(MOST_FAULTS).map(|fault| cause(fault)).collect();
            let what = match faults.first() {
                Some(Fault::Read(_)) => What::Unreadable { cause: all.join("; ") },
                _ => What::Tampered { cause: all.join("; ") },
            };
            Box::new((what, vec![shown.note.clone()]))
        })?;
        Ok(issued.told())
    }

    fn head(&self, shown: &Shown) -> Head<'a> {
        let (signed, note) = (shown.signed.clone(), shown.note.clone());
        Head { signed, note, source: self.name.to_owned(), place: self.place }
    }

    fn keep(&mut self, watching: &Watching<'a>, shown: Shown) -> Result<(), String> {
        if let Some(folder) = &watching.options.state {
            let path = state_file(folder, self.name, "checkpoint");
            let next = path.with_extension("new");
            let written = std::fs::write(&next, &shown.note).and_then(|()| std::fs::rename(&next, &path));
            written.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        self.last = Some(shown);
        Ok(())
    }
}

/// By the one of these keys that it is signed by.
fn open(note: Vec<u8>, keys: &[VerifierKey]) -> Result<Shown, String> {
    let mut refused = String::new();
    let origin = note.split(|byte| *byte == b'\n').next().unwrap_or_default();
    for key in keys {
        match SignedCheckpoint::open(&note, key) {
            Ok(signed) => {
                let note = String::from_utf8_lossy(&note).into_owned();
                return Ok(Shown { key: key.clone(), signed, note });
            }
            // Of several keys, the one of its name says why.
            Err(error) if refused.is_empty() || key.origin().as_str().as_bytes() == origin => {
                refused = format!("its checkpoint: {error}");
            }
            Err(_) => {}
        }
    }
    Err(refused)
}

fn went_back(last: &Shown, shown: &Shown) -> Option<(What, Vec<String>)> {
    let (before, now) = (&last.signed, &shown.signed);
    let cause = if !last.key.is_same_log(&shown.key) {
        format!("it is the log {} now, and was {}", shown.key.origin(), last.key.origin())
    } else if now.checkpoint.size < before.checkpoint.size {
        format!("it has {} entries, and had {}", now.checkpoint.size, before.checkpoint.size)
    } else if now.time < before.time {
        format!("its checkpoint is older than the one before, by {} s", before.time - now.time)
    } else {
        return None;
    };
    Some((What::SetBack { cause }, vec![last.note.clone(), shown.note.clone()]))
}

/// Whether it is the same log with as many entries at least, whatever the clock of its issuer says: what is new of it is looked at.
fn goes_further(last: &Shown, shown: &Shown) -> bool {
    last.key.is_same_log(&shown.key) && shown.signed.checkpoint.size >= last.signed.checkpoint.size
}

pub(super) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    signet_process::start::Report::of(error).cause
}

/// Looks for identities of the watch list among entries that were verified, and for certificates that may be presented.
struct Issued<'a> {
    from: u64,
    /// What is before it was told by somebody.
    told: u64,
    watched: &'a [Pattern],
    log: &'a str,
    certificates: Option<&'a Certificates>,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    issued: Vec<What>,
    more: u64,
}

impl Issued<'_> {
    fn told(self) -> Vec<What> {
        let Found { issued, more } = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let log = self.log.to_owned();
        let more = (more > 0).then_some(What::IssuedMore { log, count: more });
        issued.into_iter().chain(more).collect()
    }
}

impl Progress for Issued<'_> {
    fn entries(&self, first: u64, entries: &mut dyn Iterator<Item = &[u8]>) {
        if self.watched.is_empty() && self.certificates.is_none() {
            return;
        }
        for (index, entry) in (first..).zip(entries) {
            if index < self.from {
                continue;
            }
            let Some(entry) = Entry::decode(entry) else { continue };
            if let Some(certificates) = self.certificates {
                certificates.add(&entry);
            }
            let Entry { time, act, .. } = entry;
            if index < self.told {
                continue;
            }
            let (spiffe_id, id) = match act {
                Act::X509Issued(issued) => (issued.spiffe_id, issued.serial),
                Act::JwtIssued(issued) => (issued.spiffe_id, issued.jti),
                _ => continue,
            };
            if !self.watched.iter().any(|pattern| pattern.matches(&spiffe_id)) {
                continue;
            }
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            match found.issued.len() < MOST_TOLD {
                true => {
                    let log = self.log.to_owned();
                    found.issued.push(What::Issued { log, index, spiffe_id, id, at: time });
                }
                false => found.more += 1,
            }
        }
    }
}
