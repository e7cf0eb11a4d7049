//! Real handshakes in memory between configurations of two snapshots.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{Read, Write},
    sync::Mutex,
};

use rustls::{
    ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
};
use signet_test_pki::{Authority, Leaf};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::{
    ClientKey, Clock, LeafError, ManualClock, Material, RevocationSet, ServerKey, Snapshot, TlsPolicies, TrustBundle,
};

const CLIENT: &str = "spiffe://example.org/client";
const SERVER: &str = "spiffe://example.org/server";

/// A client and a server process of one trust domain, on one clock.
struct Mesh {
    root: Authority,
    issuing: Authority,
    clock: ManualClock,
    policies: TlsPolicies,
    strict: ServerKey,
    lenient: ServerKey,
    present: ClientKey,
    anonymous: ClientKey,
    stranger: ClientKey,
}

impl Mesh {
    fn new() -> Self {
        let root = Authority::root("example.org");
        let clock = ManualClock::new(OffsetDateTime::now_utc());
        let mut policies = TlsPolicies::new(clock.shared());
        let server = |clients| ServerPolicy { alpn: vec![b"h2".to_vec()], clients };
        let client = |servers: &str, credentials| ClientPolicy {
            alpn: vec![b"h2".to_vec()],
            servers: [servers.parse().unwrap()].into_iter().collect(),
            credentials,
        };
        Self {
            strict: policies.server(server(ClientAuthentication::Required)),
            lenient: policies.server(server(ClientAuthentication::Optional)),
            present: policies.client(client(SERVER, ClientCredentials::Svid)),
            anonymous: policies.client(client(SERVER, ClientCredentials::None)),
            stranger: policies.client(client("spiffe://example.org/other", ClientCredentials::Svid)),
            issuing: root.intermediate(),
            root,
            clock,
            policies,
        }
    }

    /// A leaf that lives for so many minutes from now.
    fn leaf(&self, uri: &str, minutes: i64) -> Leaf<'_> {
        let now = self.clock.now();
        self.issuing.leaf(uri).valid(now - Duration::minutes(1), now + Duration::minutes(minutes))
    }

    fn bundles(&self) -> BundleSet {
        self.bundles_with(&[])
    }

    fn bundles_with(&self, more: &[&Authority]) -> BundleSet {
        let roots = [&self.root].into_iter().chain(more.iter().copied()).map(|root| root.root_certificate().clone());
        [TrustBundle::new("example.org".parse().unwrap(), roots.collect()).unwrap()].into_iter().collect()
    }

    fn snapshot_with(&self, leaf: Leaf<'_>, bundles: BundleSet, previous: Option<&Snapshot>) -> Snapshot {
        let issued = leaf.issue();
        let svid = X509Svid::from_der(issued.chain.clone(), issued.key()).unwrap();
        Snapshot::build(Material { svid, bundles, revocations: RevocationSet::default() }, &self.policies, previous)
            .unwrap()
    }

    /// The next snapshot of a process, with an hour to live.
    fn snapshot(&self, uri: &str, previous: Option<&Snapshot>) -> Snapshot {
        self.snapshot_with(self.leaf(uri, 60), self.bundles(), previous)
    }
}

struct Connected {
    client: ClientConnection,
    server: ServerConnection,
}

/// Which side refused, and why.
#[derive(Debug)]
enum Refused {
    ByClient(rustls::Error),
    ByServer(rustls::Error),
}

impl Refused {
    fn reason(&self) -> &'static str {
        let (Self::ByClient(error) | Self::ByServer(error)) = self;
        PeerError::of(error).unwrap_or_else(|| panic!("{self:?}")).reason()
    }
}

impl Connected {
    fn kind(&self) -> HandshakeKind {
        let kind = self.client.handshake_kind();
        assert_eq!(kind, self.server.handshake_kind());
        kind.unwrap()
    }
}

