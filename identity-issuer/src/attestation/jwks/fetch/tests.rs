#![allow(clippy::unwrap_used)]
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::super::jwt::tests::Signer;
use super::*;

/// A server on loopback with a certificate of its own.
struct Publisher {
    listener: TcpListener,
    certificate: CertificateDer<'static>,
    acceptor: TlsAcceptor,
}

impl Publisher {
    async fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(signet_identity::provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, certificate, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    fn remote(&self, path: &str) -> Remote {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(signet_identity::provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let url = format!("https://{}{path}", self.listener.local_addr().unwrap()).parse().unwrap();
        Remote { url, tls: Arc::new(tls), bearer_file: None }
    }

    /// Answers each request with `answer` and ends the connection; returns what was asked when `remote` has its set.
    async fn answers(self, remote: Remote, answer: Vec<u8>) -> (Result<KeySet, JwksError>, Vec<String>) {
        let (asked, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let serving = tokio::spawn(async move {
            loop {
                let (tcp, _) = self.listener.accept().await.unwrap();
                let Ok(mut tls) = self.acceptor.accept(tcp).await else { continue };
                let mut request = [0; 4096];
                let bytes = tls.read(&mut request).await.unwrap();
                asked.send(String::from_utf8_lossy(&request[..bytes]).into_owned()).unwrap();
                // Whoever has had enough leaves.
                let _ = tls.write_all(&answer).await;
                let _ = tls.shutdown().await;
            }
        });
        let fetched = remote.fetch().await;
        serving.abort();
        let _ = serving.await;
        let mut all = Vec::new();
        while let Ok(asked) = heard.try_recv() {
            all.push(asked);
        }
        (fetched, all)
    }
}

/// Of a client that believes nobody.
pub(in crate::attestation::jwks) fn nobody() -> Arc<rustls::ClientConfig> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(signet_identity::provider()));
    let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    Arc::new(config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn cause(outcome: Result<KeySet, JwksError>) -> String {
    outcome.unwrap_err().to_string()
}

#[tokio::test]
async fn a_set_is_fetched_with_the_bearer_token_from_the_url_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = Publisher::new().await;
    let mut remote = publisher.remote("/keys?of=us");
    remote.bearer_file = Some(folder.path().join("token"));
    std::fs::write(folder.path().join("token"), "s3cret\n").unwrap();
    let set = ok(&json!({"keys": [Signer::new().jwk()]}).to_string());
    let (fetched, asked) = publisher.answers(remote.clone(), set).await;
    assert_eq!(fetched.unwrap().len(), 1);
    assert_eq!(asked.len(), 1);
    let host = format!("host: {}\r\n", remote.url.authority().unwrap());
    for part in ["GET /keys?of=us HTTP/1.1\r\n", "authorization: Bearer s3cret\r\n", &host] {
        assert!(asked[0].contains(part), "{part}: {asked:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let publisher = Publisher::new().await;
    let (remote, elsewhere) = (publisher.remote("/keys"), publisher.remote("/elsewhere").url);
    let answer = format!("HTTP/1.1 302 Found\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n");
    let (fetched, asked) = publisher.answers(remote, answer.into_bytes()).await;
    assert!(cause(fetched).ends_with("the answer is 302 Found"));
    assert_eq!(asked.len(), 1);
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let publisher = Publisher::new().await;
    let remote = publisher.remote("/keys");
    let mut answer = b"HTTP/1.1 200 OK\r\n\r\n{\"keys\": []".to_vec();
    answer.resize(answer.len() + 4 * MAX_SET, b' ');
    answer.push(b'}');
    let (fetched, _) = publisher.answers(remote, answer).await;
    assert!(cause(fetched).contains("length limit exceeded"));
}

#[tokio::test]
async fn a_publisher_that_somebody_else_vouches_for_is_not_believed() {
    let (publisher, other) = (Publisher::new().await, Publisher::new().await);
    let remote = Remote { tls: other.remote("/").tls, ..publisher.remote("/keys") };
    let (fetched, asked) = publisher.answers(remote, ok("{\"keys\": []}")).await;
    assert!(matches!(fetched, Err(JwksError::Fetch { .. })));
    assert!(asked.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_says_nothing_is_given_up() {
    // The kernel takes the connection, and nobody the TLS.
    let publisher = Publisher::new().await;
    assert!(cause(publisher.remote("/keys").fetch().await).ends_with("no answer within 10 s"));
}
