//! Believing a peer's chain: leaf and intermediate under one root, verified from nothing and found in the cache.

use std::hint::black_box;

use gungraun::prelude::*;
use signet_benches::memory::Ends;
use signet_identity::Snapshot;
use signet_test_pki::{Authority, Issued};

/// One server, and the chains that are shown to it.
pub(crate) struct Shown {
    ends: Ends,
    snapshot: Snapshot,
    peers: Vec<Issued>,
}

fn new(count: usize) -> Shown {
    let issuing = Authority::root("example.org").intermediate();
    let ends = Ends::new().expect("two policies");
    let own = issuing.leaf("spiffe://example.org/gateway/inbound").issue();
    let snapshot = ends.snapshot(&own, &issuing).expect("a snapshot");
    let peers = (0..count).map(|_| issuing.leaf("spiffe://example.org/shop/cart").issue()).collect();
    Shown { ends, snapshot, peers }
}

fn known(count: usize) -> Shown {
    let shown = new(count);
    shown.believe();
    shown
}

impl Shown {
    fn believe(&self) {
        for peer in &self.peers {
            let judged = self.snapshot.peer_of_server_connection(self.ends.server, Some(black_box(&peer.chain)));
            black_box(judged.expect("a good peer"));
        }
    }
}

#[library_benchmark]
#[bench::times_64(args = (64), setup = new)]
fn verify(shown: Shown) -> Shown {
    shown.believe();
    shown
}

#[library_benchmark]
#[bench::times_64(args = (64), setup = known)]
fn recall(shown: Shown) -> Shown {
    shown.believe();
    shown
}

library_benchmark_group!(name = chain, benchmarks = [verify, recall]);
