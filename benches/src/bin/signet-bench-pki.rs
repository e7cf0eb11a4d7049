//! Makes the PKI of a bench, and with `--rotate` keeps replacing the SVIDs in it.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use signet_benches::pki::BenchPki;
use signet_benches::probe::Probe;

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
    /// With --rotate: after each, ask this server until it presents the new SVID, and print how long that took
    ///
    /// Begins when the server is up. `published` is printed as soon as the files are in place, for whoever has to tell the server.
    #[arg(long, requires = "rotate", value_name = "ADDRESS")]
    probe: Option<SocketAddr>,
    /// With --rotate: end after so many
    #[arg(long, requires = "rotate")]
    rotations: Option<u64>,
}

/// How long a probed server may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let ttl = Duration::from_secs(options.ttl);
    let pki = BenchPki::new();
    pki.write_fixed(&options.dir, ttl)?;
    pki.rotate_clients(&options.dir, 0, options.clients, ttl)?;
    pki.rotate_server(&options.dir, 0, ttl)?;
    println!("{}", options.dir.display());

    let Some(every) = options.rotate.map(Duration::from_millis) else { return Ok(()) };
    let probe = options.probe.map(|server| Probe::new(server, &pki.client(0, ttl), pki.root())).transpose()?;
    if let Some(probe) = &probe {
        probe.wait_until_up(PATIENCE)?;
    }
    for generation in 1..=options.rotations.unwrap_or(u64::MAX) {
        std::thread::sleep(every);
        if options.rotate_clients {
            pki.rotate_clients(&options.dir, generation, options.clients, ttl)?;
        }
        let issued = pki.rotate_server(&options.dir, generation, ttl)?;
        println!("published");
        if let Some(probe) = &probe {
            let seen = probe.until(&issued.chain[0], every);
            let micros = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e6);
            let found = serde_json::json!({
                "begun_after_microseconds": micros(seen.begun_after),
                "done_after_microseconds": micros(seen.done_after),
                "old": seen.old,
                "failed": seen.failed,
            });
            println!("{found}");
        }
    }
    Ok(())
}
