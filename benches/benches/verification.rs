//! Believing a peer's chain: leaf and intermediate under one root, verified from nothing and found in the cache.

#![allow(clippy::expect_used)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use signet_benches::memory::{Ends, material};
use signet_identity::{Snapshot, live};
use signet_test_pki::Authority;

fn verification(criterion: &mut Criterion) {
    let issuing = Authority::root("example.org").intermediate();
    let ends = Ends::new().expect("two policies");
    let own = issuing.leaf("spiffe://example.org/gateway/inbound").issue();
    let peer = issuing.leaf("spiffe://example.org/shop/cart").issue();
    let snapshot = || ends.snapshot(&own, &issuing).expect("a snapshot");
    let believe =
        |snapshot: &Snapshot| snapshot.peer_of_server_connection(ends.server, Some(&peer.chain)).expect("a good peer");

    criterion.bench_function("verification/chain", |bencher| {
        bencher.iter_batched_ref(snapshot, |snapshot| believe(snapshot), BatchSize::SmallInput);
    });

    let warm = snapshot();
    believe(&warm);
    criterion.bench_function("verification/chain, cached", |bencher| bencher.iter(|| believe(&warm)));

    criterion.bench_function("snapshot/build", |bencher| {
        bencher.iter_batched(
            || material(&own, &issuing).expect("material"),
            |material| Snapshot::build(material, &ends.policies, Some(&warm)).expect("a snapshot"),
            BatchSize::SmallInput,
        );
    });

    let (_publisher, identity) = live(snapshot());
    criterion.bench_function("snapshot/load", |bencher| bencher.iter(|| identity.load().generation()));
}

criterion_group!(benches, verification);
criterion_main!(benches);
