//! Connections whose handshake is not done: anybody can open them, so that none of them may keep others out.
//!
//! ```text
//! accepted ─► Silent ─ whole ClientHello ─► Heard ─ permit ─► Shaking ─► done
//!             no permit, little memory;     waits its turn    with a permit; after a second the oldest
//!             the oldest gives way                            gives way to whoever waits
//! ```

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::line::Line;
use crate::config::Limits;

/// All of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Unfinished {
    queue: Arc<Mutex<Queue>>,
    permits: Arc<Semaphore>,
    max_silent: usize,
    max_per_source: usize,
}

#[derive(Debug)]
struct Queue {
    line: Line<Connection>,
    silent: usize,
    by_source: HashMap<Source, usize>,
}

#[derive(Debug)]
struct Connection {
    source: Source,
    stage: Stage,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Stage {
    /// It has yet to say a whole ClientHello.
    Silent,
    /// It waits for a permit.
    Heard,
    Shaking {
        since: Instant,
    },
}

/// An IPv4 address, or the /64 of an IPv6 address: whoever has one address of it has all.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
struct Source(IpAddr);

/// The place of one connection; given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    gives_way: CancellationToken,
    unfinished: Unfinished,
}

/// One address has all the unfinished connections that it may have, and none of them is slow.
#[derive(Debug)]
pub(super) struct TooManyFromSource;

/// What a handshake may take when others wait: many times what one takes over any distance.
const PATIENCE: Duration = Duration::from_secs(1);
/// For one that gave way to hand on its permit, before another has to.
const HANDING_ON: Duration = Duration::from_millis(50);

impl Unfinished {
    pub(super) fn new(limits: &Limits) -> Self {
        let queue = Queue { line: Line::new(), silent: 0, by_source: HashMap::new() };
        Self {
            queue: Arc::new(Mutex::new(queue)),
            permits: Arc::new(Semaphore::new(limits.handshakes)),
            max_silent: limits.silent_connections,
            max_per_source: limits.unfinished_per_address,
        }
    }

    /// A place for one that was just accepted. The newest is the one to keep: whoever is honest speaks at once.
    pub(super) fn enter(&self, address: SocketAddr) -> Result<Place, TooManyFromSource> {
        let source = Source::of(address.ip());
        let mut queue = self.lock();
        if queue.by_source.get(&source).is_some_and(|count| *count >= self.max_per_source) {
            let gave_way = queue.oldest_gives_way(|other| other.source == source && other.stage == Stage::Silent)
                || queue.oldest_gives_way(|other| other.source == source && other.is_slow());
            if !gave_way {
                return Err(TooManyFromSource);
            }
        }
        if queue.silent >= self.max_silent {
            queue.oldest_gives_way(|other| other.stage == Stage::Silent);
        }
        let (number, gives_way) = queue.join(source);
        Ok(Place { number, gives_way, unfinished: self.clone() })
    }

    /// When the oldest handshake has had its time.
    fn next_slow(&self) -> Option<Instant> {
        let queue = self.lock();
        queue.line.iter().filter_map(|other| other.stage.shaking_since()).min().map(|since| since + PATIENCE)
    }

    /// Nothing panics while it is held.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What comes of `work`; None when the connection has to give way before.
    pub(super) async fn unless_it_gives_way<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.gives_way.run_until_cancelled(work).await
    }

    /// Waits for a permit for the handshake, after a whole ClientHello was read. Slow handshakes make room for it.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.unfinished.lock().moves_on(self.number, Stage::Heard);
        let mut permit = pin!(Arc::clone(&self.unfinished.permits).acquire_owned());
        let mut not_sooner = Instant::now();
        let permit = loop {
            let look_again = self.unfinished.next_slow().unwrap_or_else(|| Instant::now() + PATIENCE);
            tokio::select! {
                biased;
                // Never closed.
                permit = &mut permit => break permit.ok()?,
                () = tokio::time::sleep_until(look_again.max(not_sooner)) => {
                    self.unfinished.lock().oldest_gives_way(Connection::is_slow);
                    not_sooner = Instant::now() + HANDING_ON;
                }
            }
        };
        self.unfinished.lock().moves_on(self.number, Stage::Shaking { since: Instant::now() });
        Some(permit)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.unfinished.lock();
        if let Some(left) = queue.line.leave(self.number) {
            queue.forget(&left);
        }
    }
}

