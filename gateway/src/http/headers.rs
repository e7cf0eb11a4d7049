//! What becomes of a message's header on its way through: hop-by-hop fields end here, the caller's claims about itself are
//! removed, and the target host is one and the same in every place that names it.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Request, StatusCode, Version, request, response};

use super::trailers::{self, is_read_as};

/// The identity of the caller, for the service behind the gateway; never taken from the caller itself.
pub(crate) const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What the rest of the way needs to know of a request whose header is done.
#[derive(Debug)]
pub(crate) struct Outline {
    pub(crate) expects_continue: bool,
    /// Whether the request named its host; HTTP/1.0 need not.
    names_host: bool,
    accepts_trailers: bool,
    /// Whether its cookie comes in pieces.
    crumbs: bool,
}

/// Why a request is not forwarded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    Host,
    Lengths,
    ConnectionHeader,
    Expectation,
    Connect,
    Trace,
    Upgrade,
}

impl Refused {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Host | Self::Lengths | Self::ConnectionHeader => StatusCode::BAD_REQUEST,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Connect | Self::Trace | Self::Upgrade => StatusCode::NOT_IMPLEMENTED,
        }
    }

    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Lengths => "several_lengths",
            Self::ConnectionHeader => "connection_header",
            Self::Expectation => "expectation",
            Self::Connect => "connect_not_supported",
            Self::Trace => "trace_not_supported",
            Self::Upgrade => "upgrade_not_supported",
        }
    }
}

/// Takes out of a request what may not go further, and puts in who the caller is.
pub(crate) fn of_request(head: &mut request::Parts, caller: Option<&HeaderValue>) -> Result<Outline, Refused> {
    if head.method == Method::CONNECT {
        return Err(Refused::Connect);
    }
    // The service would send the caller what the gateway adds for the service alone (RFC 9110 §9.3.8).
    if head.method == Method::TRACE {
        return Err(Refused::Trace);
    }
    let found = Found::in_request(&head.headers);
    let names_host = names_host(head, found.hosts)?;
    // Over HTTP/1.1 they do not come this far; HTTP/2 does not need them, but the service may.
    if found.lengths > 1 {
        return Err(Refused::Lengths);
    }
    if found.upgrade && !is_h2c(&head.headers) {
        return Err(Refused::Upgrade);
    }
    let expects_continue = found.expect && expects_continue(&head.headers)?;
    let accepts_trailers = found.te && lists(&head.headers, &TE, "trailers");
    remove_hop_by_hop(&mut head.headers, &found)?;
    if found.trailer {
        trailers::announce(&mut head.headers);
    }
    if found.claims {
        remove_claims(&mut head.headers);
    }
    if let Some(caller) = caller {
        head.headers.insert(FORWARDED_CLIENT_CERT, caller.clone());
    }
    Ok(Outline { expects_continue, names_host, accepts_trailers, crumbs: found.cookies > 1 })
}

impl Outline {
    /// Gives a request the form of HTTP/1.1 to `upstream`, whatever form it had before.
    pub(crate) fn to_http1<B>(&self, request: &mut Request<B>, upstream: &HeaderValue) {
        *request.version_mut() = Version::HTTP_11;
        if let Some(authority) = request.uri().authority() {
            // What `names_host` let through is a value.
            let host = HeaderValue::from_str(authority.as_str()).unwrap_or_else(|_| upstream.clone());
            request.headers_mut().insert(HOST, host);
            // HTTP/1.1 between proxy and origin names the path alone (RFC 9112 §3.2.1).
            *request.uri_mut() = path_of(request.uri()).into();
        } else if !self.names_host {
            request.headers_mut().insert(HOST, upstream.clone());
        }
        let headers = request.headers_mut();
        if self.crumbs {
            join_cookies(headers);
        }
        if self.accepts_trailers {
            // `te` is for one hop and must be named in `connection` (RFC 9110 §10.1.4).
            headers.insert(TE, HeaderValue::from_static("trailers"));
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
    }

    /// Gives a request the form of HTTP/2 to `upstream`, whatever form it had before.
    pub(crate) fn to_http2<B>(&self, request: &mut Request<B>, upstream: &HeaderValue) -> Result<(), Refused> {
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(HOST);
        let authority = match request.uri().authority() {
            Some(authority) => authority.clone(),
            None => {
                let host = host.as_ref().unwrap_or(upstream);
                Authority::try_from(host.as_bytes()).map_err(|_| Refused::Host)?
            }
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(authority);
        parts.path_and_query = Some(path_of(request.uri()));
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Refused::Host)?;
        let headers = request.headers_mut();
        headers.remove(CONNECTION);
        headers.remove(TRANSFER_ENCODING);
        // The body follows at once: `expect` is a matter between the caller and us.
        headers.remove(EXPECT);
        if self.accepts_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        Ok(())
    }
}

/// Takes out of an answer what was meant for the connection it came on.
pub(crate) fn of_answer(head: &mut response::Parts) {
    let found = Found::hop_by_hop(&head.headers);
    // The encoding overrides the length, which would only mislead whoever reads on (RFC 9112 §6.3).
    if found.other_hop_by_hop && head.headers.contains_key(TRANSFER_ENCODING) {
        head.headers.remove(CONTENT_LENGTH);
    }
    // An answer that lists nonsense in `connection` loses what it lists.
    if remove_hop_by_hop(&mut head.headers, &found).is_err() {
        head.headers.remove(CONNECTION);
    }
    if found.trailer {
        trailers::announce(&mut head.headers);
    }
    head.version = Version::HTTP_11;
}

/// Whether a request names its host (RFC 9112 §3.2, RFC 9113 §8.3.1). Two that differ are how hosts get confused.
fn names_host(head: &request::Parts, hosts: usize) -> Result<bool, Refused> {
    let header = if hosts == 0 { None } else { head.headers.get(HOST) };
    if hosts > 1 || header.is_some_and(|host| !is_host(host.as_bytes())) {
        return Err(Refused::Host);
    }
    match (head.uri.authority(), header) {
        (None, Some(_)) => Ok(true),
        (Some(target), Some(header)) if target.as_str().as_bytes().eq_ignore_ascii_case(header.as_bytes()) => Ok(true),
        (Some(target), None) if head.version == Version::HTTP_2 && is_host(target.as_str().as_bytes()) => Ok(true),
        (None, None) if head.version == Version::HTTP_10 => Ok(false),
        (Some(_) | None, _) => Err(Refused::Host),
    }
}

/// Whether the bytes can be a host with or without a port; whether it exists is not ours to say.
fn is_host(bytes: &[u8]) -> bool {
    let allowed = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'')
            || matches!(byte, b'(' | b')' | b'*' | b'+' | b';' | b'=')
    };
    !bytes.is_empty() && bytes.iter().all(allowed)
}

