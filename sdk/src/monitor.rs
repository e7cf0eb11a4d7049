//! What goes on with an identity, for metrics, readiness and people: events, counters and state.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
};

use rustls_pki_types::CertificateDer;
use signet_identity::{Generation, LiveIdentity, Serial, SharedClock, TrustEpoch, WorkloadId};
use time::OffsetDateTime;
use tokio::sync::{broadcast, watch};
use tracing::{debug, info, warn};

use crate::wall_clock;

/// How many events a slow reader may be behind before it loses the oldest.
const EVENT_BACKLOG: usize = 64;

/// Something that happened to the identity.
#[derive(Clone, Debug)]
pub enum Event {
    /// Another certificate is live. The first one is reported too.
    Rotated {
        /// Whose certificate.
        spiffe_id: WorkloadId,
        /// Its serial number.
        serial: Serial,
        /// When it expires.
        not_after: OffsetDateTime,
        /// The snapshot it came with.
        generation: Generation,
    },
    /// Other trust bundles are live, with the same certificate.
    BundlesChanged {
        /// The snapshot they came with.
        generation: Generation,
        /// Differs from the previous one's: what was believed before is judged anew.
        trust_epoch: TrustEpoch,
    },
    /// More is revoked, or it is known further, with the same certificate and bundles.
    RevocationsChanged {
        /// The snapshot it came with.
        generation: Generation,
        /// Differs from the previous one's when there is more that is revoked.
        trust_epoch: TrustEpoch,
    },
    /// An update was unusable; what was live stays.
    Refused {
        /// What was wrong with it.
        reason: Arc<str>,
    },
    /// The issuer's stream is open.
    Connected,
    /// The issuer's stream is gone; it is opened again by and by.
    Disconnected {
        /// Why.
        cause: Arc<str>,
    },
    /// No certificate could be got; the next attempt follows. Repeated failures of one cause are reported once.
    RenewalFailed {
        /// Why, and what to do if waiting does not help.
        cause: Arc<str>,
    },
}

/// How an attempt to rotate ended: the label of `signet_svid_rotations_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RotationResult {
    /// Another certificate is live.
    Rotated,
    /// Something came and was unusable.
    Refused,
    /// Nothing came.
    Failed,
}

impl RotationResult {
    /// Every result there is.
    pub const ALL: [Self; 3] = [Self::Rotated, Self::Refused, Self::Failed];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rotated => "rotated",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// The connection to an issuer: `signet_issuer_connected`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IssuerLink {
    /// The identity comes from elsewhere.
    NotUsed,
    /// The issuer's stream is open.
    Connected,
    /// The issuer's stream is not open.
    Disconnected,
}

/// Whether there is an identity that can be used, judged at the time of asking.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// None has come yet.
    Waiting {
        /// What stands in the way, as far as known.
        reason: Arc<str>,
    },
    /// The certificate is valid now.
    Live {
        /// When it expires.
        not_after: OffsetDateTime,
    },
    /// The certificate is not valid now, and no other has come.
    Expired {
        /// When it expired, or will if the clock went back.
        not_after: OffsetDateTime,
        /// Why there is no other, as far as known.
        reason: Arc<str>,
    },
}

/// Watches one identity. Cheap to clone, usable from any runtime.
#[derive(Clone, Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: SharedClock,
    events: broadcast::Sender<Event>,
    live: OnceLock<LiveIdentity>,
    last_error: Mutex<Option<Arc<str>>>,
    results: [AtomicU64; RotationResult::ALL.len()],
    link: AtomicU8,
    authorities: watch::Sender<Arc<[Vec<CertificateDer<'static>>]>>,
}

