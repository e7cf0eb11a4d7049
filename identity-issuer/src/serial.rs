//! Serial numbers: 16 random octets, positive, never zero, always the same length (RFC 5280 §4.1.2.2).

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;

/// 126 random bits; the top bits `01` keep it positive and 16 octets long.
pub(crate) fn random_serial() -> Result<[u8; 16], Unspecified> {
    let mut serial = [0; 16];
    rand::fill(&mut serial)?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}
