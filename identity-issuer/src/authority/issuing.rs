//! An authority that signs leaves: a key and the checked chain above it.

use std::fmt;

use rcgen::{Issuer, PublicKeyData, SigningKey};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::intermediate::{CheckedChain, IntermediateError};
use crate::certificate::{ApprovedCsr, Certificate};
use crate::key::P256Key;
use crate::leaf_profile::LeafProfile;
use crate::utc::Utc;

/// Ready to sign. Its `Debug` shows no key.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, P256Key>,
    chain: Vec<CertificateDer<'static>>,
    key_id: KeyId,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// A subject key identifier. Displays as lower-case hexadecimal.
#[derive(Clone, Eq, PartialEq, Hash)]
pub(crate) struct KeyId(Vec<u8>);

#[derive(Debug, thiserror::Error)]
pub enum CertifyError {
    #[error("the authority expired at {}", Utc(*not_after))]
    AuthorityExpired { not_after: OffsetDateTime },
    #[error("the rule that gives it ends at {}", Utc(*at))]
    EntitlementExpired { at: OffsetDateTime },
    #[error("the cryptographic library refused to make the certificate")]
    Cryptography(#[source] Option<rcgen::Error>),
}

impl Authority {
    pub(crate) fn new(key: P256Key, checked: CheckedChain) -> Result<Self, IntermediateError> {
        check_writable_subject(&checked.own.der, &key)?;
        let issuer = Issuer::from_ca_cert_der(&checked.own.der, key).map_err(|_| IntermediateError::Subject)?;
        let key_id = checked.own.key_id.ok_or(IntermediateError::NoKeyId)?;
        let above = checked.above.into_iter().map(|certificate| certificate.der);
        Ok(Self {
            issuer,
            key_id,
            not_before: checked.own.not_before,
            not_after: checked.not_after,
            chain: std::iter::once(checked.own.der).chain(above).collect(),
        })
    }

    /// Signs the leaf that `approved` asks for. It may leave the process only as
    /// [`Logged`](crate::store::Logged).
    pub(crate) fn certify(
        &self,
        approved: ApprovedCsr,
        profile: &LeafProfile,
        now: OffsetDateTime,
    ) -> Result<Certificate, CertifyError> {
        let ApprovedCsr { entitlement, key, attestation } = approved;
        let profile = profile.with_ttl(entitlement.ttl);
        let end = entitlement.expires.map_or(self.not_after, |expires| expires.min(self.not_after));
        let validity = profile.validity(now, end).ok_or(match end < self.not_after {
            true => CertifyError::EntitlementExpired { at: end },
            false => CertifyError::AuthorityExpired { not_after: self.not_after },
        })?;
        let serial = crate::serial::random_serial().map_err(|_| CertifyError::Cryptography(None))?;
        let params =
            profile.params(&entitlement, &serial, validity).map_err(|error| CertifyError::Cryptography(Some(error)))?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(|error| CertifyError::Cryptography(Some(error)))?;
        Ok(Certificate {
            chain: std::iter::once(leaf.into()).chain(self.chain.iter().cloned()).collect(),
            key_hash: key.hash(),
            id: entitlement.id,
            attestation,
            serial,
            validity,
            issued_at: now,
            authority: self.key_id.clone(),
        })
    }

    pub(crate) fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    pub(crate) fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// The earliest end of the chain, root included.
    pub(crate) fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }
}

/// rcgen keeps one attribute of each type and one in each RDN. A subject that does not come out as it went in would
/// make leaves whose issuer nobody finds. The probe is never signed.
fn check_writable_subject(der: &CertificateDer<'_>, key: &P256Key) -> Result<(), IntermediateError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IntermediateError::Subject)?;
    if certificate.subject().iter_rdn().any(|rdn| rdn.iter().count() != 1) {
        return Err(IntermediateError::Subject);
    }
    let issuer = Issuer::from_ca_cert_der(der, Unsigned(key)).map_err(|_| IntermediateError::Subject)?;
    let probe = rcgen::CertificateParams::default().signed_by(key, &issuer).map_err(|_| IntermediateError::Subject)?;
    let (_, probe) = X509Certificate::from_der(probe.der()).map_err(|_| IntermediateError::Subject)?;
    match probe.issuer().as_raw() == certificate.subject().as_raw() {
        true => Ok(()),
        false => Err(IntermediateError::Subject),
    }
}

/// Writes certificates with nothing for a signature.
struct Unsigned<'a>(&'a P256Key);

impl PublicKeyData for Unsigned<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for Unsigned<'_> {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}

impl KeyId {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
