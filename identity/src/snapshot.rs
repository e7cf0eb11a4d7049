use std::{fmt, sync::Arc};

use rustls::{ClientConfig, ServerConfig, crypto::aws_lc_rs::Ticketer, server::ProducesTickets};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::{
    BundleSet, ClientAuthentication, ClientKey, ClientPolicy, PeerError, PeerIdentity, RevocationError, RevocationSet,
    Revoked, ServerKey, ServerPolicy, SharedClock, TlsPolicies, TrustDomain, X509Svid,
    tls::{client_config, expect_server, server_config},
    verify::{Role, Trust, verify_unrevoked},
};

/// What a source delivers: our own identity, and what to judge others by.
#[derive(Clone, Debug)]
pub struct Material {
    pub svid: X509Svid,
    pub bundles: BundleSet,
    /// Empty where the source knows of none.
    pub revocations: RevocationSet,
}

/// Counts the snapshots of one process, from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Generation(u64);

/// Counts the changes of what is trusted, from 1. Sessions are not resumed across epochs, and a peer of one is judged
/// anew in the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct TrustEpoch(u64);

/// Everything one handshake needs, of one generation. Immutable; replaced whole.
pub struct Snapshot {
    generation: Generation,
    trust: Arc<Trust>,
    clock: SharedClock,
    svid: X509Svid,
    expires_at: OffsetDateTime,
    /// How far what is revoked is known; what it is, `trust` has as well.
    revocations: RevocationSet,
    own_revoked: Option<Revoked>,
    renewed_in: Generation,
    servers: Vec<Server>,
    clients: Vec<Client>,
}

struct Server {
    policy: Arc<ServerPolicy>,
    tickets: Arc<dyn ProducesTickets>,
    config: Arc<ServerConfig>,
}

struct Client {
    policy: Arc<ClientPolicy>,
    config: Arc<ClientConfig>,
}

