use std::{
    cmp::Ordering,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use time::OffsetDateTime;

/// Byte strings of one length, each remembered until its time is over. Immutable; an addition shares what was there.
///
/// ```text
/// the largest layer │ one sixteenth of it at most │ a sixteenth of that …     a newcomer is a layer of its own,
/// ██████████████████│ ███                         │ ▌                         merged when it is too large for that
/// ```
/// Each layer is an array in which an entry stands where a keyed hash says, or soon after: 26 bytes for a serial number of 16. A few bits of
/// each, in an array of their own that caches hold, tell of all but one in thirty that are not there that they are not.
/// So a look costs one miss of the caches, and of what is not there none in memory; benchmark: `revocation`.
#[derive(Clone)]
pub(super) struct Layers<const N: usize> {
    /// Drawn for this set, so that nobody can choose strings that share a place.
    hasher: RandomState,
    /// The largest first.
    layers: Vec<Arc<Layer<N>>>,
}

/// What is remembered, and until when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry<const N: usize> {
    pub(super) key: [u8; N],
    pub(super) until: Until,
}

/// Whole seconds of Unix time. What lies beyond 2106 is for ever.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(super) struct Until(u32);

struct Layer<const N: usize> {
    /// In the order of their hashes, with empty ones between them.
    slots: Box<[Entry<N>]>,
    /// Three bits of each entry; a power of two of these.
    marks: Box<[u32]>,
    len: usize,
    /// When half of it is over.
    half_over: Until,
}

/// The share of its larger neighbour that makes a layer too large to stand beside it.
const SHARE: usize = 16;
/// Of the entries, for each of the marks, at least.
const ENTRIES_OF_A_MARK: usize = 4;
/// What is over is remembered for a while all the same: a clock that goes back shall not bring it back to life.
pub(super) const GRACE: u32 = 2 * 3600;

