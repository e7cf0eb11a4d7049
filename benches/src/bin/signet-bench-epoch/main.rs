//! What a change of trust costs a gateway that is full of live connections, and what its callers notice of it.
//!
//! ```text
//! this process                                                    its child
//! fleet of identities, half of each authority ── N connections ──► gateway ──► origin (here)
//! echo: a request each millisecond             ── 1 connection  ──►
//! bundle file: A+B, then A+B+C, then A+C                          its log tells when trust changed and all were judged
//! ```
//! Two processes, because one may not have twice as many descriptors as there are connections. The echo shares the machine
//! with both, so its longest wait is an upper bound on how long a worker stood still.

#![forbid(unsafe_code)]

mod closing;
mod connection;
mod echo;
mod gateway;
mod mesh;
mod origin;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use closing::Closing;
use echo::Echo;
use gateway::GatewayProcess;
use mesh::Mesh;
use report::Report;

/// Measure a change of trust under many live connections
///
/// Starts a gateway in a process of its own, connects to it, adds an authority to its bundle, then removes the one that
/// half of the callers have their certificates from.
#[derive(Debug, Parser)]
struct Options {
    /// Live connections
    #[arg(short, long, default_value_t = 10_000)]
    connections: usize,
    /// Identities that they are shared out to
    #[arg(short, long, default_value_t = 1_000)]
    identities: usize,
    /// The gateway's workers
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Be the gateway
    #[arg(long, hide = true)]
    gateway: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(config) = &options.gateway {
        return gateway::run(config);
    }
    allow_descriptors(options.connections)?;
    let mesh = Mesh::new(&options)?;
    let mut gateway = GatewayProcess::start(&mesh.folder.path().join("gateway.yaml"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(measure(&options, &mesh, &mut gateway))?;
    if options.json {
        println!("{}", report.json())
    } else {
        print!("{report}")
    }
    Ok(())
}

async fn measure(options: &Options, mesh: &Mesh, gateway: &mut GatewayProcess) -> anyhow::Result<Report> {
    let address = gateway.address().await?;
    let fleet = mesh.connect(address, options).await?;
    let echo = |for_least| Echo::start(mesh.clients[0].config.clone(), address, for_least);

    let quiet = echo(QUIET)?.finish().await?;

    let watching = echo(SETTLE)?;
    tokio::time::sleep(SETTLE).await;
    mesh.publish(&[&mesh.staying, &mesh.leaving, &mesh.joining])?;
    let added = gateway.change(options).await?;
    let added_longest = watching.finish().await?;

    let watching = echo(SETTLE)?;
    tokio::time::sleep(SETTLE).await;
    // Thousands of connections that end keep this thread busy; the echo must not wait for it.
    rustix::process::nice(19)?;
    let closing = Closing::begin(fleet);
    mesh.publish(&[&mesh.staying, &mesh.joining])?;
    let removed = gateway.change(options).await?;
    let (closed, others) = closing.finish(removed.published).await?;
    let removed_longest = watching.finish().await?;
    let others = others.count_closed().await?;

    Ok(Report {
        connections: options.connections,
        identities: options.identities,
        workers: options.workers,
        quiet,
        added: (added, added_longest),
        removed: (removed, removed_longest),
        closed,
        others,
    })
}

/// Both change and quiet are watched for this long at least.
const QUIET: Duration = Duration::from_secs(2);
const SETTLE: Duration = Duration::from_millis(300);
/// Handshakes or requests of the fleet at once.
const AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(30);

/// Each connection is a descriptor, here and in the gateway.
fn allow_descriptors(connections: usize) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let needed = connections as u64 + 1_000;
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    anyhow::ensure!(
        allowed >= needed,
        "{connections} connections need {needed} open files, and the hard limit is {allowed}; raise it or use fewer --connections"
    );
    Ok(())
}
