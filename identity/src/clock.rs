use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use time::{Duration, OffsetDateTime};

/// Where the wall clock's time comes from: validity of certificates is judged by nothing else.
pub trait Clock: Send + Sync + fmt::Debug {
    fn now(&self) -> OffsetDateTime;
}

/// A clock that many parts of a process read.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// A clock that a test sets. Clones share one time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    start: OffsetDateTime,
    /// How far the clock was moved from its start, in nanoseconds: 292 years either way.
    moved: Arc<AtomicI64>,
}

impl ManualClock {
    pub fn new(start: OffsetDateTime) -> Self {
        Self { start, moved: Arc::default() }
    }

    pub fn set(&self, now: OffsetDateTime) {
        self.moved.store(nanoseconds(now - self.start), Ordering::SeqCst);
    }

    /// Moves the clock, also backwards.
    pub fn advance(&self, by: Duration) {
        self.moved.fetch_add(nanoseconds(by), Ordering::SeqCst);
    }

    pub fn shared(&self) -> SharedClock {
        Arc::new(self.clone())
    }
}

impl Clock for ManualClock {
    fn now(&self) -> OffsetDateTime {
        self.start + Duration::nanoseconds(self.moved.load(Ordering::SeqCst))
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    duration.whole_nanoseconds().clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_until_it_is_moved_and_its_clones_move_with_it() {
        let clock = ManualClock::new(OffsetDateTime::UNIX_EPOCH);
        let shared = clock.shared();
        assert_eq!(shared.now(), OffsetDateTime::UNIX_EPOCH);
        clock.advance(Duration::milliseconds(1500));
        assert_eq!(shared.now(), OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(1500));
        clock.set(OffsetDateTime::UNIX_EPOCH - Duration::days(1));
        assert_eq!(shared.now(), OffsetDateTime::UNIX_EPOCH - Duration::days(1));
    }
}
