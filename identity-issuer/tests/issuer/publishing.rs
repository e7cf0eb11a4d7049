//! What is published for those who have no identity.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use signet_identity::{BundleSet, RevocationSet, SystemClock, bootstrap_client_config};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Issuer, Place, eventually, issuer_only, write};

/// An answer's status, head and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends a request as it is written, without its end.
pub(crate) async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    exchange_with_body(stream, request, "").await
}

pub(crate) async fn exchange_with_body(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    head: &str,
    body: &str,
) -> Answer {
    let request = format!("{head}host: issuer\r\nconnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    Answer { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() }
}

async fn ask(address: SocketAddr, request: &str) -> Answer {
    exchange(TcpStream::connect(address).await.unwrap(), request).await
}

/// The bundle, once there is one.
async fn bundle(issuer: &Issuer) -> Answer {
    let mut found = None;
    eventually("a bundle", async || {
        let answer = ask(issuer.started.web.plain, "GET /bundle.json HTTP/1.1\r\n").await;
        let is_there = answer.status == 200;
        found = Some(answer);
        is_there
    })
    .await;
    found.unwrap()
}

fn sequence(answer: &Answer) -> u64 {
    answer.json()["spiffe_sequence"].as_u64().unwrap()
}

#[tokio::test]
async fn the_bundle_is_there_for_everybody_as_the_standard_says() {
    use base64::Engine as _;
    let place = Place::new();
    let issuer = place.serve().await;
    let answer = bundle(&issuer).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    assert_eq!(document["spiffe_refresh_hint"], 300);
    let [key] = &document["keys"].as_array().unwrap()[..] else { panic!("{document}") };
    assert_eq!((&key["use"], &key["kty"], &key["crv"]), (&"x509-svid".into(), &"EC".into(), &"P-256".into()));
    let root = base64::engine::general_purpose::STANDARD.encode(&issuer.bundle.authorities()[0]);
    assert_eq!(key["x5c"], serde_json::json!([root]));

    let web = issuer.started.web.plain;
    let etag = answer.header("etag").unwrap();
    let known = ask(web, &format!("GET / HTTP/1.1\r\nif-none-match: {etag}\r\n")).await;
    assert_eq!((known.status, known.body.as_str(), known.header("etag")), (304, "", Some(etag)));
    let head = ask(web, "HEAD / HTTP/1.1\r\n").await;
    let length = answer.body.len().to_string();
    assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (200, "", Some(length.as_str())));
    for method in ["POST", "DELETE", "PUT"] {
        let refused = ask(web, &format!("{method} / HTTP/1.1\r\n")).await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    assert_eq!(ask(web, "GET /bundle HTTP/1.1\r\n").await.status, 404);
    assert_eq!(ask(web, "GET /../state/authority.key HTTP/1.1\r\n").await.status, 404);
    let large = format!("GET / HTTP/1.1\r\na: {}\r\n", "a".repeat(32 << 10));
    assert_eq!(ask(web, &large).await.status, 431);
    assert!(issuer.has_metric("signet_issuer_web_requests_total{code=\"405\",route=\"bundle\"} 3").await);
    issuer.stop().await;
}

#[tokio::test]
async fn its_sequence_changes_with_its_content_and_never_goes_back() {
    let place = Place::new();
    let issuer = place.serve().await;
    let first = sequence(&bundle(&issuer).await);
    issuer.stop().await;
    let issuer = place.serve().await;
    assert_eq!(sequence(&bundle(&issuer).await), first, "a restart changes nothing");

    place.make_root("next", "example.org");
    let both = ["root", "next"].map(|root| std::fs::read_to_string(place.path(root).join("root.pem")).unwrap());
    let one = both[0].clone();
    write(&place.path("root/root.pem"), &both.concat());
    eventually("two keys", async || bundle(&issuer).await.json()["keys"].as_array().unwrap().len() == 2).await;
    let second = sequence(&bundle(&issuer).await);
    assert!(second > first);
    issuer.stop().await;

    // Content that was there before is a change too.
    write(&place.path("root/root.pem"), &one);
    let issuer = place.serve().await;
    let third = sequence(&bundle(&issuer).await);
    assert!(third > second);
    issuer.stop().await;

    // By a clock that was ahead, and a record that is gone after it: the time goes on.
    place.sql("DELETE FROM bundle_sequence").await;
    let issuer = place.serve().await;
    assert!(sequence(&bundle(&issuer).await) >= first);
    issuer.stop().await;
}

#[tokio::test]
async fn the_bundle_is_served_by_the_issuers_own_identity() {
    let place = Place::with("web: { listen: 127.0.0.1:0, spiffe_listen: 127.0.0.1:0 }");
    let issuer = place.serve().await;
    let address = issuer.started.web.spiffe.unwrap();
    let served = bundle(&issuer).await.body;
    let config = |place: &Place| {
        let pem = std::fs::read(place.path("root/root.pem")).unwrap();
        let bundle = signet_identity::TrustBundle::from_pem("example.org".parse().unwrap(), &pem).unwrap();
        let bundles = BundleSet::from_iter([bundle]);
        bootstrap_client_config(
            &bundles,
            &RevocationSet::default(),
            &issuer_only(),
            vec![b"http/1.1".to_vec()],
            Arc::new(SystemClock),
        )
    };
    let connect = async |config| {
        let tcp = TcpStream::connect(address).await.unwrap();
        tokio_rustls::TlsConnector::from(config).connect(ServerName::IpAddress(address.ip().into()), tcp).await
    };
    let tls = connect(config(&place)).await.unwrap();
    assert_eq!(exchange(tls, "GET / HTTP/1.1\r\n").await.body, served);
    // Of the same name, under another root.
    connect(config(&Place::new())).await.unwrap_err();
    issuer.stop().await;
}

/// Nothing is to happen, although the issuer looks at the files in this time.
async fn looked_at() {
    tokio::time::sleep(Duration::from_millis(1500)).await;
}

#[tokio::test]
async fn a_web_certificate_is_taken_up_as_it_is_renewed_and_a_wrong_one_is_not() {
    let place =
        Place::with("web: { listen: 127.0.0.1:0, tls: { listen: 127.0.0.1:0, certificate: web.pem, key: web.key } }");
    let make = |place: &Place| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["issuer.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        write(&place.path("web.pem"), &certificate.pem());
        (certificate.der().clone(), key.serialize_pem())
    };
    let (first, key) = make(&place);
    write(&place.path("web.key"), &key);
    let issuer = place.serve().await;
    let address = issuer.started.web.tls.unwrap();
    let is_served = async |certificate: &CertificateDer<'static>| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(signet_identity::provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("issuer.example").unwrap();
        match tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
            Ok(tls) => exchange(tls, "GET /bundle.json HTTP/1.1\r\n").await.status == 200,
            Err(_) => false,
        }
    };
    bundle(&issuer).await;
    assert!(is_served(&first).await);
    // Its key is not there yet.
    let (second, key) = make(&place);
    looked_at().await;
    assert!(is_served(&first).await && !is_served(&second).await);
    write(&place.path("web.key"), &key);
    eventually("the next certificate", async || is_served(&second).await).await;
    write(&place.path("web.key"), "junk");
    looked_at().await;
    assert!(is_served(&second).await);
    issuer.stop().await;
}

#[tokio::test]
async fn whoever_holds_connections_open_keeps_nobody_out() {
    let place = Place::with("web: { listen: 127.0.0.1:0, spiffe_listen: 127.0.0.1:0, connections: 8 }");
    let issuer = place.serve().await;
    bundle(&issuer).await;
    // Older than all that follow, and at the address to which not everybody has a way.
    let elsewhere = TcpStream::connect(issuer.started.web.spiffe.unwrap()).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(TcpStream::connect(issuer.started.web.plain).await.unwrap());
    }
    assert_eq!(ask(issuer.started.web.plain, "GET / HTTP/1.1\r\n").await.status, 200);
    let mut rest = [0; 1];
    let closed = tokio::time::timeout(Duration::from_secs(5), held[0].read(&mut rest)).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    let other = elsewhere.try_read(&mut rest).map_err(|error| error.kind());
    assert_eq!(other, Err(std::io::ErrorKind::WouldBlock), "who floods one address throws nobody out at another");
    issuer.stop().await;
}
