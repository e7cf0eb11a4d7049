//! How long a connection may live: no longer than the identity that it was granted to.
//!
//! ```text
//! one end:    accepted ────────────────────────── drain ── end = the peer's certificate expires
//! other end:  connected ──────────────── retire            ── end
//! ```
//! The end that accepted a connection drains it shortly before its peer's certificate expires and cuts it off at expiry. The
//! end that made it stops using it sooner than that, so that no request meets a peer that hangs up.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use signet_identity::{PeerIdentity, Snapshot};
use signet_process::log_limit::LogLimit;
use slab::Slab;
use time::{Duration, OffsetDateTime};

use crate::deadlines::unix_ms;

/// Of a connection that was accepted, in milliseconds of Unix time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Lifetime {
    /// No new requests from here on.
    pub(crate) drain_ms: i64,
    /// Cut off.
    pub(crate) end_ms: i64,
    pub(crate) cause: Cause,
}

impl Lifetime {
    /// Draining begins a tenth of the remaining life before the end, at most [`MAX_DRAIN`].
    pub(crate) fn of_accepted(peer_expires: OffsetDateTime, now: OffsetDateTime) -> Self {
        let margin: Duration = (peer_expires - now) / 10;
        let margin = margin.clamp(Duration::ZERO, MAX_DRAIN);
        Self { drain_ms: unix_ms(peer_expires - margin), end_ms: unix_ms(peer_expires), cause: Cause::PeerExpired }
    }

    /// Of a connection that was made: it is retired a fifth of the remaining life before either certificate expires, which
    /// is before the other end begins to drain, at most [`MAX_RETIREMENT`].
    pub(crate) fn of_made(own_expires: OffsetDateTime, peer_expires: OffsetDateTime, now: OffsetDateTime) -> Self {
        let first = own_expires.min(peer_expires);
        let margin: Duration = (first - now) / 5;
        let margin = margin.clamp(Duration::ZERO, MAX_RETIREMENT);
        Self { drain_ms: unix_ms(first - margin), end_ms: unix_ms(first), cause: Cause::PeerExpired }
    }

    /// Of a connection whose caller may do nothing: long enough to be told so.
    pub(crate) fn of_denied(self, now: OffsetDateTime) -> Self {
        let (drain_ms, end_ms) = (unix_ms(now + DENIED_DRAIN), unix_ms(now + DENIED_END));
        if end_ms < self.end_ms { Self { drain_ms, end_ms, cause: Cause::Denied } } else { self }
    }

    pub(crate) const UNLIMITED: Self = Self { drain_ms: i64::MAX, end_ms: i64::MAX, cause: Cause::PeerExpired };
}

const MAX_DRAIN: Duration = Duration::seconds(5);
const DENIED_DRAIN: Duration = Duration::seconds(4);
const DENIED_END: Duration = Duration::seconds(6);
const MAX_RETIREMENT: Duration = Duration::seconds(60);

/// Why a connection ended: the label of `signet_gateway_connections_closed_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cause {
    /// The peer closed it, or HTTP was done with it.
    Done,
    /// The peer broke off, or broke the protocol.
    Broken,
    PeerExpired,
    /// The peer's authority left the bundle, or it is no longer believed for another reason.
    PeerDistrusted,
    /// Our own certificate expired: we cannot prove any more who we are.
    OwnIdentity,
    /// The peer may do nothing here.
    Denied,
    Idle,
    HeaderTimeout,
    Shutdown,
}

impl Cause {
    pub(crate) const ALL: [Self; 9] = [
        Self::Done,
        Self::Broken,
        Self::PeerExpired,
        Self::PeerDistrusted,
        Self::OwnIdentity,
        Self::Denied,
        Self::Idle,
        Self::HeaderTimeout,
        Self::Shutdown,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Broken => "broken",
            Self::PeerExpired => "peer_expired",
            Self::PeerDistrusted => "peer_distrusted",
            Self::Denied => "denied",
            Self::OwnIdentity => "own_identity",
            Self::Idle => "idle",
            Self::HeaderTimeout => "header_timeout",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What a connection has been told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    Serve,
    /// Finish what is under way, take nothing new.
    Drain(Cause),
    /// Be gone now.
    End(Cause),
}

/// By which one connection is told to end.
#[derive(Debug)]
pub(crate) struct Control {
    peer: Option<Arc<PeerIdentity>>,
    order: Cell<Order>,
    waker: RefCell<Option<Waker>>,
}

impl Control {
    pub(crate) fn order(&self) -> Order {
        self.order.get()
    }

    /// Gives an order; one that is weaker than the last is ignored.
    pub(crate) fn give(&self, order: Order) {
        if self.set(order) {
            self.wake();
        }
    }

    /// Gives an order that is heard when the connection is next awake. Whether it is stronger than the last.
    fn set(&self, order: Order) -> bool {
        let stronger = match (self.order.get(), order) {
            (Order::Serve, _) | (Order::Drain(_), Order::End(_)) => true,
            (Order::Drain(_) | Order::End(_), _) => false,
        };
        if stronger {
            self.order.set(order);
        }
        stronger
    }

    fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The task to wake at the next order.
    pub(crate) fn watch(&self, cx: &Context<'_>) {
        match &mut *self.waker.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            waker => *waker = Some(cx.waker().clone()),
        }
    }
}

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
    use std::task::Wake;

    use signet_identity::{
        ClientAuthentication, Material, ServerKey, ServerPolicy, SystemClock, TlsPolicies, TrustBundle, X509Svid,
    };
    use signet_test_pki::Authority;

    use super::*;

    fn at(seconds: f64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds_f64(seconds)
    }

    #[test]
    fn a_connection_is_retired_before_its_other_end_drains_it() {
        for remaining in [0.5, 1.0, 4.0, 10.0, 60.0, 3_600.0, 86_400.0] {
            let expires = at(remaining);
            let made = Lifetime::of_made(expires, at(1e6), at(0.0));
            // The other end sees the connection a moment later.
            let accepted = Lifetime::of_accepted(expires, at(remaining / 50.0));
            assert!(made.drain_ms < accepted.drain_ms, "{remaining}: {made:?} {accepted:?}");
            assert!(accepted.drain_ms < accepted.end_ms);
            assert_eq!(accepted.end_ms, made.end_ms);
        }
    }

    #[test]
    fn the_earlier_expiry_counts() {
        let own_first = Lifetime::of_made(at(10.0), at(20.0), at(0.0));
        assert_eq!(own_first, Lifetime::of_made(at(20.0), at(10.0), at(0.0)));
        assert_eq!(own_first, Lifetime { drain_ms: 8_000, end_ms: 10_000, cause: Cause::PeerExpired });
    }

    #[test]
    fn what_has_expired_ends_at_once() {
        let lifetime = Lifetime::of_accepted(at(1.0), at(5.0));
        assert_eq!(lifetime, Lifetime { drain_ms: 1_000, end_ms: 1_000, cause: Cause::PeerExpired });
    }

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
