use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::PeerIdentity;

/// Chains for 4096 peers: 16 KiB when empty, about 8 MiB when full, 64 MiB if each chain is as large as is allowed.
const SETS: usize = 1024;
const WAYS: usize = 4;

/// SHA-256 over a presented chain, each certificate preceded by its length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ChainKey([u8; 32]);

/// Peers whose chains are verified under one trust epoch in one role. Bounded; to read it takes no lock.
///
/// Only what was verified comes in, so what an attacker makes up never pushes an honest peer out; and only chains in
/// the path's own order without a spare certificate, so that one leaf cannot fill the cache by being presented in
/// many ways. Nor can one identity by many certificates: it makes place for a new one of its own where it has more places
/// than others.
///
/// A set has its slots from its first entry on. To store into a slot, or to drop one, is to look through what every thread of the
/// process reads: of four thousand empty ones that took longer than all else of a change of trust. Two that bring a set its first entries
/// at once wait for each other's allocation of it; nobody else waits, and no reader ever.
pub(crate) struct ChainCache {
    sets: Box<[OnceLock<Box<Set>>]>,
}

type Set = [Slot; WAYS];

#[derive(Default)]
struct Slot(ArcSwapOption<Entry>);

struct Entry {
    key: ChainKey,
    peer: Arc<PeerIdentity>,
}

impl ChainKey {
    pub(crate) fn new<'a>(chain: impl Iterator<Item = &'a CertificateDer<'a>>) -> Self {
        let mut context = Context::new(&SHA256);
        for certificate in chain {
            context.update(&(certificate.len() as u64).to_be_bytes());
            context.update(certificate);
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        Self(key)
    }

    fn number(&self, from: usize) -> usize {
        usize::from(self.0[from]) << 8 | usize::from(self.0[from + 1])
    }
}

impl ChainCache {
    pub(crate) fn new() -> Self {
        Self { sets: (0..SETS).map(|_| OnceLock::new()).collect() }
    }

    /// The peer of this very chain, if it was verified before and its whole path is valid now. No lock, no allocation.
    pub(crate) fn get(&self, key: &ChainKey, now: OffsetDateTime) -> Option<Arc<PeerIdentity>> {
        self.sets[set_of(key)].get()?.iter().find_map(|slot| {
            let entry = slot.0.load();
            let entry = entry.as_ref().filter(|entry| entry.key == *key)?;
            entry.peer.path.contains(now).then(|| Arc::clone(&entry.peer))
        })
    }

    /// Remembers a verified peer: in the slot of the same chain, else in a free or expired one, else in place of
    /// another: one of the identity that would have the most of this set.
    pub(crate) fn insert(&self, key: ChainKey, peer: &Arc<PeerIdentity>, now: OffsetDateTime) {
        let set = self.sets[set_of(&key)].get_or_init(Box::default);
        let place = position(&**set, |entry| entry.is_some_and(|entry| entry.key == key))
            .or_else(|| position(&**set, |entry| entry.is_none_or(|entry| entry.peer.path.not_after < now)))
            .unwrap_or_else(|| crowded(&**set, peer, key.number(2) % WAYS));
        set[place].0.store(Some(Arc::new(Entry { key, peer: Arc::clone(peer) })));
    }

    /// Takes the entries of an earlier cache that `holds` is true of; to be called before others use this one.
    pub(crate) fn take_over(&self, earlier: &Self, holds: impl Fn(&PeerIdentity) -> bool) {
        for (set, earlier) in self.sets.iter().zip(&earlier.sets) {
            let Some(earlier) = earlier.get() else { continue };
            let held = earlier.each_ref().map(|slot| slot.0.load_full().filter(|entry| holds(&entry.peer)));
            if held.iter().any(Option::is_some) {
                // Nobody has used it yet.
                let _ = set.set(Box::new(held.map(|entry| Slot(ArcSwapOption::new(entry)))));
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let slots = self.sets.iter().filter_map(OnceLock::get).flat_map(|set| set.iter());
        slots.filter(|slot| slot.0.load().is_some()).count()
    }
}

fn set_of(key: &ChainKey) -> usize {
    key.number(0) % SETS
}

/// A slot of the identity that would have the most of the set's slots with the newcomer; of several such identities,
/// the first from `start` on.
fn crowded(set: &[Slot], newcomer: &PeerIdentity, start: usize) -> usize {
    let held: Vec<_> = set.iter().map(|slot| slot.0.load_full()).collect();
    let id = |slot: usize| held[slot].as_ref().map(|entry| &entry.peer.id);
    let share = |slot: usize| {
        let of_set = (0..set.len()).filter(|other| id(*other) == id(slot)).count();
        of_set + usize::from(id(slot) == Some(&newcomer.id))
    };
    let from_start = |slot: usize| (slot + set.len() - start) % set.len();
    (0..set.len()).max_by_key(|slot| (share(*slot), std::cmp::Reverse(from_start(*slot)))).unwrap_or(start)
}

fn position(set: &[Slot], wanted: impl Fn(Option<&Entry>) -> bool) -> Option<usize> {
    set.iter().position(|slot| wanted(slot.0.load().as_deref()))
}
