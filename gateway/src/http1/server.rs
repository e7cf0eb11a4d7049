//! The connection of a caller over HTTP/1.1: one request after the other, each answered before the next is read.
//!
//! ```text
//! read_head ─► serve_request ─────────► write_answer ─► read_head …
//!                 └ reads the body by itself, from the same socket
//! ```
//! The request's body and the connection share the socket on one thread. Whoever polls holds it for that poll alone, so no
//! channel and no other task stands between them.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::header::{CONNECTION, DATE, EXPECT};
use http::{Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};

use super::body::{Decoder, Encoder, Length, Piece};
use super::head::{self, Head, Persistence};
use super::length::{Malformed, end_of_head};
use super::outgoing::Outgoing;
use crate::connection::{Caller, Ending, Heads};
use crate::http::body::{CallerBody, ResponseBody};
use crate::http::proxy::serve_request;
use crate::stream::{Stream, Unread};

/// One caller's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Rc<Socket>,
    heads: Heads,
}

/// What a connection shares with the body of the request that it is serving.
#[derive(Debug)]
struct Socket {
    ends: RefCell<Ends>,
    /// Waits for the request's body to be read or given up.
    waiting: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Ends {
    stream: Stream,
    unread: Unread,
    out: Outgoing,
    body: Decoder,
    /// The caller sends its body when it is told to.
    hold: Hold,
    failed: Option<Failed>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hold {
    None,
    /// Until `100 Continue`.
    Body,
    /// Until that is written.
    Continuing,
    /// The answer has begun without it. `100 Continue` would be read as a part of the answer now.
    Refused,
}

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Failed {
    Malformed,
    Broken,
}

/// How a connection ended by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    Done,
    Broken,
}

impl Connection {
    /// `first` are bytes of the connection that were read already.
    pub(crate) fn new(stream: Stream, first: &[u8]) -> Self {
        let ends = Ends {
            stream,
            unread: Unread::new(first),
            out: Outgoing::default(),
            body: Decoder::new(Length::Exact(0)),
            hold: Hold::None,
            failed: None,
        };
        Self {
            socket: Rc::new(Socket { ends: RefCell::new(ends), waiting: RefCell::default() }),
            heads: Heads::default(),
        }
    }

    /// Serves requests until the caller has no more, or may ask for no more.
    pub(crate) async fn serve(&mut self, caller: &Caller) -> Ended {
        // One that broke amid an answer is not closed as if the answer were whole.
        let served = match self.serve_all(caller).await {
            Ok(()) => std::future::poll_fn(|cx| self.socket.ends.borrow_mut().poll_close(cx)).await,
            Err(cause) => Err(cause),
        };
        if self.socket.ends.borrow().failed == Some(Failed::Malformed) {
            caller.listener.metrics.malformed(Malformed::Chunk.label());
        }
        if served.is_ok() { Ended::Done } else { Ended::Broken }
    }

    async fn serve_all(&mut self, caller: &Caller) -> io::Result<()> {
        loop {
            let head = match self.read_head(caller).await? {
                Some(Ok(head)) => head,
                Some(Err(malformed)) => {
                    caller.listener.metrics.malformed(malformed.label());
                    return self.write_last(refusal(malformed)).await;
                }
                None => return Ok(()),
            };
            // In a box, so that a connection at rest does not keep the room that its requests need.
            if Box::pin(self.serve_one(head, caller)).await? == Persistence::Close {
                return Ok(());
            }
        }
    }

    /// Answers one request; returns whether the connection may carry another.
    async fn serve_one(&self, head: Head<http::request::Parts>, caller: &Caller) -> io::Result<Persistence> {
        let asked = head::Caller { method: head.parts.method.clone(), version: head.parts.version };
        let connection = head.connection;
        let request = self.request(head);
        let mut serving = pin!(serve_request(caller, request));
        match self.unless_gone(serving.as_mut()).await? {
            Some(answer) => self.write_answer(answer, &asked, connection, caller).await,
            None => Ok(Persistence::Close),
        }
    }

