use std::fmt;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::{asn1_rs::Tag, certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// Leaf, two intermediates and a root that a peer needlessly sends.
const MAX_CERTIFICATES: usize = 4;
const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;
const MAX_CHAIN_BYTES: usize = 16 * 1024;

/// The tag of a URI among the general names (RFC 5280 §4.2.1.6).
const URI: Tag = Tag(6);

/// A certificate's serial number: unique for each issuer, at most 20 octets (RFC 5280 §4.1.2.2). Displays as lower-case
/// hexadecimal without separators.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Serial(Box<[u8]>);

/// The limit that a presented chain exceeds: 4 certificates, 8 KiB for each of them, 16 KiB for all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ChainLimit {
    Certificates,
    Bytes,
}

/// DER that is no certificate, or has bytes after it, or carries names that cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Validity {
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

impl Serial {
    /// From the content of a DER INTEGER, or from any big-endian number.
    pub fn from_be_bytes(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        // Zero itself keeps one octet.
        Self(bytes[zeros.min(bytes.len().saturating_sub(1))..].into())
    }

    /// Big-endian, without leading zeros.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

pub(crate) fn check_limits<'a>(chain: impl Iterator<Item = &'a CertificateDer<'a>>) -> Result<(), ChainLimit> {
    let mut bytes = 0;
    for (index, certificate) in chain.enumerate() {
        if index == MAX_CERTIFICATES {
            return Err(ChainLimit::Certificates);
        }
        bytes += certificate.len();
        if certificate.len() > MAX_CERTIFICATE_BYTES || bytes > MAX_CHAIN_BYTES {
            return Err(ChainLimit::Bytes);
        }
    }
    Ok(())
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Malformed> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(Malformed),
    }
}

/// The URIs among the subject's alternative names. One that cannot be read is an error: it must not hide a second name.
pub(crate) fn uris<'a>(certificate: &X509Certificate<'a>) -> Result<Vec<&'a str>, Malformed> {
    let names = certificate.subject_alternative_name().map_err(|_| Malformed)?;
    let mut uris = Vec::new();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::Invalid(tag, _) if *tag == URI => return Err(Malformed),
            // Other kinds of names are free and say nothing about an SVID's identity (X509-SVID §2).
            _ => {}
        }
    }
    Ok(uris)
}

pub(crate) fn validity(certificate: &X509Certificate<'_>) -> Validity {
    Validity {
        not_before: certificate.validity().not_before.to_datetime(),
        not_after: certificate.validity().not_after.to_datetime(),
    }
}

impl Validity {
    /// Both ends belong to it (RFC 5280 §4.1.2.5).
    pub(crate) fn contains(&self, now: OffsetDateTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    pub(crate) fn intersection(self, other: Self) -> Self {
        Self { not_before: self.not_before.max(other.not_before), not_after: self.not_after.min(other.not_after) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_a_number_in_lower_case_hexadecimal() {
        for (bytes, text) in
            [(&[0x00, 0xab, 0x01][..], "ab01"), (&[0x0a], "0a"), (&[0x00], "00"), (&[0, 0], "00"), (&[], "")]
        {
            assert_eq!(Serial::from_be_bytes(bytes).to_string(), text);
        }
        assert_eq!(Serial::from_be_bytes(&[0, 5]), Serial::from_be_bytes(&[5]));
    }

    #[test]
    fn the_limits_of_a_chain_are_inclusive() {
        let chain = |sizes: &[usize]| -> Result<(), ChainLimit> {
            let chain: Vec<_> = sizes.iter().map(|size| CertificateDer::from(vec![0; *size])).collect();
            check_limits(chain.iter())
        };
        assert_eq!(chain(&[8192, 8192]), Ok(()));
        assert_eq!(chain(&[8193]), Err(ChainLimit::Bytes));
        assert_eq!(chain(&[8192, 8192, 1]), Err(ChainLimit::Bytes));
        assert_eq!(chain(&[1; 4]), Ok(()));
        assert_eq!(chain(&[1; 5]), Err(ChainLimit::Certificates));
    }
}
