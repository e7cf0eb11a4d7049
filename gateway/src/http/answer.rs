//! Answers that the gateway gives itself.

use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::body::ResponseBody;

/// Why the gateway, and not the upstream, gave this answer. It names no peer, rule or address.
pub(crate) const REASON: HeaderName = HeaderName::from_static("x-signet-reason");

/// An answer with its status and reason.
pub(crate) fn refusal(status: StatusCode, reason: &'static str) -> Response<ResponseBody> {
    let mut answer = Response::new(ResponseBody::text(line(status)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(REASON, HeaderValue::from_static(reason));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// The same, with which an HTTP/1.1 connection ends: what follows on it cannot be told apart from the request's rest.
pub(crate) fn last_refusal(status: StatusCode, reason: &'static str) -> Response<ResponseBody> {
    let mut answer = refusal(status, reason);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn line(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => "forbidden\n",
        StatusCode::SERVICE_UNAVAILABLE => "service unavailable\n",
        StatusCode::BAD_GATEWAY => "bad gateway\n",
        StatusCode::GATEWAY_TIMEOUT => "gateway timeout\n",
        StatusCode::NOT_IMPLEMENTED => "not implemented\n",
        StatusCode::EXPECTATION_FAILED => "expectation failed\n",
        _ => "bad request\n",
    }
}

/// What a caller gets whose request's head does not come in time; nothing else has been written at that point.
pub(crate) const HEADER_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
