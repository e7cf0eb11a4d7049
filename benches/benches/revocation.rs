//! What a million revoked certificates cost: memory, a look at one, and further ones.

#![allow(clippy::expect_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use signet_identity::{
    BundleSet, RevocationSet, RevocationStatement, RevokedSerials, Serial, SignedRevocations, TrustBundle, TrustDomain,
};
use signet_test_pki::Authority;
use time::OffsetDateTime;

/// As in a gateway.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const MILLION: u64 = 1_000_000;
/// In one statement.
const MOST: u64 = 16_384;
const AUTHORITY: &[u8] = &[7; 20];

/// An authority, and those who believe it.
struct Domain {
    authority: Authority,
    name: TrustDomain,
    bundles: BundleSet,
    now: OffsetDateTime,
}

impl Domain {
    fn new() -> Self {
        let authority = Authority::root("example.org");
        let name: TrustDomain = "example.org".parse().expect("a trust domain");
        let bundle = TrustBundle::new(name.clone(), vec![authority.root_certificate().clone()]).expect("a bundle");
        Self { authority, name, bundles: [bundle].into_iter().collect(), now: OffsetDateTime::now_utc() }
    }

    /// With the revocations from this number on, in statements as large as they may be, their signatures verified.
    fn add(&self, known: &RevocationSet, from: u64, to: u64) -> RevocationSet {
        let signature = self.authority.sign(&SignedRevocations::signed_bytes(&[]));
        let signed = SignedRevocations { statement: &[], signature: &signature, chain: self.authority.chain() };
        let mut known = known.clone();
        let mut after = from;
        while after < to {
            let epoch = to.min(after + MOST);
            let verified = signed.verify(&self.name, &self.bundles, &known, self.now).expect("a good signature");
            known = known.with(verified, statement(after, epoch, to), self.now).expect("a good statement");
            after = epoch;
        }
        known
    }
}

fn statement(after: u64, epoch: u64, latest: u64) -> RevocationStatement {
    let serials = RevokedSerials {
        authority_key_id: AUTHORITY.to_vec(),
        serials: (after..epoch).map(|number| serial(number).to_vec()).collect(),
        not_after: vec![i64::MAX; (epoch - after) as usize],
    };
    let (trust_domain, lineage) = ("example.org".to_owned(), vec![1; 8]);
    RevocationStatement { trust_domain, lineage, after, epoch, latest, serials: vec![serials], ..Default::default() }
}

/// Sixteen bytes that look drawn.
fn serial(number: u64) -> [u8; 16] {
    let mut serial = [0; 16];
    let mixed = |number: u64| (number ^ number >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    serial[..8].copy_from_slice(&(mixed(mixed(number + 1)) | 1 << 63).to_be_bytes());
    serial[8..].copy_from_slice(&mixed(number + 0x5851_f42d).to_be_bytes());
    serial
}

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
    let domain = Domain::new();
    let small = domain.add(&RevocationSet::default(), 0, 1);
    let (before, begun) = (resident(), Instant::now());
    let million = domain.add(&small, 1, MILLION);
    let took = begun.elapsed();
    // What was freed on the way is given back after a while.
    std::thread::sleep(Duration::from_secs(12));
    let _some_work = domain.add(&million, MILLION, MILLION + 1);
    if let (Some(before), Some(after)) = (before, resident()) {
        println!("a million serial numbers: {:.1} MiB, added in {took:?}", (after - before) as f64 / 1024.0);
    }
    let begun = Instant::now();
    let _more = domain.add(&million, MILLION, MILLION + 100_000);
    println!("100,000 more, in statements of 16,384 with their signatures: {:?}", begun.elapsed());

    let known = million.get(&domain.name).expect("revocations");
    // In an order that no cache foresees, made before.
    let place = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % MILLION;
    let looked_for = |from: u64| -> Vec<Serial> {
        (0..1 << 20).map(|number| Serial::from_be_bytes(&serial(from + place(number)))).collect()
    };
    for (name, from, expected) in [("revoked", 0, true), ("not revoked", MILLION, false)] {
        let serials = looked_for(from);
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
