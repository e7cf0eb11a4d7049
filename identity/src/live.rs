use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::{Generation, Snapshot};

/// Makes the first snapshot live: one half to publish the next ones, one half to read.
pub fn live(first: Snapshot) -> (IdentityPublisher, LiveIdentity) {
    let (sender, receiver) = watch::channel(first.generation());
    let current = Arc::new(ArcSwap::from_pointee(first));
    let publisher = IdentityPublisher { current: current.clone(), changed: sender };
    (publisher, LiveIdentity { current, changed: receiver })
}

/// The identity that is live now. Readers clone this; call [`load`](Self::load) once per handshake: two calls may
/// straddle a rotation.
#[derive(Clone, Debug)]
pub struct LiveIdentity {
    current: Arc<ArcSwap<Snapshot>>,
    changed: watch::Receiver<Generation>,
}

/// Not `Clone`: whoever owns it (the renewal task) is the only writer.
#[derive(Debug)]
pub struct IdentityPublisher {
    current: Arc<ArcSwap<Snapshot>>,
    changed: watch::Sender<Generation>,
}

/// A snapshot that was built before the one that is live.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("snapshot {offered} is not newer than snapshot {current}, which is live")]
pub struct StaleSnapshot {
    pub offered: Generation,
    pub current: Generation,
}

impl LiveIdentity {
    /// The identity to use for one handshake. Lock-free; never blocks on a publisher. Not to be held across an `await`.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The same, to hold across an `await`.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Wakes whoever must act when another snapshot becomes live. What is loaded after a wake-up is at least that new.
    pub fn changed(&self) -> watch::Receiver<Generation> {
        self.changed.clone()
    }
}

impl IdentityPublisher {
    /// What is live, as the `previous` of the next snapshot.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Makes `next` live at the next handshake. Refuses a snapshot that is not newer than the current one.
    pub fn publish(&mut self, next: Snapshot) -> Result<Generation, StaleSnapshot> {
        let (offered, current) = (next.generation(), self.current.load().generation());
        if offered <= current {
            return Err(StaleSnapshot { offered, current });
        }
        self.current.store(Arc::new(next));
        self.changed.send_replace(offered);
        Ok(offered)
    }
}
