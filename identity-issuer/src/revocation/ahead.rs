//! Clients that have heard of more than there is on record, as after a backup that came back: they refuse what comes until the record has
//! come as far again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;
use signet_identity::WorkloadId;

/// Those that are connected. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Ahead(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clients: Mutex<Clients>,
    gauge: IntGauge,
}

#[derive(Debug, Default)]
struct Clients {
    /// Of the last one.
    number: u64,
    /// By the order in which they came.
    known: BTreeMap<u64, Known>,
}

#[derive(Debug)]
struct Known {
    client: WorkloadId,
    /// What it says that it knows.
    epoch: u64,
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub(crate) struct IsAhead {
    of: Ahead,
    number: u64,
}

/// What an operator is told.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Summary {
    pub(super) clients: usize,
    /// A few of them, each once.
    pub(super) named: Vec<WorkloadId>,
    /// The least that one of them knows: the rest may be a lie of one.
    pub(super) least: u64,
}

const MOST_NAMED: usize = 8;

impl Ahead {
    pub(super) fn new(gauge: IntGauge) -> Self {
        Self(Arc::new(Inner { clients: Mutex::default(), gauge }))
    }

    pub(super) fn add(&self, client: WorkloadId, epoch: u64) -> IsAhead {
        let mut clients = self.clients();
        clients.number += 1;
        let number = clients.number;
        clients.known.insert(number, Known { client, epoch });
        self.count(&clients);
        IsAhead { of: self.clone(), number }
    }

    /// The record has come so far.
    pub(super) fn has_come_to(&self, epoch: u64) {
        let mut clients = self.clients();
        clients.known.retain(|_, known| known.epoch > epoch);
        self.count(&clients);
    }

    /// Where there are any.
    pub(super) fn summary(&self) -> Option<Summary> {
        let clients = self.clients();
        let least = clients.known.values().map(|known| known.epoch).min()?;
        let names: BTreeSet<&WorkloadId> = clients.known.values().map(|known| &known.client).collect();
        let named = names.into_iter().take(MOST_NAMED).cloned().collect();
        Some(Summary { clients: clients.known.len(), named, least })
    }

    fn count(&self, clients: &Clients) {
        self.0.gauge.set(i64::try_from(clients.known.len()).unwrap_or(i64::MAX));
    }

    /// Nothing panics while it is held.
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for IsAhead {
    fn drop(&mut self) {
        let mut clients = self.of.clients();
        clients.known.remove(&self.number);
        self.of.count(&clients);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_is_counted_until_it_goes_or_the_record_has_come_as_far() {
        let gauge = IntGauge::new("ahead", "clients").unwrap();
        let ahead = Ahead::new(gauge.clone());
        assert_eq!((ahead.summary(), gauge.get()), (None, 0));
        let client = |name: &str| -> WorkloadId { format!("spiffe://example.org/{name}").parse().unwrap() };
        let liar = ahead.add(client("liar"), u64::MAX);
        let twice = [7, 9].map(|epoch| ahead.add(client("a"), epoch));
        let told = ahead.summary().unwrap();
        assert_eq!((told.clients, told.named, told.least), (3, vec![client("a"), client("liar")], 7));
        ahead.has_come_to(7);
        assert_eq!((ahead.summary().unwrap().least, gauge.get()), (9, 2));
        drop(twice);
        assert_eq!(gauge.get(), 1);
        drop(liar);
        assert_eq!((ahead.summary(), gauge.get()), (None, 0));
        let many: Vec<_> = (0..20).map(|number| ahead.add(client(&format!("n{number}")), 1)).collect();
        assert_eq!((ahead.summary().unwrap().named.len(), many.len()), (MOST_NAMED, 20));
    }
}
