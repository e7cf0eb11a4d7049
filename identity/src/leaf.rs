use x509_parser::{certificate::X509Certificate, public_key::PublicKey};

use crate::{
    Serial, SpiffeIdError, WorkloadId,
    certificate::{Malformed, Validity, parse, uris, validity},
    revocation::Revocable,
};

/// The longest part of a foreign name that an error repeats, in characters.
const QUOTED: usize = 128;

const MIN_RSA_BITS: usize = 2048;

/// A certificate that claims to be an X.509-SVID leaf. What it says is a claim until its path is verified.
#[derive(Debug)]
pub(crate) struct Leaf<'a>(X509Certificate<'a>);

/// Why a certificate is not an X.509-SVID leaf (X509-SVID §2 to §5).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LeafError {
    #[error("not a well-formed X.509 certificate")]
    Malformed,
    #[error("the certificate has no URI in its subject alternative names, so it carries no SPIFFE ID")]
    NoSpiffeId,
    #[error("the certificate has {count} URIs; an X.509-SVID has exactly one")]
    SeveralUris { count: usize },
    #[error("the certificate's URI {uri:?} is not a SPIFFE ID")]
    NotSpiffe { uri: String, source: SpiffeIdError },
    #[error("the certificate names a trust domain instead of a workload: its SPIFFE ID has no path")]
    RootPath,
    #[error("a CA certificate cannot be used as a workload's certificate")]
    CaAsLeaf,
    #[error("the certificate does not say explicitly that it is no CA (basicConstraints is absent)")]
    ImplicitlyNoCa,
    #[error("keyUsage must be present with digitalSignature, and without keyCertSign and cRLSign")]
    KeyUsage,
    #[error("extendedKeyUsage must hold both serverAuth and clientAuth, or be absent")]
    ExtendedKeyUsage,
    #[error("the certificate's RSA key has {bits} bits; at least 2048 are needed")]
    WeakKey { bits: usize },
}

impl<'a> Leaf<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, LeafError> {
        Ok(Self(parse(der)?))
    }

    /// The SPIFFE ID that the certificate claims: good for choosing the bundle that judges it, and for nothing else
    /// until that has happened.
    pub(crate) fn claimed_id(&self) -> Result<WorkloadId, LeafError> {
        // A CA's certificate names its trust domain: say what it is, rather than that its path is missing.
        if self.0.is_ca() {
            return Err(LeafError::CaAsLeaf);
        }
        let uri = match uris(&self.0)?[..] {
            [] => return Err(LeafError::NoSpiffeId),
            [uri] => uri,
            ref uris => return Err(LeafError::SeveralUris { count: uris.len() }),
        };
        uri.parse().map_err(|error| match error {
            SpiffeIdError::MissingPath { .. } => LeafError::RootPath,
            source => LeafError::NotSpiffe { uri: uri.chars().take(QUOTED).collect(), source },
        })
    }

    /// The rules that any verifier must enforce. An absent basicConstraints means "no CA" (RFC 5280 §4.2.1.9).
    pub(crate) fn check(&self) -> Result<(), LeafError> {
        let constraints = self.0.basic_constraints().map_err(|_| LeafError::Malformed)?;
        if constraints.is_some_and(|constraints| constraints.value.ca) {
            return Err(LeafError::CaAsLeaf);
        }
        let usage = self.0.key_usage().map_err(|_| LeafError::Malformed)?.ok_or(LeafError::KeyUsage)?.value;
        if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
            return Err(LeafError::KeyUsage);
        }
        let purposes = self.0.extended_key_usage().map_err(|_| LeafError::Malformed)?;
        if purposes.is_some_and(|purposes| !(purposes.value.server_auth && purposes.value.client_auth)) {
            return Err(LeafError::ExtendedKeyUsage);
        }
        match self.0.public_key().parsed() {
            Ok(PublicKey::RSA(key)) if key.key_size() < MIN_RSA_BITS => {
                Err(LeafError::WeakKey { bits: key.key_size() })
            }
            // Which other keys can sign a handshake is for the TLS provider to say.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The rules for a certificate of our own: what some verifiers insist on must be there.
    pub(crate) fn check_own(&self) -> Result<(), LeafError> {
        self.check()?;
        match self.0.basic_constraints() {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(_) => Err(LeafError::ImplicitlyNoCa),
        }
    }

    pub(crate) fn serial(&self) -> Serial {
        Serial::from_be_bytes(self.0.raw_serial())
    }

    pub(crate) fn validity(&self) -> Validity {
        validity(&self.0)
    }

    /// By what it may be revoked; `signer` is the key identifier of who signed it.
    pub(crate) fn revocable(&self, signer: Option<&[u8]>) -> Revocable {
        Revocable::of(&self.0, signer)
    }

    /// The SubjectPublicKeyInfo, DER.
    pub(crate) fn public_key(&self) -> &'a [u8] {
        self.0.tbs_certificate.subject_pki.raw
    }
}

impl LeafError {
    /// A bounded label for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoSpiffeId => "no_spiffe_id",
            Self::SeveralUris { .. } => "several_uris",
            Self::NotSpiffe { .. } => "not_spiffe",
            Self::RootPath => "root_path",
            Self::CaAsLeaf => "ca_as_leaf",
            Self::ImplicitlyNoCa => "implicitly_no_ca",
            Self::KeyUsage => "key_usage",
            Self::ExtendedKeyUsage => "extended_key_usage",
            Self::WeakKey { .. } => "weak_key",
        }
    }
}

impl From<Malformed> for LeafError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}
