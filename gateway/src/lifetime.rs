//! How long a connection may live: no longer than the identity that it was granted to.
//!
//! ```text
//! one end:    accepted ────────────────────────── drain ── end = the peer's certificate expires
//! other end:  connected ──────────────── retire            ── end
//! ```
//! The end that accepted a connection drains it shortly before its peer's certificate expires and cuts it off at expiry. The
//! end that made it stops using it sooner than that, so that no request meets a peer that hangs up.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use signet_identity::{PeerIdentity, Snapshot};
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
        let stronger = match (self.order.get(), order) {
            (Order::Serve, _) | (Order::Drain(_), Order::End(_)) => true,
            (Order::Drain(_) | Order::End(_), _) => false,
        };
        if stronger {
            self.order.set(order);
            let waker = self.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
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

    /// Judges every live peer anew; whoever `snapshot` does not accept is cut off. Gives way between a few at a time, so
    /// that many connections do not stall the worker.
    pub(crate) async fn judge(&self, snapshot: &Snapshot) {
        let mut from = 0;
        loop {
            let batch: Vec<_> = {
                let connections = self.connections.borrow();
                let rest = connections.iter().skip_while(|(key, _)| *key < from);
                rest.take(BATCH).map(|(key, control)| (key, control.clone())).collect()
            };
            let Some((last, _)) = batch.last() else { return };
            from = last + 1;
            for (_, control) in batch {
                if let Some(peer) = &control.peer
                    && let Err(cause) = snapshot.still_accepts(peer)
                {
                    tracing::info!(peer.spiffe_id = %peer.id(), %cause, "peer is no longer trusted: its connection ends");
                    control.give(Order::End(Cause::PeerDistrusted));
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Verifying a chain that no cache knows takes about 70 µs.
const BATCH: usize = 16;

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
}
