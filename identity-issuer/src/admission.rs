//! How much of the issuer one caller, and one kind of request, may take.
//!
//! Renewals come first: whoever has an identity keeps it. First certificates share half of the machine and half of the queue to the
//! record, so that a fleet that starts anew holds up nobody who is there. What administrators read comes last, and comes all the same.
//! What is refused is told when to come again.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::attestation::AttestationNumber;
use crate::metrics::Metrics;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    renewals: Buckets<AttestationNumber>,
    /// Of what is asked for beside an identity: whoever asks for too much keeps that all the same.
    beside: Buckets<AttestationNumber>,
    /// What it takes to look at the record for a certificate.
    certificates: Buckets<Vec<u8>>,
    attestations: Buckets<IpAddr>,
    /// First certificates that are worked on.
    places: Arc<Semaphore>,
    /// Those, and those that wait for a place.
    line: Arc<Semaphore>,
    /// What is asked for beside an identity, and is worked on. As many as there are processors: more would do nothing but stand before
    /// a renewal each time that it has something to do.
    beside_places: Arc<Semaphore>,
    /// Attested callers that wait for a rule.
    waiting: Arc<Semaphore>,
    /// What administrators read.
    reads: Arc<Semaphore>,
    metrics: Metrics,
}

/// Whose share is used up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Limit {
    Renewals,
    Beside,
    Certificate,
    Address,
    Line,
    Watchers,
    Administration,
}

/// To be asked again after this time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}; come again in {} ms", .limit.told(), .after.as_millis())]
pub(crate) struct Refused {
    limit: Limit,
    pub(crate) after: Duration,
}

/// What it takes to verify a proof, or to sign a first certificate, until it is dropped: a share of a processor, and no more than that.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held")] [Option<OwnedSemaphorePermit>; 2]);

/// Each holds its request: a few KiB, 32 at most.
const WAITING: usize = 8192;
/// For a first certificate, beside those that are worked on.
const LINE: usize = 512;
/// For the end of the line to come up.
const LINE_TAKES: Duration = Duration::from_secs(1);
/// At once.
const READS: usize = 4;
/// So long a read gives way to first certificates. An operator has to see what goes on, most of all when there is much.
const READ_WAITS: Duration = Duration::from_secs(1);
const READ_LOOKS: Duration = Duration::from_millis(20);

impl Admission {
    /// `renewals` a minute of one attestation, `attestations` a minute from one address.
    pub(crate) fn new(renewals: u32, attestations: u32, metrics: Metrics) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let places = workers.div_ceil(2);
        Self(Arc::new(Inner {
            renewals: Buckets::new(renewals),
            beside: Buckets::new(renewals),
            certificates: Buckets::new(renewals),
            attestations: Buckets::new(attestations),
            places: Arc::new(Semaphore::new(places)),
            line: Arc::new(Semaphore::new(places + LINE)),
            beside_places: Arc::new(Semaphore::new(workers)),
            waiting: Arc::new(Semaphore::new(WAITING)),
            reads: Arc::new(Semaphore::new(READS)),
            metrics,
        }))
    }

    /// So many certificates beside an identity, at once.
    pub(crate) fn beside(&self, of: AttestationNumber, count: usize) -> Result<(), Refused> {
        let taken = self.0.beside.take_several(of, count, Instant::now());
        taken.map_err(|after| self.refuse(Limit::Beside, after))
    }

    /// One token; they have the share of what is given beside an identity.
    pub(crate) fn token(&self, of: AttestationNumber) -> Result<(), Refused> {
        self.beside(of, 1)
    }

    pub(crate) fn renewal(&self, of: AttestationNumber) -> Result<(), Refused> {
        let taken = self.0.renewals.take(of, Instant::now());
        taken.map_err(|after| self.refuse(Limit::Renewals, after))
    }

    /// By the serial number that its holder has proved in the handshake: before anything is looked up for it.
    pub(crate) fn certificate(&self, serial: &[u8]) -> Result<(), Refused> {
        let taken = self.0.certificates.take(serial.to_vec(), Instant::now());
        taken.map_err(|after| self.refuse(Limit::Certificate, after))
    }

    /// Refused while others wait for a place, and not otherwise: behind an address there may be a whole fleet, and somebody who sends
    /// rubbish.
    pub(crate) fn attestation(&self, from: IpAddr) -> Result<(), Refused> {
        let taken = self.0.attestations.take(network_of(from), Instant::now());
        match taken {
            Err(after) if self.0.places.available_permits() == 0 => Err(self.refuse(Limit::Address, after)),
            _ => Ok(()),
        }
    }

    /// For an attested caller to wait for a rule; none where too many do.
    pub(crate) fn waiting(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.waiting).try_acquire_owned().ok()
    }

    /// Waits its turn.
    pub(crate) async fn first(&self) -> Result<Place, Refused> {
        let full = || self.refuse(Limit::Line, LINE_TAKES);
        let in_line = Arc::clone(&self.0.line).try_acquire_owned().map_err(|_| full())?;
        // Never closed, as none of these.
        let at_work = Arc::clone(&self.0.places).acquire_owned().await.map_err(|_| full())?;
        Ok(Place([Some(in_line), Some(at_work)]))
    }

    /// For one certificate beside an identity, in its turn.
    pub(crate) async fn beside_place(&self) -> Place {
        Place([Arc::clone(&self.0.beside_places).acquire_owned().await.ok(), None])
    }

    /// For an administrator to read something, a few at once: behind first certificates, and behind renewals, of which there is a line at
    /// the record. None would be if there were no places at all.
    pub(crate) async fn read(&self, has_line: impl Fn() -> bool) -> Option<OwnedSemaphorePermit> {
        let turn = Arc::clone(&self.0.reads).acquire_owned().await.ok();
        let end = Instant::now() + READ_WAITS;
        while (self.0.places.available_permits() == 0 || has_line()) && Instant::now() < end {
            tokio::time::sleep(READ_LOOKS).await;
        }
        turn
    }

    /// Counts it.
    pub(crate) fn refuse(&self, limit: Limit, after: Duration) -> Refused {
        self.0.metrics.shed(limit.label());
        Refused { limit, after }
    }
}

