//! One end of a handshake in memory: X25519MLKEM768, P-256, leaf and one intermediate on each side. The other end runs
//! too, uncounted.

use std::io;
use std::sync::Arc;

use gungraun::prelude::*;
use gungraun::{Callgrind, EntryPoint};
use rustls::{ClientConnection, HandshakeKind, ServerConnection};
use rustls_pki_types::ServerName;
use signet_benches::memory::Ends;
use signet_identity::Snapshot;
use signet_test_pki::{Authority, Issued};

/// One server, and as many clients as there are handshakes to count.
pub(crate) struct Mesh {
    ends: Ends,
    server: Snapshot,
    clients: Vec<Snapshot>,
}

/// Neither end has seen the other's chain.
fn strangers(count: usize) -> Mesh {
    Mesh::of(count).1
}

/// The server has verified each client's chain before, but no client has a session to resume.
fn known(count: usize) -> Mesh {
    let (pki, mut mesh) = Mesh::of(count);
    mesh.shake_hands(HandshakeKind::Full, NOT_COUNTED);
    mesh.clients = pki.clients.iter().map(|client| mesh.ends.snapshot(client, &pki.issuing).expect("one")).collect();
    mesh
}

/// Each client has a ticket.
fn acquainted(count: usize) -> Mesh {
    let (_, mesh) = Mesh::of(count);
    mesh.shake_hands(HandshakeKind::Full, NOT_COUNTED);
    mesh
}

struct Pki {
    issuing: Authority,
    clients: Vec<Issued>,
}

impl Mesh {
    fn of(count: usize) -> (Pki, Self) {
        let issuing = Authority::root("example.org").intermediate();
        let ends = Ends::new().expect("two policies");
        let snapshot = |svid: &Issued| ends.snapshot(svid, &issuing).expect("a snapshot");
        let server = issuing.leaf("spiffe://example.org/gateway/inbound").issue();
        let clients: Vec<_> = (0..count).map(|_| issuing.leaf("spiffe://example.org/shop/cart").issue()).collect();
        let mesh = Self { server: snapshot(&server), clients: clients.iter().map(snapshot).collect(), ends };
        (Pki { issuing, clients }, mesh)
    }

    fn shake_hands(&self, expected: HandshakeKind, turns: Turns) {
        for client in &self.clients {
            let mut client = Client { snapshot: client, ends: &self.ends, connection: None, peer_is_known: false };
            let mut server =
                Server { snapshot: &self.server, ends: &self.ends, connection: None, peer_is_known: false };
            let (mut to_server, mut to_client) = (Vec::with_capacity(FLIGHT), Vec::with_capacity(FLIGHT));
            (turns.client)(&mut client, &[], &mut to_server).expect("a first flight");
            while !to_server.is_empty() {
                to_client.clear();
                (turns.server)(&mut server, &to_server, &mut to_client).expect("an answer of the server");
                to_server.clear();
                (turns.client)(&mut client, &to_client, &mut to_server).expect("an answer of the client");
            }
            assert!(client.peer_is_known && server.peer_is_known, "the handshake has ended");
            assert_eq!(server.connection.and_then(|server| server.handshake_kind()), Some(expected));
        }
    }
}

/// What the ends do in turn: the same, counted or not.
#[derive(Clone, Copy)]
struct Turns {
    server: fn(&mut Server<'_>, &[u8], &mut Vec<u8>) -> anyhow::Result<()>,
    client: fn(&mut Client<'_>, &[u8], &mut Vec<u8>) -> anyhow::Result<()>,
}

const NOT_COUNTED: Turns = Turns { server: server_turn, client: client_turn };
const COUNTED: Turns = Turns { server: counted_server_turn, client: counted_client_turn };

// Callgrind begins and ends to count with each call of a function that bears the name it was told.

#[inline(never)]
fn counted_server_turn(server: &mut Server<'_>, arrived: &[u8], answer: &mut Vec<u8>) -> anyhow::Result<()> {
    server_turn(server, arrived, answer)
}

#[inline(never)]
fn counted_client_turn(client: &mut Client<'_>, arrived: &[u8], answer: &mut Vec<u8>) -> anyhow::Result<()> {
    client_turn(client, arrived, answer)
}

struct Server<'a> {
    snapshot: &'a Snapshot,
    ends: &'a Ends,
    connection: Option<ServerConnection>,
    peer_is_known: bool,
}

struct Client<'a> {
    snapshot: &'a Snapshot,
    ends: &'a Ends,
    connection: Option<ClientConnection>,
    peer_is_known: bool,
}

