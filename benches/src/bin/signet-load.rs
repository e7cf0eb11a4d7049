//! The load generator's command line.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use signet_benches::load::{
    Curve, FleetSource, Held, Loop, Mode, Plan, Proof, Signatures, Step, TlsPlan, Watched, idle, run,
};

/// Put mTLS load on a server and say what it took
///
/// Exits with 0 when every operation succeeded, 1 when some failed, 2 when the run could not be made.
#[derive(Debug, Parser)]
struct Options {
    /// What one operation is
    #[arg(value_enum)]
    mode: ModeOption,
    /// Address of the server
    target: SocketAddr,
    /// Client identities: a folder of NAME.pem (leaf first) and NAME.key
    #[arg(long, value_name = "DIR", conflicts_with_all = ["cert", "key"])]
    identities: Option<PathBuf>,
    /// One client identity: chain, leaf first
    #[arg(long, value_name = "PEM", requires = "key")]
    cert: Option<PathBuf>,
    /// One client identity: key
    #[arg(long, value_name = "PEM", requires = "cert")]
    key: Option<PathBuf>,
    /// Roots that the server must stand under
    #[arg(long, value_name = "PEM")]
    roots: Option<PathBuf>,
    /// No TLS
    #[arg(long, conflicts_with_all = ["identities", "cert", "key", "roots", "follow"])]
    plain: bool,
    /// Take up changed identity files, on new connections, without a gap in the load
    #[arg(long)]
    follow: bool,
    /// Operations per second (open loop: latency counts from when each was due); without it, as fast as answers come
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Measured seconds
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Seconds before that
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// Threads, each with its own runtime; pin them with taskset
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// Connections, or places that make handshakes, over all threads
    #[arg(short, long, default_value = "64")]
    connections: NonZeroUsize,
    /// HTTP/2 streams on each connection
    #[arg(short, long, default_value = "32")]
    streams: NonZeroUsize,
    #[arg(long, default_value = "/")]
    path: String,
    /// Host or :authority of each request; by default the target
    #[arg(long)]
    authority: Option<String>,
    /// Upload so many bytes with each request
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    body: usize,
    #[arg(long, value_enum, default_value = "x25519mlkem768")]
    curve: CurveOption,
    /// Check the server's chain and signature in each handshake, not only when its certificate is new
    #[arg(long)]
    check_always: bool,
    /// How it is known that the server accepted a handshake
    #[arg(long, value_enum, default_value = "ticket")]
    proof: ProofOption,
    /// Report the CPU time of these processes too, together and under this name
    #[arg(long, value_name = "NAME=PID[,PID…]", value_parser = watched)]
    watch: Vec<Watched>,
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeOption {
    /// Full handshakes, a new connection each
    Handshake,
    /// Handshakes resumed by ticket, a new connection each
    Resumed,
    Http1,
    Http2,
    /// Unary gRPC calls over HTTP/2, with a message of --body bytes
    Grpc,
    /// Open connections and hold them; make one request on each and hold them. A line on standard input ends each hold
    Idle,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProofOption {
    /// Its first session ticket
    Ticket,
    /// It closes without an alert when it is told that nothing more comes; for servers that send no ticket before an answer
    Close,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CurveOption {
    X25519,
    X25519mlkem768,
}

fn main() -> ExitCode {
    match generate(Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn generate(options: Options) -> anyhow::Result<ExitCode> {
    let json = options.json;
    let plan = options.plan()?;
    if plan.mode == Mode::Idle {
        return hold_idle(&plan);
    }
    let report = run(&plan)?;
    if json {
        println!("{:#}", report.to_json());
    } else {
        println!("{report}");
    }
    if report.operations() == 0 && report.failures() == 0 {
        bail!("nothing was done in the measured time; a longer --duration or --warmup may help");
    }
    Ok(if report.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn hold_idle(plan: &Plan) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    idle(plan, |Held { step, connections, failed }| {
        let step = match step {
            Step::Opened => "opened",
            Step::Requested => "requested",
        };
        println!("{step} {connections} failed {failed}");
        if failed > 0 {
            code = ExitCode::FAILURE;
        }
        // The end of the input is a sign to go on as well.
        drop(std::io::stdin().read_line(&mut String::new()));
    })?;
    Ok(code)
}

/// `NAME=PID[,PID…]`
fn watched(text: &str) -> anyhow::Result<Watched> {
    let (name, processes) = text.split_once('=').context("NAME=PID[,PID…]")?;
    let processes = processes.split(',').map(str::parse).collect::<Result<_, _>>().context("not process IDs")?;
    Ok(Watched { name: name.to_owned(), processes })
}

impl Options {
    fn plan(self) -> anyhow::Result<Plan> {
        let tls = if self.plain { None } else { Some(self.tls()?) };
        Ok(Plan {
            target: self.target,
            mode: match self.mode {
                ModeOption::Handshake => Mode::Handshake,
                ModeOption::Resumed => Mode::Resumed,
                ModeOption::Http1 => Mode::Http1,
                ModeOption::Http2 => Mode::Http2,
                ModeOption::Grpc => Mode::Grpc,
                ModeOption::Idle => Mode::Idle,
            },
            pace: match self.rate {
                None => Loop::Closed,
                Some(per_second) if per_second.is_finite() && per_second > 0.0 => Loop::Open { per_second },
                Some(rate) => bail!("--rate {rate}: needs a number above 0"),
            },
            warmup: seconds("--warmup", self.warmup)?,
            duration: seconds("--duration", self.duration)?,
            patience: Duration::from_secs(10),
            threads: self.threads,
            connections: self.connections,
            streams: self.streams,
            path: self.path,
            authority: self.authority.unwrap_or_else(|| self.target.to_string()),
            body: self.body,
            tls,
            proof: match self.proof {
                ProofOption::Ticket => Proof::Ticket,
                ProofOption::Close => Proof::Close,
            },
            watched: self.watch,
        })
    }

    fn tls(&self) -> anyhow::Result<TlsPlan> {
        let clients = match (&self.identities, &self.cert, &self.key) {
            (Some(folder), _, _) => FleetSource::folder(folder.clone())?,
            (None, Some(cert), Some(key)) => FleetSource::pair(cert.clone(), key.clone())?,
            _ => bail!("--identities, or --cert and --key, or --plain"),
        };
        if self.follow {
            clients.follow()?;
        }
        let roots = self.roots.as_deref().context("--roots says which server to believe")?;
        Ok(TlsPlan {
            clients,
            roots: Arc::new(read_roots(roots)?),
            curve: match self.curve {
                CurveOption::X25519 => Curve::X25519,
                CurveOption::X25519mlkem768 => Curve::X25519MlKem768,
            },
            signatures: if self.check_always { Signatures::Always } else { Signatures::Once },
        })
    }
}

fn read_roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(path).with_context(|| path.display().to_string())? {
        roots.add(root.with_context(|| path.display().to_string())?).with_context(|| path.display().to_string())?;
    }
    if roots.is_empty() {
        bail!("{}: no certificate", path.display());
    }
    Ok(roots)
}

fn seconds(option: &str, value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("{option} {value}: not a number of seconds"))
}
