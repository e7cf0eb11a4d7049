//! Instructions under callgrind: counts that a busy machine does not change. `benches/run` compares them with
//! `benches/baseline/instructions.json`.
//!
//! ```text
//! handshake   one end of a handshake in memory: full, full with a chain that is known, resumed
//! chain       believing a peer's chain, new and known
//! policy      whether one of many patterns allows a caller
//! snapshot    an identity that is built, and one that is loaded
//! request     a whole gateway: what one more request costs it
//! ```
//!
//! Keys and signatures differ from run to run, and with them the paths of rejection sampling and of signature checks.
//! So most benchmarks do their work many times: `times_32` in a name is how often, and what is compared is the 32nd
//! part. Of a benchmark that has two such numbers, it is the difference of its counts over the difference of those, in
//! the thread that works the more for it.

// A bench that cannot be set up has nobody to tell but whoever runs it.
#![allow(clippy::expect_used)]
// The macros write every path in full, and what they write is public.
#![allow(unreachable_pub, unused_qualifications)]

mod chain;
mod handshake;
mod policy;
mod request;
mod snapshot;

/// What gungraun makes of the groups: a `main` that measures each benchmark in a process of its own.
mod harness {
    use gungraun::{Callgrind, LibraryBenchmarkConfig, main};

    use super::chain::chain;
    use super::handshake::handshake;
    use super::policy::policy;
    use super::request::request;
    use super::snapshot::snapshot;

    main!(
        config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
        library_benchmark_groups = [handshake, chain, policy, snapshot, request]
    );

    pub(super) fn run() {
        main();
    }
}

fn main() {
    if request::is_peer() {
        request::be_peer();
    } else {
        harness::run();
    }
}
