//! `x509_pop`: a certificate of a registered CA, and a signature by its key: machines with a certificate of their data centre, and
//! devices with the one that their manufacturer gave them (IEEE 802.1AR).
//!
//! The signature is over a challenge of ours and the request for the certificate, so that neither an old signature nor one that was
//! made for another request is worth anything.

use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use signet_identity::{Serial, SharedClock};
use signet_policy::{AttributeName, Attributes};
use signet_proto::identity::v1::X509Possession;
use time::OffsetDateTime;
use webpki::aws_lc_rs as algorithms;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::challenge::Challenges;
use super::{Attested, Attestor, Evidence, Method, NotAttested, ProofHash, ShownCertificate, Subject};
use crate::csr::KeyHash;

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub(crate) struct RegisteredAuthorities {
    pub(crate) challenges: Challenges,
    pub(crate) authorities: Vec<X509Authority>,
    pub(crate) clock: SharedClock,
}

/// A CA by the name that the policy knows it by.
#[derive(Clone, Debug)]
pub(crate) struct X509Authority {
    pub(crate) name: String,
    /// Where its certificates were read from.
    pub(crate) file: PathBuf,
    pub(crate) anchors: Vec<X509Anchor>,
}

/// One certificate of a CA. Its life is judged here: to RFC 5280 §6.1.1 an anchor is a name and a key.
#[derive(Clone, Debug)]
pub(crate) struct X509Anchor {
    anchor: TrustAnchor<'static>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// Why a certificate is that of no CA.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum NoAuthority {
    #[error("one of its certificates cannot be read")]
    Malformed,
    #[error("one of its certificates is that of no CA: its basicConstraints do not say so")]
    NotCa,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PossessionError {
    #[error("it holds {found} certificates, and may hold 1 to {MAX_CHAIN}")]
    ChainLength { found: usize },
    #[error("a certificate of it is {bytes} bytes long, and may be {MAX_CERTIFICATE} at most")]
    CertificateTooLarge { bytes: usize },
    #[error("a certificate of it cannot be read")]
    Malformed,
    #[error("a key of it is larger than RSA of 4,096 bits")]
    KeyTooLarge,
    #[error("{0}")]
    Challenge(String),
    #[error("its certificate is none that a registered CA vouches for now: {}", in_words(.0))]
    Path(webpki::Error),
    #[error("the certificate of the registered CA `{authority}` is not valid now")]
    AuthorityOutOfDate { authority: String },
    #[error("its signature scheme {0:#06x} is none that is accepted")]
    Scheme(u32),
    #[error("its signature is not by the certificate's key, or over something else")]
    Signature,
}

impl PossessionError {
    pub(super) fn field(&self) -> &'static str {
        match self {
            Self::ChainLength { .. }
            | Self::CertificateTooLarge { .. }
            | Self::Malformed
            | Self::KeyTooLarge
            | Self::Path(_)
            | Self::AuthorityOutOfDate { .. } => ".chain",
            Self::Challenge(_) => ".challenge",
            Self::Scheme(_) => ".scheme",
            Self::Signature => ".signature",
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::ChainLength { .. }
            | Self::CertificateTooLarge { .. }
            | Self::Malformed
            | Self::KeyTooLarge
            | Self::Scheme(_) => "malformed",
            Self::Challenge(_) => "challenge",
            Self::Path(webpki::Error::CertExpired { .. }) | Self::AuthorityOutOfDate { .. } => "expired",
            Self::Path(_) => "unknown",
            Self::Signature => "signature",
        }
    }
}

/// A proof, read and of a bounded size; nothing of it is believed yet.
pub(crate) struct Possession<'a> {
    leaf: CertificateDer<'a>,
    intermediates: Vec<CertificateDer<'a>>,
}

impl Attestor for RegisteredAuthorities {
    type Proof = X509Possession;

    async fn attest(&self, proof: &X509Possession, csr: &[u8]) -> Result<Attested, NotAttested> {
        if self.authorities.is_empty() {
            return Err(NotAttested::NotConfigured);
        }
        // What costs least comes first.
        let known = self.challenges.recognize(&proof.challenge);
        let known = known.map_err(|unknown| PossessionError::Challenge(unknown.to_string()))?;
        let scheme = scheme(proof.scheme).ok_or(PossessionError::Scheme(proof.scheme))?;
        let possession = Possession::read(&proof.chain)?;
        let (authority, common_name) = self.authority_of(&possession, proof, scheme, csr)?;
        Ok(Attested {
            shown: Some(possession.shown()?),
            subject: Subject::Proved(attributes_of(&authority.name, &possession.leaf, common_name)?),
            evidence: Evidence::Proof {
                method: Method::X509Possession,
                hash: ProofHash::of(&proof.challenge),
                once_until: Some(known.expires_at),
            },
        })
    }
}

