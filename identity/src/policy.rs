use std::sync::Arc;

use crate::{SharedClock, SpiffeIdPatterns};

/// What this process offers and demands in TLS, as server and as client. It is known before the first identity, and
/// every [`Snapshot`](crate::Snapshot) is built with a ready configuration for each policy. Clones share the
/// policies.
#[derive(Clone, Debug)]
pub struct TlsPolicies {
    clock: SharedClock,
    servers: Vec<Arc<ServerPolicy>>,
    clients: Vec<Arc<ClientPolicy>>,
    secret_extraction: bool,
}

/// Names a [`ServerPolicy`] of the [`TlsPolicies`] that it was given to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServerKey(usize);

/// Names a [`ClientPolicy`] of the [`TlsPolicies`] that it was given to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientKey(usize);

/// A listener's side of TLS. TLS 1.3 only; its session tickets are worth nothing under another policy.
#[derive(Clone, Debug)]
pub struct ServerPolicy {
    /// The protocols offered, the preferred first; empty offers none.
    pub alpn: Vec<Vec<u8>>,
    pub clients: ClientAuthentication,
}

/// Whether a client must present its identity.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientAuthentication {
    /// Without a valid certificate there is no connection.
    Required,
    /// A client may come without a certificate, as one does that has yet to be attested. One that it presents must be
    /// valid.
    Optional,
}

/// A connector's side of TLS. TLS 1.3 only; the server's name in DNS plays no part and is not sent.
#[derive(Clone, Debug)]
pub struct ClientPolicy {
    /// The protocols asked for, the preferred first; empty asks for none.
    pub alpn: Vec<Vec<u8>>,
    /// Who the server must be, checked within the handshake. Empty matches no server.
    pub servers: SpiffeIdPatterns,
    pub credentials: ClientCredentials,
}

/// What a connector presents when the server asks for a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientCredentials {
    /// The snapshot's own SVID.
    Svid,
    /// Nothing.
    None,
}

impl TlsPolicies {
    /// No policies yet. The clock is the one that certificates are judged by.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, servers: Vec::new(), clients: Vec::new(), secret_extraction: false }
    }

    /// Lets connections be taken out of rustls' hands after their handshake, traffic secrets included, by a process that
    /// has a record layer of its own (`rustls::kernel`).
    pub fn enable_secret_extraction(&mut self) {
        self.secret_extraction = true;
    }

    /// Adds a policy to those that later snapshots are built with.
    pub fn server(&mut self, policy: ServerPolicy) -> ServerKey {
        self.servers.push(Arc::new(policy));
        ServerKey(self.servers.len() - 1)
    }

    /// Adds a policy to those that later snapshots are built with.
    pub fn client(&mut self, policy: ClientPolicy) -> ClientKey {
        self.clients.push(Arc::new(policy));
        ClientKey(self.clients.len() - 1)
    }

    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    pub(crate) fn has_secret_extraction(&self) -> bool {
        self.secret_extraction
    }

    pub(crate) fn servers(&self) -> &[Arc<ServerPolicy>] {
        &self.servers
    }

    pub(crate) fn clients(&self) -> &[Arc<ClientPolicy>] {
        &self.clients
    }
}

impl ServerKey {
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

impl ClientKey {
    pub(crate) fn index(self) -> usize {
        self.0
    }
}
