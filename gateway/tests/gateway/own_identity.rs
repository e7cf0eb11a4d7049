use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use signet_test_pki::Issued;
use time::OffsetDateTime;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::harness::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const INBOUND: &str = "spiffe://example.org/gateway/inbound";
const OUTBOUND: &str = "spiffe://example.org/gateway/outbound";

/// An identity that lives until a whole second, and when that is.
fn short_lived(pki: &Pki, id: &str) -> (Issued, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    let expires = OffsetDateTime::from_unix_timestamp(now.unix_timestamp() + 4).unwrap();
    (pki.issuing.leaf(id).valid(now - time::Duration::seconds(10), expires).issue(), expires)
}

/// How far past its expiry, in milliseconds; negative before it.
fn past(expires: OffsetDateTime) -> i128 {
    (OffsetDateTime::now_utc() - expires).whole_milliseconds()
}

#[tokio::test]
async fn nobody_is_served_on_with_an_identity_that_has_expired() {
    let pki = Pki::new();
    let (identity, expires) = short_lived(&pki, INBOUND);
    let gateway = gateway(&pki, &identity, &inbound_config(ticking().await, "")).await;
    let connected = async |alpn: &'static [u8]| connect(gateway.address(), Some(&pki.client()), &[alpn]).await.unwrap();

    let mut idle = connected(b"http/1.1").await;
    let (answer, ended) = exchange(&mut idle, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200") && ended == Ended::Open, "{answer}");
    let mut busy = http2(connected(b"h2").await).await;
    let request = |path: &str| Request::get(format!("https://a/{path}")).body(Empty::<Bytes>::new()).unwrap();
    let mut endless = busy.send_request(request("endless")).await.unwrap().into_body();
    let mut served_at = i128::MIN;
    let broke_off = loop {
        match endless.frame().await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break past(expires),
        }
        assert!(past(expires) < 3_000, "it goes on");
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(1), busy.send_request(request(""))).await {
            served_at = past(expires);
        }
    };
    // The one under way may end; no new one is taken.
    assert!((0..2_000).contains(&broke_off), "{broke_off}");
    assert!((-1_000..500).contains(&served_at), "{served_at}");
    let read = tokio::time::timeout(Duration::from_secs(1), idle.read(&mut [0; 1])).await.unwrap();
    assert_eq!(read.unwrap_or(0), 0);
    gateway.counts("signet_gateway_connections_closed_total{reason=\"own_identity\"} 2").await;
}

#[tokio::test]
async fn callers_on_this_host_are_told_and_served_again_with_the_next_identity() {
    let pki = Pki::new();
    let inbound = inbound(&pki, ticking().await).await;
    let (identity, expires) = short_lived(&pki, OUTBOUND);
    let outbound = crate::outbound::outbound_with(&pki, &identity, inbound.address(), INBOUND, "").await;
    let mut stream = TcpStream::connect(outbound.address()).await.unwrap();
    let (answer, _) = exchange(&mut stream, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    tokio::time::sleep(Duration::from_millis(u64::try_from(1_500 - past(expires)).unwrap())).await;
    let (answer, ended) = exchange(&mut stream, GET).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("own_identity"), "{answer}");
    assert_eq!(ended, Ended::Open);
    pki.write(outbound.dir.path(), &pki.issuing.leaf(OUTBOUND).issue());
    outbound.counts("signet_svid_rotations_total{result=\"rotated\"} 2").await;
    let (answer, _) = exchange(&mut stream, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
