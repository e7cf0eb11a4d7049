use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use tokio::io::AsyncWriteExt as _;

use crate::harness::*;
use crate::upstream_down::{by_hand, read_head};

#[tokio::test]
async fn requests_that_stall_cannot_take_more_connections_than_the_upstream_may_have() {
    let pki = Pki::new();
    let (address, accepted) = by_hand(|_, mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            if head.is_empty() {
                return;
            }
            if head.starts_with("GET /stall") {
                std::future::pending::<()>().await;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await;
    let config = inbound_config(address, "").replace("workers: 2", "workers: 1");
    let config = config.replace("connect_timeout: 1s, response_timeout: 1s", "response_timeout: 3s, connections: 3");
    let gateway = gateway(&pki, &pki.issuing.leaf("spiffe://example.org/gateway/inbound").issue(), &config).await;
    let mut attacker = http2(connect(gateway.address(), Some(&pki.client()), &[b"h2"]).await.unwrap()).await;
    let to = |path: &str| Request::get(format!("https://a{path}")).body(Empty::<Bytes>::new()).unwrap();
    let mut stalled = tokio::task::JoinSet::new();
    for _ in 0..20 {
        stalled.spawn(attacker.send_request(to("/stall")));
    }
    // Not one of them waits for those that stall.
    for _ in 0..17 {
        let answer = stalled.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["x-signet-reason"], "upstream_connections");
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 3);
    gateway.counts("signet_gateway_upstream_failures_total{reason=\"upstream_connections\",upstream=\"app\"} 17").await;
    // What has ended makes room.
    for answer in stalled.join_all().await {
        assert_eq!(answer.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
    }
    for _ in 0..5 {
        assert_eq!(attacker.send_request(to("/")).await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 4);
}
