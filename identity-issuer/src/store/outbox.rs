//! Acts whose record is elsewhere: a file of the issuer's, or none.
//!
//! They are put here once they are made, and before they have an effect. Each transaction takes what is here into the log, before its own
//! entries. So no certificate, which needs a transaction, leaves before the entries of what it depends on. What is lost here by a kill is
//! said again at the next start: how things are then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signet_audit::Act;
use tokio::sync::Notify;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    acts: Mutex<Vec<Act>>,
    posted: Notify,
}

/// With a database that is away. What is beyond is left out, and an entry says how many.
const MOST: usize = 4096;

impl Outbox {
    /// Waits for nothing.
    pub(crate) fn post(&self, act: Act) {
        let mut acts = self.acts();
        let is_full = acts.len() >= MOST;
        match acts.last_mut() {
            Some(Act::LeftOut { count }) => *count += 1,
            _ if is_full => acts.push(Act::LeftOut { count: 1 }),
            _ => acts.push(act),
        }
        drop(acts);
        self.0.posted.notify_one();
    }

    /// What waits, in its order.
    pub(super) fn waiting(&self) -> Vec<Act> {
        self.acts().clone()
    }

    /// These, which waited first, are in the log.
    pub(super) fn taken(&self, taken: &[Act]) {
        let mut acts = self.acts();
        let count = taken.len().min(acts.len());
        let last = acts.drain(..count).next_back();
        // What was left out meanwhile is not among them.
        if let (Some(Act::LeftOut { count: now }), Some(Act::LeftOut { count: then })) = (last, taken.last())
            && now > *then
        {
            acts.insert(0, Act::LeftOut { count: now - then });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.acts().is_empty()
    }

    /// Once something was posted.
    pub(super) async fn posted(&self) {
        self.0.posted.notified().await;
    }

    /// Nothing panics while it is held.
    fn acts(&self) -> MutexGuard<'_, Vec<Act>> {
        self.0.acts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(number: usize) -> Act {
        Act::Started { software: number.to_string() }
    }

    #[test]
    fn what_comes_while_some_is_taken_stays() {
        let outbox = Outbox::default();
        (0..3).for_each(|number| outbox.post(started(number)));
        let waiting = outbox.waiting();
        outbox.post(started(3));
        outbox.taken(&waiting);
        assert_eq!(outbox.waiting(), [started(3)]);
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let outbox = Outbox::default();
        (0..MOST + 5).for_each(|number| outbox.post(started(number)));
        let waiting = outbox.waiting();
        assert_eq!((waiting.len(), waiting.last()), (MOST + 1, Some(&Act::LeftOut { count: 5 })));
        // Also what comes while those are being written.
        outbox.post(started(0));
        outbox.post(started(0));
        outbox.taken(&waiting);
        assert_eq!(outbox.waiting(), [Act::LeftOut { count: 2 }]);
        outbox.post(started(0));
        outbox.taken(&outbox.waiting());
        outbox.post(started(7));
        assert_eq!(outbox.waiting(), [started(7)]);
    }
}
