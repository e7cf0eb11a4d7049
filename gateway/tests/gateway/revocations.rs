//! Whoever is revoked is served no more, from its next handshake and on its live connections; others notice nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use rustls::{HandshakeKind, version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::harness::*;
use crate::issuer::Issuer;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
/// From the command to the end of a connection.
const SOON: Duration = Duration::from_secs(1);

fn to(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://a/{path}")).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn live_connections_of_who_is_revoked_are_closed_within_a_second_and_nobody_elses() {
    let issuer = Issuer::start().await;
    let gateway = issuer.gateway("inbound", &inbound_config(ticking().await, "")).await;
    let (bad, good) = (issuer.caller("bad"), issuer.caller("good"));
    let connected = async |identity, alpn: &'static [u8]| connect(gateway.address(), Some(identity), &[alpn]).await;

    // Of each of both: one that is idle, one with an answer under way over HTTP/1.1, and one over HTTP/2.
    let mut idle = [connected(&bad, b"http/1.1").await.unwrap(), connected(&good, b"http/1.1").await.unwrap()];
    for stream in &mut idle {
        let (answer, ended) = exchange(stream, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200") && ended == Ended::Open, "{answer}");
    }
    let mut busy = Vec::new();
    for identity in [&bad, &good] {
        let mut stream = connected(identity, b"http/1.1").await.unwrap();
        stream.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        stream.read_u8().await.unwrap();
        busy.push(stream);
    }
    let mut senders =
        [http2(connected(&bad, b"h2").await.unwrap()).await, http2(connected(&good, b"h2").await.unwrap()).await];
    let mut endless = Vec::new();
    for sender in &mut senders {
        endless.push(sender.send_request(to("endless")).await.unwrap().into_body());
    }

    let begun = Instant::now();
    issuer.revoke(&bad.chain[0]);
    let mut rest = Vec::new();
    let _ = within("the idle one's end", idle[0].read_to_end(&mut rest)).await;
    let _ = within("the busy one's end", busy[0].read_to_end(&mut rest)).await;
    within("the end over HTTP/2", async { while let Some(Ok(_)) = endless[0].frame().await {} }).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    gateway.counts("signet_gateway_connections_closed_total{reason=\"revoked\"} 3").await;

    let (answer, ended) = exchange(&mut idle[1], GET).await;
    assert!(answer.starts_with("HTTP/1.1 200") && ended == Ended::Open, "{answer}");
    busy[1].read_u8().await.unwrap();
    assert!(endless[1].frame().await.unwrap().is_ok());
    assert_eq!(senders[1].send_request(to("")).await.unwrap().status(), StatusCode::OK);
    assert!(senders[0].send_request(to("")).await.is_err());
    let metrics = gateway.metrics().await;
    let is_closed = |line: &&str| line.starts_with("signet_gateway_connections_closed_total") && !line.ends_with(" 0");
    let closed: Vec<_> = metrics.lines().filter(is_closed).collect();
    assert_eq!(closed, ["signet_gateway_connections_closed_total{reason=\"revoked\"} 3"]);
}

#[tokio::test]
async fn a_new_handshake_of_who_is_revoked_is_refused_full_or_resumed() {
    let issuer = Issuer::start().await;
    let gateway =
        issuer.gateway("inbound", &inbound_config(ticking().await, "workers: 1").replace("workers: 2\n", "")).await;
    let (bad, good) = (issuer.caller("bad"), issuer.caller("good"));
    // With a session to resume.
    let configs = [&bad, &good].map(|identity| client_config(Some(identity), &[b"http/1.1"], &version::TLS13));
    for config in &configs {
        for kind in [HandshakeKind::FullWithHelloRetryRequest, HandshakeKind::Resumed] {
            let mut stream = connect_as(gateway.address(), config.clone()).await.unwrap();
            let (answer, _) = exchange(&mut stream, GET).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(resumed, kind == HandshakeKind::Resumed);
        }
    }
    issuer.revoke(&bad.chain[0]);
    gateway.counts("signet_revocation_epoch{trust_domain=\"example.org\"} 1").await;
    let fresh = client_config(Some(&bad), &[b"http/1.1"], &version::TLS13);
    for config in [&configs[0], &fresh] {
        // The client may think that it is connected before the gateway has looked at its certificate.
        if let Ok(mut stream) = connect_as(gateway.address(), config.clone()).await {
            let (answer, ended) = exchange(&mut stream, GET).await;
            assert_eq!((answer.as_str(), ended), ("", Ended::Closed));
        }
    }
    gateway.counts("signet_gateway_handshakes_total{kind=\"full\",listener=\"inbound\",result=\"revoked\"} 2").await;
    let mut stream = connect_as(gateway.address(), configs[1].clone()).await.unwrap();
    let (answer, _) = exchange(&mut stream, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_gateway_that_was_away_refuses_the_revoked_from_its_first_handshake_on() {
    let issuer = Issuer::start().await;
    let bad = issuer.caller("bad");
    issuer.revoke(&bad.chain[0]);
    let gateway = issuer.begin_gateway("inbound", &inbound_config(ticking().await, "")).await;
    // From the moment on at which it accepts connections.
    let first = loop {
        match connect(gateway.address(), Some(&bad), &[b"http/1.1"]).await {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => tokio::task::yield_now().await,
            other => break other,
        }
    };
    if let Ok(mut stream) = first {
        let (answer, ended) = exchange(&mut stream, GET).await;
        assert_eq!((answer.as_str(), ended), ("", Ended::Closed));
    }
    gateway.counts("signet_gateway_handshakes_total{kind=\"full\",listener=\"inbound\",result=\"revoked\"} 1").await;
    let mut good = connect(gateway.address(), Some(&issuer.caller("good")), &[b"http/1.1"]).await.unwrap();
    let (answer, _) = exchange(&mut good, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A server over HTTP/1.1 alone that answers one request and tells when its connection has ended.
async fn answers_once(identity: &signet_test_pki::Issued) -> (std::net::SocketAddr, oneshot::Receiver<Instant>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&version::TLS13]);
    let builder = builder.unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(identity.chain.clone(), identity.key()).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, ended) = oneshot::channel();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(tcp).await.unwrap();
        let mut request = [0; 4096];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            assert_ne!(stream.read(&mut request).await.unwrap(), 0);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        while !matches!(stream.read(&mut request).await, Ok(0) | Err(_)) {}
        tell.send(Instant::now()).unwrap();
    });
    (address, ended)
}

