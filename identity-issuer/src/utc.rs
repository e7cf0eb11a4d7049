//! Times as people and logs read them, and as records keep them.

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Displays as `2026-01-31T12:00:00Z`.
pub(crate) struct Utc(pub(crate) OffsetDateTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Times of certificates are in years that RFC 3339 can write.
        let text = self.0.format(&Rfc3339).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

/// Of the Unix epoch: 292,000 years either way fit.
pub(crate) fn microseconds(time: OffsetDateTime) -> i64 {
    (time.unix_timestamp_nanos() / 1000) as i64
}

/// None for one beyond the year 9999.
pub(crate) fn of_microseconds(microseconds: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(microseconds) * 1000).ok()
}
