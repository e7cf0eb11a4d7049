//! Which connections there are, so that all of them can be told to end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use signet_identity::PeerIdentity;
use signet_process::log_limit::LogLimit;
use slab::Slab;

use super::{Control, Order};

/// The connections of one worker, on one of its two sides.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    connections: RefCell<Slab<Rc<Control>>>,
    /// Peers that a change of trust cuts off may be many.
    pub(super) distrusted: LogLimit,
}

impl Registry {
    pub(crate) fn register(self: &Rc<Self>, peer: Option<Arc<PeerIdentity>>) -> Registered {
        let control = Rc::new(Control { peer, order: Cell::new(Order::Serve), waker: RefCell::default() });
        let key = self.connections.borrow_mut().insert(control.clone());
        Registered { control, registry: self.clone(), key }
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.borrow().len()
    }

    /// How many places there are, empty ones too.
    pub(super) fn places(&self) -> usize {
        self.connections.borrow().capacity()
    }

    pub(super) fn at(&self, place: usize) -> Option<Rc<Control>> {
        self.connections.borrow().get(place).cloned()
    }

    pub(crate) fn order_all(&self, order: Order) {
        // Waking does not run a task, so nothing comes back here while this is borrowed.
        for (_, control) in &*self.connections.borrow() {
            control.give(order);
        }
    }

    /// The same to those connections only whose peers have proved an identity, and were shown ours.
    pub(crate) fn order_peers(&self, order: Order) {
        for (_, control) in &*self.connections.borrow() {
            if control.peer.is_some() {
                control.give(order);
            }
        }
    }
}

/// A connection's place in the registry.
#[derive(Debug)]
pub(crate) struct Registered {
    control: Rc<Control>,
    registry: Rc<Registry>,
    key: usize,
}

impl std::ops::Deref for Registered {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let removed = self.registry.connections.borrow_mut().try_remove(self.key);
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::super::Cause;
    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_watches_is_woken_by_an_order_and_by_nothing_weaker() {
        let registry = Rc::new(Registry::default());
        let connection = registry.register(None);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        for (order, times) in [
            (Order::Drain(Cause::Shutdown), 1),
            (Order::Drain(Cause::Idle), 1),
            (Order::End(Cause::Shutdown), 2),
            (Order::Drain(Cause::Idle), 2),
        ] {
            // The last one who watches, whoever did before.
            connection.watch(&Context::from_waker(Waker::noop()));
            connection.watch(&Context::from_waker(&waker));
            registry.order_all(order);
            assert_eq!(woken.0.load(Ordering::Relaxed), times, "{order:?}");
        }
    }

    #[test]
    fn an_order_is_never_taken_back_or_weakened() {
        let registry = Rc::new(Registry::default());
        let connection = registry.register(None);
        registry.order_all(Order::Drain(Cause::Shutdown));
        connection.give(Order::Drain(Cause::Idle));
        assert_eq!(connection.order(), Order::Drain(Cause::Shutdown));
        connection.give(Order::End(Cause::PeerExpired));
        registry.order_all(Order::End(Cause::Shutdown));
        assert_eq!(connection.order(), Order::End(Cause::PeerExpired));
        drop(connection);
        assert_eq!(registry.len(), 0);
    }
}
