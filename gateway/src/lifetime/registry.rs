//! Which connections there are, so that all of them can be judged anew or told to end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use signet_identity::{PeerIdentity, Snapshot};
use signet_process::log_limit::LogLimit;
use slab::Slab;

use super::{Cause, Control, Order};

/// The connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    connections: RefCell<Slab<Rc<Control>>>,
    /// Peers that a change of trust cuts off may be many.
    distrusted: LogLimit,
}

impl Registry {
    pub(crate) fn register(self: &Rc<Self>, peer: Option<Arc<PeerIdentity>>) -> Registered {
        let control = Rc::new(Control { peer, order: Cell::new(Order::Serve), waker: RefCell::default() });
        let key = self.connections.borrow_mut().insert(control.clone());
        Registered { control, registry: self.clone(), key }
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.borrow().len()
    }

    pub(crate) fn order_all(&self, order: Order) {
        // Waking does not run a task, so nothing comes back here while this is borrowed.
        for (_, control) in &*self.connections.borrow() {
            control.give(order);
        }
    }

    /// The same to those connections only whose peers have proved an identity, and were shown ours.
    pub(crate) fn order_peers(&self, order: Order) {
        for (_, control) in &*self.connections.borrow() {
            if control.peer.is_some() {
                control.give(order);
            }
        }
    }

    /// Judges every live peer anew under `snapshot`, and cuts off those that it does not accept. Gives way after each
    /// [`SLICE`], so that many connections do not stall the worker.
    ///
    /// Connections come and go meanwhile. Whoever comes is registered first and then judged by the one who let it in, if the
    /// snapshot of its handshake is no longer the live one: so nobody needs to be found here who was not registered when
    /// this began, and a new connection in a slot that was passed already is not missed.
    pub(crate) async fn judge(&self, snapshot: &Snapshot) {
        let mut judgement = Judgement::begin();
        while self.judge_slice(snapshot, &mut judgement) {
            tokio::task::yield_now().await;
        }
        judgement.log(snapshot);
        // Every connection has its order by now, and acts on nothing else once it is awake. To take one down costs far more
        // than to judge it, so they are woken a few at a time.
        for few in judgement.cut_off.chunks(CLOSED_AT_ONCE) {
            few.iter().for_each(|control| control.wake());
            tokio::task::yield_now().await;
        }
    }

    /// Whether there is more to judge.
    fn judge_slice(&self, snapshot: &Snapshot, judgement: &mut Judgement) -> bool {
        let begun = Instant::now();
        let connections = self.connections.borrow();
        while judgement.next < connections.capacity() {
            if let Some(control) = connections.get(judgement.next) {
                judgement.judge(snapshot, control, &self.distrusted);
            }
            judgement.next += 1;
            if begun.elapsed() >= SLICE {
                return true;
            }
        }
        false
    }
}

/// How far the judgement of all peers has come.
#[derive(Debug)]
struct Judgement {
    begun: Instant,
    /// The place in the registry that is looked at next.
    next: usize,
    judged: usize,
    cut_off: Vec<Rc<Control>>,
    /// Many connections may share a peer, and a refusal is the one verdict that the chain cache does not remember. Keyed by
    /// address; that the peer is kept keeps the address from being another's.
    refused: HashMap<*const PeerIdentity, Arc<PeerIdentity>>,
}

impl Judgement {
    fn begin() -> Self {
        Self { begun: Instant::now(), next: 0, judged: 0, cut_off: Vec::new(), refused: HashMap::new() }
    }

    fn judge(&mut self, snapshot: &Snapshot, control: &Rc<Control>, log: &LogLimit) {
        let Some(peer) = &control.peer else { return };
        self.judged += 1;
        if let Entry::Vacant(place) = self.refused.entry(Arc::as_ptr(peer)) {
            let Err(cause) = snapshot.still_accepts(peer) else { return };
            place.insert(peer.clone());
            if let Some(suppressed) = log.admit() {
                let id = peer.id();
                tracing::info!(peer.spiffe_id = %id, %cause, suppressed, "peer is no longer trusted: its connections end");
            }
        }
        if control.set(Order::End(Cause::PeerDistrusted)) {
            self.cut_off.push(control.clone());
        }
    }

    fn log(&self, snapshot: &Snapshot) {
        if self.judged > 0 {
            tracing::info!(
                trust_epoch = snapshot.trust_epoch().get(),
                connections = self.judged,
                cut_off = self.cut_off.len(),
                peers_refused = self.refused.len(),
                took_us = self.begun.elapsed().as_micros() as u64,
                "the peers of live connections were judged anew"
            );
        }
    }
}

/// How long a judgement works before it gives way.
const SLICE: std::time::Duration = std::time::Duration::from_micros(500);
/// Some 50 µs each: TLS, HTTP and the socket.
const CLOSED_AT_ONCE: usize = 16;

/// A connection's place in the registry.
#[derive(Debug)]
pub(crate) struct Registered {
    control: Rc<Control>,
    registry: Rc<Registry>,
    key: usize,
}