impl RegisteredAuthorities {
    /// The CA that vouches for the certificate whose key made the signature, and whether it does for its common name.
    fn authority_of(
        &self,
        possession: &Possession<'_>,
        proof: &X509Possession,
        scheme: &dyn SignatureVerificationAlgorithm,
        csr: &[u8],
    ) -> Result<(&X509Authority, CommonName), PossessionError> {
        let own = self.authorities.iter().flat_map(|authority| &authority.anchors);
        let anchors: Vec<_> = own.map(|own| own.anchor.clone()).collect();
        let now = self.clock.now();
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let leaf = EndEntityCert::try_from(&possession.leaf).map_err(PossessionError::Path)?;
        let path = leaf
            .verify_for_usage(ACCEPTED, &anchors, &possession.intermediates, time, KeyUsage::client_auth(), None, None)
            .map_err(PossessionError::Path)?;
        leaf.verify_signature(scheme, &signed_bytes(&proof.challenge, csr), &proof.signature)
            .map_err(|_| PossessionError::Signature)?;
        // A CA that was certified anew with the same key has two certificates with one anchor.
        let own =
            self.authorities.iter().flat_map(|authority| authority.anchors.iter().map(move |own| (authority, own)));
        let vouching: Vec<_> = own.filter(|(_, own)| own.anchor == *path.anchor()).collect();
        let Some((authority, _)) = vouching.first() else {
            return Err(PossessionError::Path(webpki::Error::UnknownIssuer));
        };
        if !vouching.iter().any(|(_, own)| (own.not_before..=own.not_after).contains(&now)) {
            return Err(PossessionError::AuthorityOutOfDate { authority: authority.name.clone() });
        }
        let constrained = path.anchor().name_constraints.is_some()
            || path.intermediate_certificates().any(|certificate| constrains_names(&certificate.der()));
        Ok((authority, if constrained { CommonName::Passed } else { CommonName::Told }))
    }
}

impl<'a> Possession<'a> {
    /// Sizes only: no signature is looked at.
    fn read(chain: &'a [Vec<u8>]) -> Result<Self, PossessionError> {
        let (leaf, above) = chain.split_first().ok_or(PossessionError::ChainLength { found: 0 })?;
        if chain.len() > MAX_CHAIN {
            return Err(PossessionError::ChainLength { found: chain.len() });
        }
        for der in chain {
            if der.len() > MAX_CERTIFICATE {
                return Err(PossessionError::CertificateTooLarge { bytes: der.len() });
            }
            let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| PossessionError::Malformed)?;
            if !rest.is_empty() {
                return Err(PossessionError::Malformed);
            }
            if certificate.public_key().raw.len() > MAX_PUBLIC_KEY {
                return Err(PossessionError::KeyTooLarge);
            }
        }
        let der = |der: &'a Vec<u8>| CertificateDer::from(der.as_slice());
        Ok(Self { leaf: der(leaf), intermediates: above.iter().map(der).collect() })
    }
}

impl Possession<'_> {
    /// What may be revoked of it: all that was shown, whether the path needs it or not.
    fn shown(&self) -> Result<ShownCertificate, PossessionError> {
        let parse = |der| X509Certificate::from_der(der).map_err(|_| PossessionError::Malformed);
        let (_, leaf) = parse(&self.leaf)?;
        let authority = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        });
        let mut keys = vec![KeyHash::of_spki(leaf.public_key().raw)];
        for der in &self.intermediates {
            keys.push(KeyHash::of_spki(parse(der)?.1.public_key().raw));
        }
        let serial = Serial::from_be_bytes(leaf.raw_serial()).as_bytes().to_vec();
        Ok(ShownCertificate { authority: authority.unwrap_or_default(), serial, keys })
    }
}

impl X509Anchor {
    pub(crate) fn of(der: &CertificateDer<'_>) -> Result<Self, NoAuthority> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| NoAuthority::Malformed)?;
        let constraints = certificate.basic_constraints().map_err(|_| NoAuthority::Malformed)?;
        if !constraints.is_some_and(|constraints| constraints.value.ca) {
            return Err(NoAuthority::NotCa);
        }
        let anchor = webpki::anchor_from_trusted_cert(der).map_err(|_| NoAuthority::Malformed)?.to_owned();
        let validity = certificate.validity();
        Ok(Self { anchor, not_before: validity.not_before.to_datetime(), not_after: validity.not_after.to_datetime() })
    }

    /// What tells it from others: certificates with the same are of one CA.
    pub(crate) fn name_and_key(&self) -> Vec<u8> {
        [self.anchor.subject.as_ref(), self.anchor.subject_public_key_info.as_ref()].concat()
    }
}

/// Whether a certificate's common name is worth anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CommonName {
    Told,
    /// Name constraints say nothing of common names (RFC 5280 §4.2.1.10), so that a CA with such could give any.
    Passed,
}

