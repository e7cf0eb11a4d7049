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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::thread;

    use signet_test_pki::Authority;

    use super::*;
    use crate::{BundleSet, Material, RevocationSet, SystemClock, TlsPolicies, TrustBundle, X509Svid};

    struct Source {
        root: Authority,
        policies: TlsPolicies,
    }

    impl Source {
        fn new() -> Self {
            let policies = TlsPolicies::new(Arc::new(SystemClock));
            Self { root: Authority::root("example.org"), policies }
        }

        fn next(&self, previous: Option<&Snapshot>) -> Snapshot {
            let issued = self.root.leaf("spiffe://example.org/a").issue();
            let svid = X509Svid::from_der(issued.chain.clone(), issued.key()).unwrap();
            let roots = vec![self.root.root_certificate().clone()];
            let bundles = BundleSet::from_iter([TrustBundle::new("example.org".parse().unwrap(), roots).unwrap()]);
            Snapshot::build(Material { svid, bundles, revocations: RevocationSet::default() }, &self.policies, previous)
                .unwrap()
        }
    }

    #[test]
    fn what_is_published_is_loaded_next_and_wakes_who_waits() {
        let source = Source::new();
        let (mut publisher, live) = live(source.next(None));
        let changed = live.changed();
        assert!(!changed.has_changed().unwrap());
        let before = live.load_full();
        let next = source.next(Some(&publisher.current()));
        let serial = next.svid().serial().clone();
        let generation = publisher.publish(next).unwrap();
        assert!(changed.has_changed().unwrap());
        assert_eq!(*changed.borrow(), generation);
        assert_eq!(live.load().generation(), generation);
        assert_eq!(live.clone().load().svid().serial(), &serial);
        assert_ne!(before.svid().serial(), &serial, "who holds the old snapshot keeps it");
    }

    #[test]
    fn a_stale_snapshot_is_refused() {
        let source = Source::new();
        let (mut publisher, live) = live(source.next(None));
        let first = publisher.current();
        let (late, next) = (source.next(Some(&first)), source.next(Some(&first)));
        let generation = publisher.publish(next).unwrap();
        let stale = StaleSnapshot { offered: generation, current: generation };
        assert_eq!(publisher.publish(late), Err(stale));
        assert_eq!(publisher.publish(source.next(None)).unwrap_err().current, generation);
        assert_eq!(live.load().generation(), generation);
    }

    #[test]
    fn readers_see_whole_snapshots_in_order_while_others_are_published() {
        let source = Source::new();
        let (mut publisher, live) = live(source.next(None));
        thread::scope(|scope| {
            for _ in 0..2 {
                let live = live.clone();
                scope.spawn(move || {
                    let mut seen = live.load().generation();
                    while seen.get() < 50 {
                        let generation = live.load().generation();
                        assert!(generation >= seen);
                        seen = generation;
                    }
                });
            }
            while publisher.current().generation().get() < 50 {
                publisher.publish(source.next(Some(&publisher.current()))).unwrap();
            }
        });
    }
}
