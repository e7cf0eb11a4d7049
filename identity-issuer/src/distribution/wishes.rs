//! "Renew now", for those who were not there when it was asked.

use std::collections::HashMap;

use signet_identity::WorkloadId;
use time::OffsetDateTime;

use super::{RenewNow, Watcher};

/// What was asked of all holders of an identity, for those who were not there.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    of_everybody: Option<Wish>,
    pub(super) of: HashMap<WorkloadId, Wish>,
}

#[derive(Copy, Clone, Debug)]
pub(super) struct Wish {
    /// Tells the later one of two.
    pub(super) at: OffsetDateTime,
    /// It is for certificates up to this one.
    pub(super) position: i64,
    pub(super) renew_now: RenewNow,
}

/// Of identities. Whoever has not come since the oldest of them has renewed by itself, most likely.
pub(super) const MOST: usize = 4096;

impl Wishes {
    /// Whether it is new.
    pub(super) fn remember(&mut self, id: Option<&WorkloadId>, wish: Wish) -> bool {
        let is_later = |present: &Wish| present.at < wish.at;
        let Some(id) = id else {
            let is_new = self.of_everybody.as_ref().is_none_or(is_later);
            if is_new {
                self.of_everybody = Some(wish);
                self.of.retain(|_, present| !is_later(present));
            }
            return is_new;
        };
        if !self.of.get(id).is_none_or(is_later) || !self.of_everybody.as_ref().is_none_or(is_later) {
            return false;
        }
        if self.of.len() >= MOST && !self.of.contains_key(id) {
            let oldest = self.of.iter().min_by_key(|(_, wish)| wish.at).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                self.of.remove(&oldest);
            }
        }
        self.of.insert(id.clone(), wish);
        true
    }

    /// Of one whose certificate was there before.
    pub(super) fn of(&self, watcher: &Watcher) -> Option<Wish> {
        let wishes = [self.of_everybody.as_ref(), self.of.get(&watcher.id)];
        let later = wishes.into_iter().flatten().filter(|wish| wish.position >= watcher.position);
        later.max_by_key(|wish| wish.at).copied()
    }
}
