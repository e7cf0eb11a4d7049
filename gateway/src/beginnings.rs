//! Room for connections that have not yet said who they are.
//!
//! A caller that opens connections and says nothing must not keep others out, and a crowd that comes at once must not be
//! turned away. So there are places for so many beginnings; when all are taken, whoever has had one for longer than
//! [`GRACE`] loses it to the next, the longest first; and before that the next waits in the kernel's queue.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Beginnings {
    places: usize,
    taken: RefCell<Taken>,
    /// A place became free.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// In the order of their coming.
    by_number: BTreeMap<u64, (Instant, Rc<Notify>)>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    beginnings: Rc<Beginnings>,
    number: u64,
    lost: Rc<Notify>,
}

impl Beginnings {
    pub(crate) fn new(places: usize) -> Rc<Self> {
        Rc::new(Self { places, taken: RefCell::default(), freed: Notify::new() })
    }

    /// Waits for room for one more.
    pub(crate) async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            let oldest = {
                let taken = self.taken.borrow();
                if taken.by_number.len() < self.places {
                    return;
                }
                taken.by_number.values().next().map(|(since, _)| *since)
            };
            let Some(since) = oldest else { return };
            if since.elapsed() >= GRACE {
                self.evict_oldest();
                return;
            }
            tokio::select! {
                () = freed => {}
                () = tokio::time::sleep_until(since + GRACE) => {}
            }
        }
    }

    pub(crate) fn take(self: &Rc<Self>) -> Place {
        let lost = Rc::new(Notify::new());
        let mut taken = self.taken.borrow_mut();
        let number = taken.next;
        taken.next += 1;
        taken.by_number.insert(number, (Instant::now(), lost.clone()));
        Place { beginnings: self.clone(), number, lost }
    }

    fn evict_oldest(&self) {
        if let Some((_, (_, lost))) = self.taken.borrow_mut().by_number.pop_first() {
            lost.notify_one();
        }
    }
}

impl Place {
    /// What came of `beginning`, or none when the place was lost to another.
    pub(crate) async fn hold<T>(self, beginning: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            begun = beginning => Some(begun),
            () = self.lost.notified() => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.beginnings.taken.borrow_mut().by_number.remove(&self.number).is_some() {
            self.beginnings.freed.notify_one();
        }
    }
}

/// A handshake takes one round trip and less than a millisecond of work.
const GRACE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test);
    }

    #[test]
    fn who_says_nothing_loses_its_place_to_the_next() {
        run(async {
            let beginnings = Beginnings::new(2);
            let (silent, second) = (beginnings.take(), beginnings.take());
            let began = Instant::now();
            beginnings.room().await;
            assert!(began.elapsed() >= GRACE, "a crowd that comes at once is not turned away");
            let _third = beginnings.take();
            assert!(silent.hold(std::future::pending::<()>()).await.is_none());
            assert!(second.hold(async {}).await.is_some());
        });
    }

    #[test]
    fn a_place_that_is_given_back_is_free_at_once() {
        run(async {
            let beginnings = Beginnings::new(1);
            let place = beginnings.take();
            let began = Instant::now();
            let (room, _) = tokio::join!(beginnings.room(), async { drop(place) });
            let () = room;
            assert!(began.elapsed() < GRACE);
        });
    }
}
