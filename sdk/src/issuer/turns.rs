//! When to ask again. Where one of several issuers failed, another is asked at once; only when all have, there is a pause.

use std::time::Duration;

use tokio::time::Instant;

use super::{addresses::Addresses, client::CallError};
use crate::backoff::{Backoff, random_fraction};

/// All that were connected to an issuer when it went know it at one moment: over this time they come to the others.
const SPREAD: Duration = Duration::from_millis(250);

/// Of one kind of call.
#[derive(Debug)]
pub(super) struct Turns {
    addresses: Addresses,
    backoff: Backoff,
    /// Whoever has failed since then has had its turn.
    since: Instant,
    /// In which all failed.
    rounds: u32,
}

impl Turns {
    pub(super) fn new(addresses: &Addresses, backoff: Backoff) -> Self {
        Self { addresses: addresses.clone(), backoff, since: Instant::now(), rounds: 0 }
    }

    /// Whether another issuer is to be asked at once, after `error`, whose issuer was given up.
    pub(super) fn is_anothers(&self, error: &CallError) -> bool {
        error.is_not_served() && self.addresses.has_another(self.since)
    }

    /// How long to wait after it.
    pub(super) fn after(&mut self, error: &CallError) -> Duration {
        match self.is_anothers(error) {
            true => SPREAD.mul_f64(random_fraction()),
            false => self.pause(),
        }
    }

    /// Another issuer would say the same, or has. No shorter than all want to be left alone.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.backoff.delay().max(self.addresses.free_in());
        self.since = Instant::now() + pause;
        self.rounds = self.rounds.saturating_add(1);
        pause
    }

    /// Returns when there is an issuer that does not want to be left alone.
    pub(super) async fn is_there_one(&self) {
        tokio::time::sleep(self.addresses.free_in()).await;
    }

    /// How many times all have failed.
    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The next pause is the shortest again.
    pub(super) fn reset(&mut self) {
        self.rounds = 0;
        self.since = Instant::now();
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn three() -> (Addresses, Vec<std::net::SocketAddr>) {
        let named = (1..=3).map(|number| format!("10.0.0.{number}:8081").parse().unwrap()).collect();
        let addresses = Addresses::new(named);
        let order = addresses.in_order().await.unwrap();
        (addresses, order)
    }

    fn ended() -> CallError {
        CallError::Ended { address: String::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_lost_an_issuer_at_one_moment_come_to_others_at_different_ones() {
        let (addresses, _) = three().await;
        let waits = (0..100).map(|_| Turns::new(&addresses, Backoff::new()).after(&ended()));
        let (earliest, latest) = (waits.clone().min().unwrap(), waits.max().unwrap());
        assert!(earliest < SPREAD / 4 && (SPREAD * 3 / 4..SPREAD).contains(&latest), "{earliest:?} {latest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_several_is_asked_once_before_there_is_a_pause() {
        let (addresses, order) = three().await;
        let mut turns = Turns::new(&addresses, Backoff::new());
        // Until pauses are long.
        let longest = (0..8).map(|_| turns.pause()).last().unwrap();
        tokio::time::advance(longest).await;
        for round in 0..3 {
            for (place, expected) in order.iter().enumerate() {
                let first = addresses.in_order().await.unwrap()[0];
                assert_eq!(first, *expected, "round {round}");
                addresses.failed_at(first);
                let wait = turns.after(&ended());
                assert_eq!(wait > SPREAD, place == 2, "round {round}, place {place}: {wait:?}");
                tokio::time::advance(wait).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_want_to_be_left_alone_the_shortest_time_is_waited() {
        let (addresses, order) = three().await;
        let mut turns = Turns::new(&addresses, Backoff::new());
        for (address, seconds) in order.iter().zip([50, 30, 40]) {
            addresses.failed_at(*address);
            addresses.leave_alone(*address, Duration::from_secs(seconds));
        }
        let wait = turns.after(&ended());
        assert!((Duration::from_secs(30)..Duration::from_secs(45)).contains(&wait), "{wait:?}");
        let begun = Instant::now();
        turns.is_there_one().await;
        assert!(begun.elapsed() >= Duration::from_secs(30));
    }
}