impl std::ops::Deref for Registered {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let removed = self.registry.connections.borrow_mut().try_remove(self.key);
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use signet_identity::{
        ClientAuthentication, Material, ServerKey, ServerPolicy, SystemClock, TlsPolicies, TrustBundle, X509Svid,
    };
    use signet_test_pki::Authority;

    use super::*;

    #[test]
    fn an_order_is_never_taken_back_or_weakened() {
        let registry = Rc::new(Registry::default());
        let connection = registry.register(None);
        registry.order_all(Order::Drain(Cause::Shutdown));
        connection.give(Order::Drain(Cause::Idle));
        assert_eq!(connection.order(), Order::Drain(Cause::Shutdown));
        connection.give(Order::End(Cause::PeerExpired));
        registry.order_all(Order::End(Cause::Shutdown));
        assert_eq!(connection.order(), Order::End(Cause::PeerExpired));
        drop(connection);
        assert_eq!(registry.len(), 0);
    }

    /// Snapshots of one gateway, and the peers that connect to it.
    struct Mesh {
        own: Authority,
        policies: TlsPolicies,
        server: ServerKey,
    }

    impl Mesh {
        fn new() -> Self {
            let mut policies = TlsPolicies::new(Arc::new(SystemClock));
            let server = policies.server(ServerPolicy { alpn: Vec::new(), clients: ClientAuthentication::Required });
            Self { own: Authority::root("example.org"), policies, server }
        }

        fn snapshot(&self, others: &[&Authority], previous: Option<&Snapshot>) -> Snapshot {
            let issued = self.own.leaf("spiffe://example.org/gateway").issue();
            let svid = X509Svid::from_der(issued.chain.clone(), issued.key()).unwrap();
            let roots = [&self.own].into_iter().chain(others.iter().copied());
            let roots = roots.map(|root| root.root_certificate().clone()).collect();
            let bundle = TrustBundle::new("example.org".parse().unwrap(), roots).unwrap();
            let material = Material { svid, bundles: [bundle].into_iter().collect() };
            Snapshot::build(material, &self.policies, previous).unwrap()
        }

        fn peer(&self, authority: &Authority, snapshot: &Snapshot) -> Arc<PeerIdentity> {
            let chain = authority.leaf("spiffe://example.org/peer").issue().chain;
            snapshot.peer_of_server_connection(self.server, Some(&chain)).unwrap().unwrap()
        }
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_change_of_trust_cuts_off_those_only_whose_authority_left() {
        let mesh = Mesh::new();
        let leaving = Authority::root("example.org");
        let first = mesh.snapshot(&[&leaving], None);
        let (staying_peer, leaving_peer) = (mesh.peer(&mesh.own, &first), mesh.peer(&leaving, &first));
        let registry = Rc::new(Registry::default());
        let mut connections: Vec<_> = (0..1000)
            .map(|number| match number % 3 {
                0 => (registry.register(Some(staying_peer.clone())), Order::Serve),
                1 => (registry.register(Some(leaving_peer.clone())), Order::End(Cause::PeerDistrusted)),
                _ => (registry.register(None), Order::Serve),
            })
            .collect();
        // Places become free, and none is passed over for it.
        connections.retain({
            let mut number = 0;
            move |_| {
                number += 1;
                number % 5 != 0
            }
        });
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        connections.iter().for_each(|(connection, _)| connection.watch(&Context::from_waker(&waker)));

        registry.judge(&mesh.snapshot(&[&Authority::root("example.org"), &leaving], Some(&first))).await;
        assert!(connections.iter().all(|(connection, _)| connection.order() == Order::Serve));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);

        registry.judge(&mesh.snapshot(&[], Some(&first))).await;
        assert!(connections.iter().all(|(connection, expected)| connection.order() == *expected));
        let cut_off = connections.iter().filter(|(_, expected)| *expected != Order::Serve).count();
        assert_eq!(woken.0.load(Ordering::Relaxed), cut_off);
    }

    #[tokio::test]
    async fn connections_may_come_and_go_during_a_judgement() {
        let mesh = Mesh::new();
        let leaving = Authority::root("example.org");
        let first = mesh.snapshot(&[&leaving], None);
        let registry = Rc::new(Registry::default());
        // Each a peer of its own, so that the judgement gives way many times.
        let peers: Vec<_> = (0..50).map(|_| mesh.peer(&leaving, &first)).collect();
        let mut connections: Vec<_> =
            peers.iter().cycle().take(2000).map(|peer| registry.register(Some(peer.clone()))).collect();
        let next = mesh.snapshot(&[], Some(&first));
        let staying_peer = mesh.peer(&mesh.own, &next);
        let stays = connections.split_off(1000);
        let mut arrivals = Vec::new();
        let churn = async {
            while let Some(leaver) = connections.pop() {
                drop(leaver);
                arrivals.push(registry.register(Some(staying_peer.clone())));
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(registry.judge(&next), churn);
        assert!(stays.iter().all(|connection| connection.order() == Order::End(Cause::PeerDistrusted)));
        assert!(arrivals.iter().all(|connection| connection.order() == Order::Serve));
        drop((stays, arrivals));
        assert_eq!(registry.len(), 0);
    }
}