impl Limit {
    pub(crate) const ALL: [Self; 7] = [
        Self::Renewals,
        Self::Beside,
        Self::Certificate,
        Self::Address,
        Self::Line,
        Self::Watchers,
        Self::Administration,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Renewals => "renewals",
            Self::Beside => "beside",
            Self::Certificate => "certificate",
            Self::Address => "address",
            Self::Line => "line",
            Self::Watchers => "watchers",
            Self::Administration => "administration",
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::Renewals => "too many renewals of one certificate",
            Self::Beside => "too many certificates for one identity",
            Self::Certificate => "too many calls with one certificate",
            Self::Address => "too many attestations from one address",
            Self::Line => "too many attestations at once",
            Self::Watchers => "too many clients watch",
            Self::Administration => "too many administrative calls at once",
        }
    }
}

/// The /64 of an IPv6 address is one host's.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A token bucket for each key, as GCRA keeps it (ITU-T I.371): one moment a key, at which its bucket will be full again.
#[derive(Debug)]
struct Buckets<K> {
    full_at: Mutex<HashMap<K, Instant>>,
    /// Of one token.
    interval: Duration,
    /// From empty to full.
    minute: Duration,
}

/// Above it, keys whose buckets are full are forgotten; where all are in use, what comes is let in.
const MOST_KEYS: usize = 100_000;

impl<K: Eq + Hash> Buckets<K> {
    fn new(per_minute: u32) -> Self {
        let minute = Duration::from_secs(60);
        Self { full_at: Mutex::default(), interval: minute / per_minute.max(1), minute }
    }

    fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        self.take_several(key, 1, now)
    }

    /// All or none. A full bucket is enough for any number: otherwise more than it holds could never be had.
    fn take_several(&self, key: K, tokens: usize, now: Instant) -> Result<(), Duration> {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let interval = self.interval.saturating_mul(tokens).min(self.minute);
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= MOST_KEYS {
            full_at.retain(|_, full_at| *full_at > now);
            if full_at.len() >= MOST_KEYS && !full_at.contains_key(&key) {
                return Ok(());
            }
        }
        let next = full_at.get(&key).map_or(now, |full_at| (*full_at).max(now)) + interval;
        match (next - now).checked_sub(self.minute) {
            Some(too_soon) if !too_soon.is_zero() => Err(in_whole_milliseconds(too_soon)),
            _ => {
                full_at.insert(key, next);
                Ok(())
            }
        }
    }
}

