//! One signed list.

use bytes::Bytes;
use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, KeyIdMethod, RevocationReason,
    RevokedCertParams, SerialNumber,
};
use time::OffsetDateTime;

use crate::authority::{Authority, SignError};
use crate::revocation::{Entry, Reason, What};
use crate::store::StoreError;
use crate::web::{Document, Freshness};

/// DER, with what is said of it.
#[derive(Debug)]
pub(crate) struct RevocationList {
    pub(crate) der: Bytes,
    /// The same, ready to be served.
    pub(crate) document: Document,
    pub(crate) number: u128,
    pub(crate) this_update: OffsetDateTime,
    pub(crate) next_update: OffsetDateTime,
}

/// Of a file with one list in DER (RFC 5280 §4.2.1.13).
const PKIX_CRL: &str = "application/pkix-crl";

/// What a list is to say, beside what is revoked.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) this_update: OffsetDateTime,
    pub(super) next_update: OffsetDateTime,
    /// Where it is a part of all: of which.
    pub(super) point: Option<String>,
    /// More than that of each before it (RFC 5280 §5.2.3).
    pub(super) number: u128,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    #[error("the authority does not sign it")]
    Signing(#[from] SignError),
    #[error("what its authority has signed cannot be read")]
    Store(#[from] StoreError),
    #[error(
        "authority {authority} is revoked, and has signed more than {most} certificates that have not expired: a list of fewer would \
         call the rest good; the one before stays"
    )]
    TooMany { authority: String, most: usize },
    #[error("its authority did not sign it a moment ago; all that it has signed is read again later")]
    PutOff,
    #[error("its authority ends now")]
    AuthorityEnds,
    #[error("signing it broke off")]
    Task,
}

impl RevocationList {
    pub(super) fn sign(authority: &Authority, terms: &Terms, entries: &[Entry]) -> Result<Self, ListError> {
        let Terms { this_update, next_update, number, .. } = *terms;
        if next_update <= this_update {
            return Err(ListError::AuthorityEnds);
        }
        let point = terms.point.as_ref().map(|uri| CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec![uri.clone()] },
            scope: None,
        });
        let params = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from_slice(&number.to_be_bytes()),
            issuing_distribution_point: point,
            revoked_certs: entries.iter().filter_map(revoked).collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(authority.key_id().as_bytes().to_vec()),
        };
        let der = authority.sign_revocation_list(&params)?;
        let der = Bytes::from(der);
        let document = Document::new(PKIX_CRL, der.clone(), Freshness::Asked);
        Ok(Self { der, document, number, this_update, next_update })
    }
}

/// None for what is no certificate.
fn revoked(entry: &Entry) -> Option<RevokedCertParams> {
    let What::Serial(_, serial) = &entry.what else { return None };
    Some(RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial.as_bytes()),
        revocation_time: OffsetDateTime::from_unix_timestamp(entry.revoked_at).ok()?,
        reason_code: Some(reason_code(entry.reason)),
        invalidity_date: None,
    })
}

pub(crate) fn reason_code(reason: Reason) -> RevocationReason {
    match reason {
        Reason::KeyCompromise => RevocationReason::KeyCompromise,
        Reason::CaCompromise => RevocationReason::CaCompromise,
        Reason::AffiliationChanged => RevocationReason::AffiliationChanged,
        Reason::Superseded => RevocationReason::Superseded,
        Reason::CessationOfOperation => RevocationReason::CessationOfOperation,
        Reason::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::time::Instant;

    use x509_parser::prelude::{FromDer as _, X509Certificate};
    use x509_parser::revocation_list::CertificateRevocationList;

    use super::*;
    use crate::authority::{KeyId, testing};
    use crate::revocation::SerialNumber;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn terms() -> Terms {
        let next_update = now() + time::Duration::hours(1);
        Terms { this_update: now(), next_update, point: None, number: 7 }
    }

    #[test]
    fn a_list_of_a_hundred_thousand_is_whole_and_signed() {
        let authority = testing::Root::new("example.org", now()).authority(now());
        let key_id = Arc::new(KeyId::new(authority.key_id().as_bytes()));
        let entry = |number: u128| Entry {
            epoch: number as u64,
            what: What::Serial(
                Arc::clone(&key_id),
                SerialNumber::from_be_bytes(&(number | 1 << 126).to_be_bytes()).unwrap(),
            ),
            not_after: now().unix_timestamp(),
            revoked_at: now().unix_timestamp(),
            reason: Reason::KeyCompromise,
        };
        let entries: Vec<_> = (1..=100_000).map(entry).collect();
        let began = Instant::now();
        let list = RevocationList::sign(&authority, &terms(), &entries).unwrap();
        println!("100,000 entries, {} bytes, signed in {:?}", list.der.len(), began.elapsed());
        let (rest, parsed) = CertificateRevocationList::from_der(&list.der).unwrap();
        assert!(rest.is_empty() && parsed.iter_revoked_certificates().count() == 100_000);
        let (_, signer) = X509Certificate::from_der(authority.certificate().unwrap()).unwrap();
        parsed.verify_signature(signer.public_key()).unwrap();
    }

    #[test]
    fn no_list_is_signed_for_a_time_that_is_none() {
        let authority = testing::Root::new("example.org", now()).authority(now());
        let over = Terms { next_update: now(), ..terms() };
        assert!(matches!(RevocationList::sign(&authority, &over, &[]), Err(ListError::AuthorityEnds)));
    }
}
