use std::{collections::BTreeMap, fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{
    CertificateDer, TrustAnchor,
    pem::{self, PemObject},
};
use time::OffsetDateTime;
use webpki::anchor_from_trusted_cert;

use crate::{
    AuthorityError, TrustDomain, authority,
    certificate::{Validity, parse, validity},
    revocation::{KeySha256, key_id},
};

const MAX_AUTHORITIES: usize = 64;
const MAX_BYTES: usize = 1024 * 1024;

/// The CA certificates that one trust domain trusts. Cheap to clone.
///
/// Empty is legal and trusts nothing. Order and repetition carry no meaning: two bundles with the same certificates are
/// equal.
#[derive(Clone, Eq, PartialEq)]
pub struct TrustBundle(Arc<Bundle>);

/// At most one bundle for each trust domain. They are never pooled: a peer's trust domain selects the one bundle that
/// judges it. Cheap to clone.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct BundleSet(Arc<BTreeMap<TrustDomain, TrustBundle>>);

struct Bundle {
    trust_domain: TrustDomain,
    /// The authority that lives longest first, so that of two certificates for one key the longer lived ends the path.
    certificates: Vec<CertificateDer<'static>>,
    /// One for each certificate, in the same order.
    anchors: Vec<TrustAnchor<'static>>,
    facts: Vec<AnchorFacts>,
}

/// What rustls-webpki does not know of its anchors.
#[derive(Clone, Debug)]
pub(crate) struct AnchorFacts {
    pub(crate) id: AnchorId,
    pub(crate) key: KeySha256,
    /// The subject key identifier.
    pub(crate) key_id: Option<Box<[u8]>>,
    pub(crate) validity: Validity,
    pub(crate) path_length: Option<u32>,
}

/// SHA-256 of an authority's certificate, to find the very same one in another bundle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct AnchorId([u8; 32]);

/// Why certificates are not a bundle. Positions count from 1.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("certificate {position} cannot be an authority of the bundle")]
    Authority { position: usize, source: AuthorityError },
    #[error("the bundle has {count} different certificates; the limit is 64")]
    TooMany { count: usize },
    #[error("the bundle is larger than 1 MiB")]
    TooLarge,
    #[error("damaged PEM")]
    Pem(#[source] pem::Error),
    #[error("the text holds no certificate; an empty bundle is an empty text")]
    NoCertificate,
}

impl TrustBundle {
    /// From CA certificates of `trust_domain`, at most 64 different ones.
    pub fn new(trust_domain: TrustDomain, authorities: Vec<CertificateDer<'static>>) -> Result<Self, BundleError> {
        if authorities.iter().map(|der| der.len()).sum::<usize>() > MAX_BYTES {
            return Err(BundleError::TooLarge);
        }
        let mut members = BTreeMap::new();
        for (index, der) in authorities.iter().enumerate() {
            if members.contains_key(&der[..]) {
                continue;
            }
            let at = |source| BundleError::Authority { position: index + 1, source };
            members.insert(&der[..], (read(der, &trust_domain).map_err(at)?, der));
        }
        if members.len() > MAX_AUTHORITIES {
            return Err(BundleError::TooMany { count: members.len() });
        }
        // The map has them in the order of their DER; the sort is stable.
        let mut members: Vec<_> = members.into_values().collect();
        members.sort_by_key(|((facts, _), _)| std::cmp::Reverse(facts.validity.not_after));
        let (read, certificates): (Vec<_>, Vec<_>) = members.into_iter().map(|(read, der)| (read, der.clone())).unzip();
        let (facts, anchors) = read.into_iter().unzip();
        Ok(Self(Arc::new(Bundle { trust_domain, certificates, anchors, facts })))
    }

    /// From PEM; blocks that are not certificates are ignored. Blank text is the empty bundle.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        if pem.len() > MAX_BYTES {
            return Err(BundleError::TooLarge);
        }
        let authorities =
            CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(BundleError::Pem)?;
        if authorities.is_empty() && !pem.trim_ascii().is_empty() {
            return Err(BundleError::NoCertificate);
        }
        Self::new(trust_domain, authorities)
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// The CA certificates; the one that lives longest first.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.0.certificates
    }

    pub fn is_empty(&self) -> bool {
        self.0.certificates.is_empty()
    }

    pub fn to_pem(&self) -> String {
        let config = ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF);
        let block = |der: &CertificateDer<'_>| ::pem::encode_config(&::pem::Pem::new("CERTIFICATE", &der[..]), config);
        self.authorities().iter().map(block).collect()
    }

    /// The latest notAfter: when nothing is left to trust. `None` when the bundle is empty.
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        self.0.facts.first().map(|facts| facts.validity.not_after)
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.0.anchors
    }

    /// Of the anchors, in their order.
    pub(crate) fn facts(&self) -> &[AnchorFacts] {
        &self.0.facts
    }

    /// The anchor that is this very certificate.
    pub(crate) fn find(&self, anchor: AnchorId) -> Option<&AnchorFacts> {
        self.facts().iter().find(|facts| facts.id == anchor)
    }
}

fn read(
    der: &CertificateDer<'_>,
    trust_domain: &TrustDomain,
) -> Result<(AnchorFacts, TrustAnchor<'static>), AuthorityError> {
    let certificate = parse(der)?;
    authority::check(&certificate, trust_domain)?;
    let anchor = anchor_from_trusted_cert(der).map_err(|_| AuthorityError::Malformed)?.to_owned();
    let facts = AnchorFacts {
        id: AnchorId::of(der),
        key: KeySha256::of(certificate.tbs_certificate.subject_pki.raw),
        key_id: key_id(&certificate).map(Into::into),
        validity: validity(&certificate),
        path_length: authority::path_length(&certificate),
    };
    Ok((facts, anchor))
}

impl AnchorId {
    fn of(der: &CertificateDer<'_>) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(id)
    }
}

impl Eq for Bundle {}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        // Anchors and facts follow from the certificates.
        self.trust_domain == other.trust_domain && self.certificates == other.certificates
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("trust_domain", self.trust_domain())
            .field("authorities", &self.authorities().len())
            .field("expires_at", &self.expires_at())
            .finish()
    }
}

impl BundleSet {
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&TrustBundle> {
        self.0.get(trust_domain)
    }

    /// In the order of the trust domains' names.
    pub fn iter(&self) -> impl Iterator<Item = &TrustBundle> {
        self.0.values()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Of two bundles for one trust domain the later replaces the earlier.
impl FromIterator<TrustBundle> for BundleSet {
    fn from_iter<I: IntoIterator<Item = TrustBundle>>(bundles: I) -> Self {
        Self(Arc::new(bundles.into_iter().map(|bundle| (bundle.trust_domain().clone(), bundle)).collect()))
    }
}

impl fmt::Debug for BundleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
