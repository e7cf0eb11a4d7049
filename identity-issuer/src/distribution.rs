//! What connected clients are told, as it happens: the bundles, and "renew now".
//!
//! Each client has one slot for each of the two. A slow client finds the latest in them; nothing queues up for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use signet_identity::{BundleSet, WorkloadId};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::attestation::AttestationNumber;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Distribution {
    bundles: watch::Sender<BundleSet>,
    clients: Arc<Mutex<Clients>>,
    max_clients: usize,
    max_per_identity: usize,
}

#[derive(Debug, Default)]
struct Clients {
    next_number: u64,
    by_number: HashMap<u64, Client>,
    per_identity: HashMap<WorkloadId, usize>,
}

#[derive(Debug)]
struct Client {
    id: WorkloadId,
    /// Who was attested; it may be another.
    attested: WorkloadId,
    attestation: AttestationNumber,
    ended: CancellationToken,
    renew_now: watch::Sender<Option<RenewNow>>,
    progress: Arc<Mutex<Progress>>,
}

/// Asks a client to renew within this time.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct RenewNow {
    pub(crate) within: Duration,
}

/// A client's place; given up when dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    number: u64,
    clients: Arc<Mutex<Clients>>,
    bundles: watch::Receiver<BundleSet>,
    renew_now: watch::Receiver<Option<RenewNow>>,
    ended: CancellationToken,
    progress: Arc<Mutex<Progress>>,
}

/// What tells one state of a resource from another: a hash of it, so that it is the same at each issuer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Version([u8; 16]);

/// What a client is kept in step with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Resource {
    Bundles,
    Entitlement,
}

/// How far a client has come with what it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// What it has not put in force yet, by [`Resource`].
    outstanding: [Option<Outstanding>; 2],
    /// When it last put something in force, or came.
    applied_at: OffsetDateTime,
}

#[derive(Clone, Debug)]
struct Outstanding {
    version: Version,
    since: OffsetDateTime,
    /// Why it refuses it. Empty when it does not.
    refused: String,
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
    /// They are others than before: [`Subscription::bundles`] has them.
    Bundles,
    RenewNow(RenewNow),
}

#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum TooManyClients {
    #[error("{max} clients watch already")]
    InAll { max: usize },
    #[error("{max} clients watch already as {id}, and no identity may have more")]
    OfIdentity { id: WorkloadId, max: usize },
}

impl Distribution {
    pub(crate) fn new(bundles: BundleSet, max_clients: usize, max_per_identity: usize) -> Self {
        Self { bundles: watch::Sender::new(bundles), clients: Arc::default(), max_clients, max_per_identity }
    }

    pub(crate) fn bundles(&self) -> BundleSet {
        self.bundles.borrow().clone()
    }

    pub(crate) fn subscribe(
        &self,
        id: WorkloadId,
        attested: WorkloadId,
        attestation: AttestationNumber,
        now: OffsetDateTime,
    ) -> Result<Subscription, TooManyClients> {
        let (sender, renew_now) = watch::channel(None);
        let progress = Progress { outstanding: [None, None], applied_at: now };
        let progress = Arc::new(Mutex::new(progress));
        let ended = CancellationToken::new();
        let mut bundles = self.bundles.subscribe();
        // So that the first event is the state as it is.
        bundles.mark_changed();
        let mut clients = lock(&self.clients);
        if clients.by_number.len() >= self.max_clients {
            return Err(TooManyClients::InAll { max: self.max_clients });
        }
        let of_identity = clients.per_identity.get(&id).copied().unwrap_or_default();
        if of_identity >= self.max_per_identity {
            return Err(TooManyClients::OfIdentity { id, max: self.max_per_identity });
        }
        clients.per_identity.insert(id.clone(), of_identity + 1);
        let number = clients.next_number;
        clients.next_number += 1;
        let client = Client {
            id,
            attested,
            attestation,
            ended: ended.clone(),
            renew_now: sender,
            progress: Arc::clone(&progress),
        };
        clients.by_number.insert(number, client);
        drop(clients);
        Ok(Subscription { number, clients: Arc::clone(&self.clients), bundles, renew_now, ended, progress })
    }

    /// Ends the streams of a holder.
    pub(crate) fn end(&self, holder: &Holder) {
        let clients = lock(&self.clients);
        clients.by_number.values().filter(|client| client.is_of(holder)).for_each(|client| client.ended.cancel());
    }

