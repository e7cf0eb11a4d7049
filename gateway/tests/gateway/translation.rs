//! What HTTP/2 allows and HTTP/1.1 reads differently, and answers that an upstream should not give.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::*;
use crate::upstream_down::{by_hand, read_head};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Everything that a gateway sends back for one HTTP/2 request with this header block and body.
async fn http2_by_hand(gateway: &Running, pki: &Pki, block: &[u8], body: &[u8]) -> Vec<u8> {
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"h2"]).await.unwrap();
    let frame =
        |kind: u8, flags: u8, payload: &[u8]| [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1], payload].concat();
    stream.write_all(&[PREFACE, &frame(1, 4, block), &frame(0, 1, body)].concat()).await.unwrap();
    stream.flush().await.unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(read @ 1..)) =
        tokio::time::timeout(std::time::Duration::from_millis(500), stream.read(&mut buffer)).await
    {
        bytes.extend_from_slice(&buffer[..read]);
    }
    bytes
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[tokio::test]
async fn a_request_over_http2_has_one_length() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    // `POST http://a/`, and `content-length: 4` as often as it says; the last without Huffman coding.
    let post = b"\x83\x86\x84\x41\x01a";
    let length = b"\x0f\x0d\x014";
    let once = http2_by_hand(&gateway, &pki, &[&post[..], length].concat(), b"body").await;
    assert!(contains(&once, b"content-length: 4\n"), "{:?}", String::from_utf8_lossy(&once));
    let twice = http2_by_hand(&gateway, &pki, &[&post[..], length, length].concat(), b"body").await;
    assert!(contains(&twice, b"bad request\n"), "{:?}", String::from_utf8_lossy(&twice));
    gateway.counts("signet_gateway_requests_total{code=\"400\",listener=\"inbound\"} 1").await;
}

#[tokio::test]
async fn the_crumbs_of_a_cookie_become_one_line_over_http1() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let mut sender = http2(connect(gateway.address(), Some(&pki.client()), &[b"h2"]).await.unwrap()).await;
    let request = Request::get("https://a/").header("cookie", "a=b").header("cookie", "c=d").header("cookie", "e=f");
    let answer = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(contains(&text, b"cookie: a=b; c=d; e=f\n"), "{text:?}");
}

/// A service that gives this answer to whatever it is asked.
async fn answering(answer: &'static str) -> std::net::SocketAddr {
    let (address, _) = by_hand(move |_, mut stream| async move {
        while !read_head(&mut stream).await.is_empty() {
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    address
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn an_answer_with_a_length_beside_its_encoding_loses_the_length() {
    let pki = Pki::new();
    for lines in
        ["content-length: 2\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 2\r\n"]
    {
        let answer = format!("HTTP/1.1 200 OK\r\n{lines}\r\n9\r\nall of it\r\n0\r\n\r\n");
        let gateway = inbound(&pki, answering(answer.leak()).await).await;
        let (answer, ended) = request(&gateway, &pki, GET).await;
        assert!(answer.contains("transfer-encoding: chunked") && !answer.contains("content-length"), "{answer}");
        assert!(answer.contains("all of it") && ended == Ended::Open, "{answer}");
        let mut sender = http2(connect(gateway.address(), Some(&pki.client()), &[b"h2"]).await.unwrap()).await;
        let answer =
            sender.send_request(Request::get("https://a/").body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        assert!(!answer.headers().contains_key("content-length"));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "all of it");
    }
}

#[tokio::test]
async fn a_change_of_protocol_that_nobody_asked_for_is_answered_502() {
    let pki = Pki::new();
    let switching = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let gateway = inbound(&pki, answering(switching).await).await;
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    for _ in 0..2 {
        let (answer, ended) = exchange(&mut stream, GET.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("upstream_malformed_answer"), "{answer}");
        assert_eq!(ended, Ended::Open);
    }
}

#[tokio::test]
async fn no_trace_shows_a_caller_what_the_gateway_adds() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let (answer, _) = request(&gateway, &pki, "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 501") && answer.contains("trace_not_supported"), "{answer}");
    assert!(!answer.contains("x-forwarded-client-cert"), "{answer}");
}
