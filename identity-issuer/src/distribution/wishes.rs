//! "Renew now", for those who were not there when it was asked.

use std::collections::HashMap;

use time::OffsetDateTime;

use super::{RenewNow, Watcher};
use crate::store::Whose;

/// What was asked, for those who were not there.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    of_everybody: Option<Wish>,
    pub(super) of: HashMap<Whose, Wish>,
}

#[derive(Copy, Clone, Debug)]
pub(super) struct Wish {
    /// Tells the later one of two.
    pub(super) at: OffsetDateTime,
    /// It is for certificates up to this one.
    pub(super) position: i64,
    pub(super) renew_now: RenewNow,
}

/// Of identities and authorities. Whoever has not come since the oldest of them has renewed by itself, most likely.
pub(super) const MOST: usize = 4096;

impl Wishes {
    /// Whether it is new.
    pub(super) fn remember(&mut self, whose: &Whose, wish: Wish) -> bool {
        let is_later = |present: &Wish| present.at < wish.at;
        if *whose == Whose::Everybody {
            let is_new = self.of_everybody.as_ref().is_none_or(is_later);
            if is_new {
                self.of_everybody = Some(wish);
                self.of.retain(|_, present| !is_later(present));
            }
            return is_new;
        }
        if !self.of.get(whose).is_none_or(is_later) || !self.of_everybody.as_ref().is_none_or(is_later) {
            return false;
        }
        if self.of.len() >= MOST && !self.of.contains_key(whose) {
            let oldest = self.of.iter().min_by_key(|(_, wish)| wish.at).map(|(whose, _)| whose.clone());
            if let Some(oldest) = oldest {
                self.of.remove(&oldest);
            }
        }
        self.of.insert(whose.clone(), wish);
        true
    }

    /// Of one whose certificate was there before.
    pub(super) fn of(&self, watcher: &Watcher) -> Option<Wish> {
        let of = |whose: Whose| self.of.get(&whose);
        let wishes = [
            self.of_everybody.as_ref(),
            of(Whose::Id(watcher.id.clone())),
            of(Whose::Authority(watcher.authority.clone())),
        ];
        let later = wishes.into_iter().flatten().filter(|wish| wish.position >= watcher.position);
        later.max_by_key(|wish| wish.at).copied()
    }
}
