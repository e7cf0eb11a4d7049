//! The services behind the gateway: each worker has its own connections to each of them, and shares none.
//!
//! A connection over HTTP/1.1 is driven by the very task whose request it carries: no task, wake-up or channel stands
//! between the two. One over HTTP/2 carries many requests and is driven by a task of its own.

mod connect;
mod http1;
mod life;
mod mtls;
mod pool;
mod slots;

use std::io;
use std::rc::Rc;

use http::{HeaderValue, Method, Request, Response, StatusCode};
use signet_identity::{ClientKey, LiveIdentity, SharedClock};

use crate::authorization::Authorized;
use crate::config::{self, UpstreamProtocol};
use crate::deadlines::Deadlines;
use crate::http::body::{RequestBody, ResponseBody};
use crate::http::expect::Gate;
use crate::http::headers::{self, Outline};
use crate::lifetime::Registry;
use crate::metrics::UpstreamMetrics;
use crate::presented::Teller;
use crate::stream::Stream;

use connect::ConnectFailure;
pub(crate) use http1::Exchange;
pub(crate) use mtls::Http2Answer;
use slots::{Slot, Slots};

/// What every connection to one upstream shares in one worker.
#[derive(Debug)]
pub(crate) struct Upstream {
    config: config::Upstream,
    /// `host:port`, for requests that name no host.
    authority: HeaderValue,
    worker: Surroundings,
    metrics: UpstreamMetrics,
    slots: Slots,
    protocol: Protocol,
}

/// What an upstream needs of its worker.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) identity: LiveIdentity,
    pub(crate) clock: SharedClock,
    pub(crate) deadlines: Rc<Deadlines>,
    /// Connections over mTLS, whose peers are judged anew when trust changes.
    pub(crate) registry: Rc<Registry>,
    pub(crate) presented: Rc<Teller>,
}

#[derive(Debug)]
enum Protocol {
    Plain(pool::Idle),
    Mtls(mtls::Pool),
}

/// A request that got no answer from its upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("the request cannot be forwarded")]
    Refused(headers::Refused),
    #[error("no connection to the upstream")]
    Connect(#[source] ConnectFailure),
    #[error("the upstream closed the connection before it answered")]
    Closed(#[source] Lost),
    #[error("the upstream's answer is malformed")]
    Malformed(#[source] Lost),
    #[error("the upstream changed to a protocol that nobody asked for")]
    UnaskedUpgrade,
    #[error("the upstream did not answer in time")]
    Timeout,
    #[error("the connection to the upstream ended with its server's identity")]
    Ended,
    #[error("the caller's body broke off")]
    RequestBody,
}

/// What became of a connection to an upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error(transparent)]
    Http1(io::Error),
    #[error(transparent)]
    Http2(hyper::Error),
}

impl ForwardError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refused) => refused.status(),
            Self::Connect(_) | Self::Closed(_) | Self::Ended => StatusCode::SERVICE_UNAVAILABLE,
            Self::Malformed(_) | Self::UnaskedUpgrade => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::RequestBody => StatusCode::BAD_REQUEST,
        }
    }

    /// The value of `x-signet-reason`, and the label of `signet_gateway_upstream_failures_total`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.reason(),
            Self::Connect(failure) => failure.reason(),
            Self::Closed(_) => "upstream_closed",
            Self::Malformed(_) | Self::UnaskedUpgrade => "upstream_malformed_answer",
            Self::Timeout => "upstream_timeout",
            Self::Ended => "upstream_identity_ended",
            Self::RequestBody => "request_body",
        }
    }

    /// Whether it is the request that was at fault.
    pub(crate) fn by_caller(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::RequestBody)
    }
}

