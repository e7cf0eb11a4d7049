//! TLS to a receiver: by the authorities of a file or of the system, with a certificate of one's own where it wants one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::args::AuditStreamOptions;
use crate::failure::Failure;

/// Files are read again for each connection: certificates are renewed.
pub(super) struct Tls {
    authorities: Option<PathBuf>,
    /// A chain and its key.
    own: Option<(PathBuf, PathBuf)>,
    alpn: Vec<Vec<u8>>,
}

impl Tls {
    pub(super) fn new(options: &AuditStreamOptions, alpn: &[&str]) -> Self {
        Self {
            authorities: options.ca_file.clone(),
            own: options.certificate.clone().zip(options.certificate_key.clone()),
            alpn: alpn.iter().map(|name| name.as_bytes().to_owned()).collect(),
        }
    }

    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, Failure> {
        let failed = |error: rustls::Error| Failure::from_error(&error);
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_root_certificates(self.roots()?);
        let mut config = match &self.own {
            Some((chain, key)) => {
                let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
                builder.with_client_auth_cert(certificates(chain)?, key_der).map_err(failed)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, Failure> {
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| unreadable(path, &error))?;
                }
            }
            // Some that cannot be read are no obstacle to the others.
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        match roots.is_empty() {
            true => Err(Failure::new("no authority is believed").remedy("give --ca-file")),
            false => Ok(roots),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read.map_err(|error| unreadable(path, &error))? {
        none if none.is_empty() => Err(Failure::new(format!("{}: there is no certificate in it", path.display()))),
        certificates => Ok(certificates),
    }
}

fn unreadable(path: &Path, cause: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("{}: {cause}", path.display()))
}
