//! The laws of the parsers of HTTP/1.1, for `fuzz/targets/http1.rs` to hold them against any bytes.
//!
//! Absent from every other build but that of the tests.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Version};

use crate::http::headers;
use crate::http1::body::{BadChunk, Decoder, Encoder, Length, Piece};
use crate::http1::head::{self, Caller, Persistence};
use crate::http1::length::end_of_head;
use crate::http1::outgoing::Outgoing;

/// Reads `bytes` as everything that they may be to a gateway. The first of them says in pieces of what size they come.
pub fn http1(bytes: &[u8]) {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let size = usize::from(size).max(1);
    requests(bytes, size);
    answer(bytes, size);
    body(Length::Chunked, bytes, size);
    body(Length::Exact(u64::from(bytes.first().copied().unwrap_or_default())), bytes, size);
}

/// What a caller sends on one connection: no two readers may cut it differently.
fn requests(mut bytes: &[u8], size: usize) {
    loop {
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
        }
        let Some((head, rest)) = cut_head(bytes, size) else { return };
        let Ok(read) = head::request(Bytes::copy_from_slice(head), MAX_LINES) else { return };
        assert_eq!(lines_of(head), lines_of_map(&read.parts.headers), "{}", head.escape_ascii());
        let lengths: Vec<_> = read.parts.headers.get_all(CONTENT_LENGTH).iter().map(HeaderValue::as_bytes).collect();
        let encodings: Vec<_> =
            read.parts.headers.get_all(TRANSFER_ENCODING).iter().map(HeaderValue::as_bytes).collect();
        match read.length {
            Length::Chunked => {
                assert!(lengths.is_empty() && encodings.len() == 1, "{}", head.escape_ascii());
                assert!(encodings[0].eq_ignore_ascii_case(b"chunked"));
                assert_eq!(read.parts.version, Version::HTTP_11);
            }
            Length::Exact(length) => {
                assert!(encodings.is_empty() && lengths.len() <= 1, "{}", head.escape_ascii());
                let told = lengths.first().map_or(0, |told| str::from_utf8(told).unwrap().parse().unwrap());
                assert_eq!(length, told);
            }
            Length::UntilClose => panic!("a request whose end nobody knows: {}", head.escape_ascii()),
        }
        let length = read.length;
        passed_on(read);
        let Some(end) = body(length, rest, size) else { return };
        bytes = &rest[end..];
    }
}

/// What an upstream gets is what was asked, and reads the same to whoever reads as strictly.
fn passed_on(head: head::Head<http::request::Parts>) {
    let head::Head { mut parts, length, .. } = head;
    let Ok(outline) = headers::of_request(&mut parts, Some(&HeaderValue::from_static("By=us"))) else { return };
    let mut request = Request::from_parts(parts, ());
    outline.to_http1(&mut request, &HeaderValue::from_static("upstream"));
    let mut written = Vec::new();
    head::write_request(&mut written, &request, length);
    let text = written.escape_ascii().to_string();
    let again = head::request(written.into(), MAX_LINES + ADDED).unwrap_or_else(|why| panic!("{why:?}: {text}"));
    assert_eq!(again.length, length, "{text}");
    assert_eq!(again.parts.method, *request.method(), "{text}");
    assert_eq!(again.parts.uri.to_string(), request.uri().path_and_query().unwrap().to_string(), "{text}");
    assert_eq!(unframed(again.parts.headers), unframed(request.into_parts().0.headers), "{text}");
}

