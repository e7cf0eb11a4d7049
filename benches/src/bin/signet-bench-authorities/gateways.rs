//! Real gateways with identities from the issuer, and callers of them.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use signet_benches::issuer::caller::strangers_of;
use signet_benches::issuer::place::{Place, memory_of, program};
use signet_benches::issuer::web;
use signet_benches::origin;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::progress::until;

/// One process, with one worker.
#[derive(Debug)]
pub(crate) struct Gateway {
    process: Child,
    /// Where mTLS is spoken.
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
}

const PATIENCE: Duration = Duration::from_secs(90);
/// For one connection: a gateway that hangs is a failure.
const CALL: Duration = Duration::from_secs(20);

/// The plain service behind all of them.
pub(crate) async fn service() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(origin::serve(listener, None));
    Ok(address)
}

/// Starts so many. Not all of them are ready yet.
pub(crate) async fn start(place: &Place, service: SocketAddr, names: &[String]) -> anyhow::Result<Vec<Gateway>> {
    let mut started = Vec::with_capacity(names.len());
    for name in names {
        let token = place.join_token(&format!("spiffe://example.org/gateway/{name}")).await?;
        started.push(launch(place, service, name, &token)?);
    }
    for (name, gateway) in names.iter().zip(&mut started) {
        let log = place.path(&format!("{name}.log"));
        let mut found = None;
        until("a gateway's addresses", PATIENCE, async || {
            found = addresses(&std::fs::read_to_string(&log)?);
            Ok(found.is_some())
        })
        .await
        .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        (gateway.admin, gateway.address) = found.context("a gateway's addresses")?;
    }
    Ok(started)
}

fn launch(place: &Place, service: SocketAddr, name: &str, token: &str) -> anyhow::Result<Gateway> {
    let path = |suffix: &str| place.path(&format!("{name}.{suffix}"));
    std::fs::write(path("token"), token)?;
    let text = format!(
        "identity:\n  issuer: {{ address: \"{}\", trust_domain: example.org, bundle: \"{}\", join_token_file: \"{}\" }}\n\
         admin: 127.0.0.1:0\nworkers: 1\nlisteners:\n  - {{ name: inbound, mode: inbound, listen: \"127.0.0.1:0\", \
         allow: [\"spiffe://example.org/**\"], upstream: service }}\nupstreams:\n  - {{ name: service, address: \"http://{service}\" }}\n",
        place.address,
        place.path("root/root.pem").display(),
        path("token").display(),
    );
    std::fs::write(path("yaml"), text)?;
    let process = Command::new(program("signet-gateway")?)
        .arg("--config")
        .arg(path("yaml"))
        .env("SIGNET_LOG", "info")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(path("log"))?)
        .spawn()
        .context("signet-gateway")?;
    // Its log tells its addresses.
    let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
    Ok(Gateway { process, address: unknown, admin: unknown })
}

/// The admin address and the listener's, as its log tells them.
fn addresses(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let told: Vec<_> = lines.collect();
    let of = |message: &str| {
        let line = told.iter().find(|line| line["message"] == message)?;
        line["address"].as_str()?.parse().ok()
    };
    Some((of("admin address")?, of("port claimed")?))
}

impl Gateway {
    /// Whether it serves: it has an identity, and knows all that is revoked.
    pub(crate) async fn is_ready(&self) -> anyhow::Result<bool> {
        Ok(web::get(self.admin, "/ready", "").await?.is_some())
    }

    pub(crate) async fn wait_until_ready(&self) -> anyhow::Result<()> {
        until("a gateway is ready", PATIENCE, async || self.is_ready().await).await
    }

    /// The sum of the samples of a metric that have these words in their labels.
    pub(crate) async fn metric(&self, name: &str, labels: &str) -> anyhow::Result<f64> {
        let metrics = web::get(self.admin, "/metrics", "").await?.context("no metrics")?;
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        let samples = metrics.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Resident memory, in bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        memory_of(&self.process)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How callers believe the gateways.
pub(crate) fn believing(place: &Place) -> anyhow::Result<Arc<ClientConfig>> {
    strangers_of(place.bundle.clone(), "spiffe://example.org/gateway/**", b"http/1.1")
}

/// A connection on which one request was served.
///
/// # Errors
/// It was not: with TLS 1.3 a caller hears of its refusal after its own end of the handshake.
pub(crate) async fn served(config: Arc<ClientConfig>, address: SocketAddr) -> anyhow::Result<TlsStream<TcpStream>> {
    let serving = async {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let mut stream = TlsConnector::from(config).connect(ServerName::IpAddress(address.ip().into()), tcp).await?;
        ask(&mut stream).await?;
        anyhow::Ok(stream)
    };
    tokio::time::timeout(CALL, serving).await?
}

/// One request on a connection.
pub(crate) async fn ask(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: service\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(512);
    while !is_whole(&answer) {
        anyhow::ensure!(stream.read_buf(&mut answer).await? > 0, "the gateway closed the connection");
    }
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// A head and as many bytes as it says.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    answer.len() >= end + 4 + length.unwrap_or(0)
}
