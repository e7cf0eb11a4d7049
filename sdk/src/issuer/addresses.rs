//! The issuers that there are, and which of them to ask.
//!
//! Each program prefers one of them, drawn by rendezvous hashing: a fleet spreads over all, and when one is added or goes, only
//! those move that prefer it. One that failed is asked last for a while, and one that wants to be left alone not at all, as long as
//! there is another.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};
use futures_util::future::BoxFuture;
use http::uri::Authority;
use tokio::time::Instant;

use crate::backoff::{drawn_after, random_fraction};

/// Cheap to clone: all copies know which have failed.
#[derive(Clone)]
pub(crate) struct Addresses(Arc<Inner>);

struct Inner {
    /// Each may be the name of several.
    named: Vec<Authority>,
    look_up: LookUp,
    /// Drawn at the start of the program.
    seed: [u8; 16],
    failed: Mutex<HashMap<SocketAddr, Failure>>,
    /// What each name stood for when it was last found out.
    known: Mutex<HashMap<Authority, Vec<SocketAddr>>>,
    /// By the last look.
    are_several: AtomicBool,
}

/// Finds out what a name stands for.
type LookUp = Box<dyn Fn(Authority) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Of one that did not answer as it should.
#[derive(Clone, Copy)]
struct Failure {
    at: Instant,
    /// It is asked last.
    last_until: Instant,
    /// It wants to be left alone.
    alone_until: Instant,
}

/// How long one that failed is asked last: drawn between this and twice as long, so that not all come back to it at once.
const AWAY: Duration = Duration::from_secs(30);
/// How long a name may take to be found out; less than a holder's attempt to connect.
const LONGEST_LOOK_UP: Duration = Duration::from_secs(1);
/// How many there may be behind all names.
const MOST: usize = 64;

impl Addresses {
    /// Names are looked up as this machine does it.
    pub(crate) fn new(named: Vec<Authority>) -> Self {
        let look_up = async |name: Authority| Ok(tokio::net::lookup_host(name.as_str()).await?.collect());
        Self::found_by(named, Box::new(move |name| Box::pin(look_up(name))))
    }

    fn found_by(named: Vec<Authority>, look_up: LookUp) -> Self {
        let mut seed = [0; 16];
        // Without randomness everything else fails too; all zeros are an order like any other.
        let _ = rand::fill(&mut seed);
        // A name may stand for several: that is to be believed until it was found out, so that the first attempt does not wait for one.
        let is_name = |name: &Authority| name.as_str().parse::<SocketAddr>().is_err();
        let are_several = AtomicBool::new(named.len() > 1 || named.iter().any(is_name));
        Self(Arc::new(Inner { named, look_up, seed, failed: Mutex::default(), known: Mutex::default(), are_several }))
    }

    /// Whether there is no second one to ask.
    pub(crate) fn is_one(&self) -> bool {
        !self.0.are_several.load(Relaxed)
    }

    /// All that the names stand for now, the one to ask first at first.
    ///
    /// # Errors
    /// None of the names stands for anything.
    pub(crate) async fn in_order(&self) -> io::Result<Vec<SocketAddr>> {
        let mut found = Vec::new();
        let mut failure = None;
        let looking = self.0.named.iter().map(async |name| {
            // One whose answer does not come keeps nobody from the others.
            let looked = tokio::time::timeout(LONGEST_LOOK_UP, (self.0.look_up)(name.clone())).await;
            looked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        });
        for (name, looked) in self.0.named.iter().zip(futures_util::future::join_all(looking).await) {
            let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
            match looked {
                Ok(addresses) => {
                    found.extend(&addresses);
                    known.insert(name.clone(), addresses);
                }
                Err(error) => match known.get(name) {
                    Some(addresses) => found.extend(addresses),
                    None => failure = Some(error),
                },
            }
        }
        if found.is_empty() {
            return Err(failure.unwrap_or_else(|| io::Error::from(io::ErrorKind::NotFound)));
        }
        found.sort_unstable();
        found.dedup();
        found.truncate(MOST);
        self.0.are_several.store(found.len() > 1, Relaxed);
        Ok(self.sorted(found, Instant::now()))
    }

