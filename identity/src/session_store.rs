use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
};
use rustls_pki_types::ServerName;
use time::{Duration, OffsetDateTime};

use crate::SharedClock;

const MAX_SERVERS: usize = 1024;
const MAX_TICKETS: usize = 8;

/// Sessions are given up this long before their server's chain expires, so that a handshake on its way does not end
/// with a peer that is refused.
const MARGIN: Duration = Duration::seconds(1);

/// The sessions that one client configuration may resume.
///
/// A resumed session brings the server's chain of its first handshake with it. When that expires, the session is
/// worth nothing, although the server may long have a new certificate: a store that kept it would turn a renewal of
/// the server into failed connections. Hence what is kept for a server ends with the chain that expires first.
pub(crate) struct SessionStore {
    clock: SharedClock,
    servers: Mutex<HashMap<ServerName<'static>, Server>>,
}

#[derive(Default)]
struct Server {
    group: Option<NamedGroup>,
    tickets: VecDeque<Tls13ClientSessionValue>,
    ends_at: Option<OffsetDateTime>,
}

impl SessionStore {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self { clock, servers: Mutex::default() }
    }

    /// A full handshake with this server was verified until `expires_at`.
    pub(crate) fn verified(&self, name: &ServerName<'_>, expires_at: OffsetDateTime) {
        let now = self.clock.now();
        self.edit(name.to_owned(), |server| {
            server.forget_expired(now);
            server.ends_at = Some(server.ends_at.map_or(expires_at, |ends_at| ends_at.min(expires_at)));
        });
    }

    fn edit(&self, name: ServerName<'static>, change: impl FnOnce(&mut Server)) {
        let mut servers = self.servers();
        let full = servers.len() >= MAX_SERVERS;
        match servers.entry(name) {
            Entry::Occupied(server) => change(server.into_mut()),
            Entry::Vacant(place) if !full => change(place.insert(Server::default())),
            // The servers of a configuration are few; begin anew rather than keep count of their use.
            Entry::Vacant(place) => {
                let name = place.into_key();
                servers.clear();
                change(servers.entry(name).or_default());
            }
        }
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<ServerName<'static>, Server>> {
        // Every change is whole before the lock is released.
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    fn forget_expired(&mut self, now: OffsetDateTime) {
        if self.ends_at.is_some_and(|ends_at| now + MARGIN >= ends_at) {
            self.tickets.clear();
            self.ends_at = None;
        }
    }
}

impl ClientSessionStore for SessionStore {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.edit(server_name, |server| server.group = Some(group));
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.servers().get(server_name).and_then(|server| server.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.edit(server_name, |server| {
            if server.tickets.len() == MAX_TICKETS {
                server.tickets.pop_front();
            }
            server.tickets.push_back(value);
        });
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let now = self.clock.now();
        let mut servers = self.servers();
        let server = servers.get_mut(server_name)?;
        server.forget_expired(now);
        server.tickets.pop_back()
    }
}

impl fmt::Debug for SessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionStore").field("servers", &self.servers().len()).finish_non_exhaustive()
    }
}
