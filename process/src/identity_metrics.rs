//! Prometheus metrics of the process's own identity.
//!
//! What follows from the current snapshot is read at scrape time, so it is never older than the scrape: a process
//! whose renewal hangs shows it, instead of repeating what it knew when it last renewed.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use time::OffsetDateTime;

use crate::identity_slot::IdentitySlot;

/// Counts what happens to the identity and exports what it is. Clones count into the same series.
#[derive(Clone)]
pub struct IdentityMetrics {
    rotations: IntCounterVec,
    issuer: std::sync::Arc<IssuerLink>,
}

/// How one renewal ended: the `result` label of `signet_svid_rotations_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rotation {
    /// A new identity is live.
    Rotated,
    /// What the source delivered was refused whole; the old identity stays.
    Refused,
    /// The source delivered nothing; it is tried again.
    Failed,
}

impl Rotation {
    const ALL: [Self; 3] = [Self::Rotated, Self::Refused, Self::Failed];

    fn label(self) -> &'static str {
        match self {
            Self::Rotated => "rotated",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl IdentityMetrics {
    /// Registers the metrics of the identity that is, or will be, in `slot`.
    pub fn register(registry: &Registry, slot: IdentitySlot) -> Result<Self, prometheus::Error> {
        let rotations = IntCounterVec::new(
            Opts::new("signet_svid_rotations_total", "Renewals of this process's certificate, by how they ended."),
            &["result"],
        )?;
        for result in Rotation::ALL {
            rotations.with_label_values(&[result.label()]);
        }
        registry.register(Box::new(rotations.clone()))?;
        let issuer = std::sync::Arc::new(IssuerLink::default());
        registry.register(Box::new(IssuerCollector::new(issuer.clone())?))?;
        registry.register(Box::new(SnapshotCollector::new(slot)?))?;
        Ok(Self { rotations, issuer })
    }

    /// Counts one renewal.
    pub fn rotation(&self, result: Rotation) {
        self.rotations.with_label_values(&[result.label()]).inc();
    }

    /// Notes whether the stream to the issuer is up.
    ///
    /// `signet_issuer_connected` is exported from the first call on: a process whose identity comes from files has no
    /// issuer to be away from, so it must not look as if it had lost one.
    pub fn issuer_connected(&self, connected: bool) {
        self.issuer.0.store(1 + u8::from(connected), Ordering::Relaxed);
    }
}

impl fmt::Debug for IdentityMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityMetrics").finish_non_exhaustive()
    }
}

/// 0: no issuer was ever spoken of; 1: away; 2: connected.
#[derive(Default)]
struct IssuerLink(AtomicU8);

struct IssuerCollector {
    link: std::sync::Arc<IssuerLink>,
    connected: IntGauge,
}

impl IssuerCollector {
    fn new(link: std::sync::Arc<IssuerLink>) -> Result<Self, prometheus::Error> {
        let connected = IntGauge::new(
            "signet_issuer_connected",
            "Whether this process holds a stream to its issuer (1) or not (0).",
        )?;
        Ok(Self { link, connected })
    }
}

impl Collector for IssuerCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.connected.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        match self.link.0.load(Ordering::Relaxed) {
            0 => Vec::new(),
            state => {
                self.connected.set(i64::from(state - 1));
                self.connected.collect()
            }
        }
    }
}

/// Exports the snapshot that is current at the time of the scrape; nothing before there is one.
struct SnapshotCollector {
    slot: IdentitySlot,
    /// Locked while a scrape fills the gauges: two scrapes at once must not clear each other's series.
    gauges: Mutex<SnapshotGauges>,
    described: Vec<Desc>,
}

struct SnapshotGauges {
    expiration: GaugeVec,
    issued: Gauge,
    age_ratio: Gauge,
    bundle_expiration: GaugeVec,
    trust_epoch: IntGauge,
    revocation_epoch: IntGaugeVec,
    revocations: IntGaugeVec,
}