fn connect(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<Connected, Refused> {
    let name = ServerName::try_from("server.internal").unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    // Until both are silent: the server's ticket comes after the handshake.
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while server.read_tls(&mut wire).unwrap() > 0 {
            server.process_new_packets().map_err(Refused::ByServer)?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while client.read_tls(&mut wire).unwrap() > 0 {
            client.process_new_packets().map_err(Refused::ByClient)?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Connected { client, server })
}

#[test]
fn both_sides_learn_who_the_other_is() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    let mut connected = connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    assert_eq!(connected.kind(), HandshakeKind::Full);
    let peer = server.peer_of_server_connection(mesh.strict, connected.server.peer_certificates()).unwrap().unwrap();
    assert_eq!(peer.id().as_str(), CLIENT);
    assert_eq!(peer.serial(), client.svid().serial());
    let peer = client.peer_of_client_connection(mesh.present, connected.client.peer_certificates()).unwrap();
    assert_eq!(peer.id().as_str(), SERVER);

    connected.client.writer().write_all(b"hello").unwrap();
    let mut wire = Vec::new();
    connected.client.write_tls(&mut wire).unwrap();
    connected.server.read_tls(&mut &wire[..]).unwrap();
    connected.server.process_new_packets().unwrap();
    let mut received = [0; 5];
    connected.server.reader().read_exact(&mut received).unwrap();
    assert_eq!(&received, b"hello");
}

#[test]
fn connections_are_tls13_with_the_hybrid_key_exchange_and_name_no_server() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    let connected = connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    let group = connected.server.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    assert_eq!(connected.server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(connected.server.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(connected.server.server_name(), None);

    let trust = Arc::new(Trust::new(TrustEpoch::FIRST, mesh.bundles(), RevocationSet::default()));
    let verifier =
        ServerVerifier { trust, clock: mesh.clock.shared(), servers: SpiffeIdPatterns::default(), sessions: None };
    let old = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    assert!(matches!(connect(&Arc::new(old), server.server(mesh.strict)), Err(Refused::ByServer(_))));
}

#[test]
fn a_client_without_a_certificate_is_refused_unless_the_policy_lets_it_come() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    let refused = connect(client.client(mesh.anonymous), server.server(mesh.strict)).err().unwrap();
    assert!(matches!(refused, Refused::ByServer(_)));
    assert_eq!(refused.reason(), "no_certificate");

    let connected = connect(client.client(mesh.anonymous), server.server(mesh.lenient)).unwrap();
    let chain = connected.server.peer_certificates();
    assert!(server.peer_of_server_connection(mesh.lenient, chain).unwrap().is_none());
    assert_eq!(server.peer_of_server_connection(mesh.strict, chain).unwrap_err(), PeerError::NoCertificate);
}

#[test]
fn a_certificate_that_is_presented_must_be_good_though_none_is_needed() {
    let mesh = Mesh::new();
    let (client, server) =
        (mesh.snapshot_with(mesh.leaf(CLIENT, 5), mesh.bundles(), None), mesh.snapshot(SERVER, None));
    mesh.clock.advance(Duration::minutes(6));
    let refused = connect(client.client(mesh.present), server.server(mesh.lenient)).err().unwrap();
    assert_eq!(refused.reason(), "expired");
}

#[test]
fn the_server_must_be_who_the_client_expects() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    let refused = connect(client.client(mesh.stranger), server.server(mesh.strict)).err().unwrap();
    assert!(matches!(refused, Refused::ByClient(_)));
    assert_eq!(refused.reason(), "unexpected_id");
    let error = client.peer_of_client_connection(mesh.stranger, Some(server.svid().chain())).unwrap_err();
    assert_eq!(error, PeerError::Unexpected { id: SERVER.parse().unwrap() });
}

#[test]
fn the_reason_of_a_refusal_is_found_in_the_handshakes_error() {
    let mesh = Mesh::new();
    let server = mesh.snapshot(SERVER, None);
    let strangers = Mesh::new();
    let client = strangers.snapshot(CLIENT, None);
    let refused = connect(client.client(strangers.present), server.server(mesh.strict)).err().unwrap();
    assert_eq!(refused.reason(), "untrusted_authority", "the client already refuses the server");
    let leaf = LeafError::RootPath;
    let error = PeerError::Leaf(leaf).into_rustls();
    assert_eq!(PeerError::of(&error).unwrap().reason(), "root_path");
    let wrapped = std::io::Error::other(error);
    assert_eq!(PeerError::of_io(&wrapped).unwrap().reason(), "root_path");
    assert_eq!(PeerError::of(&rustls::Error::HandshakeNotComplete), None);
}

