//! Servers over mTLS: a listener whose connections have a known peer and end in time, for tonic and for hyper.

mod serve;

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::Stream;
use signet_identity::{LiveIdentity, PeerError, PeerIdentity, ServerKey, SharedClock};
use time::OffsetDateTime;
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    task::JoinSet,
    time::Sleep,
};
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::Connected;

use crate::{MtlsStream, cause, lifetime::Lifetime, wall_clock::written};

pub use self::serve::serve;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const CONCURRENT_HANDSHAKES: usize = 256;
/// How long nothing is accepted after accepting failed: what is missing (file descriptors, memory) is missing for all.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts TCP connections and yields those whose peer has proved itself. Each handshake uses the newest snapshot. A
/// handshake that fails is logged with the peer's address and goes by; neither it nor a failing `accept` ends the stream.
///
/// As a [`Stream`] it goes into tonic's `serve_with_incoming`; with [`accept`](Self::accept) into anything else.
pub struct MtlsListener {
    tcp: TcpListener,
    handshake: Arc<Handshake>,
    concurrent: usize,
    under_way: JoinSet<Result<MtlsStream, Failed>>,
    pause: Option<Pin<Box<Sleep>>>,
    /// Why accepting failed last: told once, not at each attempt.
    failure: Option<io::ErrorKind>,
}

/// What all handshakes of one listener share.
struct Handshake {
    live: LiveIdentity,
    key: ServerKey,
    clock: SharedClock,
    timeout: Duration,
}

/// A handshake without a connection.
#[derive(Debug)]
struct Failed {
    remote_address: SocketAddr,
    error: HandshakeError,
}

#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("our own certificate is not valid now (its end: {})", written(.not_after))]
    OwnIdentity { not_after: OffsetDateTime },
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("peer is not believed")]
    Peer(#[from] PeerError),
    #[error("TLS handshake took longer than {} s", .0.as_secs_f64())]
    Timeout(Duration),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match PeerError::of_io(&error) {
            Some(peer) => Self::Peer(peer.clone()),
            None => Self::Tls(error),
        }
    }
}

impl HandshakeError {
    /// A bounded name for what went wrong.
    fn reason(&self) -> &'static str {
        match self {
            Self::OwnIdentity { .. } => "own_identity",
            Self::Tls(_) => "tls",
            Self::Peer(error) => error.reason(),
            Self::Timeout(_) => "timeout",
        }
    }
}

impl MtlsListener {
    /// Listens at `address` under the policy that `key` stands for.
    pub async fn bind(
        address: impl ToSocketAddrs,
        live: LiveIdentity,
        key: ServerKey,
        clock: SharedClock,
    ) -> io::Result<Self> {
        Ok(Self::new(TcpListener::bind(address).await?, live, key, clock))
    }

    /// The same with a socket that is bound already.
    pub fn new(tcp: TcpListener, live: LiveIdentity, key: ServerKey, clock: SharedClock) -> Self {
        let handshake = Arc::new(Handshake { live, key, clock, timeout: HANDSHAKE_TIMEOUT });
        Self {
            tcp,
            handshake,
            concurrent: CONCURRENT_HANDSHAKES,
            under_way: JoinSet::new(),
            pause: None,
            failure: None,
        }
    }

    /// How long a handshake may take; 10 s unless told.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        let Handshake { live, key, clock, .. } = &*self.handshake;
        self.handshake = Arc::new(Handshake { live: live.clone(), key: *key, clock: clock.clone(), timeout });
        self
    }

    /// How many handshakes may be under way; 256 unless told. When there are that many, further connections wait in the
    /// kernel's backlog.
    pub fn concurrent_handshakes(mut self, concurrent: usize) -> Self {
        self.concurrent = concurrent.max(1);
        self
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next connection whose handshake is done. May be dropped and called again: nothing is lost.
    pub async fn accept(&mut self) -> MtlsStream {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<MtlsStream> {
        self.poll_begin(cx);
        loop {
            match ready!(self.poll_done(cx)) {
                Ok(stream) => return Poll::Ready(stream),
                Err(Failed { remote_address, error }) => {
                    let (reason, error) = (error.reason(), cause::whole(&error));
                    tracing::info!(peer.address = %remote_address, reason, %error, "connection refused");
                }
            }
            // There is room for another one now.
            self.poll_begin(cx);
        }
    }

    /// Begins as many handshakes as there are connections and room.
    fn poll_begin(&mut self, cx: &mut Context<'_>) {
        while self.under_way.len() < self.concurrent {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.pause = None;
            }
            match self.tcp.poll_accept(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok((tcp, remote_address))) => {
                    self.failure = None;
                    let handshake = self.handshake.clone();
                    self.under_way.spawn(async move { handshake.run(tcp, remote_address).await });
                }
                Poll::Ready(Err(error)) => {
                    if self.failure.replace(error.kind()) != Some(error.kind()) {
                        tracing::warn!(%error, "no connections can be accepted");
                    }
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }

    /// The next handshake that is done, well or not. Pending also when there is none: the socket wakes.
    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Result<MtlsStream, Failed>> {
        loop {
            match ready!(self.under_way.poll_join_next(cx)) {
                Some(Ok(done)) => return Poll::Ready(done),
                Some(Err(error)) => tracing::error!(%error, "a handshake's task died"),
                None => return Poll::Pending,
            }
        }
    }
}

impl Handshake {
    async fn run(&self, tcp: TcpStream, remote_address: SocketAddr) -> Result<MtlsStream, Failed> {
        let done = tokio::time::timeout(self.timeout, self.authenticate(tcp, remote_address)).await;
        done.unwrap_or(Err(HandshakeError::Timeout(self.timeout))).map_err(|error| Failed { remote_address, error })
    }

    async fn authenticate(&self, tcp: TcpStream, remote_address: SocketAddr) -> Result<MtlsStream, HandshakeError> {
        let snapshot = self.live.load_full();
        if !snapshot.svid().is_valid_at(self.clock.now()) {
            return Err(HandshakeError::OwnIdentity { not_after: snapshot.svid().not_after() });
        }
        tcp.set_nodelay(true)?;
        let tls = TlsAcceptor::from(snapshot.server(self.key).clone()).accept(tcp).await?;
        let peer = snapshot.peer_of_server_connection(self.key, tls.get_ref().1.peer_certificates())?;
        let lifetime = Lifetime::new(self.live.clone(), &snapshot, peer.clone(), self.clock.clone());
        Ok(MtlsStream::new(tls.into(), peer, remote_address, lifetime))
    }
}

/// Never ends, and none of its items is an error.
impl Stream for MtlsListener {
    type Item = io::Result<MtlsStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_accept(cx).map(|stream| Some(Ok(stream)))
    }
}

impl fmt::Debug for MtlsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MtlsListener").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

/// Who sent a request: in the extensions of each request that comes over an [`MtlsListener`], by tonic or by [`serve`].
#[derive(Clone, Debug)]
pub struct PeerConnection {
    /// Whom the client proved to be. None only where the policy lets clients in without a certificate.
    pub peer: Option<Arc<PeerIdentity>>,
    /// Where it is.
    pub remote_address: SocketAddr,
}

/// Who sent the request that has these extensions.
pub fn peer_identity(extensions: &http::Extensions) -> Option<&Arc<PeerIdentity>> {
    extensions.get::<PeerConnection>()?.peer.as_ref()
}

impl Connected for MtlsStream {
    type ConnectInfo = PeerConnection;

    fn connect_info(&self) -> PeerConnection {
        PeerConnection { peer: self.peer().cloned(), remote_address: self.remote_address() }
    }
}