/// As callers are told: less than one would read as none, and they would be refused again.
fn in_whole_milliseconds(time: Duration) -> Duration {
    const MILLISECOND: u32 = 1_000_000;
    let over = time.subsec_nanos() % MILLISECOND;
    time + Duration::from_nanos(u64::from((MILLISECOND - over) % MILLISECOND))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn admission(renewals: u32, attestations: u32) -> Admission {
        let profiles = crate::profile::Profiles::new((Duration::from_secs(60), Duration::ZERO), []);
        let metrics = Metrics::register(&prometheus::Registry::new(), &profiles).unwrap();
        Admission::new(renewals, attestations, metrics)
    }

    #[test]
    fn whoever_is_told_a_time_is_admitted_after_it() {
        let (buckets, now) = (Buckets::new(60), Instant::now());
        for _ in 0..60 {
            buckets.take("a", now).unwrap();
        }
        let later = now + Duration::from_micros(999_900);
        let after = buckets.take("a", later).unwrap_err();
        assert_eq!(after, Duration::from_millis(1));
        buckets.take("a", later + after).unwrap();
    }

    #[test]
    fn a_bucket_is_emptied_at_once_and_filled_over_a_minute() {
        let (buckets, now) = (Buckets::new(60), Instant::now());
        for _ in 0..60 {
            buckets.take("a", now).unwrap();
        }
        assert_eq!(buckets.take("a", now), Err(Duration::from_secs(1)));
        buckets.take("b", now).unwrap();
        assert_eq!(buckets.take_several("b", 60, now), Err(Duration::from_secs(1)));
        buckets.take_several("b", 59, now).unwrap();
        buckets.take_several("c", 1000, now).unwrap();
        assert_eq!(buckets.take("c", now), Err(Duration::from_secs(1)));
        let later = now + Duration::from_millis(1500);
        buckets.take("a", later).unwrap();
        assert_eq!(buckets.take("a", later), Err(Duration::from_millis(500)));
    }

    #[test]
    fn keys_are_forgotten_once_their_buckets_are_full() {
        let (buckets, now) = (Buckets::new(60), Instant::now());
        (0..MOST_KEYS).for_each(|key| buckets.take(key, now).unwrap());
        // All are in use: nobody is refused for that, and nothing grows.
        buckets.take(MOST_KEYS, now).unwrap();
        assert_eq!(buckets.full_at.lock().unwrap().len(), MOST_KEYS);
        buckets.take(MOST_KEYS, now + Duration::from_secs(2)).unwrap();
        assert_eq!(buckets.full_at.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_host_has_one_bucket_for_all_of_its_addresses() {
        let network = |address: &str| network_of(address.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
    }

    #[tokio::test]
    async fn an_address_is_refused_only_while_others_wait() {
        let (admission, address) = (admission(1, 2), IpAddr::from([10, 0, 0, 1]));
        (0..10).for_each(|_| admission.attestation(address).unwrap());
        let places = admission.0.places.available_permits();
        let mut working = Vec::new();
        for _ in 0..places {
            working.push(admission.first().await.unwrap());
        }
        assert!(admission.attestation(address).is_err());
        admission.attestation(IpAddr::from([10, 0, 0, 2])).unwrap();
        working.pop();
        admission.attestation(address).unwrap();
    }

    #[tokio::test]
    async fn first_certificates_wait_in_a_line_that_ends() {
        let admission = admission(1, 1);
        let places = admission.0.places.available_permits();
        let mut working = Vec::new();
        for _ in 0..places {
            working.push(admission.first().await.unwrap());
        }
        let mut waiting: Vec<_> = (0..LINE).map(|_| Box::pin(admission.first())).collect();
        for waiting in &mut waiting {
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        }
        assert!(admission.first().await.is_err());
        working.pop();
        waiting.remove(0).await.unwrap();
    }
    #[tokio::test(start_paused = true)]
    async fn reads_give_way_to_first_certificates_and_are_not_put_off_for_ever() {
        let admission = admission(1, 1);
        drop(admission.read(|| false).await.unwrap());
        let places = admission.0.places.available_permits();
        let mut working = Vec::new();
        for _ in 0..places {
            working.push(admission.first().await.unwrap());
        }
        let mut reading = Box::pin(admission.read(|| false));
        assert!(futures_util::poll!(reading.as_mut()).is_pending());
        working.pop();
        let began = Instant::now();
        drop(reading.await.unwrap());
        assert!(began.elapsed() <= READ_LOOKS);
        working.push(admission.first().await.unwrap());
        let began = Instant::now();
        drop(admission.read(|| false).await.unwrap());
        assert!(began.elapsed() >= READ_WAITS);
        working.clear();
        let began = Instant::now();
        drop(admission.read(|| began.elapsed() < Duration::from_millis(500)).await.unwrap());
        assert!((500..600).contains(&began.elapsed().as_millis()));
    }

    #[tokio::test]
    async fn few_reads_go_on_at_once() {
        let admission = admission(1, 1);
        let mut reads = Vec::new();
        for _ in 0..READS {
            reads.push(admission.read(|| false).await.unwrap());
        }
        let mut one_more = Box::pin(admission.read(|| false));
        assert!(futures_util::poll!(one_more.as_mut()).is_pending());
        reads.pop();
        drop(one_more.await.unwrap());
    }
    #[tokio::test]
    async fn as_many_batches_are_worked_on_as_there_are_processors() {
        let admission = admission(1, 1);
        let workers = admission.0.beside_places.available_permits();
        let mut working = Vec::new();
        for _ in 0..workers {
            working.push(admission.beside_place().await);
        }
        let mut one_more = Box::pin(admission.beside_place());
        assert!(futures_util::poll!(one_more.as_mut()).is_pending());
        // They take nothing from those who have no identity yet.
        admission.first().await.unwrap();
        working.pop();
        one_more.await;
    }
}
