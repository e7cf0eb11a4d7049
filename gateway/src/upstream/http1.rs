//! One connection over HTTP/1.1 and the one exchange that it carries at a time.
//!
//! hyper's client is a pair: a sender for requests and a connection that must be polled. Usually the connection gets a task
//! of its own, and each request crosses to it and back. Here whoever needs the answer polls both halves.
//!
//! The wakers are part of that bargain. What moves the ends of hyper's channels is our own poll of the connection, and what
//! the connection waits for at its end of them is our own next step. So the ends are polled without a waker, and the
//! connection with a [`Doorbell`] that is silent while we are at home: otherwise each step would wake the task that takes
//! it, for one more poll of everything.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::connect::{ConnectFailure, Io, Verified};
use super::doorbell::Doorbell;
use super::mtls::Live;
use super::{ForwardError, Protocol, Slot, Stream, Unanswered, Upstream};
use crate::deadlines::Deadlines;
use crate::http::body::{BodyError, Progress, RequestBody, ResponseBody, Step};
use crate::http::headers;
use crate::metrics::{Counted, UpstreamMetrics};

#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<RequestBody>,
    io: http1::Connection<TokioIo<Io>, RequestBody>,
    doorbell: Doorbell,
    /// Some over mTLS.
    live: Option<Live>,
    pub(super) idle_since_ms: u64,
    _counted: Counted,
    _slot: Slot,
}

impl Connection {
    pub(super) async fn over(
        io: Io,
        live: Option<Live>,
        slot: Slot,
        metrics: &UpstreamMetrics,
    ) -> Result<Box<Self>, ConnectFailure> {
        let handshake = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(io)).await;
        let (sender, io) = handshake
            .map_err(|cause| ConnectFailure::Unreachable(std::sync::Arc::new(std::io::Error::other(cause))))?;
        let _counted = Counted::in_gauge(&metrics.connections);
        Ok(Box::new(Self { sender, io, doorbell: Doorbell::default(), live, idle_since_ms: 0, _counted, _slot: slot }))
    }

    pub(super) async fn over_mtls(
        verified: Verified,
        slot: Slot,
        upstream: &Upstream,
    ) -> Result<Box<Self>, ConnectFailure> {
        let live = Live::of(&verified, &upstream.worker);
        Self::over(Io::Mtls(verified.stream), Some(live), slot, &upstream.metrics).await
    }

    /// Whether it can take a request, as of its last poll.
    pub(super) fn is_usable(&self, deadlines: &Deadlines) -> bool {
        self.sender.is_ready() && !self.live.as_ref().is_some_and(|live| live.is_retired(deadlines))
    }

    /// The same after a look at the socket.
    pub(super) fn is_still_usable(&mut self, deadlines: &Deadlines) -> bool {
        self.io_poll(&mut Context::from_waker(Waker::noop())).is_pending() && self.is_usable(deadlines)
    }

    /// Sends `request` and returns the head of its answer, whose body drives the connection on.
    pub(super) async fn send(
        mut self: Box<Self>,
        request: Request<RequestBody>,
        upstream: &Rc<Upstream>,
    ) -> Result<Response<ResponseBody>, Unanswered> {
        let progress = request.body().progress();
        let answer = self.head_of_answer(request, progress.as_deref(), upstream).await?;
        let (mut head, incoming) = answer.into_parts();
        headers::of_answer(&mut head);
        let body = self.body_of_answer(incoming, progress.as_deref(), upstream);
        Ok(Response::from_parts(head, body))
    }

    async fn head_of_answer(
        &mut self,
        request: Request<RequestBody>,
        progress: Option<&Progress>,
        upstream: &Upstream,
    ) -> Result<Response<Incoming>, Unanswered> {
        // Out of tokio's budget of polls, so that a poll without a waker is never put off.
        let sent = self.doorbell.silenced(|| self.sender.try_send_request(request));
        let mut answer = std::pin::pin!(tokio::task::unconstrained(sent));
        let patience = upstream.worker.deadlines.after(upstream.config.response_timeout);
        let mut uploading = progress.is_some();
        std::future::poll_fn(|cx| {
            let closed = self.io_poll(cx);
            if let Poll::Ready(result) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return Poll::Ready(result.map_err(|mut failed| {
                    let unsent = failed.take_message().map(Box::new);
                    Unanswered { error: of_hyper(failed.into_error(), progress), unsent }
                }));
            }
            if closed.is_ready() {
                return Poll::Ready(Err(Unanswered { error: ForwardError::Ended, unsent: None }));
            }
            if uploading {
                // The upstream's time begins when it has the whole request.
                uploading = progress.is_some_and(Progress::is_uploading);
                patience.set_after(upstream.config.response_timeout);
            }
            ready!(patience.poll(cx));
            Poll::Ready(Err(Unanswered { error: ForwardError::Timeout, unsent: None }))
        })
        .await
    }

    fn body_of_answer(
        self: Box<Self>,
        incoming: Incoming,
        progress: Option<&Progress>,
        upstream: &Rc<Upstream>,
    ) -> ResponseBody {
        match progress.map(Progress::step) {
            None | Some(Step::Done) if incoming.is_end_stream() => {
                self.finish(upstream);
                ResponseBody::empty()
            }
            // The caller still sends: its body must flow also while it does not read the answer. This connection gets a
            // task and is not used again.
            Some(Step::Unread | Step::Reading) => {
                let Self { mut io, live, sender, _counted, _slot, .. } = *self;
                tokio::task::spawn_local(async move {
                    let _alive = (sender, _counted, _slot);
                    std::future::poll_fn(|cx| {
                        if live.as_ref().is_some_and(|live| live.poll_end(cx).is_ready()) {
                            return Poll::Ready(());
                        }
                        Pin::new(&mut io).poll(cx).map(drop)
                    })
                    .await;
                });
                ResponseBody::stream(Stream::detached(incoming))
            }
            // Held: the upstream answered without the body it was told of. It will not get it.
            None | Some(Step::Done | Step::Held | Step::Failed) => {
                ResponseBody::exchange(Exchange { incoming, connection: Some(self), upstream: upstream.clone() })
            }
        }
    }

    /// Drives the connection. Ready when it has ended or must.
    fn io_poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(live) = &self.live
            && live.poll_end(cx).is_ready()
        {
            return Poll::Ready(());
        }
        // Its error reaches the exchange that it breaks.
        let io = Pin::new(&mut self.io);
        self.doorbell.poll_with(cx, |cx| io.poll(cx)).map(drop)
    }

    /// Back to the pool, if it can carry another exchange.
    fn finish(mut self: Box<Self>, upstream: &Upstream) {
        let deadlines = &upstream.worker.deadlines;
        if !self.is_usable(deadlines) && !self.is_still_usable(deadlines) {
            return;
        }
        match &upstream.protocol {
            Protocol::Plain(idle) => idle.keep(self, deadlines),
            Protocol::Mtls(pool) => pool.idle().keep(self, deadlines),
        }
    }
}

