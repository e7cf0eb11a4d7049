//! Where the gateway's identity is fetched and renewed: a thread of its own, so that a signature or a slow issuer never adds
//! to a request's latency.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use signet_identity::{LiveIdentity, TlsPolicies};
use signet_process::admin::{Readiness, State};
use signet_process::identity_metrics::{IdentityMetrics, Rotation};
use signet_process::identity_slot::IdentitySlot;
use signet_sdk::{
    FilePaths, FilesSource, IssuerLink, IssuerSource, JoinToken, Monitor, RotationResult, Running, Source, StartError,
    Starting,
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Credential, IdentitySource};

/// What the renewal thread works for.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) source: IdentitySource,
    pub(crate) policies: TlsPolicies,
    pub(crate) slot: IdentitySlot,
    pub(crate) metrics: IdentityMetrics,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: CancellationToken,
}

/// A renewal thread that runs.
#[derive(Debug)]
pub(crate) struct Renewing {
    pub(crate) thread: JoinHandle<()>,
    pub(crate) monitor: Monitor,
    /// The identity, once it has come.
    pub(crate) arrival: watch::Receiver<Option<LiveIdentity>>,
}

impl Renewal {
    /// Begins to ask for an identity. Returns before there is one.
    pub(crate) async fn start(self) -> io::Result<Renewing> {
        match self.source.clone() {
            IdentitySource::Issuer { addresses, bootstrap, credential, spiffe_id, id, log_keys } => {
                let addresses = addresses.iter().map(String::as_str);
                let source = IssuerSource::at(addresses, bootstrap, shown(credential));
                let mut source = source.map_err(io::Error::other)?;
                if let Some(id) = id {
                    source = source.issuer_id(id);
                }
                if let Some(spiffe_id) = spiffe_id {
                    source = source.spiffe_id(spiffe_id);
                }
                self.start_with(source.require_logged(log_keys)).await
            }
            IdentitySource::Files { certificate, key, bundle } => {
                self.start_with(FilesSource::new(FilePaths { certificate, key, bundle })).await
            }
        }
    }

    async fn start_with(self, source: impl Source) -> io::Result<Renewing> {
        let (arrived, arrival) = watch::channel(None);
        let (begun, monitor) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new()
            .name("signet-renewal".to_owned())
            .spawn(move || runtime.block_on(self.run(source, begun, arrived)))?;
        let monitor = monitor.await.map_err(io::Error::other)?;
        Ok(Renewing { thread, monitor, arrival })
    }

    async fn run(
        self,
        source: impl Source,
        begun: oneshot::Sender<Monitor>,
        arrived: watch::Sender<Option<LiveIdentity>>,
    ) {
        let starting = signet_sdk::begin(source, self.policies.clone(), self.shutdown.clone());
        let monitor = starting.monitor().clone();
        // Whoever started this thread waits for it.
        let _ = begun.send(monitor.clone());
        tokio::join!(self.publish(starting, arrived), self.watch(&monitor));
    }

    async fn publish(&self, starting: Starting, arrived: watch::Sender<Option<LiveIdentity>>) {
        match starting.identity().await {
            Ok(Running { live, task, .. }) => {
                self.slot.fill(live.clone());
                self.readiness.set(IDENTITY, State::Ready);
                arrived.send_replace(Some(live));
                if let Err(cause) = task.await {
                    tracing::error!(%cause, "identity renewal ended");
                    self.readiness.set(IDENTITY, State::NotReady { reason: "renewal has ended".to_owned() });
                }
            }
            Err(StartError::Cancelled { .. }) => {}
        }
    }

    /// Carries what the monitor knows to metrics and readiness.
    async fn watch(&self, monitor: &Monitor) {
        let mut counted = RotationResult::ALL.map(|result| (result, 0));
        let mut interval = tokio::time::interval(WATCH);
        while self.shutdown.run_until_cancelled(interval.tick()).await.is_some() {
            for (result, counted) in &mut counted {
                while *counted < monitor.rotations(*result) {
                    *counted += 1;
                    self.metrics.rotation(rotation(*result));
                }
            }
            match monitor.issuer() {
                IssuerLink::NotUsed => {}
                IssuerLink::Connected => self.metrics.issuer_connected(true),
                IssuerLink::Disconnected => self.metrics.issuer_connected(false),
            }
            if let signet_sdk::State::Waiting { reason } = monitor.state() {
                self.readiness.set(IDENTITY, State::NotReady { reason: waiting(&reason) });
            }
        }
    }
}

fn shown(credential: Credential) -> signet_sdk::Credential {
    match credential {
        Credential::JoinToken { file } => JoinToken::File(file).into(),
        Credential::KubernetesToken { cluster, file } => {
            signet_sdk::Credential::KubernetesToken { cluster, token: file }
        }
        Credential::Oidc { provider, file } => signet_sdk::Credential::Oidc { provider, token: file },
        Credential::X509 { certificate, key } => signet_sdk::Credential::X509 { certificate, key },
    }
}

fn waiting(reason: &Arc<str>) -> String {
    format!("no identity yet: {reason}")
}

fn rotation(result: RotationResult) -> Rotation {
    match result {
        RotationResult::Rotated => Rotation::Rotated,
        RotationResult::Refused => Rotation::Refused,
        RotationResult::Failed => Rotation::Failed,
    }
}

/// The component's name in readiness, which the admin address judges by itself once there is an identity.
pub(crate) const IDENTITY: &str = "identity";

const WATCH: Duration = Duration::from_millis(200);
