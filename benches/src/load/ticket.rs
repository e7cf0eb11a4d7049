//! The session tickets of one slot and identity.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls_pki_types::ServerName;

/// Counts the tickets that arrive, and keeps the newest where sessions are to be resumed. Never shared between connections that
/// live at the same time, so that a count that moves belongs to the connection at hand.
#[derive(Debug)]
pub(super) struct TicketBox {
    keep: Keep,
    arrived: AtomicUsize,
    newest: Mutex<Option<Tls13ClientSessionValue>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Keep {
    Nothing,
    Newest,
}

impl TicketBox {
    pub(super) fn new(keep: Keep) -> Self {
        Self { keep, arrived: AtomicUsize::new(0), newest: Mutex::new(None) }
    }

    /// Tickets seen since the start.
    pub(super) fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Relaxed)
    }
}

impl ClientSessionStore for TicketBox {
    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        if self.keep == Keep::Newest {
            *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(ticket);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    // The key exchange is fixed and TLS 1.2 is never offered.
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
}
