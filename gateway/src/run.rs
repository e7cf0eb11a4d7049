//! A gateway from its configuration to its end: ports, admin address, identity, workers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use prometheus::Registry;
use signet_identity::{
    ClientAuthentication, ClientCredentials, ClientPolicy, LiveIdentity, ServerPolicy, SharedClock, SystemClock,
    TlsPolicies,
};
use signet_process::admin::{AdminBuilder, AdminError, Readiness, State};
use signet_process::identity_metrics::IdentityMetrics;
use signet_process::identity_slot::IdentitySlot;
use signet_process::logging::LogHandle;
use signet_sdk::Monitor;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Gateway, Mode, UpstreamProtocol};
use crate::listener::IdentityArrival;
use crate::metrics::Metrics;
use crate::ports::{self, PortError};
use crate::presented::Presented;
use crate::renewal::{IDENTITY, Renewal, Renewing};
use crate::worker::{Keys, Plan, Report};

/// A gateway that holds its ports and answers on its admin address. Whether it serves yet, `readiness` tells.
#[derive(Clone, Debug)]
pub struct Started {
    pub admin: SocketAddr,
    /// Names and addresses in the order of the configuration; ports are real where that said 0.
    pub listeners: Vec<(Arc<str>, SocketAddr)>,
    pub readiness: Readiness,
    /// Tells of the identity: the present one, and each event from now on.
    pub identity: Monitor,
}

