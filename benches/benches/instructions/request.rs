//! What one more request costs a whole gateway: mTLS in, plain HTTP/1.1 out, one request at a time on kept connections.
//!
//! ```text
//! this process, counted           its child, not counted
//! gateway with one worker  <----  caller
//!                          ---->  service
//! ```
//! Start, handshake and end are in the counts too; the difference between many requests and fewer is free of them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gungraun::prelude::*;
use gungraun::{Callgrind, EntryPoint};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use signet_benches::pki::BenchPki;
use signet_gateway::Started;
use signet_gateway::config::Gateway;
use signet_identity::{
    ClientCredentials, ClientPolicy, Material, RevocationSet, Snapshot, SpiffeIdPattern, SystemClock, TlsPolicies,
    TrustBundle, X509Svid,
};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

#[library_benchmark]
#[bench::times_500(500)]
#[bench::times_1500(1_500)]
fn http1(requests: usize) {
    serve(Protocol::Http1, requests);
}

#[library_benchmark]
#[bench::times_1000(1_000)]
#[bench::times_4000(4_000)]
fn http2(requests: usize) {
    serve(Protocol::Http2, requests);
}

library_benchmark_group!(name = request, config = whole_process(), benchmarks = [http1, http2]);

/// Counts in all threads from the first instruction to the last: the gateway's are not under the benchmark's function.
fn whole_process() -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::with_args(["--trace-children=no"]);
    callgrind.entry_point(EntryPoint::None);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