/// An answer of an upstream, to whoever may have asked, and what that caller reads.
fn answer(bytes: &[u8], size: usize) {
    let Some((head, rest)) = cut_head(bytes, size) else { return };
    for method in [Method::GET, Method::HEAD] {
        let Some(read) = head::answer(Bytes::copy_from_slice(head), &method) else { continue };
        let lengths: Vec<_> = read.parts.headers.get_all(CONTENT_LENGTH).iter().collect();
        match read.length {
            Length::Exact(0) => {}
            Length::Exact(length) => {
                assert!(!read.parts.headers.contains_key(TRANSFER_ENCODING), "{}", head.escape_ascii());
                assert!(!lengths.is_empty());
                assert!(lengths.iter().all(|told| told.to_str().unwrap().parse() == Ok(length)));
            }
            Length::Chunked => {
                assert_eq!(read.parts.headers.get_all(TRANSFER_ENCODING).iter().count(), 1);
                assert_eq!(read.parts.version, Version::HTTP_11);
            }
            Length::UntilClose => {
                assert!(lengths.is_empty());
                assert_eq!(read.connection, Persistence::Close);
            }
        }
        body(read.length, rest, size);

        let mut parts = read.parts;
        headers::of_answer(&mut parts);
        if parts.headers.len() > MAX_LINES - ADDED {
            // What is added may be more lines than are read here.
            continue;
        }
        let exact = if let Length::Exact(exact) = read.length { Some(exact) } else { None };
        for version in [Version::HTTP_10, Version::HTTP_11] {
            let caller = Caller { method: method.clone(), version };
            let length = head::length_for(&parts, &caller, exact);
            let mut written = Vec::new();
            head::write_answer(&mut written, &parts, &caller, length, Persistence::Keep);
            let text = written.escape_ascii().to_string();
            let again = head::answer(written.into(), &method).unwrap_or_else(|| panic!("not read again: {text}"));
            assert_eq!((again.length, again.parts.status), (length, parts.status), "{text}");
            let length_in = |headers: &HeaderMap| headers.get_all(CONTENT_LENGTH).iter().count();
            assert!(length_in(&again.parts.headers) <= 1, "{text}");
            assert_eq!(unframed(again.parts.headers), unframed(parts.headers.clone()), "{text}");
        }
    }
}

/// Where a head ends, found alike however it comes.
fn cut_head(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let end = end_of_head(bytes, 0);
    let mut come = 0;
    let mut searched = 0;
    let in_pieces = loop {
        if let Some(end) = end_of_head(&bytes[..come], searched) {
            break Some(end);
        }
        if come == bytes.len() {
            break None;
        }
        searched = come.saturating_sub(3);
        come = (come + size).min(bytes.len());
    };
    assert_eq!(in_pieces, end, "{}", bytes.escape_ascii());
    end.map(|end| bytes.split_at(end))
}

/// The length in `bytes` of the body that they begin with; none when it has not ended, or is none.
fn body(length: Length, bytes: &[u8], size: usize) -> Option<usize> {
    let whole = decoded(length, bytes, bytes.len().max(1));
    assert_eq!(decoded(length, bytes, size), whole, "{length:?} {}", bytes.escape_ascii());
    let whole = whole.ok().flatten()?;
    let end = whole.end;
    assert_eq!(decoded(length, &bytes[..end], size), Ok(Some(whole.clone())), "it looks beyond its end");
    if end > 0 {
        assert_eq!(decoded(length, &bytes[..end - 1], size), Ok(None), "it needs its last byte");
    }
    match length {
        Length::Exact(length) => {
            assert_eq!(end as u64, length);
            assert_eq!(whole.data, bytes[..end]);
        }
        Length::Chunked => {
            assert_eq!(chunks(bytes), Some((whole.data.clone(), end)), "{}", bytes.escape_ascii());
            assert_eq!(encoded_again(&whole, size), whole.data);
        }
        Length::UntilClose => panic!("it ended by itself"),
    }
    Some(end)
}

/// A body that has come to its end.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Whole {
    data: Vec<u8>,
    trailers: HeaderMap,
    end: usize,
}

