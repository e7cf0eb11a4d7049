//! Heads of HTTP/1.1 messages (RFC 9112 §2 to §6), read and written.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, request, response,
};
use httparse::{Header, ParserConfig, Status};

use super::body::Length;
use super::length::{self, Malformed, content_length};

/// A head and what follows from it for the connection.
#[derive(Debug)]
pub(crate) struct Head<P> {
    pub(crate) parts: P,
    pub(crate) length: Length,
    pub(crate) connection: Persistence,
}

/// Whether a connection may carry another message after this one (RFC 9112 §9.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Persistence {
    Keep,
    Close,
}

/// Reads the whole head of a request, its empty line included.
pub(crate) fn request(head: Bytes, max_lines: usize) -> Result<Head<request::Parts>, Malformed> {
    let length = length::of_request(&head)?;
    with_lines(max_lines, |lines| {
        let mut parsed = httparse::Request::new(&mut []);
        match ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, &head, lines) {
            Ok(Status::Complete(end)) if end == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLarge),
            Ok(_) | Err(_) => return Err(Malformed::Head),
        }
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else { return Err(Malformed::Head) };
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| Malformed::Head)?;
        parts.uri = Uri::from_maybe_shared(head.slice_ref(target.as_bytes())).map_err(|_| Malformed::Head)?;
        parts.version = version(parsed.version);
        parts.headers = map(&head, parsed.headers).ok_or(Malformed::Head)?;
        // HTTP/1.0 knows no chunks, and whoever sends them there reads the end elsewhere.
        if parts.version == Version::HTTP_10 && length == Length::Chunked {
            return Err(Malformed::Encoding);
        }
        let connection = persistence(parts.version, &parts.headers);
        Ok(Head { parts, length, connection })
    })
}

/// Reads the whole head of an answer to a request with this method.
pub(crate) fn answer(head: Bytes, method: &Method) -> Option<Head<response::Parts>> {
    with_lines(MAX_ANSWER_LINES, |lines| {
        let mut parsed = httparse::Response::new(&mut []);
        match ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, &head, lines) {
            Ok(Status::Complete(end)) if end == head.len() => {}
            Ok(_) | Err(_) => return None,
        }
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = StatusCode::from_u16(parsed.code?).ok()?;
        parts.version = version(parsed.version);
        parts.headers = map(&head, parsed.headers)?;
        let length = length_of_answer(&parts, method)?;
        let mut connection = persistence(parts.version, &parts.headers);
        if length == Length::UntilClose {
            connection = Persistence::Close;
        }
        Some(Head { parts, length, connection })
    })
}

/// RFC 9112 §6.3. None when the head contradicts itself.
fn length_of_answer(parts: &response::Parts, method: &Method) -> Option<Length> {
    if parts.status.is_informational() || has_no_body(parts.status) || *method == Method::HEAD {
        return Some(Length::Exact(0));
    }
    let mut encodings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next() {
        let chunked = encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        let known = chunked && encodings.next().is_none() && parts.version == Version::HTTP_11;
        return known.then_some(Length::Chunked);
    }
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter().map(|value| content_length(value.as_bytes()));
    let Some(first) = lengths.next() else { return Some(Length::UntilClose) };
    let first = first?;
    // Several that agree are one (RFC 9110 §8.6).
    lengths.all(|length| length == Some(first)).then_some(Length::Exact(first))
}

fn has_no_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn persistence(version: Version, headers: &HeaderMap) -> Persistence {
    let mut connection = if version == Version::HTTP_11 { Persistence::Keep } else { Persistence::Close };
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                return Persistence::Close;
            }
            if token.eq_ignore_ascii_case(b"keep-alive") {
                connection = Persistence::Keep;
            }
        }
    }
    connection
}

