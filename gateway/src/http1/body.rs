//! Bodies of HTTP/1.1: by length, by chunks (RFC 9112 §7.1), or up to the end of the connection.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::SizeHint;
use memchr::memchr;

use super::outgoing::Outgoing;

/// How a body's end is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Length {
    Exact(u64),
    Chunked,
    /// Of answers alone.
    UntilClose,
}

/// Takes a body out of what is read, piece by piece, without a copy.
#[derive(Debug)]
pub(crate) struct Decoder {
    at: At,
    /// The lines after the last chunk, as far as they have come.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    Exact { left: u64 },
    UntilClose,
    Size { size: u64, digits: u8 },
    Extension { size: u64, length: u16 },
    SizeEnd { size: u64 },
    Chunk { left: u64 },
    ChunkCr,
    ChunkLf,
    Trailers,
    End,
}

/// A part of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// A chunk or a trailer that is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BadChunk;

impl Decoder {
    pub(crate) fn new(length: Length) -> Self {
        let at = match length {
            Length::Exact(0) => At::End,
            Length::Exact(left) => At::Exact { left },
            Length::Chunked => At::SIZE,
            Length::UntilClose => At::UntilClose,
        };
        Self { at, trailers: Vec::new() }
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.at == At::End
    }

    /// Whether the end of the connection is the end of this body.
    pub(crate) fn ends_with_connection(&self) -> bool {
        self.at == At::UntilClose
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.at {
            At::Exact { left } => SizeHint::with_exact(left),
            At::End => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }

    /// The next part that `bytes` hold, which is taken out of them; none when more bytes are needed or the body has ended.
    pub(crate) fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Piece>, BadChunk> {
        while !bytes.is_empty() {
            match &mut self.at {
                At::End => return Ok(None),
                At::UntilClose => return Ok(Some(Piece::Data(bytes.split().freeze()))),
                At::Exact { left } => {
                    let data = take(left, bytes);
                    if *left == 0 {
                        self.at = At::End;
                    }
                    return Ok(Some(Piece::Data(data)));
                }
                At::Chunk { left } => {
                    let data = take(left, bytes);
                    if *left == 0 {
                        self.at = At::ChunkCr;
                    }
                    return Ok(Some(Piece::Data(data)));
                }
                At::Trailers => {
                    if let Some(trailers) = self.trailers(bytes)? {
                        self.at = At::End;
                        return Ok(trailers.map(Piece::Trailers));
                    }
                }
                at => {
                    *at = at.after(bytes[0]).ok_or(BadChunk)?;
                    let _ = bytes.split_to(1);
                }
            }
        }
        Ok(None)
    }

    /// Some once the empty line has come that ends them; within it none when there were none.
    fn trailers(&mut self, bytes: &mut BytesMut) -> Result<Option<Option<HeaderMap>>, BadChunk> {
        let line = memchr(b'\n', bytes).map_or(bytes.len(), |line_feed| line_feed + 1);
        self.trailers.extend_from_slice(&bytes.split_to(line));
        if self.trailers.len() > MAX_TRAILERS {
            return Err(BadChunk);
        }
        if !self.trailers.ends_with(b"\n") {
            return Ok(None);
        }
        if !self.trailers.ends_with(b"\r\n") {
            return Err(BadChunk);
        }
        if self.trailers != b"\r\n" && !self.trailers.ends_with(b"\r\n\r\n") {
            return Ok(None);
        }
        let mut lines = [httparse::EMPTY_HEADER; MAX_TRAILER_LINES];
        match httparse::parse_headers(&self.trailers, &mut lines) {
            Ok(httparse::Status::Complete((_, []))) => Ok(Some(None)),
            Ok(httparse::Status::Complete((_, lines))) => {
                let mut map = HeaderMap::with_capacity(lines.len());
                for line in lines {
                    let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| BadChunk)?;
                    map.append(name, HeaderValue::from_bytes(line.value).map_err(|_| BadChunk)?);
                }
                Ok(Some(Some(map)))
            }
            Ok(httparse::Status::Partial) | Err(_) => Err(BadChunk),
        }
    }
}

impl At {
    const SIZE: Self = Self::Size { size: 0, digits: 0 };

