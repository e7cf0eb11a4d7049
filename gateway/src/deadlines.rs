//! Every timeout of one worker, in one place that is looked through ten times a second.
//!
//! A timer of tokio's for each request and connection costs a locked wheel twice per request; here setting one is a store,
//! and looking through ten thousand of them takes some tens of microseconds. Deadlines are therefore coarse: one passes
//! up to [`TICK`] late, never early. Wall-clock deadlines follow the wall clock, so that a jump of it (suspend, step)
//! counts at the next tick.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, UNIX_EPOCH};

use http::HeaderValue;
use signet_identity::SharedClock;
use slab::Slab;
use time::OffsetDateTime;

/// How often deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Deadlines {
    clock: SharedClock,
    started: Instant,
    /// As of the last tick: milliseconds since `started`.
    uptime_ms: Cell<u64>,
    /// As of the last tick: milliseconds of Unix time.
    wall_ms: Cell<i64>,
    /// The second of the last date that was asked for, and that date.
    date: RefCell<(i64, HeaderValue)>,
    entries: RefCell<Slab<Entry>>,
}

#[derive(Debug)]
struct Entry {
    uptime_ms: u64,
    wall_ms: i64,
    waker: Option<Waker>,
}

impl Deadlines {
    pub(crate) fn new(clock: SharedClock) -> Rc<Self> {
        let deadlines = Self {
            started: Instant::now(),
            uptime_ms: Cell::new(0),
            wall_ms: Cell::new(unix_ms(clock.now())),
            date: RefCell::new((i64::MIN, HeaderValue::from_static(""))),
            entries: RefCell::default(),
            clock,
        };
        Rc::new(deadlines)
    }

    /// Looks at the clocks and wakes whoever waits for what has passed.
    pub(crate) fn tick(&self) {
        self.uptime_ms.set(self.started.elapsed().as_millis() as u64);
        self.wall_ms.set(unix_ms(self.clock.now()));
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            if self.passed(entry)
                && let Some(waker) = entry.waker.take()
            {
                waker.wake();
            }
        }
    }

    /// A deadline that never passes until it is set.
    pub(crate) fn deadline(self: &Rc<Self>) -> Deadline {
        let entry = Entry { uptime_ms: u64::MAX, wall_ms: i64::MAX, waker: None };
        Deadline { key: self.entries.borrow_mut().insert(entry), deadlines: self.clone() }
    }

    /// A deadline `span` from now.
    pub(crate) fn after(self: &Rc<Self>, span: Duration) -> Deadline {
        let deadline = self.deadline();
        deadline.set_after(span);
        deadline
    }

    /// Milliseconds since this worker began, as of the last tick.
    pub(crate) fn uptime_ms(&self) -> u64 {
        self.uptime_ms.get()
    }

    /// The value of `date` as of the last tick (RFC 9110 §6.6.1).
    pub(crate) fn http_date(&self) -> HeaderValue {
        let second = self.wall_ms.get().div_euclid(1_000);
        let (of, date) = &mut *self.date.borrow_mut();
        if *of != second {
            let time = UNIX_EPOCH + Duration::from_secs(second.unsigned_abs());
            // A date is ASCII.
            *date =
                HeaderValue::try_from(httpdate::fmt_http_date(time)).unwrap_or_else(|_| HeaderValue::from_static(""));
            *of = second;
        }
        date.clone()
    }

    /// Whether this point of the wall clock may have passed: it errs by a tick toward yes.
    pub(crate) fn may_have_passed(&self, wall_ms: i64) -> bool {
        self.wall_ms.get() + TICK.as_millis() as i64 >= wall_ms
    }

    fn passed(&self, entry: &Entry) -> bool {
        self.uptime_ms.get() >= entry.uptime_ms || self.wall_ms.get() >= entry.wall_ms
    }
}

/// Which half of a deadline has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Passed {
    Wall,
    Span,
}

/// One timeout: a span of uptime, a point of the wall clock, or both, whichever passes first.
#[derive(Debug)]
pub(crate) struct Deadline {
    deadlines: Rc<Deadlines>,
    key: usize,
}

impl Deadline {
    /// Passes `span` from now.
    pub(crate) fn set_after(&self, span: Duration) {
        // The clock of the last tick is up to one tick behind; a deadline is never early.
        let due = self.deadlines.uptime_ms() + (span + TICK).as_millis() as u64;
        self.change(|entry| entry.uptime_ms = due);
    }

    /// Passes when the wall clock reaches this, too.
    pub(crate) fn set_at(&self, wall_ms: i64) {
        self.change(|entry| entry.wall_ms = wall_ms);
    }

    /// Whether it is set to a point of the wall clock before this.
    pub(crate) fn wall_is_before(&self, wall_ms: i64) -> bool {
        self.deadlines.entries.borrow().get(self.key).is_some_and(|entry| entry.wall_ms < wall_ms)
    }

    /// Ready once it has passed, and until it is set anew.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Passed> {
        let mut entries = self.deadlines.entries.borrow_mut();
        let Some(entry) = entries.get_mut(self.key) else { return Poll::Pending };
        if self.deadlines.wall_ms.get() >= entry.wall_ms {
            return Poll::Ready(Passed::Wall);
        }
        if self.deadlines.uptime_ms() >= entry.uptime_ms {
            return Poll::Ready(Passed::Span);
        }
        match &mut entry.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            waker => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.deadlines.entries.borrow_mut().get_mut(self.key) {
            change(entry);
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // The waker may be the last reference to a task that owns deadlines itself: it is dropped after the borrow ends.
        let entry = self.deadlines.entries.borrow_mut().try_remove(self.key);
        drop(entry);
    }
}

/// Unix time in milliseconds, which is how deadlines hold points of the wall clock.
pub(crate) fn unix_ms(time: OffsetDateTime) -> i64 {
    (time.unix_timestamp_nanos() / 1_000_000) as i64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use signet_identity::ManualClock;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_deadline_of_the_wall_clock_follows_its_jumps() {
        let clock = ManualClock::new(OffsetDateTime::UNIX_EPOCH);
        let deadlines = Deadlines::new(clock.shared());
        let woken = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        let deadline = deadlines.deadline();
        deadline.set_at(60_000);

        deadlines.tick();
        assert!(deadline.poll(&cx).is_pending());
        assert!(!deadlines.may_have_passed(60_000));
        clock.advance(time::Duration::hours(1));
        deadlines.tick();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(deadline.poll(&cx).is_ready());
        assert!(deadlines.may_have_passed(60_000));
    }

    #[test]
    fn a_deadline_that_is_set_anew_waits_anew_and_a_dropped_one_is_gone() {
        let deadlines = Deadlines::new(ManualClock::new(OffsetDateTime::UNIX_EPOCH).shared());
        let cx = Context::from_waker(Waker::noop());
        let deadline = deadlines.after(Duration::ZERO);
        std::thread::sleep(TICK);
        deadlines.tick();
        assert!(deadline.poll(&cx).is_ready());
        deadline.set_after(Duration::from_secs(60));
        assert!(deadline.poll(&cx).is_pending());
        drop(deadline);
        assert!(deadlines.entries.borrow().is_empty());
    }
}
