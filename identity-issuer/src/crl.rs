//! Certificate revocation lists (RFC 5280 §5), for whoever does not follow the issuer: one for each authority, or several parts of it.
//!
//! ```text
//! what is revoked ──► list, signed ahead ──► web address, GET /crl/KEY_ID/SHARD.crl
//!                      ▲ after a revocation,             └─► export: a folder, or a bucket
//!                        and each quarter of its life
//! ```
//! That of an authority which is itself revoked is its last: all that it has signed stands in it, until all of that has expired. Without
//! it, whoever looks for a list at the address that a certificate names would find none, and some believe the certificate then.
//!
//! Nothing waits for a list: where none can be signed, the last one stays, and metrics say until when it is good.

mod export;
mod list;
mod points;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use signet_identity::SharedClock;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::authority::{Authorities, Authority, KeyId, Member, Stage};
use crate::complaint::Complaint;
use crate::metrics::Metrics;
use crate::revocation::{Entry, Revocations, What};
use crate::store::Store;
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
    pub(crate) store: Store,
    pub(crate) points: DistributionPoints,
    /// From thisUpdate to nextUpdate.
    pub(crate) life: Duration,
    /// Of what an authority has signed, on its last list.
    pub(crate) most_entries: usize,
    pub(crate) metrics: Metrics,
    pub(crate) clock: SharedClock,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    kept: Mutex<BTreeMap<Place, Kept>>,
    /// Authorities that have signed too much for a last list, and when that is looked at again.
    too_long: Mutex<BTreeMap<String, Instant>>,
    /// Of the next list.
    number: AtomicU64,
    /// Counts the lists that were signed.
    changes: watch::Sender<u64>,
    /// Counts the times that all was read that an authority has signed.
    #[cfg(test)]
    reads: AtomicU64,
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
    /// Whether all stands in it that its authority has signed.
    is_last: bool,
}

/// Who signs a list, and what belongs there.
#[derive(Clone, Debug)]
struct Signer {
    authority: Arc<Authority>,
    /// Its own revocation: its list is the last one.
    revoked: Option<Entry>,
}

/// All that a revoked authority has signed.
struct AllSigned {
    authority: String,
    entries: Vec<Entry>,
}

fn serial_of(entry: &Entry) -> Option<Vec<u8>> {
    match &entry.what {
        What::Serial(_, serial) => Some(serial.as_bytes().to_vec()),
        What::Key(_) | What::Authority(..) => None,
    }
}

/// After a list was signed, before another is.
const REST: Duration = Duration::from_millis(250);
/// After one could not be signed.
const RETRY: Duration = Duration::from_secs(1);
/// After there was too much for it, before all of that is read again.
const RETRY_TOO_LONG: Duration = Duration::from_secs(600);
/// A wall clock that was set is noticed after this time.
const LOOK: Duration = Duration::from_secs(15);

impl Crls {
    pub(crate) fn new(parts: Parts) -> Self {
        // By the start, and no clock: after it, there is room for four thousand million lists.
        let number = AtomicU64::new(parts.store.start() << 32);
        let (kept, too_long, changes) = (Mutex::default(), Mutex::default(), watch::Sender::default());
        Self(Arc::new(Inner {
            parts,
            kept,
            too_long,
            number,
            changes,
            #[cfg(test)]
            reads: AtomicU64::new(0),
        }))
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
                    // That changes as things expire, and nothing is read for it meanwhile.
                    if matches!(error, ListError::TooMany { .. }) { LOOK } else { RETRY }
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
        let signer = |member: Member| {
            let is_revoked = match member.stage {
                Stage::Active | Stage::Retired | Stage::Tainted => false,
                Stage::Revoked => true,
                Stage::Requested | Stage::Prepared => return None,
            };
            // Of one that is over, nothing is good anyway.
            let authority = member.authority.filter(|authority| authority.not_after() > self.now())?;
            // That may be on record in a moment only. Until then, its list is as any other.
            let revoked = if is_revoked { self.revocation_of(&authority) } else { None };
            Some(Signer { authority, revoked })
        };
        let signers: Vec<Signer> = authorities.all().into_iter().filter_map(signer).collect();
        let of = |signer: &Signer| {
            let name = signer.authority.key_id().to_string();
            (0..points.shards()).map(move |shard| Place { authority: name.clone(), shard })
        };
        let places: BTreeMap<Place, Signer> =
            signers.iter().flat_map(|signer| of(signer).map(|place| (place, signer.clone()))).collect();
        self.kept().retain(|place, _| {
            let stays = places.contains_key(place);
            if !stays {
                metrics.forget_crl(&place.authority, place.shard);
            }
            stays
        });
        self.too_long()
            .retain(|authority, _| signers.iter().any(|one| one.authority.key_id().to_string() == *authority));
        let (mut outcome, mut all, mut unread) = (Ok(()), None, None);
        for (place, signer) in self.due(places) {
            let authority = place.authority.clone();
            // What could not be read for one part of a list is not asked for again for the next.
            if unread.as_ref() == Some(&authority) {
                continue;
            }
            let error = match self.sign(place, signer, &mut all).await {
                // It ended meanwhile, and needs none.
                Ok(()) | Err(ListError::AuthorityEnds) => continue,
                Err(error) => error,
            };
            if matches!(error, ListError::Store(_) | ListError::TooMany { .. }) {
                unread = Some(authority);
            }
            // One that is not signed holds up no other. What is tried again soonest is told.
            if matches!(outcome, Ok(()) | Err(ListError::TooMany { .. })) {
                outcome = Err(error);
            }
        }
        outcome
    }