/// Runs a gateway in this process until its caller in the child has had its answers.
fn serve(protocol: Protocol, requests: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let peer = Peer { folder: folder.path().to_owned(), protocol, requests };
    let mut child = peer.command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a child");
    let mut service = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut service).expect("an address");
    let text = format!(
        r#"
identity: {{ files: {{ certificate: live/cur/server.pem, key: live/cur/server.key, bundle: roots.pem }} }}
admin: 127.0.0.1:0
workers: 1
listeners:
  - {{ name: inbound, mode: inbound, listen: 127.0.0.1:0, allow: ["spiffe://example.org/**"], upstream: service }}
upstreams:
  - {{ name: service, address: "http://{}" }}
"#,
        service.trim()
    );
    let config = Gateway::parse(&folder.path().join("gateway.yaml"), &text).expect("a configuration");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (announce, announced) = oneshot::channel::<Started>();
    let shutdown = CancellationToken::new();
    let calls = async {
        let started = announced.await.expect("a gateway that starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        writeln!(stdin, "{}", started.listeners[0].1).expect("a child that reads");
        let ended = tokio::task::spawn_blocking(move || child.wait()).await.expect("a thread").expect("a child");
        assert!(ended.success(), "the caller got its answers");
        shutdown.cancel();
    };
    let gateway = signet_gateway::run(config, None, announce, shutdown.clone());
    let (gateway, ()) = runtime.block_on(async { tokio::join!(gateway, calls) });
    gateway.expect("a gateway that ends well");
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Protocol {
    Http1,
    Http2,
}

/// The caller and the service, with the authority that caller and gateway have their certificates from.
struct Peer {
    folder: PathBuf,
    protocol: Protocol,
    requests: usize,
}

/// Whether this process was started to be the peer of a gateway.
pub(crate) fn is_peer() -> bool {
    std::env::args().nth(1).is_some_and(|argument| argument == PEER)
}

/// Makes the certificates, serves, and calls the gateway whose address it is told.
pub(crate) fn be_peer() {
    let peer = Peer::from_arguments().expect("folder, protocol and number of requests");
    let pki = BenchPki::new();
    pki.write_fixed(&peer.folder, LIFE).and_then(|()| pki.rotate_server(&peer.folder, 0, LIFE)).expect("files");
    let service = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", service.local_addr().expect("an address"));
    std::thread::spawn(move || answer_all(&service));

    let mut gateway = String::new();
    std::io::stdin().read_line(&mut gateway).expect("an address");
    let gateway = gateway.trim().parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(peer.call(gateway, &pki)).expect("an answer to each request");
}

impl Peer {
    fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        let protocol = if self.protocol == Protocol::Http2 { "h2" } else { "http/1.1" };
        command.arg(PEER).arg(&self.folder).arg(protocol).arg(self.requests.to_string());
        command
    }

    fn from_arguments() -> Option<Self> {
        let mut arguments = std::env::args().skip(2);
        let folder = arguments.next()?.into();
        let protocol = if arguments.next()? == "h2" { Protocol::Http2 } else { Protocol::Http1 };
        Some(Self { folder, protocol, requests: arguments.next()?.parse().ok()? })
    }

    async fn call(&self, gateway: SocketAddr, pki: &BenchPki) -> anyhow::Result<()> {
        let io = TokioIo::new(self.connect(gateway, pki).await?);
        match self.protocol {
            Protocol::Http1 => {
                let (mut sender, connection) = conn::http1::handshake(io).await?;
                tokio::spawn(connection);
                for _ in 0..self.requests {
                    sender.ready().await?;
                    expect_ok(sender.send_request(request_for("/cart/items?page=2")?).await?).await?;
                }
            }
            Protocol::Http2 => {
                let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                for _ in 0..self.requests {
                    sender.ready().await?;
                    expect_ok(sender.send_request(request_for("https://cart.example/cart/items?page=2")?).await?)
                        .await?;
                }
            }
        }
        Ok(())
    }

    async fn connect(&self, gateway: SocketAddr, pki: &BenchPki) -> anyhow::Result<TlsStream<tokio::net::TcpStream>> {
        let alpn = if self.protocol == Protocol::Http2 { "h2" } else { "http/1.1" };
        let config = client_config(pki, alpn)?;
        // The gateway listens a little after it has its port.
        let tcp = loop {
            match tokio::net::TcpStream::connect(gateway).await {
                Ok(tcp) => break tcp,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        tcp.set_nodelay(true)?;
        Ok(TlsConnector::from(config).connect(ServerName::try_from("signet.invalid")?, tcp).await?)
    }
}

/// A caller with a certificate of its own, which believes whoever has one of this trust domain.
fn client_config(pki: &BenchPki, alpn: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut policies = TlsPolicies::new(Arc::new(SystemClock));
    let anybody: SpiffeIdPattern = "spiffe://example.org/**".parse()?;
    let key = policies.client(ClientPolicy {
        alpn: vec![alpn.into()],
        servers: [anybody].into_iter().collect(),
        credentials: ClientCredentials::Svid,
    });
    let issued = pki.client(0, LIFE);
    let svid = X509Svid::from_der(issued.chain.clone(), issued.key())?;
    let bundle = TrustBundle::new(svid.id().trust_domain().clone(), vec![pki.root().clone()])?;
    let snapshot = Snapshot::build(
        Material { svid, bundles: [bundle].into_iter().collect(), revocations: RevocationSet::default() },
        &policies,
        None,
    )?;
    Ok(snapshot.client(key).clone())
}

/// With the headers that programs usually send.
fn request_for(uri: &str) -> http::Result<Request<Empty<Bytes>>> {
    Request::get(uri)
        .header("host", "cart.example")
        .header("user-agent", "shop-frontend/4.2")
        .header("accept", "application/json")
        .header("accept-encoding", "gzip")
        .header("x-request-id", "0d3b6a52-7c1e-4f0e-9d55-6a1c6f4e2b10")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .body(Empty::new())
}

async fn expect_ok(answer: Response<Incoming>) -> anyhow::Result<()> {
    anyhow::ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
    let body = answer.into_body().collect().await?.to_bytes();
    anyhow::ensure!(ANSWER.ends_with(&body) && !body.is_empty(), "another body");
    Ok(())
}

/// The service: whatever it is asked, it says the same.
fn answer_all(listener: &TcpListener) {
    for stream in listener.incoming() {
        let stream = stream.expect("a connection");
        std::thread::spawn(move || answer_each(stream));
    }
}

/// A connection that ends has ended.
fn answer_each(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..read]);
        if head.ends_with(b"\r\n\r\n") {
            stream.write_all(ANSWER)?;
            head.clear();
        }
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    content-type: application/json\r\n\
    cache-control: no-store\r\n\
    date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    content-length: 29\r\n\
    \r\n\
    {\"items\":[],\"total\":\"0.00\"}\r\n";

const PEER: &str = "--peer-of-a-gateway";
const LIFE: Duration = Duration::from_secs(3600);
