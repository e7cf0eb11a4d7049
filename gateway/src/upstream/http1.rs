//! One connection to an upstream over HTTP/1.1 and the one exchange that it carries at a time.
//!
//! The task of the caller's connection writes and reads it itself: no task, wake-up or channel stands between the two sides.
//! Only a caller that goes on sending after the answer has begun gets a task for what it sends, since it may not read yet.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, response};
use http_body::{Frame, SizeHint};
use socket2::SockRef;
use tokio::task::AbortHandle;

use super::connect::Verified;
use super::life::Live;
use super::{Fate, ForwardError, Lost, Protocol, Slot, Unanswered, Upstream};
use crate::deadlines::Deadlines;
use crate::http::body::{BodyError, RequestBody, ResponseBody};
use crate::http::headers;
use crate::http1::body::{Decoder, Encoder, Length, Piece};
use crate::http1::head::{self, Head, Persistence};
use crate::http1::length::end_of_head;
use crate::http1::outgoing::Outgoing;
use crate::metrics::{Counted, UpstreamMetrics};
use crate::stream::{Stream, Unread};

#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    unread: Unread,
    out: Outgoing,
    upload: Upload,
    answer: Decoder,
    persistence: Persistence,
    /// Some over mTLS.
    live: Option<Live>,
    pub(super) idle_since_ms: u64,
    /// Of the pool, when it was begun.
    pub(super) epoch: u64,
    _counted: Counted,
    _slot: Slot,
}

/// How far the request under way has come.
#[derive(Debug, Eq, PartialEq)]
enum Upload {
    Encoding(Encoder),
    /// All of it is in what is written.
    Sent,
    /// The upstream did not want it.
    GivenUp,
}

impl Connection {
    pub(super) fn over(stream: Stream, live: Option<Live>, slot: Slot, metrics: &UpstreamMetrics) -> Box<Self> {
        Box::new(Self {
            stream,
            unread: Unread::new(b""),
            out: Outgoing::default(),
            upload: Upload::Sent,
            answer: Decoder::new(Length::Exact(0)),
            persistence: Persistence::Keep,
            live,
            idle_since_ms: 0,
            epoch: 0,
            _counted: Counted::in_gauge(&metrics.connections),
            _slot: slot,
        })
    }

    pub(super) fn over_mtls(verified: Verified, epoch: u64, slot: Slot, upstream: &Upstream) -> Box<Self> {
        let live = Live::of(&verified, &upstream.worker);
        let mut connection = Self::over(Stream::Tls(verified.stream), Some(live), slot, &upstream.metrics);
        connection.epoch = epoch;
        connection
    }

    /// Whether it can take a request, as of its last exchange.
    pub(super) fn is_usable(&self, deadlines: &Deadlines) -> bool {
        !self.live.as_ref().is_some_and(|live| live.is_retired(deadlines))
    }

    /// The same after a look at the socket.
    pub(super) fn is_still_usable(&mut self, deadlines: &Deadlines) -> bool {
        self.is_usable(deadlines) && self.is_quiet(&mut Context::from_waker(Waker::noop()))
    }

