//! How soon a published snapshot is used: threads make handshakes without a pause while another one publishes.
//!
//! Three facts come out. *stale*: handshakes that began after a publication had returned and still used an older snapshot;
//! there must be none. *publish*: how long the publication itself takes, after which every handshake uses the new snapshot.
//! *publish → next handshake*: from the call of `publish` to the first handshake that begins with the new snapshot, which
//! includes the wait until some thread is done with its last one and begins another.

#![forbid(unsafe_code)]

use std::fmt;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use hdrhistogram::Histogram;
use signet_benches::memory::{Ends, handshake};
use signet_identity::{LiveIdentity, live};
use signet_test_pki::Authority;

/// Measure how soon a published identity is used under load
///
/// Exits with 1 when a handshake used a snapshot that had been replaced before it began.
#[derive(Debug, Parser)]
struct Options {
    /// Publications
    #[arg(short = 'n', long, default_value_t = 1000)]
    publications: u32,
    /// Milliseconds between two of them
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// Threads that make handshakes
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
}

/// When a handshake began, and the generation that it took.
#[derive(Clone, Copy)]
struct Begun {
    at: Instant,
    generation: u64,
}

struct Published {
    called: Instant,
    returned: Instant,
    generation: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let issuing = Authority::root("example.org").intermediate();
    let ends = Ends::new()?;
    let new_svid = || issuing.leaf("spiffe://example.org/gateway/inbound").issue();
    let client = ends.snapshot(&issuing.leaf("spiffe://example.org/shop/cart").issue(), &issuing)?;
    let (mut publisher, identity) = live(ends.snapshot(&new_svid(), &issuing)?);

    let done = AtomicBool::new(false);
    let (published, begun) = thread::scope(|scope| -> anyhow::Result<_> {
        let (ends, client, done) = (&ends, &client, &done);
        let load = |identity: LiveIdentity| {
            let mut begun = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let at = Instant::now();
                let snapshot = identity.load_full();
                begun.push(Begun { at, generation: snapshot.generation().get() });
                handshake(snapshot.server(ends.server), client.client(ends.client))?;
            }
            anyhow::Ok(begun)
        };
        let threads: Vec<_> = (0..options.threads.get())
            .map(|_| (identity.clone(), load))
            .map(|(identity, load)| scope.spawn(move || load(identity)))
            .collect();

        let mut publish = || {
            let mut published = Vec::new();
            for _ in 0..options.publications {
                let next = ends.successor(&new_svid(), &issuing, Some(&publisher.current()))?;
                thread::sleep(Duration::from_millis(options.every));
                let called = Instant::now();
                let generation = publisher.publish(next)?.get();
                published.push(Published { called, returned: Instant::now(), generation });
            }
            // So that the last one is used too.
            thread::sleep(Duration::from_millis(20));
            anyhow::Ok(published)
        };
        let published = publish();
        done.store(true, Ordering::Relaxed);
        let mut begun = Vec::new();
        for thread in threads {
            begun.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread that made handshakes panicked"))??);
        }
        begun.sort_unstable_by_key(|handshake| handshake.at);
        Ok((published?, begun))
    })?;

    let mut publishing = histogram()?;
    let mut delays = histogram()?;
    let mut stale = 0_usize;
    for publication in &published {
        let next = begun.partition_point(|handshake| handshake.at < publication.called);
        let first = begun[next..].iter().find(|handshake| handshake.generation >= publication.generation);
        let first = first.context("a publication that no handshake used; use a longer --every")?;
        publishing.record(nanoseconds(publication.called, publication.returned)?)?;
        delays.record(nanoseconds(publication.called, first.at)?)?;
        let after = begun.partition_point(|handshake| handshake.at <= publication.returned);
        stale += begun[after..].iter().take_while(|handshake| handshake.generation < publication.generation).count();
    }
    println!("{} publications under {} handshakes, {stale} stale", published.len(), begun.len());
    println!("publish:                   {}", Quantiles(&publishing));
    println!("publish → next handshake:  {}", Quantiles(&delays));
    Ok(if stale == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Up to a minute, in nanoseconds.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(60_000_000_000, 3)?)
}

fn nanoseconds(from: Instant, to: Instant) -> anyhow::Result<u64> {
    Ok(u64::try_from((to - from).as_nanos())?)
}

struct Quantiles<'a>(&'a Histogram<u64>);

impl fmt::Display for Quantiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        write!(f, "p50 {:.1} µs, p99 {:.1} µs, max {:.1} µs", micros(0.5), micros(0.99), micros(1.0))
    }
}
