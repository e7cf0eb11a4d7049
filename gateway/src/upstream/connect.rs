//! How a connection to an upstream is made.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use signet_identity::{PeerError, PeerIdentity};
use tokio::net::TcpStream;

use super::{Surroundings, mtls};
use crate::config::{self, HostPort};
use crate::presented::Side;
use crate::tls::{self, TlsStream};

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

/// An mTLS connection whose server is who it must be.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) stream: Box<TlsStream>,
    /// What the handshake has settled; else HTTP/1.1.
    pub(super) is_http2: bool,
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
        let shaken = tls::connect(identity.client(pool.key()).clone(), name, tcp).await.map_err(tls_failure)?;
        let server = identity
            .peer_of_client_connection(pool.key(), shaken.peer_certificates())
            .map_err(ConnectFailure::Server)?;
        worker.presented.tell(&server, Side::Server);
        // Trust that changed meanwhile was judged without this connection.
        let current = worker.identity.load_full();
        if current.trust_epoch() != identity.trust_epoch() {
            current.still_accepts(&server).map_err(ConnectFailure::Server)?;
        }
        let lifetime = crate::lifetime::Lifetime::of_made(identity.svid().not_after(), server.expires_at(), now);
        let is_http2 = shaken.alpn_protocol() == Some(b"h2");
        let stream = Box::new(shaken.into_stream().map_err(tls_failure)?);
        Ok(Verified { stream, is_http2, server, lifetime })
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
