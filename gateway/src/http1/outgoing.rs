//! What waits to be written to one connection: little enough that whoever does not read costs little.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

/// Heads and small pieces one after the other, so that they leave in one write; then one large piece that is not copied.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    small: Vec<u8>,
    /// Of `small`, how much was written.
    written: usize,
    large: Bytes,
    tail: &'static [u8],
}

impl Outgoing {
    /// Whether one more piece may come.
    pub(crate) fn has_room(&self) -> bool {
        self.large.is_empty() && self.tail.is_empty() && self.small.len() < ROOM
    }

    /// Where heads are put.
    pub(crate) fn head(&mut self) -> &mut Vec<u8> {
        &mut self.small
    }

    /// Appends a piece, and what comes after it. There must be room.
    pub(crate) fn push(&mut self, piece: Bytes, tail: &'static [u8]) {
        if piece.len() <= COPIED {
            self.small.extend_from_slice(&piece);
            self.small.extend_from_slice(tail);
        } else {
            self.large = piece;
            self.tail = tail;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty() && self.tail.is_empty()
    }

    /// Writes all of it, down to the socket.
    pub(crate) fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let small = &self.small[self.written..];
            let stream = Pin::new(&mut *stream);
            let written = if self.large.is_empty() && self.tail.is_empty() {
                ready!(stream.poll_write(cx, small))?
            } else {
                let slices = [IoSlice::new(small), IoSlice::new(&self.large), IoSlice::new(self.tail)];
                ready!(stream.poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Pin::new(stream).poll_flush(cx)
    }

    /// Gives back what memory it holds.
    pub(crate) fn release(&mut self) {
        *self = Self::default();
    }

    fn advance(&mut self, written: usize) {
        let of_small = written.min(self.small.len() - self.written);
        self.written += of_small;
        if self.written == self.small.len() {
            self.small.clear();
            self.written = 0;
        }
        let of_large = (written - of_small).min(self.large.len());
        self.large.advance(of_large);
        self.tail = &self.tail[written - of_small - of_large..];
    }
}

const ROOM: usize = 16 << 10;
/// A copy of this much costs less than an entry in a vector of slices.
const COPIED: usize = 2 << 10;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    proptest! {
        #[test]
        fn everything_leaves_once_and_in_order(pieces in prop::collection::vec(0_usize..6_000, 1..12), room in 1_usize..9_000) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut ours, mut theirs) = tokio::io::duplex(room);
                let mut expected = Vec::new();
                let mut outgoing = Outgoing::default();
                let writing = async {
                    for (number, length) in pieces.iter().enumerate() {
                        let piece = Bytes::from(vec![number as u8; *length]);
                        expected.extend_from_slice(&piece);
                        expected.extend_from_slice(b"\r\n");
                        outgoing.push(piece, b"\r\n");
                        if !outgoing.has_room() || number % 3 == 0 {
                            std::future::poll_fn(|cx| outgoing.poll_flush(&mut ours, cx)).await.unwrap();
                        }
                    }
                    std::future::poll_fn(|cx| outgoing.poll_flush(&mut ours, cx)).await.unwrap();
                    drop(ours);
                    expected
                };
                let mut read = Vec::new();
                let (expected, result) = tokio::join!(writing, theirs.read_to_end(&mut read));
                result.unwrap();
                assert_eq!(read, expected);
            });
        }
    }
}