    /// The attestations whose holders have a stream, with what each has come to on its latest.
    pub(crate) fn connected(&self) -> HashMap<AttestationNumber, Progress> {
        let clients = lock(&self.clients);
        let mut numbers: Vec<_> = clients.by_number.iter().collect();
        numbers.sort_unstable_by_key(|(number, _)| **number);
        let progress = |client: &Client| lock_progress(&client.progress).clone();
        numbers.into_iter().map(|(_, client)| (client.attestation, progress(client))).collect()
    }

    /// Asks the connected holders of `id`, or everybody, to renew; returns how many were asked.
    pub(crate) fn request_renewal(&self, id: Option<&WorkloadId>, within: Duration) -> usize {
        let clients = lock(&self.clients);
        let mut asked = 0;
        for client in clients.by_number.values().filter(|client| id.is_none_or(|id| client.id == *id)) {
            client.renew_now.send_replace(Some(RenewNow { within }));
            asked += 1;
        }
        asked
    }

    pub(crate) fn client_count(&self) -> usize {
        lock(&self.clients).by_number.len()
    }
}

impl Subscription {
    /// Something was sent.
    pub(crate) fn sent(&self, resource: Resource, version: Version, now: OffsetDateTime) {
        let outstanding = Outstanding { version, since: now, refused: String::new() };
        lock_progress(&self.progress).outstanding[resource as usize] = Some(outstanding);
    }

    /// The client says of what it was sent whether it is in force. Of anything else it may say what it likes.
    pub(crate) fn applied(&self, resource: Resource, version: Version, refused: String, now: OffsetDateTime) {
        let mut progress = lock_progress(&self.progress);
        let progress = &mut *progress;
        let outstanding = &mut progress.outstanding[resource as usize];
        let Some(sent) = outstanding.as_mut().filter(|sent| sent.version == version) else { return };
        if refused.is_empty() {
            *outstanding = None;
            progress.applied_at = now;
        } else {
            sent.refused = refused;
        }
    }

    pub(crate) fn bundles(&self) -> BundleSet {
        self.bundles.borrow().clone()
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
                changed = self.renew_now.changed() => {
                    changed.ok()?;
                    if let Some(renew_now) = *self.renew_now.borrow_and_update() {
                        return Some(Event::RenewNow(renew_now));
                    }
                }
            }
        }
    }
}

impl Progress {
    pub(crate) fn is_current(&self) -> bool {
        self.outstanding.iter().all(Option::is_none)
    }

    /// Since when it is behind, or when it last put something in force.
    pub(crate) fn since(&self) -> OffsetDateTime {
        self.outstanding.iter().flatten().map(|sent| sent.since).min().unwrap_or(self.applied_at)
    }

    /// Empty when it refuses nothing.
    pub(crate) fn refused(&self) -> String {
        let refused = self.outstanding.iter().flatten().map(|sent| &sent.refused);
        refused.filter(|refused| !refused.is_empty()).cloned().collect::<Vec<_>>().join("; ")
    }
}

impl Version {
    pub(crate) fn of(state: &[u8]) -> Self {
        let mut version = [0; 16];
        version.copy_from_slice(&digest(&SHA256, state).as_ref()[..16]);
        Self(version)
    }

    /// None for what is no version of ours.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl Client {
    fn is_of(&self, holder: &Holder) -> bool {
        match holder {
            Holder::Id(id) => self.id == *id || self.attested == *id,
            Holder::Attestation(number) => self.attestation == *number,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.clients).leave(self.number);
    }
}

impl Clients {
    fn leave(&mut self, number: u64) {
        let Some(Client { id, .. }) = self.by_number.remove(&number) else { return };
        if let Some(count) = self.per_identity.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.per_identity.remove(&id);
            }
        }
    }
}

