//! How long certificates live.

use std::time::Duration;

use time::OffsetDateTime;

/// How long those of a profile live.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Lifetime {
    ttl: Duration,
    backdate: Duration,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct Validity {
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

impl Lifetime {
    /// `ttl` is the whole of notBefore to notAfter, so that none is ever older than it. `backdate` is the part of it
    /// that lies before the making, for verifiers whose clocks are late; more than a tenth of `ttl` is cut to that.
    pub(crate) fn new(ttl: Duration, backdate: Duration) -> Self {
        Self { ttl, backdate: backdate.min(ttl / 10) }
    }

    /// No longer than this.
    pub(crate) fn at_most(self, longest: Duration) -> Self {
        Self::new(self.ttl.min(longest), self.backdate)
    }

    /// Whole seconds (RFC 5280 §4.1.2.5), and not beyond `end`. None if nothing would be left.
    pub(crate) fn validity(&self, now: OffsetDateTime, end: OffsetDateTime) -> Option<Validity> {
        let now = now.replace_nanosecond(0).unwrap_or(now);
        let end = end.replace_nanosecond(0).unwrap_or(end);
        let not_before = now - Duration::from_secs(self.backdate.as_secs());
        let not_after = (not_before + Duration::from_secs(self.ttl.as_secs())).min(end);
        (not_after > now).then_some(Validity { not_before, not_after })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_whole_validity_is_the_ttl_and_the_backdate_a_tenth_of_it_at_most() {
        for (ttl, backdate, before, after) in
            [(3600, 60, -60, 3540), (60, 60, -6, 54), (10, 60, -1, 9), (5, 60, 0, 5), (10, 0, 0, 10)]
        {
            let lifetime = Lifetime::new(Duration::from_secs(ttl), Duration::from_secs(backdate));
            let now = at(0) + Duration::from_millis(999);
            let validity = lifetime.validity(now, at(1_000_000)).unwrap();
            assert_eq!(validity, Validity { not_before: at(before), not_after: at(after) }, "{ttl}");
        }
    }

    #[test]
    fn what_is_cut_short_is_backdated_by_less() {
        let lifetime = Lifetime::new(Duration::from_secs(3600), Duration::from_secs(60));
        for (longest, before, after) in [(7200, -60, 3540), (3600, -60, 3540), (100, -10, 90), (1, 0, 1)] {
            let validity = lifetime.at_most(Duration::from_secs(longest)).validity(at(0), at(1_000_000)).unwrap();
            assert_eq!(validity, Validity { not_before: at(before), not_after: at(after) }, "{longest}");
        }
    }

    #[test]
    fn no_leaf_outlives_its_issuer() {
        let lifetime = Lifetime::new(Duration::from_secs(3600), Duration::from_secs(60));
        assert_eq!(lifetime.validity(at(0), at(100)).unwrap().not_after, at(100));
        assert_eq!(lifetime.validity(at(0), at(0)), None);
        assert_eq!(lifetime.validity(at(0), at(-1)), None);
    }
}
