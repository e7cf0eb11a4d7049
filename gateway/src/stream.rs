//! The bytes of one connection, under TLS or plain.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::TlsStream;

/// A connection of a caller or to an upstream.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// What was read of a connection and not used yet.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) bytes: BytesMut,
    /// Of a plain connection.
    read_size: ReadSize,
}

impl Unread {
    pub(crate) fn new(first: &[u8]) -> Self {
        Self { bytes: BytesMut::from(first), read_size: ReadSize::new() }
    }

    /// Reads once; the number of bytes that came, none at the end.
    pub(crate) fn poll_fill(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match stream {
            Stream::Plain(tcp) => self.read_size.poll_read(tcp, &mut self.bytes, cx),
            Stream::Tls(tls) => tls.poll_fill(&mut self.bytes, cx),
        }
    }

    /// Gives back the memory.
    pub(crate) fn release(&mut self) {
        self.bytes = BytesMut::new();
    }
}

/// How much is asked of a socket at once: more as long as that much comes.
#[derive(Debug)]
pub(crate) struct ReadSize(usize);

impl ReadSize {
    pub(crate) fn new() -> Self {
        Self(LEAST)
    }

    /// Reads once and appends it to `bytes`; the number of bytes that came, none at the end.
    pub(crate) fn poll_read(
        &mut self,
        tcp: &mut TcpStream,
        bytes: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if bytes.capacity() - bytes.len() < self.0 {
            bytes.reserve(self.0);
        }
        let room = bytes.capacity() - bytes.len();
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(tcp), cx, bytes))?;
        if read == room {
            self.0 = MOST.min(self.0 * 4);
        } else if read < self.0 / 4 {
            self.0 = LEAST;
        }
        Poll::Ready(Ok(read))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
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