impl Queue {
    fn join(&mut self, source: Source) -> (u64, CancellationToken) {
        self.silent += 1;
        *self.by_source.entry(source).or_default() += 1;
        self.line.join(Connection { source, stage: Stage::Silent })
    }

    fn moves_on(&mut self, number: u64, next: Stage) {
        if let Some(connection) = self.line.get_mut(number) {
            let before = std::mem::replace(&mut connection.stage, next);
            self.silent -= usize::from(before == Stage::Silent);
        }
    }

    fn oldest_gives_way(&mut self, of_these: impl Fn(&Connection) -> bool) -> bool {
        let gone = self.line.oldest_gives_way(of_these);
        gone.inspect(|gone| self.forget(gone)).is_some()
    }

    fn forget(&mut self, gone: &Connection) {
        self.silent -= usize::from(gone.stage == Stage::Silent);
        if let Some(count) = self.by_source.get_mut(&gone.source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&gone.source);
            }
        }
    }
}

impl Connection {
    fn is_slow(&self) -> bool {
        self.stage.shaking_since().is_some_and(|since| since.elapsed() >= PATIENCE)
    }
}

impl Stage {
    fn shaking_since(self) -> Option<Instant> {
        match self {
            Self::Shaking { since } => Some(since),
            Self::Silent | Self::Heard => None,
        }
    }
}

impl Source {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const A: &str = "192.0.2.1:1";
    const B: &str = "192.0.2.2:1";

    fn unfinished(handshakes: usize, max_silent: usize, max_per_source: usize) -> Unfinished {
        let queue = Queue { line: Line::new(), silent: 0, by_source: HashMap::new() };
        let (queue, permits) = (Arc::new(Mutex::new(queue)), Arc::new(Semaphore::new(handshakes)));
        Unfinished { queue, permits, max_silent, max_per_source }
    }

    fn enter(unfinished: &Unfinished, address: &str) -> Place {
        unfinished.enter(address.parse().unwrap()).unwrap()
    }

    fn gave_way(places: &[Place]) -> Vec<bool> {
        places.iter().map(|place| place.gives_way.is_cancelled()).collect()
    }

    #[test]
    fn the_oldest_silent_connection_gives_way_to_the_newest() {
        let unfinished = unfinished(1, 2, 100);
        let places = [A, A, B].map(|address| enter(&unfinished, address));
        assert_eq!(gave_way(&places), [true, false, false]);
        drop(places);
        let queue = unfinished.lock();
        assert_eq!((queue.silent, queue.by_source.len(), queue.line.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn one_address_keeps_its_own_out_and_nobody_else() {
        let unfinished = unfinished(10, 100, 2);
        let places = [A, A, B, B].map(|address| enter(&unfinished, address));
        let newer = enter(&unfinished, A);
        assert_eq!(gave_way(&places), [true, false, false, false]);
        let _permits = (places[1].turn().await.unwrap(), newer.turn().await.unwrap());
        assert!(unfinished.enter(A.parse().unwrap()).is_err(), "both are in their handshake");
        tokio::time::sleep(PATIENCE).await;
        enter(&unfinished, A);
        assert_eq!(gave_way(&places), [true, true, false, false]);
    }

    #[tokio::test]
    async fn a_slow_handshake_gives_way_to_one_that_waits_and_not_before_its_time() {
        let unfinished = unfinished(1, 100, 100);
        let (slow, next) = (enter(&unfinished, A), enter(&unfinished, B));
        let permit = slow.turn().await.unwrap();
        let began = Instant::now();
        let stalls = slow.unless_it_gives_way(std::future::pending::<()>());
        let stalled = async {
            assert!(stalls.await.is_none());
            drop(permit);
        };
        let (_permit, ()) = tokio::join!(next.turn(), stalled);
        let waited = began.elapsed();
        assert!(waited >= PATIENCE && waited < 2 * PATIENCE, "{waited:?}");
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let source = |address: &str| Source::of(address.parse().unwrap());
        assert_eq!(source("2001:db8:1:2:3::4"), source("2001:db8:1:2::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }
}
