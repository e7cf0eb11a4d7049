//! What connected clients are told, as it happens: the bundles, and "renew now".
//!
//! Each client has one slot for each of the two. A slow client finds the latest in them; nothing queues up for it.

mod progress;
mod wishes;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signet_identity::{BundleSet, WorkloadId};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::attestation::AttestationNumber;
use crate::authority::{Publication, Published};
use crate::bundles::Bundles;
use crate::jwt::JwtBundles;
use crate::revocation::{Entry, SerialNumber, What};
use crate::store::{RenewalRequest, Whose};

pub(crate) use progress::{Acknowledged, Progress, Resource, Version};
use wishes::{Wish, Wishes};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Distribution {
    bundles: Bundles,
    authorities: Publication,
    clients: Arc<Mutex<Clients>>,
    changed: Changed,
    max_clients: usize,
    max_per_identity: usize,
}

/// Whose progress has changed since it was last asked for, where it is.
#[derive(Clone, Debug, Default)]
struct Changed(Option<Arc<Mutex<HashSet<AttestationNumber>>>>);

#[derive(Debug, Default)]
struct Clients {
    next_number: u64,
    by_number: HashMap<u64, Client>,
    per_identity: HashMap<WorkloadId, usize>,
    per_attestation: HashMap<AttestationNumber, usize>,
    wishes: Wishes,
}

/// Somebody who comes to watch.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    pub(crate) id: WorkloadId,
    /// Who was attested; it may be another.
    pub(crate) attested: WorkloadId,
    pub(crate) attestation: AttestationNumber,
    /// Of its certificate, in the order of all on record.
    pub(crate) position: i64,
    pub(crate) serial: SerialNumber,
    /// The subject key identifier of the authority that signed it.
    pub(crate) authority: Vec<u8>,
}

#[derive(Debug)]
struct Client {
    watcher: Watcher,
    ended: CancellationToken,
    renew_now: watch::Sender<Option<Wish>>,
    progress: Arc<Mutex<Progress>>,
}

/// Asks a client to renew within this time.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct RenewNow {
    pub(crate) within: Duration,
    pub(crate) version: Version,
}

/// A client's place; given up when dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    number: u64,
    clients: Arc<Mutex<Clients>>,
    bundles: watch::Receiver<BundleSet>,
    authorities: watch::Receiver<Arc<Published>>,
    jwt: watch::Receiver<JwtBundles>,
    renew_now: watch::Receiver<Option<Wish>>,
    ended: CancellationToken,
    progress: Arc<Mutex<Progress>>,
    attestation: AttestationNumber,
    changed: Changed,
}

/// What one stream has said of the authorities.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledgement {
    pub(crate) agent: AttestationNumber,
    pub(crate) id: WorkloadId,
    pub(crate) acknowledged: bool,
    pub(crate) refused: String,
}

/// Whose streams.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Holder {
    Id(WorkloadId),
    Attestation(AttestationNumber),
}

/// What a client is told next.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// They are others than before: [`Subscription::bundles`] and [`Subscription::jwt_bundles`] have them.
    Bundles,
    /// The same: [`Subscription::authorities`].
    Authorities,
    RenewNow(RenewNow),
}

#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum TooManyClients {
    #[error("{max} clients watch already")]
    InAll { max: usize },
    #[error("{max} clients watch already as {id}, and no identity may have more")]
    OfIdentity { id: WorkloadId, max: usize },
    #[error("it watches {MOST_OF_ATTESTATION} times already")]
    OfAttestation,
}

const SPREAD_OF_ONE: Duration = Duration::from_millis(2);
const MOST_SPREAD: Duration = Duration::from_secs(10);
/// A client has one stream, and a second one while it goes from one connection to another.
const MOST_OF_ATTESTATION: usize = 8;

impl Distribution {
    pub(crate) fn new(
        (bundles, authorities): (Bundles, Publication),
        max_clients: usize,
        max_per_identity: usize,
    ) -> Self {
        let (clients, changed) = (Arc::default(), Changed::default());
        Self { bundles, authorities, clients, changed, max_clients, max_per_identity }
    }