    /// Whether nothing comes where nothing was asked for, not even an end.
    fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        let quiet = self.unread.poll_fill(&mut self.stream, cx).is_pending() && self.unread.bytes.is_empty();
        self.unread.release();
        quiet
    }

    /// Sends `request` and returns the head of its answer, whose body drives the connection on. What is left of the
    /// request is left when it got no answer.
    pub(super) async fn send(
        mut self: Box<Self>,
        request: &mut Request<RequestBody>,
        upstream: &Rc<Upstream>,
    ) -> Result<Response<ResponseBody>, Unanswered> {
        let Head { mut parts, length, connection } = self.head_of_answer(request, upstream).await?;
        self.answer = Decoder::new(length);
        self.persistence = connection;
        headers::of_answer(&mut parts);
        let body = self.body_of_answer(request, upstream);
        Ok(Response::from_parts(parts, body))
    }

    async fn head_of_answer(
        &mut self,
        request: &mut Request<RequestBody>,
        upstream: &Upstream,
    ) -> Result<Head<response::Parts>, Unanswered> {
        let timeout = upstream.config.response_timeout;
        let patience = upstream.worker.deadlines.after(timeout);
        let mut begun = false;
        let mut interim = 0;
        std::future::poll_fn(|cx| {
            if !std::mem::replace(&mut begun, true) {
                // It may have closed since it was put into the pool.
                if !self.is_quiet(cx) {
                    return Poll::Ready(Err(Unanswered {
                        error: closed(io::ErrorKind::ConnectionReset),
                        fate: Fate::Unsent,
                    }));
                }
                self.begin(request);
            }
            let unanswered = |error| Poll::Ready(Err(Unanswered { error, fate: Fate::Sent }));
            if self.poll_end(cx).is_ready() {
                return unanswered(ForwardError::Ended);
            }
            loop {
                let uploading = self.is_uploading();
                if let Poll::Ready(Err(error)) = self.poll_upload(request.body_mut(), cx) {
                    match error {
                        UploadError::Caller => return unanswered(ForwardError::RequestBody),
                        // It may have answered before it closed.
                        UploadError::Upstream => self.give_up_upload(),
                    }
                }
                if uploading {
                    // The upstream's time begins when it has the whole request.
                    patience.set_after(timeout);
                }
                match self.poll_head(request.method(), cx) {
                    Poll::Ready(Ok(head)) if is_interim(head.parts.status) && interim < MAX_INTERIM => {
                        interim += 1;
                        if head.parts.status == StatusCode::CONTINUE {
                            request.body_mut().release();
                        }
                    }
                    Poll::Ready(Ok(head)) => return Poll::Ready(Ok(head)),
                    Poll::Ready(Err(error)) => return unanswered(error),
                    Poll::Pending => break,
                }
            }
            ready!(patience.poll(cx));
            unanswered(ForwardError::Timeout)
        })
        .await
    }

    /// Puts the head of `request` into what is written, as far as its body too that is here already.
    fn begin(&mut self, request: &Request<RequestBody>) {
        let length = request.body().length();
        head::write_request(self.out.head(), request, length);
        self.upload = Upload::Encoding(Encoder::new(length));
    }

    /// Sends on. Ready when all is sent.
    fn poll_upload(&mut self, body: &mut RequestBody, cx: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        loop {
            let mut waiting = false;
            while !waiting && self.out.has_room() {
                let Upload::Encoding(encoder) = &mut self.upload else { break };
                let frame = if encoder.is_full() { Poll::Ready(None) } else { body.poll_frame(cx) };
                match frame {
                    Poll::Pending => waiting = true,
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(UploadError::Caller)),
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => encoder.data(data, &mut self.out).map_err(|_| UploadError::Caller)?,
                        Err(frame) => self.end_upload(frame.into_trailers().ok())?,
                    },
                    Poll::Ready(None) => self.end_upload(None)?,
                }
            }
            ready!(self.out.poll_flush(&mut self.stream, cx)).map_err(|_| UploadError::Upstream)?;
            match self.upload {
                Upload::Sent | Upload::GivenUp => return Poll::Ready(Ok(())),
                Upload::Encoding(_) if waiting => return Poll::Pending,
                Upload::Encoding(_) => {}
            }
        }
    }

    /// Whether a part of the request has not left yet.
    fn is_uploading(&self) -> bool {
        matches!(self.upload, Upload::Encoding(_)) || !self.out.is_empty()
    }

    /// Sends no more of the request; the connection can carry no other.
    fn give_up_upload(&mut self) {
        self.upload = Upload::GivenUp;
        self.out.release();
    }

    fn end_upload(&mut self, trailers: Option<http::HeaderMap>) -> Result<(), UploadError> {
        let Upload::Encoding(encoder) = std::mem::replace(&mut self.upload, Upload::Sent) else { return Ok(()) };
        encoder.end(trailers.as_ref(), &mut self.out).map_err(|_| UploadError::Caller)
    }

    fn poll_head(
        &mut self,
        method: &Method,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head<response::Parts>, ForwardError>> {
        let mut searched = 0;
        loop {
            if let Some(end) = end_of_head(&self.unread.bytes, searched) {
                let head = head::answer(self.unread.bytes.split_to(end).freeze(), method);
                return Poll::Ready(head.ok_or_else(malformed));
            }
            if self.unread.bytes.len() > MAX_HEAD {
                return Poll::Ready(Err(malformed()));
            }
            searched = self.unread.bytes.len().saturating_sub(3);
            match ready!(self.unread.poll_fill(&mut self.stream, cx)) {
                Ok(0) => return Poll::Ready(Err(closed(io::ErrorKind::UnexpectedEof))),
                Ok(_) => {}
                Err(cause) => return Poll::Ready(Err(ForwardError::Closed(Lost::Http1(cause)))),
            }
        }
    }

    fn body_of_answer(
        mut self: Box<Self>,
        request: &mut Request<RequestBody>,
        upstream: &Rc<Upstream>,
    ) -> ResponseBody {
        if self.is_uploading() {
            // It answered without the body that it was told of, and will not get it.
            if request.body().is_held() {
                self.give_up_upload();
            } else {
                let body = std::mem::replace(request.body_mut(), RequestBody::none());
                return ResponseBody::exchange(Exchange::beside_upload(self, body, upstream));
            }
        }
        if self.answer.is_ended() {
            self.finish(upstream);
            return ResponseBody::empty();
        }
        if self.answer.size_hint().exact() == Some(self.unread.bytes.len() as u64) {
            let body = self.unread.bytes.split().freeze();
            self.answer = Decoder::new(Length::Exact(0));
            self.finish(upstream);
            return ResponseBody::whole(body);
        }
        ResponseBody::exchange(Exchange { carrier: Carrier::Own(self), upstream: upstream.clone() })
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.poll_end(cx).is_ready() {
            return Poll::Ready(Some(Err(BodyError::Ended)));
        }
        let lost = |cause| Poll::Ready(Some(Err(BodyError::Upstream(Lost::Http1(cause)))));
        loop {
            match self.answer.next(&mut self.unread.bytes) {
                Ok(Some(Piece::Data(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Some(Piece::Trailers(trailers))) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(None) if self.answer.is_ended() => return Poll::Ready(None),
                Ok(None) => {}
                Err(_) => return lost(io::Error::new(io::ErrorKind::InvalidData, "a chunk is malformed")),
            }
            match ready!(self.unread.poll_fill(&mut self.stream, cx)) {
                Ok(0) if self.answer.ends_with_connection() => {
                    self.answer = Decoder::new(Length::Exact(0));
                    return Poll::Ready(None);
                }
                Ok(0) => return lost(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(cause) => return lost(cause),
            }
        }
    }

    /// Ready when the connection must be gone.
    fn poll_end(&self, cx: &Context<'_>) -> Poll<()> {
        self.live.as_ref().map_or(Poll::Pending, |live| live.poll_end(cx))
    }

    /// Back to the pool, if it can carry another exchange.
    fn finish(self: Box<Self>, upstream: &Upstream) {
        let deadlines = &upstream.worker.deadlines;
        let whole = self.upload == Upload::Sent && self.unread.bytes.is_empty();
        if self.persistence == Persistence::Close || !whole || !self.is_usable(deadlines) {
            return;
        }
        match &upstream.protocol {
            Protocol::Plain(idle) => idle.keep(self, deadlines),
            Protocol::Mtls(pool) => pool.idle().keep(self, deadlines),
        }
    }

    /// Ends it under whoever still reads or writes it.
    fn shut_down(&self) {
        let tcp = match &self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.tcp(),
        };
        // One that is closed already is as good.
        let _closed = SockRef::from(tcp).shutdown(Shutdown::Both);
    }
}

/// Why a request could not be sent to its end.
enum UploadError {
    Caller,
    Upstream,
}

/// The body of an answer together with the connection that it comes from.
#[derive(Debug)]
pub(crate) struct Exchange {
    carrier: Carrier,
    upstream: Rc<Upstream>,
}

#[derive(Debug)]
enum Carrier {
    Own(Box<Connection>),
    /// A task of its own sends what the caller still sends.
    Shared(Rc<Shared>, Uploading),
    /// The body has ended.
    None,
}

#[derive(Debug)]
struct Shared {
    connection: RefCell<Box<Connection>>,
    answered: Cell<bool>,
}

/// Stops the upload when the answer is given up.
#[derive(Debug)]
struct Uploading(Option<AbortHandle>);

impl Drop for Uploading {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Exchange {
    /// The caller still sends: its body must flow also while it does not read the answer. The connection is not used again.
    fn beside_upload(mut connection: Box<Connection>, mut body: RequestBody, upstream: &Rc<Upstream>) -> Self {
        connection.persistence = Persistence::Close;
        let live = connection.live.take();
        let shared = Rc::new(Shared { connection: RefCell::new(connection), answered: Cell::new(false) });
        let uploaded = shared.clone();
        let task = tokio::task::spawn_local(std::future::poll_fn(move |cx| {
            let connection = &mut *uploaded.connection.borrow_mut();
            if live.as_ref().is_some_and(|live| live.poll_end(cx).is_ready()) {
                connection.shut_down();
                return Poll::Ready(());
            }
            if connection.is_uploading() {
                let result = ready!(connection.poll_upload(&mut body, cx));
                connection.give_up_upload();
                body = RequestBody::none();
                if let Err(UploadError::Caller) = result {
                    // Without the rest of the request no answer means anything.
                    connection.shut_down();
                }
            }
            if uploaded.answered.get() || live.is_none() { Poll::Ready(()) } else { Poll::Pending }
        }));
        let carrier = Carrier::Shared(shared, Uploading(Some(task.abort_handle())));
        Self { carrier, upstream: upstream.clone() }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (frame, ended) = match &mut self.carrier {
            Carrier::Own(connection) => (ready!(connection.poll_frame(cx)), connection.answer.is_ended()),
            Carrier::Shared(shared, _) => {
                let connection = &mut *shared.connection.borrow_mut();
                (ready!(connection.poll_frame(cx)), connection.answer.is_ended())
            }
            Carrier::None => return Poll::Ready(None),
        };
        if ended {
            self.finish();
        }
        Poll::Ready(frame)
    }

    fn finish(&mut self) {
        match std::mem::replace(&mut self.carrier, Carrier::None) {
            Carrier::Own(connection) => connection.finish(&self.upstream),
            Carrier::Shared(shared, mut uploading) => {
                shared.answered.set(true);
                // An upload that is under way may go on to its end.
                if shared.connection.borrow().is_uploading() {
                    uploading.0 = None;
                }
            }
            Carrier::None => {}
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.carrier {
            Carrier::Own(connection) => connection.answer.is_ended(),
            Carrier::Shared(shared, _) => shared.connection.borrow().answer.is_ended(),
            Carrier::None => true,
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.carrier {
            Carrier::Own(connection) => connection.answer.size_hint(),
            Carrier::Shared(shared, _) => shared.connection.borrow().answer.size_hint(),
            Carrier::None => SizeHint::with_exact(0),
        }
    }
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

fn closed(kind: io::ErrorKind) -> ForwardError {
    ForwardError::Closed(Lost::Http1(kind.into()))
}

fn malformed() -> ForwardError {
    let cause = io::Error::new(io::ErrorKind::InvalidData, "its head is not that of an HTTP/1.1 answer");
    ForwardError::Malformed(Lost::Http1(cause))
}

const MAX_HEAD: usize = 64 << 10;
/// Interim answers before the final one.
const MAX_INTERIM: usize = 16;
