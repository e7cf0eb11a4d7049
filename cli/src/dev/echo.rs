//! The service that stands behind the inbound gateway when the user names none: it answers with what it received, so
//! that one `curl` shows which identity the gateway vouches for.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Its only client is our own gateway, which waits for nobody this long.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Echo {
    listener: TcpListener,
}

impl Echo {
    /// Binds to a free port of the loopback interface.
    pub(crate) async fn bind() -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await? })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`.
    pub(crate) async fn serve(self, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let Ok((tcp, _)) = accepted else {
                // Out of descriptors, most likely; they come back as connections end.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            tokio::spawn(async move {
                let mut builder = auto::Builder::new(TokioExecutor::new());
                builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE);
                // A gateway that hangs up in the middle is an ordinary end.
                drop(builder.serve_connection(TokioIo::new(tcp), service_fn(answer)).await);
            });
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Answer>, std::convert::Infallible> {
    let (head, body) = request.into_parts();
    let mut text = format!("{} {} {:?}\n", head.method, head.uri, head.version);
    for (name, value) in &head.headers {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    text.push('\n');
    let mut response = Response::new(Answer { head: Some(text.into()), body });
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

/// The request's head as text, then its body as it arrives.
struct Answer {
    head: Option<Bytes>,
    body: Incoming,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.head.take() {
            Some(head) => Poll::Ready(Some(Ok(Frame::data(head)))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }
}