    /// The next head; none when the caller has closed between two requests.
    async fn read_head(
        &mut self,
        caller: &Caller,
    ) -> io::Result<Option<Result<Head<http::request::Parts>, Malformed>>> {
        let limits = &caller.listener.core.limits;
        let mut searched = 0;
        std::future::poll_fn(|cx| {
            let ends = &mut *self.socket.ends.borrow_mut();
            if ends.unread.bytes.is_empty() && caller.activity.ending() == Ending::AtRest {
                return Poll::Ready(Ok(None));
            }
            loop {
                // Empty lines before a request are ignored (RFC 9112 §2.2).
                while searched == 0 && ends.unread.bytes.starts_with(b"\r\n") {
                    let _ = ends.unread.bytes.split_to(2);
                }
                if let Some(end) = end_of_head(&ends.unread.bytes, searched)
                    && end <= limits.header_bytes
                {
                    let head = ends.unread.bytes.split_to(end).freeze();
                    if self.heads.amid {
                        self.heads.end();
                        caller.activity.note_heads(self.heads);
                    }
                    return Poll::Ready(Ok(Some(head::request(head, limits.headers))));
                }
                if ends.unread.bytes.len() > limits.header_bytes {
                    return Poll::Ready(Ok(Some(Err(Malformed::TooLarge))));
                }
                searched = ends.unread.bytes.len().saturating_sub(3);
                if !ends.unread.bytes.is_empty() && !self.heads.amid {
                    self.heads.amid = true;
                    caller.activity.note_heads(self.heads);
                }
                let filled = ends.poll_fill(cx);
                if filled.is_pending() && ends.unread.bytes.is_empty() {
                    ends.release();
                }
                match ready!(filled)? {
                    0 if ends.unread.bytes.is_empty() => return Poll::Ready(Ok(None)),
                    0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    _ => {}
                }
            }
        })
        .await
    }

    fn request(&self, head: Head<http::request::Parts>) -> Request<CallerBody> {
        let mut ends = self.socket.ends.borrow_mut();
        ends.body = Decoder::new(head.length);
        let expects = head.parts.version == Version::HTTP_11 && head.parts.headers.contains_key(EXPECT);
        ends.hold = if expects { Hold::Body } else { Hold::None };
        let body = if ends.body.is_ended() { CallerBody::None } else { CallerBody::Http1(Body(self.socket.clone())) };
        Request::from_parts(head.parts, body)
    }

