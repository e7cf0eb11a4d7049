use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use webpki::EndEntityCert;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA},
};

use super::{Revocable, Revocations, key_id, statement::RevocationError};
use crate::{
    AuthorityError, TrustBundle, TrustDomain, authority,
    certificate::{parse, validity},
};

/// The signer, and what stands between it and a root.
const MAX_CERTIFICATES: usize = 4;
const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;

/// One CA certificate of the way from a signer up to a root.
struct Step<'a> {
    certificate: X509Certificate<'a>,
    position: usize,
}

/// Believes an authority: its certificate first, then those that lead to a root of the bundle, each of them a CA's of the
/// bundle's trust domain, valid now, and not revoked. Returns its public key, for P-256.
///
/// rustls-webpki verifies the paths of leaves alone. This one has no choices to make: every certificate is signed by the next.
pub(super) fn signer_key(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    known: Option<&Revocations>,
    now: OffsetDateTime,
) -> Result<Vec<u8>, RevocationError> {
    if chain.len() > MAX_CERTIFICATES || chain.iter().any(|der| der.len() > MAX_CERTIFICATE_BYTES) {
        return Err(RevocationError::ChainTooLarge);
    }
    let trust_domain = bundle.trust_domain();
    let mut steps: Vec<Step<'_>> = Vec::with_capacity(chain.len());
    for (position, der) in (1..).zip(chain) {
        let step = Step::read(der, position, trust_domain, now)?;
        if let Some(below) = steps.last() {
            below.check_signed_by(&step.certificate)?;
        }
        step.check_path_length(position - 1)?;
        steps.push(step);
    }
    let last = steps.last().ok_or(RevocationError::NoSigner)?;
    let root = root_of(last, steps.len(), chain, bundle, now)?;
    if let Some(known) = known {
        let above = steps.iter().skip(1).map(|step| &step.certificate).chain([&root]);
        for (step, above) in steps.iter().zip(above) {
            known.check(&Revocable::of(&step.certificate, key_id(above))).map_err(RevocationError::SignerRevoked)?;
        }
        known.check_key(Revocable::of(&root, None).key).map_err(RevocationError::SignerRevoked)?;
    }
    steps.first().map(Step::p256_key).ok_or(RevocationError::NoSigner)?
}

/// The authority of the bundle that vouches for the end of the chain, or is that end.
fn root_of<'b>(
    last: &Step<'_>,
    below: usize,
    chain: &[CertificateDer<'_>],
    bundle: &'b TrustBundle,
    now: OffsetDateTime,
) -> Result<X509Certificate<'b>, RevocationError> {
    let trust_domain = bundle.trust_domain();
    let mut failure = RevocationError::NotUnderBundle { trust_domain: trust_domain.clone() };
    for der in bundle.authorities() {
        let is_last = chain.last().is_some_and(|last| *last == *der);
        // The bundle has read it before.
        let Ok(root) = Step::read(der, below + 1, trust_domain, now) else { continue };
        if is_last {
            return Ok(root.certificate);
        }
        if last.check_signed_by(&root.certificate).is_ok() {
            match root.check_path_length(below) {
                Ok(()) => return Ok(root.certificate),
                Err(error) => failure = error,
            }
        }
    }
    Err(failure)
}

impl<'a> Step<'a> {
    fn read(
        der: &'a CertificateDer<'_>,
        position: usize,
        trust_domain: &TrustDomain,
        now: OffsetDateTime,
    ) -> Result<Self, RevocationError> {
        let of_authority = |source| RevocationError::Signer { position, source };
        let certificate = parse(der).map_err(|malformed| of_authority(malformed.into()))?;
        authority::check(&certificate, trust_domain).map_err(of_authority)?;
        if !validity(&certificate).contains(now) {
            return Err(RevocationError::SignerNotValidNow { position });
        }
        let step = Self { certificate, position };
        step.check_extensions(trust_domain)?;
        // x509-parser overlooks some of what is not DER in the frame around what is signed.
        EndEntityCert::try_from(der).map_err(|_| of_authority(AuthorityError::Malformed))?;
        Ok(step)
    }

    /// What is critical must be understood (RFC 5280 §4.2), and names must permit the trust domain (§4.2.1.10).
    fn check_extensions(&self, trust_domain: &TrustDomain) -> Result<(), RevocationError> {
        let refused = RevocationError::SignerConstrained { position: self.position };
        for extension in self.certificate.iter_extensions() {
            let permits = match extension.parsed_extension() {
                ParsedExtension::NameConstraints(constraints) => {
                    let host = |name: &GeneralName<'_>| match name {
                        GeneralName::URI(host) => Some(is_within(trust_domain.as_str(), host)),
                        _ => None,
                    };
                    let subtrees = |trees: &Option<Vec<_>>| -> Vec<bool> {
                        let trees: &[x509_parser::extensions::GeneralSubtree<'_>] =
                            trees.as_deref().unwrap_or_default();
                        trees.iter().filter_map(|tree| host(&tree.base)).collect()
                    };
                    let permitted = subtrees(&constraints.permitted_subtrees);
                    let excluded = subtrees(&constraints.excluded_subtrees);
                    (permitted.is_empty() || permitted.contains(&true)) && !excluded.contains(&true)
                }
                ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_) => true,
                _ => !extension.critical,
            };
            if !permits {
                return Err(refused);
            }
        }
        Ok(())
    }

    /// `below`: how many CAs, the signer among them. One that no leaf could be under is no authority.
    fn check_path_length(&self, below: usize) -> Result<(), RevocationError> {
        match authority::path_length(&self.certificate) {
            Some(length) if below > length as usize => {
                Err(RevocationError::SignerConstrained { position: self.position })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_signed_by(&self, above: &X509Certificate<'_>) -> Result<(), RevocationError> {
        let bad = RevocationError::ChainSignature { position: self.position };
        let certificate = &self.certificate;
        let algorithm = &certificate.signature_algorithm.algorithm;
        let is_weak = *algorithm == OID_PKCS1_SHA1WITHRSA || *algorithm == OID_SHA1_WITH_RSA;
        if is_weak || certificate.issuer().as_raw() != above.subject().as_raw() {
            return Err(bad);
        }
        certificate.verify_signature(Some(above.public_key())).map_err(|_| bad)
    }

    /// As a point, uncompressed.
    fn p256_key(&self) -> Result<Vec<u8>, RevocationError> {
        use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
        let key = self.certificate.public_key();
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
            return Err(RevocationError::SignerKey);
        }
        Ok(key.subject_public_key.data.to_vec())
    }
}

/// Of URIs, a constraint is a host, or with a dot in front those below it.
fn is_within(trust_domain: &str, constraint: &str) -> bool {
    match constraint.strip_prefix('.') {
        Some(parent) => trust_domain.strip_suffix(parent).is_some_and(|front| front.ends_with('.')),
        None => trust_domain == constraint,
    }
}
