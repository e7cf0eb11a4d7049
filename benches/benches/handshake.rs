//! Whole handshakes in memory, both ends on one core: X25519MLKEM768, P-256, leaf and one intermediate on each side.

#![allow(clippy::expect_used)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rustls::HandshakeKind;
use signet_benches::memory::{Ends, handshake};
use signet_test_pki::Authority;

const SERVER: &str = "spiffe://example.org/gateway/inbound";
const CLIENT: &str = "spiffe://example.org/shop/cart";

fn handshakes(criterion: &mut Criterion) {
    let issuing = Authority::root("example.org").intermediate();
    let ends = Ends::new().expect("two policies");
    let (server_svid, client_svid) = (issuing.leaf(SERVER).issue(), issuing.leaf(CLIENT).issue());
    let snapshot = |svid| ends.snapshot(svid, &issuing).expect("a snapshot");

    // The client's chain is new to the server, and the server's to the client.
    criterion.bench_function("handshake/full", |bencher| {
        bencher.iter_batched(
            || (snapshot(&server_svid), snapshot(&client_svid)),
            |(server, client)| handshake(server.server(ends.server), client.client(ends.client)).expect("a handshake"),
            BatchSize::SmallInput,
        );
    });

    // The server has verified this chain before; the client, new each time, has not.
    let server = snapshot(&server_svid);
    criterion.bench_function("handshake/full, chain cached by the server", |bencher| {
        bencher.iter_batched(
            || snapshot(&client_svid),
            |client| handshake(server.server(ends.server), client.client(ends.client)).expect("a handshake"),
            BatchSize::SmallInput,
        );
    });

    let client = snapshot(&client_svid);
    handshake(server.server(ends.server), client.client(ends.client)).expect("a handshake that brings a ticket");
    criterion.bench_function("handshake/resumed", |bencher| {
        bencher.iter(|| {
            let (resumed, _) = handshake(server.server(ends.server), client.client(ends.client)).expect("a handshake");
            assert_eq!(resumed.handshake_kind(), Some(HandshakeKind::Resumed));
            server
                .peer_of_server_connection(ends.server, resumed.peer_certificates())
                .expect("a peer that is still good")
        });
    });
}

criterion_group!(benches, handshakes);
criterion_main!(benches);
