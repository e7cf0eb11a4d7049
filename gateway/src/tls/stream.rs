//! Records on a socket.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::records::{Opened, RecordError, Records};
use crate::stream::ReadSize;

/// A connection whose handshake is done.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    records: Records,
    /// What was read and not opened yet.
    received: BytesMut,
    read_size: ReadSize,
    /// What was opened and not taken yet.
    plain: BytesMut,
    /// Records that are not written yet, the first of them from `written` on.
    sealed: VecDeque<Vec<u8>>,
    written: usize,
    reading: Reading,
    /// The last record was sealed, or the peer wants none any more: an alert that ends the connection ends both directions
    /// (RFC 8446 §6.2).
    is_closed: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reading {
    Open,
    /// The peer has said that it has no more.
    Ended,
    Broken,
}

impl TlsStream {
    pub(super) fn new(tcp: TcpStream, records: Records, received: BytesMut, plain: BytesMut, ended: bool) -> Self {
        Self {
            tcp,
            records,
            received,
            read_size: ReadSize::new(),
            plain,
            sealed: VecDeque::new(),
            written: 0,
            reading: if ended { Reading::Ended } else { Reading::Open },
            is_closed: false,
        }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Appends what has come to `bytes`, without a copy where that is empty; the number of bytes, none at the end.
    pub(crate) fn poll_fill(&mut self, bytes: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(data) = ready!(self.poll_data(cx))? else { return Poll::Ready(Ok(0)) };
        let amount = data.len();
        if bytes.is_empty() {
            *bytes = data;
        } else {
            bytes.extend_from_slice(&data);
        }
        Poll::Ready(Ok(amount))
    }

    /// The next data, which is not empty; none at the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
        if !self.plain.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.plain))));
        }
        loop {
            match self.reading {
                Reading::Open => {}
                Reading::Ended => return Poll::Ready(Ok(None)),
                Reading::Broken => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            }
            match self.records.open(&mut self.received) {
                Ok(Some(Opened::Data(data))) => return Poll::Ready(Ok(Some(data))),
                Ok(Some(Opened::Control)) => {}
                Ok(Some(Opened::Closed)) => self.reading = Reading::Ended,
                Ok(None) => ready!(self.poll_receive(cx))?,
                Err(error) => {
                    self.reading = Reading::Broken;
                    self.explain(&error, cx);
                    self.is_closed = true;
                    return Poll::Ready(Err(broken(error)));
                }
            }
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let read = self.read_size.poll_read(&mut self.tcp, &mut self.received, cx);
        if read.is_pending() && self.received.is_empty() {
            // Nothing is held while nothing comes.
            self.received = BytesMut::new();
        }
        match ready!(read)? {
            0 => {
                let truncated = "the peer closed the connection without TLS close_notify";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, truncated)))
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Tells the peer what is wrong, as far as the socket takes it at once.
    fn explain(&mut self, error: &RecordError, cx: &mut Context<'_>) {
        if let Some(alert) = error.alert().filter(|_| !self.is_closed)
            && self.records.seal_alert(alert, &mut self.sealed).is_ok()
        {
            let _heard = self.poll_send(cx);
        }
    }

    /// Seals and sends some of `chunks`.
    fn poll_seal(&mut self, chunks: &[&[u8]], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // What waits is bounded: more is sealed when the socket has taken it.
        ready!(self.poll_send(cx))?;
        if self.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = self.records.seal(chunks, MOST_RECORDS, &mut self.sealed).map_err(broken)?;
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    /// Writes the records that wait.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(first) = self.sealed.front() {
            let first = &first[self.written..];
            let tcp = Pin::new(&mut self.tcp);
            let written = if self.sealed.len() == 1 {
                ready!(tcp.poll_write(cx, first))?
            } else {
                let mut slices = [IoSlice::new(first); MOST_SLICES];
                for (slice, record) in slices.iter_mut().zip(&self.sealed).skip(1) {
                    *slice = IoSlice::new(record);
                }
                ready!(tcp.poll_write_vectored(cx, &slices[..self.sealed.len().min(MOST_SLICES)]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, written: usize) {
        self.written += written;
        while let Some(first) = self.sealed.front()
            && self.written >= first.len()
        {
            self.written -= first.len();
            self.sealed.pop_front();
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(mut data) = ready!(this.poll_data(cx))? {
            let amount = data.len().min(buf.remaining());
            buf.put_slice(&data[..amount]);
            data.advance(amount);
            if !data.is_empty() {
                this.plain = data;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(&[buf], cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut chunks = [&[][..]; MOST_CHUNKS];
        let count = bufs.len().min(MOST_CHUNKS);
        for (chunk, buf) in chunks.iter_mut().zip(bufs) {
            *chunk = buf;
        }
        self.get_mut().poll_seal(&chunks[..count], cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_closed {
            this.is_closed = true;
            this.records.seal_alert(AlertDescription::CloseNotify, &mut this.sealed).map_err(broken)?;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

/// Without the bytes: they are what somebody has asked or was answered.
impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("tcp", &self.tcp)
            .field("records", &self.records)
            .field("reading", &self.reading)
            .field("is_closed", &self.is_closed)
            .finish_non_exhaustive()
    }
}

/// A connection that can't go on, for those who wait for its bytes.
pub(super) fn broken(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What is sealed ahead of the socket: 64 KiB.
const MOST_RECORDS: usize = 4;
/// The same, and a change of key, and a last word.
const MOST_SLICES: usize = MOST_RECORDS + 2;
/// Taken of one vectored write; what is behind them comes with the next.
const MOST_CHUNKS: usize = 32;
