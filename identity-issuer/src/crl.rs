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

use signet_audit::Act;
use signet_identity::SharedClock;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::authority::{Authorities, Authority, KeyId, Member, Stage};
use crate::complaint::Complaint;
use crate::metrics::Metrics;
use crate::revocation::{Entry, Reason, Revocations, What};
use crate::store::Store;
pub(crate) use export::run as export;
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
    /// Authorities whose last list cannot be signed, and when all that they have signed is read again.
    put_off: Mutex<BTreeMap<String, PutOff>>,
    /// By authorities, what was last said of a list that is not signed.
    complaints: Mutex<BTreeMap<String, Complaint>>,
    /// The lists that were signed.
    count: AtomicU64,
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
    content: Content,
}

/// What stands in a list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Content {
    /// What is revoked.
    Revoked,
    /// All that its authority has signed and will, and which has been revoked as the record says, or as this issuer remembers only.
    All { is_on_record: bool },
    /// All that its authority has signed so far: it signs, though it is revoked.
    AllYet,
}

/// Until when, and how many entries there may be where there are more.
#[derive(Clone, Copy, Debug)]
struct PutOff {
    until: Instant,
    most: Option<usize>,
}

/// Who signs a list, and what belongs there.
#[derive(Clone, Debug)]
struct Signer {
    authority: Arc<Authority>,
    content: Content,
    /// Its own revocation.
    revoked: Option<Ended>,
}