    fn revocation_of(&self, authority: &Authority) -> Option<Entry> {
        let key_id = authority.key_id().as_bytes();
        let is_its = |entry: &&Entry| matches!(&entry.what, What::Authority(of, _) if of.as_bytes() == key_id);
        self.0.parts.revocations.inspect(|entries, _| entries.iter().find(is_its).cloned())
    }

    /// Those that are not there, are a quarter of their life old, or lack something.
    fn due(&self, places: BTreeMap<Place, Signer>) -> Vec<(Place, Signer)> {
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
        let is_due = |place: &Place, signer: &Signer| {
            let is_fresh = |list: &RevocationList| list.this_update <= now && now < list.this_update + *life / 4;
            match kept.get(place) {
                Some(kept) if signer.revoked.is_some() => !kept.is_last,
                Some(kept) => lacking.contains(place) || !is_fresh(&kept.list),
                None => true,
            }
        };
        places.into_iter().filter(|(place, signer)| is_due(place, signer)).collect()
    }

    /// `all` is kept from one part of a list to the next.
    async fn sign(&self, place: Place, signer: Signer, all: &mut Option<AllSigned>) -> Result<(), ListError> {
        let Signer { authority, revoked } = signer;
        let Parts { revocations, points, life, metrics, clock, .. } = &self.0.parts;
        let now = clock.now();
        let this_update = now.replace_nanosecond(0).unwrap_or(now);
        let key_id = KeyId::new(authority.key_id().as_bytes());
        let next_update = match revoked.is_some() {
            true => authority.not_after(),
            false => (this_update + *life).min(authority.not_after()),
        };
        let before = self.kept().get(&place).cloned();
        // Whatever had not ended when the last list was signed stands in this one, for the last time (RFC 5280 §3.3).
        let since = before.as_ref().map_or(this_update - *life, |before| before.list.this_update).min(this_update);
        let (mut entries, epoch) = revocations.inspect(|entries, epoch| {
            let belongs = |entry: &&Entry| match &entry.what {
                What::Serial(authority, serial) => {
                    **authority == key_id
                        && entry.not_after >= since.unix_timestamp()
                        && points.shard_of(serial.as_bytes()) == place.shard
                }
                What::Key(_) | What::Authority(..) => false,
            };
            (entries.iter().filter(belongs).cloned().collect::<Vec<_>>(), epoch)
        });
        if let Some(revoked) = &revoked {
            let all = match all {
                Some(all) if all.authority == place.authority => all,
                other => {
                    let entries = self.all_signed_by(&key_id, revoked, this_update).await?;
                    other.insert(AllSigned { authority: place.authority.clone(), entries })
                }
            };
            let known: BTreeSet<Vec<u8>> = entries.iter().filter_map(serial_of).collect();
            let is_added = |entry: &&Entry| {
                let is_here = |serial: &Vec<u8>| points.shard_of(serial) == place.shard && !known.contains(serial);
                serial_of(entry).as_ref().is_some_and(is_here)
            };
            entries.extend(all.entries.iter().filter(is_added).cloned());
        }
        let terms = Terms {
            this_update,
            next_update,
            // Where it is a part only, it says of what.
            point: points.is_sharded().then(|| points.uri(&key_id, place.shard)).flatten(),
            number: self.0.number.fetch_add(1, Ordering::SeqCst).into(),
        };
        let count = entries.len();
        // It takes a good part of a second where there are many.
        let signing = tokio::task::spawn_blocking(move || RevocationList::sign(&authority, &terms, &entries));
        let list = signing.await.map_err(|_| ListError::Task)??;
        tracing::debug!(authority = place.authority, shard = place.shard, entries = count, number = %list.number, "CRL signed");
        metrics.crl_next_update(&place.authority, place.shard, list.next_update);
        self.kept().insert(place, Kept { list: Arc::new(list), covers: epoch, is_last: revoked.is_some() });
        self.0.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// As if each certificate of an authority that is revoked was revoked with it.
    async fn all_signed_by(
        &self,
        key_id: &KeyId,
        revoked: &Entry,
        now: OffsetDateTime,
    ) -> Result<Vec<Entry>, ListError> {
        let Parts { store, most_entries: most, .. } = &self.0.parts;
        let (of, name) = (Arc::new(KeyId::new(key_id.as_bytes())), key_id.to_string());
        let Entry { epoch, revoked_at, reason, .. } = *revoked;
        if self.is_too_long(&name) {
            return Err(ListError::TooMany { authority: name, most: *most });
        }
        #[cfg(test)]
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        let Some(signed) = store.signed_by(key_id, now, *most).await? else {
            self.too_long().insert(name.clone(), Instant::now() + RETRY_TOO_LONG);
            return Err(ListError::TooMany { authority: name, most: *most });
        };
        let entry = |(serial, not_after)| Entry {
            epoch,
            what: What::Serial(Arc::clone(&of), serial),
            not_after,
            revoked_at,
            reason,
        };
        Ok(signed.into_iter().map(entry).collect())
    }

    /// Whether it was so a moment ago.
    fn is_too_long(&self, authority: &str) -> bool {
        self.too_long().get(authority).is_some_and(|again| *again > Instant::now())
    }

    fn too_long(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.too_long.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing panics while it is held.
    fn kept(&self) -> MutexGuard<'_, BTreeMap<Place, Kept>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
