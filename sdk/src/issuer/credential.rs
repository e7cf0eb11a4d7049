//! What a program shows an issuer to prove who it is, before it has an SVID.

use std::{fmt, io, os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{SignatureScheme, crypto::aws_lc_rs::sign::any_supported_type, sign::SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use signet_proto::identity::v1::{KubernetesToken, OidcToken, X509Possession, attest_request::Proof};
use tokio::io::AsyncReadExt as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::token::{self, JoinToken};

/// How often files are looked at for something new.
const LOOK: Duration = Duration::from_millis(500);

/// How a program proves who it is. Files are read at each attempt, so that what replaces them takes effect without a
/// restart.
pub enum Credential {
    /// A join token, for the SPIFFE ID that it was made for.
    JoinToken(JoinToken),
    /// A pod's projected service-account token. The policy says what such a pod may be.
    KubernetesToken {
        /// As the issuer's configuration names it; may be empty where the issuer knows one cluster only.
        cluster: String,
        /// The file that the kubelet keeps up to date.
        token: PathBuf,
    },
    /// An ID token of an OpenID Connect provider.
    Oidc {
        /// As the issuer's configuration names it; may be empty where the issuer knows one provider only.
        provider: String,
        /// A file with the token.
        token: PathBuf,
    },
    /// A certificate of a CA that the issuer knows, and its key, which signs a challenge.
    X509 {
        /// PEM, leaf first.
        certificate: PathBuf,
        /// PEM: PKCS#8, PKCS#1 or SEC1.
        key: PathBuf,
    },
}

impl From<JoinToken> for Credential {
    fn from(token: JoinToken) -> Self {
        Self::JoinToken(token)
    }
}

/// One state of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Version {
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

/// What is ready to be shown.
pub(super) enum Shown {
    Proof(Proof),
    /// It needs a challenge first.
    Key(KeyAndChain),
}

/// A key that a CA has certified.
pub(super) struct KeyAndChain {
    chain: Vec<Vec<u8>>,
    key: Arc<dyn SigningKey>,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialError {
    #[error(transparent)]
    Token(#[from] token::TokenError),
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} does not hold PEM certificates", path.display())]
    Certificate { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("{} does not hold a private key in PEM", path.display())]
    Key { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("the key in {} is of no type that can sign", path.display())]
    KeyType { path: PathBuf, source: rustls::Error },
    #[error("the key cannot sign")]
    Sign(#[source] rustls::Error),
    #[error("the key makes no kind of signature that issuers accept")]
    Scheme,
}

impl Credential {
    pub(super) async fn read(&self) -> Result<Shown, CredentialError> {
        Ok(match self {
            Self::JoinToken(token) => Shown::Proof(Proof::JoinToken(token.read().await?.to_string())),
            Self::KubernetesToken { cluster, token } => {
                let token = token::read_file(token).await?.to_string();
                Shown::Proof(Proof::K8sSaToken(KubernetesToken { cluster: cluster.clone(), token }))
            }
            Self::Oidc { provider, token } => {
                let token = token::read_file(token).await?.to_string();
                Shown::Proof(Proof::Oidc(OidcToken { provider: provider.clone(), token }))
            }
            Self::X509 { certificate, key } => Shown::Key(KeyAndChain::read(certificate, key).await?),
        })
    }

    /// What tells the file as it is from what is written to it later. None for no file, and for a token in memory.
    pub(super) async fn version(&self) -> Option<Version> {
        let file = tokio::fs::metadata(self.file()?).await.ok()?;
        Some(Version { inode: file.ino(), bytes: file.len(), changed: (file.ctime(), file.ctime_nsec()) })
    }

    /// Returns once there is a file that is another than `shown`; never for a token in memory.
    pub(super) async fn another_than(&self, shown: Option<Version>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.version().await;
            if now.is_some() && now != shown {
                return;
            }
        }
    }

    /// What to do when the issuer does not take it, where that is known.
    pub(super) fn advice(&self) -> Option<String> {
        match self {
            Self::JoinToken(token) => {
                Some(format!("make a new join token with `signet token create` and {}", token.advice()))
            }
            Self::KubernetesToken { .. } | Self::Oidc { .. } | Self::X509 { .. } => None,
        }
    }

    fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::JoinToken(JoinToken::File(path)) => Some(path),
            Self::JoinToken(JoinToken::Value(_)) => None,
            Self::KubernetesToken { token, .. } | Self::Oidc { token, .. } => Some(token),
            Self::X509 { certificate, .. } => Some(certificate),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JoinToken(token) => token.fmt(f),
            Self::KubernetesToken { cluster, token } => {
                f.debug_struct("KubernetesToken").field("cluster", cluster).field("token", token).finish()
            }
            Self::Oidc { provider, token } => {
                f.debug_struct("Oidc").field("provider", provider).field("token", token).finish()
            }
            Self::X509 { certificate, key } => {
                f.debug_struct("X509").field("certificate", certificate).field("key", key).finish()
            }
        }
    }
}

impl KeyAndChain {
    async fn read(certificate: &PathBuf, key: &PathBuf) -> Result<Self, CredentialError> {
        let pem = read_pem(certificate).await?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.map_err(|source| CredentialError::Certificate { path: certificate.clone(), source })?;
        let pem = read_pem(key).await?;
        let der = PrivateKeyDer::from_pem_slice(&pem);
        let mut der = der.map_err(|source| CredentialError::Key { path: key.clone(), source })?;
        let signing = any_supported_type(&der);
        der.zeroize();
        let signing = signing.map_err(|source| CredentialError::KeyType { path: key.clone(), source })?;
        Ok(Self { chain: chain.iter().map(|der| der.to_vec()).collect(), key: signing })
    }

    /// The proof for one challenge and one request.
    pub(super) fn prove(self, challenge: Vec<u8>, csr: &[u8]) -> Result<Proof, CredentialError> {
        let signer = self.key.choose_scheme(SCHEMES).ok_or(CredentialError::Scheme)?;
        // As `X509Possession.signature` says.
        let mut signed = vec![0x20; 64];
        signed.extend_from_slice(b"signet x509_pop v1\0");
        signed.extend_from_slice(digest(&SHA256, &challenge).as_ref());
        signed.extend_from_slice(digest(&SHA256, csr).as_ref());
        let signature = signer.sign(&signed).map_err(CredentialError::Sign)?;
        let scheme = u32::from(u16::from(signer.scheme()));
        Ok(Proof::X509Pop(X509Possession { chain: self.chain, challenge, scheme, signature }))
    }
}

/// A small file, whole, wiped when it is dropped. It may be a private key.
async fn read_pem(path: &PathBuf) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    let unreadable = |source| CredentialError::Unreadable { path: path.clone(), source };
    // Does not grow, which would leave copies behind.
    let mut pem = Zeroizing::new(Vec::with_capacity(MAX_PEM as usize + 1));
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    file.take(MAX_PEM + 1).read_to_end(&mut pem).await.map_err(unreadable)?;
    if pem.len() as u64 > MAX_PEM {
        let text = format!("it is larger than {} KiB", MAX_PEM / 1024);
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, text)));
    }
    Ok(pem)
}

/// More than a chain of certificates, or a key, needs.
const MAX_PEM: u64 = 64 << 10;
/// What an issuer accepts.
const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];
