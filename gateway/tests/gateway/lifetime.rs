use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Channel, Empty};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::*;
use crate::outbound::{outbound_identity, outbound_with};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// An identity of the shop's cart that lives until a whole second, and when that is.
fn short_lived(pki: &Pki, seconds: i64) -> (signet_test_pki::Issued, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    let expires = OffsetDateTime::from_unix_timestamp(now.unix_timestamp() + seconds + 1).unwrap();
    let leaf = pki.issuing.leaf("spiffe://example.org/shop/cart");
    (leaf.valid(now - time::Duration::seconds(10), expires).issue(), expires)
}

/// How far past its expiry, in milliseconds; negative before it.
fn past(expires: OffsetDateTime) -> i128 {
    (OffsetDateTime::now_utc() - expires).whole_milliseconds()
}

#[tokio::test]
async fn an_idle_connection_ends_when_its_peers_certificate_does() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let (identity, expires) = short_lived(&pki, 3);
    let mut stream = connect(gateway.address(), Some(&identity), &[b"http/1.1"]).await.unwrap();
    let (answer, ended) = exchange(&mut stream, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200") && ended == Ended::Open, "{answer}");
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(6), stream.read_to_end(&mut rest)).await.unwrap();
    assert!((-1_000..1_000).contains(&past(expires)), "{}", past(expires));
    gateway.counts("signet_gateway_connections_closed_total{reason=\"peer_expired\"} 1").await;
}