/// Writes the head of a request with a body of this length.
pub(crate) fn write_request<B>(out: &mut Vec<u8>, request: &Request<B>, length: Length) {
    out.reserve(COMMON_SIZE);
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    let target = request.uri();
    out.extend_from_slice(target.path_and_query().map_or("/", |path| path.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // An empty body need not be told of where nobody expects one (RFC 9110 §8.6).
    let bodiless = matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS);
    match length {
        Length::Exact(0) if bodiless => {}
        length => write_length(out, length),
    }
    write_lines(out, request.headers());
}

/// How the body of an answer is sent: told by what is known of it and of whom it is for.
pub(crate) fn length_for(parts: &response::Parts, caller: &Caller, exact: Option<u64>) -> Length {
    if has_no_body(parts.status) || caller.method == Method::HEAD {
        return Length::Exact(0);
    }
    match exact {
        Some(exact) => Length::Exact(exact),
        None if caller.version == Version::HTTP_11 => Length::Chunked,
        None => Length::UntilClose,
    }
}

/// What the form of an answer depends on.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) method: Method,
    pub(crate) version: Version,
}

/// Writes the head of an answer; it says that the connection ends when it does.
pub(crate) fn write_answer(
    out: &mut Vec<u8>,
    parts: &response::Parts,
    caller: &Caller,
    length: Length,
    connection: Persistence,
) {
    out.reserve(COMMON_SIZE);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(parts.status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    if caller.method == Method::HEAD || parts.status == StatusCode::NOT_MODIFIED {
        // Of the body that does not come.
        if let Some(length) = parts.headers.get(CONTENT_LENGTH) {
            write_line(out, &CONTENT_LENGTH, length);
        }
    } else if !has_no_body(parts.status) {
        write_length(out, length);
    }
    match connection {
        Persistence::Close => out.extend_from_slice(b"connection: close\r\n"),
        Persistence::Keep if caller.version == Version::HTTP_10 => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Persistence::Keep => {}
    }
    write_lines(out, &parts.headers);
}

fn write_length(out: &mut Vec<u8>, length: Length) {
    match length {
        Length::Exact(exact) => {
            out.extend_from_slice(b"content-length: ");
            write_decimal(out, exact);
            out.extend_from_slice(b"\r\n");
        }
        Length::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Length::UntilClose => {}
    }
}

/// Every line that does not say where the body ends, and the empty line.
fn write_lines(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            write_line(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_line(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[from..]);
        }
    }
}

/// The lines as a map whose values share the bytes of the head.
fn map(head: &Bytes, lines: &[Header<'_>]) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(lines.len() + ADDED);
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        map.append(name, HeaderValue::from_maybe_shared(head.slice_ref(line.value)).ok()?);
    }
    Some(map)
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 }
}

/// Room for `max` lines: on the stack where that is enough.
fn with_lines<'h, T>(max: usize, read: impl FnOnce(&mut [MaybeUninit<Header<'h>>]) -> T) -> T {
    let mut few = [const { MaybeUninit::uninit() }; FEW_LINES];
    match few.get_mut(..max) {
        Some(few) => read(few),
        None => read(&mut std::iter::repeat_with(MaybeUninit::uninit).take(max).collect::<Vec<_>>()),
    }
}

