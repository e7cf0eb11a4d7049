//! One caller's connection: its requests are served until it ends by itself, is told to, or its time is up.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;

use crate::authorization::Permission;
use crate::deadlines::{Deadline, Deadlines, Passed};
use crate::http::answer::HEADER_TIMEOUT;
use crate::http::body::{CallerBody, ResponseBody};
use crate::http::frames::Followed;
use crate::http::proxy::serve_request;
use crate::http1::server;
use crate::lifetime::{Cause, Control, Lifetime, Order};
use crate::listener::Listener;
use crate::stream::Stream;

/// What a connection's requests have in common.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) listener: Rc<Listener>,
    pub(crate) permission: Permission,
    pub(crate) activity: Rc<Activity>,
}

/// A connection whose caller is known, ready for its requests.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) stream: Stream,
    pub(crate) protocol: Protocol,
    pub(crate) permission: Permission,
    pub(crate) lifetime: Lifetime,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    /// With what was read of it to find out.
    Http1 {
        first: Vec<u8>,
    },
    Http2 {
        first: Vec<u8>,
    },
}

impl Ready {
    /// Serves requests until the connection ends; returns why it did. Each protocol has a box of its own, so that a
    /// connection has no more room than its protocol needs.
    pub(crate) async fn serve_requests(self, listener: &Rc<Listener>, control: &Control) -> Cause {
        let activity = Activity::new(listener.core.worker.deadlines.clone());
        let caller = Rc::new(Caller { listener: listener.clone(), permission: self.permission, activity });
        let timing = Timing::new(self.lifetime, listener);
        match self.protocol {
            Protocol::Http1 { first } => {
                let connection = server::Connection::new(self.stream, &first);
                Box::pin(serve_http1(connection, caller, control, timing)).await
            }
            Protocol::Http2 { first } => {
                let stream = Followed::new(self.stream, first, caller.activity.clone());
                Box::pin(serve_http2(stream, caller, control, timing)).await
            }
        }
    }
}

async fn serve_http1(
    mut connection: server::Connection,
    caller: Rc<Caller>,
    control: &Control,
    timing: Timing,
) -> Cause {
    let cause = {
        let requests = std::pin::pin!(connection.serve(&caller));
        drive(Http1(requests), control, timing, &caller.activity).await
    };
    if cause == Cause::HeaderTimeout {
        // It is gone in either case; that it heard is not needed.
        let _heard = tokio::time::timeout(GOODBYE, connection.say_last(HEADER_TIMEOUT)).await;
    }
    cause
}

async fn serve_http2(stream: Followed, caller: Rc<Caller>, control: &Control, timing: Timing) -> Cause {
    let activity = caller.activity.clone();
    let http2 = caller.listener.core.http2.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let caller = caller.clone();
        let request = request.map(CallerBody::Http2);
        // In a box: hyper and the task for the stream move it several times.
        Box::pin(async move { Ok::<_, Infallible>(serve_request(&caller, request).await) })
    });
    drive(http2.serve_connection(TokioIo::new(stream), service), control, timing, &activity).await
}

/// What connections of both protocols can do.
trait Serving {
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<server::Ended>;
    /// Takes no new requests, and ends when those under way have ended. Ready when it need not even be driven for that.
    fn drain(&mut self, cause: Cause, activity: &Activity) -> Poll<()>;
    /// The number of the head that its caller is to send the rest of; none when there is nothing to hurry for.
    fn awaited_head(&self, activity: &Activity) -> Option<u64>;
}

/// The requests of a connection over HTTP/1.1, one after the other.
struct Http1<'a, F>(Pin<&'a mut F>);

impl<F: Future<Output = server::Ended>> Serving for Http1<'_, F> {
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<server::Ended> {
        self.0.as_mut().poll(cx)
    }

    fn drain(&mut self, cause: Cause, activity: &Activity) -> Poll<()> {
        // A caller that pauses between two requests is told with the next answer: if it was closed now, the next request
        // could already be on its way. Its certificate's end is the last moment for that.
        let ending = if cause.waits_for_the_caller() { Ending::WithNextAnswer } else { Ending::AtRest };
        activity.ending.set(ending);
        Poll::Pending
    }

    /// A head that came before the answer to an earlier request may take as long as that.
    fn awaited_head(&self, activity: &Activity) -> Option<u64> {
        activity.head().filter(|_| activity.in_flight.get() == 0)
    }
}

impl<T> Serving for hyper::server::conn::http2::Connection<TokioIo<Followed>, T, LocalExecutor>
where
    T: HttpService<Incoming, ResBody = ResponseBody, Error = Infallible>,
    T::Future: 'static,
{
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<server::Ended> {
        Pin::new(self).poll(cx).map(|result| if result.is_ok() { server::Ended::Done } else { server::Ended::Broken })
    }

    fn drain(&mut self, cause: Cause, activity: &Activity) -> Poll<()> {
        // hyper would wait for the preface before it says goodbye.
        if activity.heads.get().ended == 0 && !cause.waits_for_the_caller() {
            return Poll::Ready(());
        }
        Pin::new(self).graceful_shutdown();
        Poll::Pending
    }

    /// No frame may come between those of a head (RFC 9113 §4.3): it holds up every other request.
    fn awaited_head(&self, activity: &Activity) -> Option<u64> {
        activity.head()
    }
}