fn decoded(length: Length, bytes: &[u8], size: usize) -> Result<Option<Whole>, BadChunk> {
    let mut decoder = Decoder::new(length);
    let mut whole = Whole::default();
    let mut unread = BytesMut::new();
    for piece in bytes.chunks(size) {
        if decoder.is_ended() {
            break;
        }
        unread.extend_from_slice(piece);
        whole.end += piece.len();
        while let Some(piece) = decoder.next(&mut unread)? {
            match piece {
                Piece::Data(data) => whole.data.extend_from_slice(&data),
                Piece::Trailers(trailers) => whole.trailers = trailers,
            }
        }
    }
    whole.end -= unread.len();
    Ok(decoder.is_ended().then_some(whole))
}

/// The same body in chunks of our own, read once more.
fn encoded_again(whole: &Whole, size: usize) -> Vec<u8> {
    let mut out = Outgoing::default();
    let mut encoder = Encoder::new(Length::Chunked);
    let mut written = Vec::new();
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    for piece in whole.data.chunks(size) {
        encoder.data(Bytes::copy_from_slice(piece), &mut out).unwrap();
        assert!(out.poll_flush(&mut written, &mut cx).is_ready());
    }
    encoder.end((!whole.trailers.is_empty()).then_some(&whole.trailers), &mut out).unwrap();
    assert!(out.poll_flush(&mut written, &mut cx).is_ready());
    let again = decoded(Length::Chunked, &written, written.len()).unwrap().unwrap();
    assert_eq!((again.end, again.trailers), (written.len(), whole.trailers.clone()));
    again.data
}

/// Chunks as RFC 9112 §7.1 has them, read from the whole at once: the data, and where the body ends.
fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let line_end = at + find(&bytes[at..], b"\r\n")?;
        let line = str::from_utf8(bytes[at..line_end].split(|byte| *byte == b';').next()?).ok()?;
        let chunk = line_end + 2;
        let size = usize::from_str_radix(line, 16).ok().filter(|_| !line.starts_with('+'))?;
        if size == 0 {
            // With the end of the last line, so that none after it is an end too.
            return Some((data, line_end + find(&bytes[line_end..], b"\r\n\r\n")? + 4));
        }
        data.extend_from_slice(bytes.get(chunk..chunk + size)?);
        at = chunk + size + 2;
        if bytes.get(chunk + size..at)? != b"\r\n" {
            return None;
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The names and values of a head in the plainest reading, sorted.
fn lines_of(head: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text = head.strip_suffix(b"\r\n\r\n").expect("an empty line ends a head");
    let mut lines = Vec::new();
    for line in text.split(|byte| *byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(line.iter().all(|byte| !matches!(byte, b'\r' | b'\0')), "{}", head.escape_ascii());
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').expect("a name"));
        let name = str::from_utf8(name).expect("a name in ASCII").to_ascii_lowercase();
        lines.push((name, value[1..].trim_ascii().to_vec()));
    }
    lines.sort();
    lines
}

fn lines_of_map(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    lines.sort();
    lines
}

/// Without what the writer says of itself.
fn unframed(mut headers: HeaderMap) -> HeaderMap {
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION] {
        headers.remove(name);
    }
    headers
}

const MAX_LINES: usize = 100;
/// `x-forwarded-client-cert`, `host`, `te` and `connection`, and the length.
const ADDED: usize = 5;

#[cfg(test)]
mod tests {
    /// So that the laws are kept where nobody fuzzes.
    #[test]
    fn messages_keep_the_laws_in_whatever_pieces_they_come() {
        for bytes in [
            "GET /a?b HTTP/1.1\r\nhost: a\r\n\r\nPOST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\na: b\r\n\r\nGET",
            "GET http://a?b HTTP/1.1\r\nhost: a\r\nte: trailers\r\ncookie: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.0 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
            "5\r\nhello\r\n0\r\na: b\r\n\r\n",
        ] {
            for size in 1..=u8::try_from(bytes.len()).unwrap() {
                super::http1(&[&[size], bytes.as_bytes()].concat());
            }
        }
    }
}