impl<const N: usize> Layers<N> {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), layers: Vec::new() }
    }

    pub(super) fn contains(&self, key: &[u8; N]) -> bool {
        self.find(key).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.layers.iter().map(|layer| layer.len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Remembers these too, each until its latest time. What is over `now` is left out. Whether there is anything new.
    pub(super) fn add(&mut self, entries: impl IntoIterator<Item = Entry<N>>, now: OffsetDateTime) -> bool {
        let now = Until::from(now);
        let is_new = |entry: &Entry<N>| {
            !entry.until.is_over(now) && self.find(&entry.key).is_none_or(|known| known.until < entry.until)
        };
        let mut hashed: Vec<_> =
            entries.into_iter().filter(is_new).map(|entry| (self.hasher.hash_one(entry.key), entry)).collect();
        if hashed.is_empty() {
            return false;
        }
        hashed.sort_unstable_by(|(hash, entry), (other, other_entry)| {
            hash.cmp(other).then_with(|| entry.key.cmp(&other_entry.key)).then(other_entry.until.cmp(&entry.until))
        });
        hashed.dedup_by(|(_, later), (_, kept)| later.key == kept.key);
        let layer = Layer::new(hashed.iter().map(|(_, entry)| *entry), hashed.len(), &self.hasher);
        self.layers.push(Arc::new(layer));
        self.settle(now);
        true
    }

    /// Forgets what is over where that is half of a layer. Whether there was such.
    pub(super) fn forget(&mut self, now: OffsetDateTime) -> bool {
        let now = Until::from(now);
        let mut forgotten = false;
        for layer in &mut self.layers {
            if layer.half_over.is_over(now) {
                let left: Vec<_> = layer.entries().filter(|entry| !entry.until.is_over(now)).copied().collect();
                *layer = Arc::new(Layer::new(left.iter().copied(), left.len(), &self.hasher));
                forgotten = true;
            }
        }
        if forgotten {
            self.layers.retain(|layer| layer.len > 0);
            self.layers.sort_by_key(|layer| std::cmp::Reverse(layer.len));
            self.settle(now);
        }
        forgotten
    }

    /// Merges from the end, until each layer is small beside the one before it.
    fn settle(&mut self, now: Until) {
        while let [.., larger, last] = &self.layers[..]
            && last.len >= larger.len / SHARE
        {
            let merged = larger.merged(last, &self.hasher, now);
            self.layers.truncate(self.layers.len() - 2);
            if merged.len > 0 {
                self.layers.push(Arc::new(merged));
            }
        }
    }

    fn find(&self, key: &[u8; N]) -> Option<&Entry<N>> {
        if self.layers.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        // The latest is asked first: it may say more of what another says too.
        self.layers.iter().rev().find_map(|layer| layer.find(hash, key))
    }
}

impl<const N: usize> Layer<N> {
    /// Of `len` entries in the order of their hashes.
    fn new(entries: impl Iterator<Item = Entry<N>>, len: usize, hasher: &RandomState) -> Self {
        let room = room_of(len);
        let mut marks = vec![0; (len / ENTRIES_OF_A_MARK).next_power_of_two()].into_boxed_slice();
        // The last ones may stand behind all places.
        let mut slots = Vec::with_capacity(room + room / 64 + 16);
        for entry in entries {
            let hash = hasher.hash_one(entry.key);
            marks[mark_of(hash, marks.len())] |= bits_of(hash);
            if slots.len() < place_of(hash, room) {
                slots.resize(place_of(hash, room), Entry::EMPTY);
            }
            slots.push(entry);
        }
        let mut layer = Self { slots: slots.into_boxed_slice(), marks, len, half_over: Until::NEVER };
        let mut times: Vec<_> = layer.entries().map(|entry| entry.until).collect();
        if len > 0 {
            layer.half_over = *times.select_nth_unstable(len / 2).1;
        }
        layer
    }

    fn entries(&self) -> impl Iterator<Item = &Entry<N>> + Clone {
        self.slots.iter().filter(|slot| slot.until != Until::NEVER)
    }

    fn find(&self, hash: u64, key: &[u8; N]) -> Option<&Entry<N>> {
        let bits = bits_of(hash);
        if self.marks.get(mark_of(hash, self.marks.len()))? & bits != bits {
            return None;
        }
        let slots = self.slots.get(place_of(hash, room_of(self.len))..)?;
        slots.iter().take_while(|slot| slot.until != Until::NEVER).find(|slot| slot.key == *key)
    }

    /// Both, without what is over.
    fn merged(&self, other: &Self, hasher: &RandomState, now: Until) -> Self {
        let entries = merge(self, other, hasher).filter(|entry| !entry.until.is_over(now));
        // Counted first, so that nothing is in memory a third time.
        Self::new(entries.clone(), entries.count(), hasher)
    }
}

/// In the order of their hashes; of what both have, the one that is remembered longer.
fn merge<'a, const N: usize>(
    left: &'a Layer<N>,
    right: &'a Layer<N>,
    hasher: &'a RandomState,
) -> impl Iterator<Item = Entry<N>> + Clone + 'a {
    let hashed = |layer: &'a Layer<N>| layer.entries().map(|entry| (hasher.hash_one(entry.key), *entry)).peekable();
    let (mut left, mut right) = (hashed(left), hashed(right));
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (Some((hash, entry)), Some((other, other_entry))) => hash.cmp(other).then(entry.key.cmp(&other_entry.key)),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Less => left.next().map(|(_, entry)| entry),
            Ordering::Greater => right.next().map(|(_, entry)| entry),
            Ordering::Equal => {
                let both = left.next().zip(right.next());
                both.map(|((_, entry), (_, other))| if entry.until >= other.until { entry } else { other })
            }
        }
    })
}

/// How many places there are for so many: a quarter more.
fn room_of(len: usize) -> usize {
    len + len / 4 + 1
}

/// Where an entry stands if nobody else does.
fn place_of(hash: u64, room: usize) -> usize {
    ((u128::from(hash) * room as u128) >> 64) as usize
}

/// Which of the marks is for it, and its bits there: of other bits of the hash than its place.
fn mark_of(hash: u64, marks: usize) -> usize {
    (hash >> 16) as usize & (marks - 1)
}

fn bits_of(hash: u64) -> u32 {
    let bit = |from: u32| 1 << (hash >> from & 31);
    bit(0) | bit(5) | bit(10)
}

impl<const N: usize> Entry<N> {
    const EMPTY: Self = Self { key: [0; N], until: Until::NEVER };
}

impl Until {
    /// Of an empty place: no time is as early.
    const NEVER: Self = Self(0);

    pub(super) fn from_unix(seconds: i64) -> Self {
        Self(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX))
    }

    fn is_over(self, now: Self) -> bool {
        self.0 != u32::MAX && self.0.saturating_add(GRACE) < now.0
    }
}