    fn sorted(&self, mut found: Vec<SocketAddr>, now: Instant) -> Vec<SocketAddr> {
        let mut failed = self.failed();
        failed.retain(|address, failure| {
            found.contains(address) && (failure.last_after(now).is_some() || failure.alone_after(now).is_some())
        });
        let alone_until = |address: &SocketAddr| failed.get(address)?.alone_after(now);
        if found.iter().any(|address| alone_until(address).is_none()) {
            found.retain(|address| alone_until(address).is_none());
        }
        // Of those that have failed, the one that was not asked for longest.
        let last_since = |address: &SocketAddr| failed.get(address)?.last_after(now);
        found.sort_by_cached_key(|address| (alone_until(address), last_since(address), self.weight(*address)));
        found
    }

    fn weight(&self, address: SocketAddr) -> [u8; 8] {
        let hash = digest(&SHA256, &[&self.0.seed[..], address.to_string().as_bytes()].concat());
        let mut weight = [0; 8];
        weight.copy_from_slice(&hash.as_ref()[..8]);
        weight
    }

    /// It was asked, and did not answer as it should.
    pub(crate) fn failed_at(&self, address: SocketAddr) {
        let now = Instant::now();
        let last_until = now + AWAY.mul_f64(1.0 + random_fraction());
        let mut failed = self.failed();
        let failure = failed.entry(address).or_insert(Failure { at: now, last_until, alone_until: now });
        *failure = Failure { at: now, last_until, ..*failure };
    }

    /// It says when to come again. Others that were told the same do not come at once.
    pub(crate) fn leave_alone(&self, address: SocketAddr, pause: Duration) {
        let now = Instant::now();
        let until = now + drawn_after(pause);
        let mut failed = self.failed();
        let failure = failed.entry(address).or_insert(Failure { at: now, last_until: now, alone_until: until });
        failure.alone_until = failure.alone_until.max(until);
    }

    /// How long all want to be left alone.
    pub(crate) fn free_in(&self) -> Duration {
        let (now, failed) = (Instant::now(), self.failed());
        let left = |address| failed.get(&address).map(|failure| failure.alone_until.saturating_duration_since(now));
        self.known().into_iter().map(|address| left(address).unwrap_or_default()).min().unwrap_or_default()
    }

    /// Whether there is one that may be asked, and has not failed since then.
    pub(crate) fn has_another(&self, since: Instant) -> bool {
        let (now, failed) = (Instant::now(), self.failed());
        self.known().iter().any(|address| match failed.get(address) {
            Some(failure) => {
                failure.alone_after(now).is_none() && failure.last_after(now).is_none_or(|failed| failed < since)
            }
            None => true,
        })
    }

    fn known(&self) -> Vec<SocketAddr> {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known: Vec<_> = known.values().flatten().copied().collect();
        // As they are asked.
        known.sort_unstable();
        known.dedup();
        known.truncate(MOST);
        known
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<SocketAddr, Failure>> {
        self.0.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    /// Since when it is asked last.
    fn last_after(&self, now: Instant) -> Option<Instant> {
        (self.last_until > now).then_some(self.at)
    }

    /// Until when it is to be left alone.
    fn alone_after(&self, now: Instant) -> Option<Instant> {
        (self.alone_until > now).then_some(self.alone_until)
    }
}

/// As they were named.
impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<_> = self.0.named.iter().map(Authority::as_str).collect();
        f.write_str(&named.join(", "))
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Addresses({self})")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    fn addresses(count: u8) -> Vec<SocketAddr> {
        (1..=count).map(|number| SocketAddr::from(([10, 0, 0, number], 8081))).collect()
    }

    fn first_of(all: &Addresses, found: &[SocketAddr]) -> SocketAddr {
        all.sorted(found.to_vec(), Instant::now())[0]
    }

