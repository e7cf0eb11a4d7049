//! One listener in one worker: it accepts, bounds what it accepts, and serves each connection in a task of its own.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use signet_identity::{LiveIdentity, PeerIdentity, ServerKey};
use tokio::net::TcpListener;

use crate::authorization::{Denial, Permission};
use crate::beginnings::{Beginnings, Place};
use crate::config::Mode;
use crate::connection::Ready;
use crate::handshake::{Accepted, HandshakeError, Refusal};
use crate::lifetime::{Cause, Order, Registered};
use crate::metrics::{Counted, ListenerMetrics};
use crate::upstream::{ForwardError, Upstream};
use crate::worker::{Core, vouching};

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: Arc<str>,
    pub(crate) mode: Mode,
    /// The TLS policy of an inbound listener.
    pub(crate) key: Option<ServerKey>,
    pub(crate) upstream: Rc<Upstream>,
    pub(crate) metrics: Rc<ListenerMetrics>,
    pub(crate) core: Rc<Core>,
}

impl Listener {
    /// Accepts until the worker closes; connections under way go on.
    pub(crate) async fn accept(self: Rc<Self>, socket: TcpListener) {
        let beginnings = Beginnings::new(self.core.handshakes);
        let accepting = async {
            loop {
                match socket.accept().await {
                    Ok((tcp, remote)) => {
                        beginnings.room().await;
                        self.clone().take_in(Accepted { tcp, remote }, beginnings.take());
                    }
                    Err(cause) => self.note_accept_error(&cause).await,
                }
            }
        };
        self.core.closing.run_until_cancelled(accepting).await;
    }

    fn take_in(self: Rc<Self>, accepted: Accepted, place: Place) {
        if self.core.callers.len() >= self.core.connections {
            return self.metrics.refused("connection_limit");
        }
        let open = Counted::in_gauge(&self.metrics.connections);
        tokio::task::spawn_local(async move {
            let cause = self.serve_connection(accepted, place).await;
            if let Some(cause) = cause {
                self.metrics.closed(cause);
            }
            drop(open);
        });
    }

    /// Serves one connection to its end, which is told when it was let in.
    async fn serve_connection(self: &Rc<Self>, accepted: Accepted, place: Place) -> Option<Cause> {
        // In boxes, so that a connection does not keep the room that its beginning needed.
        match self.key {
            Some(key) => {
                let remote = accepted.remote;
                let beginning = place.hold(self.unless_closing(self.authenticate(accepted, key)));
                let Some(begun) = Box::pin(beginning).await else {
                    self.refuse(remote, &Refusal { error: HandshakeError::CrowdedOut, kind: "full" });
                    return None;
                };
                let Some(authenticated) = begun else { return Some(Cause::Shutdown) };
                let (ready, control) = authenticated?;
                Some(ready.serve_requests(self, &control).await)
            }
            None => {
                drop(place);
                let control = self.core.callers.register(None);
                Some(match Box::pin(self.unless_closing(accepted.greet(self))).await {
                    Some(Ok(ready)) => ready.serve_requests(self, &control).await,
                    Some(Err(cause)) => cause,
                    None => Cause::Shutdown,
                })
            }
        }
    }

    /// None as soon as the worker closes: whoever has asked for nothing is not waited for.
    async fn unless_closing<T>(&self, beginning: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.core.closing.cancelled() => None,
            begun = beginning => Some(begun),
        }
    }

    async fn authenticate(self: &Rc<Self>, accepted: Accepted, key: ServerKey) -> Option<(Ready, Registered)> {
        let remote = accepted.remote;
        let identity = self.core.worker.identity.load_full();
        match accepted.handshake(&identity, key, self).await {
            Ok(authenticated) => {
                let control = self.core.callers.register(Some(authenticated.peer.clone()));
                // A peer that a snapshot published meanwhile does not accept was not yet in the registry to be judged.
                let current = self.core.worker.identity.load_full();
                if current.trust_epoch() != identity.trust_epoch()
                    && let Err(error) = current.still_accepts(&authenticated.peer)
                {
                    self.refuse(remote, &Refusal { error: HandshakeError::Peer(error), kind: "full" });
                    return None;
                }
                if vouching(&current) != vouching(&identity) {
                    control.give(Order::Drain(Cause::OwnAuthority));
                }
                let peer = authenticated.peer.clone();
                let ready = authenticated.ready(&identity, self);
                if let Permission::Denied(denial) = &ready.permission {
                    self.log_denied(remote, &peer, *denial);
                }
                Some((ready, control))
            }
            Err(refusal) => {
                self.refuse(remote, &refusal);
                None
            }
        }
    }

    fn refuse(&self, remote: SocketAddr, refusal: &Refusal) {
        let reason = refusal.error.reason();
        self.metrics.handshake_failed(reason, refusal.kind);
        if refusal.error.is_news()
            && let Some(suppressed) = self.core.refusals.admit()
        {
            let cause = signet_process::start::Report::of(&refusal.error).cause;
            tracing::warn!(listener = %self.name, peer.address = %remote, reason, %cause, suppressed, "caller refused");
        }
    }

    /// Once for each connection: every request on it meets the same answer.
    fn log_denied(&self, remote: SocketAddr, peer: &PeerIdentity, denial: Denial) {
        if let Some(suppressed) = self.core.refusals.admit() {
            let (id, reason) = (peer.id(), denial.reason());
            tracing::warn!(listener = %self.name, peer.address = %remote, peer.spiffe_id = %id, reason, suppressed, "caller denied");
        }
    }

    pub(crate) fn log_failure(&self, error: &ForwardError) {
        if let Some(suppressed) = self.core.failures.admit() {
            let cause = signet_process::start::Report::of(error).cause;
            tracing::warn!(listener = %self.name, upstream = %self.upstream.name(), reason = error.reason(), %cause, suppressed,
                "request failed");
        }
    }

    async fn note_accept_error(&self, cause: &io::Error) {
        // The caller went away while it waited.
        if matches!(cause.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        self.metrics.accept_errors.inc();
        if let Some(suppressed) = self.core.failures.admit() {
            tracing::error!(listener = %self.name, %cause, suppressed, "cannot accept connections");
        }
        // Out of descriptors or memory: asking again at once would only burn a core.
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Which identity a worker waits for before it listens.
pub(crate) type IdentityArrival = tokio::sync::watch::Receiver<Option<LiveIdentity>>;

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
