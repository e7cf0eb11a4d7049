//! Connections over mTLS: HTTP/2 where the server speaks it, else HTTP/1.1. None outlives the identity it was made with, and
//! none is given a request when that end is near.

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use signet_identity::ClientKey;
use tokio::sync::Notify;

use super::connect::{self, ConnectFailure, Verified};
use super::http1;
use super::life::{Live, LiveStream};
use super::pool::Idle;
use super::{Connection, Fate, ForwardError, Lease, Lost, Slot, Unanswered, Upstream, Wanted};
use crate::connection::LocalExecutor;
use crate::deadlines::Deadlines;
use crate::http::body::{BodyError, Progress, RequestBody, ResponseBody, Step};
use crate::http::headers;
use crate::metrics::Counted;

/// The connections of one worker to one server.
#[derive(Debug)]
pub(super) struct Pool {
    key: ClientKey,
    shared: RefCell<Vec<Rc<Shared>>>,
    idle: Idle,
    /// The attempt under way; whoever needs a connection meanwhile waits for it.
    attempt: RefCell<Option<Rc<Attempt>>>,
    /// As the last handshake settled it.
    speaks: Cell<Speaks>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Speaks {
    Unknown,
    Http1,
    Http2,
}

#[derive(Debug, Default)]
struct Attempt {
    outcome: OnceCell<Result<Rc<RefCell<Option<Connection>>>, ConnectFailure>>,
    done: Notify,
}

impl Pool {
    pub(super) fn new(key: ClientKey, idle: Idle) -> Self {
        let speaks = Cell::new(Speaks::Unknown);
        Self { key, shared: RefCell::default(), idle, attempt: RefCell::default(), speaks }
    }

    pub(super) fn key(&self) -> ClientKey {
        self.key
    }

    pub(super) fn idle(&self) -> &Idle {
        &self.idle
    }

    /// A connection with room for a request.
    pub(super) async fn lease(&self, upstream: &Rc<Upstream>, wanted: Wanted) -> Result<Lease, ConnectFailure> {
        loop {
            if let Some(connection) = self.shared_with_room(&upstream.worker.deadlines) {
                return Ok(Lease { connection: Connection::Http2(connection), reused: true });
            }
            if wanted == Wanted::Any
                && let Some(connection) = self.idle.take(&upstream.worker.deadlines)
            {
                return Ok(Lease { connection: Connection::Http1(connection), reused: true });
            }
            if self.speaks.get() == Speaks::Http1 {
                let connection = upstream.note_connect(Box::pin(connect(upstream)).await)?;
                return Ok(Lease { connection, reused: false });
            }
            // It may turn out that one connection serves all who wait.
            if let Some(connection) = self.attempt(upstream).connected().await? {
                return Ok(Lease { connection, reused: false });
            }
        }
    }

    /// The attempt under way, or a new one. It has a task of its own: it goes on when the request that began it is gone.
    fn attempt(&self, upstream: &Rc<Upstream>) -> Rc<Attempt> {
        let mut under_way = self.attempt.borrow_mut();
        if let Some(attempt) = &*under_way {
            return attempt.clone();
        }
        let attempt = Rc::new(Attempt::default());
        *under_way = Some(attempt.clone());
        let (attempt_of_task, upstream) = (attempt.clone(), upstream.clone());
        tokio::task::spawn_local(async move {
            let outcome = upstream.note_connect(connect(&upstream).await);
            if let super::Protocol::Mtls(pool) = &upstream.protocol {
                pool.attempt.borrow_mut().take();
            }
            let outcome = outcome.map(|connection| Rc::new(RefCell::new(Some(connection))));
            // Nobody else sets it.
            let _ = attempt_of_task.outcome.set(outcome);
            attempt_of_task.done.notify_waiters();
        });
        attempt
    }

    fn shared_with_room(&self, deadlines: &Deadlines) -> Option<Rc<Shared>> {
        let shared = self.shared.borrow();
        shared.iter().find(|connection| connection.has_room(deadlines)).cloned()
    }

    pub(super) fn sweep(&self, upstream: &Upstream) {
        let deadlines = &upstream.worker.deadlines;
        let idle_ms = upstream.config.idle_timeout.as_millis() as u64;
        self.shared.borrow_mut().retain(|connection| connection.is_worth_keeping(deadlines, idle_ms));
        self.idle.sweep(deadlines);
    }

