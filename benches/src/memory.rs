//! Handshakes without a network: two rustls ends that hand each other their bytes.

use std::io;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;
use signet_identity::{
    ClientAuthentication, ClientCredentials, ClientKey, ClientPolicy, Material, RevocationSet, ServerKey, ServerPolicy,
    Snapshot, SpiffeIdPattern, SystemClock, TlsPolicies, TrustBundle, X509Svid,
};
use signet_test_pki::{Authority, Issued};

/// Both ends of one mesh: policies with one server and one client in them.
#[derive(Debug)]
pub struct Ends {
    pub policies: TlsPolicies,
    pub server: ServerKey,
    pub client: ClientKey,
}

impl Ends {
    /// A server that demands a client SVID, and a client that believes any server of `example.org`.
    pub fn new() -> anyhow::Result<Self> {
        let mut policies = TlsPolicies::new(Arc::new(SystemClock));
        let server = policies.server(ServerPolicy { alpn: Vec::new(), clients: ClientAuthentication::Required });
        let anybody: SpiffeIdPattern = "spiffe://example.org/**".parse()?;
        let client = policies.client(ClientPolicy {
            alpn: Vec::new(),
            servers: [anybody].into_iter().collect(),
            credentials: ClientCredentials::Svid,
        });
        Ok(Self { policies, server, client })
    }

    /// A first snapshot: nothing is carried over into it, so its chain cache is empty.
    pub fn snapshot(&self, issued: &Issued, authority: &Authority) -> anyhow::Result<Snapshot> {
        self.successor(issued, authority, None)
    }

    /// The snapshot after `previous`, whose chain cache and tickets it takes over if the bundle is the same.
    pub fn successor(
        &self,
        issued: &Issued,
        authority: &Authority,
        previous: Option<&Snapshot>,
    ) -> anyhow::Result<Snapshot> {
        Ok(Snapshot::build(material(issued, authority)?, &self.policies, previous)?)
    }
}

/// What a source would deliver: an SVID and the bundle of its own trust domain.
pub fn material(issued: &Issued, authority: &Authority) -> anyhow::Result<Material> {
    let svid = X509Svid::from_der(issued.chain.clone(), issued.key())?;
    let bundle = TrustBundle::new(svid.id().trust_domain().clone(), vec![authority.root_certificate().clone()])?;
    Ok(Material { svid, bundles: [bundle].into_iter().collect(), revocations: RevocationSet::default() })
}

/// Runs a handshake to its end, session ticket included.
pub fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> anyhow::Result<(ServerConnection, ClientConnection)> {
    let name = ServerName::try_from("signet.invalid")?;
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    let mut flight = Vec::with_capacity(8 * 1024);
    while client.wants_write() || server.wants_write() {
        flight.clear();
        while client.wants_write() {
            client.write_tls(&mut flight)?;
        }
        let mut unread = flight.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread)?;
            server.process_new_packets().map_err(io::Error::other)?;
        }
        flight.clear();
        while server.wants_write() {
            server.write_tls(&mut flight)?;
        }
        let mut unread = flight.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread)?;
            client.process_new_packets().map_err(io::Error::other)?;
        }
    }
    Ok((server, client))
}
