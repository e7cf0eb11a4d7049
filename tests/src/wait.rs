//! Waiting for a condition, with a deadline. Nothing in these tests sleeps for a fixed time and hopes.

use std::time::{Duration, Instant};

/// Far below what any test asserts, and cheap enough for a `curl` each time.
const LOOK_EVERY: Duration = Duration::from_millis(25);

pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Asks `probe` until it finds something.
///
/// # Panics
/// After `within`, with `what` in the message.
#[track_caller]
pub fn until_some<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "after {within:?} still not: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Asks `condition` until it holds.
///
/// # Panics
/// After `within`, with `what` in the message.
#[track_caller]
pub fn until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    until_some(what, within, || condition().then_some(()));
}

/// Checks that `condition` holds all through `time`.
///
/// # Panics
/// As soon as it does not.
#[track_caller]
pub fn throughout(what: &str, time: Duration, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        assert!(condition(), "after {:?} no longer: {what}", begin.elapsed());
        std::thread::sleep(LOOK_EVERY);
    }
}
