//! What an issuer costs and how fast it is: a real `identity-issuer` process, callers over mTLS and gRPC in this one, and OpenBao's PKI
//! engine beside it on the same cores. Prints a table.
//!
//! ```text
//! signet-bench-issuer                          every figure
//! signet-bench-issuer rate push --seconds 5    some of them
//! signet-bench-issuer rate --bao bao           beside OpenBao
//! ```

#![forbid(unsafe_code)]
#![allow(clippy::expect_used)]

mod bao;
mod cold;
mod crowd;
mod decide;
mod idle;
mod inventory;
mod overload;
mod push;
mod rate;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use signet_benches::issuer::table::Table;

/// Measures an issuer, and OpenBao beside it
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// What to measure; everything where nothing is named
    figures: Vec<Figure>,
    /// How long each rate is measured
    #[arg(long, default_value_t = 4, value_name = "SECONDS")]
    seconds: u64,
    /// How often rates are measured, in turns with the peer
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// OpenBao's program; without it, there is nothing to compare with
    #[arg(long, value_name = "PATH")]
    bao: Option<PathBuf>,
    /// Identities of a cold start
    #[arg(long, default_value_t = 100_000)]
    identities: usize,
    /// Workloads of one rule
    #[arg(long, default_value_t = 1_000_000)]
    workloads: usize,
    /// Certificates on record that are looked through
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Figure {
    /// Certificates a second, each on record, beside OpenBao
    Rate,
    /// How long a renewal takes at half load
    Latency,
    /// How soon a change of the policy is an SVID in a waiting workload's hands
    Push,
    /// What a stream costs that has nothing to say
    Idle,
    /// How long a decision takes with many rules
    Decide,
    /// A hundred thousand identities at once
    Cold,
    /// The issuer's memory with a million workloads
    Crowd,
    /// Renewals while three times as much is asked as the issuer can do
    Overload,
    /// Pages of what was issued, where very much was
    Inventory,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    raise_limit_of_open_files()?;
    let figures = match &arguments.figures[..] {
        [] => Figure::value_variants(),
        some => some,
    };
    let mut table = Table::default();
    for figure in figures {
        // Each in a runtime of its own: what one leaves behind costs the next nothing.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let seconds = Duration::from_secs(arguments.seconds);
        runtime.block_on(async {
            match figure {
                Figure::Rate => rate::measure(&mut table, seconds, arguments.rounds, arguments.bao.as_deref()).await,
                Figure::Latency => rate::latency(&mut table, seconds).await,
                Figure::Push => push::measure(&mut table).await,
                Figure::Idle => idle::measure(&mut table).await,
                Figure::Decide => decide::measure(&mut table),
                Figure::Cold => cold::measure(&mut table, arguments.identities).await,
                Figure::Crowd => crowd::measure(&mut table, arguments.workloads).await,
                Figure::Overload => overload::measure(&mut table, seconds).await,
                Figure::Inventory => inventory::measure(&mut table, arguments.records).await,
            }
        })?;
    }
    print!("{}", table.to_markdown());
    Ok(())
}

/// Thousands of connections from one process.
fn raise_limit_of_open_files() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}
