//! Where in HTTP/2's frames a connection is, so that a head that never ends is noticed.
//!
//! A header block may go on over any number of CONTINUATION frames (RFC 9113 §4.3), and hyper waits for its end without a
//! limit of time. So [`Followed`] stands between the connection and hyper, reads the nine bytes before each frame, and tells
//! whether a head has begun and not ended. It judges nothing: what is wrong with the frames is hyper's to refuse.
//!
//! Budget: some nanoseconds for each frame; a payload is skipped by its length.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::{Activity, Heads};
use crate::stream::Stream;

/// A connection whose HTTP/2 frames are followed while they are read.
#[derive(Debug)]
pub(crate) struct Followed {
    inner: Stream,
    /// Bytes that were read to tell the protocol, before those of `inner`.
    first: Vec<u8>,
    frames: Frames,
    activity: Rc<Activity>,
}

/// What the bytes so far say.
#[derive(Debug)]
struct Frames {
    at: At,
    /// Of the frame under way, as far as it is known.
    header: [u8; HEADER],
    heads: Heads,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    Preface { left: usize },
    Header { known: usize },
    Payload { left: usize },
}

impl Followed {
    /// `first` are bytes of the connection that were read already.
    pub(crate) fn new(inner: Stream, first: Vec<u8>, activity: Rc<Activity>) -> Self {
        Self { inner, first, frames: Frames::new(), activity }
    }
}

impl AsyncRead for Followed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let from = buf.filled().len();
        if this.first.is_empty() {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        } else {
            let amount = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first[..amount]);
            this.first.drain(..amount);
        }
        this.frames.advance(&buf.filled()[from..]);
        this.activity.note_heads(this.frames.heads);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Followed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl Frames {
    fn new() -> Self {
        Self { at: At::Preface { left: PREFACE.len() }, header: [0; HEADER], heads: Heads::default() }
    }

    fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = match self.at {
                At::Preface { left } => self.preface(left, bytes),
                At::Header { known } => self.header(known, bytes),
                At::Payload { left } => self.payload(left, bytes),
            };
            bytes = &bytes[taken..];
        }
    }

    /// The preface counts as a head: nothing can be asked before it.
    fn preface(&mut self, left: usize, bytes: &[u8]) -> usize {
        let taken = left.min(bytes.len());
        if taken == left {
            self.at = At::Header { known: 0 };
            self.heads.end();
        } else {
            self.at = At::Preface { left: left - taken };
            self.heads.amid = true;
        }
        taken
    }

    fn header(&mut self, known: usize, bytes: &[u8]) -> usize {
        let taken = (HEADER - known).min(bytes.len());
        self.header[known..known + taken].copy_from_slice(&bytes[..taken]);
        let known = known + taken;
        if known > KIND && matches!(self.header[KIND], HEADERS | CONTINUATION) {
            self.heads.amid = true;
        }
        if known < HEADER {
            self.at = At::Header { known };
        } else {
            let [high, middle, low, ..] = self.header;
            self.payload(u32::from_be_bytes([0, high, middle, low]) as usize, &[]);
        }
        taken
    }

    fn payload(&mut self, left: usize, bytes: &[u8]) -> usize {
        let taken = left.min(bytes.len());
        if taken < left {
            self.at = At::Payload { left: left - taken };
            return taken;
        }
        self.at = At::Header { known: 0 };
        if matches!(self.header[KIND], HEADERS | CONTINUATION) && self.header[FLAGS] & END_HEADERS != 0 {
            self.heads.end();
        }
        taken
    }
}

/// With which HTTP/2 begins (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame's length, type, flags and stream (RFC 9113 §4.1), and where the two are that matter here.
const HEADER: usize = 9;
const KIND: usize = 3;
const FLAGS: usize = 4;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATA: u8 = 0x0;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, 1];
        // Payloads that look like the beginning of a head.
        bytes.extend((0..length).map(|at| [0, 0, 9, HEADERS][at % 4]));
        bytes
    }

    fn heads_after(pieces: &[&[u8]]) -> Heads {
        let mut frames = Frames::new();
        pieces.iter().for_each(|piece| frames.advance(piece));
        frames.heads
    }

    #[test]
    fn a_head_lasts_from_its_first_bytes_to_the_frame_with_end_headers() {
        let (whole, open) = (frame(HEADERS, END_HEADERS, 20), frame(HEADERS, 0, 20));
        let (more, last) = (frame(CONTINUATION, 0, 20), frame(CONTINUATION, END_HEADERS, 0));
        let data = frame(DATA, END_HEADERS, 20);
        for (pieces, ended, amid) in [
            (vec![], 1, false),
            (vec![&whole[..]], 2, false),
            (vec![&whole[..3]], 1, false),
            (vec![&whole[..4]], 1, true),
            (vec![&whole[..9]], 1, true),
            (vec![&whole[..28]], 1, true),
            (vec![&open[..]], 1, true),
            (vec![&open[..], &more], 1, true),
            (vec![&open[..], &more, &last], 2, false),
            (vec![&whole[..], &whole, &open], 3, true),
            (vec![&data[..]], 1, false),
            (vec![&data[..9]], 1, false),
            (vec![&data[..15]], 1, false),
            (vec![&whole[..], &data[..9]], 2, false),
        ] {
            let heads = heads_after(&[&[PREFACE], &pieces[..]].concat());
            assert_eq!(heads, Heads { ended, amid }, "{pieces:?}");
        }
    }

    #[test]
    fn the_preface_is_the_first_head() {
        assert_eq!(heads_after(&[]), Heads { ended: 0, amid: false });
        assert_eq!(heads_after(&[&PREFACE[..1]]), Heads { ended: 0, amid: true });
        assert_eq!(heads_after(&[PREFACE]), Heads { ended: 1, amid: false });
    }

    proptest! {
        /// However a connection's bytes are cut into reads, the end of each read says what the bytes up to it say.
        #[test]
        fn the_pieces_do_not_matter(
            parts in prop::collection::vec((0_u8..12, any::<u8>(), 0_usize..600), 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut bytes = PREFACE.to_vec();
            for (kind, flags, length) in parts {
                bytes.extend(frame(kind, flags, length));
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut pieces = Frames::new();
            let mut from = 0;
            for cut in cuts {
                pieces.advance(&bytes[from..cut]);
                from = cut;
                prop_assert_eq!(pieces.heads, heads_after(&[&bytes[..cut]]));
                let bytewise: Vec<&[u8]> = bytes[..cut].chunks(1).collect();
                prop_assert_eq!(pieces.heads, heads_after(&bytewise));
            }
        }
    }
}
