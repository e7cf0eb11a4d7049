//! What may follow a body. A service that merges trailers into the header would take one for the other, so nothing passes
//! there that is ours to say or that was to be known before the body (RFC 9110 §6.5.1).

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, TRAILER};
use http_body::Frame;

/// What may pass of a frame; none when nothing may.
pub(super) fn sifted(frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
    if frame.is_data() {
        return Some(frame);
    }
    let mut trailers = match frame.into_trailers() {
        Ok(trailers) => trailers,
        Err(other) => return Some(other),
    };
    let barred: Vec<HeaderName> = trailers.keys().filter(|name| is_barred(name)).cloned().collect();
    for name in barred {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then(|| Frame::trailers(trailers))
}

/// Leaves in `trailer` the names of what may pass.
pub(super) fn announce(headers: &mut HeaderMap) {
    let lines = headers.get_all(TRAILER).iter();
    let tokens = lines.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let names: Vec<HeaderName> =
        tokens.filter_map(|token| HeaderName::from_bytes(token).ok()).filter(|name| !is_barred(name)).collect();
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    match HeaderValue::try_from(names.join(", ")) {
        Ok(value) if !names.is_empty() => drop(headers.insert(TRAILER, value)),
        Ok(_) | Err(_) => drop(headers.remove(TRAILER)),
    }
}

fn is_barred(name: &HeaderName) -> bool {
    let name = name.as_str();
    BARRED.iter().any(|barred| is_read_as(name, barred))
        || BARRED_FAMILIES.iter().any(|family| name.get(..family.len()).is_some_and(|begin| is_read_as(begin, family)))
}

/// Whether a service may read `name` as `known`. CGI and its heirs make one letter of whatever is neither letter nor digit.
/// Both are in lower case.
pub(super) fn is_read_as(name: &str, known: &str) -> bool {
    let same = |(byte, known): (u8, u8)| byte == known || (known == b'-' && !byte.is_ascii_alphanumeric());
    name.len() == known.len() && name.bytes().zip(known.bytes()).all(same)
}

const BARRED: [&str; 28] = [
    // Of one hop, and how the message is framed.
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    // Where it goes, and what is to be done with it.
    "cache-control",
    "expect",
    "host",
    "max-forwards",
    "pragma",
    "range",
    // What the body is.
    "content-encoding",
    "content-range",
    "content-type",
    // Who speaks.
    "authorization",
    "cookie",
    "forwarded",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "set-cookie",
    "www-authenticate",
    "x-client-cert",
    "x-real-ip",
];
const BARRED_FAMILIES: [&str; 2] = ["if-", "x-forwarded-"];
