//! Whether a certificate makes the issuer's key an authority: refused unless everything fits.

use rcgen::PublicKeyData as _;
use rustls_pki_types::CertificateDer;
use signet_identity::{TrustBundle, TrustDomain};
use time::OffsetDateTime;

use super::CaKey;
use super::certificate::{CaCertificate, Constraint, MalformedCertificate};
use crate::pem_files;
use crate::utc::Utc;

/// The issuer's own CA certificate, then those that lead to (not including) a root of the bundle.
#[derive(Clone, Debug)]
pub(crate) struct CheckedChain {
    pub(crate) own: CaCertificate,
    pub(crate) above: Vec<CaCertificate>,
    /// The earliest end of any of them, root included: no leaf may outlive it.
    pub(crate) not_after: OffsetDateTime,
}

/// Intermediates above the issuer's own.
const MAX_ABOVE: usize = 3;
/// Chains that are presented at once.
const MAX_CHAINS: usize = 32;

#[derive(Debug, thiserror::Error)]
pub(crate) enum IntermediateError {
    #[error("holds no PEM block `CERTIFICATE`")]
    NoCertificate,
    #[error("is not PEM")]
    NotPem(#[source] pem::PemError),
    #[error("holds more certificates than a chain may have ({})", MAX_ABOVE + 1)]
    TooMany,
    #[error("holds something else than a certificate")]
    Malformed(#[from] MalformedCertificate),
    #[error("is for another key than this issuer's")]
    OtherKey,
    #[error("is for {found}, and this issuer serves {expected}")]
    OtherTrustDomain { found: String, expected: TrustDomain },
    #[error("`{subject}` is not a CA certificate with critical basicConstraints and keyCertSign")]
    NotCa { subject: String },
    #[error("has no pathLen, or a larger one than `authority.path_length` allows, so that what it signs could sign on")]
    PathLength,
    #[error("has no subject key identifier")]
    NoKeyId,
    #[error("`{subject}` is not valid before {}", Utc(*not_before))]
    NotYetValid { subject: String, not_before: OffsetDateTime },
    #[error("`{subject}` expired at {}", Utc(*not_after))]
    Expired { subject: String, not_after: OffsetDateTime },
    #[error("`{subject}` has a critical extension that is not understood ({oid})")]
    UnknownExtension { subject: String, oid: String },
    #[error("`{subject}` is signed by no root of the trust bundle")]
    NotUnderTheBundle { subject: String },
    #[error("has a subject that cannot be written as an issuer again")]
    Subject,
    #[error("has name constraints, for which programs on rustls, Signet's own too, refuse whatever is below")]
    NameConstraints,
}

/// Reads the PEM that `signet ca sign` wrote, and checks it against the key and the roots it has to fit. `path_length` is how many CAs
/// there may be below it.
pub(crate) fn check(
    pem: &[u8],
    own_spki: &[u8],
    bundle: &TrustBundle,
    path_length: u8,
    now: OffsetDateTime,
) -> Result<CheckedChain, IntermediateError> {
    Presented(parse_chain(pem)?).check(own_spki, bundle, path_length, now)
}

/// An authority's own certificate, and those above it, as they were presented.
#[derive(Clone, Debug)]
pub(crate) struct Presented(Vec<CaCertificate>);

/// Reads the PEM of several chains, each of which begins with a certificate for a key of the issuer's.
pub(crate) fn split(pem: &[u8], is_own: impl Fn(&[u8]) -> bool) -> Result<Vec<Presented>, IntermediateError> {
    let mut chains: Vec<Presented> = Vec::new();
    for certificate in read_all(pem, MAX_CHAINS * (MAX_ABOVE + 1))? {
        match chains.last_mut() {
            _ if is_own(&certificate.spki) => chains.push(Presented(vec![certificate])),
            Some(Presented(chain)) if chain.len() <= MAX_ABOVE => chain.push(certificate),
            Some(_) => return Err(IntermediateError::TooMany),
            None => return Err(IntermediateError::OtherKey),
        }
    }
    Ok(chains)
}

impl Presented {
    pub(crate) fn is_for(&self, key: &CaKey) -> bool {
        let spki = key.subject_public_key_info();
        self.0.first().is_some_and(|own| own.spki == spki)
    }

    pub(crate) fn check(
        &self,
        own_spki: &[u8],
        bundle: &TrustBundle,
        path_length: u8,
        now: OffsetDateTime,
    ) -> Result<CheckedChain, IntermediateError> {
        let (own, above) = self.0.split_first().ok_or(IntermediateError::NoCertificate)?;
        check_own(own, own_spki, bundle.trust_domain(), path_length)?;
        let not_after = check_path(own, above, bundle, now)?;
        Ok(CheckedChain { own: own.clone(), above: above.to_vec(), not_after })
    }

    pub(crate) fn to_pem(&self) -> String {
        self.0.iter().map(|certificate| pem_files::encode(pem_files::CERTIFICATE, &certificate.der)).collect()
    }
}

fn check_own(
    own: &CaCertificate,
    spki: &[u8],
    trust_domain: &TrustDomain,
    path_length: u8,
) -> Result<(), IntermediateError> {
    if own.spki != spki {
        return Err(IntermediateError::OtherKey);
    }
    check_trust_domain(own, trust_domain)?;
    if own.key_id.is_none() {
        return Err(IntermediateError::NoKeyId);
    }
    if own.constrains_names {
        return Err(IntermediateError::NameConstraints);
    }
    match own.constraint {
        Constraint::PathLength(length) if length <= u32::from(path_length) => Ok(()),
        Constraint::PathLength(_) | Constraint::Unconstrained => Err(IntermediateError::PathLength),
        Constraint::NoCa | Constraint::NotCritical => Err(IntermediateError::NotCa { subject: own.subject.clone() }),
    }
}

/// A CA may leave the trust domain out (X509-SVID §3 SHOULD), and may not name another.
fn check_trust_domain(certificate: &CaCertificate, expected: &TrustDomain) -> Result<(), IntermediateError> {
    let id = expected.id();
    match certificate.uris.iter().find(|uri| *uri != id.as_str()) {
        Some(found) => Err(IntermediateError::OtherTrustDomain { found: found.clone(), expected: expected.clone() }),
        None => Ok(()),
    }
}

/// The chain (PEM) of another issuer's authority, its own certificate first, where it leads to a root of the bundle.
pub(crate) fn check_peer(
    pem: &[u8],
    bundle: &TrustBundle,
    now: OffsetDateTime,
) -> Result<Vec<CaCertificate>, IntermediateError> {
    let chain = parse_chain(pem)?;
    let (own, above) = chain.split_first().ok_or(IntermediateError::NoCertificate)?;
    check_trust_domain(own, bundle.trust_domain())?;
    check_path(own, above, bundle, now)?;
    Ok(chain)
}

/// An authority's certificate and those above it, of which nothing is verified yet.
pub(crate) fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, IntermediateError> {
    Ok(parse_chain(pem)?.into_iter().map(|certificate| certificate.der).collect())
}

/// One certificate at least.
fn parse_chain(pem: &[u8]) -> Result<Vec<CaCertificate>, IntermediateError> {
    read_all(pem, MAX_ABOVE + 1)
}

/// One certificate at least.
fn read_all(pem: &[u8], most: usize) -> Result<Vec<CaCertificate>, IntermediateError> {
    let blocks = pem_files::decode(pem_files::CERTIFICATE, pem).map_err(IntermediateError::NotPem)?;
    if blocks.len() > most {
        return Err(IntermediateError::TooMany);
    }
    let chain = blocks.into_iter().map(CaCertificate::parse).collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() { Err(IntermediateError::NoCertificate) } else { Ok(chain) }
}

/// Whether the chain of an authority, its own certificate first, leads to a root of the bundle.
pub(crate) fn check_is_under(
    chain: &[CertificateDer<'static>],
    bundle: &TrustBundle,
    now: OffsetDateTime,
) -> Result<(), IntermediateError> {
    let chain = chain.iter().map(|der| CaCertificate::parse(der.to_vec()));
    let chain = chain.collect::<Result<Vec<_>, _>>()?;
    let (own, above) = chain.split_first().ok_or(IntermediateError::NoCertificate)?;
    check_trust_domain(own, bundle.trust_domain())?;
    check_path(own, above, bundle, now).map(drop)
}

/// Walks from the issuer's own certificate up to a root of the bundle; returns the earliest notAfter met.
fn check_path(
    own: &CaCertificate,
    above: &[CaCertificate],
    bundle: &TrustBundle,
    now: OffsetDateTime,
) -> Result<OffsetDateTime, IntermediateError> {
    let mut below = own;
    let mut not_after = check_one(own, now)?;
    for (length, certificate) in above.iter().enumerate() {
        check_trust_domain(certificate, bundle.trust_domain())?;
        not_after = not_after.min(check_one(certificate, now)?);
        if !below.is_signed_by(certificate) || !allows_below(certificate, length) {
            return Err(IntermediateError::NotUnderTheBundle { subject: below.subject.clone() });
        }
        below = certificate;
    }
    let root =
        bundle.authorities().iter().filter_map(|der: &CertificateDer<'_>| CaCertificate::parse(der.to_vec()).ok());
    let root = root
        .filter(|root| below.is_signed_by(root) && allows_below(root, above.len()))
        .max_by_key(|root| root.not_after)
        .ok_or_else(|| IntermediateError::NotUnderTheBundle { subject: below.subject.clone() })?;
    Ok(not_after.min(check_one(&root, now)?))
}

fn check_one(certificate: &CaCertificate, now: OffsetDateTime) -> Result<OffsetDateTime, IntermediateError> {
    let CaCertificate { not_before, not_after, .. } = *certificate;
    let subject = || certificate.subject.clone();
    if let Some(oid) = &certificate.unknown_critical_extension {
        return Err(IntermediateError::UnknownExtension { subject: subject(), oid: oid.clone() });
    }
    if !certificate.signs_certificates || matches!(certificate.constraint, Constraint::NoCa | Constraint::NotCritical) {
        return Err(IntermediateError::NotCa { subject: subject() });
    }
    if now < not_before {
        return Err(IntermediateError::NotYetValid { subject: subject(), not_before });
    }
    if now > not_after {
        return Err(IntermediateError::Expired { subject: subject(), not_after });
    }
    Ok(not_after)
}

/// Whether `certificate` allows this many intermediates between itself and the issuer's own, and that one too.
fn allows_below(certificate: &CaCertificate, between: usize) -> bool {
    match certificate.constraint {
        Constraint::PathLength(length) => length as usize > between,
        Constraint::Unconstrained => true,
        Constraint::NoCa | Constraint::NotCritical => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType};
    use time::Duration;

    use super::super::hierarchy::{Level, ca_certificate, ca_validity};
    use super::*;

    struct Root {
        issuer: Issuer<'static, KeyPair>,
        bundle: TrustBundle,
    }

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn root(trust_domain: &str) -> Root {
        let trust_domain: TrustDomain = trust_domain.parse().unwrap();
        let key = KeyPair::generate().unwrap();
        let life = std::time::Duration::from_secs(86_400 * 100);
        let params = ca_certificate(Level::Root, &trust_domain, &key, ca_validity(now(), life, None)).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Root { issuer: Issuer::new(params, key), bundle: TrustBundle::new(trust_domain, vec![certificate]).unwrap() }
    }

    fn signed(root: &Root, key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let life = std::time::Duration::from_secs(86_400);
        let validity = ca_validity(now(), life, None);
        let level = Level::Intermediate { path_length: 0 };
        let mut params = ca_certificate(level, root.bundle.trust_domain(), key, validity).unwrap();
        change(&mut params);
        params.signed_by(key, &root.issuer).unwrap().pem().into_bytes()
    }

    fn verdict(pem: &[u8], key: &KeyPair, root: &Root) -> Result<CheckedChain, IntermediateError> {
        check(pem, &key.subject_public_key_info(), &root.bundle, 0, now())
    }

    #[test]
    fn an_intermediate_that_fits_is_taken() {
        let (root, key) = (root("example.org"), KeyPair::generate().unwrap());
        let checked = verdict(&signed(&root, &key, |_| {}), &key, &root).unwrap();
        assert_eq!(checked.not_after, now() + Duration::days(1));
    }

    #[test]
    fn an_intermediate_that_does_not_fit_is_refused_with_the_reason() {
        use IntermediateError as E;
        let (root, key) = (root("example.org"), KeyPair::generate().unwrap());
        type Case = (fn(&mut CertificateParams), fn(&E) -> bool);
        let cases: [Case; 10] = [
            (
                |p| {
                    p.name_constraints = Some(rcgen::NameConstraints {
                        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("example.org".to_owned())],
                        excluded_subtrees: Vec::new(),
                    });
                },
                |e| matches!(e, E::NameConstraints),
            ),
            (|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)), |e| matches!(e, E::PathLength)),
            (|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), |e| matches!(e, E::PathLength)),
            (|p| p.is_ca = IsCa::ExplicitNoCa, |e| matches!(e, E::NotCa { .. })),
            (|p| p.key_usages = vec![KeyUsagePurpose::CrlSign], |e| matches!(e, E::NotCa { .. })),
            (|p| p.key_usages.clear(), |e| matches!(e, E::NotCa { .. })),
            (|p| p.not_after = now() - Duration::seconds(1), |e| matches!(e, E::Expired { .. })),
            (|p| p.not_before = now() + Duration::seconds(1), |e| matches!(e, E::NotYetValid { .. })),
            (
                |p| p.subject_alt_names = vec![SanType::URI("spiffe://other.org".try_into().unwrap())],
                |e| matches!(e, E::OtherTrustDomain { .. }),
            ),
            (
                |p| {
                    let mut unknown = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1], vec![5, 0]);
                    unknown.set_criticality(true);
                    p.custom_extensions.push(unknown);
                },
                |e| matches!(e, E::UnknownExtension { .. }),
            ),
        ];
        for (index, (change, expected)) in cases.into_iter().enumerate() {
            let error = verdict(&signed(&root, &key, change), &key, &root).unwrap_err();
            assert!(expected(&error), "case {index}: {error}");
        }
    }

    #[test]
    fn an_intermediate_of_another_key_or_root_is_refused() {
        let (ours, other) = (root("example.org"), root("example.org"));
        let (key, stranger) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let pem = signed(&ours, &stranger, |_| {});
        assert!(matches!(verdict(&pem, &key, &ours), Err(IntermediateError::OtherKey)));
        let pem = signed(&other, &key, |_| {});
        assert!(matches!(verdict(&pem, &key, &ours), Err(IntermediateError::NotUnderTheBundle { .. })));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let (root, key) = (root("example.org"), KeyPair::generate().unwrap());
        assert!(matches!(verdict(b"", &key, &root), Err(IntermediateError::NoCertificate)));
        assert!(matches!(verdict(b"half a fi", &key, &root), Err(IntermediateError::NoCertificate)));
        let half = &signed(&root, &key, |_| {})[..200];
        assert!(verdict(half, &key, &root).is_err());
        let junk = pem_files::encode(pem_files::CERTIFICATE, b"junk");
        assert!(matches!(verdict(junk.as_bytes(), &key, &root), Err(IntermediateError::Malformed(_))));
    }
}
