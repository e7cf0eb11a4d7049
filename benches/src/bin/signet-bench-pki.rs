//! Makes the PKI of a bench, and with `--rotate` keeps replacing the SVIDs in it.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use signet_benches::pki::BenchPki;

/// Make the bench's PKI in a folder
#[derive(Debug, Parser)]
struct Options {
    /// Folder to write to; created if it is not there
    dir: PathBuf,
    /// Number of client identities
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Life of the SVIDs in seconds
    #[arg(long, default_value_t = 86_400)]
    ttl: u64,
    /// Stay, and replace the server's SVID every so many milliseconds
    #[arg(long, value_name = "MS")]
    rotate: Option<u64>,
    /// With --rotate: replace the clients' SVIDs too
    #[arg(long, requires = "rotate")]
    rotate_clients: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let ttl = Duration::from_secs(options.ttl);
    let pki = BenchPki::new();
    pki.write_fixed(&options.dir, ttl)?;
    pki.rotate_clients(&options.dir, 0, options.clients, ttl)?;
    pki.rotate_server(&options.dir, 0, ttl)?;
    println!("{}", options.dir.display());

    let Some(every) = options.rotate.map(Duration::from_millis) else { return Ok(()) };
    for generation in 1.. {
        std::thread::sleep(every);
        if options.rotate_clients {
            pki.rotate_clients(&options.dir, generation, options.clients, ttl)?;
        }
        pki.rotate_server(&options.dir, generation, ttl)?;
    }
    Ok(())
}
