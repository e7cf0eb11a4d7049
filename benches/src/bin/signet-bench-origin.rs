//! The upstream of a bench: plain HTTP/1.1, and HTTP/2 by its preface. `GET /` answers a few bytes, `GET /bytes/N` answers N,
//! and whatever is sent with a body is read to its end and answered with its length.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use clap::Parser;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use signet_benches::listen;
use tokio::net::TcpListener;

/// Answer requests with as little work as possible
#[derive(Debug, Parser)]
struct Options {
    /// Address to listen on
    #[arg(default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
}

const SMALL: &[u8] = b"a small answer of the origin\n";
const FILL: &[u8] = &[b'd'; 64 * 1024];

fn main() -> io::Result<()> {
    let options = Options::parse();
    listen::on_each_thread(options.listen, options.threads, serve)
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            // A client that goes away in the middle is an ordinary end here.
            drop(builder.serve_connection(TokioIo::new(tcp), service_fn(answer)).await);
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Fill>, hyper::Error> {
    if request.method() != Method::GET {
        let mut body = request.into_body();
        let mut received = 0;
        while let Some(frame) = body.frame().await {
            received += frame?.data_ref().map_or(0, Bytes::len);
        }
        return Ok(Response::new(Fill::text(format!("{received}\n").into())));
    }
    let body = match request.uri().path() {
        "/" => Some(Fill::text(Bytes::from_static(SMALL))),
        path => path.strip_prefix("/bytes/").and_then(|number| number.parse().ok()).map(Fill::bytes),
    };
    let not_found = || {
        let mut response = Response::new(Fill::text(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    };
    Ok(body.map_or_else(not_found, Response::new))
}

/// A body of a known length: some text, or so many bytes of filling.
struct Fill {
    text: Bytes,
    left: u64,
}

impl Fill {
    fn text(text: Bytes) -> Self {
        Self { left: text.len() as u64, text }
    }

    fn bytes(left: u64) -> Self {
        Self { left, text: Bytes::from_static(FILL) }
    }
}

impl Body for Fill {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = self.text.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(self.text.slice(..length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
