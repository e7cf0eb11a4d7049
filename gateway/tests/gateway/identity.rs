use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use rustls::version;
use signet_test_pki::{Authority, Issued};
use time::{Duration, OffsetDateTime};

use crate::harness::*;

const GET: &str = "GET /x?y HTTP/1.1\r\nhost: shop\r\n\r\n";

#[tokio::test]
async fn an_allowed_caller_reaches_the_service_which_learns_who_it_is() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let (answer, ended) = request(&gateway, &pki, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("GET /x?y\n"), "{answer}");
    assert!(answer.contains("host: shop\n"), "{answer}");
    let claim = "x-forwarded-client-cert: By=spiffe://example.org/gateway/inbound;Hash=";
    assert!(answer.contains(claim), "{answer}");
    assert!(answer.contains(";URI=spiffe://example.org/shop/cart\n"), "{answer}");
    assert_eq!(ended, Ended::Open);
    gateway.counts("signet_gateway_handshakes_total{kind=\"full\",listener=\"inbound\",result=\"ok\"} 1").await;
    gateway.counts("signet_gateway_requests_total{code=\"200\",listener=\"inbound\"} 1").await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_caller_that_no_pattern_allows_is_denied() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    for id in ["spiffe://example.org/shop", "spiffe://example.org/shop/cart/x", "spiffe://example.org/other/cart"] {
        let stranger = pki.issuing.leaf(id).issue();
        let mut stream = connect(gateway.address(), Some(&stranger), &[b"http/1.1"]).await.unwrap();
        let (answer, _) = exchange(&mut stream, GET.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{id}: {answer}");
        assert!(!answer.contains("spiffe"), "an answer that helps nobody: {answer}");
    }
    gateway.counts("signet_gateway_denied_total{listener=\"inbound\",reason=\"not_allowed\"} 3").await;
}

#[tokio::test]
async fn http2_is_served_by_alpn() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let stream = connect(gateway.address(), Some(&pki.client()), &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut sender = http2(stream).await;
    let request = Request::get("https://shop/x").header("x-forwarded-client-cert", "forged");
    let answer = sender.send_request(request.body(Empty::<&[u8]>::new()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("host: shop\n"), "{text}");
    assert!(text.contains("URI=spiffe://example.org/shop/cart\n") && !text.contains("forged"), "{text}");
}

/// A handshake that fails is told apart from one that succeeds only by what can be read afterwards: in TLS 1.3 the client
/// is done before its certificate was looked at.
async fn is_refused(gateway: &Running, config: rustls::ClientConfig) -> bool {
    match connect_as(gateway.address(), config).await {
        Err(_) => true,
        Ok(mut stream) => exchange(&mut stream, GET.as_bytes()).await == (String::new(), Ended::Closed),
    }
}

#[tokio::test]
async fn whoever_cannot_prove_an_identity_is_refused_counted_and_the_listener_goes_on() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let now = OffsetDateTime::now_utc();
    let shop = "spiffe://example.org/shop/cart";
    let foreign = Authority::root("example.org");
    let other = Authority::root("other.org");
    let refused: [(Issued, &str); 7] = [
        (foreign.leaf(shop).issue(), "untrusted_authority"),
        (other.leaf("spiffe://other.org/shop/cart").issue(), "unknown_trust_domain"),
        (pki.issuing.leaf(shop).valid(now - Duration::hours(2), now - Duration::hours(1)).issue(), "expired"),
        (pki.issuing.leaf(shop).valid(now + Duration::hours(1), now + Duration::hours(2)).issue(), "not_yet_valid"),
        (pki.issuing.leaf(shop).uri("spiffe://example.org/other").issue(), ""),
        (pki.issuing.leaf("https://example.org/shop/cart").issue(), ""),
        (pki.issuing.leaf(shop).without_names().dns("shop.example.org").issue(), ""),
    ];
    for (identity, reason) in &refused {
        assert!(is_refused(&gateway, client_config(Some(identity), &[], &version::TLS13)).await, "{reason}");
        if !reason.is_empty() {
            let series =
                format!("signet_gateway_handshakes_total{{kind=\"full\",listener=\"inbound\",result=\"{reason}\"}} 1");
            gateway.counts(&series).await;
        }
    }
    assert!(is_refused(&gateway, client_config(None, &[], &version::TLS13)).await);
    gateway
        .counts("signet_gateway_handshakes_total{kind=\"full\",listener=\"inbound\",result=\"no_certificate\"} 1")
        .await;
    assert!(is_refused(&gateway, client_config(Some(&pki.client()), &[], &version::TLS12)).await);
    gateway
        .counts("signet_gateway_handshakes_total{kind=\"full\",listener=\"inbound\",result=\"tls_version\"} 1")
        .await;
    let mut plain = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let (answer, ended) = exchange(&mut plain, GET.as_bytes()).await;
    assert!(!answer.contains("HTTP"), "{answer}");
    assert_eq!(ended, Ended::Closed);
    gateway.counts("signet_gateway_handshakes_total{kind=\"full\",listener=\"inbound\",result=\"not_tls\"} 1").await;
    let (answer, _) = request(&gateway, &pki, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_error() {
    let pki = Pki::new();
    let first = inbound(&pki, mirror().await).await;
    let text = inbound_config(first.address(), "")
        .replace("listen: \"127.0.0.1:0\"", &format!("listen: \"{}\"", first.address()));
    let text = format!("identity: {{ files: {{ certificate: a, key: b, bundle: c }} }}\nadmin: 127.0.0.1:0\n{text}");
    let config = signet_gateway::config::Gateway::parse("gateway.yaml".as_ref(), &text).unwrap();
    let (tell, _started) = tokio::sync::oneshot::channel();
    let error = signet_gateway::run(config, None, tell, Default::default()).await.unwrap_err();
    assert!(error.to_string().contains("is in use\n"), "{error}");
}

#[tokio::test]
async fn without_an_identity_the_port_is_held_and_nothing_is_accepted() {
    let dir = tempfile::TempDir::new().unwrap();
    let text = format!(
        "identity: {{ files: {{ certificate: cur/svid.pem, key: cur/svid.key, bundle: cur/bundle.pem }} }}\nadmin: 127.0.0.1:0\n{}",
        inbound_config(mirror().await, "")
    );
    let config = signet_gateway::config::Gateway::parse(&dir.path().join("gateway.yaml"), &text).unwrap();
    let (tell, started) = tokio::sync::oneshot::channel();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let task = tokio::spawn(signet_gateway::run(config, None, tell, shutdown.clone()));
    let started = started.await.unwrap();
    let running = Running { dir, started, shutdown, task };
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    let reasons = running.started.readiness.reasons();
    assert!(
        reasons.iter().any(|(component, reason)| *component == "identity" && reason.contains("no identity yet")),
        "{reasons:?}"
    );
    let refused = tokio::net::TcpStream::connect(running.address()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    // It serves as soon as there is one.
    let pki = Pki::new();
    pki.write(running.dir.path(), &pki.issuing.leaf("spiffe://example.org/gateway/inbound").issue());
    eventually(async || running.started.readiness.reasons().is_empty(), "ready").await;
    let (answer, _) = request(&running, &pki, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    running.stop().await;
}