/// All that a server does when bytes of its client arrive.
fn server_turn(server: &mut Server<'_>, mut arrived: &[u8], answer: &mut Vec<u8>) -> anyhow::Result<()> {
    let connection = match &mut server.connection {
        Some(connection) => connection,
        none => none.insert(ServerConnection::new(Arc::clone(server.snapshot.server(server.ends.server)))?),
    };
    while !arrived.is_empty() {
        connection.read_tls(&mut arrived)?;
        connection.process_new_packets().map_err(io::Error::other)?;
    }
    while connection.wants_write() {
        connection.write_tls(answer)?;
    }
    if !server.peer_is_known && !connection.is_handshaking() {
        let chain = connection.peer_certificates();
        server.peer_is_known = server.snapshot.peer_of_server_connection(server.ends.server, chain)?.is_some();
    }
    Ok(())
}

/// All that a client does when bytes of its server arrive.
fn client_turn(client: &mut Client<'_>, mut arrived: &[u8], answer: &mut Vec<u8>) -> anyhow::Result<()> {
    let connection = match &mut client.connection {
        Some(connection) => connection,
        none => {
            let name = ServerName::try_from("signet.invalid")?;
            none.insert(ClientConnection::new(Arc::clone(client.snapshot.client(client.ends.client)), name)?)
        }
    };
    while !arrived.is_empty() {
        connection.read_tls(&mut arrived)?;
        connection.process_new_packets().map_err(io::Error::other)?;
    }
    while connection.wants_write() {
        connection.write_tls(answer)?;
    }
    if !client.peer_is_known && !connection.is_handshaking() {
        let chain = connection.peer_certificates();
        client.snapshot.peer_of_client_connection(client.ends.client, chain)?;
        client.peer_is_known = true;
    }
    Ok(())
}

#[library_benchmark(config = counting(SERVER))]
#[bench::times_32(args = (32), setup = strangers)]
fn server_full(mesh: Mesh) -> Mesh {
    mesh.shake_hands(HandshakeKind::Full, COUNTED);
    mesh
}

#[library_benchmark(config = counting(SERVER))]
#[bench::times_32(args = (32), setup = known)]
fn server_full_chain_known(mesh: Mesh) -> Mesh {
    mesh.shake_hands(HandshakeKind::Full, COUNTED);
    mesh
}

#[library_benchmark(config = counting(SERVER))]
#[bench::times_32(args = (32), setup = acquainted)]
fn server_resumed(mesh: Mesh) -> Mesh {
    mesh.shake_hands(HandshakeKind::Resumed, COUNTED);
    mesh
}

#[library_benchmark(config = counting(CLIENT))]
#[bench::times_32(args = (32), setup = strangers)]
fn client_full(mesh: Mesh) -> Mesh {
    mesh.shake_hands(HandshakeKind::Full, COUNTED);
    mesh
}

#[library_benchmark(config = counting(CLIENT))]
#[bench::times_32(args = (32), setup = acquainted)]
fn client_resumed(mesh: Mesh) -> Mesh {
    mesh.shake_hands(HandshakeKind::Resumed, COUNTED);
    mesh
}

library_benchmark_group!(
    name = handshake,
    benchmarks = [server_full, server_full_chain_known, server_resumed, client_full, client_resumed]
);

/// Counts one end by the name of its turn, and nothing else.
fn counting(turn: &str) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.entry_point(EntryPoint::Custom(turn.to_owned()));
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

const SERVER: &str = "*::counted_server_turn*";
const CLIENT: &str = "*::counted_client_turn*";

/// Room for the bytes that one end sends at once.
const FLIGHT: usize = 8 * 1024;
