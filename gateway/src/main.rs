//! The gateway's binary: arguments, logging, signals.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use signet_gateway::Started;
use signet_gateway::config::Gateway;
use signet_process::logging::{self, Format};
use signet_process::{shutdown, start};
use tokio::sync::oneshot;

/// A connection costs many small pieces of memory, a request some of one life: measured 10 % of a request's instructions.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// mTLS in front of services and beside their clients
#[derive(Debug, Parser)]
#[command(
    name = "signet-gateway",
    version,
    after_help = "Examples:\n  signet-gateway --config gateway.yaml\n  signet-gateway --config gateway.yaml --check"
)]
struct Arguments {
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "SIGNET_GATEWAY_CONFIG")]
    config: PathBuf,
    /// Validate the configuration and exit
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start::main(|| gateway(&arguments))
}

fn gateway(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let config = Gateway::load(&arguments.config)?;
    if arguments.check {
        println!("{}: valid", arguments.config.display());
        return Ok(());
    }
    let log = logging::init(Format::auto());
    let shutdown = shutdown::signals()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (started, begun) = oneshot::channel::<Started>();
        let announce = async {
            let Ok(started) = begun.await else { return };
            tracing::info!(address = %started.admin, "admin address");
            for (listener, address) in &started.listeners {
                tracing::info!(%listener, %address, "port claimed");
            }
        };
        let (result, ()) = tokio::join!(signet_gateway::run(config, Some(log), started, shutdown), announce);
        result
    })?;
    Ok(())
}
