use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ServerConfig, version};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::harness::*;
use crate::outbound::{outbound_identity, outbound_with};
use crate::upstream_down::{by_hand, read_head};

/// What a service must not take from a caller after the body, nor a caller from a service.
const BARRED: [&str; 22] = [
    "x-forwarded-client-cert",
    "x_forwarded_client_cert",
    "x-forwarded_client-cert",
    "x.forwarded.client.cert",
    "x-forwarded-for",
    "x_forwarded_user",
    "forwarded",
    "x-real-ip",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "transfer-encoding",
    "transfer_encoding",
    "content-length",
    "host",
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "if-match",
];

/// Answers with the names of the trailers of the request and of what its `trailer` announced.
async fn names_of(request: Request<Incoming>) -> Answer {
    let announced = format!("{:?}", request.headers().get_all("trailer").iter().collect::<Vec<_>>());
    let trailers = request.into_body().collect().await.unwrap().trailers().cloned().unwrap_or_default();
    let mut names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    Response::new(full(format!("announced {announced} got {names:?}")))
}

const PASSED: &str = "announced [\"x-sum\"] got [\"x-sum\"]";

fn over_http1() -> String {
    let lines: String = BARRED.iter().map(|name| format!("{name}: forged\r\n")).collect();
    format!(
        "POST / HTTP/1.1\r\nhost: a\r\ntrailer: {}\r\ntrailer: X-Sum\r\ntransfer-encoding: chunked\r\n\r\n\
         4\r\nbody\r\n0\r\n{lines}x-sum: 42\r\n\r\n",
        BARRED.join(", "),
    )
}

/// What a caller can put there over HTTP/2: all but what its own library does not send.
fn over_http2() -> Request<impl hyper::body::Body<Data = Bytes, Error = Infallible> + Send + Unpin> {
    let mut trailers = HeaderMap::new();
    for name in BARRED.into_iter().filter(|name| !OF_ONE_HOP.contains(name)).chain(["x-sum"]) {
        trailers.insert(name, HeaderValue::from_static("forged"));
    }
    let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
    Request::post("http://a/")
        .header("trailer", format!("{}, x-sum", BARRED.join(",")))
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .unwrap()
}

const OF_ONE_HOP: [&str; 5] = ["connection", "keep-alive", "upgrade", "te", "transfer-encoding"];

async fn text_of(answer: Response<Incoming>) -> String {
    String::from_utf8_lossy(&answer.into_body().collect().await.unwrap().to_bytes()).into_owned()
}

#[tokio::test]
async fn a_caller_cannot_claim_an_identity_in_its_trailers() {
    let pki = Pki::new();
    let gateway = inbound(&pki, service(names_of).await).await;
    let (answer, ended) = request(&gateway, &pki, &over_http1()).await;
    assert!(answer.ends_with(PASSED), "{answer}");
    assert_eq!(ended, Ended::Open);
    let mut sender = http2(connect(gateway.address(), Some(&pki.client()), &[b"h2"]).await.unwrap()).await;
    assert_eq!(text_of(sender.send_request(over_http2()).await.unwrap()).await, PASSED);
}

#[tokio::test]
async fn nor_to_a_service_that_speaks_http2() {
    let pki = Pki::new();
    let address = http2_service(&pki).await;
    let gateway = outbound_with(&pki, &outbound_identity(&pki), address, "spiffe://example.org/service", "").await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let (answer, _) = exchange(&mut stream, over_http1().as_bytes()).await;
    assert!(answer.ends_with(PASSED), "{answer}");
    let mut sender = http2(TcpStream::connect(gateway.address()).await.unwrap()).await;
    assert_eq!(text_of(sender.send_request(over_http2()).await.unwrap()).await, PASSED);
}

/// [`names_of`] over TLS and HTTP/2.
async fn http2_service(pki: &Pki) -> SocketAddr {
    let identity = pki.issuing.leaf("spiffe://example.org/service").issue();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&version::TLS13]).unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(identity.chain.clone(), identity.key()).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let service = service_fn(|request| async { Ok::<_, Infallible>(names_of(request).await) });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(tls), service).await);
            });
        }
    });
    address
}

#[tokio::test]
async fn a_service_cannot_break_the_callers_connection_with_its_trailers() {
    let pki = Pki::new();
    let (address, _) = by_hand(|_, mut stream| async move {
        let lines: String = BARRED.iter().map(|name| format!("{name}: close\r\n")).collect();
        while !read_head(&mut stream).await.is_empty() {
            let head = format!("HTTP/1.1 200 OK\r\ntrailer: {}, x-sum\r\n", BARRED.join(", "));
            let body = format!("transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n{lines}x-sum: 42\r\n\r\n");
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let mut sender = http2(connect(gateway.address(), Some(&pki.client()), &[b"h2"]).await.unwrap()).await;
    let request_to = || Request::get("https://a/").header("te", "trailers").body(Empty::<Bytes>::new()).unwrap();
    for _ in 0..2 {
        let answer = sender.send_request(request_to()).await.unwrap();
        assert_eq!(answer.headers()["trailer"], "x-sum");
        let whole = answer.into_body().collect().await.unwrap();
        let names: Vec<&str> = whole.trailers().unwrap().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-sum"]);
    }
    let text = "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n";
    let (answer, ended) = request(&gateway, &pki, text).await;
    assert!(answer.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{answer}");
    assert_eq!(ended, Ended::Open);
}
