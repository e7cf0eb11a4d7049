//! How many connections there may be: each is a file descriptor, and callers decide how many requests wait at once.

use std::cell::Cell;
use std::rc::Rc;

/// The connections that one worker may have to one upstream.
#[derive(Debug)]
pub(super) struct Slots {
    taken: Rc<Cell<usize>>,
    max: usize,
}

/// The right to one connection, from before it is made until it is gone.
#[derive(Debug)]
pub(super) struct Slot(Rc<Cell<usize>>);

impl Slots {
    pub(super) fn new(max: usize) -> Self {
        Self { taken: Rc::default(), max }
    }

    /// None when all are taken.
    pub(super) fn take(&self) -> Option<Slot> {
        let taken = self.taken.get();
        (taken < self.max).then(|| {
            self.taken.set(taken + 1);
            Slot(self.taken.clone())
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_it_is_dropped() {
        let slots = Slots::new(2);
        let (first, second) = (slots.take(), slots.take());
        assert!(first.is_some() && second.is_some() && slots.take().is_none());
        drop(first);
        assert!(slots.take().is_some());
    }
}
