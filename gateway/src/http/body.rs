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
use crate::metrics::ListenerMetrics;
use crate::upstream::{Exchange, Stream};

/// The body of a request on its way to an upstream.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// None where there is no body, as below.
    incoming: Option<Incoming>,
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
    pub(crate) fn new(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            return Self::none();
        }
        Self { incoming: Some(incoming), progress: Some(Rc::default()), gate: None }
    }

    pub(crate) fn none() -> Self {
        Self { incoming: None, progress: None, gate: None }
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
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let (Some(incoming), Some(progress)) = (&mut this.incoming, &this.progress) else { return Poll::Ready(None) };
        if let Some(gate) = &this.gate {
            ready!(gate.poll_open(cx));
            this.gate = None;
            progress.0.set(Step::Unread);
        }
        loop {
            let polled = ready!(Pin::new(&mut *incoming).poll_frame(cx));
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

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
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
    /// A word of the gateway itself.
    Text(Bytes),
    Exchange(Exchange),
    Stream(Stream),
}

/// An answer broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the upstream's answer broke off")]
    Upstream(#[source] hyper::Error),
    #[error("the connection to the upstream ended with its server's identity")]
    Ended,
}

impl ResponseBody {
    pub(crate) fn empty() -> Self {
        Self::of(Source::Empty)
    }

    pub(crate) fn text(text: &'static str) -> Self {
        Self::of(Source::Text(Bytes::from_static(text.as_bytes())))
    }

    pub(crate) fn exchange(exchange: Exchange) -> Self {
        Self::of(Source::Exchange(exchange))
    }

    pub(crate) fn stream(stream: Stream) -> Self {
        Self::of(Source::Stream(stream))
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
                Source::Text(text) => {
                    let text = std::mem::take(text);
                    (!text.is_empty()).then(|| Ok(Frame::data(text)))
                }
                Source::Exchange(exchange) => ready!(exchange.poll_frame(cx)),
                Source::Stream(stream) => ready!(stream.poll_frame(cx)),
            };
            if let Some(passed) = passed(polled) {
                return Poll::Ready(passed);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Text(text) => text.is_empty(),
            Source::Exchange(exchange) => exchange.is_end_stream(),
            Source::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Text(text) => SizeHint::with_exact(text.len() as u64),
            Source::Exchange(exchange) => exchange.size_hint(),
            Source::Stream(stream) => stream.size_hint(),
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