impl Monitor {
    pub(crate) fn new(clock: SharedClock) -> Self {
        let shared = Shared {
            clock,
            events: broadcast::Sender::new(EVENT_BACKLOG),
            live: OnceLock::new(),
            last_error: Mutex::new(None),
            results: Default::default(),
            link: AtomicU8::new(IssuerLink::NotUsed as u8),
            authorities: watch::Sender::new(Arc::new([])),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Everything that happens from now on. A reader that is more than 64 events behind loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Whether the identity can be used now.
    pub fn state(&self) -> State {
        let Some(live) = self.shared.live.get() else {
            return State::Waiting { reason: self.last_error().unwrap_or_else(|| "none has come yet".into()) };
        };
        let snapshot = live.load();
        let not_after = snapshot.svid().not_after();
        match snapshot.svid().is_valid_at(self.shared.clock.now()) {
            true => State::Live { not_after },
            false => State::Expired {
                not_after,
                reason: self.last_error().unwrap_or_else(|| "no other certificate has come".into()),
            },
        }
    }

    /// What went wrong since the last certificate went live.
    pub fn last_error(&self) -> Option<Arc<str>> {
        self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The identity, once there is one.
    pub fn live(&self) -> Option<LiveIdentity> {
        self.shared.live.get().cloned()
    }

    /// How many attempts ended so.
    pub fn rotations(&self, result: RotationResult) -> u64 {
        self.shared.results[result as usize].load(Relaxed)
    }

    /// Whether the issuer's stream is open.
    pub fn issuer(&self) -> IssuerLink {
        match self.shared.link.load(Relaxed) {
            link if link == IssuerLink::Connected as u8 => IssuerLink::Connected,
            link if link == IssuerLink::Disconnected as u8 => IssuerLink::Disconnected,
            _ => IssuerLink::NotUsed,
        }
    }

    /// The authorities that the issuer says sign, or may soon: of each its own certificate, and those above it but the root's. Trust
    /// comes of none of them. Empty as long as the issuer has said nothing of them, and where the identity comes from elsewhere. Who is told
    /// the same again is not woken.
    pub fn authorities(&self) -> watch::Receiver<Arc<[Vec<CertificateDer<'static>>]>> {
        self.shared.authorities.subscribe()
    }

    pub(crate) fn told_of_authorities(&self, chains: Vec<Vec<CertificateDer<'static>>>) {
        self.shared.authorities.send_if_modified(|told| {
            let is_news = **told != chains[..];
            if is_news {
                *told = chains.into();
            }
            is_news
        });
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.shared.clock
    }

    pub(crate) fn arrived(&self, live: LiveIdentity) {
        // Set once, by the driver, with the first identity.
        let _ = self.shared.live.set(live);
    }

    /// An issuer is asked and has not answered yet.
    pub(crate) fn uses_issuer(&self) {
        self.shared.link.store(IssuerLink::Disconnected as u8, Relaxed);
    }

    pub(crate) fn connected(&self) {
        if self.swap_link(IssuerLink::Connected) {
            self.report(Event::Connected);
        }
    }

    /// Told when the stream was open until now.
    pub(crate) fn disconnected(&self, cause: Arc<str>) {
        match self.swap_link(IssuerLink::Disconnected) {
            true => self.report(Event::Disconnected { cause }),
            false => debug!(%cause, "issuer still disconnected"),
        }
    }

    /// Nothing came. Counted each time, told when the cause is not what was told last.
    pub(crate) fn renewal_failed(&self, cause: Arc<str>) {
        self.count(RotationResult::Failed);
        match self.swap_error(Some(cause.clone())) {
            Some(known) if known == cause => debug!(%cause, "still no certificate"),
            _ => self.report(Event::RenewalFailed { cause }),
        }
    }

    /// Something came and cannot be used. Counted each time, told when it is not what was told last.
    pub(crate) fn refused(&self, reason: Arc<str>) {
        self.count(RotationResult::Refused);
        match self.swap_error(Some(reason.clone())) {
            Some(known) if known == reason => debug!(%reason, "identity update refused again"),
            _ => self.report(Event::Refused { reason }),
        }
    }

    /// Tells everybody, once.
    pub(crate) fn report(&self, event: Event) {
        match &event {
            Event::Rotated { spiffe_id, serial, not_after, generation } => {
                self.count(RotationResult::Rotated);
                self.swap_error(None);
                let (not_after, generation) = (wall_clock::written(not_after), generation.get());
                info!(%spiffe_id, %serial, not_after, generation, "identity rotated");
            }
            Event::BundlesChanged { generation, trust_epoch } => {
                self.swap_error(None);
                let (generation, trust_epoch) = (generation.get(), trust_epoch.get());
                info!(generation, trust_epoch, "trust bundles changed");
            }
            Event::RevocationsChanged { generation, trust_epoch } => {
                let (generation, trust_epoch) = (generation.get(), trust_epoch.get());
                info!(generation, trust_epoch, "revocations are in force");
            }
            Event::Refused { reason } => warn!(%reason, "identity update refused"),
            Event::Connected => info!("issuer connected"),
            Event::Disconnected { cause } => warn!(%cause, "issuer disconnected"),
            Event::RenewalFailed { cause } => warn!(%cause, "no certificate"),
        }
        // An error means that nobody listens, which is anybody's right.
        let _ = self.shared.events.send(event);
    }

    fn count(&self, result: RotationResult) {
        self.shared.results[result as usize].fetch_add(1, Relaxed);
    }

    fn swap_link(&self, link: IssuerLink) -> bool {
        self.shared.link.swap(link as u8, Relaxed) != link as u8
    }

    fn swap_error(&self, error: Option<Arc<str>>) -> Option<Arc<str>> {
        std::mem::replace(&mut *self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner), error)
    }
}
