//! Why one operation failed.

use std::io;

/// A failed operation. [`kind`](Failure::kind) is what it is counted under.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no connection")]
    Connect(#[source] io::Error),
    #[error("TLS failed")]
    Tls(#[from] rustls::Error),
    #[error("the client's TLS configuration cannot be built")]
    ClientIdentity(#[source] rustls::Error),
    #[error("a full handshake where a resumed one was asked for")]
    NotResumed,
    #[error("input or output failed")]
    Io(#[from] io::Error),
    #[error("the server closed an open connection before it answered")]
    ClosedBeforeResponse,
    #[error("the server closed in the middle of an answer")]
    ClosedInResponse,
    #[error("not an HTTP/1.1 answer")]
    BadResponse,
    #[error("answered {0}")]
    Status(u16),
    #[error("gRPC status {0}")]
    GrpcStatus(String),
    #[error("not one gRPC message")]
    BadGrpcMessage,
    #[error("HTTP/2 failed")]
    Http2(#[from] hyper::Error),
}

impl Failure {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Tls(rustls::Error::AlertReceived(_)) => "tls_alert",
            Self::Tls(rustls::Error::InvalidCertificate(_)) => "server_certificate",
            Self::Tls(_) => "tls",
            Self::ClientIdentity(_) => "client_identity",
            Self::NotResumed => "not_resumed",
            Self::Io(error) if error.kind() == io::ErrorKind::ConnectionReset => "reset",
            Self::Io(_) => "io",
            Self::ClosedBeforeResponse => "closed_before_response",
            Self::ClosedInResponse => "closed_in_response",
            Self::BadResponse => "bad_response",
            Self::Status(400..500) => "status_4xx",
            Self::Status(500..600) => "status_5xx",
            Self::Status(_) => "status",
            Self::GrpcStatus(_) => "grpc_status",
            Self::BadGrpcMessage => "bad_grpc_message",
            Self::Http2(_) => "http2",
        }
    }

    /// Whether a client may send the same request again on a new connection: nothing of an answer was seen, and the connection
    /// had been idle (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
    pub(super) fn is_stale_connection(&self) -> bool {
        match self {
            Self::ClosedBeforeResponse => true,
            Self::Http2(error) => error.is_canceled() || error.is_closed(),
            Self::Io(error) => matches!(error.kind(), io::ErrorKind::BrokenPipe),
            _ => false,
        }
    }
}
