use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use signet_test_pki::Issued;
use time::OffsetDateTime;
use tokio::net::TcpStream;

use crate::harness::*;

const GET: &[u8] = b"GET /x HTTP/1.1\r\nhost: shop\r\nx-forwarded-client-cert: forged\r\n\r\n";

pub(crate) fn outbound_identity(pki: &Pki) -> Issued {
    pki.issuing.leaf("spiffe://example.org/gateway/outbound").issue()
}

async fn outbound(pki: &Pki, identity: &Issued, peer: SocketAddr, expected: &str) -> Running {
    outbound_with(pki, identity, peer, expected, "").await
}

pub(crate) async fn outbound_with(
    pki: &Pki,
    identity: &Issued,
    peer: SocketAddr,
    expected: &str,
    limits: &str,
) -> Running {
    let rest = format!(
        "workers: 1\nlisteners:\n  - {{ name: outbound, mode: outbound, listen: \"127.0.0.1:0\", upstream: peer }}\n\
         upstreams:\n  - {{ name: peer, address: \"mtls://{peer}\", identity: [\"{expected}\"], connect_timeout: 1s }}\n{limits}"
    );
    gateway(pki, identity, &rest).await
}

#[tokio::test]
async fn a_plain_request_travels_by_mtls_between_two_gateways() {
    let pki = Pki::new();
    let inbound = inbound(&pki, mirror().await).await;
    let outbound =
        outbound(&pki, &outbound_identity(&pki), inbound.address(), "spiffe://example.org/gateway/inbound").await;
    let mut stream = TcpStream::connect(outbound.address()).await.unwrap();
    for _ in 0..2 {
        let (answer, ended) = exchange(&mut stream, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("GET /x\n"), "{answer}");
        assert!(answer.contains("host: shop\n"), "{answer}");
        assert!(answer.contains(";URI=spiffe://example.org/gateway/outbound\n"), "{answer}");
        assert!(!answer.contains("forged"), "{answer}");
        assert_eq!(ended, Ended::Open);
    }
    // One connection of HTTP/2 carried both.
    inbound.counts("signet_gateway_handshakes_total{kind=\"full\",listener=\"inbound\",result=\"ok\"} 1").await;
    outbound.counts("signet_gateway_upstream_connects_total{result=\"ok\",upstream=\"peer\"} 1").await;
}

#[tokio::test]
async fn http2_is_told_by_its_preface_on_the_plain_side() {
    let pki = Pki::new();
    let inbound = inbound(&pki, mirror().await).await;
    let outbound = outbound(&pki, &outbound_identity(&pki), inbound.address(), "spiffe://example.org/gateway/*").await;
    let mut sender = http2(TcpStream::connect(outbound.address()).await.unwrap()).await;
    let mut answers = Vec::new();
    for number in 0..50 {
        let request = Request::get(format!("http://shop/{number}")).body(Empty::<Bytes>::new()).unwrap();
        answers.push(sender.send_request(request));
    }
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(text.starts_with(format!("GET /{number}\n").as_bytes()), "{text:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_somebody_else_is_not_talked_to() {
    let pki = Pki::new();
    let inbound = inbound(&pki, mirror().await).await;
    let other = "spiffe://example.org/gateway/other";
    let outbound = outbound(&pki, &outbound_identity(&pki), inbound.address(), other).await;
    let mut stream = TcpStream::connect(outbound.address()).await.unwrap();
    let (answer, _) = exchange(&mut stream, GET).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("x-signet-reason: upstream_identity\r\n"), "{answer}");
    outbound.counts("signet_gateway_upstream_connects_total{result=\"unexpected_id\",upstream=\"peer\"} 1").await;
}

#[tokio::test]
async fn a_peer_that_does_not_want_us_is_answered_503() {
    let pki = Pki::new();
    let strangers = Pki::new();
    let inbound = inbound(&pki, mirror().await).await;
    let outbound =
        outbound(&strangers, &outbound_identity(&strangers), inbound.address(), "spiffe://example.org/**").await;
    let mut stream = TcpStream::connect(outbound.address()).await.unwrap();
    let (answer, _) = exchange(&mut stream, GET).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop(inbound);
    let (answer, _) = exchange(&mut stream, GET).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

/// Certificates of a few seconds on both gateways, replaced halfway; callers of both protocols see none of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_short_lived_identities_rotate() {
    let pki = Pki::new();
    let short = |id: &str| {
        let now = OffsetDateTime::now_utc();
        pki.issuing.leaf(id).valid(now - time::Duration::seconds(5), now + time::Duration::seconds(4)).issue()
    };
    let (inbound_id, outbound_id) = ("spiffe://example.org/gateway/inbound", "spiffe://example.org/gateway/outbound");
    let inbound = gateway(&pki, &short(inbound_id), &inbound_config(mirror().await, "")).await;
    let outbound = outbound(&pki, &short(outbound_id), inbound.address(), inbound_id).await;
    let until = Instant::now() + Duration::from_secs(12);

    let rotating = async {
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(2_000)).await;
            pki.write(inbound.dir.path(), &short(inbound_id));
            pki.write(outbound.dir.path(), &short(outbound_id));
        }
    };
    let address = outbound.address();
    let over_http1 = tokio::spawn(async move {
        let mut sent = 0;
        let tcp = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        while Instant::now() < until {
            let request = Request::get("/").header("host", "a").body(Empty::<Bytes>::new()).unwrap();
            sender.ready().await.unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let status = answer.status();
            let text = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(status, StatusCode::OK, "{text:?}");
            sent += 1;
        }
        sent
    });
    let over_http2 = tokio::spawn(async move {
        let mut sent = 0;
        let mut sender = http2(TcpStream::connect(address).await.unwrap()).await;
        while Instant::now() < until {
            let request = Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let status = answer.status();
            let text = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(status, StatusCode::OK, "{text:?}");
            sent += 1;
        }
        sent
    });
    rotating.await;
    let (http1, http2) = (over_http1.await.unwrap(), over_http2.await.unwrap());
    assert!(http1 > 100 && http2 > 100, "{http1} {http2}");
    let connects = outbound.metrics().await;
    let connects = connects
        .lines()
        .find(|line| line.starts_with("signet_gateway_upstream_connects_total{result=\"ok\""))
        .unwrap()
        .to_owned();
    assert!(connects.rsplit(' ').next().unwrap().parse::<u32>().unwrap() >= 3, "{connects}");
}
