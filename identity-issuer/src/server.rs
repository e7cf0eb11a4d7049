//! gRPC connections, from accepting them to their end.
//!
//! ```text
//! accept ─► ClientHello ─► TLS 1.3 handshake ─► peer ─► HTTP/2 requests ─► end: the peer's expiry, or shutdown
//!   │ too many   │ silent       │ refused         │ refused    each with its Caller     GOAWAY, a moment, then closed
//! ```

pub(crate) mod accepting;
mod anonymous;
pub(crate) mod line;
mod unfinished;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use signet_identity::{LiveIdentity, PeerError, PeerIdentity, ServerKey, SharedClock};
use signet_process::log_limit::LogLimit;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub(crate) use self::anonymous::Work;
use self::anonymous::{AnonymousPlace, AnonymousPlaces};
use self::unfinished::{Place, TooManyFromSource, Unfinished};
use crate::config::Limits;
use crate::metrics::Metrics;

/// Serves gRPC over mTLS.
#[derive(Debug)]
pub(crate) struct Server {
    live: LiveIdentity,
    key: ServerKey,
    routes: Routes,
    limits: Limits,
    metrics: Metrics,
    clock: SharedClock,
    connections: Arc<Semaphore>,
    anonymous: AnonymousPlaces,
    unfinished: Unfinished,
    refusals: LogLimit,
    drain: Duration,
}

/// Who is at the other end of a connection. In the extensions of each request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// None for one that has no certificate yet, or no TLS.
    pub(crate) peer: Option<Arc<PeerIdentity>>,
    /// None for a Unix socket.
    pub(crate) address: Option<SocketAddr>,
    /// On a Unix socket, as the kernel names the user.
    pub(crate) local_user: Option<u32>,
    /// Cancelled when the connection is to end: streams end then.
    pub(crate) ending: CancellationToken,
    /// What of its requests is being worked on.
    pub(crate) work: Work,
}

