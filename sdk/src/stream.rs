//! An mTLS connection that ends in time.

use std::{
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use signet_identity::PeerIdentity;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use crate::lifetime::{Ended, Lifetime};

/// A TLS connection whose peer is known. Reading and writing fail with [`Ended`] once the peer's certificate or our own
/// expires, or the peer is trusted no more.
pub struct MtlsStream {
    tls: TlsStream<TcpStream>,
    peer: Option<Arc<PeerIdentity>>,
    remote_address: SocketAddr,
    lifetime: Lifetime,
    end: End,
}

/// Polled with each read and write; wakes the connection's task by itself when the time has come.
enum End {
    Ahead(Pin<Box<dyn Future<Output = Ended> + Send>>),
    Reached(Ended),
}

impl MtlsStream {
    pub(crate) fn new(
        tls: TlsStream<TcpStream>,
        peer: Option<Arc<PeerIdentity>>,
        remote_address: SocketAddr,
        lifetime: Lifetime,
    ) -> Self {
        let mut own = lifetime.clone();
        let end = End::Ahead(Box::pin(async move { own.ended().await }));
        Self { tls, peer, remote_address, lifetime, end }
    }

    /// Who is at the other end. None only on a listener that lets clients in without a certificate.
    pub fn peer(&self) -> Option<&Arc<PeerIdentity>> {
        self.peer.as_ref()
    }

    /// Where the other end is.
    pub fn remote_address(&self) -> SocketAddr {
        self.remote_address
    }

    /// The application protocol that was agreed on (RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls.get_ref().1.alpn_protocol()
    }

    /// How long it may live, for whoever finishes in time what is under way.
    pub fn lifetime(&self) -> &Lifetime {
        &self.lifetime
    }

    fn poll_alive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let End::Ahead(end) = &mut self.end
            && let Poll::Ready(ended) = end.as_mut().poll(cx)
        {
            tracing::debug!(peer.address = %self.remote_address, reason = %ended, "connection ends");
            self.end = End::Reached(ended);
        }
        match &self.end {
            End::Ahead(_) => Ok(()),
            End::Reached(ended) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, ended.clone())),
        }
    }
}

impl AsyncRead for MtlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_alive(cx)?;
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for MtlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_alive(cx)?;
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_alive(cx)?;
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_alive(cx)?;
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    /// Never refused: a connection that has to end may say goodbye.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

impl fmt::Debug for MtlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MtlsStream")
            .field("peer", &self.peer.as_ref().map(|peer| peer.id()))
            .field("remote_address", &self.remote_address)
            .field("expires_at", &self.lifetime.expires_at())
            .finish_non_exhaustive()
    }
}