/// A gateway cannot run, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    #[error("a thread cannot be started")]
    Thread(#[source] io::Error),
    #[error("a worker failed")]
    Worker(#[source] io::Error),
}

/// Runs a gateway until `shutdown`, then drains it. `started` is told as soon as its ports are claimed; `log` is what the
/// admin address may change.
pub async fn run(
    config: Gateway,
    log: Option<LogHandle>,
    started: oneshot::Sender<Started>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let config = Arc::new(config);
    let clock: SharedClock = Arc::new(SystemClock);
    let claimed = config.listeners.iter().map(|listener| ports::claim(listener, config.workers));
    let claimed = claimed.collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<SocketAddr> = claimed.iter().map(|claimed| claimed.address).collect();
    let names = config.listeners.iter().map(|listener| listener.name.clone());
    let listeners = names.zip(addresses.iter().copied()).collect();

    let registry = Registry::new();
    let slot = IdentitySlot::new(clock.clone());
    let metrics = Metrics::register(&registry)?;
    let identity_metrics = IdentityMetrics::register(&registry, slot.clone())?;
    let readiness = Readiness::awaiting([IDENTITY, LISTENERS]);
    let presented = Presented::new(clock.clone());
    let admin = AdminBuilder {
        process: "signet-gateway",
        address: config.admin,
        registry,
        readiness: readiness.clone(),
        identity: slot.clone(),
        config: config.text.clone(),
        log,
        pages: vec![presented.page()],
    };
    let admin = admin.start()?;

    let (policies, keys) = policies(&config, &clock);
    // Renewal goes on while the last requests are drained.
    let renewal_shutdown = CancellationToken::new();
    let _stop_renewal = renewal_shutdown.clone().drop_guard();
    let renewal = Renewal {
        source: config.identity.clone(),
        policies,
        slot,
        metrics: identity_metrics,
        readiness: readiness.clone(),
        shutdown: renewal_shutdown.clone(),
    };
    let Renewing { thread: renewal, monitor, arrival } = renewal.start().await.map_err(RunError::Thread)?;
    let (open, opened) = watch::channel(None);

    // Not a child of `shutdown`: that workers end is a failure until this task has seen the shutdown itself.
    let workers_shutdown = CancellationToken::new();
    let _stop_workers = workers_shutdown.clone().drop_guard();
    let (reports, mut reported) = mpsc::channel(config.workers.get());
    let mut sockets: Vec<_> = claimed.into_iter().map(|claimed| claimed.sockets.into_iter()).collect();
    let mut workers = Vec::new();
    for number in 0..config.workers.get() {
        let plan = Plan {
            config: config.clone(),
            keys: keys.clone(),
            sockets: sockets.iter_mut().filter_map(Iterator::next).collect(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            presented: presented.clone(),
            identity: opened.clone(),
            shutdown: workers_shutdown.clone(),
            reports: reports.clone(),
        };
        workers.push(plan.start(number).map_err(RunError::Thread)?);
    }
    drop(reports);

    let address = admin.address();
    // Whoever does not want to know has dropped the receiver.
    let _ = started.send(Started { admin: address, listeners, readiness: readiness.clone(), identity: monitor });

    let serving = async {
        let identity = first_identity(arrival).await?;
        // Another process may have begun to listen since the ports were claimed.
        for (listener, address) in config.listeners.iter().zip(&addresses) {
            ports::check_again(listener, *address)?;
        }
        open.send_replace(Some(identity));
        watch_workers(&mut reported, workers.len(), &readiness).await
    };
    let ended = shutdown.run_until_cancelled(serving).await;
    readiness.set(LISTENERS, State::NotReady { reason: "shutting down".to_owned() });
    workers_shutdown.cancel();
    join_all(workers).await;
    renewal_shutdown.cancel();
    join_all(vec![renewal]).await;
    admin.stop();
    ended.unwrap_or(Ok(()))
}

/// Waits as long as it takes; the error is that renewal has ended.
async fn first_identity(mut arrival: IdentityArrival) -> Result<LiveIdentity, RunError> {
    let ended = || RunError::Worker(io::Error::other("identity renewal has ended"));
    let identity = arrival.wait_for(Option::is_some).await.map_err(|_| ended())?;
    (*identity).clone().ok_or_else(ended)
}

/// Returns when a worker cannot go on: a gateway on half its cores would look well.
async fn watch_workers(
    reported: &mut mpsc::Receiver<Report>,
    workers: usize,
    readiness: &Readiness,
) -> Result<(), RunError> {
    let mut accepting = 0;
    loop {
        match reported.recv().await {
            Some(Report::Accepting) => {
                accepting += 1;
                if accepting == workers {
                    readiness.set(LISTENERS, State::Ready);
                }
            }
            Some(Report::Failed(cause)) => return Err(RunError::Worker(cause)),
            None => return Err(RunError::Worker(io::Error::other("every worker has ended"))),
        }
    }
}

async fn join_all(threads: Vec<JoinHandle<()>>) {
    let joining = tokio::task::spawn_blocking(move || {
        for thread in threads {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                tracing::error!(thread = name, "a thread panicked");
            }
        }
    });
    // It panics only with this process.
    let _ = joining.await;
}

/// What the gateway offers and demands in TLS, for each listener and upstream by itself: a ticket of one is worth nothing on
/// another.
fn policies(config: &Gateway, clock: &SharedClock) -> (TlsPolicies, Keys) {
    let mut policies = TlsPolicies::new(clock.clone());
    policies.enable_secret_extraction();
    let alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listeners = config.listeners.iter().map(|listener| match listener.mode {
        Mode::Inbound { .. } => {
            Some(policies.server(ServerPolicy { alpn: alpn.clone(), clients: ClientAuthentication::Required }))
        }
        Mode::Outbound => None,
    });
    let listeners = listeners.collect();
    let upstreams = config.upstreams.iter().map(|upstream| match &upstream.protocol {
        UpstreamProtocol::Mtls { servers } => Some(policies.client(ClientPolicy {
            alpn: alpn.clone(),
            servers: servers.clone(),
            credentials: ClientCredentials::Svid,
        })),
        UpstreamProtocol::Plain => None,
    });
    let upstreams = upstreams.collect();
    (policies, Keys { listeners, upstreams })
}

const LISTENERS: &str = "listeners";