/// Why material cannot become live. The snapshot before it stays good.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Expired, not yet valid, or not vouched for by the bundle of its own trust domain.
    #[error("peers would refuse the new identity")]
    Identity(#[source] PeerError),
    #[error("no key for session tickets could be drawn")]
    Tickets(#[source] rustls::Error),
}

impl Snapshot {
    /// Checks that the material belongs together and is valid now, and makes a configuration for each policy.
    ///
    /// With the bundles and revocations of `previous`, its trust epoch goes on: tickets and verified chains stay good, so a
    /// new leaf of the same authority costs no full handshakes. With others a new epoch begins, without tickets, and with those chains only
    /// whose authority is still there, and of which nothing is revoked.
    ///
    /// That our own SVID is revoked keeps nothing from becoming live: what was revoked with it has to be.
    pub fn build(material: Material, policies: &TlsPolicies, previous: Option<&Self>) -> Result<Self, SnapshotError> {
        let Material { svid, bundles, revocations } = material;
        let clock = policies.clock().clone();
        let revocations = revocations.forgetting(clock.now());
        let trust = trust(bundles, revocations.clone(), previous, clock.now());
        let own = judge_own(&svid, &trust, clock.now()).map_err(SnapshotError::Identity)?;
        let servers = policies
            .servers()
            .iter()
            .map(|policy| {
                let tickets = tickets(policy, &svid, &trust, previous).map_err(SnapshotError::Tickets)?;
                let config = server_config(policy, &svid, &trust, &tickets, policies);
                Ok(Server { policy: policy.clone(), tickets, config })
            })
            .collect::<Result<_, SnapshotError>>()?;
        let clients = policies
            .clients()
            .iter()
            .map(|policy| Client { policy: policy.clone(), config: client_config(policy, &svid, &trust, policies) })
            .collect();
        let generation = previous.map_or(Generation::FIRST, |previous| previous.generation.next());
        let is_renewed =
            |previous: &&Self| previous.svid.leaf() != svid.leaf() || previous.bundles() != trust.bundles();
        let renewed_in = match previous {
            Some(previous) if !is_renewed(&previous) => previous.renewed_in,
            Some(_) | None => generation,
        };
        let OwnChain { expires_at, revoked: own_revoked } = own;
        Ok(Self { generation, trust, clock, svid, expires_at, revocations, own_revoked, renewed_in, servers, clients })
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub fn trust_epoch(&self) -> TrustEpoch {
        self.trust.epoch()
    }

    pub fn svid(&self) -> &X509Svid {
        &self.svid
    }

    pub fn bundles(&self) -> &BundleSet {
        self.trust.bundles()
    }

    /// What is revoked, and how far that is known.
    pub fn revocations(&self) -> &RevocationSet {
        &self.revocations
    }

    /// What of our own chain is revoked: peers refuse it, as they come to know.
    pub fn own_revoked(&self) -> Option<&Revoked> {
        self.own_revoked.as_ref()
    }

    /// The generation in which our SVID or the bundles changed last. What is revoked since then concerns those
    /// connections only whose peers it is about.
    pub fn renewed_in(&self) -> Generation {
        self.renewed_in
    }

    /// When peers with the same bundles begin to refuse our own chain: the earliest notAfter of its verified path, the
    /// anchor included.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at
    }

    /// # Panics
    /// When the key is not of the policies that this snapshot was built with.
    pub fn server(&self, key: ServerKey) -> &Arc<ServerConfig> {
        &self.servers[key.index()].config
    }

    /// # Panics
    /// When the key is not of the policies that this snapshot was built with.
    pub fn client(&self, key: ClientKey) -> &Arc<ClientConfig> {
        &self.clients[key.index()].config
    }

    /// Who the client is of a connection that was accepted with [`server`](Self::server). To be asked after every
    /// handshake, full or resumed, with the connection's `peer_certificates()`; of a resumed one nothing else judges
    /// the peer. `None` only where the policy lets a client come without an identity.
    ///
    /// # Panics
    /// When the key is not of the policies that this snapshot was built with.
    pub fn peer_of_server_connection(
        &self,
        key: ServerKey,
        chain: Option<&[CertificateDer<'_>]>,
    ) -> Result<Option<Arc<PeerIdentity>>, PeerError> {
        let clients = self.servers[key.index()].policy.clients;
        match (self.judge(Role::Client, chain), clients) {
            (Err(PeerError::NoCertificate), ClientAuthentication::Optional) => Ok(None),
            (judged, ClientAuthentication::Optional | ClientAuthentication::Required) => judged.map(Some),
        }
    }

    /// Who the server is of a connection that was made with [`client`](Self::client). To be asked after every
    /// handshake, full or resumed, with the connection's `peer_certificates()`; of a resumed one nothing else judges
    /// the peer.
    ///
    /// # Panics
    /// When the key is not of the policies that this snapshot was built with.
    pub fn peer_of_client_connection(
        &self,
        key: ClientKey,
        chain: Option<&[CertificateDer<'_>]>,
    ) -> Result<Arc<PeerIdentity>, PeerError> {
        let peer = self.judge(Role::Server, chain)?;
        expect_server(&self.clients[key.index()].policy.servers, &peer)?;
        Ok(peer)
    }

    /// Whether the peer of a live connection, believed under an earlier snapshot, can be believed now under this one.
    /// Cheap unless its authority is gone: no signature is verified twice.
    pub fn still_accepts(&self, peer: &PeerIdentity) -> Result<(), PeerError> {
        self.trust.still_accepts(peer, self.clock.now())
    }

    /// Whether leaves that this authority of `trust_domain` signs would be believed now: its certificate first, then those that lead to a
    /// root of the bundle.
    pub fn accepts_authority(
        &self,
        trust_domain: &TrustDomain,
        chain: &[CertificateDer<'_>],
    ) -> Result<(), RevocationError> {
        let (revocations, bundles) = (self.trust.revocations(), self.trust.bundles());
        revocations.check_authority(trust_domain, chain, bundles, self.clock.now())
    }

    fn judge(&self, role: Role, chain: Option<&[CertificateDer<'_>]>) -> Result<Arc<PeerIdentity>, PeerError> {
        let (leaf, intermediates) = chain.and_then(<[_]>::split_first).ok_or(PeerError::NoCertificate)?;
        self.trust.judge(role, leaf, intermediates, self.clock.now())
    }
}

/// The previous epoch as long as the same are trusted, else the next.
fn trust(
    bundles: BundleSet,
    revocations: RevocationSet,
    previous: Option<&Snapshot>,
    now: OffsetDateTime,
) -> Arc<Trust> {
    match previous {
        Some(previous) if *previous.bundles() == bundles && previous.trust.revocations().revokes_same(&revocations) => {
            previous.trust.clone()
        }
        Some(previous) => Arc::new(previous.trust.next(bundles, revocations, now)),
        None => Arc::new(Trust::new(TrustEpoch::FIRST, bundles, revocations)),
    }
}

/// What peers make of our own chain.
struct OwnChain {
    expires_at: OffsetDateTime,
    revoked: Option<Revoked>,
}

/// Judges our own chain as both kinds of peers would, but for what is revoked of it, which is told.
fn judge_own(svid: &X509Svid, trust: &Trust, now: OffsetDateTime) -> Result<OwnChain, PeerError> {
    let (leaf, intermediates) = svid.chain().split_first().ok_or(PeerError::NoCertificate)?;
    let mut own = OwnChain { expires_at: OffsetDateTime::UNIX_EPOCH, revoked: None };
    for role in [Role::Client, Role::Server] {
        own.expires_at = match trust.judge(role, leaf, intermediates, now) {
            Ok(peer) => peer.expires_at(),
            Err(PeerError::Revoked(revoked)) => {
                own.revoked = Some(revoked);
                verify_unrevoked(trust.bundles(), role, leaf, intermediates, now)?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(own)
}

/// The tickets of the same policy in the same trust epoch, else new ones. Another own ID is a new server too: whoever
/// resumed would take it for the old one. So is one that another authority vouches for: whoever resumed would go by the
/// chain before, and hang up once the authority in it is trusted no more.
fn tickets(
    policy: &Arc<ServerPolicy>,
    svid: &X509Svid,
    trust: &Arc<Trust>,
    previous: Option<&Snapshot>,
) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    previous
        .filter(|previous| Arc::ptr_eq(&previous.trust, trust))
        .filter(|previous| previous.svid.id() == svid.id() && previous.svid.intermediates() == svid.intermediates())
        .and_then(|previous| previous.servers.iter().find(|server| Arc::ptr_eq(&server.policy, policy)))
        .map_or_else(Ticketer::new, |server| Ok(server.tickets.clone()))
}

impl Generation {
    const FIRST: Self = Self(1);

    pub fn get(self) -> u64 {
        self.0
    }

    fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl TrustEpoch {
    pub(crate) const FIRST: Self = Self(1);

    pub fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TrustEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("generation", &self.generation.0)
            .field("trust_epoch", &self.trust_epoch().0)
            .field("svid", &self.svid)
            .field("bundles", self.bundles())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
