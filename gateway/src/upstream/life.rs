//! How long a connection over mTLS may be used, and its end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Surroundings;
use super::connect::Verified;
use crate::deadlines::{Deadline, Deadlines};
use crate::lifetime::{Order, Registered};
use crate::tls::TlsStream;

/// The life of one mTLS connection.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) retire_ms: i64,
    end: Deadline,
    control: Registered,
}

impl Live {
    pub(super) fn of(verified: &Verified, worker: &Surroundings) -> Self {
        let end = worker.deadlines.deadline();
        end.set_at(verified.lifetime.end_ms);
        Self {
            retire_ms: verified.lifetime.drain_ms,
            end,
            control: worker.registry.register(Some(verified.server.clone())),
        }
    }

    pub(super) fn is_retired(&self, deadlines: &Deadlines) -> bool {
        deadlines.may_have_passed(self.retire_ms) || self.control.order() != Order::Serve
    }

    /// Ready when the connection must be gone.
    pub(super) fn poll_end(&self, cx: &Context<'_>) -> Poll<()> {
        if let Order::End(_) = self.control.order() {
            return Poll::Ready(());
        }
        self.control.watch(cx);
        self.end.poll(cx).map(drop)
    }
}

/// A connection that others drive: it breaks off when it must be gone, and wakes whoever drives it.
#[derive(Debug)]
pub(super) struct LiveStream {
    pub(super) stream: Box<TlsStream>,
    pub(super) live: Live,
}

impl LiveStream {
    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        match self.live.poll_end(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

impl AsyncRead for LiveStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for LiveStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
