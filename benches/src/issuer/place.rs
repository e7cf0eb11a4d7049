//! An issuer of this bench's own: a root, a configuration, a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use identity_issuer::root::CaSummary;
use identity_issuer::{Passphrase, SealStrength, root};
use signet_identity::{SystemClock, TrustBundle};
use signet_proto::admin::v1::admin_service_client::AdminServiceClient;
use signet_proto::admin::v1::{ApplyPolicyRequest, CreateJoinTokenRequest, PolicyFile};
use tonic::transport::{Channel, Endpoint};

use super::tokens::{self, TokenMaker};

#[derive(Debug)]
pub struct Place {
    folder: tempfile::TempDir,
    pub address: SocketAddr,
    pub strangers: Arc<rustls::ClientConfig>,
    pub tokens: TokenMaker,
    /// What callers believe the issuer by.
    pub bundle: TrustBundle,
    pub web: SocketAddr,
    process: Child,
}

const DAY: Duration = Duration::from_secs(86_400);
const PATIENCE: Duration = Duration::from_secs(60);

impl Place {
    /// Starts an issuer; `more` is added to its configuration.
    pub fn start(more: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let domain = "example.org".parse()?;
        let made = new_root(&path("root"))?;
        std::fs::write(path("passphrase"), "bench\n")?;
        let tokens = TokenMaker::at(folder.path())?;
        let (address, admin, web) = (free_address()?, free_address()?, free_address()?);
        let text = format!(
            "trust_domain: example.org\nstate: state\ntrust_bundle: root/root.pem\nlisten: {address}\nadmin: {admin}\n\
             web: {{ listen: {web} }}\n\
             authority: {{ certificate: authority.pem, passphrase_file: passphrase }}\n{}{more}",
            tokens::CONFIGURATION
        );
        std::fs::write(path("issuer.yaml"), text)?;
        let bundle = TrustBundle::new(domain, vec![made.certificate])?;
        let strangers = super::caller::strangers_config(bundle.clone())?;
        let process = run(folder.path())?;
        let place = Self { folder, address, strangers, tokens, bundle, web, process };
        place.until("a request", || place.path("state/authority.csr").exists())?;
        let csr = std::fs::read_to_string(place.path("state/authority.csr"))?;
        std::fs::write(place.path("authority.pem.new"), place.sign("root", &csr)?)?;
        std::fs::rename(place.path("authority.pem.new"), place.path("authority.pem"))?;
        place.until("a port", || std::net::TcpStream::connect(address).is_ok())?;
        Ok(place)
    }

    /// Ends the issuer, has `between` done, and starts it again.
    pub async fn restart(&mut self, between: impl AsyncFnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        between(self.folder.path()).await?;
        self.process = run(self.folder.path())?;
        let address = self.address;
        self.until("a port", || std::net::TcpStream::connect(address).is_ok())
    }

    /// A file in the issuer's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn until(&self, what: &str, mut is_there: impl FnMut() -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !is_there() {
            let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
            anyhow::ensure!(begun.elapsed() < PATIENCE, "the issuer has not {what}: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub async fn admin(&self) -> anyhow::Result<AdminServiceClient<Channel>> {
        let socket = self.path("state/issuer-admin.sock");
        let endpoint = Endpoint::from_static("http://issuer.invalid");
        let channel = endpoint.connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        }));
        Ok(AdminServiceClient::new(channel.await?))
    }

    /// For whoever is to be `id`.
    pub async fn join_token(&self, id: &str) -> anyhow::Result<String> {
        let request = CreateJoinTokenRequest { spiffe_id: id.to_owned(), ttl: None };
        Ok(self.admin().await?.create_join_token(request).await?.into_inner().join_token)
    }

    /// The request of the one key that waits for a certificate, signed by the root in this folder.
    pub fn sign(&self, root: &str, request: &str) -> anyhow::Result<String> {
        let passphrase = Passphrase::read(&b"bench"[..])?;
        Ok(root::sign(&self.path(root), &passphrase, request.as_bytes(), 0, DAY, &SystemClock)?.to_pem())
    }

    /// Makes another root, in a folder of this name.
    pub fn new_root(&self, root: &str) -> anyhow::Result<CaSummary> {
        new_root(&self.path(root))
    }

    /// Makes these rules the policy.
    pub async fn apply(&self, rules: &str) -> anyhow::Result<()> {
        let file = PolicyFile { name: "policy.yaml".to_owned(), text: rules.to_owned() };
        let request = ApplyPolicyRequest { files: vec![file], prune: true, ..Default::default() };
        self.admin().await?.apply_policy(request).await?;
        Ok(())
    }

    /// Resident memory of the issuer, in bytes.
    pub fn memory(&self) -> anyhow::Result<f64> {
        memory_of(&self.process)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn new_root(folder: &Path) -> anyhow::Result<CaSummary> {
    let (domain, passphrase) = ("example.org".parse()?, Passphrase::read(&b"bench"[..])?);
    Ok(root::init(folder, &domain, &passphrase, SealStrength::MINIMAL, DAY, &SystemClock)?)
}

fn run(folder: &Path) -> anyhow::Result<Child> {
    let output = std::fs::File::options().create(true).append(true).open(folder.join("log"))?;
    Command::new(program("identity-issuer")?)
        .arg("--config")
        .arg(folder.join("issuer.yaml"))
        .env("SIGNET_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output)
        .spawn()
        .context("identity-issuer")
}

/// Beside this one.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.parent().map(Path::to_owned).context("a folder")?.join(name);
    anyhow::ensure!(beside.exists(), "{} is not built: cargo build --release -p {name}", beside.display());
    Ok(beside)
}

/// Resident memory, in bytes.
pub fn memory_of(process: &Child) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? * 1024.0)
}

pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
