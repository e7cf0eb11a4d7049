//! Connections without a client certificate. They only attest, so that whichever does nothing gives way to a newer one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::line::Line;

/// The places of one listener.
#[derive(Debug)]
pub(super) struct AnonymousPlaces {
    line: Arc<Mutex<Line<Work>>>,
    max: usize,
}

/// The place of one connection; given up when dropped.
#[derive(Debug)]
pub(super) struct AnonymousPlace {
    number: u64,
    line: Arc<Mutex<Line<Work>>>,
    pub(super) work: Work,
    /// Cancelled when the connection has to end.
    pub(super) gives_way: CancellationToken,
}

/// How many requests of a connection are being worked on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work(Arc<AtomicUsize>);

/// One request that was read whole and is worked on until this is dropped.
#[derive(Debug)]
pub(crate) struct Working(Work);

impl AnonymousPlaces {
    pub(super) fn new(max: usize) -> Self {
        Self { line: Arc::new(Mutex::new(Line::new())), max }
    }

    /// None when each of them is being worked for.
    pub(super) fn enter(&self) -> Option<AnonymousPlace> {
        let work = Work::default();
        let mut line = lock(&self.line);
        if line.len() >= self.max {
            line.oldest_gives_way(Work::is_idle)?;
        }
        let (number, gives_way) = line.join(work.clone());
        drop(line);
        Some(AnonymousPlace { number, line: Arc::clone(&self.line), work, gives_way })
    }
}

impl Drop for AnonymousPlace {
    fn drop(&mut self) {
        lock(&self.line).leave(self.number);
    }
}

impl Work {
    /// To be called once a request is there in full: one that its caller sends for ever keeps nobody out.
    pub(crate) fn begin(&self) -> Working {
        self.0.fetch_add(1, Ordering::Relaxed);
        Working(self.clone())
    }

    fn is_idle(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Nothing panics while it is held.
fn lock(line: &Mutex<Line<Work>>) -> MutexGuard<'_, Line<Work>> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_oldest_that_does_nothing_gives_way_and_none_that_is_worked_for() {
        let places = AnonymousPlaces::new(2);
        let (attesting, idle) = (places.enter().unwrap(), places.enter().unwrap());
        let working = attesting.work.begin();
        let newer = places.enter().unwrap();
        assert!(idle.gives_way.is_cancelled() && !attesting.gives_way.is_cancelled());
        let _working = newer.work.begin();
        assert!(places.enter().is_none());
        drop(working);
        let _newest = places.enter().unwrap();
        assert!(attesting.gives_way.is_cancelled() && !newer.gives_way.is_cancelled());
    }

    #[test]
    fn a_place_is_given_up_with_its_connection() {
        let places = AnonymousPlaces::new(1);
        for _ in 0..3 {
            let place = places.enter().unwrap();
            let _working = place.work.begin();
        }
    }
}
