//! Words and numbers of a page.

use std::fmt;

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, Time};

use super::super::Window;
use super::super::row::is_hostile;

/// Text of anybody: nothing in it is an element, ends an attribute, or changes the direction of what is around it.
pub(super) struct Escaped<'a>(pub(super) &'a str);

/// Characters that are shown.
const MOST: usize = 160;

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, character) in self.0.chars().enumerate() {
            match character {
                _ if number == MOST => return f.write_str("…"),
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                hostile if is_hostile(hostile) => f.write_str("\u{fffd}")?,
                plain => write!(f, "{plain}")?,
            }
        }
        Ok(())
    }
}

const DAY: &[BorrowedFormatItem<'_>] = format_description!("[day padding:none] [month repr:long] [year]");
const SHORT_DAY: &[BorrowedFormatItem<'_>] = format_description!("[day padding:none] [month repr:short]");
const HOUR: &[BorrowedFormatItem<'_>] = format_description!("[day padding:none] [month repr:short] [hour]:[minute]");
const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
const DATE_AND_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[day padding:none] [month repr:long] [year] [hour]:[minute]:[second]");
const DATE_AND_HOUR: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day] [hour]:[minute]");

/// Whole days where it is of such.
pub(super) fn window(window: &Window) -> String {
    let (from, to) = (window.from(), window.to());
    if from.time() != Time::MIDNIGHT || to.time() != Time::MIDNIGHT {
        return format!("{} to {} UTC", format(from, DATE_AND_TIME), format(to, DATE_AND_TIME));
    }
    match to - Duration::DAY {
        last if last == from => format(from, DAY),
        last => format!("{} to {}", format(from, DAY), format(last, DAY)),
    }
}

pub(super) fn step(step: Duration) -> String {
    match step.whole_days() {
        0 => "hour".to_owned(),
        1 => "day".to_owned(),
        7 => "week".to_owned(),
        days if days % 7 == 0 => format!("{} weeks", days / 7),
        days => format!("{days} days"),
    }
}

/// Under a bar.
pub(super) fn tick(time: OffsetDateTime, step: Duration) -> String {
    match step {
        step if step < Duration::DAY => format(time, HOUR),
        step if step < Duration::days(28) => format(time, SHORT_DAY),
        _ => format(time, DATE),
    }
}

/// In a table.
pub(super) fn part(time: OffsetDateTime, step: Duration) -> String {
    format(time, if step < Duration::DAY { DATE_AND_HOUR } else { DATE })
}

fn format(time: OffsetDateTime, as_: &[BorrowedFormatItem<'_>]) -> String {
    time.format(as_).unwrap_or_default()
}

/// `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Of a whole, in integers: the same on any machine.
pub(super) fn share(count: u64, total: u64) -> String {
    let per_mille = |count: u64| (u128::from(count) * 1000 + u128::from(total) / 2) / u128::from(total.max(1));
    match per_mille(count) {
        0 if count > 0 => "<0.1 %".replace('<', "&lt;"),
        share => format!("{}.{} %", share / 10, share % 10),
    }
}

/// In its largest two units.
pub(super) fn life(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let Some(first) = UNITS.iter().position(|(unit, _)| seconds >= *unit) else { return "0 s".to_owned() };
    let (unit, name) = UNITS[first];
    let whole = format!("{} {name}", grouped(seconds / unit));
    match UNITS.get(first + 1).map(|(next, name)| (seconds % unit / next, name)) {
        // Of a year nobody counts hours.
        Some((rest, name)) if rest > 0 && seconds < 10 * 86_400 => format!("{whole} {rest} {name}"),
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [(1, 3), (0, 0), (1, 10_000), (3, 3)].map(|(a, b)| share(a, b)),
            ["33.3 %", "0.0 %", "&lt;0.1 %", "100.0 %"]
        );
        let lives = [0, 59, 90, 3600, 5400, 86_400, 31_536_000].map(life);
        assert_eq!(lives, ["0 s", "59 s", "1 min 30 s", "1 h", "1 h 30 min", "1 d", "365 d"]);
    }

    #[test]
    fn a_window_of_whole_days_is_told_by_its_days() {
        let of = |from, to| window(&Window::new(Window::time(from).unwrap(), Window::time(to).unwrap()).unwrap());
        assert_eq!(of("2026-11-01", "2026-12-01"), "1 November 2026 to 30 November 2026");
        assert_eq!(of("2026-11-01", "2026-11-02"), "1 November 2026");
        assert_eq!(
            of("2026-11-01T12:00:00Z", "2026-11-02"),
            "1 November 2026 12:00:00 to 2 November 2026 00:00:00 UTC"
        );
    }

    #[test]
    fn no_text_is_anything_but_text() {
        let hostile = "<script>alert(1)</script>\"'&\u{202e}\u{1b}";
        assert_eq!(
            Escaped(hostile).to_string(),
            "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;\u{fffd}\u{fffd}"
        );
        assert_eq!(Escaped(&"x".repeat(1024)).to_string().chars().count(), 161);
    }
}