/// A connection that passed its handshake.
struct Authenticated {
    /// In a box, which each step hands on.
    stream: Box<tokio_rustls::server::TlsStream<TcpStream>>,
    peer: Option<Arc<PeerIdentity>>,
    /// Of one without a certificate.
    place: Option<AnonymousPlace>,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("too many connections")]
    TooManyConnections,
    #[error("too many connections from its address whose handshake is not done")]
    TooManyFromSource,
    #[error("too many connections without a certificate")]
    TooManyAnonymous,
    #[error("it said nothing")]
    Silent,
    #[error("it was slow while others waited")]
    GaveWay,
    #[error("too many handshakes")]
    TooManyHandshakes,
    #[error("the handshake took too long")]
    Timeout,
    #[error("the handshake failed")]
    Handshake(#[source] std::io::Error),
    #[error(transparent)]
    Peer(#[from] PeerError),
}

/// How long a connection whose peer has expired may take to finish what is under way.
const GRACE: Duration = Duration::from_secs(1);
/// The wall clock may be set or the machine suspended: an expiry is looked at again after this long, so that a
/// connection ends within a second all the same.
const LOOK_AT_CLOCK: Duration = Duration::from_millis(500);
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// What a stream may send unread: one message of the largest size. hyper's default is a mebibyte for each.
const WINDOW: u32 = 64 * 1024;

impl Server {
    pub(crate) fn new(
        live: LiveIdentity,
        key: ServerKey,
        routes: Routes,
        limits: Limits,
        drain: Duration,
        metrics: Metrics,
        clock: SharedClock,
    ) -> Self {
        Self {
            live,
            key,
            routes,
            limits,
            drain,
            metrics,
            clock,
            connections: Arc::new(Semaphore::new(limits.connections)),
            anonymous: AnonymousPlaces::new(limits.anonymous_connections),
            unfinished: Unfinished::new(&limits),
            refusals: LogLimit::new(),
        }
    }

    /// Accepts until `stop`, then lets the connections end for their drain time at most.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let drain = self.drain;
        let server = Arc::new(self);
        let serve = |tcp, address| Arc::clone(&server).serve_connection(tcp, address, stop.clone());
        accepting::accept(listener, stop.clone(), drain, serve).await;
    }

    async fn serve_connection(self: Arc<Self>, tcp: TcpStream, address: SocketAddr, stop: CancellationToken) {
        let Ok(_place) = Arc::clone(&self.connections).try_acquire_owned() else {
            return self.refuse(address, &Refused::TooManyConnections);
        };
        // What is not done with its handshake at shutdown has nothing to finish.
        // In a box: what a handshake needs is large, and a connection that is served would keep it.
        let authenticating = Box::pin(self.authenticate(tcp, address));
        let Some(outcome) = stop.run_until_cancelled(authenticating).await else { return };
        let Authenticated { stream, peer, place } = match outcome {
            Ok(authenticated) => authenticated,
            Err(refused) => return self.refuse(address, &refused),
        };
        let _counted = self.metrics.connection();
        let end = self.end_of(peer.as_deref(), place.as_ref());
        let work = place.as_ref().map(|place| place.work.clone()).unwrap_or_default();
        let ending = CancellationToken::new();
        let caller = Caller { peer, address: Some(address), local_user: None, ending, work };
        serve_http2(stream, self.routes.clone(), caller, &self.limits, end, (stop, self.drain)).await;
    }

    async fn authenticate(&self, tcp: TcpStream, address: SocketAddr) -> Result<Authenticated, Refused> {
        let place = self.unfinished.enter(address).map_err(|TooManyFromSource| Refused::TooManyFromSource)?;
        let handshake = async { self.handshake(self.hello(tcp).await?, &place).await };
        place.unless_it_gives_way(handshake).await.unwrap_or(Err(Refused::GaveWay))
    }

    /// Waits for the whole ClientHello. Whoever does not say it costs a descriptor and no permit.
    async fn hello(&self, tcp: TcpStream) -> Result<StartHandshake<TcpStream>, Refused> {
        // Small answers, each of which somebody waits for. An old kernel's refusal costs speed only.
        let _ = tcp.set_nodelay(true);
        let spoke = tokio::time::timeout(self.limits.first_byte_timeout, tcp.peek(&mut [0])).await;
        spoke.map_err(|_| Refused::Silent)?.map_err(Refused::Handshake)?;
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp);
        let hello = tokio::time::timeout(self.limits.handshake_timeout, hello).await;
        hello.map_err(|_| Refused::Timeout)?.map_err(Refused::Handshake)
    }

    async fn handshake(&self, hello: StartHandshake<TcpStream>, place: &Place) -> Result<Authenticated, Refused> {
        let turn = tokio::time::timeout(self.limits.handshake_timeout, place.turn()).await;
        let Ok(Some(_turn)) = turn else { return Err(Refused::TooManyHandshakes) };
        let identity = self.live.load_full();
        let handshake = hello.into_stream(Arc::clone(identity.server(self.key)));
        let stream = tokio::time::timeout(self.limits.handshake_timeout, handshake)
            .await
            .map_err(|_| Refused::Timeout)?
            .map_err(Refused::Handshake)?;
        let peer = identity.peer_of_server_connection(self.key, stream.get_ref().1.peer_certificates())?;
        let place = match peer {
            Some(_) => None,
            None => Some(self.anonymous.enter().ok_or(Refused::TooManyAnonymous)?),
        };
        Ok(Authenticated { stream: Box::new(stream), peer, place })
    }

    /// When a connection's time is over: with its peer's certificate; where there is none, soon, and at once when it has
    /// to give way.
    fn end_of(
        &self,
        peer: Option<&PeerIdentity>,
        place: Option<&AnonymousPlace>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let clock = Arc::clone(&self.clock);
        let expires_at = peer.map(PeerIdentity::expires_at);
        let anonymous_life = self.limits.anonymous_connection_life;
        let gives_way = place.map(|place| place.gives_way.clone()).unwrap_or_default();
        async move {
            match expires_at {
                Some(expires_at) => sleep_until(expires_at, &clock).await,
                // None: it has to give way.
                None => drop(gives_way.run_until_cancelled(tokio::time::sleep(anonymous_life)).await),
            }
        }
    }

    fn refuse(&self, address: SocketAddr, refused: &Refused) {
        let reason = refused.reason();
        self.metrics.connection_refused(reason);
        let cause = || signet_process::start::Report::of(refused).cause;
        if refused.is_noise() {
            tracing::debug!(peer.address = %address, reason, cause = cause(), "connection refused");
        } else if let Some(suppressed) = self.refusals.admit() {
            tracing::warn!(peer.address = %address, reason, cause = cause(), suppressed, "connection refused");
        }
    }
}

