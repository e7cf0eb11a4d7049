//! What a page shows of a report: counts, each of them bounded however long the log is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use time::{Duration, OffsetDateTime};

use super::row::{Row, reason};
use super::{Known, Window};
use crate::sha256;

pub(super) struct Figures {
    window: Window,
    pub(super) over_time: OverTime,
    pub(super) by_authority: Tally,
    pub(super) by_template: Tally,
    pub(super) by_attestation: Tally,
    pub(super) revoked: Tally,
    pub(super) refused: Tally,
    pub(super) longest: Longest,
    /// The first 16 bytes of the hashes of SPIFFE IDs.
    identities: HashSet<[u8; 16]>,
}

/// How often what was told, by name.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: BTreeMap<String, u64>,
    /// Of names that had no room.
    others: u64,
}

/// Equal parts of the window, each with what was issued, revoked and refused in it.
#[derive(Debug)]
pub(super) struct OverTime {
    /// Of the first.
    from: OffsetDateTime,
    pub(super) step: Duration,
    pub(super) parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Part {
    pub(super) issued: u64,
    pub(super) revoked: u64,
    pub(super) refused: u64,
}

/// The identities with the longest-lived certificates, each once.
#[derive(Debug, Default)]
pub(super) struct Longest(Vec<Lived>);

#[derive(Clone, Debug)]
pub(super) struct Lived {
    pub(super) seconds: u64,
    /// In the log.
    pub(super) index: u64,
    pub(super) id: String,
    pub(super) template: String,
}

/// Names in one tally; they are few, unless somebody fills the log with others.
const MOST_NAMES: usize = 2_000;
/// Characters of a name; what is behind is left out.
const LONGEST_NAME: usize = 200;
/// Some 40 bytes of memory each; whatever there is beyond is told as more.
pub(super) const MOST_IDENTITIES: usize = 1_000_000;
/// Bars that a chart has room for.
const MOST_PARTS: i64 = 130;

impl Figures {
    pub(super) fn new(window: &Window) -> Self {
        Self {
            window: *window,
            over_time: OverTime::new(window),
            by_authority: Tally::default(),
            by_template: Tally::default(),
            by_attestation: Tally::default(),
            revoked: Tally::default(),
            refused: Tally::default(),
            longest: Longest::default(),
            identities: HashSet::new(),
        }
    }

    pub(super) fn count(&mut self, known: &Known<'_>) {
        match known {
            Known::Refused { at, reason } => {
                self.refused.add(reason);
                self.over_time.at(*at, |part| part.refused += 1);
            }
            Known::Row(row) => {
                if let Some(revoked) = row.revoked.filter(|revoked| self.window.holds(revoked.at)) {
                    self.revoked.add(reason(revoked.reason));
                    self.over_time.at(revoked.at, |part| part.revoked += 1);
                }
                if let Some(at) = row.issued_at.filter(|at| self.window.holds(*at)) {
                    self.issued(at, row);
                }
            }
        }
    }

    fn issued(&mut self, at: OffsetDateTime, row: &Row<'_>) {
        let certificate = &row.certificate;
        self.over_time.at(at, |part| part.issued += 1);
        self.by_authority.add(&certificate.authority);
        self.by_template.add(&certificate.profile);
        self.by_attestation.add(&certificate.attestation);
        self.longest.add(row);
        if self.identities.len() < MOST_IDENTITIES {
            let mut short = [0; 16];
            short.copy_from_slice(&sha256(certificate.spiffe_id.as_bytes())[..16]);
            self.identities.insert(short);
        }
    }

    /// Identities that a certificate was issued for; [`MOST_IDENTITIES`] are that, or more.
    pub(super) fn identities(&self) -> usize {
        self.identities.len()
    }
}

impl Tally {
    fn add(&mut self, name: &str) {
        let end = name.char_indices().nth(LONGEST_NAME).map_or(name.len(), |(end, _)| end);
        let name = &name[..end];
        let has_room = self.counts.len() < MOST_NAMES;
        match self.counts.get_mut(name) {
            Some(count) => *count += 1,
            None if has_room => drop(self.counts.insert(name.to_owned(), 1)),
            None => self.others += 1,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.counts.values().sum::<u64>() + self.others
    }

    /// How many names there are.
    pub(super) fn names(&self) -> usize {
        self.counts.len()
    }

    /// The `most` with the highest counts, and how often others.
    pub(super) fn top(&self, most: usize) -> (Vec<(&str, u64)>, u64) {
        let mut all: Vec<(&str, u64)> = self.counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        all.sort_by_key(|(name, count)| (Reverse(*count), *name));
        let rest = all.iter().skip(most).map(|(_, count)| count).sum::<u64>();
        all.truncate(most);
        (all, rest + self.others)
    }
}

impl OverTime {
    fn new(window: &Window) -> Self {
        let whole = window.to() - window.from();
        let days = |count: i64| Duration::days(count);
        let is_short = whole <= days(2);
        let from = if is_short { window.from() } else { window.from().replace_time(time::Time::MIDNIGHT) };
        let from = from.replace_minute(0).and_then(|hour| hour.replace_second(0)).unwrap_or(from);
        let parts = |step: Duration| {
            let (seconds, step) = ((window.to() - from).whole_seconds(), step.whole_seconds());
            (seconds + step - 1) / step
        };
        let mut step = if is_short { Duration::HOUR } else { Duration::DAY };
        let longer = [7, 28, 91, 364].into_iter().map(days).chain((1..).map(|power| days(3640) * (1 << power.min(20))));
        let mut longer = longer;
        while parts(step) > MOST_PARTS {
            let Some(next) = longer.next() else { break };
            step = next;
        }
        let count = usize::try_from(parts(step)).unwrap_or(1);
        Self { from, step, parts: vec![Part::default(); count] }
    }

    fn at(&mut self, time: OffsetDateTime, count: impl FnOnce(&mut Part)) {
        let number = (time - self.from).whole_seconds() / self.step.whole_seconds();
        if let Some(part) = usize::try_from(number).ok().and_then(|number| self.parts.get_mut(number)) {
            count(part);
        }
    }

    /// When a part begins.
    pub(super) fn begins(&self, number: usize) -> OffsetDateTime {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        self.from.checked_add(self.step * number).unwrap_or(self.from)
    }
}

impl Longest {
    pub(super) const MOST: usize = 20;

    fn add(&mut self, row: &Row<'_>) {
        let certificate = &row.certificate;
        let seconds = u64::try_from(certificate.not_after.saturating_sub(certificate.not_before)).unwrap_or(0);
        let is_full = self.0.len() >= Self::MOST;
        // Most are no longer than those.
        if is_full && self.0.last().is_some_and(|shortest| seconds <= shortest.seconds) {
            return;
        }
        let known = self.0.iter().position(|lived| lived.id == certificate.spiffe_id);
        match known {
            Some(known) if self.0[known].seconds >= seconds => return,
            Some(known) => drop(self.0.remove(known)),
            None if is_full => drop(self.0.pop()),
            None => {}
        }
        let place = self.0.partition_point(|longer| longer.seconds >= seconds);
        let (id, template) = (certificate.spiffe_id.to_string(), certificate.profile.to_string());
        self.0.insert(place, Lived { seconds, index: row.index.unwrap_or(0), id, template });
    }

    /// The longest first.
    pub(super) fn all(&self) -> &[Lived] {
        &self.0
    }
}