#[test]
fn before_the_first_svid_the_server_is_verified_and_nothing_is_presented() {
    let mesh = Mesh::new();
    let server = mesh.snapshot(SERVER, None);
    let config = |servers: SpiffeIdPatterns| {
        bootstrap_client_config(
            &mesh.bundles(),
            &RevocationSet::default(),
            &servers,
            vec![b"h2".to_vec()],
            mesh.clock.shared(),
        )
    };
    let right = config(SpiffeIdPatterns::from(&SERVER.parse().unwrap()));
    let connected = connect(&right, server.server(mesh.lenient)).unwrap();
    assert_eq!(connected.server.peer_certificates(), None);
    assert_eq!(connect(&right, server.server(mesh.lenient)).unwrap().kind(), HandshakeKind::Full);
    let nobody = connect(&config(SpiffeIdPatterns::default()), server.server(mesh.lenient)).err().unwrap();
    assert_eq!(nobody.reason(), "unexpected_id");
}

#[test]
fn a_new_leaf_of_the_server_keeps_resumption() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    let full = connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    assert_eq!(full.kind(), HandshakeKind::Full);
    let next = mesh.snapshot(SERVER, Some(&server));
    assert_eq!(next.trust_epoch(), server.trust_epoch());
    let resumed = connect(client.client(mesh.present), next.server(mesh.strict)).unwrap();
    assert_eq!(resumed.kind(), HandshakeKind::Resumed);
    let peer = next.peer_of_server_connection(mesh.strict, resumed.server.peer_certificates()).unwrap().unwrap();
    assert_eq!(peer.serial(), client.svid().serial());
}

#[test]
fn a_new_leaf_of_the_client_does_not_resume_as_the_old_one() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    let next = mesh.snapshot(CLIENT, Some(&client));
    let connected = connect(next.client(mesh.present), server.server(mesh.strict)).unwrap();
    assert_eq!(connected.kind(), HandshakeKind::Full);
    let peer = server.peer_of_server_connection(mesh.strict, connected.server.peer_certificates()).unwrap().unwrap();
    assert_eq!(peer.serial(), next.svid().serial());
}

#[test]
fn a_ticket_is_void_when_the_bundles_change() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    let more = Authority::root("example.org");
    let next = mesh.snapshot_with(mesh.leaf(SERVER, 60), mesh.bundles_with(&[&more]), Some(&server));
    assert!(next.trust_epoch() > server.trust_epoch());
    let connected = connect(client.client(mesh.present), next.server(mesh.strict)).unwrap();
    assert_eq!(connected.kind(), HandshakeKind::Full);
    let again = connect(client.client(mesh.present), next.server(mesh.strict)).unwrap();
    assert_eq!(again.kind(), HandshakeKind::Resumed, "within the new epoch it goes on");
}

#[test]
fn a_ticket_of_a_lenient_policy_is_worth_nothing_under_a_strict_one() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    connect(client.client(mesh.anonymous), server.server(mesh.lenient)).unwrap();
    let resumed = connect(client.client(mesh.anonymous), server.server(mesh.lenient)).unwrap();
    assert_eq!(resumed.kind(), HandshakeKind::Resumed, "there is a ticket");
    let refused = connect(client.client(mesh.anonymous), server.server(mesh.strict)).err().unwrap();
    assert_eq!(refused.reason(), "no_certificate");

    connect(client.client(mesh.present), server.server(mesh.lenient)).unwrap();
    let elsewhere = connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    assert_eq!(elsewhere.kind(), HandshakeKind::Full);
}

