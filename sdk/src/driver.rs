//! How an identity becomes live: a source delivers, a snapshot is built, the snapshot is published. What cannot be
//! built is refused whole and the old snapshot stays.

use std::{io, sync::Arc};

use signet_identity::{
    ClientKey, IdentityPublisher, LiveIdentity, Material, ServerKey, Snapshot, SnapshotError, StaleSnapshot,
    TlsPolicies, live,
};
use tokio::{net::ToSocketAddrs, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{Event, Monitor, Source, cause, hyper::MtlsConnector, server::MtlsListener};

/// Starts to get an identity from `source` and waits until it is there, however long that takes: why it is not there
/// yet is in the log. Ends early only when `shutdown` is cancelled.
///
/// The driver runs as a task of the current tokio runtime. [`LiveIdentity`] and [`Monitor`] may be used from any.
pub async fn start(
    source: impl Source,
    policies: TlsPolicies,
    shutdown: CancellationToken,
) -> Result<Running, StartError> {
    begin(source, policies, shutdown).identity().await
}

/// Starts to get an identity and returns at once, for a program that answers readiness probes meanwhile.
pub fn begin(source: impl Source, mut policies: TlsPolicies, shutdown: CancellationToken) -> Starting {
    let keys = source.register(&mut policies);
    let monitor = Monitor::new(policies.clock().clone());
    let (first, arrived) = watch::channel(None);
    let delivery = Delivery { policies, published: None, first, monitor: monitor.clone() };
    let task = tokio::spawn(async move {
        shutdown.run_until_cancelled_owned(source.run(keys, delivery)).await;
    });
    Starting { monitor, arrived, task }
}

/// An identity that is on its way.
#[derive(Debug)]
pub struct Starting {
    monitor: Monitor,
    arrived: watch::Receiver<Option<LiveIdentity>>,
    task: JoinHandle<()>,
}

impl Starting {
    /// What the driver is doing, and why there is no identity yet.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Waits for the first identity.
    pub async fn identity(mut self) -> Result<Running, StartError> {
        let arrived = self.arrived.wait_for(Option::is_some).await.ok().and_then(|first| first.clone());
        match arrived {
            Some(live) => Ok(Running { live, monitor: self.monitor, task: self.task }),
            None => Err(StartError::Cancelled { last_error: self.monitor.last_error() }),
        }
    }
}

/// A live identity and what keeps it alive.
#[derive(Debug)]
pub struct Running {
    /// What is live now; cheap to clone.
    pub live: LiveIdentity,
    /// Events, counters and state; cheap to clone.
    pub monitor: Monitor,
    /// The driver; ends after the shutdown token is cancelled.
    pub task: JoinHandle<()>,
}

impl Running {
    /// A listener at `address` for clients that the policy behind `key` lets in.
    pub async fn listen(&self, address: impl ToSocketAddrs, key: ServerKey) -> io::Result<MtlsListener> {
        MtlsListener::bind(address, self.live.clone(), key, self.monitor.clock().clone()).await
    }

    /// A connector to the servers that the policy behind `key` expects.
    pub fn connector(&self, key: ClientKey) -> MtlsConnector {
        MtlsConnector::new(self.live.clone(), key, self.monitor.clock().clone())
    }
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Shutdown came first.
    #[error("stopped before there was an identity{}", describe(.last_error))]
    Cancelled {
        /// Why it was not there yet.
        last_error: Option<Arc<str>>,
    },
}

fn describe(last_error: &Option<Arc<str>>) -> String {
    last_error.as_ref().map(|error| format!("; last error: {error}")).unwrap_or_default()
}

/// A source's way to make material live, and to tell how it fares.
#[derive(Debug)]
pub struct Delivery {
    policies: TlsPolicies,
    published: Option<(IdentityPublisher, LiveIdentity)>,
    first: watch::Sender<Option<LiveIdentity>>,
    monitor: Monitor,
}

/// Why material did not become live.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Its parts do not belong together or are not valid now.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It is older than what is live.
    #[error(transparent)]
    Stale(#[from] StaleSnapshot),
}

impl Delivery {
    /// Makes `material` live at the next handshake, or refuses it whole: then the old snapshot stays.
    pub fn offer(&mut self, material: Material) -> Result<Arc<Snapshot>, Refused> {
        self.prepare(material).inspect(|_| self.announce())
    }

    /// The same, for a source that judges by itself whether a refusal is to be told.
    pub(crate) fn offer_quietly(&mut self, material: Material) -> Result<Arc<Snapshot>, Refused> {
        self.prepare_quietly(material).inspect(|_| self.announce())
    }

    /// The same for a source that cannot let its first identity be used yet: before it is announced, nobody else has it.
    pub(crate) fn prepare(&mut self, material: Material) -> Result<Arc<Snapshot>, Refused> {
        let prepared = self.prepare_quietly(material);
        if let Err(refused) = &prepared {
            self.monitor.refused(cause::whole(refused));
        }
        prepared
    }

    fn prepare_quietly(&mut self, material: Material) -> Result<Arc<Snapshot>, Refused> {
        self.build(material).and_then(|next| self.publish(next))
    }

    /// Lets everybody use what is live, from now on.
    pub(crate) fn announce(&mut self) {
        if let Some((_, live)) = &self.published
            && !self.is_announced()
        {
            self.monitor.arrived(live.clone());
            self.monitor.report(rotated(&live.load()));
            // Nobody waits any more when `Starting` was dropped: the identity is live for the monitor's holders.
            let _ = self.first.send(Some(live.clone()));
        }
    }

    fn is_announced(&self) -> bool {
        self.monitor.live().is_some()
    }

    /// What is live, once there is something. A source may see it before others do.
    pub fn live(&self) -> Option<&LiveIdentity> {
        self.published.as_ref().map(|(_, live)| live)
    }

    /// Where a source reports on its connection and its renewals.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    fn build(&self, material: Material) -> Result<Snapshot, Refused> {
        let previous = self.live().map(LiveIdentity::load_full);
        Ok(Snapshot::build(material, &self.policies, previous.as_deref())?)
    }

    fn publish(&mut self, next: Snapshot) -> Result<Arc<Snapshot>, Refused> {
        let Some((publisher, live)) = &mut self.published else {
            let (publisher, live) = live(next);
            let snapshot = live.load_full();
            self.published = Some((publisher, live));
            return Ok(snapshot);
        };
        let before = live.load_full();
        publisher.publish(next)?;
        let snapshot = live.load_full();
        if self.is_announced() {
            self.monitor.report(changed(&before, &snapshot));
        }
        Ok(snapshot)
    }
}

fn changed(before: &Snapshot, now: &Snapshot) -> Event {
    let (generation, trust_epoch) = (now.generation(), now.trust_epoch());
    if before.svid().leaf() != now.svid().leaf() {
        rotated(now)
    } else if before.revocations() != now.revocations() && before.bundles() == now.bundles() {
        Event::RevocationsChanged { generation, trust_epoch }
    } else {
        Event::BundlesChanged { generation, trust_epoch }
    }
}

fn rotated(snapshot: &Snapshot) -> Event {
    let svid = snapshot.svid();
    Event::Rotated {
        spiffe_id: svid.id().clone(),
        serial: svid.serial().clone(),
        not_after: svid.not_after(),
        generation: snapshot.generation(),
    }
}
