//! When operations begin.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::sync::Semaphore;

/// The times of a run, the same for all threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) start: Instant,
    /// The end of the warm-up.
    pub(super) measured_from: Instant,
    pub(super) end: Instant,
}

/// Gives each operation of one thread the time from which its latency counts.
#[derive(Debug)]
pub(super) enum Pace {
    Closed { end: Instant },
    Open { schedule: Schedule, begun: Cell<u64> },
}

/// Due times at equal distances. Whichever slot is free takes the next one, late or not, so that a server that stalls is
/// charged for every request that waited (no coordinated omission).
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    first: Instant,
    end: Instant,
    interval_seconds: f64,
    /// As many permits as operations are due and not begun; closed at the end of the run.
    due: Arc<Semaphore>,
}

impl Pace {
    pub(super) fn closed(window: Window) -> Self {
        Self::Closed { end: window.end }
    }

    /// `per_second` operations on this thread, the first `offset` after the start. The ticking is in the caller's hands:
    /// [`Schedule::tick`].
    pub(super) fn open(window: Window, per_second: f64, offset: Duration) -> Self {
        let schedule = Schedule {
            first: window.start + offset,
            end: window.end,
            interval_seconds: per_second.recip(),
            due: Arc::new(Semaphore::new(0)),
        };
        Self::Open { schedule, begun: Cell::new(0) }
    }

    /// What a thread of its own must [`tick`](Schedule::tick); none in a closed loop.
    pub(super) fn schedule(&self) -> Option<Schedule> {
        match self {
            Self::Closed { .. } => None,
            Self::Open { schedule, .. } => Some(schedule.clone()),
        }
    }

    /// Waits until an operation is to begin and returns when it was due; `None` when the run is over.
    pub(super) async fn next(&self) -> Option<Instant> {
        match self {
            Self::Closed { end } => Some(Instant::now()).filter(|now| now < end),
            Self::Open { schedule, begun } => {
                // What has not begun by the end of the run is not begun.
                schedule.due.acquire().await.ok()?.forget();
                Some(schedule.due_time(begun.replace(begun.get() + 1)))
            }
        }
    }
}

impl Schedule {
    fn due_time(&self, number: u64) -> Instant {
        self.first + Duration::from_secs_f64(number as f64 * self.interval_seconds)
    }

    /// Releases operations as they fall due, to the end of the run; blocks its thread. By a timer of the kernel, because tokio's
    /// has whole milliseconds and a sleeping thread wakes 50 µs late: as much as is to be measured.
    pub(super) fn tick(&self) -> io::Result<()> {
        let ticked = self.tick_until_end();
        self.due.close();
        ticked
    }

    fn tick_until_end(&self) -> io::Result<()> {
        let timer = periodic(Duration::from_secs_f64(self.interval_seconds).max(FINEST))?;
        let mut released = 0_u64;
        loop {
            rustix::io::read(&timer, &mut [0_u8; 8])?;
            let now = Instant::now();
            if now >= self.end {
                return Ok(());
            }
            let Some(since) = now.checked_duration_since(self.first) else { continue };
            let due = (since.as_secs_f64() / self.interval_seconds) as u64 + 1;
            self.due.add_permits(usize::try_from(due - released).unwrap_or(Semaphore::MAX_PERMITS));
            released = due;
        }
    }
}

/// Above 20,000 operations a second on a thread, several fall due at one tick.
const FINEST: Duration = Duration::from_micros(50);

fn periodic(interval: Duration) -> io::Result<std::os::fd::OwnedFd> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    let interval = Timespec { tv_sec: interval.as_secs() as i64, tv_nsec: i64::from(interval.subsec_nanos()) as _ };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: interval, it_value: interval })?;
    Ok(timer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn window(run: Duration) -> Window {
        let start = Instant::now();
        Window { start, measured_from: start, end: start + run }
    }

    #[tokio::test]
    async fn a_late_operation_is_charged_from_when_it_was_due() {
        let pace = Pace::open(window(Duration::from_secs(60)), 1000.0, Duration::ZERO);
        let schedule = pace.schedule().unwrap();
        schedule.due.add_permits(3);
        let mut last = None;
        for _ in 0..3 {
            last = pace.next().await;
        }
        assert_eq!(last.unwrap(), schedule.first + Duration::from_millis(2));
    }

    #[tokio::test]
    async fn nothing_begins_after_the_end() {
        let open = Pace::open(window(Duration::from_millis(5)), 1000.0, Duration::ZERO);
        open.schedule().unwrap().tick().unwrap();
        assert_eq!(open.next().await, None);
        assert_eq!(Pace::closed(window(Duration::ZERO)).next().await, None);
    }
}
