//! An authority that signs leaves: a key and the checked chain above it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateRevocationListParams, CrlDistributionPoint, Issuer, PublicKeyData, SigningKey};
use rustls_pki_types::CertificateDer;
use signet_identity::TrustBundle;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::Constraint;
use super::custody::{Kind, Pace, SignError};
use super::intermediate::{self, CheckedChain, IntermediateError};
use super::{CaKey, KeyName};
use crate::certificate::{ApprovedCsr, Certificate};
use crate::crl::DistributionPoints;
use crate::pem_files;
use crate::profile::lint::{self, Above, Expected, Finding, LintedCertificate, with_signature};
use crate::profile::{Form, Profile};
use crate::utc::Utc;

/// An authority lives so many times as long as a leaf that it signs, at least.
pub const LEAF_LIVES: u32 = 6;
/// Certificates know whole seconds.
const SHORTEST_LEAF: Duration = Duration::from_secs(1);

/// Ready to sign. Its `Debug` shows no key.
#[derive(Debug)]
pub(crate) struct Authority {
    key: CaKey,
    /// Writes what is to be signed.
    template: Issuer<'static, Unsigned>,
    /// Its subject, DER.
    subject: Vec<u8>,
    /// How many CAs there may be below it.
    path_length: u8,
    /// What its chain is good for, one list for each certificate that has one.
    purposes: Vec<Vec<Vec<u64>>>,
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
    #[error("this issuer's authority has pathLen 0: it signs no CA")]
    NoSubordinates,
    #[error(
        "this issuer's authority is for other purposes than the profile `{profile}`: nobody would take the certificate"
    )]
    OtherPurpose { profile: Box<str> },
    #[error("a certificate that breaks its profile `{profile}` was not signed: {finding}")]
    Lint { profile: Box<str>, finding: Finding },
    #[error("the cryptographic library refused to make the certificate")]
    Cryptography(#[source] Option<rcgen::Error>),
    #[error("nothing was signed")]
    Sign(#[from] SignError),
}

impl Authority {
    pub(crate) fn new(key: CaKey, checked: CheckedChain) -> Result<Self, IntermediateError> {
        let unsigned = Unsigned::of(key.der_bytes());
        let template = Issuer::from_ca_cert_der(&checked.own.der, unsigned).map_err(|_| IntermediateError::Subject)?;
        check_writable_subject(&checked.own.der, &key, &template)?;
        let chain = std::iter::once(&checked.own).chain(&checked.above);
        let purposes = chain.filter(|one| !one.purposes.is_empty()).map(|one| one.purposes.clone()).collect();
        let key_id = checked.own.key_id.ok_or(IntermediateError::NoKeyId)?;
        let above = checked.above.into_iter().map(|certificate| certificate.der);
        let path_length = match checked.own.constraint {
            Constraint::PathLength(length) => u8::try_from(length).map_err(|_| IntermediateError::PathLength)?,
            _ => return Err(IntermediateError::PathLength),
        };
        Ok(Self {
            key,
            template,
            subject: checked.own.subject_der,
            path_length,
            purposes,
            key_id,
            not_before: checked.own.not_before,
            not_after: checked.not_after,
            chain: std::iter::once(checked.own.der).chain(above).collect(),
        })
    }

    /// Signs what `approved` asks for. It may leave the process only as
    /// [`Logged`](crate::store::Logged).
    pub(crate) fn certify(
        &self,
        approved: ApprovedCsr,
        points: &DistributionPoints,
        now: OffsetDateTime,
    ) -> Result<Certificate, CertifyError> {
        let ApprovedCsr { entitlement, key, attestation } = approved;
        let profile = Arc::clone(&entitlement.profile);
        if matches!(profile.form, Form::SubordinateCa) && self.path_length == 0 {
            return Err(CertifyError::NoSubordinates);
        }
        if !self.is_for(&profile) {
            return Err(CertifyError::OtherPurpose { profile: profile.name.clone() });
        }
        let end = entitlement.expires.map_or(self.not_after, |expires| expires.min(self.not_after));
        let lifetime = profile.lifetime(entitlement.ttl);
        let lifetime = match profile.form {
            Form::Leaf(_) => lifetime.at_most(self.longest_leaf()),
            // An authority itself: it is followed by another one in time.
            Form::SubordinateCa => lifetime,
        };
        let validity = lifetime.validity(now, end).ok_or(match end < self.not_after {
            true => CertifyError::EntitlementExpired { at: end },
            false => CertifyError::AuthorityExpired { not_after: self.not_after },
        })?;
        let serial = crate::serial::new_serial(now).map_err(|_| CertifyError::Cryptography(None))?;
        let cryptography = |error| CertifyError::Cryptography(Some(error));
        let mut params =
            profile.params(&entitlement, &key, &serial, validity, self.path_length).map_err(cryptography)?;
        let crl = points.of(&self.key_id, &serial);
        params.crl_distribution_points =
            crl.iter().map(|uri| CrlDistributionPoint { uris: vec![uri.clone()] }).collect();
        let unsigned = params.signed_by(&key, &self.template).map_err(cryptography)?;
        let expected = Expected {
            profile: &profile,
            entitlement: &entitlement,
            key_type: key.key_type(),
            spki: &key.subject_public_key_info(),
            serial: &serial,
            validity,
            crl: crl.as_deref(),
            authority: self.above(),
        };
        let linted = LintedCertificate::check(unsigned.der(), &expected)
            .map_err(|finding| CertifyError::Lint { profile: profile.name.clone(), finding })?;
        let certificate = linted.sign(&self.key)?;
        Ok(Certificate {
            chain: std::iter::once(certificate).chain(self.chain.iter().cloned()).collect(),
            key_hash: key.hash(),
            id: entitlement.id,
            rule: entitlement.rule,
            profile,
            attestation,
            serial,
            validity,
            issued_at: now,
            authority: self.key_id.clone(),
        })
    }

    /// No leaf of it lives longer. It gives way when a quarter of its life is left, so that by then none is cut off by its end, and all
    /// are renewed before.
    pub(crate) fn longest_leaf(&self) -> Duration {
        let life = Duration::try_from(self.not_after - self.not_before).unwrap_or_default();
        Duration::from_secs(life.as_secs() / u64::from(LEAF_LIVES)).max(SHORTEST_LEAF)
    }

    /// From when on a successor is asked for.
    pub(crate) fn successor_due(&self) -> OffsetDateTime {
        self.not_after - (self.not_after - self.not_before) / 2
    }

    /// When it gives way to one that is ready, by itself.
    pub(crate) fn gives_way(&self) -> OffsetDateTime {
        self.not_after - (self.not_after - self.not_before) / 4
    }

    /// Whether verifiers take what it signs for the profile's purposes.
    fn is_for(&self, profile: &Profile) -> bool {
        let Form::Leaf(leaf) = &profile.form else { return true };
        let wanted: Vec<_> = leaf.extended_key_usages.iter().map(lint::arcs).collect();
        self.purposes.iter().all(|allowed| wanted.iter().all(|purpose| allowed.contains(purpose)))
    }

    /// A certificate revocation list, DER.
    pub(crate) fn sign_revocation_list(&self, list: &CertificateRevocationListParams) -> Result<Vec<u8>, SignError> {
        let tbs = tbs_of_list(list, &self.template).map_err(|_| SignError::Cryptography)?;
        Ok(with_signature(&tbs, &self.key.sign(Kind::RevocationList, &tbs)?))
    }

    /// Whether those who trust the bundle trust what it signs.
    pub(crate) fn check_is_under(&self, bundle: &TrustBundle, now: OffsetDateTime) -> Result<(), IntermediateError> {
        intermediate::check_is_under(&self.chain, bundle, now)
    }

    /// Of its key.
    pub(crate) fn name(&self) -> KeyName {
        self.key.name()
    }

    /// Its own.
    pub(crate) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.chain.first()
    }

    /// What is said in its name, to other issuers and to clients.
    pub(crate) fn sign_statement(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.key.sign(Kind::Statement, message)
    }

    /// Its own certificate first, those above it behind.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Its own certificate, and those above it.
    pub(crate) fn chain_pem(&self) -> String {
        self.chain.iter().map(|der| pem_files::encode(pem_files::CERTIFICATE, der)).collect()
    }

    fn above(&self) -> Above<'_> {
        Above {
            subject: &self.subject,
            key_id: self.key_id.as_bytes(),
            not_after: self.not_after,
            path_length: self.path_length,
        }
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

/// Has the authority sign: here, or on a thread that may block, where its key takes its time. None when the runtime ends meanwhile.
pub(crate) async fn sign_with<T: Send + 'static>(
    authority: Arc<Authority>,
    sign: impl FnOnce(&Authority) -> T + Send + 'static,
) -> Option<T> {
    match authority.key.pace() {
        Pace::Quick => Some(sign(&authority)),
        Pace::Blocks => tokio::task::spawn_blocking(move || sign(&authority)).await.ok(),
    }
}

