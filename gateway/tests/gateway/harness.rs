//! Gateways, services and callers for the tests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Channel, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, version};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use signet_gateway::config::Gateway;
use signet_gateway::{RunError, Started};
use signet_test_pki::{Authority, Issued};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

pub(crate) type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// The authorities of `example.org` and the folder of one identity.
pub(crate) struct Pki {
    pub(crate) root: Authority,
    pub(crate) issuing: Authority,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let root = Authority::root("example.org");
        Self { issuing: root.intermediate(), root }
    }

    pub(crate) fn client(&self) -> Issued {
        self.issuing.leaf("spiffe://example.org/shop/cart").issue()
    }

    /// Writes an identity as a gateway reads it, key and certificate swapped together.
    pub(crate) fn write(&self, dir: &Path, identity: &Issued) {
        let generation = dir.join(rand_name(identity));
        std::fs::create_dir_all(&generation).unwrap();
        std::fs::write(generation.join("svid.pem"), identity.chain_pem()).unwrap();
        std::fs::write(generation.join("svid.key"), identity.key_pem()).unwrap();
        let roots = signet_test_pki::pem("CERTIFICATE", self.root.certificate());
        std::fs::write(generation.join("bundle.pem"), roots).unwrap();
        let next = dir.join("next");
        let _ = std::fs::remove_file(&next);
        std::os::unix::fs::symlink(&generation, &next).unwrap();
        std::fs::rename(&next, dir.join("cur")).unwrap();
    }
}

