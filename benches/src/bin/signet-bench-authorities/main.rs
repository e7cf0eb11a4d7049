//! Revocation and rotation where there are many: real `identity-issuer` and `signet-gateway` processes, callers and SDK clients in this
//! one, all on the same cores. Prints a table.
//!
//! ```text
//! signet-bench-authorities                                     every figure
//! signet-bench-authorities revoke --serials 5000 --gateways 5  one of them, smaller
//! ```

#![forbid(unsafe_code)]

mod close;
mod fleet;
mod gateways;
mod hold;
mod issue;
mod progress;
mod revoke;
mod root;
mod taint;

use std::time::Duration;

use clap::{Parser, ValueEnum};
use signet_benches::issuer::table::Table;

/// As in a gateway: a part of what is measured here is what a gateway does.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures revocation and rotation where there are many
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// What to measure; everything where nothing is named
    figures: Vec<Figure>,
    /// Certificates that are revoked at once, by their serial numbers
    #[arg(long, default_value_t = 100_000)]
    serials: usize,
    /// Gateways that are to refuse them, each a process
    #[arg(long, default_value_t = 100)]
    gateways: usize,
    /// Revoked serial numbers that a gateway holds
    #[arg(long, default_value_t = 1_000_000)]
    held: u64,
    /// Clients of an issuer, each with an identity and a stream of its own
    #[arg(long, default_value_t = 1_000)]
    clients: usize,
    /// Live certificates of an authority that is tainted
    #[arg(long, default_value_t = 100_000)]
    certificates: usize,
    /// How long rates and latencies are measured
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    seconds: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Figure {
    /// From a command that revokes many to the refusal of all of them at many gateways, and to the CRL
    Revoke,
    /// What a gateway's memory takes for many, and how long it looks for one
    Hold,
    /// From a command to the end of the live connections of who is revoked
    Close,
    /// The whole rotation of a root
    Root,
    /// What others notice while all that an authority signed is renewed
    Taint,
    /// Certificates a second
    Issue,
}

/// For one figure: whatever hangs, the others are measured.
const LONGEST: Duration = Duration::from_secs(150);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    raise_limit_of_open_files()?;
    let figures = match &arguments.figures[..] {
        [] => Figure::value_variants(),
        some => some,
    };
    let mut table = Table::default();
    for figure in figures {
        progress::say(format_args!("{figure:?}"));
        // Each in a runtime of its own: what one leaves behind costs the next nothing.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let measured = runtime.block_on(async {
            let measuring = measure(*figure, &arguments, &mut table);
            tokio::time::timeout(LONGEST, measuring).await.map_err(anyhow::Error::from).flatten()
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
        if let Err(error) = measured {
            table.row(format!("{figure:?}"), format!("broke off: {error:#}"), "it can be measured", false);
        }
    }
    print!("{}", table.to_markdown());
    Ok(())
}

async fn measure(figure: Figure, arguments: &Arguments, table: &mut Table) -> anyhow::Result<()> {
    let seconds = Duration::from_secs(arguments.seconds);
    match figure {
        Figure::Revoke => revoke::measure(table, arguments.serials, arguments.gateways).await,
        Figure::Hold => hold::measure(table, arguments.held).await,
        Figure::Close => close::measure(table, arguments.clients).await,
        Figure::Root => root::measure(table, arguments.clients).await,
        Figure::Taint => taint::measure(table, arguments.certificates, seconds).await,
        Figure::Issue => issue::measure(table, seconds).await,
    }
}

/// Thousands of connections from one process.
fn raise_limit_of_open_files() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}
