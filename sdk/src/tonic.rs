//! gRPC over mTLS: a channel that always uses the newest identity. For servers, a [`MtlsListener`](crate::server) goes
//! into tonic's `serve_with_incoming`.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{
    body::Body,
    transport::{Channel, Endpoint, Error, channel::ResponseFuture},
};
use tower_service::Service;

use crate::{hyper::MtlsConnector, renewed::Generational};

/// A gRPC channel over mTLS, for any generated client: `GreeterClient::new(channel)`. Cheap to clone; clones share one
/// connection.
///
/// Calls go over a connection that was made with the newest snapshot: when the identity rotates, or the server's
/// certificate nears its end, the next call opens a new connection, and the old one ends with the calls that are under
/// way, at the latest when one of its two certificates expires.
pub struct MtlsChannel {
    channels: Arc<Generational<Channel>>,
    number: u64,
    channel: Channel,
}

impl MtlsChannel {
    /// A channel to `endpoint`, whose settings hold; its scheme may be `http` or `https`. It connects when it is first
    /// used. Must be called within a tokio runtime.
    pub fn new(endpoint: Endpoint, connector: MtlsConnector) -> Self {
        let (live, clock) = (connector.live().clone(), connector.clock().clone());
        let make = move |retirement| endpoint.connect_with_connector_lazy(connector.clone().retiring(retirement));
        let channels = Arc::new(Generational::new(live, clock, make));
        let (number, channel) = channels.current();
        Self { channels, number, channel }
    }
}

impl Service<Request<Body>> for MtlsChannel {
    type Response = Response<Body>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.channels.is_number(self.number) {
            (self.number, self.channel) = self.channels.current();
        }
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        self.channel.call(request)
    }
}

impl Clone for MtlsChannel {
    fn clone(&self) -> Self {
        Self { channels: self.channels.clone(), number: self.number, channel: self.channel.clone() }
    }
}

impl fmt::Debug for MtlsChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MtlsChannel").finish_non_exhaustive()
    }
}
