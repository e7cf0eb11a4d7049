//! An issuer of this bench's own: a root, a configuration, a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use identity_issuer::{Passphrase, SealStrength, root};
use signet_identity::{SystemClock, TrustBundle};
use signet_proto::admin::v1::admin_service_client::AdminServiceClient;
use signet_proto::admin::v1::{ApplyPolicyRequest, PolicyFile};
use tonic::transport::{Channel, Endpoint};

use crate::tokens::{self, TokenMaker};

#[derive(Debug)]
pub(crate) struct Place {
    folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) strangers: Arc<rustls::ClientConfig>,
    pub(crate) tokens: TokenMaker,
    process: Child,
}

const DAY: Duration = Duration::from_secs(86_400);
const PATIENCE: Duration = Duration::from_secs(60);

impl Place {
    /// Starts an issuer; `more` is added to its configuration.
    pub(crate) fn start(more: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let domain = "example.org".parse()?;
        let passphrase = Passphrase::read(&b"bench"[..])?;
        let made = root::init(&path("root"), &domain, &passphrase, SealStrength::MINIMAL, DAY, &SystemClock)?;
        std::fs::write(path("passphrase"), "bench\n")?;
        let tokens = TokenMaker::at(folder.path())?;
        let (address, admin) = (free_address()?, free_address()?);
        let text = format!(
            "trust_domain: example.org\nstate: state\ntrust_bundle: root/root.pem\nlisten: {address}\nadmin: {admin}\n\
             web: {{ listen: 127.0.0.1:0 }}\n\
             authority: {{ certificate: authority.pem, passphrase_file: passphrase }}\n{}{more}",
            tokens::CONFIGURATION
        );
        std::fs::write(path("issuer.yaml"), text)?;
        let log = std::fs::File::create(path("log"))?;
        let process = Command::new(program()?)
            .arg("--config")
            .arg(path("issuer.yaml"))
            .env("SIGNET_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("identity-issuer")?;
        let bundle = TrustBundle::new(domain, vec![made.certificate])?;
        let strangers = crate::caller::strangers_config(bundle)?;
        let place = Self { folder, address, strangers, tokens, process };
        place.until("a request", || place.path("state/authority.csr").exists())?;
        let csr = std::fs::read(place.path("state/authority.csr"))?;
        let signed = root::sign(&place.path("root"), &passphrase, &csr, 0, DAY, &SystemClock)?;
        std::fs::write(place.path("authority.pem.new"), signed.to_pem())?;
        std::fs::rename(place.path("authority.pem.new"), place.path("authority.pem"))?;
        place.until("a port", || std::net::TcpStream::connect(address).is_ok())?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
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

    pub(crate) async fn admin(&self) -> anyhow::Result<AdminServiceClient<Channel>> {
        let socket = self.path("state/issuer-admin.sock");
        let endpoint = Endpoint::from_static("http://issuer.invalid");
        let channel = endpoint.connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        }));
        Ok(AdminServiceClient::new(channel.await?))
    }

    /// Makes these rules the policy.
    pub(crate) async fn apply(&self, rules: &str) -> anyhow::Result<()> {
        let file = PolicyFile { name: "policy.yaml".to_owned(), text: rules.to_owned() };
        let request = ApplyPolicyRequest { files: vec![file], prune: true, ..Default::default() };
        self.admin().await?.apply_policy(request).await?;
        Ok(())
    }

    /// Resident memory of the issuer, in bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? * 1024.0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Beside this one.
fn program() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.parent().map(Path::to_owned).context("a folder")?.join("identity-issuer");
    anyhow::ensure!(beside.exists(), "{} is not built: cargo build --release -p identity-issuer", beside.display());
    Ok(beside)
}

pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
