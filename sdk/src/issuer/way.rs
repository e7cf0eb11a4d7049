//! How a connection comes about: to one issuer, or to the first of several that answers.
//!
//! ```text
//! preferred  ├── TCP, TLS … silence ──────────────┤ asked last for a while
//! the next     250 ms ├── TCP, TLS … silence ─────┤ the same
//! the one after it           250 ms ├── TCP, TLS ─┤ connected
//! ```
//! Happy eyeballs (RFC 8305), around TLS too: the kernel of a stopped issuer accepts connections that nobody answers.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::Uri;
use tokio::time::Instant;

use super::{Endpoint, OF_SEVERAL, addresses::Addresses};
use crate::hyper::ConnectError;

/// How long one is asked alone before the next is asked too (RFC 8305 §5 recommends 250 ms).
const HEAD_START: Duration = Duration::from_millis(250);
/// How many are asked at once.
const MOST_AT_ONCE: usize = 4;

/// Of one channel. Copies are of the same channel.
#[derive(Clone, Debug)]
pub(super) struct Way {
    addresses: Addresses,
    /// For TCP and TLS with an only one.
    connect: Duration,
    head_start: Duration,
    /// Where the last connection went.
    to: Arc<Mutex<Option<SocketAddr>>>,
}

impl Way {
    pub(super) fn to(endpoint: &Endpoint) -> Self {
        let connect = endpoint.timeouts.connect.min(endpoint.timeouts.request);
        // Whoever has little time asks several within it all the same.
        let head_start = HEAD_START.min(connect / MOST_AT_ONCE as u32);
        Self { addresses: endpoint.addresses.clone(), connect, head_start, to: Arc::default() }
    }

    /// Begins with the issuer that is preferred. Another one is asked as well when one has failed, or none has answered for a head
    /// start. The first to complete TCP and TLS wins, and the others are let go.
    pub(super) async fn connect<T, F>(self, dial: impl Fn(Uri) -> F) -> Result<T, ConnectError>
    where
        F: Future<Output = Result<T, ConnectError>>,
    {
        let named = self.addresses.to_string();
        let looked_up = self.addresses.in_order().await;
        let all = looked_up.map_err(|source| ConnectError::Tcp { address: named.clone(), source })?;
        let patience = self.patience(all.len());
        let mut failure = ConnectError::Timeout { address: named, limit: patience };
        let (mut others, mut asked) = (all.into_iter(), FuturesUnordered::new());
        loop {
            if asked.len() < MOST_AT_ONCE
                && let Some(address) = others.next()
            {
                asked.push(self.ask(address, patience, &dial));
            }
            match tokio::time::timeout(self.head_start, asked.next()).await {
                Ok(Some(Ok((address, connected)))) => {
                    *self.last() = Some(address);
                    return Ok(connected);
                }
                Ok(Some(Err(error))) => failure = error,
                Ok(None) => return Err(failure),
                Err(_none_for_a_head_start) => {}
            }
        }
    }

    /// For one of so many. Of more than are asked at once, a silent one makes room before whoever comes after it is due.
    fn patience(&self, count: usize) -> Duration {
        match count {
            0 | 1 => self.connect,
            2..=MOST_AT_ONCE => self.connect.min(OF_SEVERAL),
            _ => self.head_start * MOST_AT_ONCE as u32,
        }
    }

    async fn ask<T, F>(
        &self,
        address: SocketAddr,
        patience: Duration,
        dial: impl Fn(Uri) -> F,
    ) -> Result<(SocketAddr, T), ConnectError>
    where
        F: Future<Output = Result<T, ConnectError>>,
    {
        let mut asked = Asked { way: self, address, since: Instant::now(), answer: Answer::None };
        // TLS is the connector's business, so that the scheme says nothing.
        let uri = Uri::builder().scheme("http").authority(address.to_string()).path_and_query("/").build();
        let uri = uri.map_err(|_| ConnectError::NoHost { uri: Uri::default() })?;
        match tokio::time::timeout(patience, dial(uri)).await {
            Ok(Ok(connected)) => {
                asked.answer = Answer::Connected;
                Ok((address, connected))
            }
            Ok(Err(error)) => {
                asked.answer = Answer::Failed;
                Err(error)
            }
            Err(_) => Err(ConnectError::Timeout { address: address.to_string(), limit: patience }),
        }
    }

