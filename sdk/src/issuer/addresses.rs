//! The issuers that there are, and which of them to ask.
//!
//! Each program prefers one of them, drawn by rendezvous hashing: a fleet spreads over all, and when one is added or goes, only
//! those move that prefer it. One that failed is asked last for a while.

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
use http::uri::Authority;
use tokio::time::Instant;

use crate::backoff::random_fraction;

/// Cheap to clone: all copies know which have failed.
#[derive(Clone)]
pub(crate) struct Addresses(Arc<Inner>);

struct Inner {
    /// Each may be the name of several.
    named: Vec<Authority>,
    /// Drawn at the start of the program.
    seed: [u8; 16],
    failed: Mutex<HashMap<SocketAddr, Instant>>,
    /// What each name stood for when it was last found out.
    known: Mutex<HashMap<Authority, Vec<SocketAddr>>>,
    /// By the last look.
    are_several: AtomicBool,
}

/// How long one that failed is asked last: drawn between this and twice as long, so that not all come back to it at once.
const AWAY: Duration = Duration::from_secs(30);
/// How long a name may take to be found out; less than a holder's attempt to connect.
const LOOK_UP: Duration = Duration::from_secs(1);
/// How many there may be behind all names.
const MOST: usize = 64;

impl Addresses {
    pub(crate) fn new(named: Vec<Authority>) -> Self {
        let mut seed = [0; 16];
        // Without randomness everything else fails too; all zeros are an order like any other.
        let _ = rand::fill(&mut seed);
        let are_several = AtomicBool::new(named.len() > 1);
        Self(Arc::new(Inner { named, seed, failed: Mutex::default(), known: Mutex::default(), are_several }))
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
            match tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(name.as_str())).await {
                Ok(found) => found.map(Iterator::collect::<Vec<_>>),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
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
        failed.retain(|address, until| *until > now && found.contains(address));
        found.sort_by_cached_key(|address| (failed.get(address).copied(), self.weight(*address)));
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
        self.failed().insert(address, Instant::now() + AWAY.mul_f64(1.0 + random_fraction()));
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.0.failed.lock().unwrap_or_else(PoisonError::into_inner)
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
        // Where all have failed, the one whose turn comes first.
        all.iter().filter(|address| **address != first).for_each(|address| program.failed_at(*address));
        assert_eq!(program.sorted(all.clone(), Instant::now()).len(), 3);
        tokio::time::advance(2 * AWAY).await;
        assert_eq!(first_of(&program, &all), first);
        assert!(program.failed().is_empty());
    }

    #[tokio::test]
    async fn a_name_that_stands_for_nothing_is_an_error_and_one_of_two_is_none() {
        let nothing = "nothing.invalid:1".parse::<Authority>().unwrap();
        Addresses::new(vec![nothing.clone()]).in_order().await.unwrap_err();
        let both = Addresses::new(vec![nothing, "127.0.0.1:2".parse().unwrap()]);
        assert!(!both.is_one());
        assert_eq!(both.in_order().await.unwrap(), ["127.0.0.1:2".parse().unwrap()]);
        assert_eq!(both.to_string(), "nothing.invalid:1, 127.0.0.1:2");
        assert!(both.is_one());
    }
}
