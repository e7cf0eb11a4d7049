//! Numbers with a unit: `10s`, `64KiB`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::Parsed;

/// A span of time as configurations write it: a whole number and `ms`, `s`, `m`, `h` or `d`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Duration(pub std::time::Duration);

/// A number of bytes: `512`, `512B`, `64KiB`, `4MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct ByteSize(pub u64);

/// Text that is no number with a unit. The second line of its text is the fix.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UnitError {
    #[error("no duration\nwrite a whole number with its unit: `500ms`, `10s`, `5m`, `24h`, `7d`")]
    Duration,
    #[error("no size\nwrite a whole number with its unit: `512B`, `64KiB`, `4MiB`, `1GiB`")]
    ByteSize,
    #[error("too large\nwrite a smaller number")]
    TooLarge,
}

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = number_and_unit(text).ok_or(UnitError::Duration)?;
        let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
        let seconds = match unit {
            "ms" => return Ok(Self(std::time::Duration::from_millis(number))),
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(UnitError::Duration),
        };
        let seconds = number.checked_mul(seconds).filter(|s| *s <= MAX_SECONDS).ok_or(UnitError::TooLarge)?;
        Ok(Self(std::time::Duration::from_secs(seconds)))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_millis() != 0 {
            return write!(f, "{}ms", self.0.as_millis());
        }
        let seconds = self.0.as_secs();
        let (unit, size) = [("d", 86_400), ("h", 3_600), ("m", 60)]
            .into_iter()
            .find(|(_, size)| seconds >= *size && seconds.is_multiple_of(*size))
            .unwrap_or(("s", 1));
        write!(f, "{}{unit}", seconds / size)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = number_and_unit(text).ok_or(UnitError::ByteSize)?;
        let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
        let bytes = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(UnitError::ByteSize),
        };
        number.checked_mul(bytes).map(Self).ok_or(UnitError::TooLarge)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
            .into_iter()
            .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Parsed::deserialize(deserializer).map(|parsed| parsed.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Parsed::deserialize(deserializer).map(|parsed| parsed.0)
    }
}

/// Splits `24h` into its digits and the rest; none when it does not begin with a digit.
fn number_and_unit(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| text.split_at(digits))
}

/// A century: more is a slip of the pen, and sums of durations and clock times stay far from overflow.
const MAX_SECONDS: u64 = 100 * 366 * 86_400;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_duration_needs_a_whole_number_and_a_known_unit() {
        for (text, millis) in [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("24h", 86_400_000), ("0s", 0)] {
            let parsed: Duration = text.parse().unwrap();
            assert_eq!(parsed.0.as_millis(), millis, "{text}");
        }
        for text in ["", "s", "10", "1.5s", "-1s", "10 s", "10S", "10sec", "١s"] {
            assert_eq!(text.parse::<Duration>(), Err(UnitError::Duration), "{text}");
        }
        for text in ["99999999999999999999s", "18446744073709551615h", "40000d"] {
            assert_eq!(text.parse::<Duration>(), Err(UnitError::TooLarge), "{text}");
        }
    }

    #[test]
    fn a_size_counts_in_powers_of_two() {
        for (text, bytes) in [("512", 512), ("512B", 512), ("64KiB", 65_536), ("4MiB", 4 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "KiB", "64K", "64kb", "1.5MiB", "-1"] {
            assert_eq!(text.parse::<ByteSize>(), Err(UnitError::ByteSize), "{text}");
        }
        assert_eq!("18446744073709551615GiB".parse::<ByteSize>(), Err(UnitError::TooLarge));
    }

    #[test]
    fn what_is_displayed_parses_back() {
        for text in ["500ms", "1500ms", "10s", "90s", "5m", "24h", "0s"] {
            let value: Duration = text.parse().unwrap();
            assert_eq!(value.to_string().parse(), Ok(value), "{text}");
        }
        for text in ["0B", "1000B", "64KiB", "3MiB", "1GiB"] {
            let value: ByteSize = text.parse().unwrap();
            assert_eq!(value.to_string(), text);
        }
    }
}
