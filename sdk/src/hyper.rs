//! mTLS for hyper clients: a connector, and a pooled client that never sends a request on a connection whose identity is
//! about to end.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri};
use hyper::{
    body::{Body, Incoming},
    rt,
};
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{ClientConfig, pki_types::ServerName};
use signet_identity::{ClientKey, LiveIdentity, PeerError, SharedClock};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client};
use tower_service::Service;

use crate::{
    MtlsStream,
    lifetime::Lifetime,
    renewed::{Generational, Retirement},
    wall_clock::written,
};

/// How long TCP and TLS may take together.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may stay in the pool unused.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Makes mTLS connections for hyper, hyper-util and tonic: a `tower` service from URI to connection. Each new connection
/// uses the newest snapshot. The server's identity is checked within the handshake and once more after it, so that a
/// resumed session passes the same check.
#[derive(Clone)]
pub struct MtlsConnector {
    live: LiveIdentity,
    key: ClientKey,
    clock: SharedClock,
    timeout: Duration,
    retirement: Option<Arc<Retirement>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URI has no host.
    #[error("`{uri}` names no host to connect to")]
    NoHost {
        /// What was asked for.
        uri: Uri,
    },
    /// Our own certificate is not valid now.
    #[error("our own certificate is not valid now (its end: {})", written(.not_after))]
    OwnIdentity {
        /// When it expired, or will.
        not_after: OffsetDateTime,
    },
    /// TCP did not come about.
    #[error("{address} cannot be reached")]
    Tcp {
        /// `host:port`
        address: String,
        /// Why.
        source: io::Error,
    },
    /// TLS did not come about.
    #[error("no TLS with {address}")]
    Tls {
        /// `host:port`
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The peer is not who was expected, or cannot be believed.
    #[error("{address} is not believed")]
    Peer {
        /// `host:port`
        address: String,
        /// Why.
        source: PeerError,
    },
    /// It took too long.
    #[error("{address} took longer than {} s to connect", .limit.as_secs_f64())]
    Timeout {
        /// `host:port`
        address: String,
        /// What was granted.
        limit: Duration,
    },
}

impl MtlsConnector {
    /// Connections under the policy that `key` stands for.
    pub fn new(live: LiveIdentity, key: ClientKey, clock: SharedClock) -> Self {
        Self { live, key, clock, timeout: TIMEOUT, retirement: None }
    }

    /// How long a connection may take to come about; 10 s unless told.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Tells `retirement` of each connection it makes.
    pub(crate) fn retiring(mut self, retirement: Arc<Retirement>) -> Self {
        self.retirement = Some(retirement);
        self
    }

    pub(crate) fn live(&self) -> &LiveIdentity {
        &self.live
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// A connection to the host and port of `uri` (port 443 if it has none).
    pub async fn connect(&self, uri: &Uri) -> Result<MtlsStream, ConnectError> {
        match tokio::time::timeout(self.timeout, self.handshake(uri)).await {
            Ok(connected) => connected,
            Err(_) => Err(ConnectError::Timeout { address: address_of(uri)?, limit: self.timeout }),
        }
    }

    async fn handshake(&self, uri: &Uri) -> Result<MtlsStream, ConnectError> {
        let snapshot = self.live.load_full();
        if !snapshot.svid().is_valid_at(self.clock.now()) {
            return Err(ConnectError::OwnIdentity { not_after: snapshot.svid().not_after() });
        }
        let tls = dial(uri, snapshot.client(self.key).clone()).await?;
        let (tcp, connection) = tls.get_ref();
        let address = address_of(uri)?;
        let remote = tcp.peer_addr().map_err(|source| ConnectError::Tcp { address: address.clone(), source })?;
        let peer = snapshot
            .peer_of_client_connection(self.key, connection.peer_certificates())
            .map_err(|source| ConnectError::Peer { address, source })?;
        let lifetime = Lifetime::new(self.live.clone(), &snapshot, Some(peer.clone()), self.clock.clone());
        if let Some(retirement) = &self.retirement {
            retirement.not_after(self.clock.now(), lifetime.expires_at());
        }
        Ok(MtlsStream::new(tls.into(), Some(peer), remote, lifetime))
    }
}

/// TCP and TLS to the host and port of `uri`.
pub(crate) async fn dial(uri: &Uri, tls: Arc<ClientConfig>) -> Result<client::TlsStream<TcpStream>, ConnectError> {
    let address = address_of(uri)?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::NoHost { uri: uri.clone() })?;
    let connected = async {
        let tcp = TcpStream::connect(&address).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    };
    let tcp = connected.await.map_err(|source| ConnectError::Tcp { address: address.clone(), source })?;
    TlsConnector::from(tls).connect(name, tcp).await.map_err(|source| match PeerError::of_io(&source) {
        Some(peer) => ConnectError::Peer { address, source: peer.clone() },
        None => ConnectError::Tls { address, source },
    })
}

fn address_of(uri: &Uri) -> Result<String, ConnectError> {
    let host = uri.host().ok_or_else(|| ConnectError::NoHost { uri: uri.clone() })?;
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(443)))
}

impl Service<Uri> for MtlsConnector {
    type Response = MtlsIo;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<MtlsIo, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(&uri).await.map(|stream| MtlsIo(TokioIo::new(stream))) })
    }
}

impl fmt::Debug for MtlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MtlsConnector").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// An [`MtlsStream`] as hyper wants it.
#[derive(Debug)]
pub struct MtlsIo(TokioIo<MtlsStream>);

impl MtlsIo {
    /// The stream.
    pub fn get_ref(&self) -> &MtlsStream {
        self.0.inner()
    }
}

impl Connection for MtlsIo {
    /// Responses carry the server's [`PeerIdentity`](signet_identity::PeerIdentity) in their extensions, as an `Arc`.
    fn connected(&self) -> Connected {
        let mut connected = Connected::new();
        if let Some(peer) = self.get_ref().peer() {
            connected = connected.extra(peer.clone());
        }
        match self.get_ref().alpn() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl rt::Read for MtlsIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: rt::ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl rt::Write for MtlsIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}

/// An HTTP client whose pool is of one snapshot: once there is a newer one, or a connection nears the end of its life,
/// new requests go to a new pool, and the old one ends with the requests that are under way.
///
/// Use `https://` URIs; HTTP/2 is spoken where the policy offers it and the server takes it.
pub struct MtlsClient<B> {
    pools: Arc<Generational<legacy::Client<MtlsConnector, B>>>,
}

impl<B> MtlsClient<B>
where
    B: Body + Send + 'static + Unpin,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A client that connects with `connector`.
    pub fn new(connector: MtlsConnector) -> Self {
        let (live, clock) = (connector.live().clone(), connector.clock().clone());
        let make = move |retirement| {
            legacy::Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .build(connector.clone().retiring(retirement))
        };
        Self { pools: Arc::new(Generational::new(live, clock, make)) }
    }

    /// Sends a request. The response's extensions hold the server's identity, an `Arc<PeerIdentity>`.
    pub async fn request(&self, request: Request<B>) -> Result<Response<Incoming>, legacy::Error> {
        let (_, pool) = self.pools.current();
        pool.request(request).await
    }
}

impl<B> Clone for MtlsClient<B> {
    fn clone(&self) -> Self {
        Self { pools: self.pools.clone() }
    }
}

impl<B> fmt::Debug for MtlsClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MtlsClient").finish_non_exhaustive()
    }
}
