//! What a CA's key signs, and nothing else: each kind is told from all others by its form, so that what was signed as one passes for no
//! other.

use x509_parser::certificate::TbsCertificate;
use x509_parser::certification_request::X509CertificationRequestInfo;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::TbsCertList;
use x509_parser::x509::X509Version;

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// TBSCertificate of version 3 (RFC 5280 §4.1.2).
    Certificate,
    /// TBSCertList of version 2 (RFC 5280 §5.1.2).
    RevocationList,
    /// CertificationRequestInfo (RFC 2986 §4.1), for the key itself.
    Request,
    /// 64 bytes 0x20, one of [`CONTEXTS`], a byte 0, and what is said: the form of RFC 8446 §4.4.3.
    Statement,
}

/// Whatever is signed in an authority's name beside certificates has its own.
const CONTEXTS: [&str; 4] =
    ["signet issuer bundles v1", "signet revocations v1", "signet ceremony record v1", "signet key check v1"];

const PADDING: [u8; 64] = [0x20; 64];

impl Kind {
    /// That of a message, if a CA's key may sign it at all.
    pub(super) fn of(message: &[u8]) -> Option<Self> {
        match message.first()? {
            // A SEQUENCE: all three parse in one way only, and to their end.
            0x30 => Self::of_der(message),
            0x20 => is_statement(message).then_some(Self::Statement),
            _ => None,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::RevocationList => "revocation list",
            Self::Request => "certificate request",
            Self::Statement => "statement",
        }
    }

    fn of_der(message: &[u8]) -> Option<Self> {
        if let Ok(([], certificate)) = TbsCertificate::from_der(message) {
            return (certificate.version == X509Version::V3).then_some(Self::Certificate);
        }
        if let Ok(([], list)) = TbsCertList::from_der(message) {
            return (list.version == Some(X509Version::V2)).then_some(Self::RevocationList);
        }
        matches!(X509CertificationRequestInfo::from_der(message), Ok(([], _))).then_some(Self::Request)
    }
}

/// What is signed for a statement.
pub(crate) fn statement(context: &str, said: &[u8]) -> Vec<u8> {
    [&PADDING[..], context.as_bytes(), &[0], said].concat()
}

fn is_statement(message: &[u8]) -> bool {
    let Some(rest) = message.strip_prefix(&PADDING) else { return false };
    CONTEXTS.iter().any(|context| rest.strip_prefix(context.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{
        CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
        SerialNumber,
    };
    use time::OffsetDateTime;

    use super::super::{CaKey, SignError};
    use super::*;
    use crate::key::P256Key;

    /// One message of each kind.
    fn messages() -> [(Kind, Vec<u8>); 4] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::CrlSign, KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        let request = params.serialize_request(&key).unwrap();
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + time::Duration::days(1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&Issuer::new(params, key)).unwrap();
        [
            (Kind::Certificate, to_be_signed(certificate.der())),
            (Kind::RevocationList, to_be_signed(list.der())),
            (Kind::Request, to_be_signed(request.der())),
            (Kind::Statement, statement("signet revocations v1", b"...")),
        ]
    }

    /// The first element of a SEQUENCE, as X.509 puts it.
    fn to_be_signed(der: &[u8]) -> Vec<u8> {
        yasna::parse_der(der, |reader| {
            reader.read_sequence(|reader| {
                let first = reader.next().read_der()?;
                reader.next().read_der()?;
                reader.next().read_der()?;
                Ok(first)
            })
        })
        .unwrap()
    }

    #[test]
    fn a_certificate_cannot_be_signed_by_way_of_another_kind_nor_any_other_by_way_of_a_certificate() {
        let key = CaKey::from(P256Key::generate().unwrap());
        for (kind, message) in messages() {
            assert_eq!(Kind::of(&message), Some(kind));
            for other in [Kind::Certificate, Kind::RevocationList, Kind::Request, Kind::Statement] {
                let signed = key.sign(other, &message);
                assert_eq!(signed.is_ok(), other == kind, "{kind:?} as {other:?}");
                assert!(matches!(signed, Ok(_) | Err(SignError::NotOfKind { .. })));
            }
        }
    }

    #[test]
    fn what_is_of_no_kind_is_not_signed() {
        let key = CaKey::from(P256Key::generate().unwrap());
        let mut wrong: Vec<Vec<u8>> = vec![
            Vec::new(),
            vec![0; 32],
            b"signet revocations v1\0...".to_vec(),
            statement("somebody else's v1", b""),
            [&PADDING[..], b"signet revocations v10"].concat(),
            // Tokens are signed by keys of their own.
            b"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0".to_vec(),
        ];
        // A statement may have any end; DER has one.
        for (_, message) in messages().into_iter().filter(|(kind, _)| *kind != Kind::Statement) {
            wrong.push([&message[..], &[0]].concat());
            wrong.push(message[..message.len() / 3].to_vec());
        }
        for message in wrong {
            for kind in [Kind::Certificate, Kind::RevocationList, Kind::Request, Kind::Statement] {
                assert!(key.sign(kind, &message).is_err(), "{message:?} as {kind:?}");
            }
        }
    }
}
