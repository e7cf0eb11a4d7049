//! Certificates that the issuer does not take.

use std::time::Duration;

/// How often it has refused one, since it took one.
#[derive(Debug, Default)]
pub(super) struct Refusals(u32);

/// What follows from another refusal.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Next {
    /// Before anything is tried again.
    pub(super) pause: Duration,
    /// Whether the certificate is given up, and its key with it: what the parent signs for another may be taken.
    pub(super) is_given_up: bool,
}

const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
/// One that is refused may be good a moment later: a root is yet to be trusted, or a clock to be set.
const ATTEMPTS: u32 = 3;

impl Refusals {
    /// Each certificate is on record at the parent: the more were refused, the longer the next one is waited for.
    pub(super) fn another(&mut self) -> Next {
        let pause = FIRST.saturating_mul(1 << self.0.min(6)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        Next { pause, is_given_up: self.0.is_multiple_of(ATTEMPTS) }
    }

    pub(super) fn over(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_whose_certificates_are_never_taken_signs_few_of_them() {
        let (mut refusals, mut passed, mut given_up) = (Refusals::default(), Duration::ZERO, Vec::new());
        while passed < Duration::from_secs(24 * 3600) {
            let next = refusals.another();
            passed += next.pause;
            if next.is_given_up {
                given_up.push(passed);
            }
        }
        // The first one is given up soon, and from then on one in three hours.
        assert!(given_up[0] < Duration::from_secs(600), "{given_up:?}");
        assert!((8..=10).contains(&given_up.len()), "{given_up:?}");
        refusals.over();
        assert_eq!(refusals.another(), Next { pause: FIRST, is_given_up: false });
    }
}
