//! No connection outlives its identity: when one ends, and why.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use signet_identity::{LiveIdentity, PeerError, PeerIdentity, SharedClock, Snapshot, TrustEpoch};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::wall_clock::{self, written};

/// Why a connection has to end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Ended {
    /// The peer's certificate, or an authority above it, has expired.
    #[error("the peer's certificate expired at {}", written(.not_after))]
    PeerExpired {
        /// When.
        not_after: OffsetDateTime,
    },
    /// The certificate that we showed when the connection was made has expired.
    #[error("our certificate of this connection expired at {}", written(.not_after))]
    OwnExpired {
        /// When.
        not_after: OffsetDateTime,
    },
    /// Another authority vouches for us: the one before may be on its way out, and the peer is to come again while it
    /// believes both.
    #[error("another authority vouches for us")]
    OwnAuthority,
    /// The trust bundles changed, and the peer's authority is no longer in them.
    #[error("the peer is trusted no more: {reason}")]
    Distrusted {
        /// The bounded name of what is wrong with it.
        reason: &'static str,
    },
}

/// The time that one connection may live. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lifetime {
    live: LiveIdentity,
    clock: SharedClock,
    peer: Option<Arc<PeerIdentity>>,
    own_not_after: OffsetDateTime,
    /// Of the certificates above our own when it was made.
    vouched: u64,
    judged: TrustEpoch,
    changed: watch::Receiver<signet_identity::Generation>,
}

impl Lifetime {
    /// Of a connection that was made with the snapshot `made_with` to `peer`.
    pub fn new(live: LiveIdentity, made_with: &Snapshot, peer: Option<Arc<PeerIdentity>>, clock: SharedClock) -> Self {
        let changed = live.changed();
        let own_not_after = made_with.expires_at();
        let (vouched, judged) = (vouching(made_with), made_with.trust_epoch());
        Self { live, clock, peer, own_not_after, vouched, judged, changed }
    }

    /// When it is over at the latest.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.end().0
    }

    /// How long that is from now.
    pub fn remaining(&self) -> Duration {
        wall_clock::remaining(&*self.clock, self.expires_at()).unwrap_or_default()
    }

    /// Returns when the connection has to be closed. May be dropped and called again.
    pub async fn ended(&mut self) -> Ended {
        self.over(Duration::ZERO, |_| None).await
    }

    /// Returns when it has to be closed within `lead`, and at once when the peer is trusted no more, or another authority
    /// vouches for us: the time to finish what is under way and to take nothing new.
    pub async fn ends_within(&mut self, lead: Duration) -> Ended {
        let vouched = self.vouched;
        self.over(lead, |live| (vouching(live) != vouched).then_some(Ended::OwnAuthority)).await
    }

    async fn over(&mut self, lead: Duration, sooner: impl Fn(&Snapshot) -> Option<Ended>) -> Ended {
        let (end, ended) = self.end();
        let clock = self.clock.clone();
        let expiry = wall_clock::until(&*clock, end - lead);
        tokio::pin!(expiry);
        loop {
            if let Err(error) = self.judge() {
                return Ended::Distrusted { reason: error.reason() };
            }
            if let Some(ended) = sooner(&self.live.load()) {
                return ended;
            }
            tokio::select! {
                () = &mut expiry => return ended,
                published = self.changed.changed() => if published.is_err() {
                    // The driver is gone; what is live stays what it is.
                    expiry.await;
                    return ended;
                },
            }
        }
    }

    fn end(&self) -> (OffsetDateTime, Ended) {
        let own = (self.own_not_after, Ended::OwnExpired { not_after: self.own_not_after });
        match self.peer.as_ref().map(|peer| peer.expires_at()) {
            Some(not_after) if not_after < own.0 => (not_after, Ended::PeerExpired { not_after }),
            _ => own,
        }
    }

    /// Does the newest snapshot still believe the peer? Asked once for each trust epoch.
    fn judge(&mut self) -> Result<(), PeerError> {
        self.changed.mark_unchanged();
        let snapshot = self.live.load_full();
        if let Some(peer) = &self.peer
            && snapshot.trust_epoch() != self.judged
        {
            snapshot.still_accepts(peer)?;
            self.judged = snapshot.trust_epoch();
        }
        Ok(())
    }
}

/// Tells one set of certificates above our own from another.
fn vouching(snapshot: &Snapshot) -> u64 {
    let mut hasher = DefaultHasher::new();
    snapshot.svid().intermediates().iter().for_each(|certificate| certificate.as_ref().hash(&mut hasher));
    hasher.finish()
}
