//! Connections over HTTP/1.1 that wait for their next request. Nobody drives them meanwhile: whether one is still open shows
//! when it is taken out, or at the next sweep.

use std::cell::RefCell;
use std::time::Duration;

use super::http1::Connection;
use crate::deadlines::Deadlines;

/// The last one in is the first one out, so that those that are not needed grow old.
#[derive(Debug)]
pub(super) struct Idle {
    // A request takes one out and puts it back: that moves a pointer instead of a kilobyte.
    #[expect(clippy::vec_box)]
    connections: RefCell<Vec<Box<Connection>>>,
    max: usize,
    timeout_ms: u64,
}

impl Idle {
    pub(super) fn new(max: usize, timeout: Duration) -> Self {
        Self { connections: RefCell::default(), max, timeout_ms: timeout.as_millis() as u64 }
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
        if connections.len() < self.max {
            connection.idle_since_ms = deadlines.uptime_ms();
            connections.push(connection);
        }
    }

    pub(super) fn sweep(&self, deadlines: &Deadlines) {
        let now = deadlines.uptime_ms();
        self.connections.borrow_mut().retain_mut(|connection| {
            now.saturating_sub(connection.idle_since_ms) < self.timeout_ms && connection.is_still_usable(deadlines)
        });
    }

    /// Whether there was one.
    pub(super) fn drop_oldest(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        let any = !connections.is_empty();
        connections.drain(..usize::from(any));
        any
    }

    pub(super) fn clear(&self) {
        self.connections.borrow_mut().clear();
    }
}