    /// The place after one byte of what is around chunks; none when the byte may not be there.
    fn after(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < MAX_SIZE_DIGITS => {
                let digit = char::from(byte).to_digit(16)?;
                Some(Self::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
            }
            (Self::Size { size, digits: 1.. }, b'\r') => Some(Self::SizeEnd { size }),
            (Self::Size { size, digits: 1.. }, b';') => Some(Self::Extension { size, length: 0 }),
            (Self::Extension { size, .. }, b'\r') => Some(Self::SizeEnd { size }),
            (Self::Extension { size, length }, b'\t' | b' '..=b'~' | 0x80..) if length < MAX_EXTENSION => {
                Some(Self::Extension { size, length: length + 1 })
            }
            (Self::SizeEnd { size: 0 }, b'\n') => Some(Self::Trailers),
            (Self::SizeEnd { size }, b'\n') => Some(Self::Chunk { left: size }),
            (Self::ChunkCr, b'\r') => Some(Self::ChunkLf),
            (Self::ChunkLf, b'\n') => Some(Self::SIZE),
            _ => None,
        }
    }
}

fn take(left: &mut u64, bytes: &mut BytesMut) -> Bytes {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= taken as u64;
    if taken == bytes.len() { bytes.split().freeze() } else { bytes.split_to(taken).freeze() }
}

/// Puts a body into what is written.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Encoder {
    length: Length,
}

/// A body of another length than its head has told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct WrongLength;

impl Encoder {
    pub(crate) fn new(length: Length) -> Self {
        Self { length }
    }

    /// Whether nothing may come any more, not even an end.
    pub(crate) fn is_full(&self) -> bool {
        self.length == Length::Exact(0)
    }

    pub(crate) fn data(&mut self, data: Bytes, out: &mut Outgoing) -> Result<(), WrongLength> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.length {
            Length::Exact(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
                out.push(data);
            }
            Length::Chunked => {
                out.text(size_line(data.len(), &mut [0; 18]));
                out.push(data);
                out.text(b"\r\n");
            }
            Length::UntilClose => out.push(data),
        }
        Ok(())
    }

    pub(crate) fn end(self, trailers: Option<&HeaderMap>, out: &mut Outgoing) -> Result<(), WrongLength> {
        match self.length {
            Length::Exact(0) | Length::UntilClose => Ok(()),
            Length::Exact(_) => Err(WrongLength),
            Length::Chunked => {
                let Some(trailers) = trailers else {
                    out.text(b"0\r\n\r\n");
                    return Ok(());
                };
                let mut last = b"0\r\n".to_vec();
                for (name, value) in trailers {
                    super::head::write_line(&mut last, name, value);
                }
                last.extend_from_slice(b"\r\n");
                out.text(&last);
                Ok(())
            }
        }
    }
}