/// rcgen keeps one attribute of each type and one in each RDN. A subject that does not come out as it went in would
/// make leaves whose issuer nobody finds. The probe is never signed.
fn check_writable_subject(
    der: &CertificateDer<'_>,
    key: &CaKey,
    template: &Issuer<'_, Unsigned>,
) -> Result<(), IntermediateError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IntermediateError::Subject)?;
    if certificate.subject().iter_rdn().any(|rdn| rdn.iter().count() != 1) {
        return Err(IntermediateError::Subject);
    }
    let probe = rcgen::CertificateParams::default().signed_by(key, template).map_err(|_| IntermediateError::Subject)?;
    let (_, probe) = X509Certificate::from_der(probe.der()).map_err(|_| IntermediateError::Subject)?;
    match probe.issuer().as_raw() == certificate.subject().as_raw() {
        true => Ok(()),
        false => Err(IntermediateError::Subject),
    }
}

/// The bytes of a revocation list that are signed (RFC 5280 §5.1.1.1), DER.
pub(crate) fn tbs_of_list(
    list: &CertificateRevocationListParams,
    issuer: &Issuer<'_, Unsigned>,
) -> Result<Vec<u8>, rcgen::Error> {
    let unsigned = list.signed_by(issuer)?;
    let tbs = yasna::parse_der(unsigned.der(), |reader| {
        reader.read_sequence(|reader| {
            let tbs = reader.next().read_der()?;
            // The algorithm, and nothing for a signature.
            reader.next().read_der()?;
            reader.next().read_der()?;
            Ok(tbs)
        })
    });
    tbs.map_err(|_| rcgen::Error::CouldNotParseCertificate)
}

/// Writes certificates with nothing for a signature: what is signed goes by the lint first.
#[derive(Debug)]
pub(crate) struct Unsigned {
    point: Vec<u8>,
}

impl Unsigned {
    /// `point`: of the key that will sign, as its subjectPublicKey has it.
    pub(crate) fn of(point: &[u8]) -> Self {
        Self { point: point.to_vec() }
    }
}

impl PublicKeyData for Unsigned {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Unsigned {
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
