//! Callers that take room from others.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::harness::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn a_crowd_that_says_nothing_does_not_keep_a_caller_out() {
    let pki = Pki::new();
    let limits = "limits: { handshakes: 8, handshake_timeout: 60s }";
    let gateway = inbound_with(&pki, mirror().await, limits).await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(gateway.address()).await.unwrap());
    }
    let identity = pki.issuing.leaf("spiffe://example.org/shop/cart").issue();
    let patience = Duration::from_secs(20);
    let connecting = connect(gateway.address(), Some(&identity), &[b"http/1.1"]);
    let mut stream = tokio::time::timeout(patience, connecting).await.unwrap().unwrap();
    let (answer, _) = exchange(&mut stream, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let page = gateway.metrics().await;
    assert!(page.contains("result=\"crowded_out\""), "{page}");
    drop(silent);
}

#[tokio::test]
async fn a_caller_that_may_do_nothing_does_not_stay() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let nobody = pki.issuing.leaf("spiffe://example.org/nobody").issue();
    let mut stream = connect(gateway.address(), Some(&nobody), &[b"http/1.1"]).await.unwrap();
    let (answer, _) = exchange(&mut stream, GET).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let began = Instant::now();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    gateway.counts("signet_gateway_connections_closed_total{reason=\"denied\"} 1").await;
}
