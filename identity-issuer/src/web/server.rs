//! Connections to the web addresses, from accepting them to their end.
//!
//! Each is short: a document or two. So what bounds them is one number for each listener, of which the oldest gives way; a life; and a
//! time for each step. Whoever holds connections open keeps nobody out, least of all at another listener: anybody reaches the public
//! ones, and who asks for tokens comes by that for SVIDs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use signet_identity::{LiveIdentity, PeerIdentity, ServerKey};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Site;
use super::body;
use super::certificate::ServedCertificate;
use crate::server::accepting::accept;
use crate::server::line::Line;

/// Serves a site on some listeners. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    site: Arc<Site>,
    /// At once, to each listener.
    connections: usize,
    /// How long answers may take to be sent at shutdown.
    drain: Duration,
}

/// How a listener proves whose it is.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// It does not.
    Plain,
    /// To whoever believes the authorities of the web.
    Certificate(ServedCertificate),
    /// To whoever knows the trust bundle.
    Svid { live: LiveIdentity, key: ServerKey },
}

/// The connections that there are to one listener. Cheap to clone.
#[derive(Clone, Debug)]
struct Places {
    line: Arc<Mutex<Line<()>>>,
    most: usize,
}

/// Given up when dropped.
#[derive(Debug)]
struct Place {
    places: Places,
    number: u64,
    gives_way: CancellationToken,
}

const HANDSHAKE: Duration = Duration::from_secs(5);
/// Also how long a connection may be idle between two requests.
const HEAD: Duration = Duration::from_secs(10);
const LIFE: Duration = Duration::from_secs(60);
/// For what is under way when a connection's life is over.
const GRACE: Duration = Duration::from_secs(5);
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
const STREAMS: u32 = 16;
/// Of HTTP/2: no request has a body that is larger.
const WINDOW: u32 = 64 << 10;

impl Server {
    /// At most so many connections at once to each listener.
    pub(crate) fn new(site: Site, connections: usize, drain: Duration) -> Self {
        Self { site: Arc::new(site), connections, drain }
    }

    /// Accepts until `stop`, then lets the connections end for their drain time at most.
    pub(crate) async fn serve(self, listener: TcpListener, door: Door, stop: CancellationToken) {
        let drain = self.drain;
        let places = Places::new(self.connections);
        let serve = |tcp, address| {
            let (server, door, stop) = (self.clone(), door.clone(), stop.clone());
            let place = places.enter();
            async move {
                let gives_way = place.gives_way.clone();
                // None: it gave way.
                let _ = gives_way.run_until_cancelled(server.serve_connection(tcp, address, &door, stop)).await;
            }
        };
        accept(listener, stop.clone(), drain, serve).await;
    }

    async fn serve_connection(&self, tcp: TcpStream, address: SocketAddr, door: &Door, stop: CancellationToken) {
        // Small answers, each of which somebody waits for. An old kernel's refusal costs speed only.
        let _ = tcp.set_nodelay(true);
        match door {
            Door::Plain => self.serve_http(tcp, None, stop).await,
            Door::Certificate(certificate) => {
                let acceptor = TlsAcceptor::from(certificate.current());
                match tokio::time::timeout(HANDSHAKE, acceptor.accept(tcp)).await {
                    Ok(Ok(tls)) => self.serve_http(tls, None, stop).await,
                    Ok(Err(error)) => tracing::debug!(peer.address = %address, %error, "web handshake failed"),
                    Err(_) => tracing::debug!(peer.address = %address, "web handshake took too long"),
                }
            }
            Door::Svid { live, key } => {
                let identity = live.load_full();
                let acceptor = TlsAcceptor::from(Arc::clone(identity.server(*key)));
                match tokio::time::timeout(HANDSHAKE, acceptor.accept(tcp)).await {
                    Ok(Ok(tls)) => {
                        let chain = tls.get_ref().1.peer_certificates();
                        match identity.peer_of_server_connection(*key, chain) {
                            Ok(peer) => self.serve_http(tls, peer, stop).await,
                            Err(error) => tracing::debug!(peer.address = %address, %error, "web client refused"),
                        }
                    }
                    Ok(Err(error)) => tracing::debug!(peer.address = %address, %error, "web handshake failed"),
                    Err(_) => tracing::debug!(peer.address = %address, "web handshake took too long"),
                }
            }
        }
    }

    async fn serve_http<S>(&self, stream: S, peer: Option<Arc<PeerIdentity>>, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let site = Arc::clone(&self.site);
        let service = service_fn(move |request| answer(Arc::clone(&site), peer.clone(), request));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(HEAD)
            .keep_alive_timeout(HEAD)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(MAX_HEAD as u32)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(WINDOW as usize);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            // A caller that breaks off or sends no HTTP is the caller's affair.
            _ = connection.as_mut() => return,
            () = tokio::time::sleep(LIFE) => {}
            () = stop.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        // What is not sent by then is cut off.
        let _ = tokio::time::timeout(GRACE, connection).await;
    }
}

async fn answer(
    site: Arc<Site>,
    peer: Option<Arc<PeerIdentity>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body::read(body).await;
    Ok(site.answer(&head, body, peer.as_ref()).await)
}

impl Places {
    fn new(most: usize) -> Self {
        Self { line: Arc::new(Mutex::new(Line::new())), most }
    }

    /// For one connection. Where there is none left, the oldest gives way.
    fn enter(&self) -> Place {
        let mut line = self.line();
        if line.len() >= self.most {
            line.oldest_gives_way(|()| true);
        }
        let (number, gives_way) = line.join(());
        Place { places: self.clone(), number, gives_way }
    }

    /// Nothing panics while it is held.
    fn line(&self) -> MutexGuard<'_, Line<()>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.line().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_connection_gives_way_to_one_too_many() {
        let places = Places::new(2);
        let (one, two) = (places.enter(), places.enter());
        assert!(!one.gives_way.is_cancelled());
        drop(places.enter());
        assert!(one.gives_way.is_cancelled() && !two.gives_way.is_cancelled());
        let three = places.enter();
        assert!(!two.gives_way.is_cancelled() && !three.gives_way.is_cancelled());
        assert_eq!(places.line().len(), 2);
    }
}