/// Of most heads, and small bodies.
const COMMON_SIZE: usize = 512;
const FEW_LINES: usize = 100;
const MAX_ANSWER_LINES: usize = 100;
/// What the gateway adds to a head.
const ADDED: usize = 2;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Head<request::Parts>, Malformed> {
        request(Bytes::copy_from_slice(text.as_bytes()), 100)
    }

    #[test]
    fn a_head_says_what_is_asked_and_whether_more_may_follow() {
        for (line, lines, connection) in [
            ("GET /a?b HTTP/1.1", "", Persistence::Keep),
            ("GET /a?b HTTP/1.1", "connection: close\r\n", Persistence::Close),
            ("GET /a?b HTTP/1.1", "connection: te, Close\r\n", Persistence::Close),
            ("GET /a?b HTTP/1.0", "", Persistence::Close),
            ("GET /a?b HTTP/1.0", "connection: Keep-Alive\r\n", Persistence::Keep),
            ("GET /a?b HTTP/1.0", "connection: keep-alive\r\nconnection: close\r\n", Persistence::Close),
        ] {
            let head = read(&format!("{line}\r\n{lines}Host: a\r\nx: 1\r\nX: 2\r\n\r\n")).unwrap();
            assert_eq!((head.parts.method, head.parts.uri.to_string()), (Method::GET, "/a?b".to_owned()));
            assert_eq!(head.parts.headers.get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
            assert_eq!((head.length, head.connection), (Length::Exact(0), connection), "{line} {lines}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (text, malformed) in [
            ("GET  / HTTP/1.1\r\n\r\n", Malformed::Head),
            ("GET / HTTP/1.1 x\r\n\r\n", Malformed::Head),
            ("GET / HTTP/2.0\r\n\r\n", Malformed::Head),
            ("GET /\r\n\r\n", Malformed::Head),
            ("G(T / HTTP/1.1\r\n\r\n", Malformed::Head),
            ("GET / HTTP/1.1\r\na b: c\r\n\r\n", Malformed::Head),
            ("GET / HTTP/1.1\r\na : c\r\n\r\n", Malformed::Head),
            ("GET / HTTP/1.1\r\n: c\r\n\r\n", Malformed::Head),
            ("GET / HTTP/1.1\r\na: \0\r\n\r\n", Malformed::Head),
            ("GET / HTTP/1.1\r\na: b\rc: d\r\n\r\n", Malformed::Head),
            ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", Malformed::Head),
            ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", Malformed::Encoding),
        ] {
            assert_eq!(read(text).map(|head| head.length), Err(malformed), "{text:?}");
        }
    }

    #[test]
    fn more_lines_than_allowed_are_refused() {
        let text = |lines: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(lines));
        for max in [1, 100, 101, 1_000] {
            assert!(request(text(max).into(), max).is_ok(), "{max}");
            assert_eq!(request(text(max + 1).into(), max).map(|head| head.length), Err(Malformed::TooLarge), "{max}");
        }
    }

    #[test]
    fn an_answer_has_no_more_lines_than_a_proxy_passes_on() {
        for (lines, read) in [(100, true), (101, false)] {
            let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(lines));
            assert_eq!(answer(head.into(), &Method::GET).is_some(), read, "{lines}");
        }
    }

    #[test]
    fn an_answer_is_framed_as_its_caller_can_read_it() {
        use Persistence::*;
        const TEN: Version = Version::HTTP_10;
        const ELEVEN: Version = Version::HTTP_11;
        for (status, method, version, exact, connection, lines) in [
            (200, Method::GET, ELEVEN, Some(5), Keep, "content-length: 5\r\n"),
            (200, Method::GET, ELEVEN, None, Keep, "transfer-encoding: chunked\r\n"),
            (200, Method::GET, ELEVEN, Some(5), Close, "content-length: 5\r\nconnection: close\r\n"),
            (200, Method::GET, TEN, Some(5), Keep, "content-length: 5\r\nconnection: keep-alive\r\n"),
            // No chunks: the end of the connection is that of the body.
            (200, Method::GET, TEN, None, Close, "connection: close\r\n"),
            // What the upstream told of the body that does not come.
            (200, Method::HEAD, ELEVEN, None, Keep, "content-length: 7\r\n"),
            (304, Method::GET, ELEVEN, None, Keep, "content-length: 7\r\n"),
            (204, Method::GET, ELEVEN, None, Keep, ""),
            (204, Method::GET, ELEVEN, Some(0), Keep, ""),
        ] {
            let answer = Response::builder().status(status).header("content-length", "7").header("a", "b");
            let (parts, ()) = answer.body(()).unwrap().into_parts();
            let caller = Caller { method, version };
            let length = length_for(&parts, &caller, exact);
            let mut out = Vec::new();
            write_answer(&mut out, &parts, &caller, length, connection);
            let (_, written) = str::from_utf8(&out).unwrap().split_once("\r\n").unwrap();
            assert_eq!(written, format!("{lines}a: b\r\n\r\n"), "{status} {caller:?} {exact:?}");
            let bodiless = caller.method == Method::HEAD || has_no_body(parts.status);
            assert_eq!(length == Length::Exact(0), bodiless, "{status} {caller:?}");
        }
    }

    #[test]
    fn a_request_tells_its_length_unless_it_has_no_body_and_needs_none() {
        for (method, length, told) in [
            (Method::GET, Length::Exact(0), ""),
            (Method::GET, Length::Exact(5), "content-length: 5\r\n"),
            (Method::GET, Length::Chunked, "transfer-encoding: chunked\r\n"),
            (Method::POST, Length::Exact(0), "content-length: 0\r\n"),
        ] {
            let request = Request::builder().method(&method).header("content-length", "7").uri("/").body(()).unwrap();
            let mut out = Vec::new();
            write_request(&mut out, &request, length);
            assert_eq!(str::from_utf8(&out).unwrap(), format!("{method} / HTTP/1.1\r\n{told}\r\n"));
        }
    }

    #[test]
    fn an_answers_length_follows_from_its_status_its_request_and_its_lines() {
        use Length::*;
        for (status, method, lines, length) in [
            ("200 OK", Method::GET, "content-length: 5\r\n", Some(Exact(5))),
            ("200", Method::GET, "content-length: 5\r\ncontent-length: 5\r\n", Some(Exact(5))),
            ("200 OK", Method::GET, "content-length: 5\r\ncontent-length: 6\r\n", None),
            ("200 OK", Method::GET, "content-length: 5, 5\r\n", None),
            ("200 OK", Method::GET, "content-length: -5\r\n", None),
            ("200 OK", Method::GET, "transfer-encoding: chunked\r\ncontent-length: 5\r\n", Some(Chunked)),
            ("200 OK", Method::GET, "transfer-encoding: gzip, chunked\r\n", None),
            ("200 OK", Method::GET, "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", None),
            ("200 OK", Method::GET, "", Some(UntilClose)),
            ("200 OK", Method::HEAD, "content-length: 5\r\n", Some(Exact(0))),
            ("204 No Content", Method::GET, "content-length: 5\r\n", Some(Exact(0))),
            ("304 Not Modified", Method::GET, "content-length: 5\r\n", Some(Exact(0))),
            ("100 Continue", Method::GET, "", Some(Exact(0))),
        ] {
            let head = format!("HTTP/1.1 {status}\r\n{lines}\r\n");
            let found = answer(head.clone().into(), &method).map(|head| head.length);
            assert_eq!(found, length, "{method} {head:?}");
        }
        assert!(answer("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".into(), &Method::GET).is_none());
        assert!(answer("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".into(), &Method::GET).is_none());
        let until_close = answer("HTTP/1.1 200 OK\r\nconnection: keep-alive\r\n\r\n".into(), &Method::GET).unwrap();
        assert_eq!(until_close.connection, Persistence::Close);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            method in "[A-Z]{1,8}",
            path in "/[a-z0-9/]{0,20}",
            lines in prop::collection::vec(("x-[a-z]{1,8}", "[!-~]([ -~]{0,10}[!-~])?"), 0..8),
            length in prop_oneof![(1_u64..1_000_000_000).prop_map(Length::Exact), Just(Length::Chunked)],
        ) {
            let mut request = Request::builder().method(method.as_str()).uri(path.as_str());
            for (name, value) in &lines {
                request = request.header(name, value);
            }
            let request = request.body(()).unwrap();
            let mut out = Vec::new();
            write_request(&mut out, &request, length);
            let head = super::request(out.into(), 100).unwrap();
            prop_assert_eq!(head.length, length);
            prop_assert_eq!(&head.parts.method, request.method());
            prop_assert_eq!(&head.parts.uri, request.uri());
            let framing = ["content-length", "transfer-encoding"];
            let passed: HeaderMap = head.parts.headers.iter()
                .filter(|(name, _)| !framing.contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), value.clone()))
                .fold(HeaderMap::new(), |mut map, (name, value)| { map.append(name, value); map });
            prop_assert_eq!(&passed, request.headers());
        }

        /// Neither side panics, and a request that passes is one that passes again.
        #[test]
        fn any_bytes_are_read_or_refused(
            text in "(GET|POST|[a-zA-Z]{0,3}) ?(/|\\*|a:1|http://a/|[ -~]{0,6}) HTTP/1\\.[01]\r?\n((host|content-length|transfer-encoding|connection|[!-~]{1,3}):[ -~\t]{0,9}\r?\n){0,4}\r?\n",
        ) {
            let _ = answer(Bytes::copy_from_slice(text.as_bytes()), &Method::GET);
            if let Ok(head) = read(&text) {
                let request = Request::from_parts(head.parts, ());
                let mut out = Vec::new();
                write_request(&mut out, &request, head.length);
                prop_assert!(super::request(out.into(), 100).is_ok());
            }
        }
    }
}