    #[tokio::test]
    async fn a_fleet_spreads_and_moves_only_from_one_that_goes() {
        let fleet: Vec<_> = (0..600).map(|_| Addresses::new(Vec::new())).collect();
        let all = addresses(3);
        let preferred: Vec<_> = fleet.iter().map(|program| first_of(program, &all)).collect();
        for address in &all {
            let share = preferred.iter().filter(|preferred| *preferred == address).count();
            assert!((120..280).contains(&share), "{share}");
        }
        for (program, preferred) in fleet.iter().zip(&preferred) {
            let now = first_of(program, &all[..2]);
            assert!(*preferred == all[2] || now == *preferred);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_failed_is_asked_last_for_a_while() {
        let (program, all) = (Addresses::new(Vec::new()), addresses(3));
        let first = first_of(&program, &all);
        program.failed_at(first);
        let order = program.sorted(all.clone(), Instant::now());
        assert_eq!((order.len(), order[2]), (3, first));
        // Where all have failed, the one that failed first.
        for address in &order[..2] {
            tokio::time::advance(Duration::from_millis(1)).await;
            program.failed_at(*address);
        }
        assert_eq!(program.sorted(all.clone(), Instant::now()), [first, order[0], order[1]]);
        tokio::time::advance(2 * AWAY).await;
        assert_eq!(first_of(&program, &all), first);
        assert!(program.failed().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_wants_to_be_left_alone_is_not_asked_as_long_as_there_is_another() {
        const PAUSE: Duration = Duration::from_secs(20);
        let named: Vec<Authority> = addresses(3).iter().map(|address| address.to_string().parse().unwrap()).collect();
        let program = Addresses::new(named);
        let order = program.in_order().await.unwrap();
        program.leave_alone(order[0], PAUSE);
        assert_eq!(program.in_order().await.unwrap(), order[1..]);
        assert_eq!(program.free_in(), Duration::ZERO);
        program.leave_alone(order[1], PAUSE * 4);
        program.leave_alone(order[2], PAUSE * 2);
        // A shorter one does not undo what was said before.
        program.leave_alone(order[1], Duration::ZERO);
        assert_eq!(program.in_order().await.unwrap(), [order[0], order[2], order[1]]);
        assert!((PAUSE..PAUSE * 3 / 2).contains(&program.free_in()), "{:?}", program.free_in());
        assert!(!program.has_another(Instant::now()));
        tokio::time::advance(program.free_in()).await;
        assert_eq!(program.in_order().await.unwrap(), order[..1]);
        assert!(program.has_another(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_stands_for_several_is_several_issuers() {
        // What the name stands for now; none for as long as nobody says.
        let stands_for = Arc::new(Mutex::new(Some(addresses(3))));
        let told = Arc::clone(&stands_for);
        let look_up = move |name: Authority| -> BoxFuture<'static, _> {
            assert_eq!(name, "issuers.example.org:8081");
            match told.lock().unwrap().clone() {
                Some(found) => Box::pin(std::future::ready(Ok(found))),
                None => Box::pin(std::future::pending()),
            }
        };
        let program = Addresses::found_by(vec!["issuers.example.org:8081".parse().unwrap()], Box::new(look_up));
        let order = program.in_order().await.unwrap();
        assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), addresses(3).into_iter().collect());
        assert!(!program.is_one());
        // One that fails is asked last, and there are others meanwhile.
        let before = Instant::now();
        program.failed_at(order[0]);
        assert_eq!(program.in_order().await.unwrap(), [order[1], order[2], order[0]]);
        program.failed_at(order[1]);
        assert!(program.has_another(before));
        program.failed_at(order[2]);
        assert!(!program.has_another(before));
        tokio::time::advance(2 * AWAY).await;
        // Where nobody says what it stands for, it stands for what it did.
        *stands_for.lock().unwrap() = None;
        assert_eq!(program.in_order().await.unwrap(), order);
        // One that is there no more is not asked.
        *stands_for.lock().unwrap() = Some(vec![order[2]]);
        assert_eq!(program.in_order().await.unwrap(), order[2..]);
        assert!(program.is_one());
    }

    #[tokio::test]
    async fn a_name_that_stands_for_nothing_is_an_error_and_one_of_two_is_none() {
        let nothing = "nothing.invalid:1".parse::<Authority>().unwrap();
        let unknown = Addresses::new(vec![nothing.clone()]);
        // Until it is known what it stands for.
        assert!(!unknown.is_one());
        unknown.in_order().await.unwrap_err();
        let both = Addresses::new(vec![nothing, "127.0.0.1:2".parse().unwrap()]);
        assert!(!both.is_one());
        assert_eq!(both.in_order().await.unwrap(), ["127.0.0.1:2".parse().unwrap()]);
        assert_eq!(both.to_string(), "nothing.invalid:1, 127.0.0.1:2");
        assert!(both.is_one());
    }
}
