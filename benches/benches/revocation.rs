//! What a million revoked certificates cost: memory, a look at one, and further ones.

#![allow(clippy::expect_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use signet_benches::revoked::{AUTHORITY, Domain, MOST, serials};
use signet_identity::RevocationSet;

/// As in a gateway.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const MILLION: u64 = 1_000_000;

/// Resident memory in KiB; none where the kernel does not tell.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a time that has passed")
}

fn revocation(criterion: &mut Criterion) {
    let domain = Domain::new().expect("a domain");
    let small = domain.add(&RevocationSet::default(), 0, 1).expect("good statements");
    let (before, begun) = (resident(), Instant::now());
    let million = domain.add(&small, 1, MILLION).expect("good statements");
    let took = begun.elapsed();
    // What was freed on the way is given back after a while.
    std::thread::sleep(Duration::from_secs(12));
    let _some_work = domain.add(&million, MILLION, MILLION + 1).expect("good statements");
    if let (Some(before), Some(after)) = (before, resident()) {
        println!("a million serial numbers: {:.1} MiB, added in {took:?}", (after - before) as f64 / 1024.0);
    }
    let begun = Instant::now();
    let _more = domain.add(&million, MILLION, MILLION + 100_000).expect("good statements");
    println!("100,000 more, in statements of 16,384 with their signatures: {:?}", begun.elapsed());

    let known = million.get(&domain.name).expect("revocations");
    for (name, from, expected) in [("revoked", 0, true), ("not revoked", MILLION, false)] {
        let serials = serials(from, MILLION);
        // Of the processor, so that a busy machine counts for less.
        let begun = processor_time();
        assert!(serials.iter().all(|serial| known.has_serial(AUTHORITY, serial) == expected));
        let took = (processor_time() - begun).as_nanos() / serials.len() as u128;
        println!("one of a million, {name}: {took} ns of the processor");
        let mut next = serials.iter().cycle();
        criterion.bench_function(&format!("revocation/one of a million, {name}"), |bencher| {
            bencher.iter(|| known.has_serial(AUTHORITY, next.next().map(black_box).expect("a cycle")));
        });
    }
    for (name, more) in [("one", 1), ("16,384", MOST)] {
        criterion.bench_function(&format!("revocation/add {name} to a million"), |bencher| {
            bencher.iter_batched(|| (), |()| domain.add(&million, MILLION, MILLION + more), BatchSize::PerIteration);
        });
    }
}

criterion_group! { name = benches; config = Criterion::default().sample_size(20); targets = revocation }
criterion_main!(benches);