impl Refused {
    /// A bounded label for metrics.
    fn reason(&self) -> &'static str {
        match self {
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyFromSource => "too_many_from_address",
            Self::TooManyAnonymous => "too_many_anonymous_connections",
            Self::Silent => "silent",
            Self::GaveWay => "gave_way",
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::Timeout => "timeout",
            Self::Peer(error) => error.reason(),
            Self::Handshake(error) => match PeerError::of_io(error) {
                Some(error) => error.reason(),
                None => tls_reason(error),
            },
        }
    }

    /// Whoever connects and goes, as port scanners and health checks do, says nothing worth a warning.
    fn is_noise(&self) -> bool {
        matches!(self, Self::Silent) || self.reason() == CLOSED
    }
}

const CLOSED: &str = "closed";

fn tls_reason(error: &std::io::Error) -> &'static str {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidMessage(_)) => "not_tls",
        Some(rustls::Error::PeerIncompatible(_)) => "incompatible_tls",
        Some(rustls::Error::AlertReceived(_)) => "refused_by_peer",
        Some(_) => "tls",
        None => CLOSED,
    }
}

/// Serves one connection until its peer leaves, `end` comes, or `stop` is cancelled, which leaves it `drain` to finish.
pub(crate) async fn serve_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Routes,
    caller: Caller,
    limits: &Limits,
    end: impl Future<Output = ()>,
    (stop, drain): (CancellationToken, Duration),
) {
    let ending = caller.ending.clone();
    let requests = Requests { routes, caller, timeout: limits.request_timeout };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .max_send_buf_size(WINDOW as usize)
        .serve_connection(TokioIo::new(stream), requests);
    let mut connection = Box::pin(connection);
    let grace = tokio::select! {
        // A peer that leaves or breaks the protocol ends its own connection and nothing else.
        ended = connection.as_mut() => return log_end(ended),
        () = end => GRACE,
        () = stop.cancelled() => drain,
    };
    ending.cancel();
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = tokio::time::timeout(grace, connection).await {
        log_end(ended);
    }
}

fn log_end(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection broke");
    }
}

/// Returns once the wall clock has passed `time`, however it got there.
async fn sleep_until(time: OffsetDateTime, clock: &SharedClock) {
    // A certificate is good until the end of its last second (RFC 5280 §4.1.2.5), and no longer.
    while let Ok(left) = Duration::try_from(time - clock.now()) {
        tokio::time::sleep(left.clamp(Duration::from_millis(1), LOOK_AT_CLOCK)).await;
    }
}

/// Gives each request its caller and its time.
struct Requests {
    routes: Routes,
    caller: Caller,
    timeout: Duration,
}

impl hyper::service::Service<http::Request<Incoming>> for Requests {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.caller.clone());
        let mut routes = self.routes.clone();
        let timeout = self.timeout;
        Box::pin(async move {
            // Covers the reading of the request too. A stream's time is its connection's.
            let answer = tower_service::Service::call(&mut routes, request);
            match tokio::time::timeout(timeout, answer).await {
                Ok(answer) => answer,
                Err(_) => Ok(tonic::Status::deadline_exceeded("the request took too long").into_http()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use signet_identity::ManualClock;

    use super::*;

    #[tokio::test]
    async fn an_expiry_to_which_the_clock_jumps_is_noticed_within_a_second() {
        let clock = ManualClock::new(OffsetDateTime::UNIX_EPOCH);
        let shared = clock.shared();
        let end = sleep_until(OffsetDateTime::UNIX_EPOCH + time::Duration::hours(1), &shared);
        let jump = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            clock.advance(time::Duration::seconds(3601));
        };
        let both = async { tokio::join!(end, jump) };
        assert!(tokio::time::timeout(Duration::from_secs(1), both).await.is_ok());
    }
}
