//! Certificate revocation lists (RFC 5280 §5), for whoever does not follow the issuer: one for each authority, or several parts of it.
//!
//! ```text
//! what is revoked ──► list, signed ahead ──► web address, GET /crl/KEY_ID/SHARD.crl
//!                      ▲ after a revocation,             └─► export: a folder, or a bucket
//!                        and each quarter of its life
//! ```
//! Nothing waits for a list: where none can be signed, the last one stays, and metrics say until when it is good.

mod export;
mod list;
mod points;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use signet_identity::SharedClock;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::authority::{Authorities, Authority, KeyId, Stage};
use crate::complaint::Complaint;
use crate::metrics::Metrics;
use crate::revocation::{Revocations, What};
pub(crate) use export::{Bucket, ExportTo, run as export};
use list::Terms;
pub(crate) use list::{ListError, RevocationList, reason_code};
pub(crate) use points::DistributionPoints;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Crls(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) revocations: Revocations,
    pub(crate) authorities: Authorities,
    pub(crate) points: DistributionPoints,
    /// From thisUpdate to nextUpdate.
    pub(crate) life: Duration,
    pub(crate) metrics: Metrics,
    pub(crate) clock: SharedClock,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    kept: Mutex<BTreeMap<Place, Kept>>,
    /// Counts the lists that were signed.
    changes: watch::Sender<u64>,
}

/// Whose list, and which part of it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    /// Its subject key identifier, hexadecimal.
    pub(crate) authority: String,
    pub(crate) shard: u32,
}

#[derive(Clone, Debug)]
struct Kept {
    list: Arc<RevocationList>,
    /// All that belongs there up to this epoch is in it.
    covers: u64,
}

/// After a list was signed, before another is.
const REST: Duration = Duration::from_millis(250);
/// After one could not be signed.
const RETRY: Duration = Duration::from_secs(1);
/// A wall clock that was set is noticed after this time.
const LOOK: Duration = Duration::from_secs(15);

