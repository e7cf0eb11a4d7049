//! How an identity becomes live, and what a handshake pays to get at it.

use std::hint::black_box;

use gungraun::prelude::*;
use signet_benches::memory::{Ends, material};
use signet_identity::{IdentityPublisher, LiveIdentity, Material, Snapshot, live};
use signet_test_pki::Authority;

/// Renewed certificates of one workload, and the snapshot that they follow.
pub(crate) struct Renewals {
    ends: Ends,
    previous: Snapshot,
    materials: Vec<Material>,
}

fn renewals(count: usize) -> Renewals {
    let issuing = Authority::root("example.org").intermediate();
    let ends = Ends::new().expect("two policies");
    let svid = || issuing.leaf("spiffe://example.org/gateway/inbound").issue();
    let previous = ends.snapshot(&svid(), &issuing).expect("a snapshot");
    let materials = (0..count).map(|_| material(&svid(), &issuing).expect("material")).collect();
    Renewals { ends, previous, materials }
}

// A new leaf under the same bundle: cache and tickets go on.
#[library_benchmark]
#[bench::times_64(args = (64), setup = renewals)]
fn build_renewed(renewals: Renewals) -> (Vec<Snapshot>, Snapshot) {
    let Renewals { ends, previous, materials } = renewals;
    let build = |material| Snapshot::build(material, &ends.policies, Some(&previous)).expect("a snapshot");
    (materials.into_iter().map(build).collect(), previous)
}

// With nothing before it: cache and tickets are made anew.
#[library_benchmark]
#[bench::times_64(args = (64), setup = renewals)]
fn build_first(renewals: Renewals) -> (Vec<Snapshot>, Snapshot) {
    let Renewals { ends, previous, materials } = renewals;
    let build = |material| Snapshot::build(material, &ends.policies, None).expect("a snapshot");
    (materials.into_iter().map(build).collect(), previous)
}

fn published() -> (IdentityPublisher, LiveIdentity) {
    let (publisher, identity) = live(renewals(0).previous);
    // This thread's first load makes room for its later ones.
    black_box(identity.load());
    (publisher, identity)
}

type Live = (IdentityPublisher, LiveIdentity);

#[library_benchmark]
#[bench::times_100(args = (), setup = published)]
fn load((publisher, identity): Live) -> Live {
    for _ in 0..100 {
        black_box(black_box(&identity).load().generation());
    }
    (publisher, identity)
}

#[library_benchmark]
#[bench::times_100(args = (), setup = published)]
fn load_full((publisher, identity): Live) -> Live {
    for _ in 0..100 {
        black_box(black_box(&identity).load_full());
    }
    (publisher, identity)
}

library_benchmark_group!(name = snapshot, benchmarks = [build_renewed, build_first, load, load_full]);
