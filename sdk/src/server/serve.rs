//! HTTP/1.1 and HTTP/2 on a listener's connections, drained before they end.

use std::{error::Error, time::Duration};

use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected as _;

use super::MtlsListener;
use crate::{MtlsStream, cause};

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_STREAMS: u32 = 200;
/// Connections at a time; further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 10_000;
/// A connection takes no new requests for this part of its life before its end, at most for [`MAX_LEAD`].
const LEAD_PART: u32 = 10;
const MAX_LEAD: Duration = Duration::from_secs(10);

/// Answers HTTP/1.1 and HTTP/2 requests with `service` until `shutdown` is cancelled; then takes no new ones and gives
/// those under way the time `drain`. A connection whose peer's certificate is about to expire is drained likewise.
///
/// Each request has its [`PeerConnection`](super::PeerConnection) in its extensions. A tower service, as tonic's
/// `Routes`, goes into `hyper_util::service::TowerToHyperService`.
pub async fn serve<S, B>(mut listener: MtlsListener, service: S, shutdown: CancellationToken, drain: Duration)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            // A connection's end is its own affair, told by itself; this makes room.
            Some(_) = connections.join_next() => {}
            stream = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                connections.spawn(serve_connection(stream, service.clone(), shutdown.clone()));
            }
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(drain, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "connections closed with requests under way");
    }
}

async fn serve_connection<S, B>(stream: MtlsStream, service: S, shutdown: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let from = stream.connect_info();
    let remote_address = from.remote_address;
    let mut lifetime = stream.lifetime().clone();
    let lead = (lifetime.remaining() / LEAD_PART).min(MAX_LEAD);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(from.clone());
        service.call(request)
    });

    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    http.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = async { tokio::select! { () = shutdown.cancelled() => {}, _ = lifetime.ends_within(lead) => {} } } => {
            // Takes no more requests, and goes on until those under way are answered or the connection ends.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        let error = cause::whole(&*error);
        tracing::debug!(peer.address = %remote_address, %error, "connection broke");
    }
}