#[test]
fn a_ticket_of_one_listener_is_worth_nothing_on_another_though_their_policies_are_alike() {
    let mut mesh = Mesh::new();
    let strict = ServerPolicy { alpn: vec![b"h2".to_vec()], clients: ClientAuthentication::Required };
    let other = mesh.policies.server(strict);
    let (client, server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    assert_eq!(connect(client.client(mesh.present), server.server(other)).unwrap().kind(), HandshakeKind::Full);
    let next = mesh.snapshot(SERVER, Some(&server));
    assert_eq!(connect(client.client(mesh.present), next.server(mesh.strict)).unwrap().kind(), HandshakeKind::Full);
    assert_eq!(connect(client.client(mesh.present), next.server(other)).unwrap().kind(), HandshakeKind::Full);
    assert_eq!(connect(client.client(mesh.present), next.server(other)).unwrap().kind(), HandshakeKind::Resumed);
}

#[test]
fn a_ticket_dies_with_its_clients_authority_and_does_not_come_back_with_it() {
    let mesh = Mesh::new();
    let leaving = Authority::root("example.org");
    let both = || mesh.bundles_with(&[&leaving]);
    let server = mesh.snapshot_with(mesh.leaf(SERVER, 60), both(), None);
    let client = || {
        let client = mesh.snapshot_with(leaving.leaf(CLIENT), both(), None);
        connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
        client
    };
    let (first, second) = (client(), client());
    let left = mesh.snapshot_with(mesh.leaf(SERVER, 60), mesh.bundles(), Some(&server));
    let refused = connect(first.client(mesh.present), left.server(mesh.strict)).err().unwrap();
    assert!(matches!(refused, Refused::ByServer(_)));
    assert_eq!(refused.reason(), "untrusted_authority");

    let back = mesh.snapshot_with(mesh.leaf(SERVER, 60), both(), Some(&left));
    let connected = connect(second.client(mesh.present), back.server(mesh.strict)).unwrap();
    assert_eq!(connected.kind(), HandshakeKind::Full, "it was of an earlier epoch");
}

#[test]
fn policies_that_are_built_anew_share_no_tickets_with_those_before() {
    let mesh = Mesh::new();
    let mut again = TlsPolicies::new(mesh.clock.shared());
    let lenient = again.server(ServerPolicy { alpn: vec![b"h2".to_vec()], clients: ClientAuthentication::Optional });
    let (client, server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    let material =
        Material { svid: server.svid().clone(), bundles: mesh.bundles(), revocations: RevocationSet::default() };
    let next = Snapshot::build(material, &again, Some(&server)).unwrap();
    assert_eq!(next.trust_epoch(), server.trust_epoch());
    let connected = connect(client.client(mesh.present), next.server(lenient)).unwrap();
    assert_eq!(connected.kind(), HandshakeKind::Full);
}

#[test]
fn another_authority_of_our_own_voids_the_tickets() {
    let mesh = Mesh::new();
    let successor = mesh.root.intermediate();
    let (client, server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    let now = mesh.clock.now();
    let leaf = successor.leaf(SERVER).valid(now - Duration::minutes(1), now + Duration::minutes(60));
    let next = mesh.snapshot_with(leaf, mesh.bundles(), Some(&server));
    assert_eq!(next.trust_epoch(), server.trust_epoch());
    let connected = connect(client.client(mesh.present), next.server(mesh.strict)).unwrap();
    assert_eq!(connected.kind(), HandshakeKind::Full);
    let chain = connected.client.peer_certificates().unwrap();
    assert_eq!(chain, next.svid().chain(), "resumed, it would have been the chain before");
}

#[test]
fn another_id_of_our_own_voids_the_tickets() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    let renamed = mesh.snapshot("spiffe://example.org/other", Some(&server));
    let refused = connect(client.client(mesh.present), renamed.server(mesh.strict)).err().unwrap();
    assert_eq!(refused.reason(), "unexpected_id", "resumed, the client would have taken it for the old server");
}

#[test]
fn the_client_of_a_resumed_session_is_judged_again() {
    let mesh = Mesh::new();
    let client = mesh.snapshot_with(mesh.leaf(CLIENT, 10), mesh.bundles(), None);
    let server = mesh.snapshot(SERVER, None);
    connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    mesh.clock.advance(Duration::minutes(11));
    let resumed = connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    assert_eq!(resumed.kind(), HandshakeKind::Resumed, "TLS itself does not look at the certificate");
    let error = server.peer_of_server_connection(mesh.strict, resumed.server.peer_certificates()).unwrap_err();
    assert_eq!(error.reason(), "expired");
}

#[test]
fn renewed_tickets_never_extend_a_peers_life() {
    let mesh = Mesh::new();
    let client = mesh.snapshot_with(mesh.leaf(CLIENT, 10), mesh.bundles(), None);
    let server = mesh.snapshot(SERVER, None);
    let end = client.svid().not_after();
    connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    for minute in 1..=12 {
        mesh.clock.advance(Duration::minutes(1));
        let resumed = connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
        assert_eq!(resumed.kind(), HandshakeKind::Resumed, "each with the ticket of the one before");
        match server.peer_of_server_connection(mesh.strict, resumed.server.peer_certificates()) {
            Ok(peer) => {
                assert!(minute < 11);
                assert_eq!(peer.unwrap().expires_at(), end);
            }
            Err(error) => {
                assert!(minute >= 10, "minute {minute}");
                assert_eq!(error, PeerError::Expired { not_after: end });
            }
        }
    }
}

#[test]
fn a_session_is_given_up_before_its_servers_chain_expires() {
    let mesh = Mesh::new();
    let client = mesh.snapshot(CLIENT, None);
    let server = mesh.snapshot_with(mesh.leaf(SERVER, 10), mesh.bundles(), None);
    connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    mesh.clock.advance(Duration::minutes(5));
    let renewed = mesh.snapshot(SERVER, Some(&server));
    let resumed = connect(client.client(mesh.present), renewed.server(mesh.strict)).unwrap();
    assert_eq!(resumed.kind(), HandshakeKind::Resumed);
    mesh.clock.advance(Duration::minutes(5));
    let connected = connect(client.client(mesh.present), renewed.server(mesh.strict)).unwrap();
    assert_eq!(connected.kind(), HandshakeKind::Full, "the old chain would be refused, the new one is good");
    let peer = client.peer_of_client_connection(mesh.present, connected.client.peer_certificates()).unwrap();
    assert_eq!(peer.serial(), renewed.svid().serial());
}

#[test]
fn the_server_of_a_resumed_session_is_judged_again() {
    let mesh = Mesh::new();
    let client = mesh.snapshot(CLIENT, None);
    let server = mesh.snapshot_with(mesh.leaf(SERVER, 10), mesh.bundles(), None);
    connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    let resumed = connect(client.client(mesh.present), server.server(mesh.strict)).unwrap();
    assert_eq!(resumed.kind(), HandshakeKind::Resumed);
    let chain = resumed.client.peer_certificates();
    assert!(client.peer_of_client_connection(mesh.present, chain).is_ok());
    mesh.clock.advance(Duration::minutes(11));
    assert_eq!(client.peer_of_client_connection(mesh.present, chain).unwrap_err().reason(), "expired");
}

#[test]
fn each_handshake_brings_one_ticket() {
    #[derive(Debug, Default)]
    struct Counter(Mutex<usize>);
    impl ClientSessionStore for Counter {
        fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}
        fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
            None
        }
        fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}
        fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
            None
        }
        fn remove_tls12_session(&self, _: &ServerName<'static>) {}
        fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
            assert_eq!(ticket.max_early_data_size(), 0, "no 0-RTT");
            *self.0.lock().unwrap() += 1;
        }
        fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
            None
        }
    }
    let mesh = Mesh::new();
    let (client, server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    let counter = Arc::new(Counter::default());
    let mut config = ClientConfig::clone(client.client(mesh.present));
    config.resumption = Resumption::store(counter.clone());
    connect(&Arc::new(config), server.server(mesh.strict)).unwrap();
    assert_eq!(*counter.0.lock().unwrap(), 1);
}

#[test]
fn an_expired_peer_is_refused_in_a_full_handshake_on_both_sides() {
    let mesh = Mesh::new();
    let short = |uri| mesh.snapshot_with(mesh.leaf(uri, 5), mesh.bundles(), None);
    let (client, server) = (short(CLIENT), short(SERVER));
    let (fresh_client, fresh_server) = (mesh.snapshot(CLIENT, None), mesh.snapshot(SERVER, None));
    mesh.clock.advance(Duration::minutes(6));
    let refused = connect(client.client(mesh.present), fresh_server.server(mesh.strict)).err().unwrap();
    assert!(matches!(refused, Refused::ByServer(_)));
    assert_eq!(refused.reason(), "expired");
    let refused = connect(fresh_client.client(mesh.present), server.server(mesh.strict)).err().unwrap();
    assert!(matches!(refused, Refused::ByClient(_)));
    assert_eq!(refused.reason(), "expired");
    mesh.clock.advance(Duration::hours(-2));
    let refused = connect(fresh_client.client(mesh.present), fresh_server.server(mesh.strict)).err().unwrap();
    assert_eq!(refused.reason(), "not_yet_valid");
}
