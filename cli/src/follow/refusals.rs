//! Certificates that the issuer does not take, and requests that the parent has spoiled.

use std::time::Duration;

use tokio::time::Instant;

/// How many there were since the issuer took a certificate, and until when there is not to be another.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    count: u32,
    not_before: Option<Instant>,
}

/// What becomes of a certificate that was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// It may be good a moment later: a root is yet to be trusted, or a clock to be set.
    Kept,
    /// With its key: what the parent signs for another may be taken.
    GivenUp,
}

const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
const ATTEMPTS: u32 = 3;

impl Refusals {
    /// Each certificate is on record at the parent: the more were refused, the longer the next one is waited for.
    pub(super) fn another(&mut self, now: Instant) -> Refused {
        self.wait(FIRST.saturating_mul(1 << self.count.min(6)).min(LONGEST), now);
        self.count = self.count.saturating_add(1);
        if self.count.is_multiple_of(ATTEMPTS) { Refused::GivenUp } else { Refused::Kept }
    }

    /// As the parent wishes, or longer.
    pub(super) fn wait(&mut self, pause: Duration, now: Instant) {
        self.not_before = self.not_before.max(now.checked_add(pause));
    }

    /// How long nothing is to be signed or brought yet, whatever the parent tells meanwhile: it may tell something new each second.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.not_before?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    pub(super) fn over(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_whose_certificates_are_never_taken_signs_few_of_them_however_often_it_is_looked_at() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let (mut brought, mut given_up) = (Vec::new(), Vec::new());
        for second in 0..24 * 3600 {
            let now = start + Duration::from_secs(second);
            if refusals.left(now).is_some() {
                continue;
            }
            brought.push(second);
            if refusals.another(now) == Refused::GivenUp {
                given_up.push(second);
            }
        }
        // The first one is given up soon, and from then on one in three hours.
        assert_eq!(brought[..4], [0, 60, 180, 420]);
        assert_eq!(given_up[0], 180);
        assert!(brought.len() <= 30 && (8..=10).contains(&given_up.len()), "{brought:?}, {given_up:?}");

        refusals.over();
        assert_eq!((refusals.left(start), refusals.another(start)), (None, Refused::Kept));
        assert_eq!(refusals.left(start), Some(FIRST));
    }
}