impl Upstream {
    /// `key` is that of the TLS policy of an mTLS upstream, `connections` how many it may have here at once.
    pub(crate) fn new(
        config: config::Upstream,
        key: Option<ClientKey>,
        connections: usize,
        worker: Surroundings,
        metrics: UpstreamMetrics,
    ) -> Rc<Self> {
        let idle = pool::Idle::new(config.idle_connections, config.idle_timeout);
        let protocol = match (&config.protocol, key) {
            (UpstreamProtocol::Mtls { .. }, Some(key)) => Protocol::Mtls(mtls::Pool::new(key, idle)),
            (UpstreamProtocol::Mtls { .. } | UpstreamProtocol::Plain, _) => Protocol::Plain(idle),
        };
        let authority = HeaderValue::try_from(config.address.to_string());
        let authority = authority.unwrap_or_else(|_| HeaderValue::from_static("localhost"));
        Rc::new(Self { config, authority, worker, metrics, slots: Slots::new(connections), protocol })
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// Sends an allowed request on and returns the head of the answer, its body still flowing.
    pub(crate) async fn forward(
        self: &Rc<Self>,
        granted: Authorized<'_>,
    ) -> Result<Response<ResponseBody>, ForwardError> {
        let (mut head, body) = granted.request.into_parts();
        let outline = headers::of_request(&mut head, granted.caller).map_err(ForwardError::Refused)?;
        // What hyper's server side left there is not for its client side.
        head.extensions.clear();
        let answer = self.send(Request::from_parts(head, RequestBody::new(body)), &outline).await;
        if let Err(error) = &answer
            && !error.by_caller()
        {
            self.metrics.failed(error.reason());
        }
        answer
    }

    /// Sends a request; once more, when it met a kept connection as that closed.
    async fn send(
        self: &Rc<Self>,
        mut request: Request<RequestBody>,
        outline: &Outline,
    ) -> Result<Response<ResponseBody>, ForwardError> {
        let mut wanted = Wanted::Any;
        loop {
            let lease = self.lease(wanted).await.map_err(ForwardError::Connect)?;
            let reused = lease.reused;
            let sent = match lease.connection {
                Connection::Http1(connection) => {
                    outline.to_http1(&mut request, &self.authority);
                    if outline.expects_continue {
                        request.body_mut().hold_for(Gate::new(&self.worker.deadlines));
                    }
                    connection.send(&mut request, self).await
                }
                Connection::Http2(connection) => {
                    outline.to_http2(&mut request, &self.authority).map_err(ForwardError::Refused)?;
                    connection.send(&mut request, self).await
                }
            };
            match sent {
                // None was asked for: `upgrade` does not go further than here.
                Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Err(ForwardError::UnaskedUpgrade);
                }
                Ok(answer) => return Ok(answer),
                Err(Unanswered { error, fate }) => {
                    if !reused || wanted == Wanted::New || !matches!(error, ForwardError::Closed(_)) {
                        return Err(error);
                    }
                    match fate {
                        Fate::Unsent => {}
                        Fate::Sent if may_be_repeated(&request) => self.metrics.retries.inc(),
                        Fate::Sent | Fate::Gone => return Err(error),
                    }
                    wanted = Wanted::New;
                }
            }
        }
    }

    async fn lease(self: &Rc<Self>, wanted: Wanted) -> Result<Lease, ConnectFailure> {
        match &self.protocol {
            Protocol::Plain(idle) => {
                if wanted == Wanted::Any
                    && let Some(connection) = idle.take(&self.worker.deadlines)
                {
                    return Ok(Lease { connection: Connection::Http1(connection), reused: true });
                }
                // In a box: a request that needs no new connection has no room for making one.
                let connection = self.note_connect(Box::pin(self.connect_plain()).await)?;
                Ok(Lease { connection: Connection::Http1(connection), reused: false })
            }
            Protocol::Mtls(pool) => pool.lease(self, wanted).await,
        }
    }

    async fn connect_plain(&self) -> Result<Box<http1::Connection>, ConnectFailure> {
        let slot = self.slot()?;
        let stream = connect::tcp(&self.config).await?;
        Ok(http1::Connection::over(Stream::Plain(stream), None, slot, &self.metrics))
    }

    /// The right to one more connection. When there are enough of them, an unused one gives way.
    fn slot(&self) -> Result<Slot, ConnectFailure> {
        let idle = match &self.protocol {
            Protocol::Plain(idle) => idle,
            Protocol::Mtls(pool) => pool.idle(),
        };
        loop {
            if let Some(slot) = self.slots.take() {
                return Ok(slot);
            }
            if !idle.drop_oldest() {
                return Err(ConnectFailure::Full);
            }
        }
    }

    fn note_connect<T>(&self, result: Result<T, ConnectFailure>) -> Result<T, ConnectFailure> {
        self.metrics.connected(result.as_ref().map_or_else(|failure| failure.result(), |_| "ok"));
        result
    }

    /// Once a second: lets go of what is closed, idle for too long or near its end.
    pub(crate) fn sweep(&self) {
        match &self.protocol {
            Protocol::Plain(idle) => idle.sweep(&self.worker.deadlines),
            Protocol::Mtls(pool) => pool.sweep(self),
        }
    }

    /// Uses no connection for a new request that was made before now.
    pub(crate) fn retire_all(&self) {
        if let Protocol::Mtls(pool) = &self.protocol {
            pool.retire_all();
        }
    }
}

/// One connection for one request.
#[derive(Debug)]
struct Lease {
    connection: Connection,
    /// It has served before, so that it may be closing unnoticed.
    reused: bool,
}

#[derive(Debug)]
enum Connection {
    Http1(Box<http1::Connection>),
    Http2(Rc<mtls::Shared>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wanted {
    Any,
    New,
}

/// A request whose connection failed it.
#[derive(Debug)]
struct Unanswered {
    error: ForwardError,
    fate: Fate,
}

/// What became of a request that got no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// Nothing of it has left.
    Unsent,
    /// The upstream may have seen it.
    Sent,
    /// It went with its connection.
    Gone,
}

/// Whether the upstream may see a request twice: it has no body, and its method may be repeated (RFC 9110 §9.2.2).
fn may_be_repeated(request: &Request<RequestBody>) -> bool {
    let repeatable =
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
    repeatable && request.body().progress().is_none()
}