impl Crls {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner { parts, kept: Mutex::default(), changes: watch::Sender::default() }))
    }

    /// The latest that was signed.
    pub(crate) fn get(&self, place: &Place) -> Option<Arc<RevocationList>> {
        self.kept().get(place).map(|kept| Arc::clone(&kept.list))
    }

    /// All that were signed, by authorities and shards.
    pub(crate) fn all(&self) -> Vec<(Place, Arc<RevocationList>)> {
        self.kept().iter().map(|(place, kept)| (place.clone(), Arc::clone(&kept.list))).collect()
    }

    /// Told of each that was signed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn export_failed(&self) {
        self.0.parts.metrics.crl_failed("export");
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        self.0.parts.clock.now()
    }

    /// Keeps them fresh until cancelled.
    pub(crate) async fn run(self) {
        let Parts { revocations, authorities, .. } = &self.0.parts;
        let (mut told, mut changes) = (revocations.told(), authorities.changes());
        let mut complaint = Complaint::default();
        loop {
            told.mark_unchanged();
            changes.mark_unchanged();
            let began = Instant::now();
            let wait = match self.refresh().await {
                Ok(()) => {
                    complaint.clear();
                    LOOK
                }
                Err(error) => {
                    self.0.parts.metrics.crl_failed("sign");
                    if let Some(cause) = complaint.of(&error) {
                        tracing::error!(cause, "a CRL is not signed; the last one stays");
                    }
                    RETRY
                }
            };
            // A long list is not signed all the time.
            tokio::time::sleep(REST.max(began.elapsed())).await;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Neither sender ends before this does.
                Ok(()) = told.changed() => {}
                Ok(()) = changes.changed() => {}
            }
        }
    }

    /// Signs those that are due.
    pub(crate) async fn refresh(&self) -> Result<(), ListError> {
        let Parts { authorities, points, metrics, .. } = &self.0.parts;
        let signers: Vec<Arc<Authority>> = authorities
            .all()
            .into_iter()
            .filter(|member| matches!(member.stage, Stage::Active | Stage::Retired | Stage::Tainted))
            .filter_map(|member| member.authority)
            // Of one that is over, nothing is good anyway.
            .filter(|authority| authority.not_after() > self.now())
            .collect();
        let of = |authority: &Arc<Authority>| {
            let name = authority.key_id().to_string();
            (0..points.shards()).map(move |shard| Place { authority: name.clone(), shard })
        };
        let places: BTreeMap<Place, Arc<Authority>> =
            signers.iter().flat_map(|authority| of(authority).map(|place| (place, Arc::clone(authority)))).collect();
        self.kept().retain(|place, _| {
            let stays = places.contains_key(place);
            if !stays {
                metrics.forget_crl(&place.authority, place.shard);
            }
            stays
        });
        let mut outcome = Ok(());
        for (place, authority) in self.due(places) {
            // One that is not signed holds up no other.
            if let Err(error) = self.sign(place, authority).await {
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Those that are not there, are a quarter of their life old, or lack something.
    fn due(&self, places: BTreeMap<Place, Arc<Authority>>) -> Vec<(Place, Arc<Authority>)> {
        let Parts { revocations, points, life, clock, .. } = &self.0.parts;
        let now = clock.now();
        let mut kept = self.kept();
        let covered = kept.values().map(|kept| kept.covers).min().unwrap_or_default();
        let mut lacking = BTreeSet::new();
        let epoch = revocations.inspect(|entries, epoch| {
            for entry in entries.iter().rev().take_while(|entry| entry.epoch > covered) {
                if let What::Serial(authority, serial) = &entry.what {
                    let place = Place { authority: authority.to_string(), shard: points.shard_of(serial.as_bytes()) };
                    if kept.get(&place).is_none_or(|kept| kept.covers < entry.epoch) {
                        lacking.insert(place);
                    }
                }
            }
            epoch
        });
        for (_, kept) in kept.iter_mut().filter(|(place, _)| !lacking.contains(place)) {
            kept.covers = epoch;
        }
        let is_due = |place: &Place| {
            let fresh = |list: &RevocationList| list.this_update <= now && now < list.this_update + *life / 4;
            lacking.contains(place) || kept.get(place).is_none_or(|kept| !fresh(&kept.list))
        };
        places.into_iter().filter(|(place, _)| is_due(place)).collect()
    }

    async fn sign(&self, place: Place, authority: Arc<Authority>) -> Result<(), ListError> {
        let Parts { revocations, points, life, metrics, clock, .. } = &self.0.parts;
        let now = clock.now();
        let this_update = now.replace_nanosecond(0).unwrap_or(now);
        let next_update = (this_update + *life).min(authority.not_after());
        let before = self.kept().get(&place).cloned();
        let key_id = KeyId::new(authority.key_id().as_bytes());
        // Whatever had not ended when the last list was signed stands in this one, for the last time (RFC 5280 §3.3).
        let since = before.as_ref().map_or(this_update - *life, |before| before.list.this_update).min(this_update);
        let (entries, epoch) = revocations.inspect(|entries, epoch| {
            let belongs = |entry: &&crate::revocation::Entry| match &entry.what {
                What::Serial(authority, serial) => {
                    **authority == key_id
                        && entry.not_after >= since.unix_timestamp()
                        && points.shard_of(serial.as_bytes()) == place.shard
                }
                What::Key(_) | What::Authority(..) => false,
            };
            (entries.iter().filter(belongs).cloned().collect::<Vec<_>>(), epoch)
        });
        let terms = Terms {
            this_update,
            next_update,
            epoch,
            // Where it is a part only, it says of what.
            point: points.is_sharded().then(|| points.uri(&key_id, place.shard)).flatten(),
            above: before.map(|before| before.list.number),
        };
        let count = entries.len();
        // It takes a good part of a second where there are many.
        let signing = tokio::task::spawn_blocking(move || RevocationList::sign(&authority, &terms, &entries));
        let list = signing.await.map_err(|_| ListError::Task)??;
        tracing::debug!(authority = place.authority, shard = place.shard, entries = count, number = %list.number, "CRL signed");
        metrics.crl_next_update(&place.authority, place.shard, list.next_update);
        self.kept().insert(place, Kept { list: Arc::new(list), covers: epoch });
        self.0.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// Nothing panics while it is held.
    fn kept(&self) -> MutexGuard<'_, BTreeMap<Place, Kept>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
