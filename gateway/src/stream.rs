//! The bytes of one connection, under TLS or plain.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::read_ahead::ReadAhead;

/// A connection of a caller or to an upstream.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<ReadAhead>>),
}

/// What was read of a connection and not used yet. Reads become larger as long as they are filled.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) bytes: BytesMut,
    room: usize,
}

impl Unread {
    pub(crate) fn new(first: &[u8]) -> Self {
        Self { bytes: BytesMut::from(first), room: LEAST }
    }

    /// Reads once; the number of bytes that came, none at the end.
    pub(crate) fn poll_fill(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.bytes.capacity() - self.bytes.len() < self.room {
            self.bytes.reserve(self.room);
        }
        let room = self.bytes.capacity() - self.bytes.len();
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(stream), cx, &mut self.bytes))?;
        if read == room {
            self.room = MOST.min(self.room * 4);
        } else if read < self.room / 4 {
            self.room = LEAST;
        }
        Poll::Ready(Ok(read))
    }

    /// Gives back the memory.
    pub(crate) fn release(&mut self) {
        self.bytes = BytesMut::new();
    }
}

/// rustls explains an end without close_notify by the address of its manual, which is not for a log.
fn without_manual(cause: io::Error) -> io::Error {
    if cause.kind() == io::ErrorKind::UnexpectedEof {
        return io::Error::new(cause.kind(), "the peer closed the connection without TLS close_notify");
    }
    cause
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf).map_err(without_manual),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// For most heads and many bodies.
const LEAST: usize = 4 << 10;
/// Larger reads make bulk no faster: a copy of this much outweighs its system call by far.
const MOST: usize = 64 << 10;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read as _;
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use rustls_pki_types::ServerName;

    use super::*;

    #[test]
    fn an_end_without_close_notify_is_told_without_an_address() {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let name = ServerName::try_from("a").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        assert_eq!(connection.read_tls(&mut io::empty()).unwrap(), 0);
        let cause = connection.reader().read(&mut [0]).unwrap_err();
        assert!(cause.to_string().contains("https://"), "{cause}");
        let told = without_manual(cause).to_string();
        assert_eq!(told, "the peer closed the connection without TLS close_notify");
    }

    #[test]
    fn another_error_is_told_as_it_is() {
        let told = without_manual(io::Error::from(io::ErrorKind::ConnectionReset)).to_string();
        assert_eq!(told, io::Error::from(io::ErrorKind::ConnectionReset).to_string());
    }
}
