//! Serial numbers: 16 octets, positive, never zero, always the same length (RFC 5280 §4.1.2.2).

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use time::OffsetDateTime;

/// The top bits `01` keep it positive and 16 octets long; then come 46 bits of the time in milliseconds, and 80 random bits: more than
/// the 64 that the CA/Browser Forum's Baseline Requirements ask for (§7.1). Numbers of one time lie together, so that the record's
/// index grows at its end: at random places, each certificate would have a page of its own written anew.
pub(crate) fn new_serial(now: OffsetDateTime) -> Result<[u8; 16], Unspecified> {
    let mut serial = [0; 16];
    rand::fill(&mut serial)?;
    let milliseconds = (now.unix_timestamp_nanos() / 1_000_000) as u64;
    let time = milliseconds & (u64::MAX >> 18) | 1 << 46;
    serial[..6].copy_from_slice(&time.to_be_bytes()[2..]);
    Ok(serial)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use time::Duration;

    use super::*;

    #[test]
    fn serials_are_in_the_order_of_their_times_and_otherwise_random() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let of = |milliseconds| new_serial(now + Duration::milliseconds(milliseconds)).unwrap();
        let serials: Vec<_> = (0..1000).map(of).collect();
        assert!(serials.is_sorted() && serials.iter().all(|serial| serial[0] & 0xc0 == 0x40));
        let same: std::collections::HashSet<_> = (0..1000).map(|_| of(0)).collect();
        assert_eq!(same.len(), 1000);
        for time in [OffsetDateTime::UNIX_EPOCH - Duration::days(1), now + Duration::days(3_000 * 365)] {
            assert_eq!(new_serial(time).unwrap()[0] & 0xc0, 0x40);
        }
    }
}