    /// The same, for whoever asks for [`changed`](Self::changed): what nobody asks for would pile up.
    pub(crate) fn shared(mut self) -> Self {
        self.changed = Changed(Some(Arc::default()));
        self
    }

    /// Those whose progress has changed since this was asked last, with how far they have come; none for those who have left.
    pub(crate) fn changed(&self) -> Vec<(AttestationNumber, Option<Progress>)> {
        let changed = self.changed.0.as_ref().map(|changed| std::mem::take(&mut *lock(changed))).unwrap_or_default();
        if changed.is_empty() {
            return Vec::new();
        }
        let mut connected = self.connected();
        changed.into_iter().map(|number| (number, connected.remove(&number))).collect()
    }

    /// Of these it is asked once more.
    pub(crate) fn changed_again(&self, numbers: impl IntoIterator<Item = AttestationNumber>) {
        numbers.into_iter().for_each(|number| self.changed.note(number));
    }

    pub(crate) fn bundles(&self) -> BundleSet {
        self.bundles.in_force().borrow().clone()
    }

    pub(crate) fn jwt_bundles(&self) -> JwtBundles {
        self.bundles.jwt_in_force().borrow().clone()
    }

    pub(crate) fn subscribe(&self, watcher: Watcher, now: OffsetDateTime) -> Result<Subscription, TooManyClients> {
        let progress = Arc::new(Mutex::new(Progress::new(now)));
        let ended = CancellationToken::new();
        let mut bundles = self.bundles.in_force();
        // So that the first event is the state as it is.
        bundles.mark_changed();
        let mut clients = lock(&self.clients);
        if clients.by_number.len() >= self.max_clients {
            return Err(TooManyClients::InAll { max: self.max_clients });
        }
        let Watcher { id, attestation, .. } = &watcher;
        let of_identity = clients.per_identity.get(id).copied().unwrap_or_default();
        if of_identity >= self.max_per_identity {
            return Err(TooManyClients::OfIdentity { id: id.clone(), max: self.max_per_identity });
        }
        let of_attestation = clients.per_attestation.get(attestation).copied().unwrap_or_default();
        if of_attestation >= MOST_OF_ATTESTATION {
            return Err(TooManyClients::OfAttestation);
        }
        clients.per_identity.insert(id.clone(), of_identity + 1);
        clients.per_attestation.insert(*attestation, of_attestation + 1);
        let wish = clients.wishes.of(&watcher);
        let (sender, mut renew_now) = watch::channel(wish);
        if wish.is_some() {
            renew_now.mark_changed();
        }
        let number = clients.next_number;
        clients.next_number += 1;
        let attestation = watcher.attestation;
        let client = Client { watcher, ended: ended.clone(), renew_now: sender, progress: Arc::clone(&progress) };
        clients.by_number.insert(number, client);
        drop(clients);
        self.changed.note(attestation);
        let (clients, changed) = (Arc::clone(&self.clients), self.changed.clone());
        let (authorities, jwt) = (self.authorities.followed(), self.bundles.jwt_in_force());
        Ok(Subscription {
            number,
            clients,
            bundles,
            authorities,
            jwt,
            renew_now,
            ended,
            progress,
            attestation,
            changed,
        })
    }

    /// Ends the streams of a holder.
    pub(crate) fn end(&self, holder: &Holder) {
        let clients = lock(&self.clients);
        clients.by_number.values().filter(|client| client.is_of(holder)).for_each(|client| client.ended.cancel());
    }

    /// Ends the streams of those whose certificates are among what was revoked.
    pub(crate) fn end_revoked(&self, revoked: &[Entry]) {
        let mut serials = HashMap::with_capacity(revoked.len());
        let mut authorities = HashSet::new();
        for entry in revoked {
            match &entry.what {
                What::Serial(authority, serial) => drop(serials.insert(serial, authority.as_bytes())),
                What::Authority(key_id, _) => drop(authorities.insert(key_id.as_bytes())),
                // The certificates for it have entries of their own.
                What::Key(_) => {}
            }
        }
        let is_revoked = |watcher: &Watcher| {
            authorities.contains(&*watcher.authority) || serials.get(&watcher.serial) == Some(&&*watcher.authority)
        };
        let clients = lock(&self.clients);
        clients
            .by_number
            .values()
            .filter(|client| is_revoked(&client.watcher))
            .for_each(|client| client.ended.cancel());
    }

