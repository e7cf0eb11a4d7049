//! A change of trust: the peers of all live connections are judged anew, and those that are no longer believed are cut off.
//!
//! ```text
//! one turn:    judge for a slice, give way      … until every connection has its order
//! then:        wake a few to die, give way      … until all have heard it
//! ```
//! Many connections must not stall the worker for those that stay: a turn takes a millisecond at most.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use signet_identity::{PeerIdentity, Snapshot};
use signet_process::log_limit::LogLimit;

use super::registry::Registry;
use super::{Cause, Control, Order};

/// Judges the connections of both sides of a worker, callers and upstreams, in turn: neither waits for the other's end.
///
/// Connections come and go meanwhile. Whoever comes is registered first and then judged by the one who let it in, if the
/// snapshot of its handshake is no longer the live one: so nobody needs to be found here who was not registered when
/// this began, and a new connection in a slot that was passed already is not missed.
pub(crate) async fn judge(sides: [&Registry; 2], snapshot: &Snapshot) {
    let mut judgement = Judgement::begin();
    while judgement.work(sides, snapshot) {
        tokio::task::yield_now().await;
    }
    judgement.log(snapshot);
    let Judgement { begun, cut_off, refused, .. } = judgement;
    // So that each peer is freed with the last of its connections, and not all of them at the end of this.
    drop(refused);
    // Every connection has its order by now, and acts on nothing else once it is awake. To take one down costs far more
    // than to judge it, so they are woken a few at a time.
    let mut cut_off = cut_off.into_iter().peekable();
    while cut_off.peek().is_some() {
        cut_off.by_ref().take(closed_at_once(begun.elapsed())).for_each(|control| control.wake());
        tokio::task::yield_now().await;
    }
}

/// A few, unless that would take too long: that all have ended comes before that nobody waits.
fn closed_at_once(elapsed: Duration) -> usize {
    if elapsed < PATIENCE { CLOSED_AT_ONCE } else { usize::MAX }
}

/// How far the judgement of all peers has come.
#[derive(Debug)]
struct Judgement {
    begun: Instant,
    /// The place in each registry that is looked at next.
    place: usize,
    judged: usize,
    cut_off: Vec<Rc<Control>>,
    /// Many connections may share a peer, and a refusal is the one verdict that the chain cache does not remember. Keyed by
    /// address; that the peer is kept keeps the address from being another's.
    refused: HashMap<*const PeerIdentity, (Arc<PeerIdentity>, Cause)>,
}

impl Judgement {
    fn begin() -> Self {
        Self { begun: Instant::now(), place: 0, judged: 0, cut_off: Vec::new(), refused: HashMap::new() }
    }

    /// Judges for a [`SLICE`]. Whether there is more to judge.
    fn work(&mut self, sides: [&Registry; 2], snapshot: &Snapshot) -> bool {
        let begun = Instant::now();
        while sides.iter().any(|side| self.place < side.places()) {
            for side in sides {
                if let Some(control) = side.at(self.place) {
                    self.judge(snapshot, control, &side.distrusted);
                }
            }
            self.place += 1;
            if begun.elapsed() >= SLICE {
                return true;
            }
        }
        false
    }

