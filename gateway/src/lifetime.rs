//! How long a connection may live: no longer than the identity that it was granted to.
//!
//! ```text
//! one end:    accepted ────────────────────────── drain ── end = the peer's certificate expires
//! other end:  connected ──────────────── retire            ── end
//! ```
//! The end that accepted a connection drains it shortly before its peer's certificate expires and cuts it off at expiry. The
//! end that made it stops using it sooner than that, so that no request meets a peer that hangs up.

mod judgement;
mod registry;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::{Context, Waker};

use signet_identity::{PeerError, PeerIdentity};
use time::{Duration, OffsetDateTime};

pub(crate) use judgement::judge;
pub(crate) use registry::{Registered, Registry};

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
    /// The peer's certificate, its key or its authority is revoked.
    PeerRevoked,
    /// Our own certificate expired: we cannot prove any more who we are.
    OwnIdentity,
    /// Another authority vouches for us: whoever was shown the one before is to come again while both are believed.
    OwnAuthority,
    /// The peer may do nothing here.
    Denied,
    Idle,
    HeaderTimeout,
    Shutdown,
}

impl Cause {
    pub(crate) const ALL: [Self; 11] = [
        Self::Done,
        Self::Broken,
        Self::PeerExpired,
        Self::PeerDistrusted,
        Self::PeerRevoked,
        Self::OwnIdentity,
        Self::OwnAuthority,
        Self::Denied,
        Self::Idle,
        Self::HeaderTimeout,
        Self::Shutdown,
    ];

    /// Of a live peer that a change of trust refuses.
    fn of_refused(error: &PeerError) -> Self {
        if let PeerError::Revoked(_) = error { Self::PeerRevoked } else { Self::PeerDistrusted }
    }

    /// Whether there is time until its next request, to be told with the answer.
    pub(crate) fn waits_for_the_caller(self) -> bool {
        match self {
            Self::PeerExpired | Self::OwnAuthority => true,
            Self::Done
            | Self::Broken
            | Self::PeerDistrusted
            | Self::PeerRevoked
            | Self::OwnIdentity
            | Self::Denied
            | Self::Idle
            | Self::HeaderTimeout
            | Self::Shutdown => false,
        }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Broken => "broken",
            Self::PeerExpired => "peer_expired",
            Self::PeerDistrusted => "peer_distrusted",
            Self::PeerRevoked => "revoked",
            Self::Denied => "denied",
            Self::OwnIdentity => "own_identity",
            Self::OwnAuthority => "own_authority",
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
        assert_eq!(Lifetime::of_made(at(1.0), at(9.0), at(5.0)), lifetime);
    }

    #[test]
    fn a_long_life_is_not_cut_short_by_much() {
        let expires = at(86_400.0);
        assert_eq!(Lifetime::of_accepted(expires, at(0.0)).drain_ms, 86_395_000);
        assert_eq!(Lifetime::of_made(expires, at(1e6), at(0.0)).drain_ms, 86_340_000);
    }

    #[test]
    fn whoever_is_denied_has_little_time_and_no_more_than_its_certificate() {
        for (expires, end_ms, cause) in [(3_600.0, 6_000, Cause::Denied), (5.0, 5_000, Cause::PeerExpired)] {
            let denied = Lifetime::of_accepted(at(expires), at(0.0)).of_denied(at(0.0));
            assert_eq!((denied.end_ms, denied.cause), (end_ms, cause));
            assert!(denied.drain_ms < denied.end_ms);
        }
    }
}
