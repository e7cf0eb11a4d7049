use time::OffsetDateTime;

use super::{
    layers::{Entry, Layers, Until},
    statement::RevocationError,
};

/// The serial numbers that are revoked of one authority's certificates. Cheap to clone.
///
/// Those of 16 octets at most, as an issuer of Signet draws them, are by themselves: a million of them cost a fifth less than with room for
/// the 20 that others may have (RFC 5280 §4.1.2.2).
#[derive(Clone)]
pub(super) struct Serials {
    short: Layers<SHORT>,
    long: Layers<LONG>,
}

/// Filled up with zeros in front.
#[derive(Debug, Eq, PartialEq)]
enum Key {
    Short([u8; SHORT]),
    Long([u8; LONG]),
}

const SHORT: usize = 16;
const LONG: usize = 20;

impl Serials {
    pub(super) fn new() -> Self {
        Self { short: Layers::new(), long: Layers::new() }
    }

    /// `serial` is big-endian. One that is longer than they may be is not among them.
    pub(super) fn contains(&self, serial: &[u8]) -> bool {
        match Key::of(serial) {
            Some(Key::Short(key)) => self.short.contains(&key),
            Some(Key::Long(key)) => self.long.contains(&key),
            None => false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.short.is_empty() && self.long.is_empty()
    }

    /// Remembers these too, each until its time in Unix seconds. What is over `now` is left out. Whether there is anything new.
    pub(super) fn add<'a>(
        &mut self,
        serials: impl Iterator<Item = (&'a [u8], i64)>,
        now: OffsetDateTime,
    ) -> Result<bool, RevocationError> {
        let (mut short, mut long) = (Vec::new(), Vec::new());
        for (serial, not_after) in serials {
            let until = Until::from_unix(not_after);
            match Key::of(serial) {
                Some(Key::Short(key)) => short.push(Entry { key, until }),
                Some(Key::Long(key)) => long.push(Entry { key, until }),
                None => return Err(RevocationError::Malformed { what: "serial number" }),
            }
        }
        Ok(self.short.add(short, now) | self.long.add(long, now))
    }

    /// Whether there was anything to forget.
    pub(super) fn forget(&mut self, now: OffsetDateTime) -> bool {
        self.short.forget(now) | self.long.forget(now)
    }
}

impl Key {
    /// None for zero, and for what is longer than a serial number may be.
    fn of(serial: &[u8]) -> Option<Self> {
        let begins = serial.iter().position(|byte| *byte != 0)?;
        let digits = serial.get(begins..)?;
        match digits.len() {
            ..=SHORT => filled_up(digits).map(Self::Short),
            _ => filled_up(digits).map(Self::Long),
        }
    }
}

fn filled_up<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut filled = [0; N];
    let front = N.checked_sub(digits.len())?;
    filled.get_mut(front..)?.copy_from_slice(digits);
    Some(filled)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[test]
    fn a_number_is_found_however_long_it_is_and_with_zeros_in_front() {
        let mut serials = Serials::new();
        let (short, long) = ([0x11; 16], [0x22; 20]);
        let all: [&[u8]; 4] = [&[7], &short, &long[..17], &long];
        assert!(serials.add(all.iter().map(|serial| (*serial, i64::MAX)), NOW).unwrap());
        assert_eq!(serials.len(), 4);
        for serial in all {
            assert!(serials.contains(serial) && serials.contains(&[&[0, 0], serial].concat()), "{serial:x?}");
        }
        // The same digits, and one more or less of them.
        for other in [&[7, 0][..], &[0x11; 15], &[0x11; 17], &[0x22; 16], &[0x22; 19], &[0x22; 21], &[0], &[]] {
            assert!(!serials.contains(other), "{other:x?}");
        }
        for none in [&[][..], &[0], &[0; 20], &[1; 21]] {
            assert!(serials.add([(none, i64::MAX)].into_iter(), NOW).is_err(), "{none:x?}");
        }
        assert_eq!(serials.len(), 4);
    }

    proptest! {
        #[test]
        fn two_numbers_have_the_same_key_only_where_they_are_the_same(
            one in prop::collection::vec(0..2_u8, 0..22), other in prop::collection::vec(0..2_u8, 0..22),
        ) {
            let digits = |serial: &[u8]| serial.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
            if let (Some(key), Some(other_key)) = (Key::of(&one), Key::of(&other)) {
                prop_assert_eq!(key == other_key, digits(&one) == digits(&other));
            }
            prop_assert_eq!(Key::of(&one).is_some(), (1..=20).contains(&digits(&one).len()));
        }
    }
}