#[tokio::test]
async fn a_busy_http1_connection_is_told_that_it_ends() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let (identity, expires) = short_lived(&pki, 3);
    let mut stream = connect(gateway.address(), Some(&identity), &[b"http/1.1"]).await.unwrap();
    loop {
        stream.write_all(GET).await.unwrap();
        let mut answer = String::new();
        while !answer.contains("\n\n") {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "closed without a word: {answer}");
            answer += &String::from_utf8_lossy(&buffer[..read]);
        }
        if answer.contains("connection: close") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!((-1_000..0).contains(&past(expires)), "{}", past(expires));
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn an_http2_connection_is_drained_and_then_cut_off() {
    let pki = Pki::new();
    // The answer never ends by itself.
    let address = service(|_| async {
        let (mut body, channel) = Channel::<Bytes, hyper::Error>::new(1);
        tokio::spawn(async move {
            while body.send_data(Bytes::from_static(b"tick\n")).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Response::new(channel.boxed())
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let (identity, expires) = short_lived(&pki, 3);
    let stream = connect(gateway.address(), Some(&identity), &[b"h2"]).await.unwrap();
    let mut sender = http2(stream).await;
    let request = || Request::get("https://a/").body(Empty::<Bytes>::new()).unwrap();
    let mut endless = sender.send_request(request()).await.unwrap().into_body();
    // New requests are refused before the end, while the one under way goes on.
    let mut refused_at = None;
    let broke_off = loop {
        match endless.frame().await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break past(expires),
        }
        if refused_at.is_none() && past(expires) > -200 {
            assert!(sender.send_request(request()).await.is_err());
            refused_at = Some(past(expires));
        }
    };
    assert!((0..1_000).contains(&broke_off), "{broke_off}");
    assert!(refused_at.is_some_and(|at| (-1_000..0).contains(&at)), "{refused_at:?}");
}

#[tokio::test]
async fn a_connection_ends_when_its_peers_authority_leaves_the_bundle() {
    let mut pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let mut stays = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    let (answer, _) = exchange(&mut stays, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Other authorities, and an identity under them.
    pki = Pki::new();
    let begun = Instant::now();
    pki.write(gateway.dir.path(), &pki.issuing.leaf("spiffe://example.org/gateway/inbound").issue());
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stays.read_to_end(&mut rest)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    gateway.counts("signet_gateway_connections_closed_total{reason=\"peer_distrusted\"} 1").await;
    let (answer, _) = request(&gateway, &pki, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_new_identity_of_the_gateway_closes_nothing() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    let (before, _) = exchange(&mut stream, GET).await;
    let next = pki.issuing.leaf("spiffe://example.org/gateway/inbound").issue();
    pki.write(gateway.dir.path(), &next);
    gateway.counts("signet_svid_rotations_total{result=\"rotated\"} 2").await;
    let (after, ended) = exchange(&mut stream, GET).await;
    assert!(before.starts_with("HTTP/1.1 200") && after.starts_with("HTTP/1.1 200"), "{after}");
    assert_eq!(ended, Ended::Open);
    let fresh = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    assert_eq!(fresh.get_ref().1.peer_certificates().unwrap()[0], next.chain[0]);
}

#[tokio::test]
async fn a_caller_that_pauses_is_told_with_its_next_answer_that_another_authority_vouches_for_the_gateway() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    let (answer, ended) = exchange(&mut stream, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200") && ended == Ended::Open, "{answer}");
    let next = pki.root.intermediate().leaf("spiffe://example.org/gateway/inbound").issue();
    pki.write(gateway.dir.path(), &next);
    gateway.counts("signet_svid_rotations_total{result=\"rotated\"} 2").await;
    // It may be on its way while the connection is told to end: it is answered.
    loop {
        let (answer, _) = exchange(&mut stream, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "closed without a word: {answer}");
        if answer.contains("connection: close") {
            break;
        }
    }
    gateway.counts("signet_gateway_connections_closed_total{reason=\"own_authority\"} 1").await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let pki = Pki::new();
    let gateway = inbound_with(&pki, mirror().await, "limits: { idle_timeout: 1s }").await;
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    let (answer, ended) = exchange(&mut stream, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200") && ended == Ended::Open, "{answer}");
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut rest)).await.unwrap();
    gateway.counts("signet_gateway_connections_closed_total{reason=\"idle\"} 1").await;
}

/// An inbound gateway whose requests may take long, and which waits long for them at shutdown.
async fn patient(pki: &Pki, upstream: SocketAddr, shutdown: &str) -> Running {
    let config = inbound_config(upstream, shutdown).replace("response_timeout: 1s", "response_timeout: 60s");
    gateway(pki, &pki.issuing.leaf("spiffe://example.org/gateway/inbound").issue(), &config).await
}

const LONG_DRAIN: &str = "shutdown: { drain: 30s }";

#[tokio::test]
async fn shutdown_lets_requests_finish_and_ends_in_time() {
    let pki = Pki::new();
    let service = Held::start().await;
    let gateway = patient(&pki, service.address, LONG_DRAIN).await;
    let mut idle = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    let mut busy = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    busy.write_all(GET).await.unwrap();
    service.request().await;
    gateway.shutdown.cancel();
    ends(&mut idle).await;
    service.release();
    let mut answer = String::new();
    within("the answer and its end", busy.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    within("the end of the gateway", gateway.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_over_http2_never_says_that_the_connection_closes() {
    let pki = Pki::new();
    let service = Held::start().await;
    // One worker, so that both connections hear of the shutdown at once.
    let config = inbound_config(service.address, "").replace("workers: 2", "workers: 1");
    let gateway = gateway(&pki, &pki.issuing.leaf("spiffe://example.org/gateway/inbound").issue(), &config).await;
    let mut idle = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    let mut sender = http2(connect(gateway.address(), Some(&pki.client()), &[b"h2"]).await.unwrap()).await;
    let answer = sender.send_request(Request::get("https://a/").body(Empty::<Bytes>::new()).unwrap());
    let answer = tokio::spawn(answer);
    service.request().await;
    gateway.shutdown.cancel();
    ends(&mut idle).await;
    service.release();
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("connection"), "{:?}", answer.headers());
}

#[tokio::test]
async fn shutdown_does_not_wait_for_callers_that_have_asked_for_nothing() {
    let pki = Pki::new();
    let inbound = inbound_with(&pki, mirror().await, LONG_DRAIN).await;
    let outbound =
        outbound_with(&pki, &outbound_identity(&pki), inbound.address(), "spiffe://example.org/**", LONG_DRAIN).await;
    let _silent = TcpStream::connect(outbound.address()).await.unwrap();
    let mut amid_preface = TcpStream::connect(outbound.address()).await.unwrap();
    amid_preface.write_all(b"PRI * HT").await.unwrap();
    let _silent_http1 = connect(inbound.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    let _silent_http2 = connect(inbound.address(), Some(&pki.client()), &[b"h2"]).await.unwrap();
    let mut amid_tls_preface = connect(inbound.address(), Some(&pki.client()), &[b"h2"]).await.unwrap();
    amid_tls_preface.write_all(b"PRI * HT").await.unwrap();
    outbound.counts("signet_gateway_connections{listener=\"outbound\"} 2").await;
    inbound.counts("signet_gateway_handshakes_total{kind=\"full\",listener=\"inbound\",result=\"ok\"} 3").await;
    for gateway in [outbound, inbound] {
        within("the end of a gateway", gateway.stop()).await;
    }
}

#[tokio::test]
async fn shutdown_ends_handshakes_at_once_while_a_request_finishes() {
    let pki = Pki::new();
    let service = Held::start().await;
    let gateway = patient(&pki, service.address, LONG_DRAIN).await;
    let mut busy = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    busy.write_all(GET).await.unwrap();
    service.request().await;
    // So many that some of them share the worker of the other.
    let mut shaking = Vec::new();
    for _ in 0..16 {
        shaking.push(TcpStream::connect(gateway.address()).await.unwrap());
    }
    gateway.counts("signet_gateway_connections{listener=\"inbound\"} 17").await;
    gateway.shutdown.cancel();
    for stream in &mut shaking {
        ends(stream).await;
    }
    service.release();
    let mut answer = String::new();
    within("the answer and its end", busy.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    within("the end of the gateway", gateway.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_cuts_off_what_does_not_end() {
    let pki = Pki::new();
    let service = Held::start().await;
    let gateway = patient(&pki, service.address, "shutdown: { drain: 500ms }").await;
    let mut busy = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    busy.write_all(GET).await.unwrap();
    service.request().await;
    let begun = Instant::now();
    within("the end of the gateway", gateway.stop()).await;
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
}