async fn drive(mut connection: impl Serving, control: &Control, mut timing: Timing, activity: &Activity) -> Cause {
    let mut draining = None;
    std::future::poll_fn(|cx| {
        loop {
            match control.order() {
                Order::End(cause) => return Poll::Ready(cause),
                Order::Drain(cause) if draining.is_none() => {
                    draining = Some(cause);
                    if connection.drain(cause, activity).is_ready() {
                        return Poll::Ready(cause);
                    }
                }
                Order::Serve | Order::Drain(_) => {}
            }
            control.watch(cx);
            if let Poll::Ready(ended) = connection.poll_serve(cx) {
                let cause = match ended {
                    server::Ended::Done => Cause::Done,
                    server::Ended::Broken => Cause::Broken,
                };
                return Poll::Ready(draining.unwrap_or(cause));
            }
            match timing.review(cx, activity, connection.awaited_head(activity), draining) {
                Some(order) => control.give(order),
                None => return Poll::Pending,
            }
        }
    })
    .await
}

/// When a connection's time is up. One deadline serves all reasons, and a request does not touch it.
#[derive(Debug)]
struct Timing {
    deadline: Deadline,
    lifetime: Lifetime,
    idle: Duration,
    head: Duration,
    /// The head that the deadline is for.
    awaited_head: Option<u64>,
}

impl Timing {
    fn new(lifetime: Lifetime, listener: &Listener) -> Self {
        let limits = &listener.core.limits;
        let deadline = listener.core.worker.deadlines.after(limits.idle_timeout);
        deadline.set_at(lifetime.drain_ms);
        Self { deadline, lifetime, idle: limits.idle_timeout, head: limits.header_timeout, awaited_head: None }
    }

    /// What is to be done now; none when it is to wait.
    fn review(
        &mut self,
        cx: &Context<'_>,
        activity: &Activity,
        awaited_head: Option<u64>,
        draining: Option<Cause>,
    ) -> Option<Order> {
        if awaited_head != self.awaited_head {
            self.awaited_head = awaited_head;
            self.deadline.set_after(if awaited_head.is_some() { self.head } else { self.idle });
        }
        loop {
            match self.deadline.poll(cx) {
                Poll::Pending => return None,
                Poll::Ready(Passed::Wall) if draining.is_some() => {
                    if self.deadline.wall_is_before(self.lifetime.end_ms) {
                        self.deadline.set_at(self.lifetime.end_ms);
                    } else {
                        return Some(Order::End(self.lifetime.cause));
                    }
                }
                Poll::Ready(Passed::Wall) => return Some(Order::Drain(self.lifetime.cause)),
                Poll::Ready(Passed::Span) if awaited_head.is_some() => return Some(Order::End(Cause::HeaderTimeout)),
                Poll::Ready(Passed::Span) => match (activity.idle_for(), draining) {
                    (Some(_), Some(cause)) => return Some(Order::End(cause)),
                    (Some(idle), None) if idle >= self.idle => {
                        self.deadline.set_after(GOODBYE);
                        return Some(Order::Drain(Cause::Idle));
                    }
                    (Some(idle), None) => self.deadline.set_after(self.idle - idle),
                    (None, _) => self.deadline.set_after(self.idle),
                },
            }
        }
    }
}

/// What a connection's caller is doing.
#[derive(Debug)]
pub(crate) struct Activity {
    deadlines: Rc<Deadlines>,
    in_flight: Cell<u32>,
    /// Milliseconds of uptime when the last request began or ended.
    last_ms: Cell<u64>,
    heads: Cell<Heads>,
    ending: Cell<Ending>,
}

/// Whether a connection over HTTP/1.1 is to end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Ending {
    #[default]
    No,
    /// The next answer is the last.
    WithNextAnswer,
    /// The same, and when there is no request under way it ends now.
    AtRest,
}

impl Activity {
    pub(crate) fn new(deadlines: Rc<Deadlines>) -> Rc<Self> {
        let last_ms = Cell::new(deadlines.uptime_ms());
        Rc::new(Self { deadlines, in_flight: Cell::new(0), last_ms, heads: Cell::default(), ending: Cell::default() })
    }

    pub(crate) fn ending(&self) -> Ending {
        self.ending.get()
    }

    /// How far the heads of requests have come by now.
    pub(crate) fn note_heads(&self, heads: Heads) {
        self.heads.set(heads);
    }

    /// The number of the head that has begun and not ended.
    fn head(&self) -> Option<u64> {
        let Heads { ended, amid } = self.heads.get();
        amid.then_some(ended)
    }

    /// None while a request is under way.
    fn idle_for(&self) -> Option<Duration> {
        let since = self.deadlines.uptime_ms().saturating_sub(self.last_ms.get());
        (self.in_flight.get() == 0).then(|| Duration::from_millis(since))
    }
}

/// How far the heads of a connection's requests have come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Heads {
    /// How many have ended, of those that came in pieces at least.
    pub(crate) ended: u64,
    /// Whether one more has begun.
    pub(crate) amid: bool,
}

impl Heads {
    pub(crate) fn end(&mut self) {
        *self = Self { ended: self.ended + 1, amid: false };
    }
}

/// One request under way.
#[derive(Debug)]
pub(crate) struct InFlight(Rc<Activity>);

impl InFlight {
    pub(crate) fn of(activity: &Rc<Activity>) -> Self {
        activity.in_flight.set(activity.in_flight.get() + 1);
        Self(activity.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        self.0.last_ms.set(self.0.deadlines.uptime_ms());
    }
}

/// Runs hyper's tasks on the worker that their connection is on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// How long a caller may take to close after it was told of the end.
const GOODBYE: Duration = Duration::from_secs(2);