/// The line before a chunk, written from the end of `line`.
fn size_line(mut size: usize, line: &mut [u8; 18]) -> &[u8] {
    line[16..].copy_from_slice(b"\r\n");
    let mut from = 16;
    loop {
        from -= 1;
        line[from] = HEX[size & 15];
        size >>= 4;
        if size == 0 {
            return &line[from..];
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// As many as fit 60 bits: sums cannot overflow.
const MAX_SIZE_DIGITS: u8 = 15;
const MAX_EXTENSION: u16 = 256;
const MAX_TRAILERS: usize = 16 << 10;
const MAX_TRAILER_LINES: usize = 100;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::task::Context;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default, Eq, PartialEq)]
    struct Whole {
        data: Vec<u8>,
        trailers: Vec<String>,
        rest: Vec<u8>,
    }

    /// The body at the beginning of `bytes`, which come in pieces of `size`; none when it has not ended.
    fn decoded(length: Length, bytes: &[u8], size: usize) -> Result<Option<Whole>, BadChunk> {
        let mut decoder = Decoder::new(length);
        let mut whole = Whole::default();
        let mut unread = BytesMut::new();
        for piece in bytes.chunks(size) {
            unread.extend_from_slice(piece);
            while let Some(piece) = decoder.next(&mut unread)? {
                match piece {
                    Piece::Data(data) => whole.data.extend_from_slice(&data),
                    Piece::Trailers(map) => whole.trailers.extend(map.keys().map(|name| name.as_str().to_owned())),
                }
            }
        }
        whole.rest = unread.to_vec();
        Ok(decoder.is_ended().then_some(whole))
    }

    fn in_any_pieces(length: Length, bytes: &[u8]) -> Result<Option<Whole>, BadChunk> {
        let whole = decoded(length, bytes, bytes.len().max(1));
        for size in 1..bytes.len() {
            assert_eq!(decoded(length, bytes, size), whole, "{size} of {}", bytes.escape_ascii());
        }
        whole
    }

    #[test]
    fn a_body_ends_where_its_length_or_its_last_chunk_does() {
        for (length, bytes, data, trailers, rest) in [
            (Length::Exact(5), "helloGET", "hello", &[][..], "GET"),
            (Length::Chunked, "5\r\nhello\r\n0\r\n\r\nGET", "hello", &[], "GET"),
            (
                Length::Chunked,
                "A;x=\"y z\"\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\na: b\r\nc: d\r\n\r\n",
                "\r\n\r\n\r\n\r\n\r\n",
                &["a", "c"],
                "",
            ),
            (Length::Chunked, "1\r\na\r\n01\r\nb\r\n000\r\n\r\n", "ab", &[], ""),
        ] {
            let whole = in_any_pieces(length, bytes.as_bytes()).unwrap().unwrap();
            assert_eq!(whole.data, data.as_bytes(), "{bytes:?}");
            assert_eq!(whole.trailers, trailers, "{bytes:?}");
            assert_eq!(whole.rest, rest.as_bytes(), "{bytes:?}");
        }
        assert_eq!(in_any_pieces(Length::Chunked, b"5\r\nhello\r\n0\r\n"), Ok(None));
        assert_eq!(in_any_pieces(Length::Exact(9), b"hello"), Ok(None));
        assert_eq!(in_any_pieces(Length::UntilClose, b"hello"), Ok(None));
    }

    #[test]
    fn bad_chunks_are_refused() {
        for body in [
            "x\r\n",
            "\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "-1\r\n",
            "0x5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "ffffffffffffffffff\r\n",
            "5;a\nb\r\nhello",
            "5\rX",
            "5\r\nhello\rX0\r\n\r\n",
            ";a\r\n\r\n",
            "0\r\n\n",
            "0\r\na: b\n\r\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\na b: c\r\n\r\n",
        ] {
            assert_eq!(in_any_pieces(Length::Chunked, body.as_bytes()), Err(BadChunk), "{body:?}");
        }
    }

    #[test]
    fn endless_trailers_and_extensions_are_refused() {
        let lines = format!("0\r\n{}", "a: b\r\n".repeat(10_000));
        assert_eq!(decoded(Length::Chunked, lines.as_bytes(), 1_000), Err(BadChunk));
        let line = format!("0\r\na: {}", "b".repeat(100_000));
        assert_eq!(decoded(Length::Chunked, line.as_bytes(), 1_000), Err(BadChunk));
        for (lines, refused) in [(100, false), (101, true)] {
            let lines = format!("0\r\n{}\r\n", "a: b\r\n".repeat(lines));
            assert_eq!(decoded(Length::Chunked, lines.as_bytes(), 1_000).is_err(), refused);
        }
        let extension = format!("5;{}", "b".repeat(1_000));
        assert_eq!(decoded(Length::Chunked, extension.as_bytes(), 100), Err(BadChunk));
    }

    #[test]
    fn a_body_is_as_long_as_its_head_has_told() {
        let mut out = Outgoing::default();
        let mut encoder = Encoder::new(Length::Exact(4));
        assert_eq!(encoder.data(Bytes::from_static(b"12345"), &mut out), Err(WrongLength));
        let mut encoder = Encoder::new(Length::Exact(4));
        assert_eq!(encoder.data(Bytes::from_static(b"123"), &mut out), Ok(()));
        assert_eq!(encoder.end(None, &mut out), Err(WrongLength));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4_000), 0..6),
            trailer in any::<bool>(),
            size in 1_usize..700,
        ) {
            let mut out = Outgoing::default();
            let mut encoder = Encoder::new(Length::Chunked);
            for piece in &pieces {
                encoder.data(Bytes::from(piece.clone()), &mut out).unwrap();
            }
            let trailers = HeaderMap::from_iter([(HeaderName::from_static("a"), HeaderValue::from_static("b"))]);
            encoder.end(trailer.then_some(&trailers), &mut out).unwrap();
            let mut written = Vec::new();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            prop_assert!(out.poll_flush(&mut written, &mut cx).is_ready());
            let whole = decoded(Length::Chunked, &written, size).unwrap().unwrap();
            prop_assert_eq!(whole.data, pieces.concat());
            prop_assert_eq!(whole.trailers.len(), usize::from(trailer));
            prop_assert!(whole.rest.is_empty());
        }

        #[test]
        fn any_bytes_get_one_verdict_in_whatever_pieces(
            bytes in "([0-9a-f]{1,2}\r\n|\r\n|0\r\n|[a\n\r:; 0]){0,20}",
            size in 1_usize..50,
        ) {
            let whole = decoded(Length::Chunked, bytes.as_bytes(), bytes.len().max(1));
            prop_assert_eq!(decoded(Length::Chunked, bytes.as_bytes(), size), whole);
        }
    }
}
