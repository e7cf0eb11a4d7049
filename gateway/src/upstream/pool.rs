//! Connections over HTTP/1.1 that wait for their next request. Nobody drives them meanwhile: whether one is still open shows
//! when it is taken out, or at the next sweep.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::http1::Connection;
use crate::deadlines::Deadlines;

/// The last one in is the first one out, so that those that are not needed grow old.
#[derive(Debug)]
pub(super) struct Idle {
    // A request takes one out and puts it back: that moves a pointer instead of a kilobyte.
    #[expect(clippy::vec_box)]
    connections: RefCell<Vec<Box<Connection>>>,
    /// Those that are only to be closed.
    #[expect(clippy::vec_box)]
    retired: Rc<RefCell<Vec<Box<Connection>>>>,
    max: usize,
    timeout_ms: u64,
    /// Counts how often all of them were given up: one that was in use then is not kept either.
    epoch: Cell<u64>,
}

impl Idle {
    pub(super) fn new(max: usize, timeout: Duration) -> Self {
        Self {
            connections: RefCell::default(),
            retired: Rc::default(),
            max,
            timeout_ms: timeout.as_millis() as u64,
            epoch: Cell::new(0),
        }
    }

    /// A connection that is open as far as anybody knows.
    pub(super) fn take(&self, deadlines: &Deadlines) -> Option<Box<Connection>> {
        loop {
            let mut connection = self.connections.borrow_mut().pop()?;
            // Within a tick of its last use it is not closed for idleness; under load that spares most looks.
            let just_used = connection.idle_since_ms == deadlines.uptime_ms();
            if just_used && connection.is_usable(deadlines) || connection.is_still_usable(deadlines) {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next request; when there are enough of them, it is closed.
    pub(super) fn keep(&self, mut connection: Box<Connection>, deadlines: &Deadlines) {
        let mut connections = self.connections.borrow_mut();
        if connections.len() < self.max && connection.epoch == self.epoch.get() {
            connection.idle_since_ms = deadlines.uptime_ms();
            connections.push(connection);
        }
    }

    pub(super) fn sweep(&self, deadlines: &Deadlines) {
        let now = deadlines.uptime_ms();
        let is_over = |connection: &mut Box<Connection>| {
            now.saturating_sub(connection.idle_since_ms) >= self.timeout_ms || !connection.is_still_usable(deadlines)
        };
        let over: Vec<_> = self.connections.borrow_mut().extract_if(.., is_over).collect();
        self.retire(over);
    }

    /// Whether there was one.
    pub(super) fn drop_oldest(&self) -> bool {
        if self.retired.borrow_mut().pop().is_some() {
            return true;
        }
        let mut connections = self.connections.borrow_mut();
        let any = !connections.is_empty();
        connections.drain(..usize::from(any));
        any
    }

    /// Of connections that are made from now on.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    pub(super) fn clear(&self) {
        self.epoch.set(self.epoch.get() + 1);
        self.retire(self.connections.take());
    }

    /// Closes them, a few at a time: a thousand at once would stall the worker.
    #[expect(clippy::vec_box)]
    fn retire(&self, mut connections: Vec<Box<Connection>>) {
        if connections.is_empty() {
            return;
        }
        self.retired.borrow_mut().append(&mut connections);
        let retired = self.retired.clone();
        tokio::task::spawn_local(async move {
            loop {
                let left = retired.borrow().len();
                if left == 0 {
                    return;
                }
                retired.borrow_mut().truncate(left.saturating_sub(CLOSED_AT_ONCE));
                tokio::task::yield_now().await;
            }
        });
    }
}

/// Some 20 µs each.
const CLOSED_AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use signet_identity::SystemClock;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::runtime::LocalOptions;

    use super::super::slots::Slots;
    use super::*;
    use crate::metrics::Metrics;
    use crate::stream::Stream;

    #[test]
    fn retired_connections_are_closed_a_few_at_a_time_and_make_room_meanwhile() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        runtime.unwrap().block_on(async {
            let metrics = Metrics::register(&prometheus::Registry::new()).unwrap().upstream("app");
            let deadlines = Deadlines::new(std::sync::Arc::new(SystemClock));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (idle, slots) = (Idle::new(100, Duration::from_secs(60)), Slots::new(100));
            let mut servers = Vec::new();
            for _ in 0..100 {
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                servers.push(listener.accept().await.unwrap());
                let connection = Connection::over(Stream::Plain(stream), None, slots.take().unwrap(), &metrics);
                idle.keep(connection, &deadlines);
            }
            let in_use = idle.take(&deadlines).unwrap();
            idle.clear();
            assert!(idle.take(&deadlines).is_none());
            assert!(slots.take().is_none());
            assert!(idle.drop_oldest());
            let mut before = metrics.connections.get();
            assert_eq!(before, 99);
            while before > 1 {
                tokio::task::yield_now().await;
                let now = metrics.connections.get();
                assert!((1..=CLOSED_AT_ONCE as i64).contains(&(before - now)), "{before}, then {now}");
                before = now;
            }
            assert!(!idle.drop_oldest());
            // One that was in use meanwhile is kept no more than the others.
            idle.keep(in_use, &deadlines);
            assert_eq!(metrics.connections.get(), 0);
        });
    }
}