    /// The next connection goes elsewhere, if there is such; to this one not before `pause` is over.
    pub(super) fn give_up(&self, pause: Option<Duration>) {
        let Some(address) = *self.last() else { return };
        self.addresses.failed_at(address);
        if let Some(pause) = pause {
            self.addresses.leave_alone(address, pause);
        }
    }

    /// Whether the other is of the same channel.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.to, &other.to)
    }

    fn last(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that is asked for a connection.
///
/// Let go without an answer, it is asked last for a while if it had its head start, whoever let it go: another that won, or a caller
/// without patience. It may be alive and slow. But it would lose again each time, at the cost of a head start and half a
/// handshake for each certificate, and one that wins now and then would have its clients go to and fro; last in order costs nothing
/// but the order. Within its head start it had no chance, and keeps its place.
struct Asked<'a> {
    way: &'a Way,
    address: SocketAddr,
    since: Instant,
    answer: Answer,
}

enum Answer {
    None,
    Connected,
    Failed,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let has_failed = match self.answer {
            Answer::Connected => false,
            Answer::Failed => true,
            Answer::None => self.since.elapsed() >= self.way.head_start,
        };
        if has_failed {
            self.way.addresses.failed_at(self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        cell::{Cell, RefCell},
        io,
    };

    use super::*;

    /// How one of them takes a connection.
    #[derive(Clone, Copy, Eq, PartialEq)]
    enum Takes {
        Nothing,
        /// After so many milliseconds.
        RefusesAfter(u64),
        After(u64),
    }
    use Takes::{After, Nothing, RefusesAfter};

    /// So many issuers, in the order in which this program asks them.
    async fn way(count: u8) -> (Way, Vec<SocketAddr>) {
        let named = (1..=count).map(|number| format!("10.0.0.{number}:8081").parse().unwrap()).collect();
        let addresses = Addresses::new(named);
        let order = addresses.in_order().await.unwrap();
        let connect = Duration::from_secs(5);
        (Way { addresses, connect, head_start: HEAD_START, to: Arc::default() }, order)
    }

    struct Network<'a> {
        order: &'a [SocketAddr],
        take: &'a [Takes],
        /// Who was asked, and how many at once at most.
        asked: RefCell<Vec<SocketAddr>>,
        open: Cell<usize>,
        most: Cell<usize>,
    }

