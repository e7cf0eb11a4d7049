//! How a connection to an upstream is made.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls_pki_types::ServerName;
use signet_identity::{PeerError, PeerIdentity};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Surroundings, mtls};
use crate::config::{self, HostPort};

/// Why there is no connection. Cheap to clone: all who waited for it are told.
#[derive(Clone, Debug)]
pub(crate) enum ConnectFailure {
    /// Our own certificate has expired: nothing is claimed with it.
    OwnIdentity,
    /// There are as many connections as there may be, all of them in use.
    Full,
    Timeout(Duration),
    Unreachable(Arc<io::Error>),
    /// The server is not who it must be.
    Server(PeerError),
    /// It spoke no TLS or another one, or did not want us.
    Tls(Arc<io::Error>),
}

impl ConnectFailure {
    /// The value of `x-signet-reason`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::OwnIdentity => "own_identity",
            Self::Full => "upstream_connections",
            Self::Timeout(_) | Self::Unreachable(_) => "upstream_unreachable",
            Self::Server(_) => "upstream_identity",
            Self::Tls(_) => "upstream_tls",
        }
    }

    /// The `result` label of `signet_gateway_upstream_connects_total`.
    pub(crate) fn result(&self) -> &'static str {
        match self {
            Self::OwnIdentity => "own_identity",
            Self::Full => "full",
            Self::Timeout(_) => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Server(error) => error.reason(),
            Self::Tls(_) => "tls",
        }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnIdentity => f.write_str("this gateway's own identity has expired"),
            Self::Full => f.write_str("all connections that the upstream's `connections` allows are in use"),
            Self::Timeout(after) => write!(f, "no connection within {after:?}"),
            Self::Unreachable(cause) => write!(f, "unreachable: {cause}"),
            Self::Server(cause) => write!(f, "the server is not who it must be: {cause}"),
            Self::Tls(cause) => write!(f, "no TLS session: {cause}"),
        }
    }
}

impl std::error::Error for ConnectFailure {}

/// A connection to a plain or an mTLS upstream.
#[derive(Debug)]
pub(crate) enum Io {
    Plain(TcpStream),
    Mtls(Box<TlsStream<TcpStream>>),
}

/// An mTLS connection whose server is who it must be.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) stream: Box<TlsStream<TcpStream>>,
    pub(super) server: Arc<PeerIdentity>,
    pub(super) lifetime: crate::lifetime::Lifetime,
}

pub(super) async fn tcp(upstream: &config::Upstream) -> Result<TcpStream, ConnectFailure> {
    within(upstream.connect_timeout, tcp_to(&upstream.address)).await
}

/// Connects with the identity of this moment. The server's identity is checked within the handshake, before ours is shown.
pub(super) async fn mtls(
    upstream: &config::Upstream,
    pool: &mtls::Pool,
    worker: &Surroundings,
) -> Result<Verified, ConnectFailure> {
    within(upstream.connect_timeout, async {
        let tcp = tcp_to(&upstream.address).await?;
        let identity = worker.identity.load_full();
        let now = worker.clock.now();
        if !identity.svid().is_valid_at(now) {
            return Err(ConnectFailure::OwnIdentity);
        }
        let name = server_name(&upstream.address)?;
        let stream =
            TlsConnector::from(identity.client(pool.key()).clone()).connect(name, tcp).await.map_err(tls_failure)?;
        let server = identity
            .peer_of_client_connection(pool.key(), stream.get_ref().1.peer_certificates())
            .map_err(ConnectFailure::Server)?;
        // Trust that changed meanwhile was judged without this connection.
        let current = worker.identity.load_full();
        if current.trust_epoch() != identity.trust_epoch() {
            current.still_accepts(&server).map_err(ConnectFailure::Server)?;
        }
        let lifetime = crate::lifetime::Lifetime::of_made(identity.svid().not_after(), server.expires_at(), now);
        Ok(Verified { stream: Box::new(stream), server, lifetime })
    })
    .await
}

async fn within<T>(
    span: Duration,
    connecting: impl Future<Output = Result<T, ConnectFailure>>,
) -> Result<T, ConnectFailure> {
    tokio::time::timeout(span, connecting).await.unwrap_or(Err(ConnectFailure::Timeout(span)))
}

async fn tcp_to(address: &HostPort) -> Result<TcpStream, ConnectFailure> {
    let unreachable = |cause| ConnectFailure::Unreachable(Arc::new(cause));
    let tcp = match address.host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect(SocketAddr::new(ip, address.port)).await,
        // Names are looked up at each connection: their addresses may have changed.
        Err(_) => TcpStream::connect((&*address.host, address.port)).await,
    };
    let tcp = tcp.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    Ok(tcp)
}

/// The name for SNI; who the server is, its SPIFFE ID says.
fn server_name(address: &HostPort) -> Result<ServerName<'static>, ConnectFailure> {
    let invalid = |_| ConnectFailure::Unreachable(Arc::new(io::ErrorKind::InvalidInput.into()));
    ServerName::try_from(address.host.to_string()).map_err(invalid)
}

fn tls_failure(cause: io::Error) -> ConnectFailure {
    match PeerError::of_io(&cause) {
        Some(error) => ConnectFailure::Server(error.clone()),
        None => ConnectFailure::Tls(Arc::new(cause)),
    }
}

/// rustls explains an end without close_notify by the address of its manual, which is not for a log.
fn without_manual(cause: io::Error) -> io::Error {
    if cause.kind() == io::ErrorKind::UnexpectedEof {
        return io::Error::new(cause.kind(), "the peer closed the connection without TLS close_notify");
    }
    cause
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Mtls(stream) => Pin::new(stream).poll_read(cx, buf).map_err(without_manual),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Mtls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Mtls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Mtls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Mtls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Mtls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read as _;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    #[test]
    fn an_end_without_close_notify_is_told_without_an_address() {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let name = ServerName::try_from("a").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        assert_eq!(connection.read_tls(&mut io::empty()).unwrap(), 0);
        let cause = connection.reader().read(&mut [0]).unwrap_err();
        assert!(cause.to_string().contains("https://"), "{cause}");
        let told = without_manual(cause).to_string();
        assert_eq!(told, "the peer closed the connection without TLS close_notify");
    }

    #[test]
    fn another_error_is_told_as_it_is() {
        let told = without_manual(io::Error::from(io::ErrorKind::ConnectionReset)).to_string();
        assert_eq!(told, io::Error::from(io::ErrorKind::ConnectionReset).to_string());
    }
}