/// The kinds of fields that are in a header; one pass instead of a lookup for each.
#[derive(Debug, Default)]
struct Found {
    connection: bool,
    other_hop_by_hop: bool,
    te: bool,
    trailer: bool,
    upgrade: bool,
    expect: bool,
    claims: bool,
    hosts: usize,
    lengths: usize,
    cookies: usize,
}

impl Found {
    fn in_request(headers: &HeaderMap) -> Self {
        let mut found = Self::hop_by_hop(headers);
        // Each line, where a name has several.
        for (name, _) in headers {
            if *name == HOST {
                found.hosts += 1;
            } else if *name == CONTENT_LENGTH {
                found.lengths += 1;
            } else if *name == COOKIE {
                found.cookies += 1;
            } else {
                found.expect |= *name == EXPECT;
                found.claims |= is_claim(name);
            }
        }
        found
    }

    fn hop_by_hop(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            if *name == CONNECTION {
                found.connection = true;
            } else if *name == TE {
                found.te = true;
            } else if *name == TRAILER {
                found.trailer = true;
            } else if *name == UPGRADE {
                found.upgrade = true;
            } else if HOP_BY_HOP.contains(name) {
                found.other_hop_by_hop = true;
            }
        }
        found
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap, found: &Found) -> Result<(), Refused> {
    if found.connection {
        remove_listed(headers)?;
        headers.remove(CONNECTION);
    }
    if found.te {
        headers.remove(TE);
    }
    if found.upgrade {
        headers.remove(UPGRADE);
    }
    if found.other_hop_by_hop {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
    Ok(())
}

/// Removes the fields that `connection` lists (RFC 9110 §7.6.1).
fn remove_listed(headers: &mut HeaderMap) -> Result<(), Refused> {
    let mut listed = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.is_empty() || token.eq_ignore_ascii_case(b"close") || token.eq_ignore_ascii_case(b"keep-alive") {
                continue;
            }
            let name = HeaderName::from_bytes(token).map_err(|_| Refused::ConnectionHeader)?;
            // Without these the message would be another one.
            if [HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
                return Err(Refused::ConnectionHeader);
            }
            listed.push(name);
        }
    }
    for name in listed {
        headers.remove(name);
    }
    Ok(())
}

/// Whether a service may take this field, however it is spelled, for what the gateway says: of its caller, or of where the
/// body ends.
fn is_claim(name: &HeaderName) -> bool {
    is_read_as(name.as_str(), FORWARDED_CLIENT_CERT.as_str())
        || FRAMING.iter().any(|framing| name != framing && is_read_as(name.as_str(), framing.as_str()))
}

fn remove_claims(headers: &mut HeaderMap) {
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// HTTP/2 may send a cookie in crumbs; HTTP/1.1 has one line for them (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    // An empty one last would leave a blank at the end, where no value has one.
    let crumbs: Vec<&[u8]> = crumbs.filter(|crumb| !crumb.is_empty()).collect();
    // What is joined of values is a value.
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, cookie);
    }
}

/// `upgrade: h2c` is an offer that a server may ignore; any other upgrade would leave the caller waiting for it.
fn is_h2c(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"h2c"))
}

fn expects_continue(headers: &HeaderMap) -> Result<bool, Refused> {
    let continues = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(EXPECT).iter().all(continues) { Ok(true) } else { Err(Refused::Expectation) }
}

fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    let tokens = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.map(<[u8]>::trim_ascii).any(|token| token.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// The path and the query. `http://a?b` has no path, and is that of its root (RFC 9112 §3.2.1).
fn path_of(uri: &Uri) -> PathAndQuery {
    let path = uri.path_and_query().filter(|path| path.as_str().starts_with(['/', '*'])).cloned();
    let of_root = || PathAndQuery::try_from(format!("/?{}", uri.query()?)).ok();
    path.or_else(of_root).unwrap_or_else(|| PathAndQuery::from_static("/"))
}

const FRAMING: [HeaderName; 2] = [CONTENT_LENGTH, TRANSFER_ENCODING];
const HOP_BY_HOP: [HeaderName; 6] = [
    TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("http2-settings"),
];

#[cfg(test)]
mod tests;