/// The body of an answer together with the connection that it comes from.
#[derive(Debug)]
pub(crate) struct Exchange {
    incoming: Incoming,
    /// None once the body has ended.
    connection: Option<Box<Connection>>,
    upstream: Rc<Upstream>,
}

impl Exchange {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut polled = self.poll_incoming();
        if polled.is_pending() {
            let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
            let ended = connection.io_poll(cx).is_ready();
            polled = self.poll_incoming();
            if ended && polled.is_pending() {
                return Poll::Ready(Some(Err(BodyError::Ended)));
            }
        }
        let frame = ready!(polled);
        let finished = match &frame {
            Some(Ok(_)) => self.incoming.is_end_stream(),
            Some(Err(_)) => false,
            None => true,
        };
        if finished && let Some(connection) = self.connection.take() {
            connection.finish(&self.upstream);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Upstream)))
    }

    /// Whoever finds nothing here polls the connection next.
    fn poll_incoming(&mut self) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let incoming = Pin::new(&mut self.incoming);
        let poll = || incoming.poll_frame(&mut Context::from_waker(Waker::noop()));
        match &self.connection {
            Some(connection) => connection.doorbell.silenced(poll),
            None => poll(),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Whose fault a failed exchange is.
pub(super) fn of_hyper(error: hyper::Error, progress: Option<&Progress>) -> ForwardError {
    if progress.is_some_and(|progress| progress.step() == Step::Failed) {
        ForwardError::RequestBody
    } else if error.is_parse() {
        ForwardError::Malformed(error)
    } else {
        ForwardError::Closed(error)
    }
}

/// At most this much is read ahead of a caller, so that one that does not read costs little; the head of an answer must fit
/// in it too. Larger reads make bulk no faster: a copy of this much outweighs its system call by far.
const BUFFER: usize = 64 << 10;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::metrics::Metrics;
    use crate::upstream::Slots;

    #[tokio::test]
    async fn no_answer_is_held_in_pieces_much_larger_than_the_buffer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let length = 8 << 20;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await.unwrap();
            stream.write_all(&vec![b'x'; length]).await.unwrap();
        });
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap().upstream("app");
        let io = Io::Plain(TcpStream::connect(address).await.unwrap());
        let Connection { mut sender, mut io, .. } =
            *Connection::over(io, None, Slots::new(1).take().unwrap(), &metrics).await.unwrap();
        let answer = sender.send_request(Request::new(RequestBody::none()));
        let reading = async {
            let mut body = answer.await.unwrap().into_body();
            let (mut read, mut largest) = (0, 0);
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let piece = frame.unwrap().into_data().unwrap().len();
                (read, largest) = (read + piece, largest.max(piece));
                // What does not come in small pieces for want of more.
                tokio::time::sleep(std::time::Duration::from_micros(200)).await;
            }
            (read, largest)
        };
        let driving = std::future::poll_fn(|cx| Pin::new(&mut io).poll(cx));
        let ((read, largest), _) = tokio::join!(reading, driving);
        assert_eq!(read, length);
        // A buffer that is reserved anew keeps the room that was left of the last.
        assert!((8 << 10..2 * BUFFER).contains(&largest), "{largest}");
    }
}
