//! What a run is to do.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;

use super::FleetSource;

/// One run of the generator.
#[derive(Clone, Debug)]
pub struct Plan {
    pub target: SocketAddr,
    pub mode: Mode,
    pub pace: Loop,
    /// Not measured: connections are opened, pools and caches filled.
    pub warmup: Duration,
    pub duration: Duration,
    /// How long after the end an operation under way may still take before it is counted as hanging.
    pub patience: Duration,
    pub threads: NonZeroUsize,
    /// Over all threads: connections, or places that make handshakes.
    pub connections: NonZeroUsize,
    /// HTTP/2 streams on each connection.
    pub streams: NonZeroUsize,
    pub path: String,
    /// The `Host` or `:authority` of each request.
    pub authority: String,
    /// Bytes of each request's body; with 0 the request is a GET, unless it is a gRPC call.
    pub body: usize,
    pub tls: Option<TlsPlan>,
    pub proof: Proof,
    /// Whose CPU time is reported beside the generator's own.
    pub watched: Vec<Watched>,
}

/// A server or proxy by its processes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Watched {
    pub name: String,
    pub processes: Vec<u32>,
}

/// How connections are secured.
#[derive(Clone, Debug)]
pub struct TlsPlan {
    pub clients: FleetSource,
    pub roots: Arc<RootCertStore>,
    pub curve: Curve,
    pub signatures: Signatures,
}

/// What one operation is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// A new connection with a full handshake, done when the server is known to have accepted it: see [`Proof`].
    Handshake,
    /// The same with a ticket of an earlier connection.
    Resumed,
    /// A request on a connection that is kept.
    Http1,
    Http2,
    /// No operations: connections that are held, for [`idle`](super::idle()).
    Idle,
    /// A unary gRPC call over HTTP/2 with a message of [`Plan::body`] bytes, done when the trailers say that it succeeded.
    Grpc,
}

/// How a handshake is known to have been accepted by the server, which looks at the client's certificate after the client is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Proof {
    /// The first session ticket (RFC 8446 §4.6.1).
    Ticket,
    /// The client says that it will send no more, and the server closes without an alert. For servers that keep their tickets
    /// back until they have something to answer, as those on BoringSSL do; to resume, each connection makes a
    /// request for its successor's ticket.
    Close,
}

/// When the next operation of a slot begins.
#[derive(Clone, Copy, Debug)]
pub enum Loop {
    /// As soon as the one before is done.
    Closed,
    /// So many each second over all slots, whether the server keeps up or not; latency counts from the time an operation was due.
    Open { per_second: f64 },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Curve {
    X25519,
    X25519MlKem768,
}

/// How often the server's chain and its handshake signature are checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signatures {
    /// Once for each certificate and thread: the generator must cost less than the server it measures.
    Once,
    Always,
}
