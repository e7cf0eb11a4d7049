//! OpenBao's PKI engine: a server of its own with TLS and raft storage, as its documentation sets one up.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use signet_benches::issuer::place::free_address;
use signet_benches::issuer::work::{AsyncWork, closed};

#[derive(Debug)]
pub(crate) struct Bao {
    _folder: tempfile::TempDir,
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    token: String,
    process: Child,
}

/// Whether it keeps what it signed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored {
    No,
    Yes,
}

const AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(30);

impl Bao {
    pub(crate) fn start(program: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.self_signed(&key)?;
        std::fs::write(path("tls.pem"), certificate.pem())?;
        std::fs::write(path("tls.key"), key.serialize_pem())?;
        std::fs::create_dir(path("raft"))?;
        let (address, cluster) = (free_address()?, free_address()?);
        let text = format!(
            "storage \"raft\" {{ path = \"{}\" node_id = \"one\" }}\n\
             listener \"tcp\" {{ address = \"{address}\" tls_cert_file = \"{}\" tls_key_file = \"{}\" }}\n\
             api_addr = \"https://{address}\"\ncluster_addr = \"https://{cluster}\"\n",
            path("raft"),
            path("tls.pem"),
            path("tls.key")
        );
        std::fs::write(path("bao.hcl"), text)?;
        let log = std::fs::File::create(path("log"))?;
        let process = Command::new(program)
            .args(["server", &format!("-config={}", path("bao.hcl"))])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| program.display().to_string())?;
        let certificate = certificate.der().clone();
        let mut bao = Self { _folder: folder, address, certificate, token: String::new(), process };
        std::thread::scope(|scope| {
            // Within a runtime another one may be started by another thread only.
            let setting_up = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(bao.set_up())
            });
            setting_up.join().map_err(|_| anyhow::anyhow!("OpenBao is not set up"))?
        })?;
        Ok(bao)
    }

    async fn set_up(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut client = loop {
            match self.connect().await {
                Ok(client) => break client,
                Err(error) => anyhow::ensure!(begun.elapsed() < PATIENCE, "OpenBao: {error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let made = client.call(Method::POST, "sys/init", json!({"secret_shares": 1, "secret_threshold": 1})).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("OpenBao's init");
        client.call(Method::POST, "sys/unseal", json!({"key": text(&made["keys"][0])?})).await?;
        self.token = text(&made["root_token"])?;
        client.token.clone_from(&self.token);
        // It elects itself first.
        let begun = Instant::now();
        while let Err(error) = client.call(Method::POST, "sys/mounts/pki", json!({"type": "pki"})).await {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "OpenBao: {error:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        client.call(Method::POST, "sys/mounts/pki/tune", json!({"max_lease_ttl": "87600h"})).await?;
        let root = json!({"common_name": "bench", "key_type": "ec", "key_bits": 256, "ttl": "87600h"});
        client.call(Method::POST, "pki/root/generate/internal", root).await?;
        for (role, no_store) in [("stored", false), ("unstored", true)] {
            let role = format!("pki/roles/{role}");
            let options = json!({
                "allow_any_name": true, "key_type": "ec", "key_bits": 256, "max_ttl": "24h", "no_store": no_store,
                "generate_lease": false,
            });
            client.call(Method::POST, &role, options).await?;
        }
        Ok(())
    }

    /// Certificates a second by `pki/sign`, for P-256 requests that were made beforehand, over connections that stay.
    pub(crate) async fn sign(&self, stored: Stored, time: Duration) -> anyhow::Result<f64> {
        let role = match stored {
            Stored::No => "unstored",
            Stored::Yes => "stored",
        };
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // It would take the name that stands there.
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key)?.pem()?;
        let body = json!({"csr": csr, "common_name": "w0.bench.svc", "ttl": "1h", "format": "der"}).to_string();
        let mut workers = Vec::new();
        for _ in 0..AT_ONCE {
            workers.push(Signing { client: self.connect().await?, path: format!("pki/sign/{role}") });
        }
        let work = vec![Bytes::from(body); 20_000 * time.as_secs() as usize];
        let done = closed(workers, work, time).await;
        done.all_done("requests to OpenBao")?;
        Ok(done.rate())
    }

    async fn connect(&self) -> anyhow::Result<Client> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = tokio::net::TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tls = connector.connect(ServerName::IpAddress(self.address.ip().into()), tcp).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Client { sender, token: self.token.clone() })
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Client {
    sender: SendRequest<Full<Bytes>>,
    token: String,
}

struct Signing {
    client: Client,
    path: String,
}

impl Client {
    async fn call(&mut self, method: Method, path: &str, body: Value) -> anyhow::Result<Value> {
        let answer = self.send(method, path, body.to_string().into()).await?;
        Ok(if answer.is_empty() { Value::Null } else { serde_json::from_slice(&answer)? })
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/{path}"))
            .header("host", "bao")
            .header("x-vault-token", &self.token)
            .body(Full::new(body))?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}

impl AsyncWork<Bytes> for Signing {
    async fn run(&mut self, body: Bytes) -> anyhow::Result<()> {
        self.client.send(Method::POST, &self.path, body).await?;
        Ok(())
    }
}
