//! What one thread counts.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::failure::Failure;
use super::pace::Window;
use super::server_check::ServersSeen;

/// Above this a latency is counted as this.
const LONGEST: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(super) struct Tally {
    window: Window,
    /// Nanoseconds, of operations that were due and done within the measured time.
    pub(super) latency: Histogram<u64>,
    pub(super) failures: BTreeMap<&'static str, Failures>,
    /// Sent again on a new connection, because the one before was closed while idle.
    pub(super) retried: u64,
    pub(super) full_handshakes: u64,
    pub(super) resumed_handshakes: u64,
    /// In the measured time.
    pub(super) bodies: Bodies,
    pub(super) servers: ServersSeen,
}

/// Bytes of bodies.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Bodies {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// How often one kind of failure was met, and the first one in words.
#[derive(Clone, Debug)]
pub(super) struct Failures {
    pub(super) count: u64,
    pub(super) first: String,
}

impl Tally {
    pub(super) fn new(window: Window) -> Self {
        // Three significant digits; the bounds are constants that hdrhistogram accepts.
        let latency = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3).unwrap_or_else(|_| unreachable!());
        Self {
            window,
            latency,
            failures: BTreeMap::new(),
            retried: 0,
            full_handshakes: 0,
            resumed_handshakes: 0,
            bodies: Bodies::default(),
            servers: ServersSeen::default(),
        }
    }

    /// An operation that was due at `due` is done now, and moved `bodies`.
    pub(super) fn done(&mut self, due: Instant, bodies: Bodies) {
        let now = Instant::now();
        if due < self.window.measured_from || now > self.window.end {
            return;
        }
        self.latency.saturating_record(now.duration_since(due).as_nanos() as u64);
        self.bodies += bodies;
    }

    /// A failure counts whenever it happens, warm-up included.
    pub(super) fn failed(&mut self, failure: &Failure) {
        self.failed_as(failure.kind(), || chain(failure));
    }

    pub(super) fn failed_as(&mut self, kind: &'static str, words: impl FnOnce() -> String) {
        self.failures.entry(kind).or_insert_with(|| Failures { count: 0, first: words() }).count += 1;
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.latency += &other.latency;
        for (kind, failures) in other.failures {
            match self.failures.get_mut(kind) {
                Some(known) => known.count += failures.count,
                None => drop(self.failures.insert(kind, failures)),
            }
        }
        self.retried += other.retried;
        self.full_handshakes += other.full_handshakes;
        self.resumed_handshakes += other.resumed_handshakes;
        self.bodies += other.bodies;
        self.servers.merge(other.servers);
    }
}

impl AddAssign for Bodies {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
    }
}

/// An error and what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        words.push_str(": ");
        words.push_str(&next.to_string());
        cause = next.source();
    }
    words
}
