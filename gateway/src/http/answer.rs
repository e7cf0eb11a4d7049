//! Answers that the gateway gives itself.

use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

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

/// Whether a request is a call of gRPC, whose content type may name the messages' encoding or have parameters.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(GRPC.as_bytes()));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A refusal as a gRPC library reads it: 200 with the outcome in trailers, which come alone and so are the head. What is the
/// fault of the call's HTTP stays what it was.
pub(crate) fn in_grpc(refusal: Response<ResponseBody>) -> Response<ResponseBody> {
    let status = match refusal.status() {
        StatusCode::FORBIDDEN => PERMISSION_DENIED,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => UNAVAILABLE,
        _ => return refusal,
    };
    let mut answer = refusal.map(|_| ResponseBody::empty());
    *answer.status_mut() = StatusCode::OK;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.insert("grpc-status", HeaderValue::from_static(status));
    if let Some(reason) = headers.get(REASON).cloned() {
        headers.insert("grpc-message", reason);
    }
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

const GRPC: &str = "application/grpc";
const PERMISSION_DENIED: &str = "7";
const UNAVAILABLE: &str = "14";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_grpc_is_told_by_its_content_type() {
        for (content_type, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            // Its trailers are in the body, and its answers of the same type.
            ("application/grpc-web", false),
            ("application/json", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(is_grpc(&headers), grpc, "{content_type}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
