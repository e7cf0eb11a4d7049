//! Parsing and matching SPIFFE IDs.

#![allow(clippy::expect_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use signet_identity::{SpiffeId, SpiffeIdPattern, WorkloadId};

fn spiffe_id(criterion: &mut Criterion) {
    const TEXT: &str = "spiffe://example.org/ns/shop/sa/cart";
    criterion.bench_function("spiffe_id/parse", |bencher| bencher.iter(|| black_box(TEXT).parse::<SpiffeId>()));

    let id: WorkloadId = TEXT.parse().expect("a SPIFFE ID");
    for pattern in ["spiffe://example.org/ns/shop/sa/*", "spiffe://example.org/**", "spiffe://other.org/**"] {
        let parsed: SpiffeIdPattern = pattern.parse().expect("a pattern");
        criterion.bench_function(&format!("spiffe_id/match {pattern}"), |bencher| {
            bencher.iter(|| parsed.matches(black_box(&id)));
        });
    }
}

criterion_group!(benches, spiffe_id);
criterion_main!(benches);
