//! One gateway: each certificate that was presented to it is to be in a log.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::alert::{Alert, What};
use super::certificates::{KEPT, Verdict, due};
use super::source::Unheard;
use super::{Watching, now};
use crate::audit::web::Web;
use crate::failure::Failure;
use crate::output;

pub(super) struct Gateway<'a> {
    name: &'a str,
    web: Web,
    /// Where it is written down how far its list was judged.
    state: Option<PathBuf>,
    /// None until its list was read for the first time.
    read: Option<Read>,
    /// In the order of the list: those that no log has yet.
    waiting: VecDeque<Presented>,
    /// Listed no more before they were read, or ended before they were looked for.
    missed: u64,
    /// What is wrong already, and was told of.
    lasting: BTreeSet<&'static str>,
}

/// How far its list was read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Read {
    /// Of which run of the gateway.
    begun: String,
    last: u64,
}

/// What the gateway's `/peers/N` answers.
#[derive(Deserialize)]
struct Peers {
    begun: String,
    #[serde(deserialize_with = "moment")]
    now: OffsetDateTime,
    oldest: u64,
    last: u64,
    more: bool,
    peers: Vec<Peer>,
}

#[derive(Deserialize)]
struct Peer {
    number: u64,
    spiffe_id: String,
    serial: String,
    certificate: String,
    #[serde(deserialize_with = "moment")]
    not_after: OffsetDateTime,
    #[serde(deserialize_with = "moment")]
    presented: OffsetDateTime,
    by: String,
}

struct Presented {
    peer: Peer,
    sha256: [u8; 32],
    domain: String,
    /// By this clock. Seconds since 1970.
    at: u64,
}

/// As many certificates as a gateway lists, each with the longest of SPIFFE IDs. Bytes.
const MAX_PAGE: usize = 4 << 20;
/// Of one look. A gateway lists no more than 8192 certificates.
const MOST_PAGES: usize = 16;
/// That wait for a log to be read: older ones make room, and are told of as missed.
const MOST_WAITING: usize = 16_384;
/// Told one by one, of each look.
const MOST_TOLD: usize = 100;

impl<'a> Gateway<'a> {
    pub(super) fn new(name: &'a str, state: Option<PathBuf>) -> Result<Self, Failure> {
        let web = Web::of(name)?.ok_or_else(|| {
            Failure::new(format!("{name} is no URL"))
                .remedy("give the gateway's admin address, as http://127.0.0.1:9901")
        })?;
        let read = match &state {
            Some(path) => remembered(path)?,
            None => None,
        };
        let (waiting, lasting) = (VecDeque::new(), BTreeSet::new());
        Ok(Self { name, web, state, read, waiting, missed: 0, lasting })
    }

    /// What was presented since the last look.
    pub(super) fn read(&mut self) -> Result<(), String> {
        let is_first = self.read.is_none();
        for _ in 0..MOST_PAGES {
            let after = self.read.as_ref().map_or(0, |read| read.last);
            let page = self.page(after)?;
            let page = match &self.read {
                Some(read) if read.begun != page.begun => {
                    // Another run of the gateway, which counts anew.
                    self.read = Some(Read { begun: page.begun, last: 0 });
                    continue;
                }
                _ => page,
            };
            // Of a list that is read for the first time, nobody knows what it had before.
            if let Some(read) = &self.read {
                let listed_no_more = page.oldest.saturating_sub(read.last.saturating_add(1));
                self.missed = self.missed.saturating_add(listed_no_more);
            }
            let behind = now().cast_signed().saturating_sub(page.now.unix_timestamp());
            for peer in page.peers {
                self.take(peer, behind, is_first)?;
            }
            self.read = Some(Read { begun: page.begun, last: page.last });
            if !page.more {
                break;
            }
        }
        Ok(())
    }

    fn page(&self, after: u64) -> Result<Peers, String> {
        let path = format!("peers/{after}");
        let read = self.web.read(&path, MAX_PAGE).map_err(|error| super::source::cause(&error))?;
        let bytes = read.ok_or("it has no list of peers: is it the admin address of a gateway?")?;
        let page: Peers = serde_json::from_slice(&bytes).map_err(|error| format!("its list of peers: {error}"))?;
        let numbers: Vec<_> = page.peers.iter().map(|peer| peer.number).collect();
        let is_in_order = numbers.iter().all(|number| *number > after) && numbers.is_sorted_by(|a, b| a < b);
        match is_in_order && page.last >= after && numbers.last().is_none_or(|last| *last == page.last) {
            true => Ok(page),
            false => Err("its list of peers is not in order".to_owned()),
        }
    }