fn constrains_names(der: &[u8]) -> bool {
    let read = X509Certificate::from_der(der);
    // Verified already; and where it cannot be read after all, nothing is believed of it.
    read.map_or(true, |(_, certificate)| !matches!(certificate.name_constraints(), Ok(None)))
}

/// Never what the certificate holds: webpki's own words repeat as much of it as there is.
fn in_words(error: &webpki::Error) -> &'static str {
    use webpki::Error::{
        CaUsedAsEndEntity, CertExpired, CertNotValidYet, EndEntityUsedAsCa, InvalidSignatureForPublicKey,
        MaximumPathDepthExceeded, MaximumSignatureChecksExceeded, NameConstraintViolation, PathLenConstraintViolated,
        RequiredEkuNotFoundContext, UnknownIssuer, UnsupportedCriticalExtension, UnsupportedSignatureAlgorithmContext,
        UnsupportedSignatureAlgorithmForPublicKeyContext,
    };
    match error {
        CertExpired { .. } => "it, or one above it, has expired",
        CertNotValidYet { .. } => "it, or one above it, is not valid yet",
        UnknownIssuer => "no registered CA signed it",
        RequiredEkuNotFoundContext(_) => "it is not for TLS clients",
        CaUsedAsEndEntity => "it is that of a CA",
        EndEntityUsedAsCa => "one above it is that of no CA",
        PathLenConstraintViolated | MaximumPathDepthExceeded => "there are too many above it",
        NameConstraintViolation => "a CA above it may not give such names",
        UnsupportedCriticalExtension => "it has a critical extension that is not known here",
        UnsupportedSignatureAlgorithmContext(_) | UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "it is signed by an algorithm that is not accepted"
        }
        InvalidSignatureForPublicKey => "a signature of the chain is wrong",
        MaximumSignatureChecksExceeded => "it takes too many signatures to find its CA",
        _ => "it cannot be verified",
    }
}

/// What a caller signs: the form of RFC 8446 §4.4.3 with a context of our own.
fn signed_bytes(challenge: &[u8], csr: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x20; 64];
    bytes.extend_from_slice(b"signet x509_pop v1\0");
    bytes.extend_from_slice(digest(&SHA256, challenge).as_ref());
    bytes.extend_from_slice(digest(&SHA256, csr).as_ref());
    bytes
}

/// RFC 8446 §4.2.3.
fn scheme(number: u32) -> Option<&'static dyn SignatureVerificationAlgorithm> {
    Some(match number {
        0x0403 => algorithms::ECDSA_P256_SHA256,
        0x0503 => algorithms::ECDSA_P384_SHA384,
        0x0804 => algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        0x0805 => algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        0x0806 => algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        0x0807 => algorithms::ED25519,
        _ => return None,
    })
}

/// Of a certificate that was verified.
fn attributes_of(
    authority: &str,
    leaf: &CertificateDer<'_>,
    common_name: CommonName,
) -> Result<Attributes, NotAttested> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| PossessionError::Malformed)?;
    let serial = certificate.raw_serial();
    // DER puts a zero in front of a number whose first bit is set.
    let serial = serial.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(serial);
    let mut proved = vec![
        ("x509.authority", authority.to_owned()),
        ("x509.serial", hex::encode(serial)),
        ("x509.sha256", hex::encode(digest(&SHA256, leaf))),
    ];
    let mut common_names = certificate.subject().iter_common_name();
    // Of two it is nobody's business to choose one.
    if let (CommonName::Told, Some(name), None) = (common_name, common_names.next(), common_names.next()) {
        proved.push(("x509.common_name", name.as_str().map_err(|_| PossessionError::Malformed)?.to_owned()));
    }
    let names = certificate.subject_alternative_name().map_err(|_| PossessionError::Malformed)?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => proved.push(("x509.dns", (*name).to_owned())),
            GeneralName::URI(uri) => proved.push(("x509.uri", (*uri).to_owned())),
            _ => {}
        }
    }
    // All of the list that the policy knows.
    let pairs = proved.into_iter().filter_map(|(name, value)| Some((name.parse::<AttributeName>().ok()?, value)));
    Ok(Attributes::new(pairs)?)
}

/// Reads a chain as far as it goes without a signature.
#[cfg(fuzzing)]
pub(super) fn read(chain: &[Vec<u8>]) {
    if let Ok(possession) = Possession::read(chain) {
        let _ = attributes_of("authority", &possession.leaf, CommonName::Told);
    }
}

const ACCEPTED: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];
/// A leaf and three intermediates.
const MAX_CHAIN: usize = 4;
const MAX_CERTIFICATE: usize = 8 << 10;
/// A SubjectPublicKeyInfo of RSA with 4,096 bits has 550 bytes.
const MAX_PUBLIC_KEY: usize = 600;

#[cfg(test)]
mod tests;
