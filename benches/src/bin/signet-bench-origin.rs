//! The upstream of a bench.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::{Parser, ValueEnum};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use signet_benches::listen;
use signet_benches::origin::{self, Identity, Offer};

/// Answer requests with as little work as possible
///
/// Plain HTTP/1.1, and HTTP/2 by its preface; with --cert over TLS, for clients with a certificate.
#[derive(Debug, Parser)]
struct Options {
    /// Address to listen on
    #[arg(default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// Certificate, leaf first
    #[arg(long, value_name = "PEM", requires_all = ["key", "roots"])]
    cert: Option<PathBuf>,
    #[arg(long, value_name = "PEM", requires = "cert")]
    key: Option<PathBuf>,
    /// Roots that clients must stand under
    #[arg(long, value_name = "PEM", requires = "cert")]
    roots: Option<PathBuf>,
    /// What TLS clients may choose
    #[arg(long, value_enum, default_value = "http2")]
    offer: OfferOption,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OfferOption {
    Http1,
    /// And HTTP/1.1
    Http2,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let offer = match options.offer {
        OfferOption::Http1 => Offer::Http1,
        OfferOption::Http2 => Offer::Http2AndHttp1,
    };
    let identity = options.identity()?;
    let tls = identity.map(|identity| origin::tls(identity, offer)).transpose().map_err(|error| anyhow!(error))?;
    listen::on_each_thread(options.listen, options.threads, async move |listener| {
        origin::serve(listener, tls.clone()).await
    })?;
    Ok(())
}

impl Options {
    fn identity(&self) -> anyhow::Result<Option<Identity>> {
        let (Some(cert), Some(key), Some(roots)) = (&self.cert, &self.key, &self.roots) else { return Ok(None) };
        let mut believed = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(roots).with_context(|| roots.display().to_string())? {
            believed.add(root?)?;
        }
        let chain = CertificateDer::pem_file_iter(cert).with_context(|| cert.display().to_string())?;
        Ok(Some(Identity {
            chain: chain.collect::<Result<_, _>>()?,
            key: PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?,
            roots: Arc::new(believed),
        }))
    }
}