fn lock_progress(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing panics while it is held, and a map is whole between any two calls anyway.
fn lock(clients: &Mutex<Clients>) -> MutexGuard<'_, Clients> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn id(path: &str) -> WorkloadId {
        format!("spiffe://example.org{path}").parse().unwrap()
    }

    fn subscribe(distribution: &Distribution, id: WorkloadId) -> Result<Subscription, TooManyClients> {
        distribution.subscribe(id.clone(), id, AttestationNumber(1), OffsetDateTime::UNIX_EPOCH)
    }

    fn next_now(subscription: &mut Subscription) -> Option<Event> {
        match pin!(subscription.next()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_first_event_is_the_full_state_and_then_there_is_silence() {
        let distribution = Distribution::new(BundleSet::default(), 10, 10);
        let mut client = subscribe(&distribution, id("/a")).unwrap();
        assert!(matches!(next_now(&mut client), Some(Event::Bundles)));
        assert!(next_now(&mut client).is_none());
    }

    #[test]
    fn only_holders_of_the_identity_are_asked_to_renew() {
        let distribution = Distribution::new(BundleSet::default(), 10, 10);
        let mut clients = ["/a", "/a", "/b"].map(|path| subscribe(&distribution, id(path)).unwrap());
        clients.iter_mut().for_each(|client| assert!(next_now(client).is_some()));
        assert_eq!(distribution.request_renewal(Some(&id("/a")), Duration::from_secs(5)), 2);
        assert!(
            matches!(next_now(&mut clients[1]), Some(Event::RenewNow(RenewNow { within })) if within.as_secs() == 5)
        );
        assert!(next_now(&mut clients[2]).is_none());
        assert_eq!(distribution.request_renewal(None, Duration::ZERO), 3);
        assert_eq!(distribution.request_renewal(Some(&id("/c")), Duration::ZERO), 0);
    }

    #[test]
    fn a_slow_client_gets_the_latest_and_no_queue() {
        let distribution = Distribution::new(BundleSet::default(), 10, 10);
        let mut client = subscribe(&distribution, id("/a")).unwrap();
        next_now(&mut client);
        for seconds in 0..1000 {
            distribution.request_renewal(None, Duration::from_secs(seconds));
        }
        assert!(matches!(next_now(&mut client), Some(Event::RenewNow(RenewNow { within })) if within.as_secs() == 999));
        assert!(next_now(&mut client).is_none());
    }

    #[test]
    fn the_streams_of_whoever_is_ended_end_and_no_others() {
        let distribution = Distribution::new(BundleSet::default(), 10, 10);
        let subscribe = |path, number| {
            let number = AttestationNumber(number);
            distribution.subscribe(id(path), id("/agent"), number, OffsetDateTime::UNIX_EPOCH).unwrap()
        };
        let mut clients = [subscribe("/a", 1), subscribe("/a", 2), subscribe("/b", 3)];
        let live = |clients: &mut [Subscription]| {
            let open = |client: &mut Subscription| pin!(client.next()).poll(&mut Context::from_waker(Waker::noop()));
            clients.iter_mut().map(|client| !matches!(open(client), Poll::Ready(None))).collect::<Vec<_>>()
        };
        distribution.end(&Holder::Attestation(AttestationNumber(2)));
        assert_eq!(live(&mut clients), [true, false, true]);
        distribution.end(&Holder::Id(id("/a")));
        assert_eq!(live(&mut clients), [false, false, true]);
        assert_eq!(distribution.connected().len(), 3);
        distribution.end(&Holder::Id(id("/agent")));
        assert_eq!(live(&mut clients), [false, false, false]);
    }

    #[test]
    fn places_are_bounded_and_given_up_with_the_subscription() {
        let distribution = Distribution::new(BundleSet::default(), 1, 1);
        let first = subscribe(&distribution, id("/a")).unwrap();
        assert_eq!(subscribe(&distribution, id("/a")).unwrap_err(), TooManyClients::InAll { max: 1 });
        drop(first);
        assert_eq!(distribution.client_count(), 0);
        subscribe(&distribution, id("/a")).unwrap();
    }

    #[test]
    fn one_identity_leaves_places_to_others() {
        let distribution = Distribution::new(BundleSet::default(), 10, 2);
        let taken = [(); 2].map(|()| subscribe(&distribution, id("/a")).unwrap());
        let refused = subscribe(&distribution, id("/a")).unwrap_err();
        assert_eq!(refused, TooManyClients::OfIdentity { id: id("/a"), max: 2 });
        let _other = subscribe(&distribution, id("/b")).unwrap();
        drop(taken);
        subscribe(&distribution, id("/a")).unwrap();
        assert_eq!(lock(&distribution.clients).per_identity.len(), 1);
    }
}
