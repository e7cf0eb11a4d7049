//! Whether a caller is allowed, at its dearest: of so many patterns, the last one is that of the caller.

use std::hint::black_box;

use gungraun::prelude::*;
use signet_identity::{SpiffeIdPatterns, WorkloadId};

fn patterns(count: usize) -> (SpiffeIdPatterns, WorkloadId) {
    let pattern = |number| format!("spiffe://example.org/ns/team-{number:04}/sa/*").parse().expect("a pattern");
    let last = format!("spiffe://example.org/ns/team-{:04}/sa/cart", count - 1);
    ((0..count).map(pattern).collect(), last.parse().expect("a SPIFFE ID"))
}

#[library_benchmark]
#[bench::patterns_1(args = (1), setup = patterns)]
#[bench::patterns_10(args = (10), setup = patterns)]
#[bench::patterns_100(args = (100), setup = patterns)]
#[bench::patterns_1000(args = (1000), setup = patterns)]
fn allow((allow, caller): (SpiffeIdPatterns, WorkloadId)) -> (bool, SpiffeIdPatterns, WorkloadId) {
    (black_box(&allow).matches(black_box(&caller)), allow, caller)
}

library_benchmark_group!(name = policy, benchmarks = allow);