    /// How many streams there are of such watchers.
    pub(crate) fn count(&self, is_counted: impl Fn(&Watcher) -> bool) -> usize {
        lock(&self.clients).by_number.values().filter(|client| is_counted(&client.watcher)).count()
    }

    /// How many streams ask for revocations, how many of them have all up to this epoch in force, and how many do not ask.
    pub(crate) fn revocation_progress(&self, epoch: u64) -> (u64, u64, u64) {
        let clients = lock(&self.clients);
        let (mut following, mut applied, mut others) = (0, 0, 0);
        for client in clients.by_number.values().filter(|client| !client.ended.is_cancelled()) {
            match lock(&client.progress).revocations() {
                Some(has) => {
                    following += 1;
                    applied += u64::from(has >= epoch);
                }
                None => others += 1,
            }
        }
        (following, applied, others)
    }

    /// The attestations whose holders have a stream, with what each has come to: on its latest, or the latest of those on which it is
    /// behind. One stream that says that all is well is no answer for another.
    pub(crate) fn connected(&self) -> HashMap<AttestationNumber, Progress> {
        let clients = lock(&self.clients);
        let mut streams: Vec<_> = clients
            .by_number
            .iter()
            .map(|(number, client)| (*number, client.watcher.attestation, lock(&client.progress).clone()))
            .collect();
        streams.sort_unstable_by_key(|(number, _, progress)| (!progress.is_current(), *number));
        streams.into_iter().map(|(_, attestation, progress)| (attestation, progress)).collect()
    }

    /// Asks the holders of an identity, or of an authority's certificates, or everybody, to renew, those who are not connected when they come; returns how many are. Whoever
    /// has been asked by it before, or has renewed since, is not.
    pub(crate) fn request_renewal(&self, request: &RenewalRequest) -> usize {
        let RenewalRequest { whose, at, within, position } = request;
        let mut clients = lock(&self.clients);
        let version = Version::of(format!("{} {position}", at.unix_timestamp_nanos()).as_bytes());
        let wish = Wish { at: *at, position: *position, renew_now: RenewNow { within: *within, version } };
        // Each issuer reads each of them again and again.
        if !clients.wishes.remember(whose, wish) {
            return 0;
        }
        let holders = clients.by_number.values().filter(|client| client.watcher.is_of(whose));
        holders.filter(|client| client.watcher.position <= wish.position && client.ask(wish)).count()
    }

    /// Who of those that are told of authorities would believe these, and who has not said so.
    pub(crate) fn acknowledgements(&self, version: Version) -> Vec<Acknowledgement> {
        let clients = lock(&self.clients);
        let acknowledgement = |client: &Client| {
            let progress = lock(&client.progress);
            let Acknowledged(known) = progress.authorities()?;
            Some(Acknowledgement {
                agent: client.watcher.attestation,
                id: client.watcher.attested.clone(),
                acknowledged: known == Some(version),
                refused: progress.refused(),
            })
        };
        clients.by_number.values().filter_map(acknowledgement).collect()
    }

    /// Who has this version of the keys of tokens in force, and who has not said so.
    pub(crate) fn jwt_acknowledgements(&self, version: Version) -> Vec<Acknowledgement> {
        let clients = lock(&self.clients);
        let acknowledgement = |client: &Client| {
            let progress = lock(&client.progress);
            Acknowledgement {
                agent: client.watcher.attestation,
                id: client.watcher.attested.clone(),
                acknowledged: progress.jwt() == Some(version),
                refused: progress.refused(),
            }
        };
        clients.by_number.values().filter(|client| !client.ended.is_cancelled()).map(acknowledgement).collect()
    }

    pub(crate) fn client_count(&self) -> usize {
        lock(&self.clients).by_number.len()
    }
}

impl Subscription {
    /// Something was sent.
    pub(crate) fn sent(&self, resource: Resource, version: Version, now: OffsetDateTime) {
        lock(&self.progress).sent(resource, version, now);
    }

    /// The bundles that it has, or was sent last, have this version of the keys of tokens of its trust domain.
    pub(crate) fn sent_jwt(&self, version: Version) {
        lock(&self.progress).sent_jwt(version);
        self.changed.note(self.attestation);
    }

