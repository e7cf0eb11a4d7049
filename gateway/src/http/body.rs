//! The two bodies of an exchange: what goes to the upstream, and what comes back to the caller.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::expect::Gate;
use super::trailers;
use crate::connection::InFlight;
use crate::http1::body::Length;
use crate::http1::server;
use crate::metrics::ListenerMetrics;
use crate::upstream::{Exchange, Http2Answer, Lost};

/// The body of a request on its way to an upstream.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: CallerBody,
    progress: Option<Rc<Progress>>,
    /// Holds the body back until the upstream wants it.
    gate: Option<Gate>,
}

/// How far a request's body has come; shared with whoever waits for the answer.
#[derive(Debug, Default)]
pub(crate) struct Progress(Cell<Step>);

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Step {
    #[default]
    Unread,
    /// Not asked for before the upstream asks.
    Held,
    Reading,
    Done,
    /// The caller broke off or sent nonsense.
    Failed,
}

impl Progress {
    pub(crate) fn step(&self) -> Step {
        self.0.get()
    }

    /// Whether the upstream may still be waiting for a part of it.
    pub(crate) fn is_uploading(&self) -> bool {
        !matches!(self.step(), Step::Done | Step::Failed)
    }
}

impl RequestBody {
    pub(crate) fn new(incoming: CallerBody) -> Self {
        if incoming.is_end_stream() {
            return Self::none();
        }
        Self { incoming, progress: Some(Rc::default()), gate: None }
    }

    pub(crate) fn none() -> Self {
        Self { incoming: CallerBody::None, progress: None, gate: None }
    }

    /// How it is sent over HTTP/1.1.
    pub(crate) fn length(&self) -> Length {
        self.size_hint().exact().map_or(Length::Chunked, Length::Exact)
    }

    /// None where there is no body.
    pub(crate) fn progress(&self) -> Option<Rc<Progress>> {
        self.progress.clone()
    }

    /// Is not read before `gate` is open.
    pub(crate) fn hold_for(&mut self, gate: Gate) {
        if let Some(progress) = &self.progress {
            progress.0.set(Step::Held);
            self.gate = Some(gate);
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.gate.is_some()
    }

    /// The upstream wants it.
    pub(crate) fn release(&mut self) {
        if self.gate.take().is_some()
            && let Some(progress) = &self.progress
        {
            progress.0.set(Step::Unread);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = CallerBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallerBodyError>>> {
        Self::poll_frame(self.get_mut(), cx)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl RequestBody {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallerBodyError>>> {
        if let Some(gate) = &self.gate {
            ready!(gate.poll_open(cx));
            self.release();
        }
        let Some(progress) = &self.progress else { return Poll::Ready(None) };
        let incoming = &mut self.incoming;
        loop {
            let polled = ready!(incoming.poll_frame(cx));
            progress.0.set(match &polled {
                Some(Ok(_)) if incoming.is_end_stream() => Step::Done,
                Some(Ok(_)) => Step::Reading,
                Some(Err(_)) => Step::Failed,
                None => Step::Done,
            });
            if let Some(passed) = passed(polled) {
                return Poll::Ready(passed);
            }
        }
    }
}

/// The body of a request as it comes from its caller.
#[derive(Debug)]
pub(crate) enum CallerBody {
    None,
    Http1(server::Body),
    Http2(Incoming),
}

/// A caller's body did not come whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallerBodyError {
    #[error(transparent)]
    Http1(server::BodyError),
    #[error(transparent)]
    Http2(hyper::Error),
}

impl CallerBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallerBodyError>>> {
        match self {
            Self::None => Poll::Ready(None),
            Self::Http1(body) => body.poll_frame(cx).map_err(CallerBodyError::Http1),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(CallerBodyError::Http2),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// The body of an answer on its way to the caller.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: Source,
    record: Option<Record>,
}

#[derive(Debug)]
enum Source {
    Empty,
    /// All of it.
    Whole(Bytes),
    Exchange(Exchange),
    Http2(Http2Answer),
}

/// An answer broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the upstream's answer broke off")]
    Upstream(#[source] Lost),
    #[error("the connection to the upstream ended with its server's identity")]
    Ended,
}

impl ResponseBody {
    pub(crate) fn empty() -> Self {
        Self::of(Source::Empty)
    }

    pub(crate) fn text(text: &'static str) -> Self {
        Self::whole(Bytes::from_static(text.as_bytes()))
    }

    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::of(Source::Whole(bytes))
    }

    pub(crate) fn exchange(exchange: Exchange) -> Self {
        Self::of(Source::Exchange(exchange))
    }

    pub(crate) fn http2(answer: Http2Answer) -> Self {
        Self::of(Source::Http2(answer))
    }

    /// Writes down when it ends.
    pub(crate) fn recorded(mut self, record: Record) -> Self {
        self.record = Some(record);
        self
    }

    fn of(source: Source) -> Self {
        Self { source, record: None }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let polled = match &mut self.source {
                Source::Empty => None,
                Source::Whole(bytes) => {
                    let bytes = std::mem::take(bytes);
                    (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
                }
                Source::Exchange(exchange) => ready!(exchange.poll_frame(cx)),
                Source::Http2(answer) => ready!(answer.poll_frame(cx)),
            };
            if let Some(passed) = passed(polled) {
                return Poll::Ready(passed);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Exchange(exchange) => exchange.is_end_stream(),
            Source::Http2(answer) => answer.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Exchange(exchange) => exchange.size_hint(),
            Source::Http2(answer) => answer.size_hint(),
        }
    }
}

/// What goes on of what came; none when nothing of a frame may, so that the next one is to be looked at.
fn passed<E>(polled: Option<Result<Frame<Bytes>, E>>) -> Option<Option<Result<Frame<Bytes>, E>>> {
    match polled {
        Some(Ok(frame)) => trailers::sifted(frame).map(|frame| Some(Ok(frame))),
        Some(Err(_)) | None => Some(polled),
    }
}

/// Measures one request until it is dropped, which is when its answer has ended.
#[derive(Debug)]
pub(crate) struct Record {
    begun: Instant,
    metrics: Rc<ListenerMetrics>,
    _in_flight: InFlight,
}

impl Record {
    pub(crate) fn new(begun: Instant, metrics: Rc<ListenerMetrics>, in_flight: InFlight) -> Self {
        Self { begun, metrics, _in_flight: in_flight }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.ended(self.begun.elapsed().as_secs_f64());
    }
}
