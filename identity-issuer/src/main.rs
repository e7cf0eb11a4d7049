//! `identity-issuer --config FILE [--check]`

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use identity_issuer::{Config, Environment};
use signet_identity::SystemClock;
use signet_process::{logging, shutdown, start};

/// Thousands of connections that do nothing are many small pieces of memory of one age: measured 6 KiB less for each.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Issues short-lived certificates to workloads
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  identity-issuer --config issuer.yaml --check && identity-issuer --config issuer.yaml"
)]
struct Arguments {
    /// Configuration, YAML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and the files it names, and do nothing else
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start::main(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error + Send + Sync>> {
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        config.authority.key.check()?;
        println!("{}: ok", arguments.config.display());
        return Ok(());
    }
    let log = logging::init(logging::Format::auto());
    let shutdown = shutdown::signals()?;
    let environment = Environment { clock: Arc::new(SystemClock), log: Some(log) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let announce = |started: identity_issuer::Started| {
        let socket = started.admin_socket.display();
        tracing::info!(grpc = %started.grpc, admin = %started.admin, admin_socket = %socket, "started");
    };
    Ok(runtime.block_on(identity_issuer::run(config, environment, announce, shutdown))?)
}
