use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::*;

/// Each on a connection of its own; what follows must never be served.
const FOLLOWING: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn heads_with_ambiguous_framing_are_answered_4xx_and_closed() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    for (request_line, lines) in [
        ("POST / HTTP/1.1\r\n", "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "content-length: 0\r\ncontent-length: 0\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "content-length: 0\r\ncontent-length: 5\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "content-length: 0, 0\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "content-length: +0\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "transfer-encoding: identity\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "transfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("POST / HTTP/1.0\r\n", "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("GET / HTTP/1.1\r\n", "a: b\r\n c\r\n\r\n"),
        ("GET / HTTP/1.1\r\n", "a: b\r\n\tc\r\n\r\n"),
        ("GET / HTTP/1.1\r\n", "a: b\rc: d\r\n\r\n"),
        ("GET / HTTP/1.1\r\n", "a: b\nc: d\r\n\r\n"),
        ("GET / HTTP/1.1\n", "\n"),
        ("GET / HTTP/1.1\r\n", "a: b\0c\r\n\r\n"),
        ("GET / HTTP/1.1\r\n", "a b: c\r\n\r\n"),
        ("GET / HTTP/1.1\r\n", ": c\r\n\r\n"),
        ("GET  / HTTP/1.1\r\n", "\r\n"),
        ("GET / HTTP/1.1 x\r\n", "\r\n"),
        ("GET / HTTP/2.0\r\n", "\r\n"),
        ("GET /\r\n", "\r\n"),
        ("G(T / HTTP/1.1\r\n", "\r\n"),
    ] {
        let bytes = format!("{request_line}host: a\r\n{lines}{FOLLOWING}");
        let (answer, ended) = request(&gateway, &pki, &bytes).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{bytes:?}: {answer}");
        assert!(!answer.contains("200 OK") && !answer.contains("smuggled"), "{bytes:?}: {answer}");
        assert_eq!(ended, Ended::Closed, "{bytes:?}");
    }
    gateway
        .counts("signet_gateway_malformed_requests_total{listener=\"inbound\",reason=\"length_and_encoding\"} 2")
        .await;
}

#[tokio::test]
async fn requests_without_one_host_are_answered_400_and_closed() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    for head in ["\r\n", "host: a\r\nhost: b\r\n\r\n", "host: a/b\r\n\r\n"] {
        let (answer, ended) = request(&gateway, &pki, &format!("GET / HTTP/1.1\r\n{head}{FOLLOWING}")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer}");
        assert!(!answer.contains("smuggled"), "{head:?}: {answer}");
        assert_eq!(ended, Ended::Closed, "{head:?}");
    }
}

#[tokio::test]
async fn bad_chunks_are_answered_400_and_closed() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    for body in ["x\r\n", "5\r\nhelloX", "5 \r\nhello\r\n", "5\nhello\r\n", "fffffffffffffffff\r\n", "0\r\n x\r\n\r\n"]
    {
        let bytes =
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}0\r\n\r\n{FOLLOWING}");
        let (answer, ended) = request(&gateway, &pki, &bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{body:?}: {answer}");
        assert!(!answer.contains("smuggled"), "{body:?}: {answer}");
        assert_eq!(ended, Ended::Closed, "{body:?}");
    }
}

#[tokio::test]
async fn a_refused_request_does_not_harm_the_one_before_it() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let bytes = "GET /first HTTP/1.1\r\nhost: a\r\n\r\nGET /second HTTP/1.1\r\nhost: a\r\n b\r\n\r\n";
    let (answer, ended) = request(&gateway, &pki, bytes).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("GET /first\n"), "{answer}");
    assert!(answer.contains("HTTP/1.1 400") && !answer.contains("/second"), "{answer}");
    assert_eq!(ended, Ended::Closed);
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(64 << 10));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200));
    let path = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(70 << 10));
    for (bytes, status) in [(large, "HTTP/1.1 431"), (many, "HTTP/1.1 431"), (path, "HTTP/1.1 4")] {
        let (answer, ended) = request(&gateway, &pki, &bytes).await;
        assert!(answer.starts_with(status), "{}: {}", &bytes[..40], &answer[..answer.len().min(100)]);
        assert_eq!(ended, Ended::Closed);
    }
    let fits = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(40 << 10));
    let (answer, _) = request(&gateway, &pki, &fits).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{}", &answer[..answer.len().min(200)]);
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_is_answered_408() {
    let pki = Pki::new();
    let gateway = inbound_with(&pki, mirror().await, "limits: { header_timeout: 1s }").await;
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    // A request that was in time first: the timeout is not that of the connection.
    let (answer, ended) = exchange(&mut stream, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && ended == Ended::Open, "{answer}");
    let begun = Instant::now();
    let mut answer = String::new();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let reading = async {
        // A byte from time to time does not help.
        loop {
            let mut buffer = [0; 1024];
            match tokio::time::timeout(Duration::from_millis(200), stream.read(&mut buffer)).await {
                Err(_) => drop(stream.write_all(b"x").await),
                Ok(Ok(read @ 1..)) => answer += &String::from_utf8_lossy(&buffer[..read]),
                Ok(_) => return,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), reading).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!((900..2_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    gateway.counts("signet_gateway_connections_closed_total{reason=\"header_timeout\"} 1").await;
}

#[tokio::test]
async fn upgrades_are_refused_and_an_offer_of_h2c_is_ignored() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let websocket = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let (answer, _) = request(&gateway, &pki, websocket).await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    let (answer, _) = request(&gateway, &pki, "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    let h2c =
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n\r\n";
    let (answer, _) = request(&gateway, &pki, h2c).await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("http2-settings"), "{answer}");
}