    /// What `work` comes to; none when the caller hangs up meanwhile.
    async fn unless_gone<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> io::Result<Option<T>> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(Some(done)));
            }
            let ends = &mut *self.socket.ends.borrow_mut();
            // A body that is not read to its end yet has a reader who will notice; so will a request that came early.
            if !ends.body.is_ended() && ends.hold != Hold::Body || !ends.unread.bytes.is_empty() {
                return Poll::Pending;
            }
            match ready!(ends.poll_fill(cx))? {
                0 => Poll::Ready(Ok(None)),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Sends an answer to its end.
    async fn write_answer(
        &self,
        answer: Response<ResponseBody>,
        asked: &head::Caller,
        mut connection: Persistence,
        caller: &Caller,
    ) -> io::Result<Persistence> {
        let (mut parts, body) = answer.into_parts();
        if caller.activity.ending() != Ending::No || parts.headers.remove(CONNECTION).is_some() {
            connection = Persistence::Close;
        }
        let length = head::length_for(&parts, asked, body.size_hint().exact());
        if length == Length::UntilClose {
            connection = Persistence::Close;
        }
        if !parts.headers.contains_key(DATE) {
            parts.headers.insert(DATE, caller.listener.core.worker.deadlines.http_date());
        }
        {
            let ends = &mut *self.socket.ends.borrow_mut();
            ends.begin_answer();
            head::write_answer(ends.out.head(), &parts, asked, length, connection);
        }
        self.write_body(body, Encoder::new(length)).await?;
        self.end_request().await?;
        let ends = self.socket.ends.borrow();
        let read_on = ends.body.is_ended() && ends.failed.is_none();
        Ok(if read_on && caller.activity.ending() == Ending::No { connection } else { Persistence::Close })
    }

    async fn write_body(&self, body: ResponseBody, encoder: Encoder) -> io::Result<()> {
        let mut body = pin!(body);
        let mut encoder = (!encoder.is_full()).then_some(encoder);
        std::future::poll_fn(|cx| {
            loop {
                let mut waiting = false;
                // The body is polled without a hold on the socket: it may be about to read the request's from there.
                while let Some(encoding) = &mut encoder
                    && self.socket.ends.borrow().out.has_room()
                {
                    let Poll::Ready(frame) = body.as_mut().poll_frame(cx) else {
                        waiting = true;
                        break;
                    };
                    let out = &mut self.socket.ends.borrow_mut().out;
                    let ended = match frame.transpose().map_err(io::Error::other)? {
                        None => Some(None),
                        Some(frame) => match frame.into_data() {
                            Ok(data) => {
                                encoding.data(data, out).map_err(|_| io::Error::other(WRONG_LENGTH))?;
                                (encoding.is_full() || body.is_end_stream()).then_some(None)
                            }
                            Err(frame) => Some(frame.into_trailers().ok()),
                        },
                    };
                    if let Some(trailers) = ended
                        && let Some(encoder) = encoder.take()
                    {
                        encoder.end(trailers.as_ref(), out).map_err(|_| io::Error::other(WRONG_LENGTH))?;
                    }
                }
                ready!(self.socket.ends.borrow_mut().poll_flush(cx))?;
                if encoder.is_none() {
                    return Poll::Ready(Ok(()));
                }
                if waiting {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Waits for whoever still reads the request's body; what nobody wants is read no further than it has come.
    async fn end_request(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            let ends = &mut *self.socket.ends.borrow_mut();
            if ends.body.is_ended() || ends.failed.is_some() {
                return Poll::Ready(Ok(()));
            }
            if Rc::strong_count(&self.socket) > 1 {
                *self.socket.waiting.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if ends.hold == Hold::None {
                ends.skip_unread();
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    async fn write_last(&self, status: StatusCode) -> io::Result<()> {
        let text = format!(
            "HTTP/1.1 {} {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            status.as_str(),
            status.canonical_reason().unwrap_or("")
        );
        self.say_last(text.as_bytes()).await
    }

    /// The last word to a caller.
    pub(crate) async fn say_last(&self, text: &[u8]) -> io::Result<()> {
        self.socket.ends.borrow_mut().out.head().extend_from_slice(text);
        std::future::poll_fn(|cx| self.socket.ends.borrow_mut().poll_close(cx)).await
    }
}

fn refusal(malformed: Malformed) -> StatusCode {
    match malformed {
        Malformed::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    }
}

impl Ends {
    /// Reads more; the number of bytes that came, none at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.unread.poll_fill(&mut self.stream, cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.poll_flush(&mut self.stream, cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), cx)
    }

    /// What is not needed while nothing happens.
    fn release(&mut self) {
        self.unread.release();
        self.out.release();
    }

    /// A body that was not asked for by now is not asked for any more.
    fn begin_answer(&mut self) {
        self.hold = match self.hold {
            Hold::Body | Hold::Refused => Hold::Refused,
            Hold::None | Hold::Continuing => Hold::None,
        };
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.hold == Hold::Refused {
            return Poll::Ready(Some(Err(BodyError::Refused)));
        }
        if self.hold == Hold::Body {
            self.hold = Hold::Continuing;
            self.out.head().extend_from_slice(CONTINUE);
        }
        // Only then: a flush here takes the socket's waker from the answer.
        if self.hold == Hold::Continuing {
            if let Err(error) = ready!(self.poll_flush(cx)) {
                self.failed = Some(Failed::Broken);
                return Poll::Ready(Some(Err(BodyError::Broken(error))));
            }
            self.hold = Hold::None;
        }
        loop {
            match self.body.next(&mut self.unread.bytes) {
                Ok(Some(Piece::Data(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Some(Piece::Trailers(trailers))) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(None) if self.body.is_ended() => return Poll::Ready(None),
                Ok(None) => {}
                Err(_) => {
                    self.failed = Some(Failed::Malformed);
                    return Poll::Ready(Some(Err(BodyError::Chunk)));
                }
            }
            let broken = match ready!(self.poll_fill(cx)) {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => continue,
                Err(error) => error,
            };
            self.failed = Some(Failed::Broken);
            return Poll::Ready(Some(Err(BodyError::Broken(broken))));
        }
    }

    fn skip_unread(&mut self) {
        loop {
            match self.body.next(&mut self.unread.bytes) {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => return self.failed = Some(Failed::Malformed),
            }
        }
    }
}

/// The body of a caller's request.
#[derive(Debug)]
pub(crate) struct Body(Rc<Socket>);

/// A caller's body that did not come whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("it was answered before it was asked for")]
    Refused,
    #[error("a chunk or a trailer is malformed")]
    Chunk,
    #[error("the caller broke off")]
    Broken(#[source] io::Error),
}

impl Body {
    pub(crate) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.ends.borrow_mut().poll_body(cx)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.0.ends.borrow().body.is_ended()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.0.ends.borrow().body.size_hint()
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let waiting = self.0.waiting.borrow_mut().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const WRONG_LENGTH: &str = "the answer's body is not as long as its head has told";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_caller_is_told_to_continue_before_the_answer_and_not_amid_it() {
        for answering in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let connection = Connection::new(Stream::Plain(listener.accept().await.unwrap().0), b"");
            let text = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
            let request = connection.request(head::request(text.into(), 10).unwrap());
            if answering {
                connection.socket.ends.borrow_mut().begin_answer();
            }
            let polled = std::future::poll_fn(|cx| {
                Poll::Ready(match request.body() {
                    CallerBody::Http1(body) => body.poll_frame(cx),
                    CallerBody::None | CallerBody::Http2(_) => Poll::Ready(None),
                })
            });
            let polled = polled.await;
            assert!(connection.socket.ends.borrow().out.is_empty());
            if answering {
                assert!(matches!(polled, Poll::Ready(Some(Err(BodyError::Refused)))), "{polled:?}");
                assert!(theirs.try_read(&mut [0; 64]).is_err());
            } else {
                assert!(polled.is_pending());
                theirs.readable().await.unwrap();
                let mut told = [0; 64];
                let read = theirs.try_read(&mut told).unwrap();
                assert_eq!(&told[..read], CONTINUE);
            }
        }
    }
}