    pub(super) fn retire_all(&self) {
        self.shared.borrow_mut().clear();
        self.idle.clear();
    }
}

impl Attempt {
    /// Waits for its end. The first who asks gets a connection that only one can use; the others look again.
    async fn connected(&self) -> Result<Option<Connection>, ConnectFailure> {
        let done = self.done.notified();
        if self.outcome.get().is_none() {
            done.await;
        }
        match self.outcome.get() {
            Some(Ok(connection)) => Ok(connection.borrow_mut().take()),
            Some(Err(failure)) => Err(failure.clone()),
            None => Ok(None),
        }
    }
}

/// One new connection; one over HTTP/2 is in the pool at once.
async fn connect(upstream: &Rc<Upstream>) -> Result<Connection, ConnectFailure> {
    let super::Protocol::Mtls(pool) = &upstream.protocol else { return Err(ConnectFailure::OwnIdentity) };
    let slot = upstream.slot()?;
    let epoch = pool.idle.epoch();
    let verified = connect::mtls(&upstream.config, pool, &upstream.worker).await?;
    if verified.is_http2 {
        pool.speaks.set(Speaks::Http2);
        let connection = Shared::over(verified, slot, upstream).await?;
        // Where all were given up meanwhile, it serves those who waited for it and nobody else.
        if epoch == pool.idle.epoch() {
            pool.shared.borrow_mut().push(connection.clone());
        }
        Ok(Connection::Http2(connection))
    } else {
        pool.speaks.set(Speaks::Http1);
        Ok(Connection::Http1(http1::Connection::over_mtls(verified, epoch, slot, upstream)))
    }
}

/// A connection over HTTP/2, which many requests share.
#[derive(Debug)]
pub(super) struct Shared {
    sender: RefCell<SendRequest<RequestBody>>,
    streams: Cell<usize>,
    retire_ms: i64,
    idle_since_ms: Cell<u64>,
}

impl Shared {
    async fn over(verified: Verified, slot: Slot, upstream: &Upstream) -> Result<Rc<Self>, ConnectFailure> {
        let live = Live::of(&verified, &upstream.worker);
        let retire_ms = live.retire_ms;
        let stream = LiveStream { stream: verified.stream, live };
        let handshake = http2::Builder::new(LocalExecutor)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEADER_LIST)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, io) =
            handshake.map_err(|cause| ConnectFailure::Tls(std::sync::Arc::new(std::io::Error::other(cause))))?;
        let counted = Counted::in_gauge(&upstream.metrics.connections);
        tokio::task::spawn_local(async move {
            let _counted = (counted, slot);
            // Its error reaches the requests that it breaks. hyper drives the stream in a task of its own, for as long as there
            // are requests: that their time is up, only the stream can tell it.
            drop(io.await);
        });
        Ok(Rc::new(Self {
            sender: RefCell::new(sender),
            streams: Cell::new(0),
            retire_ms,
            idle_since_ms: Cell::new(upstream.worker.deadlines.uptime_ms()),
        }))
    }

    pub(super) async fn send(
        self: Rc<Self>,
        request: &mut Request<RequestBody>,
        upstream: &Upstream,
    ) -> Result<Response<ResponseBody>, Unanswered> {
        let deadlines = &upstream.worker.deadlines;
        let progress = request.body().progress();
        let leaving = std::mem::replace(request, Request::new(RequestBody::none()));
        let stream = OpenStream::on(self, deadlines.uptime_ms());
        let answer = stream.connection.sender.borrow_mut().try_send_request(leaving);
        let mut answer = std::pin::pin!(answer);
        let patience = deadlines.after(upstream.config.response_timeout);
        let mut uploading = progress.is_some();
        let answer = std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = answer.as_mut().poll(cx) {
                return Poll::Ready(result.map_err(|mut failed| {
                    let unsent = failed.take_message().map(|unsent| *request = unsent);
                    let fate = unsent.map_or(Fate::Gone, |()| Fate::Unsent);
                    Unanswered { error: of_hyper(failed.into_error(), progress.as_deref()), fate }
                }));
            }
            if uploading {
                uploading = progress.as_deref().is_some_and(Progress::is_uploading);
                patience.set_after(upstream.config.response_timeout);
            }
            ready!(patience.poll(cx));
            Poll::Ready(Err(Unanswered { error: ForwardError::Timeout, fate: Fate::Gone }))
        })
        .await?;
        let (mut head, incoming) = answer.into_parts();
        headers::of_answer(&mut head);
        let body = if incoming.is_end_stream() {
            ResponseBody::empty()
        } else {
            ResponseBody::http2(Http2Answer { incoming, _open: stream })
        };
        Ok(Response::from_parts(head, body))
    }

    fn has_room(&self, deadlines: &Deadlines) -> bool {
        self.streams.get() < MAX_STREAMS && self.is_open(deadlines)
    }

    fn is_worth_keeping(&self, deadlines: &Deadlines, idle_ms: u64) -> bool {
        let idle = self.streams.get() == 0 && deadlines.uptime_ms().saturating_sub(self.idle_since_ms.get()) >= idle_ms;
        !idle && self.is_open(deadlines)
    }

    fn is_open(&self, deadlines: &Deadlines) -> bool {
        !deadlines.may_have_passed(self.retire_ms) && !self.sender.borrow().is_closed()
    }
}

/// Counts one request on a shared connection.
#[derive(Debug)]
struct OpenStream {
    connection: Rc<Shared>,
}

impl OpenStream {
    fn on(connection: Rc<Shared>, uptime_ms: u64) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        connection.idle_since_ms.set(uptime_ms);
        Self { connection }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.connection.streams.set(self.connection.streams.get() - 1);
    }
}

/// The body of an answer from a connection that a task of its own drives.
#[derive(Debug)]
pub(crate) struct Http2Answer {
    incoming: Incoming,
    _open: OpenStream,
}

impl Http2Answer {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.incoming).poll_frame(cx).map_err(|lost| BodyError::Upstream(Lost::Http2(lost)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Whose fault a failed exchange is.
fn of_hyper(error: hyper::Error, progress: Option<&Progress>) -> ForwardError {
    if progress.is_some_and(|progress| progress.step() == Step::Failed) {
        ForwardError::RequestBody
    } else if error.is_parse() {
        ForwardError::Malformed(Lost::Http2(error))
    } else {
        ForwardError::Closed(Lost::Http2(error))
    }
}

/// What servers commonly allow; a further connection is made beyond it.
const MAX_STREAMS: usize = 100;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const FRAME: u32 = 64 << 10;
/// Of one stream, ahead of the socket.
const SEND_BUFFER: usize = 128 << 10;
const MAX_HEADER_LIST: u32 = 256 << 10;