/// How an authority was revoked.
#[derive(Clone, Copy, Debug)]
struct Ended {
    epoch: u64,
    revoked_at: i64,
    reason: Reason,
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
/// After all was read, and the key did not sign it.
const RETRY_UNSIGNED: Duration = Duration::from_secs(60);
/// Until all is looked for again that an authority has signed which signs though it is revoked.
const ALL_YET: Duration = Duration::from_secs(60);
/// A wall clock that was set is noticed after this time.
const LOOK: Duration = Duration::from_secs(15);

impl Crls {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            kept: Mutex::default(),
            put_off: Mutex::default(),
            complaints: Mutex::default(),
            count: AtomicU64::new(0),
            changes: watch::Sender::default(),
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
        loop {
            told.mark_unchanged();
            changes.mark_unchanged();
            let began = Instant::now();
            let wait = match self.refresh().await {
                Ok(()) => LOOK,
                // That changes with time, and nothing is read for it meanwhile.
                Err(ListError::TooMany { .. } | ListError::PutOff) => LOOK,
                Err(_) => RETRY,
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
        let Parts { authorities, points, metrics, revocations, .. } = &self.0.parts;
        revocations.read_again_if_set_back().await?;
        let signer = |member: Member| {
            if matches!(member.stage, Stage::Requested | Stage::Prepared) {
                return None;
            }
            // Of one that is over, nothing is good anyway.
            let authority = member.authority.filter(|authority| authority.not_after() > self.now())?;
            // What is on record is so whatever this issuer has written down of it. What it has written down stays so, though the record
            // lost it: the reason alone is not known then.
            let (is_on_record, revoked) = match self.revocation_of(&authority) {
                Some(revoked) => (true, Some(revoked)),
                None if member.stage == Stage::Revoked => {
                    let (revoked_at, reason) = (member.since.unix_timestamp(), Reason::CessationOfOperation);
                    (false, Some(Ended { epoch: 0, revoked_at, reason }))
                }
                None => (false, None),
            };
            let content = match member.stage {
                _ if revoked.is_none() => Content::Revoked,
                Stage::Active => Content::AllYet,
                _ => Content::All { is_on_record },
            };
            Some(Signer { authority, content, revoked })
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
        let is_there = |authority: &str| signers.iter().any(|one| one.authority.key_id().to_string() == authority);
        self.put_off().retain(|authority, _| is_there(authority));
        let due = self.due(places);
        let is_due = |authority: &str| due.iter().any(|(place, _)| place.authority == authority);
        self.complaints().retain(|authority, _| is_due(authority));
        let (mut outcome, mut all, mut unread) = (Ok(()), None, None);
        for (place, signer) in due {
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
            metrics.crl_failed("sign");
            self.complain(&authority, &error);
            if matches!(error, ListError::Store(_) | ListError::TooMany { .. } | ListError::PutOff) {
                unread = Some(authority);
            }
            // One that is not signed holds up no other. What is tried again soonest is told.
            if matches!(outcome, Ok(()) | Err(ListError::TooMany { .. } | ListError::PutOff)) {
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Once for each authority and cause.
    fn complain(&self, authority: &str, error: &ListError) {
        if matches!(error, ListError::PutOff) {
            return;
        }
        let mut complaints = self.complaints();
        if let Some(cause) = complaints.entry(authority.to_owned()).or_default().of(error) {
            tracing::error!(cause, authority, "a CRL is not signed; the last one stays");
        }
    }

    fn revocation_of(&self, authority: &Authority) -> Option<Ended> {
        let key_id = authority.key_id().as_bytes();
        let is_its = |entry: &&Entry| matches!(&entry.what, What::Authority(of, _) if of.as_bytes() == key_id);
        let ended = |entry: &Entry| Ended { epoch: entry.epoch, revoked_at: entry.revoked_at, reason: entry.reason };
        self.0.parts.revocations.inspect(|entries, _| entries.iter().find(is_its).map(ended))
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
            // What a revoked one goes on signing is no revocation that is told of.
            let fresh = if signer.content == Content::AllYet { ALL_YET } else { *life / 4 };
            let is_fresh = |list: &RevocationList| list.this_update <= now && now < list.this_update + fresh;
            match kept.get(place) {
                Some(kept) if kept.content != signer.content => true,
                // Its last one, unless it was made by a clock that was ahead: that leaves out what expires until then.
                Some(Kept { content: Content::All { .. }, list, .. }) => list.this_update > now,
                Some(kept) => lacking.contains(place) || !is_fresh(&kept.list),
                None => true,
            }
        };
        places.into_iter().filter(|(place, signer)| is_due(place, signer)).collect()
    }

    /// `all` is kept from one part of a list to the next.
    async fn sign(&self, place: Place, signer: Signer, all: &mut Option<AllSigned>) -> Result<(), ListError> {
        let Signer { authority, content, revoked } = signer;
        let Parts { revocations, points, life, metrics, clock, .. } = &self.0.parts;
        let now = clock.now();
        let this_update = now.replace_nanosecond(0).unwrap_or(now);
        let key_id = KeyId::new(authority.key_id().as_bytes());
        let next_update = match content {
            Content::All { .. } => authority.not_after(),
            Content::Revoked | Content::AllYet => (this_update + *life).min(authority.not_after()),
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
                    let entries = self.all_signed_by(&key_id, *revoked, this_update).await?;
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
            number: self.next_number(),
        };
        let count = entries.len();
        // It takes a good part of a second where there are many.
        let signing = tokio::task::spawn_blocking(move || RevocationList::sign(&authority, &terms, &entries));
        let list = signing.await.map_err(|_| ListError::Task)?;
        if revoked.is_some() && matches!(list, Err(ListError::Signing(_))) {
            self.put_it_off(&place.authority, RETRY_UNSIGNED, None);
        }
        let list = list?;
        tracing::debug!(authority = place.authority, shard = place.shard, entries = count, number = %list.number, "CRL signed");
        let signed = Act::CrlSigned {
            authority: place.authority.clone(),
            shard: place.shard,
            number: list.number.to_string(),
            this_update: list.this_update.unix_timestamp(),
            next_update: list.next_update.unix_timestamp(),
            entries: count as u64,
            sha256: hex::encode(signet_audit::sha256(&list.der)),
        };
        self.0.parts.store.note(signed).await?;
        metrics.crl_next_update(&place.authority, place.shard, list.next_update);
        self.kept().insert(place, Kept { list: Arc::new(list), covers: epoch, content });
        self.0.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// As if each certificate of an authority that is revoked was revoked with it.
    async fn all_signed_by(
        &self,
        key_id: &KeyId,
        revoked: Ended,
        now: OffsetDateTime,
    ) -> Result<Vec<Entry>, ListError> {
        let Parts { store, most_entries: most, .. } = &self.0.parts;
        let (of, name) = (Arc::new(KeyId::new(key_id.as_bytes())), key_id.to_string());
        let Ended { epoch, revoked_at, reason } = revoked;
        match self.put_off().get(&name) {
            Some(PutOff { until, most: Some(most) }) if *until > Instant::now() => {
                return Err(ListError::TooMany { authority: name, most: *most });
            }
            Some(PutOff { until, most: None }) if *until > Instant::now() => return Err(ListError::PutOff),
            Some(_) | None => {}
        }
        #[cfg(test)]
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        let Some(signed) = store.signed_by(key_id, now, *most).await? else {
            self.put_it_off(&name, RETRY_TOO_LONG, Some(*most));
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

    /// By the start of this issuer, and no clock: each start has room for 2^64 of them (RFC 5280 §5.2.3: 20 octets at most).
    fn next_number(&self) -> u128 {
        u128::from(self.0.parts.store.start()) << 64 | u128::from(self.0.count.fetch_add(1, Ordering::SeqCst))
    }

    fn put_it_off(&self, authority: &str, after: Duration, most: Option<usize>) {
        self.put_off().insert(authority.to_owned(), PutOff { until: Instant::now() + after, most });
    }

    fn put_off(&self) -> MutexGuard<'_, BTreeMap<String, PutOff>> {
        self.0.put_off.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complaints(&self) -> MutexGuard<'_, BTreeMap<String, Complaint>> {
        self.0.complaints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing panics while it is held.
    fn kept(&self) -> MutexGuard<'_, BTreeMap<Place, Kept>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
