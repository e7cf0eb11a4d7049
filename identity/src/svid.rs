use std::{fmt, sync::Arc};

use rustls::{crypto::aws_lc_rs::sign::any_supported_type, sign::CertifiedKey};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer,
    pem::{self, PemObject},
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    AuthorityError, LeafError, Serial, WorkloadId, authority,
    certificate::{ChainLimit, Validity, check_limits, parse, validity},
    leaf::Leaf,
    renewal::renew_at,
};

/// The longest PEM text of a chain or a key that is looked at.
const MAX_PEM_BYTES: usize = 64 * 1024;

/// An X.509-SVID of our own: a chain, leaf first, and the key of its leaf. Cheap to clone; clones share the key, whose
/// memory is wiped with the last of them.
///
/// The rules for leaves hold (X509-SVID §2 to §4) and the key belongs to the leaf; that the chain leads to a trusted
/// authority is for [`Snapshot::build`](crate::Snapshot::build) to find.
#[derive(Clone)]
pub struct X509Svid(Arc<Svid>);

struct Svid {
    id: WorkloadId,
    serial: Serial,
    validity: Validity,
    renew_at: OffsetDateTime,
    certified: Arc<CertifiedKey>,
}

/// Why a chain and a key are not an X.509-SVID.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    #[error("there is no certificate")]
    NoCertificate,
    #[error("the chain has more than 4 certificates")]
    TooManyCertificates,
    #[error("the chain is too large: the limits are 8 KiB for a certificate and 16 KiB for all")]
    TooLarge,
    #[error("the first certificate is not an X.509-SVID")]
    Leaf(#[from] LeafError),
    #[error("certificate {position} of the chain is not an authority's")]
    Authority { position: usize, source: AuthorityError },
    #[error("there is no private key; PKCS#8, SEC 1 and PKCS#1 are understood, unencrypted")]
    NoKey,
    #[error("there are several private keys")]
    SeveralKeys,
    #[error("the private key is of no supported kind: use ECDSA P-256 or P-384, Ed25519, or RSA from 2048 bits")]
    UnsupportedKey,
    #[error("the private key does not belong to the first certificate")]
    KeyMismatch,
    #[error("damaged PEM in the certificates")]
    ChainPem(#[source] pem::Error),
    /// Without the cause, which could repeat a part of the key.
    #[error("damaged PEM in the private key")]
    KeyPem,
    #[error("the certificates are never valid together")]
    NeverValid,
}

impl X509Svid {
    /// From a chain, leaf first, and the leaf's key, which is wiped: rustls has its own copy, and aws-lc wipes that.
    pub fn from_der(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, SvidError> {
        Self::new(chain, &Zeroizing::new(key))
    }

    /// From PEM: the certificates in order, leaf first, and exactly one unencrypted key. Either text may hold other
    /// blocks beside them, so one file can hold both.
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, SvidError> {
        if chain_pem.len() > MAX_PEM_BYTES || key_pem.len() > MAX_PEM_BYTES {
            return Err(SvidError::TooLarge);
        }
        let chain = CertificateDer::pem_slice_iter(chain_pem).collect::<Result<_, _>>().map_err(SvidError::ChainPem)?;
        Self::new(chain, &*only_key(key_pem)?)
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Result<Self, SvidError> {
        let key = any_supported_type(key).map_err(|_| SvidError::UnsupportedKey)?;
        check_limits(chain.iter())?;
        let (first, authorities) = chain.split_first().ok_or(SvidError::NoCertificate)?;
        let leaf = Leaf::parse(first)?;
        let id = leaf.claimed_id()?;
        leaf.check_own()?;
        if key.public_key() != Some(SubjectPublicKeyInfoDer::from(leaf.public_key())) {
            return Err(SvidError::KeyMismatch);
        }
        let mut whole = leaf.validity();
        for (index, der) in authorities.iter().enumerate() {
            let at = |source| SvidError::Authority { position: index + 2, source };
            let certificate = parse(der).map_err(|malformed| at(malformed.into()))?;
            authority::check(&certificate, id.trust_domain()).map_err(at)?;
            whole = whole.intersection(validity(&certificate));
        }
        if whole.not_before > whole.not_after {
            return Err(SvidError::NeverValid);
        }
        let (serial, not_before) = (leaf.serial(), leaf.validity().not_before);
        let validity = Validity { not_before, not_after: whole.not_after };
        let renew_at = renew_at(leaf.public_key(), validity);
        let certified = Arc::new(CertifiedKey::new(chain, key));
        Ok(Self(Arc::new(Svid { id, serial, validity, renew_at, certified })))
    }

    pub fn id(&self) -> &WorkloadId {
        &self.0.id
    }

    /// Leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.certified.cert
    }

    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain()[0]
    }

    /// Those above the leaf, the one that signed it first: with other ones, another authority vouches for us.
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.chain()[1..]
    }

    /// The leaf's.
    pub fn serial(&self) -> &Serial {
        &self.0.serial
    }

    /// The leaf's.
    pub fn not_before(&self) -> OffsetDateTime {
        self.0.validity.not_before
    }

    /// The earliest end in the chain: from then on peers refuse it.
    pub fn not_after(&self) -> OffsetDateTime {
        self.0.validity.not_after
    }

    pub fn is_valid_at(&self, now: OffsetDateTime) -> bool {
        self.0.validity.contains(now)
    }

    /// When to ask for the next one: between 40 and 60 % of its life, always the same for this certificate.
    pub fn renew_at(&self) -> OffsetDateTime {
        self.0.renew_at
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.0.certified
    }
}

/// Shows no key.
impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("id", self.id())
            .field("serial", self.serial())
            .field("not_before", &self.not_before())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

impl From<ChainLimit> for SvidError {
    fn from(limit: ChainLimit) -> Self {
        match limit {
            ChainLimit::Certificates => Self::TooManyCertificates,
            ChainLimit::Bytes => Self::TooLarge,
        }
    }
}

fn only_key(pem: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, SvidError> {
    let mut keys = PrivateKeyDer::pem_slice_iter(pem).map(|key| key.map(Zeroizing::new));
    let first = keys.next().ok_or(SvidError::NoKey)?.map_err(|_| SvidError::KeyPem)?;
    match keys.next() {
        None => Ok(first),
        Some(Ok(_)) => Err(SvidError::SeveralKeys),
        Some(Err(_)) => Err(SvidError::KeyPem),
    }
}

#[cfg(test)]
mod tests;
