//! From a TCP connection to a caller whose identity is proved: [`Accepted`] becomes [`Authenticated`], or is refused.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustls::{HandshakeKind, PeerIncompatible};
use signet_identity::{PeerError, PeerIdentity, ServerKey, Snapshot};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::authorization::Permission;
use crate::connection::{Protocol, Ready};
use crate::http::answer::HEADER_TIMEOUT;
use crate::http::frames::PREFACE;
use crate::lifetime::{Cause, Lifetime};
use crate::listener::Listener;
use crate::presented::Side;
use crate::stream::Stream;
use crate::tls::{self, TlsStream};

/// A TCP connection of which nothing was read.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) tcp: TcpStream,
    pub(crate) remote: SocketAddr,
}

/// A caller whose certificate was verified under the snapshot that its handshake used.
#[derive(Debug)]
pub(crate) struct Authenticated {
    stream: Box<TlsStream>,
    /// What the handshake has settled.
    is_http2: bool,
    pub(crate) peer: Arc<PeerIdentity>,
}

/// Why a caller was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("this gateway's own identity has expired")]
    OwnIdentity,
    #[error("no handshake in time")]
    Timeout,
    /// It took its time, and others came.
    #[error("others took the place of a handshake that did not end")]
    CrowdedOut,
    #[error("the caller's certificate is not accepted")]
    Peer(#[source] PeerError),
    #[error("no TLS 1.3")]
    Version,
    #[error("not TLS")]
    NotTls,
    /// The caller did not accept us, and said so.
    #[error("the caller refused")]
    Alert(#[source] rustls::Error),
    #[error("the handshake failed")]
    Tls(#[source] rustls::Error),
    /// It went away.
    #[error("the caller broke off")]
    Io(#[source] io::Error),
}

impl HandshakeError {
    /// The `result` label of `signet_gateway_handshakes_total`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::OwnIdentity => "own_identity",
            Self::Timeout => "timeout",
            Self::CrowdedOut => "crowded_out",
            Self::Peer(error) => error.reason(),
            Self::Version => "tls_version",
            Self::NotTls => "not_tls",
            Self::Alert(_) => "refused_by_peer",
            Self::Tls(_) => "tls",
            Self::Io(_) => "broken_off",
        }
    }

    /// Whether somebody should read of it: that callers come and go is no news.
    pub(crate) fn is_news(&self) -> bool {
        !matches!(self, Self::Io(_))
    }

    fn of(error: io::Error) -> Self {
        let tls = match error.downcast::<rustls::Error>() {
            Ok(tls) => tls,
            Err(error) => return Self::Io(error),
        };
        if let Some(peer) = PeerError::of(&tls) {
            return Self::Peer(peer.clone());
        }
        match tls {
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            rustls::Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls13RequiredForQuic
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Self::Version,
            rustls::Error::AlertReceived(_) => Self::Alert(tls),
            other => Self::Tls(other),
        }
    }
}

impl Accepted {
    /// Lets the caller prove who it is, under one snapshot from the first byte to the last check.
    pub(crate) async fn handshake(
        self,
        identity: &Snapshot,
        key: ServerKey,
        listener: &Listener,
    ) -> Result<Authenticated, Refusal> {
        let begun = Instant::now();
        let refused = |kind| move |error| Refusal { error, kind };
        if !identity.svid().is_valid_at(listener.core.worker.clock.now()) {
            return Err(refused("full")(HandshakeError::OwnIdentity));
        }
        let shaking = tls::accept(identity.server(key).clone(), self.tcp);
        let shaken = tokio::time::timeout(listener.core.limits.handshake_timeout, shaking)
            .await
            .map_err(|_| HandshakeError::Timeout)
            .and_then(|shaken| shaken.map_err(HandshakeError::of))
            .map_err(refused("full"))?;
        let kind = match shaken.handshake_kind() {
            Some(HandshakeKind::Resumed) => "resumed",
            _ => "full",
        };
        let peer = identity
            .peer_of_server_connection(key, shaken.peer_certificates())
            .and_then(|peer| peer.ok_or(PeerError::NoCertificate))
            .map_err(HandshakeError::Peer)
            .map_err(refused(kind))?;
        listener.core.worker.presented.tell(&peer, Side::Client);
        let is_http2 = shaken.alpn_protocol() == Some(b"h2");
        let stream = shaken.into_stream().map_err(HandshakeError::of).map_err(refused(kind))?;
        listener.metrics.handshake_succeeded(kind, begun.elapsed().as_secs_f64());
        Ok(Authenticated { stream: Box::new(stream), is_http2, peer })
    }

    /// A caller on this host, who is not asked who it is. Waits for its first bytes, which tell the protocol.
    pub(crate) async fn greet(mut self, listener: &Listener) -> Result<Ready, Cause> {
        let limits = &listener.core.limits;
        let mut first = Vec::with_capacity(PREFACE.len());
        match tokio::time::timeout(limits.idle_timeout, self.read_more(&mut first)).await {
            Ok(read) => read?,
            Err(_) => return Err(Cause::Idle),
        }
        let reading = async {
            while PREFACE.starts_with(&first) && first.len() < PREFACE.len() {
                self.read_more(&mut first).await?;
            }
            Ok(())
        };
        match tokio::time::timeout(limits.header_timeout, reading).await {
            Ok(read) => read?,
            Err(_) => {
                // It is gone in either case; that it heard is not needed.
                let _heard = self.tcp.try_write(HEADER_TIMEOUT);
                return Err(Cause::HeaderTimeout);
            }
        }
        let protocol = if first == PREFACE { Protocol::Http2 { first } } else { Protocol::Http1 { first } };
        let permission = Permission::of_local(&listener.mode);
        Ok(Ready { stream: Stream::Plain(self.tcp), protocol, permission, lifetime: Lifetime::UNLIMITED })
    }

    /// Reads on, no further than a preface can reach.
    async fn read_more(&mut self, first: &mut Vec<u8>) -> Result<(), Cause> {
        let mut bytes = [0; PREFACE.len()];
        let room = PREFACE.len() - first.len();
        match self.tcp.read(&mut bytes[..room]).await {
            Ok(0) if first.is_empty() => Err(Cause::Done),
            Ok(0) | Err(_) => Err(Cause::Broken),
            Ok(read) => {
                first.extend_from_slice(&bytes[..read]);
                Ok(())
            }
        }
    }
}

impl Authenticated {
    /// Settles what the caller may do and for how long.
    pub(crate) fn ready(self, identity: &Snapshot, listener: &Listener) -> Ready {
        let first = Vec::new();
        let protocol = if self.is_http2 { Protocol::Http2 { first } } else { Protocol::Http1 { first } };
        let permission = Permission::of_peer(&listener.mode, &self.peer, identity);
        let now = listener.core.worker.clock.now();
        let lifetime = Lifetime::of_accepted(self.peer.expires_at(), now);
        let lifetime = match permission {
            Permission::Denied(_) => lifetime.of_denied(now),
            Permission::Granted { .. } => lifetime,
        };
        Ready { stream: Stream::Tls(self.stream), protocol, permission, lifetime }
    }
}

/// A handshake that failed, and whether it would have resumed a session.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: HandshakeError,
    pub(crate) kind: &'static str,
}
