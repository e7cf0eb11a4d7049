//! A socket under TLS whose large reads are made at once.
//!
//! rustls asks for 4 KiB at a time, which makes five system calls of one full record. Once a read has filled what was asked
//! for, the next one takes what is there, and rustls is served from that: a copy of 16 KiB costs less than one such call.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(crate) struct ReadAhead {
    tcp: TcpStream,
    ahead: BytesMut,
    flow: Flow,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flow {
    /// What comes fits what was asked for.
    Trickle,
    Bulk,
}

impl ReadAhead {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp, ahead: BytesMut::new(), flow: Flow::Trickle }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.flow == Flow::Trickle {
            let room = buf.remaining();
            ready!(Pin::new(&mut this.tcp).poll_read(cx, buf))?;
            if buf.remaining() == 0 && room >= LEAST {
                this.flow = Flow::Bulk;
            }
            return Poll::Ready(Ok(()));
        }
        if this.ahead.is_empty() {
            this.ahead.reserve(AHEAD);
            let read = tokio_util::io::poll_read_buf(Pin::new(&mut this.tcp), cx, &mut this.ahead);
            if this.ahead.is_empty() {
                // Nothing is held while nothing comes.
                this.ahead = BytesMut::new();
            }
            if ready!(read)? < LEAST {
                this.flow = Flow::Trickle;
            }
        }
        let amount = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead[..amount]);
        this.ahead.advance(amount);
        if !this.ahead.is_empty() {
            this.flow = Flow::Bulk;
        } else if this.flow == Flow::Trickle {
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// What rustls asks for.
const LEAST: usize = 4 << 10;
/// Some records.
const AHEAD: usize = 64 << 10;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn every_byte_comes_once_and_in_order_and_nothing_is_held_afterwards() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut ours = ReadAhead::new(listener.accept().await.unwrap().0);
        let sizes = [1, 4_096, 100_000, 3, 300_000, 4_095, 4_097, 70_000];
        let sent: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|at| ((at * 31) >> 5) as u8).collect();
        let expected = sent.clone();
        let sending = async move {
            let mut from = 0;
            for size in sizes {
                theirs.write_all(&sent[from..from + size]).await.unwrap();
                from += size;
                tokio::task::yield_now().await;
            }
            theirs
        };
        let receiving = async {
            let mut received = Vec::new();
            let mut buffer = [0; 4_096];
            while received.len() < expected.len() {
                let read = ours.read(&mut buffer[..1 + received.len() % 4_096]).await.unwrap();
                received.extend_from_slice(&buffer[..read]);
            }
            received
        };
        let (mut theirs, received) = tokio::join!(sending, receiving);
        assert!(received == expected);
        assert!(ours.ahead.is_empty());
        theirs.write_all(b"x").await.unwrap();
        assert_eq!(ours.read(&mut [0; 4_096]).await.unwrap(), 1);
        let waiting = std::future::poll_fn(|cx| {
            let mut buffer = [0; 4_096];
            Poll::Ready(Pin::new(&mut ours).poll_read(cx, &mut ReadBuf::new(&mut buffer)).is_pending())
        });
        assert!(waiting.await);
        assert_eq!(ours.ahead.capacity(), 0);
    }
}
