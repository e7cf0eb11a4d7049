//! The web addresses of an issuer, taken at its start.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::until;
use crate::config;
use crate::web::{CertificateFilesError, Door, ServedCertificate, Server};

/// Listens already; nobody is answered yet.
pub(super) struct WebDoors {
    pub(super) addresses: WebAddresses,
    plain: TcpListener,
    tls: Option<(TcpListener, ServedCertificate)>,
    spiffe: Option<TcpListener>,
}

/// Where the issuer publishes; the ports are real where the configuration said 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WebAddresses {
    pub plain: SocketAddr,
    pub tls: Option<SocketAddr>,
    /// Nobody is answered there before [`Phase::Serving`](super::Phase::Serving).
    pub spiffe: Option<SocketAddr>,
}

/// Why the issuer has no web address.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    #[error("cannot listen on web address {address}\nset `{key}` to an address of this machine that is free")]
    Listen { key: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("the web address has no certificate")]
    Certificate(#[source] CertificateFilesError),
}

impl WebDoors {
    pub(super) fn open(web: &config::Web) -> Result<Self, WebError> {
        let (plain, plain_address) = listen("web.listen", web.listen)?;
        let tls = web.tls.as_ref().map(|tls| {
            let served = ServedCertificate::load(tls.files.clone()).map_err(WebError::Certificate)?;
            let (listener, address) = listen("web.tls.listen", tls.listen)?;
            Ok::<_, WebError>(((listener, served), address))
        });
        let (tls, tls_address) = tls.transpose()?.unzip();
        let spiffe = web.spiffe_listen.map(|address| listen("web.spiffe_listen", address));
        let (spiffe, spiffe_address) = spiffe.transpose()?.unzip();
        let addresses = WebAddresses { plain: plain_address, tls: tls_address, spiffe: spiffe_address };
        Ok(Self { addresses, plain, tls, spiffe })
    }

    /// Serves those that need no SVID. Returns the one that does.
    pub(super) fn serve(
        self,
        server: &Server,
        background: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) -> Option<TcpListener> {
        background.spawn(server.clone().serve(self.plain, Door::Plain, shutdown.clone()));
        if let Some((listener, certificate)) = self.tls {
            until(shutdown, background, certificate.clone().follow());
            background.spawn(server.clone().serve(listener, Door::Certificate(certificate), shutdown.clone()));
        }
        self.spiffe
    }
}

fn listen(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), WebError> {
    let listen = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, bound))
    };
    listen().map_err(|source| WebError::Listen { key, address, source })
}