    /// `behind` is how far the gateway's clock is behind this one. Seconds.
    fn take(&mut self, peer: Peer, behind: i64, is_first: bool) -> Result<(), String> {
        let mut sha256 = [0; 32];
        let decoded = hex::decode_to_slice(&peer.certificate, &mut sha256);
        let domain = peer.spiffe_id.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
        let (Ok(()), Some(domain)) = (decoded, domain.map(str::to_owned)) else {
            return Err(format!("its list of peers: number {} is none", peer.number));
        };
        if peer.not_after.unix_timestamp() < now().cast_signed() - KEPT {
            // The logs' certificates are not known for so long.
            self.missed = self.missed.saturating_add((!is_first).into());
            return Ok(());
        }
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.pop_front();
            self.missed = self.missed.saturating_add(1);
        }
        let at = u64::try_from(peer.presented.unix_timestamp().saturating_add(behind)).unwrap_or(0);
        self.waiting.push_back(Presented { peer, sha256, domain, at });
        Ok(())
    }

    /// Looks for what was read in the logs, and tells what is wrong. `unread` says why there was nothing to read.
    pub(super) fn judge(
        &mut self,
        watching: &Watching<'_>,
        unread: Option<String>,
        alerts: &SyncSender<Alert>,
    ) -> Result<(), Unheard> {
        let grace = watching.options.grace;
        let mut found = Vec::new();
        found.extend(unread.map(|cause| What::Unreadable { cause }));
        let (mut open, mut told, mut more) = (VecDeque::new(), 0, 0);
        for presented in self.waiting.drain(..) {
            let by = due(presented.at, grace);
            match watching.certificates.judge(&watching.keys, &presented.domain, &presented.sha256, by) {
                Verdict::Logged | Verdict::Foreign => {}
                Verdict::Open => open.push_back(presented),
                Verdict::Unlogged if told < MOST_TOLD => {
                    told += 1;
                    found.push(presented.unlogged());
                }
                Verdict::Unlogged => more += 1,
            }
        }
        let is_late = |presented: &Presented| due(presented.at, 2 * grace) < now();
        let late = open.iter().filter(|presented| is_late(presented)).count();
        self.waiting = open;
        found.extend((more > 0).then_some(What::UnloggedMore { count: more }));
        found.extend((late > 0).then_some(What::Waiting { count: late as u64 }));
        let missed = std::mem::take(&mut self.missed);
        found.extend((missed > 0).then_some(What::Missed { count: missed }));
        found.extend(self.keep().err().map(|cause| What::Unreadable { cause }));
        let kinds = found.iter().filter(|what| what.lasts()).map(What::kind).collect();
        let known = std::mem::replace(&mut self.lasting, kinds);
        for what in found {
            if !what.lasts() || !known.contains(what.kind()) {
                let alert = Alert { source: self.name.to_owned(), what, evidence: Vec::new() };
                alerts.send(alert).map_err(|_| Unheard)?;
            }
        }
        Ok(())
    }

    /// How far everything was judged.
    fn keep(&self) -> Result<(), String> {
        let (Some(path), Some(read)) = (&self.state, &self.read) else { return Ok(()) };
        let waits_for = self.waiting.front().map(|presented| presented.peer.number.saturating_sub(1));
        let last = waits_for.map_or(read.last, |last| last.min(read.last));
        let kept = serde_json::to_vec(&Read { last, ..read.clone() }).map_err(|error| error.to_string())?;
        let next = path.with_extension("new");
        let written = std::fs::write(&next, kept).and_then(|()| std::fs::rename(&next, path));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads, judges, and writes down how far it came.
    pub(super) fn look(&mut self, watching: &Watching<'_>, alerts: &SyncSender<Alert>) -> Result<(), Unheard> {
        let unread = self.read().err();
        self.judge(watching, unread, alerts)
    }
}

impl Presented {
    fn unlogged(self) -> What {
        let Peer { spiffe_id, serial, certificate, by, .. } = self.peer;
        let at = OffsetDateTime::from_unix_timestamp(self.at.cast_signed()).map(output::timestamp);
        What::Unlogged { spiffe_id, serial, certificate, by, at: at.unwrap_or_default() }
    }
}

fn remembered(path: &Path) -> Result<Option<Read>, Failure> {
    let wrong = |cause: &dyn std::fmt::Display| {
        Failure::new(format!("{}: {cause}", path.display()))
            .remedy("it says how far the gateway's list was judged; restore it, or remove it to begin anew")
    };
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(&error)),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| wrong(&error)),
    }
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    OffsetDateTime::parse(&String::deserialize(deserializer)?, &Rfc3339).map_err(D::Error::custom)
}
