//! Answers by hyper.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::gets::{self, FILL};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

pub(super) async fn answer(request: Request<Incoming>) -> Result<Response<Fill>, hyper::Error> {
    if request.headers().get(CONTENT_TYPE) == Some(&GRPC) {
        return echo(request.into_body()).await;
    }
    if request.method() != Method::GET {
        let mut body = request.into_body();
        let mut received = 0;
        while let Some(frame) = body.frame().await {
            received += frame?.data_ref().map_or(0, Bytes::len);
        }
        return Ok(Response::new(Fill::text(format!("{received}\n").into())));
    }
    let body = match request.uri().path() {
        "/" => Some(Fill::text(Bytes::from_static(gets::SMALL))),
        path => path.strip_prefix("/bytes/").and_then(|number| number.parse().ok()).map(Fill::bytes),
    };
    let not_found = || {
        let mut response = Response::new(Fill::text(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    };
    Ok(body.map_or_else(not_found, Response::new))
}

/// A unary call's message, sent back with the status that it succeeded.
async fn echo(mut body: Incoming) -> Result<Response<Fill>, hyper::Error> {
    let mut message = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            message.extend_from_slice(&data);
        }
    }
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut response = Response::new(Fill { trailers: Some(trailers), ..Fill::text(message.freeze()) });
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    Ok(response)
}

/// A body of a known length, some text or so many bytes of filling, and what comes after it.
#[derive(Debug)]
pub(super) struct Fill {
    text: Bytes,
    left: u64,
    trailers: Option<HeaderMap>,
}

impl Fill {
    fn text(text: Bytes) -> Self {
        Self { left: text.len() as u64, text, trailers: None }
    }

    fn bytes(left: u64) -> Self {
        Self { left, text: Bytes::from_static(FILL), trailers: None }
    }
}

impl Body for Fill {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let length = self.text.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(self.text.slice(..length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
