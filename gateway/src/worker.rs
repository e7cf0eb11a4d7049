//! One worker: a thread with a runtime of its own, on which a share of the connections live from their first byte to their
//! last. Nothing on it is shared with other workers but the identity's snapshot and the metrics.

use std::io;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use rustls_pki_types::CertificateDer;
use signet_identity::{ClientKey, LiveIdentity, ServerKey, SharedClock, Snapshot};
use signet_process::log_limit::LogLimit;
use socket2::Socket;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Gateway, Limits};
use crate::connection::LocalExecutor;
use crate::deadlines::{Deadlines, TICK};
use crate::lifetime::{Cause, Order, Registry, judge};
use crate::listener::{IdentityArrival, Listener};
use crate::metrics::Metrics;
use crate::ports;
use crate::presented::{Presented, Teller};
use crate::upstream::{Surroundings, Upstream};

/// What a worker is made of; everything else it makes itself, on its own thread.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) config: Arc<Gateway>,
    pub(crate) keys: Keys,
    /// One for each listener.
    pub(crate) sockets: Vec<Socket>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: SharedClock,
    pub(crate) presented: Arc<Presented>,
    pub(crate) identity: IdentityArrival,
    pub(crate) shutdown: CancellationToken,
    pub(crate) reports: mpsc::Sender<Report>,
}

/// The TLS policies of the gateway, in the order of its configuration; none where there is no TLS.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) listeners: Vec<Option<ServerKey>>,
    pub(crate) upstreams: Vec<Option<ClientKey>>,
}

/// What a worker tells.
#[derive(Debug)]
pub(crate) enum Report {
    Accepting,
    Failed(io::Error),
}

/// What all connections of a worker have in common.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) worker: Surroundings,
    pub(crate) limits: Limits,
    /// This worker's share of the connections.
    pub(crate) connections: usize,
    /// This worker's share of the handshakes.
    pub(crate) handshakes: usize,
    pub(crate) callers: Rc<Registry>,
    /// Cancelled when nothing new is let in any more.
    pub(crate) closing: CancellationToken,
    pub(crate) refusals: LogLimit,
    pub(crate) failures: LogLimit,
    pub(crate) http2: http2::Builder<LocalExecutor>,
}

impl Plan {
    /// Runs a worker on a thread of its own until shutdown has drained it.
    pub(crate) fn start(self, number: usize) -> io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new().name(format!("signet-worker-{number}")).spawn(move || {
            let reports = self.reports.clone();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let result = runtime.and_then(|runtime| runtime.block_on(self.run()));
            if let Err(cause) = result {
                // Full only when others have failed already.
                let _ = reports.try_send(Report::Failed(cause));
            }
        })
    }

    async fn run(mut self) -> io::Result<()> {
        let Some(identity) = self.first_identity().await else { return Ok(()) };
        let core = Core::new(&self.config, identity, self.clock.clone(), self.presented.clone());
        let upstreams = self.upstreams(&core);
        let listeners = self.listeners(&core, &upstreams);
        for (listener, socket) in listeners.iter().zip(self.sockets.drain(..)) {
            tokio::task::spawn_local(listener.clone().accept(ports::open(socket)?));
        }
        tokio::task::spawn_local(keep_time(core.clone(), listeners, upstreams.clone()));
        tokio::task::spawn_local(follow_trust(core.clone(), upstreams));
        // The receiver lives as long as the gateway.
        let _ = self.reports.send(Report::Accepting).await;

        self.shutdown.cancelled().await;
        core.drain(self.config.drain).await;
        Ok(())
    }

    async fn first_identity(&mut self) -> Option<LiveIdentity> {
        let arrived = self.identity.wait_for(Option::is_some);
        let identity = self.shutdown.run_until_cancelled(arrived).await?.ok()?;
        (*identity).clone()
    }

    fn upstreams(&self, core: &Core) -> Vec<Rc<Upstream>> {
        let each = self.config.upstreams.iter().zip(&self.keys.upstreams);
        each.map(|(config, key)| {
            let connections = share(config.connections, self.config.workers);
            Upstream::new(config.clone(), *key, connections, core.worker.clone(), self.metrics.upstream(&config.name))
        })
        .collect()
    }

    fn listeners(&self, core: &Rc<Core>, upstreams: &[Rc<Upstream>]) -> Vec<Rc<Listener>> {
        let each = self.config.listeners.iter().zip(&self.keys.listeners);
        each.map(|(config, key)| {
            Rc::new(Listener {
                name: config.name.clone(),
                mode: config.mode.clone(),
                key: *key,
                upstream: upstreams[config.upstream.0].clone(),
                metrics: Rc::new(self.metrics.listener(&config.name)),
                core: core.clone(),
            })
        })
        .collect()
    }
}

