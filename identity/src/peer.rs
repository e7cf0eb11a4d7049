use std::{error::Error, fmt, io, sync::Arc};

use rustls::{CertificateError, OtherError};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::{
    AuthorityError, LeafError, Revoked, Serial, TrustDomain, WorkloadId,
    bundle::AnchorId,
    certificate::{ChainLimit, Validity},
    revocation::{KeySha256, Revocable},
    verify::Role,
};

/// A peer whose chain was verified: who it is and how long that can be believed.
pub struct PeerIdentity {
    pub(crate) id: WorkloadId,
    pub(crate) serial: Serial,
    pub(crate) leaf: Validity,
    /// When every certificate of the path, the anchor included, is valid.
    pub(crate) path: Validity,
    /// The end of the path.
    pub(crate) anchor: AnchorId,
    pub(crate) anchor_key: KeySha256,
    /// The certificates of the path without its end, leaf first.
    pub(crate) revocable: Vec<Revocable>,
    pub(crate) leaf_sha256: [u8; 32],
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) role: Role,
}

impl PeerIdentity {
    pub fn id(&self) -> &WorkloadId {
        &self.id
    }

    /// The leaf's serial number.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// The leaf's.
    pub fn not_before(&self) -> OffsetDateTime {
        self.leaf.not_before
    }

    /// The leaf's.
    pub fn not_after(&self) -> OffsetDateTime {
        self.leaf.not_after
    }

    /// The earliest notAfter of the verified path, its anchor included: the peer's connections end then.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.path.not_after
    }

    /// SHA-256 of the leaf's DER, as `x-forwarded-client-cert` wants it.
    pub fn leaf_sha256(&self) -> &[u8; 32] {
        &self.leaf_sha256
    }

    /// What the peer presented, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerIdentity")
            .field("id", &self.id)
            .field("serial", &self.serial)
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

/// Why a peer is refused. What a peer learns of it is one TLS alert.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PeerError {
    #[error("the peer presented no certificate")]
    NoCertificate,
    #[error("the peer presented more than 4 certificates")]
    TooManyCertificates,
    #[error("the peer's chain is too large: the limits are 8 KiB for a certificate and 16 KiB for all")]
    TooLarge,
    #[error("the peer's certificate is not an X.509-SVID: {0}")]
    Leaf(LeafError),
    #[error("no bundle is known for the peer's trust domain `{trust_domain}`")]
    UnknownTrustDomain { trust_domain: TrustDomain },
    #[error("the peer's chain expired at {not_after}")]
    Expired { not_after: OffsetDateTime },
    #[error("the peer's chain is not valid before {not_before}")]
    NotYetValid { not_before: OffsetDateTime },
    #[error("no authority of trust domain `{trust_domain}` vouches for the peer's certificate")]
    UntrustedAuthority { trust_domain: TrustDomain },
    #[error("an intermediate of the peer's chain may not vouch for it: {0}")]
    Authority(AuthorityError),
    #[error("the peer's chain is signed with an algorithm that is not accepted")]
    UnsupportedAlgorithm,
    #[error("the peer's chain breaks a rule of X.509: {0}")]
    Path(webpki::Error),
    #[error("the peer's chain is revoked: {0}")]
    Revoked(Revoked),
    #[error("the peer is `{id}`, which is none of the expected servers")]
    Unexpected { id: WorkloadId },
}

impl PeerError {
    /// A bounded label for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::TooManyCertificates => "too_many_certificates",
            Self::TooLarge => "too_large",
            Self::Leaf(error) => error.reason(),
            Self::UnknownTrustDomain { .. } => "unknown_trust_domain",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::UntrustedAuthority { .. } => "untrusted_authority",
            Self::Authority(AuthorityError::Foreign { .. }) => "foreign_authority",
            Self::Authority(_) => "malformed_authority",
            Self::UnsupportedAlgorithm => "unsupported_algorithm",
            Self::Path(_) => "path",
            Self::Revoked(_) => "revoked",
            Self::Unexpected { .. } => "unexpected_id",
        }
    }

    /// The refusal within a handshake's error, if it failed because of the peer's certificate.
    pub fn of(error: &rustls::Error) -> Option<&Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => cause.downcast_ref(),
            rustls::Error::NoCertificatesPresented => Some(&Self::NoCertificate),
            _ => None,
        }
    }

    /// The same for the I/O error in which tokio-rustls wraps it.
    pub fn of_io(error: &io::Error) -> Option<&Self> {
        Self::of(error.get_ref()?.downcast_ref()?)
    }

    pub(crate) fn into_rustls(self) -> rustls::Error {
        let cause: Arc<dyn Error + Send + Sync> = Arc::new(self);
        CertificateError::Other(OtherError(cause)).into()
    }
}

impl From<LeafError> for PeerError {
    fn from(error: LeafError) -> Self {
        Self::Leaf(error)
    }
}

impl From<Revoked> for PeerError {
    fn from(revoked: Revoked) -> Self {
        Self::Revoked(revoked)
    }
}

impl From<AuthorityError> for PeerError {
    fn from(error: AuthorityError) -> Self {
        Self::Authority(error)
    }
}

impl From<ChainLimit> for PeerError {
    fn from(limit: ChainLimit) -> Self {
        match limit {
            ChainLimit::Certificates => Self::TooManyCertificates,
            ChainLimit::Bytes => Self::TooLarge,
        }
    }
}
