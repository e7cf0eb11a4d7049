//! HTTP/2: some connections, many streams on each, by hyper.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::failure::Failure;
use super::grpc;
use super::link::{connect, server_name};
use super::pace::Pace;
use super::plan::{Mode, Plan};
use super::run::after_failure;
use super::slot_tls::SlotTls;
use super::tally::{Bodies, Tally};

/// Large enough that a bulk download is not held up by the generator.
const WINDOW: u32 = 8 * 1024 * 1024;

type Sender = SendRequest<Full<Bytes>>;

/// The connection that some slots share, replaced when it ends or when the identity files change.
#[derive(Debug)]
pub(super) struct SharedConnection {
    plan: Rc<Plan>,
    tls: tokio::sync::Mutex<Option<SlotTls>>,
    current: RefCell<Option<(Sender, u64)>>,
    tally: Rc<RefCell<Tally>>,
}

pub(super) async fn run_slot(connection: Rc<SharedConnection>, call: Call, pace: Rc<Pace>, tally: Rc<RefCell<Tally>>) {
    while let Some(due) = pace.next().await {
        match exchange(&connection, &call, &tally).await {
            Ok(bodies) => tally.borrow_mut().done(due, bodies),
            Err(failure) => after_failure(&tally, &failure).await,
        }
    }
}

/// What every stream does.
#[derive(Debug)]
pub(super) struct Call {
    request: Request<Full<Bytes>>,
    answer: AnswerIs,
    sent: u64,
}

#[derive(Clone, Copy, Debug)]
enum AnswerIs {
    Plain,
    Grpc,
}

impl Call {
    pub(super) fn new(plan: &Plan) -> Result<Self, http::Error> {
        let (request, answer) = match plan.mode {
            Mode::Grpc => (grpc::request(plan)?, AnswerIs::Grpc),
            Mode::Handshake | Mode::Resumed | Mode::Http1 | Mode::Http2 | Mode::Idle => {
                (request(plan)?, AnswerIs::Plain)
            }
        };
        Ok(Self { request, answer, sent: plan.body as u64 })
    }
}

fn request(plan: &Plan) -> Result<Request<Full<Bytes>>, http::Error> {
    let scheme = if plan.tls.is_some() { "https" } else { "http" };
    let method = if plan.body == 0 { Method::GET } else { Method::POST };
    Request::builder()
        .method(method)
        .uri(format!("{scheme}://{}{}", plan.authority, plan.path))
        .body(Full::new(Bytes::from(vec![b'u'; plan.body])))
}

async fn exchange(connection: &SharedConnection, call: &Call, tally: &RefCell<Tally>) -> Result<Bodies, Failure> {
    loop {
        let (mut sender, reused) = connection.sender().await?;
        let sent = async {
            sender.ready().await?;
            let response = sender.send_request(call.request.clone()).await?;
            Ok::<_, Failure>(response)
        };
        let response = match sent.await {
            Err(failure) if reused && failure.is_stale_connection() => {
                tally.borrow_mut().retried += 1;
                connection.forget_if_closed();
                continue;
            }
            done => done?,
        };
        if !response.status().is_success() {
            return Err(Failure::Status(response.status().as_u16()));
        }
        let received = match call.answer {
            AnswerIs::Grpc => read_grpc(response).await?,
            AnswerIs::Plain => read_plain(response.into_body()).await?,
        };
        return Ok(Bodies { sent: call.sent, received });
    }
}

async fn read_plain(mut body: Incoming) -> Result<u64, Failure> {
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame?.data_ref().map_or(0, Bytes::len) as u64;
    }
    Ok(received)
}

async fn read_grpc(response: Response<Incoming>) -> Result<u64, Failure> {
    let (head, mut body) = response.into_parts();
    let (mut answer, mut received, mut last) = (grpc::Answer::default(), 0, head.headers);
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                answer.data(&data);
                received += data.len() as u64;
            }
            Err(frame) => last = frame.into_trailers().unwrap_or_default(),
        }
    }
    answer.end(&last)?;
    Ok(received)
}

impl SharedConnection {
    pub(super) fn new(plan: Rc<Plan>, tls: Option<SlotTls>, tally: Rc<RefCell<Tally>>) -> Self {
        let tls = tokio::sync::Mutex::new(tls);
        Self { plan, tls, current: RefCell::new(None), tally }
    }

    /// The current connection and whether it had been used before. While a new identity's connection is made, the other streams
    /// go on with the old one.
    async fn sender(&self) -> Result<(Sender, bool), Failure> {
        if let Some(sender) = self.usable() {
            match self.tls.try_lock() {
                Ok(mut tls) if self.is_outdated(tls.as_ref()) => {
                    let fresh = self.open(tls.as_mut()).await?;
                    return Ok((fresh, false));
                }
                _ => return Ok((sender, true)),
            }
        }
        let mut tls = self.tls.lock().await;
        // Another stream may have opened it while this one waited.
        match self.usable() {
            Some(sender) => Ok((sender, true)),
            None => Ok((self.open(tls.as_mut()).await?, false)),
        }
    }

    fn usable(&self) -> Option<Sender> {
        self.current.borrow().as_ref().filter(|(sender, _)| !sender.is_closed()).map(|(sender, _)| sender.clone())
    }

    fn is_outdated(&self, tls: Option<&SlotTls>) -> bool {
        match (tls, self.current.borrow().as_ref()) {
            (Some(tls), Some((_, generation))) => tls.is_outdated(*generation),
            _ => false,
        }
    }

    fn forget_if_closed(&self) {
        self.current.borrow_mut().take_if(|(sender, _)| sender.is_closed());
    }

    async fn open(&self, tls: Option<&mut SlotTls>) -> Result<Sender, Failure> {
        let target = self.plan.target;
        let tcp = connect(target).await?;
        let (sender, generation) = match tls {
            None => (start(tcp).await?, 0),
            Some(tls) => {
                let client = tls.next()?;
                let connector = TlsConnector::from(Arc::clone(&client.config));
                let stream = connector.connect(server_name(target.ip()), tcp).await?;
                self.tally.borrow_mut().full_handshakes += 1;
                (start(stream).await?, client.generation)
            }
        };
        *self.current.borrow_mut() = Some((sender.clone(), generation));
        Ok(sender)
    }
}

async fn start(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Sender, Failure> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(TokioIo::new(stream))
        .await?;
    // Its error reaches each stream that it breaks, and is counted there.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