    struct Open<'a>(&'a Cell<usize>);

    impl Drop for Open<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    impl<'a> Network<'a> {
        fn new(order: &'a [SocketAddr], take: &'a [Takes]) -> Self {
            Self { order, take, asked: RefCell::default(), open: Cell::new(0), most: Cell::new(0) }
        }

        async fn dial(&self, uri: Uri) -> Result<SocketAddr, ConnectError> {
            let address: SocketAddr = uri.authority().unwrap().as_str().parse().unwrap();
            self.asked.borrow_mut().push(address);
            self.open.set(self.open.get() + 1);
            self.most.set(self.most.get().max(self.open.get()));
            let _open = Open(&self.open);
            let place = self.order.iter().position(|known| *known == address).unwrap();
            match self.take[place] {
                Nothing => std::future::pending().await,
                RefusesAfter(millis) => {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    let source = io::ErrorKind::ConnectionRefused.into();
                    Err(ConnectError::Tcp { address: address.to_string(), source })
                }
                After(millis) => {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    Ok(address)
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_silent_ones_of_three_cost_a_head_start_each_and_are_asked_last_afterwards() {
        let (way, order) = way(3).await;
        let network = Network::new(&order, &[Nothing, Nothing, After(10)]);
        let begun = Instant::now();
        let to = way.clone().connect(|uri| network.dial(uri)).await.unwrap();
        assert_eq!(to, order[2]);
        assert!(begun.elapsed() < 3 * HEAD_START, "{:?}", begun.elapsed());
        assert_eq!(*network.asked.borrow(), order);
        assert_eq!(way.addresses.in_order().await.unwrap()[0], order[2]);
        assert_eq!(network.open.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_after_one_that_refuses_is_asked_at_once() {
        let (way, order) = way(3).await;
        let network = Network::new(&order, &[RefusesAfter(0), RefusesAfter(0), After(0)]);
        let begun = Instant::now();
        assert_eq!(way.connect(|uri| network.dial(uri)).await.unwrap(), order[2]);
        assert!(begun.elapsed() < HEAD_START, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_within_its_head_start_is_the_only_one_asked() {
        let (way, order) = way(3).await;
        let network = Network::new(&order, &[After(200), After(0), After(0)]);
        assert_eq!(way.clone().connect(|uri| network.dial(uri)).await.unwrap(), order[0]);
        assert_eq!(*network.asked.borrow(), order[..1]);
        assert_eq!(way.addresses.in_order().await.unwrap(), order);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_had_no_head_start_when_another_won_keeps_its_place() {
        let (way, order) = way(3).await;
        let network = Network::new(&order, &[After(300), After(100), After(0)]);
        assert_eq!(way.clone().connect(|uri| network.dial(uri)).await.unwrap(), order[0]);
        assert_eq!(*network.asked.borrow(), order[..2]);
        assert_eq!(way.addresses.in_order().await.unwrap(), order);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_far_away_does_not_have_its_clients_go_to_and_fro() {
        let (way, order) = way(2).await;
        let network = Network::new(&order, &[After(600), After(20)]);
        for _ in 0..5 {
            assert_eq!(way.clone().connect(|uri| network.dial(uri)).await.unwrap(), order[1]);
        }
        let asked = network.asked.borrow();
        assert_eq!(asked.iter().filter(|address| **address == order[0]).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_silent_ones_never_more_than_four_are_asked_at_once() {
        let (way, order) = way(12).await;
        let mut take = [Nothing; 12];
        take[11] = After(10);
        let network = Network::new(&order, &take);
        let begun = Instant::now();
        assert_eq!(way.clone().connect(|uri| network.dial(uri)).await.unwrap(), order[11]);
        assert_eq!((network.most.get(), network.asked.borrow().len()), (MOST_AT_ONCE, 12));
        assert!(begun.elapsed() < 12 * HEAD_START, "{:?}", begun.elapsed());
        // Nor where four fail at one moment, and four others begin at that.
        tokio::time::advance(Duration::from_secs(120)).await;
        take[..4].copy_from_slice(&[760, 511, 262, 13].map(RefusesAfter));
        let network = Network::new(&order, &take);
        assert_eq!(way.connect(|uri| network.dial(uri)).await.unwrap(), order[11]);
        assert_eq!((network.most.get(), network.asked.borrow().len()), (MOST_AT_ONCE, 12));
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_answers_the_attempt_ends_and_all_have_failed() {
        let (way, order) = way(3).await;
        let network = Network::new(&order, &[Nothing, RefusesAfter(0), Nothing]);
        let begun = Instant::now();
        let error = way.clone().connect(|uri| network.dial(uri)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
        assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
        assert!(!way.addresses.has_another(begun));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_without_patience_asks_another_the_next_time() {
        let (way, order) = way(2).await;
        let network = Network::new(&order, &[Nothing, Nothing]);
        let asking = way.clone().connect(|uri| network.dial(uri));
        tokio::time::timeout(Duration::from_millis(400), asking).await.unwrap_err();
        assert_eq!(way.addresses.in_order().await.unwrap(), [order[1], order[0]]);
    }
}
