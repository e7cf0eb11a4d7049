use aws_lc_rs::digest::{SHA256, digest};
use time::{Duration, OffsetDateTime};

use crate::certificate::Validity;

/// When to renew a certificate: between 40 and 60 % of its life, drawn from its public key. The draw is the same
/// however often it is asked for, so the spread over many holders does not collapse, and each renewal has a new key
/// and a new draw.
pub(crate) fn renew_at(public_key: &[u8], validity: Validity) -> OffsetDateTime {
    let hash = digest(&SHA256, public_key);
    // 24 bits are enough to spread a day over 1 ms steps; they keep the arithmetic within 128 bits for any life.
    let drawn = hash.as_ref().iter().take(3).fold(0_i128, |drawn, byte| drawn << 8 | i128::from(*byte));
    let life = (validity.not_after - validity.not_before).whole_nanoseconds();
    let age = life / 10 * 4 + life / 10 * 2 * drawn / (1 << 24);
    let whole_seconds = age / 1_000_000_000;
    validity.not_before + Duration::new(whole_seconds.try_into().unwrap_or(i64::MAX / 2), (age % 1_000_000_000) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::hours(1);

    fn share(public_key: &[u8]) -> f64 {
        let validity =
            Validity { not_before: OffsetDateTime::UNIX_EPOCH, not_after: OffsetDateTime::UNIX_EPOCH + LIFE };
        (renew_at(public_key, validity) - OffsetDateTime::UNIX_EPOCH) / LIFE
    }

    #[test]
    fn renewals_are_spread_over_the_middle_fifth_of_the_life() {
        let shares: Vec<f64> = (0..2000_u32).map(|key| share(&key.to_be_bytes())).collect();
        assert!(shares.iter().all(|share| (0.4..0.6).contains(share)));
        for tenth in 0..10 {
            let from = 0.4 + 0.02 * f64::from(tenth);
            let count = shares.iter().filter(|share| (from..from + 0.02).contains(*share)).count();
            assert!((140..260).contains(&count), "{count} of 2000 draws in the tenth from {from}");
        }
    }

    #[test]
    fn a_key_has_one_draw() {
        assert_eq!(share(b"key"), share(b"key"));
        assert_ne!(share(b"key"), share(b"another"));
    }

    #[test]
    fn the_longest_life_that_a_certificate_can_state_does_not_overflow() {
        let validity = Validity {
            not_before: time::macros::datetime!(0001-01-01 0:00 UTC),
            not_after: time::macros::datetime!(9999-12-31 23:59:59 UTC),
        };
        assert!(validity.contains(renew_at(b"key", validity)));
    }
}
