//! What waits to be written to one connection: little enough that whoever does not read costs little.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

/// Heads and small pieces one after the other, so that they leave in one write; then large pieces, which are not copied.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    small: Vec<u8>,
    /// Of `small`, how much was written.
    written: usize,
    large: VecDeque<Bytes>,
    /// Bytes in `large`.
    queued: usize,
}

impl Outgoing {
    /// Whether one more piece may come.
    pub(crate) fn has_room(&self) -> bool {
        self.small.len() < SMALL_ROOM && self.queued < LARGE_ROOM && self.large.len() < SLICES
    }

    /// Where heads are put, which come before all pieces.
    pub(crate) fn head(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.large.is_empty(), "a head behind pieces");
        &mut self.small
    }

    /// Appends what is small and stays for the next write.
    pub(crate) fn text(&mut self, text: &[u8]) {
        if self.large.is_empty() {
            self.small.extend_from_slice(text);
        } else {
            self.queue(Bytes::copy_from_slice(text));
        }
    }

    /// Appends a piece. There must be room.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if self.large.is_empty() && piece.len() <= COPIED {
            self.small.extend_from_slice(&piece);
        } else {
            self.queue(piece);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
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
            let written = if self.large.is_empty() {
                ready!(stream.poll_write(cx, small))?
            } else {
                let mut slices = [IoSlice::new(&[]); 1 + SLICES + 1];
                slices[0] = IoSlice::new(small);
                for (slice, piece) in slices[1..].iter_mut().zip(&self.large) {
                    *slice = IoSlice::new(piece);
                }
                ready!(stream.poll_write_vectored(cx, &slices[..slices.len().min(1 + self.large.len())]))?
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

    fn queue(&mut self, piece: Bytes) {
        self.queued += piece.len();
        self.large.push_back(piece);
    }

    fn advance(&mut self, written: usize) {
        let of_small = written.min(self.small.len() - self.written);
        self.written += of_small;
        if self.written == self.small.len() {
            self.small.clear();
            self.written = 0;
        }
        let mut of_large = written - of_small;
        self.queued -= of_large;
        while let Some(piece) = self.large.front_mut() {
            if of_large < piece.len() {
                return piece.advance(of_large);
            }
            of_large -= piece.len();
            self.large.pop_front();
        }
    }
}

const SMALL_ROOM: usize = 16 << 10;
/// As much as rustls takes at once.
const LARGE_ROOM: usize = 256 << 10;
/// With the sizes of chunks between them.
const SLICES: usize = 20;
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
                        outgoing.push(piece);
                        outgoing.text(b"\r\n");
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