    /// All was sent that the client lacks of this revision of the policy.
    pub(crate) fn held_against(&self, revision: u64) {
        lock(&self.progress).held_against(revision);
        // Behind what was sent before.
        self.changed.note(self.attestation);
    }

    /// The client says of what it was sent whether it is in force.
    pub(crate) fn applied(&self, resource: Resource, version: Version, refused: String, now: OffsetDateTime) {
        lock(&self.progress).applied(resource, version, refused, now);
        self.changed.note(self.attestation);
    }

    /// It asks for revocations, and has them up to this epoch.
    pub(crate) fn has_revocations(&self, epoch: u64) {
        lock(&self.progress).has_revocations(epoch);
        self.changed.note(self.attestation);
    }

    pub(crate) fn bundles(&self) -> BundleSet {
        self.bundles.borrow().clone()
    }

    pub(crate) fn jwt_bundles(&self) -> JwtBundles {
        self.jwt.borrow().clone()
    }

    pub(crate) fn authorities(&mut self) -> Arc<Published> {
        Arc::clone(&self.authorities.borrow_and_update())
    }

    /// The client wants to be told of authorities, and would believe these already.
    pub(crate) fn asks_for_authorities(&self, known: Option<Version>) {
        lock(&self.progress).asks_for_authorities(known);
    }

    /// Over which those who watch do something that they are all told to do: as many a second as an issuer serves beside all else.
    pub(crate) fn spread(&self) -> Duration {
        let clients = u32::try_from(lock(&self.clients).by_number.len()).unwrap_or(u32::MAX);
        (SPREAD_OF_ONE * clients.saturating_sub(1)).min(MOST_SPREAD)
    }

    /// Whether it was taken from its holder.
    pub(crate) fn is_taken(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// The bundles at first, then what changes. None once it is ended, or the issuer is gone.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                biased;
                () = self.ended.cancelled() => return None,
                changed = self.bundles.changed() => {
                    changed.ok()?;
                    self.bundles.mark_unchanged();
                    return Some(Event::Bundles);
                }
                changed = self.authorities.changed() => {
                    changed.ok()?;
                    return Some(Event::Authorities);
                }
                changed = self.jwt.changed() => {
                    changed.ok()?;
                    return Some(Event::Bundles);
                }
                changed = self.renew_now.changed() => {
                    changed.ok()?;
                    if let Some(wish) = *self.renew_now.borrow_and_update() {
                        return Some(Event::RenewNow(wish.renew_now));
                    }
                }
            }
        }
    }
}

impl Watcher {
    fn is_of(&self, whose: &Whose) -> bool {
        match whose {
            Whose::Everybody => true,
            Whose::Id(id) => self.id == *id,
            Whose::Authority(key_id) => self.authority == *key_id,
        }
    }
}

impl Client {
    /// Whether it had not been asked by that before.
    fn ask(&self, wish: Wish) -> bool {
        self.renew_now.send_if_modified(|present| {
            let is_new = present.is_none_or(|present| present.at < wish.at);
            if is_new {
                *present = Some(wish);
            }
            is_new
        })
    }

    fn is_of(&self, holder: &Holder) -> bool {
        match holder {
            Holder::Id(id) => self.watcher.id == *id || self.watcher.attested == *id,
            Holder::Attestation(number) => self.watcher.attestation == *number,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.clients).leave(self.number);
        self.changed.note(self.attestation);
    }
}

impl Changed {
    fn note(&self, number: AttestationNumber) {
        if let Some(changed) = &self.0 {
            lock(changed).insert(number);
        }
    }
}

impl Clients {
    fn leave(&mut self, number: u64) {
        let Some(Client { watcher, .. }) = self.by_number.remove(&number) else { return };
        give_up(&mut self.per_identity, &watcher.id);
        give_up(&mut self.per_attestation, &watcher.attestation);
    }
}

fn give_up<K: Eq + std::hash::Hash>(places: &mut HashMap<K, usize>, of: &K) {
    if let Some(count) = places.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            places.remove(of);
        }
    }
}

/// Nothing panics while it is held, and what is in it is whole between any two calls anyway.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
