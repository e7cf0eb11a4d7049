use signet_identity::{TrustBundle, X509Svid};
use signet_test_pki::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use crate::harness::{ID, Identity, Place, csr, new_key, renew};

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_is_exchanged_for_one_of_the_same_identity_and_another_key() {
    let place = Place::new();
    let issuer = place.serve().await;
    let first = issuer.join(ID).await;
    let key = new_key();
    let answer = renew(&mut issuer.client_of(&first).await, csr(&key)).await.unwrap().into_inner();
    let second = Identity::new(answer.svid.unwrap(), key);
    assert_eq!(second.svid.id(), first.svid.id());
    assert_ne!(second.svid.serial(), first.svid.serial());
    assert_eq!(answer.bundles.unwrap().bundles[0].trust_domain, "example.org");
    assert_eq!(place.count("SELECT count(*) FROM issued WHERE attestation = 'x509_svid'").await, 1);
    // And on with the new one.
    renew(&mut issuer.client_of(&second).await, csr(&new_key())).await.unwrap();
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_certified_once() {
    let place = Place::new();
    let issuer = place.serve().await;
    let first = issuer.join(ID).await;
    let other = issuer.join("spiffe://example.org/shop/till").await;
    let mut client = issuer.client_of(&first).await;
    for used in [&first.key, &other.key] {
        let refused = renew(&mut client, csr(used)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.message(), "csr: its key was certified before; make a new one for each certificate");
    }
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_renews_without_a_certificate() {
    let place = Place::new();
    let issuer = place.serve().await;
    let refused = renew(&mut issuer.stranger().await, csr(&new_key())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_authority_is_refused_and_counted() {
    let place = Place::new();
    let issuer = place.serve().await;
    for (trust_domain, reason) in [("example.org", "untrusted_authority"), ("other.org", "unknown_trust_domain")] {
        let root = Authority::root(trust_domain);
        let leaf = root.intermediate().leaf(&format!("spiffe://{trust_domain}/shop/cart")).issue();
        let svid = X509Svid::from_der(leaf.chain.clone(), leaf.key()).unwrap();
        let mut authorities = vec![root.root_certificate().clone()];
        if trust_domain == "example.org" {
            authorities.extend_from_slice(issuer.bundle.authorities());
        }
        let bundle = TrustBundle::new(trust_domain.parse().unwrap(), authorities).unwrap();
        // TLS 1.3: the client learns of its refusal when it reads.
        if let Ok(mut client) = issuer.try_client(svid, bundle).await {
            renew(&mut client, csr(&new_key())).await.unwrap_err();
        }
        issuer.until_metric(&format!("signet_issuer_connections_refused_total{{reason=\"{reason}\"}}")).await;
    }
    // The listener goes on.
    issuer.join(ID).await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_is_refused_and_counted() {
    let place = Place::with("limits: { handshake_timeout: 300ms }");
    let issuer = place.serve().await;
    let mut plain = tokio::net::TcpStream::connect(issuer.started.grpc).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: issuer\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // An alert, perhaps, and then the end.
    let _ = plain.read_to_end(&mut answer).await;
    issuer.until_metric("signet_issuer_connections_refused_total{reason=\"not_tls\"} 1").await;
    let mut stalled = tokio::net::TcpStream::connect(issuer.started.grpc).await.unwrap();
    stalled.write_all(&[0x16]).await.unwrap();
    assert_eq!(stalled.read(&mut [0; 1]).await.unwrap_or(0), 0);
    issuer.until_metric("signet_issuer_connections_refused_total{reason=\"timeout\"} 1").await;
    issuer.join(ID).await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_is_refused_and_counted() {
    let place = Place::new();
    let issuer = place.serve().await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(issuer.bundle.authorities()[0].clone()).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(issuer.started.grpc).await.unwrap();
    let name = "issuer.example".try_into().unwrap();
    tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await.unwrap_err();
    issuer.until_metric("signet_issuer_connections_refused_total{reason=\"incompatible_tls\"} 1").await;
    issuer.stop().await;
}