    fn judge(&mut self, snapshot: &Snapshot, control: Rc<Control>, log: &LogLimit) {
        let Some(peer) = &control.peer else { return };
        self.judged += 1;
        let cause = match self.refused.entry(Arc::as_ptr(peer)) {
            Entry::Occupied(place) => place.get().1,
            Entry::Vacant(place) => {
                let Err(error) = snapshot.still_accepts(peer) else { return };
                if let Some(suppressed) = log.admit() {
                    let (id, cause) = (peer.id(), &error);
                    tracing::info!(peer.spiffe_id = %id, %cause, suppressed, "peer is no longer trusted: its connections end");
                }
                place.insert((peer.clone(), Cause::of_refused(&error))).1
            }
        };
        if control.set(Order::End(cause)) {
            self.cut_off.push(control);
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

/// How long a judgement works before it gives way. It ends with the verdicts that were under way, some 200 µs each.
const SLICE: Duration = Duration::from_micros(500);
/// Some 50 µs each: TLS, HTTP and the socket. A request may wait for several turns on its way to the upstream and back.
const CLOSED_AT_ONCE: usize = 8;
/// Connections end within a second of the change.
const PATIENCE: Duration = Duration::from_millis(600);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use signet_identity::{
        ClientAuthentication, Material, RevocationSet, ServerKey, ServerPolicy, SystemClock, TlsPolicies, TrustBundle,
        X509Svid,
    };
    use signet_test_pki::Authority;

    use super::super::Registered;
    use super::*;

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
            let material =
                Material { svid, bundles: [bundle].into_iter().collect(), revocations: RevocationSet::default() };
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

    impl Woken {
        fn watch<'a>(self: &Arc<Self>, connections: impl IntoIterator<Item = &'a Registered>) {
            let waker = Waker::from(self.clone());
            connections.into_iter().for_each(|connection| connection.watch(&Context::from_waker(&waker)));
        }

        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const CUT_OFF: Order = Order::End(Cause::PeerDistrusted);

    #[tokio::test]
    async fn a_change_of_trust_cuts_off_those_only_whose_authority_left() {
        let mesh = Mesh::new();
        let leaving = Authority::root("example.org");
        let first = mesh.snapshot(&[&leaving], None);
        let (staying_peer, leaving_peer) = (mesh.peer(&mesh.own, &first), mesh.peer(&leaving, &first));
        let sides = [Rc::new(Registry::default()), Rc::new(Registry::default())];
        let sides = [&sides[0], &sides[1]];
        let mut connections: Vec<_> = (0..1000)
            .map(|number| {
                let registry = sides[number % 2];
                match number % 3 {
                    0 => (registry.register(Some(staying_peer.clone())), Order::Serve),
                    1 => (registry.register(Some(leaving_peer.clone())), CUT_OFF),
                    _ => (registry.register(None), Order::Serve),
                }
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
        woken.watch(connections.iter().map(|(connection, _)| connection));

        let other = Authority::root("example.org");
        judge(sides.map(|side| &**side), &mesh.snapshot(&[&other, &leaving], Some(&first))).await;
        assert!(connections.iter().all(|(connection, _)| connection.order() == Order::Serve));
        assert_eq!(woken.count(), 0);

        judge(sides.map(|side| &**side), &mesh.snapshot(&[], Some(&first))).await;
        assert!(connections.iter().all(|(connection, expected)| connection.order() == *expected));
        let cut_off = connections.iter().filter(|(_, expected)| *expected != Order::Serve).count();
        assert_eq!(woken.count(), cut_off);
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
            assert!(stays.iter().any(|connection| connection.order() == Order::Serve), "it has not given way");
            while let Some(leaver) = connections.pop() {
                drop(leaver);
                arrivals.push(registry.register(Some(staying_peer.clone())));
                tokio::task::yield_now().await;
            }
        };
        let no_upstreams = Registry::default();
        tokio::join!(biased; judge([&registry, &no_upstreams], &next), churn);
        assert!(stays.iter().all(|connection| connection.order() == CUT_OFF));
        assert!(arrivals.iter().all(|connection| connection.order() == Order::Serve));
        drop((stays, arrivals));
        assert_eq!(registry.len(), 0);
    }

    #[tokio::test]
    async fn those_who_are_cut_off_are_woken_a_few_at_a_time_and_on_both_sides_alike() {
        let mesh = Mesh::new();
        let leaving = Authority::root("example.org");
        let first = mesh.snapshot(&[&leaving], None);
        let peer = mesh.peer(&leaving, &first);
        let [callers, upstreams] = [Rc::new(Registry::default()), Rc::new(Registry::default())];
        let register = |registry: &Rc<Registry>| registry.register(Some(peer.clone()));
        let of_callers: Vec<_> = (0..500).map(|_| register(&callers)).collect();
        let of_upstreams = register(&upstreams);
        let (woken, upstream_woken) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        woken.watch(&of_callers);
        upstream_woken.watch([&of_upstreams]);

        let next = mesh.snapshot(&[], Some(&first));
        let watching = async {
            let mut before = 0;
            loop {
                let now = woken.count();
                assert!(now - before <= CLOSED_AT_ONCE, "{} in one turn", now - before);
                assert!(now == 0 || upstream_woken.count() == 1, "the upstream's waits for {now} callers'");
                // Whoever is awake has been given its order, and so has everybody else.
                assert!(now == 0 || of_callers.iter().all(|connection| connection.order() == CUT_OFF));
                if now == of_callers.len() {
                    return;
                }
                before = now;
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(biased; judge([&callers, &upstreams], &next), watching);
        assert_eq!((woken.count(), upstream_woken.count()), (500, 1));
    }

    #[test]
    fn that_all_have_ended_within_a_second_comes_first() {
        assert_eq!(closed_at_once(Duration::ZERO), CLOSED_AT_ONCE);
        assert!(PATIENCE < Duration::from_secs(1) && closed_at_once(PATIENCE) == usize::MAX);
    }

    #[tokio::test]
    async fn a_peer_is_freed_with_its_last_connection() {
        let mesh = Mesh::new();
        let leaving = Authority::root("example.org");
        let first = mesh.snapshot(&[&leaving], None);
        let registry = Rc::new(Registry::default());
        let peers: Vec<_> = (0..30).map(|_| mesh.peer(&leaving, &first)).collect();
        let freed: Vec<_> = peers.iter().map(Arc::downgrade).collect();
        let mut connections: Vec<_> = peers.into_iter().map(|peer| registry.register(Some(peer))).collect();
        let woken = Arc::new(Woken::default());
        woken.watch(&connections);
        let next = mesh.snapshot(&[], Some(&first));
        drop(first);
        let dying = async {
            while !connections.is_empty() {
                tokio::task::yield_now().await;
                connections.drain(..woken.count() + connections.len() - freed.len());
                let left = freed.iter().filter(|peer| peer.strong_count() > 0).count();
                assert_eq!(left, connections.len());
            }
        };
        let no_upstreams = Registry::default();
        tokio::join!(biased; judge([&registry, &no_upstreams], &next), dying);
    }
}
