//! Unary gRPC calls: what differs from any other request over HTTP/2 (gRPC over HTTP/2, "Requests" and "Responses").

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::Full;

use super::failure::Failure;
use super::plan::Plan;

/// Before each message: a byte that says whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The call of every stream, with one message of [`Plan::body`] bytes.
pub(super) fn request(plan: &Plan) -> Result<Request<Full<Bytes>>, http::Error> {
    let scheme = if plan.tls.is_some() { "https" } else { "http" };
    Request::builder()
        .method(Method::POST)
        .uri(format!("{scheme}://{}{}", plan.authority, plan.path))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(message(plan.body)))
}

fn message(length: usize) -> Bytes {
    let mut framed = vec![0; PREFIX];
    framed[1..].copy_from_slice(&(length as u32).to_be_bytes());
    framed.resize(PREFIX + length, b'u');
    framed.into()
}

/// How an answer went, from its parts as they come.
#[derive(Debug, Default)]
pub(super) struct Answer {
    prefix: [u8; PREFIX],
    received: usize,
}

impl Answer {
    pub(super) fn data(&mut self, bytes: &[u8]) {
        for (place, byte) in self.prefix.iter_mut().skip(self.received).zip(bytes) {
            *place = *byte;
        }
        self.received += bytes.len();
    }

    /// Whether the call succeeded: one whole message, and a status of 0. `last` are the trailers, or the header of an answer
    /// that has no body.
    pub(super) fn end(&self, last: &HeaderMap) -> Result<(), Failure> {
        let status = last.get("grpc-status").map(|status| status.as_bytes());
        if status != Some(b"0") {
            return Err(Failure::GrpcStatus(String::from_utf8_lossy(status.unwrap_or(b"missing")).into_owned()));
        }
        let [_, length @ ..] = self.prefix;
        let whole = self.received.checked_sub(PREFIX) == Some(u32::from_be_bytes(length) as usize);
        if whole { Ok(()) } else { Err(Failure::BadGrpcMessage) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn trailers(status: &'static str) -> HeaderMap {
        HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))])
    }

    #[test]
    fn a_message_is_recognized_wherever_it_is_cut() {
        let framed = message(300);
        for cut in 0..=framed.len() {
            let mut answer = Answer::default();
            answer.data(&framed[..cut]);
            answer.data(&framed[cut..]);
            answer.end(&trailers("0")).unwrap();
        }
    }

    #[test]
    fn half_a_message_is_no_success() {
        let mut answer = Answer::default();
        answer.data(&message(300)[..200]);
        assert!(matches!(answer.end(&trailers("0")), Err(Failure::BadGrpcMessage)));
        assert!(matches!(Answer::default().end(&trailers("0")), Err(Failure::BadGrpcMessage)));
    }

    #[test]
    fn a_status_other_than_0_is_a_failure_in_its_words() {
        let mut answer = Answer::default();
        answer.data(&message(0));
        let failed = answer.end(&trailers("14")).unwrap_err();
        assert_eq!(failed.to_string(), "gRPC status 14");
        assert_eq!(answer.end(&HeaderMap::new()).unwrap_err().to_string(), "gRPC status missing");
    }
}
