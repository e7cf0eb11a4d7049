//! Some time: from a second on, up to another one that is not in it.

use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, UtcOffset};

/// Whole seconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    from: OffsetDateTime,
    to: OffsetDateTime,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WindowError {
    #[error("it is neither a date, such as 2026-11-01, nor a time, such as 2026-11-01T12:00:00Z")]
    Form,
    #[error("it ends at {to}, and begins at {from}: it has to end after that")]
    Empty { from: OffsetDateTime, to: OffsetDateTime },
}

impl Window {
    /// Parts of seconds are left out.
    pub fn new(from: OffsetDateTime, to: OffsetDateTime) -> Result<Self, WindowError> {
        let whole = |time: OffsetDateTime| time.to_offset(UtcOffset::UTC).replace_nanosecond(0).unwrap_or(time);
        let (from, to) = (whole(from), whole(to));
        if from < to { Ok(Self { from, to }) } else { Err(WindowError::Empty { from, to }) }
    }

    /// A date is its first moment, in UTC.
    pub fn time(text: &str) -> Result<OffsetDateTime, WindowError> {
        let date = Date::parse(text, DATE).map(|date| date.midnight().assume_utc());
        date.or_else(|_| OffsetDateTime::parse(text, &Rfc3339)).map_err(|_| WindowError::Form)
    }

    pub fn from(&self) -> OffsetDateTime {
        self.from
    }

    pub fn to(&self) -> OffsetDateTime {
        self.to
    }

    pub fn holds(&self, time: OffsetDateTime) -> bool {
        self.from <= time && time < self.to
    }
}

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_date_is_its_first_moment_and_the_end_is_not_in_the_window() {
        let time = |text| Window::time(text).unwrap();
        let window = Window::new(time("2026-11-01"), time("2026-11-02T01:00:00+01:00")).unwrap();
        assert!(window.holds(time("2026-11-01")) && window.holds(time("2026-11-01T23:59:59.999999Z")));
        assert!(!window.holds(time("2026-11-02")) && !window.holds(time("2026-10-31T23:59:59Z")));
    }

    #[test]
    fn what_is_no_time_and_what_ends_before_it_begins_is_refused() {
        for wrong in ["", "yesterday", "2026-13-01", "2026-11-01T12:00:00", "1.11.2026"] {
            assert_eq!(Window::time(wrong), Err(WindowError::Form), "{wrong}");
        }
        let time = Window::time("2026-11-01").unwrap();
        assert!(matches!(Window::new(time, time), Err(WindowError::Empty { .. })));
    }
}
