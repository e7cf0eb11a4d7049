//! What an issuer answers, held against limits before anything of it is parsed. Whether it fits together is the
//! snapshot's business.

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use signet_identity::{
    BundleError, BundleSet, Material, RevocationSet, SpiffeIdError, SvidError, TrustBundle, X509Svid,
};
use signet_proto::identity::v1;

use super::logged::NotLogged;

/// One message, encoded. 64 bundles of a few authorities each are 200 KiB.
pub(super) const MAX_MESSAGE_BYTES: usize = 1 << 20;
const MAX_CHAIN: usize = 8;
const MAX_VERSION: usize = 64;
const MAX_BUNDLES: usize = 64;
const MAX_AUTHORITIES: usize = 64;
const MAX_CERTIFICATE_BYTES: usize = 16 << 10;

/// Why an answer is unusable.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("the issuer's answer lacks its {0}")]
    Missing(&'static str),
    #[error("the issuer's answer holds {count} {what}, more than {limit}")]
    TooMany { what: &'static str, count: usize, limit: usize },
    #[error("the issuer's answer says {said} and certifies {certified}")]
    Contradiction { said: String, certified: String },
    #[error("the issuer's answer holds two bundles of {trust_domain}")]
    BundleTwice { trust_domain: String },
    #[error("the issuer's certificate is unusable")]
    Svid(#[from] SvidError),
    #[error("the issuer's bundle of {trust_domain} is unusable")]
    Bundle { trust_domain: String, source: BundleError },
    #[error(transparent)]
    NotLogged(#[from] NotLogged),
    #[error("the issuer's bundle has a bad name")]
    TrustDomain(#[from] SpiffeIdError),
}

/// What an issuer gave, and what tells it from others.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) material: Material,
    pub(super) versions: Versions,
}

/// Of what is in force here. Empty where that is not known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Versions {
    pub(super) bundles: Vec<u8>,
    pub(super) entitlement: Vec<u8>,
}

/// An SVID for our `key`, with the bundles that came along.
pub(super) fn answered(
    svid: Option<v1::X509Svid>,
    bundles: Option<v1::TrustBundles>,
    key: PrivateKeyDer<'static>,
) -> Result<Answered, AnswerError> {
    let versions = Versions {
        bundles: version(bundles.as_ref().map(|bundles| bundles.version.clone())),
        entitlement: version(svid.as_ref().map(|svid| svid.entitlement_version.clone())),
    };
    let svid = svid.ok_or(AnswerError::Missing("certificate"))?;
    let bundles = bundles.ok_or(AnswerError::Missing("trust bundles"))?;
    let said = svid.spiffe_id;
    let svid = X509Svid::from_der(certificates(svid.chain, "certificates of a chain", MAX_CHAIN)?, key)?;
    if said != svid.id().as_str() {
        // What a peer sends may be long; who reads this needs its beginning.
        let said = said.chars().take(128).collect();
        return Err(AnswerError::Contradiction { said, certified: svid.id().to_string() });
    }
    Ok(Answered {
        material: Material { svid, bundles: bundle_set(bundles)?, revocations: RevocationSet::default() },
        versions,
    })
}

/// One that is too long to be kept is none.
pub(super) fn version(bytes: Option<Vec<u8>>) -> Vec<u8> {
    bytes.filter(|bytes| bytes.len() <= MAX_VERSION).unwrap_or_default()
}

/// The full set of bundles.
pub(super) fn bundle_set(bundles: v1::TrustBundles) -> Result<BundleSet, AnswerError> {
    limit("trust bundles", bundles.bundles.len(), MAX_BUNDLES)?;
    let mut parsed: Vec<TrustBundle> = Vec::with_capacity(bundles.bundles.len());
    for bundle in bundles.bundles {
        let trust_domain = bundle.trust_domain;
        let authorities = certificates(bundle.x509_authorities, "authorities of a bundle", MAX_AUTHORITIES)?;
        let name = trust_domain.parse()?;
        if parsed.iter().any(|known| *known.trust_domain() == name) {
            return Err(AnswerError::BundleTwice { trust_domain });
        }
        let bundle = TrustBundle::new(name, authorities);
        parsed.push(bundle.map_err(|source| AnswerError::Bundle { trust_domain, source })?);
    }
    Ok(parsed.into_iter().collect())
}

fn certificates(
    ders: Vec<impl Into<Vec<u8>>>,
    what: &'static str,
    most: usize,
) -> Result<Vec<CertificateDer<'static>>, AnswerError> {
    limit(what, ders.len(), most)?;
    ders.into_iter()
        .map(|der| {
            let der = der.into();
            limit("bytes in a certificate", der.len(), MAX_CERTIFICATE_BYTES)?;
            Ok(der.into())
        })
        .collect()
}

fn limit(what: &'static str, count: usize, limit: usize) -> Result<(), AnswerError> {
    if count <= limit { Ok(()) } else { Err(AnswerError::TooMany { what, count, limit }) }
}