impl SnapshotCollector {
    fn new(slot: IdentitySlot) -> Result<Self, prometheus::Error> {
        let gauges = SnapshotGauges {
            expiration: GaugeVec::new(
                Opts::new(
                    "signet_svid_expiration_timestamp_seconds",
                    "When this process's certificate chain expires, in Unix time.",
                ),
                &["spiffe_id"],
            )?,
            issued: Gauge::new(
                "signet_svid_issued_timestamp_seconds",
                "From when on this process's certificate is valid, in Unix time.",
            )?,
            age_ratio: Gauge::new(
                "signet_svid_renewal_age_ratio",
                "Age of this process's certificate as a share of its life; renewal is due between 0.4 and 0.6.",
            )?,
            bundle_expiration: GaugeVec::new(
                Opts::new(
                    "signet_bundle_expiration_timestamp_seconds",
                    "When the last authority of a trust domain's bundle expires, in Unix time.",
                ),
                &["trust_domain"],
            )?,
            trust_epoch: IntGauge::new(
                "signet_trust_epoch",
                "Number of the trust bundles and revocations that peers are judged by; it grows with each change of them.",
            )?,
            revocation_epoch: IntGaugeVec::new(
                Opts::new(
                    "signet_revocation_epoch",
                    "Number of the last revocation of a trust domain that is in force here.",
                ),
                &["trust_domain"],
            )?,
            revocations: IntGaugeVec::new(
                Opts::new(
                    "signet_revocations",
                    "Revocations in force here that have not expired: serial numbers, keys and authorities.",
                ),
                &["trust_domain", "kind"],
            )?,
        };
        let described = gauges.collectors().iter().flat_map(|gauge| gauge.desc()).cloned().collect();
        Ok(Self { slot, gauges: Mutex::new(gauges), described })
    }
}

impl Collector for SnapshotCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.described.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(live) = self.slot.live() else {
            return Vec::new();
        };
        let snapshot = live.load_full();
        // A scrape that panicked left gauges that the next one overwrites: the lock's poison means nothing here.
        let gauges = self.gauges.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        gauges.read(&snapshot, self.slot.now());
        gauges.collectors().iter().flat_map(|gauge| gauge.collect()).collect()
    }
}

impl SnapshotGauges {
    fn read(&self, snapshot: &signet_identity::Snapshot, now: OffsetDateTime) {
        let svid = snapshot.svid();
        self.expiration.reset();
        self.expiration.with_label_values(&[svid.id().as_str()]).set(unix_seconds(svid.not_after()));
        self.issued.set(unix_seconds(svid.not_before()));
        let life = svid.not_after() - svid.not_before();
        let age = now - svid.not_before();
        self.age_ratio.set(if life.is_positive() { age.as_seconds_f64() / life.as_seconds_f64() } else { 1.0 });
        self.bundle_expiration.reset();
        for bundle in snapshot.bundles().iter() {
            // A bundle without authorities trusts nobody: it ended long ago.
            let end = bundle.expires_at().unwrap_or(OffsetDateTime::UNIX_EPOCH);
            self.bundle_expiration.with_label_values(&[bundle.trust_domain().as_str()]).set(unix_seconds(end));
        }
        self.trust_epoch.set(i64::try_from(snapshot.trust_epoch().get()).unwrap_or(i64::MAX));
        self.revocation_epoch.reset();
        self.revocations.reset();
        for (trust_domain, known) in snapshot.revocations().iter() {
            let trust_domain = trust_domain.as_str();
            self.revocation_epoch
                .with_label_values(&[trust_domain])
                .set(i64::try_from(known.epoch()).unwrap_or(i64::MAX));
            let counts = known.counts();
            for (kind, count) in [("serial", counts.serials), ("key", counts.keys), ("authority", counts.authorities)] {
                self.revocations.with_label_values(&[trust_domain, kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }

    fn collectors(&self) -> [&dyn Collector; 7] {
        [
            &self.expiration,
            &self.issued,
            &self.age_ratio,
            &self.bundle_expiration,
            &self.trust_epoch,
            &self.revocation_epoch,
            &self.revocations,
        ]
    }
}

fn unix_seconds(time: OffsetDateTime) -> f64 {
    time.unix_timestamp() as f64
}

#[cfg(test)]
mod tests;