fn rand_name(identity: &Issued) -> String {
    identity.chain[0].iter().rev().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// A running gateway.
pub(crate) struct Running {
    pub(crate) dir: TempDir,
    pub(crate) started: Started,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(crate) fn address(&self) -> SocketAddr {
        self.started.listeners[0].1
    }

    pub(crate) async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.started.admin).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// Waits until a line of the metrics begins with this.
    pub(crate) async fn counts(&self, line: &str) {
        eventually(async || self.metrics().await.lines().any(|found| found.starts_with(line)), line).await;
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

pub(crate) async fn eventually(mut condition: impl AsyncFnMut() -> bool, what: &str) {
    for _ in 0..100 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within 5 s: {what}");
}

/// What comes of `future`, which is long enough in any case.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Waits for the end of a connection on which nothing more comes.
pub(crate) async fn ends(stream: &mut (impl AsyncRead + Unpin)) {
    // An error is as much of an end.
    let rest = within("the end of a connection", stream.read(&mut [0])).await.unwrap_or(0);
    assert_eq!(rest, 0);
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// Runs a gateway with `identity` and what else its configuration says.
pub(crate) async fn gateway(pki: &Pki, identity: &Issued, rest: &str) -> Running {
    let dir = TempDir::new().unwrap();
    pki.write(dir.path(), identity);
    let text = format!(
        "identity: {{ files: {{ certificate: cur/svid.pem, key: cur/svid.key, bundle: cur/bundle.pem }} }}\n\
         admin: 127.0.0.1:0\n{rest}"
    );
    let running = start(dir, &text).await;
    eventually(async || running.started.readiness.reasons().is_empty(), "ready").await;
    running
}

/// Runs a gateway with this configuration, which may name files of the folder. It need not be ready yet.
pub(crate) async fn start(dir: TempDir, text: &str) -> Running {
    let config = Gateway::parse(&dir.path().join("gateway.yaml"), text).unwrap();
    let shutdown = CancellationToken::new();
    let (tell, started) = oneshot::channel();
    let task = tokio::spawn(signet_gateway::run(config, None, tell, shutdown.clone()));
    let Ok(started) = started.await else { panic!("{:?}", task.await) };
    Running { dir, started, shutdown, task }
}

/// An inbound gateway in front of `upstream`, whose allowed callers are those of `/shop`.
pub(crate) async fn inbound(pki: &Pki, upstream: SocketAddr) -> Running {
    inbound_with(pki, upstream, "").await
}

pub(crate) async fn inbound_with(pki: &Pki, upstream: SocketAddr, rest: &str) -> Running {
    let identity = pki.issuing.leaf("spiffe://example.org/gateway/inbound").issue();
    gateway(pki, &identity, &inbound_config(upstream, rest)).await
}

pub(crate) fn inbound_config(upstream: SocketAddr, rest: &str) -> String {
    format!(
        "workers: 2\nlisteners:\n  - {{ name: inbound, mode: inbound, listen: \"127.0.0.1:0\", \
         allow: [\"spiffe://example.org/shop/*\", \"spiffe://example.org/gateway/outbound\"], upstream: app }}\n\
         upstreams:\n  - {{ name: app, address: \"http://{upstream}\", connect_timeout: 1s, response_timeout: 1s }}\n{rest}"
    )
}

/// A service behind a gateway.
pub(crate) async fn service<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            tokio::spawn(async move {
                drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    address
}

/// `/endless` is answered with a body that never ends by itself.
pub(crate) async fn ticking() -> SocketAddr {
    service(|request: Request<Incoming>| async move {
        if request.uri().path() != "/endless" {
            return Response::new(full("ok"));
        }
        let (mut body, channel) = Channel::<Bytes, hyper::Error>::new(1);
        tokio::spawn(async move {
            while body.send_data(Bytes::from_static(b"tick\n")).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Response::new(channel.boxed())
    })
    .await
}

/// A service that answers no request before it is told to.
pub(crate) struct Held {
    pub(crate) address: SocketAddr,
    come: Arc<Semaphore>,
    released: Arc<Semaphore>,
}

impl Held {
    pub(crate) async fn start() -> Self {
        let (come, released) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (counted, awaited) = (come.clone(), released.clone());
        let address = service(move |_| {
            let (counted, awaited) = (counted.clone(), awaited.clone());
            async move {
                counted.add_permits(1);
                awaited.acquire().await.unwrap().forget();
                Response::new(full("done"))
            }
        })
        .await;
        Self { address, come, released }
    }

    /// Waits until one more request has come.
    pub(crate) async fn request(&self) {
        within("a request at the service", self.come.acquire()).await.unwrap().forget();
    }

    /// Answers one request.
    pub(crate) fn release(&self) {
        self.released.add_permits(1);
    }
}

/// A service that answers each request with its head and its body, as text.
pub(crate) async fn mirror() -> SocketAddr {
    service(|request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let mut text = format!("{} {}\n", head.method, head.uri);
        for (name, value) in &head.headers {
            text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
        }
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        text += &format!("\n{}", String::from_utf8_lossy(&body));
        Response::new(full(text))
    })
    .await
}

pub(crate) fn full(text: impl Into<Bytes>) -> BoxBody<Bytes, hyper::Error> {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// An mTLS connection to a gateway, with `alpn` asked for.
pub(crate) async fn connect(
    gateway: SocketAddr,
    identity: Option<&Issued>,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_as(gateway, client_config(identity, alpn, &version::TLS13)).await
}

pub(crate) async fn connect_as(gateway: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(gateway).await?;
    tcp.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::from(gateway.ip()), tcp).await
}

pub(crate) fn client_config(
    identity: Option<&Issued>,
    alpn: &[&[u8]],
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// The tests are about what the gateway believes.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384]
    }
}

/// Sends bytes and reads until the end of the connection, or until nothing came for a while.
pub(crate) async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> (String, Ended) {
    let ended = stream.write_all(request).await;
    stream.flush().await.ok();
    let mut bytes = Vec::new();
    let mut buffer = [0; 16_384];
    if ended.is_err() {
        return (String::new(), Ended::Closed);
    }
    loop {
        match tokio::time::timeout(Duration::from_millis(700), stream.read(&mut buffer)).await {
            Ok(Ok(0)) | Ok(Err(_)) => return (String::from_utf8_lossy(&bytes).into_owned(), Ended::Closed),
            Ok(Ok(read)) => bytes.extend_from_slice(&buffer[..read]),
            Err(_) => return (String::from_utf8_lossy(&bytes).into_owned(), Ended::Open),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    Closed,
    Open,
}

/// One HTTP/1.1 request on a new connection of the shop's cart.
pub(crate) async fn request(gateway: &Running, pki: &Pki, request: &str) -> (String, Ended) {
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    exchange(&mut stream, request.as_bytes()).await
}

/// An HTTP/2 client over any stream.
pub(crate) async fn http2<B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> hyper::client::conn::http2::SendRequest<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    sender
}
