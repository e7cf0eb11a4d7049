//! What holds connections open is made anew for each snapshot, so that no request meets a connection whose identity is
//! over.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use signet_identity::{Generation, LiveIdentity, SharedClock};
use time::OffsetDateTime;

/// The longest time between the last new request on a connection and its end.
const MAX_LEAD: Duration = Duration::from_secs(30);

/// When what holds connections must take no new requests: some time before the first of its connections ends.
#[derive(Debug)]
pub(crate) struct Retirement {
    unix_millis: AtomicI64,
}

impl Retirement {
    fn never() -> Self {
        Self { unix_millis: AtomicI64::new(i64::MAX) }
    }

    /// There is a connection that ends at `end`. A fifth of what it lives is left for the requests that are under way.
    pub(crate) fn not_after(&self, now: OffsetDateTime, end: OffsetDateTime) {
        let life = Duration::try_from(end - now).unwrap_or_default();
        self.unix_millis.fetch_min(unix_millis(end - (life / 5).min(MAX_LEAD)), Relaxed);
    }

    fn is_due(&self, now: OffsetDateTime) -> bool {
        self.unix_millis.load(Relaxed) <= unix_millis(now)
    }
}

fn unix_millis(moment: OffsetDateTime) -> i64 {
    (moment.unix_timestamp_nanos() / 1_000_000) as i64
}

/// A `T` that is replaced when our SVID or the bundles have changed, or when one of its connections is about to end. Those
/// to a peer that is revoked end by themselves, and others go on. Reading takes no lock; only making another does.
pub(crate) struct Generational<T> {
    live: LiveIdentity,
    clock: SharedClock,
    make: Box<dyn Fn(Arc<Retirement>) -> T + Send + Sync>,
    current: ArcSwap<Made<T>>,
    making: Mutex<()>,
}

struct Made<T> {
    /// Counts what was made, so that a holder of an earlier one can tell.
    number: u64,
    generation: Generation,
    retirement: Arc<Retirement>,
    value: T,
}

impl<T: Clone> Generational<T> {
    pub(crate) fn new(
        live: LiveIdentity,
        clock: SharedClock,
        make: impl Fn(Arc<Retirement>) -> T + Send + Sync + 'static,
    ) -> Self {
        let first = Made::new(0, live.load().renewed_in(), &make);
        Self { live, clock, make: Box::new(make), current: ArcSwap::from_pointee(first), making: Mutex::new(()) }
    }

    /// What may be used now, and its number.
    pub(crate) fn current(&self) -> (u64, T) {
        let made = self.current.load();
        if self.is_current(&made) {
            return (made.number, made.value.clone());
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let made = self.current.load();
        if self.is_current(&made) {
            return (made.number, made.value.clone());
        }
        // The generation is read first: a connection made later may be newer than it says, never older.
        let next = Made::new(made.number + 1, self.live.load().renewed_in(), &self.make);
        let current = (next.number, next.value.clone());
        self.current.store(Arc::new(next));
        current
    }

    /// The number of what may be used now, if it is still the one that was used before.
    pub(crate) fn is_number(&self, number: u64) -> bool {
        let made = self.current.load();
        made.number == number && self.is_current(&made)
    }

    fn is_current(&self, made: &Made<T>) -> bool {
        made.generation == self.live.load().renewed_in() && !made.retirement.is_due(self.clock.now())
    }
}

impl<T> Made<T> {
    fn new(number: u64, generation: Generation, make: &(impl Fn(Arc<Retirement>) -> T + ?Sized)) -> Self {
        let retirement = Arc::new(Retirement::never());
        Self { number, generation, value: make(retirement.clone()), retirement }
    }
}

impl<T> fmt::Debug for Generational<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generational").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retirement_comes_a_fifth_of_a_life_before_the_first_end() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let retirement = Retirement::never();
        assert!(!retirement.is_due(now + Duration::from_secs(1 << 30)));
        retirement.not_after(now, now + Duration::from_secs(10));
        retirement.not_after(now, now + Duration::from_secs(20));
        assert!(!retirement.is_due(now + Duration::from_millis(7999)));
        assert!(retirement.is_due(now + Duration::from_secs(8)));
    }

    #[test]
    fn a_long_life_is_used_almost_to_its_end() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let retirement = Retirement::never();
        retirement.not_after(now, now + Duration::from_secs(3600));
        assert!(!retirement.is_due(now + Duration::from_secs(3569)));
        assert!(retirement.is_due(now + Duration::from_secs(3570)));
    }
}
