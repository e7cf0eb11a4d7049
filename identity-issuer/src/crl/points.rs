//! Where the lists are, as leaves say it (RFC 5280 §4.2.1.13).

use std::sync::Arc;

use crate::authority::KeyId;

/// Cheap to clone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct DistributionPoints {
    /// Without a slash at its end. Leaves name no list where there is none.
    url: Option<Arc<str>>,
    shards: u32,
}

impl DistributionPoints {
    /// `shards` is 1 or more.
    pub(crate) fn new(url: Option<&str>, shards: u32) -> Self {
        Self { url: url.map(|url| url.trim_end_matches('/').into()), shards: shards.max(1) }
    }

    pub(crate) fn shards(&self) -> u32 {
        self.shards
    }

    pub(crate) fn is_sharded(&self) -> bool {
        self.shards > 1
    }

    /// The part that a serial number is in: the number modulo how many there are.
    pub(crate) fn shard_of(&self, serial: &[u8]) -> u32 {
        let shards = u64::from(self.shards);
        let rest = serial.iter().fold(0_u64, |rest, byte| (rest * 256 + u64::from(*byte)) % shards);
        // It is below a number of 32 bits.
        u32::try_from(rest).unwrap_or_default()
    }

    pub(crate) fn uri(&self, authority: &KeyId, shard: u32) -> Option<String> {
        self.url.as_ref().map(|url| format!("{url}/{authority}/{shard}.crl"))
    }

    /// Of the list that a certificate would stand in.
    pub(crate) fn of(&self, authority: &KeyId, serial: &[u8]) -> Option<String> {
        self.uri(authority, self.shard_of(serial))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_serial_number_is_in_the_part_that_is_its_rest() {
        for (serial, shards) in [(0x0102_0304_u64, 7_u32), (u64::MAX, 64), (5, 1), (1 << 40, 1000)] {
            let points = DistributionPoints::new(None, shards);
            assert_eq!(u64::from(points.shard_of(&serial.to_be_bytes())), serial % u64::from(shards));
        }
        let points = DistributionPoints::new(Some("http://crl.example.org/crl/"), 8);
        let uri = points.of(&KeyId::new(&[0xab; 2]), &[0, 9]).unwrap();
        assert_eq!(uri, "http://crl.example.org/crl/abab/1.crl");
        assert_eq!(DistributionPoints::new(None, 8).of(&KeyId::new(&[1]), &[9]), None);
    }
}
