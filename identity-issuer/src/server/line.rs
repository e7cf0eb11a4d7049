//! Connections in the order of their age, of which the oldest give way when there is no room.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

/// Connections of one kind, oldest first, each with what is known of it.
#[derive(Debug)]
pub(crate) struct Line<T> {
    next: u64,
    by_number: BTreeMap<u64, Standing<T>>,
}

#[derive(Debug)]
struct Standing<T> {
    what: T,
    gives_way: CancellationToken,
}

impl<T> Line<T> {
    pub(crate) fn new() -> Self {
        Self { next: 0, by_number: BTreeMap::new() }
    }

    /// Its number, and what is cancelled when it has to go.
    pub(crate) fn join(&mut self, what: T) -> (u64, CancellationToken) {
        let (number, gives_way) = (self.next, CancellationToken::new());
        self.next += 1;
        self.by_number.insert(number, Standing { what, gives_way: gives_way.clone() });
        (number, gives_way)
    }

    /// None for one that gave way.
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.by_number.get_mut(&number).map(|standing| &mut standing.what)
    }

    /// None for one that gave way before.
    pub(crate) fn leave(&mut self, number: u64) -> Option<T> {
        self.by_number.remove(&number).map(|standing| standing.what)
    }

    /// Tells the oldest of these to go; its room is free at once. None if there is no such.
    pub(crate) fn oldest_gives_way(&mut self, of_these: impl Fn(&T) -> bool) -> Option<T> {
        let number = *self.by_number.iter().find(|(_, standing)| of_these(&standing.what))?.0;
        let Standing { what, gives_way } = self.by_number.remove(&number)?;
        gives_way.cancel();
        Some(what)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.by_number.values().map(|standing| &standing.what)
    }
}