#[tokio::test]
async fn a_connection_to_an_upstream_that_is_revoked_is_closed_though_nobody_uses_it() {
    let issuer = Issuer::start().await;
    let (bad, good) = (issuer.caller("bad"), issuer.caller("good"));
    let ((bad_address, bad_ended), (good_address, mut good_ended)) =
        (answers_once(&bad).await, answers_once(&good).await);
    let outbound = format!(
        "workers: 1\nlisteners:\n\
         - {{ name: to-bad, mode: outbound, listen: \"127.0.0.1:0\", upstream: bad }}\n\
         - {{ name: to-good, mode: outbound, listen: \"127.0.0.1:0\", upstream: good }}\n\
         upstreams:\n\
         - {{ name: bad, address: \"mtls://{bad_address}\", identity: [\"spiffe://example.org/shop/*\"] }}\n\
         - {{ name: good, address: \"mtls://{good_address}\", identity: [\"spiffe://example.org/shop/*\"] }}\n"
    );
    let outbound = issuer.gateway("outbound", &outbound).await;
    for (_, address) in &outbound.started.listeners {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (answer, _) = exchange(&mut stream, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let begun = Instant::now();
    issuer.revoke(&bad.chain[0]);
    let ended = within("the end of an idle connection", bad_ended).await.unwrap();
    assert!(ended - begun < SOON, "{:?}", ended - begun);
    outbound.counts("signet_gateway_upstream_connections{upstream=\"bad\"} 0").await;
    outbound.counts("signet_gateway_upstream_connections{upstream=\"good\"} 1").await;
    assert!(good_ended.try_recv().is_err());
}

#[tokio::test]
async fn a_connection_to_an_upstream_that_is_revoked_ends_and_others_go_on() {
    let issuer = Issuer::start().await;
    let inbound_of = async |name| issuer.gateway(name, &inbound_config(ticking().await, "")).await;
    let (bad, good) = (inbound_of("bad").await, inbound_of("good").await);
    let outbound = format!(
        "workers: 1\nlisteners:\n\
         - {{ name: to-bad, mode: outbound, listen: \"127.0.0.1:0\", upstream: bad }}\n\
         - {{ name: to-good, mode: outbound, listen: \"127.0.0.1:0\", upstream: good }}\n\
         upstreams:\n\
         - {{ name: bad, address: \"mtls://{}\", identity: [\"spiffe://example.org/gateway/bad\"], connect_timeout: 1s }}\n\
         - {{ name: good, address: \"mtls://{}\", identity: [\"spiffe://example.org/gateway/good\"], connect_timeout: 1s }}\n",
        bad.address(),
        good.address()
    );
    let outbound = issuer.gateway("outbound", &outbound).await;
    let through =
        async |place: usize| http2(TcpStream::connect(outbound.started.listeners[place].1).await.unwrap()).await;
    let mut senders = [through(0).await, through(1).await];
    let mut endless = Vec::new();
    for sender in &mut senders {
        let request = Request::get("http://a/endless").body(Empty::<Bytes>::new()).unwrap();
        endless.push(sender.send_request(request).await.unwrap().into_body());
    }
    let begun = Instant::now();
    issuer.revoke_key(&issuer.issued(0));
    within("the answer's end", async { while let Some(Ok(_)) = endless[0].frame().await {} }).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    outbound.counts("signet_gateway_upstream_connections{upstream=\"bad\"} 0").await;
    let again = || Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap();
    let refused = senders[0].send_request(again()).await.unwrap();
    assert_eq!(
        (refused.status(), &refused.headers()["x-signet-reason"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"upstream_identity".parse().unwrap())
    );
    // The other's connection is the same as before.
    assert!(endless[1].frame().await.unwrap().is_ok());
    assert_eq!(senders[1].send_request(again()).await.unwrap().status(), StatusCode::OK);
    outbound.counts("signet_gateway_upstream_connects_total{result=\"ok\",upstream=\"good\"} 1").await;
    outbound.counts("signet_gateway_upstream_connects_total{result=\"revoked\",upstream=\"bad\"} 1").await;
}
