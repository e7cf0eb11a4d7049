//! The certificate of a listener that browsers and clouds believe: two files that somebody else renews.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::complaint::Complaint;
use crate::{pem_files, secret_file};

/// Where a certificate and its key are, PEM.
#[derive(Clone, Debug)]
pub(crate) struct CertificateFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Why two files are no certificate and its key.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFilesError {
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} holds no certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} holds no private key", path.display())]
    NoKey { path: PathBuf },
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    Pair { key: PathBuf, certificate: PathBuf, source: rustls::Error },
}

const MAX_KEY: usize = 16 << 10;
/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

impl CertificateFiles {
    pub(crate) fn load(&self) -> Result<Arc<ServerConfig>, CertificateFilesError> {
        let Self { certificate, key } = self;
        let read = |path: &PathBuf, source| CertificateFilesError::Read { path: path.clone(), source };
        let pem = pem_files::read(certificate).map_err(|source| read(certificate, source))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| CertificateFilesError::NoCertificate { path: certificate.clone() })?;
        let text = secret_file::read(key, MAX_KEY).map_err(|source| read(key, source))?;
        let secret = PrivateKeyDer::from_pem_slice(text.as_bytes());
        let secret = secret.map_err(|_| CertificateFilesError::NoKey { path: key.clone() })?;
        // Whoever fetches keys or bundles may know no TLS 1.3.
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let config = builder
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret));
        let mut config = config.map_err(|source| CertificateFilesError::Pair {
            key: key.clone(),
            certificate: certificate.clone(),
            source,
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The certificate that is served now. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ServedCertificate {
    files: CertificateFiles,
    current: Arc<ArcSwap<ServerConfig>>,
}

impl ServedCertificate {
    pub(crate) fn load(files: CertificateFiles) -> Result<Self, CertificateFilesError> {
        let current = Arc::new(ArcSwap::new(files.load()?));
        Ok(Self { files, current })
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Takes up what is in the files, until cancelled. What is no good leaves what is served.
    pub(crate) async fn follow(self) {
        let mut complaint = Complaint::default();
        let mut seen = self.seen().await;
        loop {
            tokio::time::sleep(LOOK).await;
            let found = self.seen().await;
            if found == seen {
                continue;
            }
            let files = self.files.clone();
            let loading = tokio::task::spawn_blocking(move || files.load()).await;
            match loading {
                Ok(Ok(config)) => {
                    self.current.store(config);
                    // Of what is written meanwhile, the next look tells.
                    seen = found;
                    complaint.clear();
                    tracing::info!(certificate = %self.files.certificate.display(), "web certificate taken up");
                }
                Ok(Err(error)) => {
                    if let Some(cause) = complaint.of(&error) {
                        tracing::warn!(cause, "web certificate not taken; the last good one stays");
                    }
                }
                Err(error) => tracing::error!(%error, "reading the web certificate broke off"),
            }
        }
    }

    /// What tells one state of the files from another.
    async fn seen(&self) -> [Option<(u64, u64, i64, i64)>; 2] {
        use std::os::unix::fs::MetadataExt as _;
        let paths = [self.files.certificate.clone(), self.files.key.clone()];
        let look = |path: PathBuf| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
        };
        // Nobody panics there.
        tokio::task::spawn_blocking(move || paths.map(look)).await.unwrap_or_default()
    }
}
