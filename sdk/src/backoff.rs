//! Delays between attempts: they double up to a ceiling, and each is shortened at random so that a fleet that lost its
//! issuer at one moment does not come back at one moment.

use std::time::Duration;

/// The shortest delay: a failure that comes at once must not make a busy loop.
pub(crate) const FLOOR: Duration = Duration::from_millis(100);
/// The longest delay.
pub(crate) const CEILING: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Between 100 ms and 10 s.
    pub(crate) fn new() -> Self {
        Self { next: FLOOR, ceiling: CEILING }
    }

    /// For an identity of this life: no delay is longer than a twentieth of it, so that there are several attempts
    /// between the renewal point and the expiry.
    pub(crate) fn for_life(life: Duration) -> Self {
        Self { next: FLOOR, ceiling: (life / 20).clamp(FLOOR, CEILING) }
    }

    /// The delay before the next attempt.
    pub(crate) fn delay(&mut self) -> Duration {
        let full = self.next.min(self.ceiling);
        self.next = (full * 2).min(self.ceiling);
        full.mul_f64(0.5 + 0.5 * random_fraction())
    }

    /// The next delay is the shortest again.
    pub(crate) fn reset(&mut self) {
        self.next = FLOOR;
    }
}

/// Not before `pause`, and up to half of it later: those who were told the same do not come at once.
pub(crate) fn drawn_after(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + random_fraction() / 2.0)
}

/// A number from 0 (included) to 1 (excluded), drawn for each call.
pub(crate) fn random_fraction() -> f64 {
    let mut bytes = [0; 4];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        // Without randomness everything else fails too; a delay in the middle is safe.
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_ceiling_and_keep_at_least_half() {
        let mut backoff = Backoff::new();
        let mut full = FLOOR;
        for _ in 0..12 {
            let delay = backoff.delay();
            assert!(delay >= full / 2 && delay <= full, "{delay:?} of {full:?}");
            full = (full * 2).min(CEILING);
        }
        backoff.reset();
        assert!(backoff.delay() <= FLOOR);
    }

    #[test]
    fn a_short_life_makes_retries_frequent() {
        let mut backoff = Backoff::for_life(Duration::from_secs(10));
        for _ in 0..12 {
            assert!(backoff.delay() <= Duration::from_millis(500));
        }
    }

    #[test]
    fn delays_differ_between_holders() {
        let draws: std::collections::HashSet<_> = (0..32).map(|_| Backoff::new().delay()).collect();
        assert!(draws.len() > 16);
    }
}
