//! Waiting for a moment of the wall clock. A certificate's times are wall times, and the wall clock jumps: it is set, and
//! it goes on while a machine is suspended, which the monotonic clock does not.

use std::time::Duration;

use signet_identity::Clock;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// No sleep is longer, so that a jump is noticed within this time.
const GRANULARITY: Duration = Duration::from_secs(1);

/// Returns once `clock` says `deadline` or later, within a second even if the clock jumps there.
pub(crate) async fn until(clock: &dyn Clock, deadline: OffsetDateTime) {
    while let Some(remaining) = remaining(clock, deadline) {
        tokio::time::sleep(remaining.min(GRANULARITY)).await;
    }
}

/// How long until `deadline`; none if that has passed.
pub(crate) fn remaining(clock: &dyn Clock, deadline: OffsetDateTime) -> Option<Duration> {
    Duration::try_from(deadline - clock.now()).ok().filter(|left| !left.is_zero())
}

/// As operators read it: RFC 3339.
pub(crate) fn written(moment: &OffsetDateTime) -> String {
    moment.format(&Rfc3339).unwrap_or_else(|_| moment.to_string())
}