impl From<OffsetDateTime> for Until {
    fn from(time: OffsetDateTime) -> Self {
        Self::from_unix(time.unix_timestamp())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    fn entry(number: u32, until: i64) -> Entry<4> {
        Entry { key: number.to_be_bytes(), until: Until::from_unix(until) }
    }

    /// What a layered set must be equal to.
    #[derive(Default)]
    struct Naive(HashMap<[u8; 4], Until>);

    impl Naive {
        fn add(&mut self, entries: &[Entry<4>], now: OffsetDateTime) {
            for entry in entries.iter().filter(|entry| !entry.until.is_over(now.into())) {
                let until = self.0.entry(entry.key).or_insert(entry.until);
                *until = (*until).max(entry.until);
            }
        }

        fn has(&self, number: u32, now: OffsetDateTime) -> bool {
            self.0.get(&number.to_be_bytes()).is_some_and(|until| !until.is_over(now.into()))
        }
    }

    proptest! {
        #[test]
        fn a_layered_set_holds_what_a_plain_one_would(
            batches in prop::collection::vec(
                (prop::collection::vec((0..500_u32, 0..60_000_i64), 0..80), 0..4_000_i64, any::<bool>()), 0..40),
        ) {
            let (mut layers, mut naive, mut now) = (Layers::new(), Naive::default(), 0);
            for (batch, passed, forget) in batches {
                now += passed;
                let batch: Vec<_> = batch.into_iter().map(|(number, until)| entry(number, until)).collect();
                let before = layers.clone();
                let (kept, size) = (before.contains(&7_u32.to_be_bytes()), before.len());
                layers.add(batch.iter().copied(), at(now));
                naive.add(&batch, at(now));
                if forget {
                    layers.forget(at(now));
                }
                for number in 0..500_u32 {
                    let found = layers.contains(&number.to_be_bytes());
                    // What is over may be remembered longer; what is not is never forgotten.
                    prop_assert!(found || !naive.has(number, at(now)), "{number} was forgotten");
                    prop_assert!(!found || naive.0.contains_key(&number.to_be_bytes()), "{number} was never added");
                }
                prop_assert_eq!((before.contains(&7_u32.to_be_bytes()), before.len()), (kept, size));
            }
        }
    }

    #[test]
    fn layers_stay_few_however_many_are_added_one_by_one() {
        let mut layers = Layers::new();
        for number in 0..5_000 {
            layers.add([entry(number, 1 << 31)], at(0));
            assert!(layers.layers.len() <= 5, "{} layers of {}", layers.layers.len(), layers.len());
        }
        assert_eq!(layers.len(), 5_000);
        assert!((0..5_000_u32).all(|number| layers.contains(&number.to_be_bytes())));
        assert!((5_000..9_000_u32).all(|number| !layers.contains(&number.to_be_bytes())));
    }

    #[test]
    fn what_is_over_leaves_after_a_while_and_not_before() {
        let mut layers = Layers::new();
        layers.add((0..100).map(|number| entry(number, 1_000)), at(0));
        layers.add([entry(100, 1_000_000)], at(0));
        let grace = i64::from(GRACE);
        assert!(!layers.forget(at(1_000 + grace)));
        assert!((0..=100_u32).all(|number| layers.contains(&number.to_be_bytes())));
        assert!(layers.forget(at(1_001 + grace)));
        assert_eq!(layers.len(), 1);
        assert!(layers.contains(&100_u32.to_be_bytes()));
        // It is not taken in again either.
        assert!(!layers.add([entry(5, 1_000)], at(1_001 + grace)));
        assert!(layers.forget(at(2_000_000)) && layers.is_empty() && !layers.contains(&100_u32.to_be_bytes()));
    }

    #[test]
    fn what_is_said_again_is_nothing_new_unless_it_lasts_longer() {
        let mut layers = Layers::new();
        assert!(layers.add([entry(1, 1_000), entry(1, 3_000), entry(1, 2_000)], at(0)));
        assert!(!layers.add([entry(1, 3_000), entry(1, 10)], at(0)));
        assert!(layers.add([entry(1, 9_000_000)], at(0)));
        assert_eq!(layers.len(), 1);
        layers.forget(at(100_000));
        assert!(layers.contains(&1_u32.to_be_bytes()));
    }

    #[test]
    fn what_lies_beyond_the_range_of_seconds_is_for_ever() {
        let mut layers = Layers::new();
        layers.add([entry(1, i64::MAX), entry(2, i64::MIN)], at(100_000));
        assert!(layers.contains(&1_u32.to_be_bytes()) && !layers.contains(&2_u32.to_be_bytes()));
        layers.forget(time::macros::datetime!(9999-12-31 23:59:59 UTC));
        assert!(layers.contains(&1_u32.to_be_bytes()));
    }
}
