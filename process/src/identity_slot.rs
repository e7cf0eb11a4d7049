//! The process's identity, known to admin and metrics before there is one.

use std::fmt;
use std::sync::{Arc, OnceLock};

use signet_identity::{LiveIdentity, SharedClock};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Where a process puts its `LiveIdentity` once it has one, and where admin and metrics look for it.
///
/// Clones share the slot. Whoever reads it before that is told that there is no identity yet.
#[derive(Clone)]
pub struct IdentitySlot {
    live: Arc<OnceLock<LiveIdentity>>,
    clock: SharedClock,
}

impl IdentitySlot {
    /// An empty slot; ages and remaining lives are measured with `clock`.
    pub fn new(clock: SharedClock) -> Self {
        Self { live: Arc::new(OnceLock::new()), clock }
    }

    /// Hands over the identity. Only the first call counts: a process has one identity for its life, which rotates
    /// within its `LiveIdentity`. Says whether this was the first.
    pub fn fill(&self, live: LiveIdentity) -> bool {
        self.live.set(live).is_ok()
    }

    /// The identity, once there is one.
    pub fn live(&self) -> Option<&LiveIdentity> {
        self.live.get()
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// Why this process can prove nothing to its peers right now; none when it can.
    pub(crate) fn unusable(&self) -> Option<String> {
        let Some(live) = self.live() else {
            return Some("no identity yet".to_owned());
        };
        let snapshot = live.load();
        let svid = snapshot.svid();
        if svid.is_valid_at(self.now()) {
            let revoked = snapshot.own_revoked()?;
            return Some(format!("peers refuse {}: revoked is {revoked}", svid.id()));
        }
        Some(if self.now() < svid.not_before() {
            format!("{} is not valid before {}", svid.id(), rfc3339(svid.not_before()))
        } else {
            format!("{} expired at {}", svid.id(), rfc3339(svid.not_after()))
        })
    }
}

impl fmt::Debug for IdentitySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentitySlot").field("filled", &self.live.get().is_some()).finish_non_exhaustive()
    }
}

/// A time as `2026-01-31T12:00:00Z`, in whole seconds. Certificates hold years that RFC 3339 can write.
pub(crate) fn rfc3339(time: OffsetDateTime) -> String {
    let seconds = time.replace_nanosecond(0).unwrap_or(time);
    seconds.format(&Rfc3339).unwrap_or_else(|_| time.unix_timestamp().to_string())
}
