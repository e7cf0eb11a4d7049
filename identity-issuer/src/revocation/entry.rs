//! One thing that is revoked.

use std::fmt;
use std::sync::Arc;

use crate::authority::KeyId;
use crate::csr::KeyHash;

/// As it is kept in memory, a million of them at times.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    /// Its number, in the order of all.
    pub(crate) epoch: u64,
    pub(crate) what: What,
    /// Unix seconds. From then on it need not be remembered.
    pub(crate) not_after: i64,
    /// Unix seconds.
    pub(crate) revoked_at: i64,
    pub(crate) reason: Reason,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum What {
    /// A certificate, by who signed it.
    Serial(Arc<KeyId>, SerialNumber),
    /// No certificate for it is good, whoever signed it.
    Key(Box<KeyHash>),
    /// Nothing that it has signed is good.
    Authority(Arc<KeyId>, Box<KeyHash>),
}

/// Big endian, without leading zeros.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub(crate) struct SerialNumber {
    length: u8,
    bytes: [u8; Self::MOST],
}

/// CRLReason (RFC 5280 §5.3.1). None that could be taken back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    KeyCompromise = 1,
    CaCompromise = 2,
    AffiliationChanged = 3,
    Superseded = 4,
    CessationOfOperation = 5,
    PrivilegeWithdrawn = 9,
}

impl SerialNumber {
    /// RFC 5280 §4.1.2.2.
    const MOST: usize = 20;

    /// None for what is no serial number: zero, negative, or longer than 20 octets.
    pub(crate) fn from_be_bytes(bytes: &[u8]) -> Option<Self> {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let number = &bytes[zeros..];
        // As an integer of 20 octets, it has to be positive.
        if number.is_empty() || number.len() > Self::MOST || (number.len() == Self::MOST && number[0] >= 0x80) {
            return None;
        }
        let mut serial = Self { length: number.len() as u8, bytes: [0; Self::MOST] };
        serial.bytes[..number.len()].copy_from_slice(number);
        Some(serial)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Reason {
    pub const ALL: [Self; 6] = [
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// None for a number that is of none of these.
    pub fn of_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.number() == number)
    }

    /// None for what is the name of none.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    pub fn number(self) -> i64 {
        self as i64
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyCompromise => "key-compromise",
            Self::CaCompromise => "ca-compromise",
            Self::AffiliationChanged => "affiliation-changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
            Self::PrivilegeWithdrawn => "privilege-withdrawn",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_million_of_them_fit_into_64_megabytes() {
        assert!(size_of::<Entry>() <= 64, "{}", size_of::<Entry>());
    }

    #[test]
    fn a_serial_number_is_positive_and_has_20_octets_at_most() {
        for wrong in [&[][..], &[0], &[0; 20], &[0x80; 20], &[1; 21]] {
            assert!(SerialNumber::from_be_bytes(wrong).is_none(), "{wrong:?}");
        }
        let same = [&[0, 0, 0x80, 1][..], &[0x80, 1]].map(|bytes| SerialNumber::from_be_bytes(bytes).unwrap());
        assert_eq!(same[0], same[1]);
        assert_eq!(same[0].as_bytes(), [0x80, 1]);
        assert_eq!(SerialNumber::from_be_bytes(&[0x7f; 20]).unwrap().to_string(), "7f".repeat(20));
    }
}