impl Core {
    fn new(config: &Gateway, identity: LiveIdentity, clock: SharedClock, presented: Arc<Presented>) -> Rc<Self> {
        let limits = config.limits.clone();
        let deadlines = Deadlines::new(clock.clone());
        let mut http2 = http2::Builder::new(LocalExecutor);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_send_buf_size(SEND_BUFFER);
        Rc::new(Self {
            connections: share(limits.connections, config.workers),
            handshakes: share(limits.handshakes, config.workers),
            callers: Rc::default(),
            closing: CancellationToken::new(),
            refusals: LogLimit::new(),
            failures: LogLimit::new(),
            worker: Surroundings {
                identity,
                clock,
                deadlines,
                registry: Rc::default(),
                presented: Rc::new(Teller::new(presented)),
            },
            limits,
            http2,
        })
    }

    /// Lets the connections finish, for as long as `patience`; then cuts them off.
    async fn drain(&self, patience: Duration) {
        // Whoever is not in the registry by now does not get there any more, and would not hear the order.
        self.closing.cancel();
        self.callers.order_all(Order::Drain(Cause::Shutdown));
        if !self.empty_within(patience).await {
            tracing::info!(connections = self.callers.len(), "connections are cut off at shutdown");
            self.callers.order_all(Order::End(Cause::Shutdown));
            self.empty_within(CUT_OFF).await;
        }
    }

    /// Once our own identity has expired, the callers that were shown it are let go, and soon cut off. Callers on this host
    /// are told with each answer.
    fn end_with_own_identity(&self) {
        let expires_at = self.worker.identity.load().expires_at();
        let expired_for = self.worker.clock.now() - expires_at;
        if expired_for >= Duration::ZERO {
            self.callers.order_peers(Order::Drain(Cause::OwnIdentity));
        }
        if expired_for >= OWN_EXPIRY_GRACE {
            self.callers.order_peers(Order::End(Cause::OwnIdentity));
        }
    }

    async fn empty_within(&self, patience: Duration) -> bool {
        let empty = async {
            while self.callers.len() > 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(patience, empty).await.is_ok()
    }
}

/// The one timer of this worker: it moves the deadlines, and sees to what can wait.
async fn keep_time(core: Rc<Core>, listeners: Vec<Rc<Listener>>, upstreams: Vec<Rc<Upstream>>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    for number in 0_u64.. {
        ticks.tick().await;
        core.worker.deadlines.tick();
        core.end_with_own_identity();
        for listener in &listeners {
            listener.metrics.flush();
        }
        if number.is_multiple_of(SWEEP_EVERY) {
            for upstream in &upstreams {
                upstream.sweep();
            }
        }
    }
}

/// Judges the peers of all connections anew whenever trust has changed.
async fn follow_trust(core: Rc<Core>, upstreams: Vec<Rc<Upstream>>) {
    let mut changed = core.worker.identity.changed();
    let (mut judged, mut bundles, mut vouched) = {
        let first = core.worker.identity.load();
        (first.trust_epoch(), first.bundles().clone(), vouching(&first))
    };
    // Ends when the identity is published no more.
    while changed.changed().await.is_ok() {
        let snapshot = core.worker.identity.load_full();
        // Another authority vouches for us: the one before may be on its way out, and then either end would cut off what was made with it.
        if vouching(&snapshot) != vouched {
            vouched = vouching(&snapshot);
            core.callers.order_peers(Order::Drain(Cause::OwnAuthority));
            for upstream in &upstreams {
                upstream.retire_all();
            }
        }
        if snapshot.trust_epoch() == judged {
            continue;
        }
        judged = snapshot.trust_epoch();
        // A revocation concerns nobody but whom it is about.
        if *snapshot.bundles() != bundles {
            bundles = snapshot.bundles().clone();
            for upstream in &upstreams {
                upstream.retire_all();
            }
        }
        judge([&core.callers, &core.worker.registry], &snapshot).await;
        // Those that wait for a request have nobody to wake.
        for upstream in &upstreams {
            upstream.sweep();
        }
    }
}

/// The certificates above our own.
pub(crate) fn vouching(snapshot: &Snapshot) -> Vec<CertificateDer<'static>> {
    snapshot.svid().intermediates().to_vec()
}

fn share(total: usize, workers: NonZeroUsize) -> usize {
    total.div_ceil(workers.get())
}

/// In ticks.
const SWEEP_EVERY: u64 = 10;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const FRAME: u32 = 64 << 10;
/// Of one stream, ahead of the socket: what a caller that does not read can make us hold.
const SEND_BUFFER: usize = 128 << 10;
/// For the answers that are on their way when our own identity expires.
const OWN_EXPIRY_GRACE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const CUT_OFF: Duration = Duration::from_millis(500);
