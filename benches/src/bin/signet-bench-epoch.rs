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

use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use signet_benches::pki::{SERVER_ID, TRUST_DOMAIN};
use signet_gateway::Started;
use signet_gateway::config::Gateway;
use signet_identity::{
    ClientCredentials, ClientKey, ClientPolicy, Material, Snapshot, SystemClock, TlsPolicies, TrustBundle, X509Svid,
};
use signet_process::logging::{self, Format};
use signet_test_pki::{Authority, Issued, pem};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

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
        return gateway(config);
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

/// What came out.
struct Report {
    connections: usize,
    identities: usize,
    workers: u32,
    quiet: Duration,
    added: (Change, Duration),
    removed: (Change, Duration),
    closed: Closed,
    /// How many closed whose authority stays.
    others: usize,
}

impl Report {
    fn json(&self) -> Value {
        let change = |(change, longest): &(Change, Duration)| {
            json!({
                "judged_ms": ms(change.judged),
                "judging_ms": ms(change.judging),
                "cut_off": change.cut_off,
                "longest_echo_ms": ms(*longest),
            })
        };
        json!({
            "connections": self.connections,
            "identities": self.identities,
            "workers": self.workers,
            "quiet": { "longest_echo_ms": ms(self.quiet) },
            "authority_added": change(&self.added),
            "authority_removed": change(&self.removed),
            "closed": {
                "connections": self.closed.leaving,
                "first_ms": ms(self.closed.first),
                "last_ms": ms(self.closed.last),
                "others_closed": self.others,
            },
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, identities, workers, quiet, added, removed, closed, others } = self;
        writeln!(f, "{connections} connections, {identities} identities, {workers} worker(s)")?;
        writeln!(f, "                     published → all judged   at work    longest echo")?;
        writeln!(f, "nothing changes      {:>22}   {:>7}   {:>9.2} ms", "–", "–", ms(*quiet))?;
        for (what, (change, longest)) in [("authority added", added), ("authority removed", removed)] {
            let (judged, judging, longest) = (ms(change.judged), ms(change.judging), ms(*longest));
            writeln!(f, "{what:<18}   {judged:>19.2} ms   {judging:>4.1} ms   {longest:>9.2} ms")?;
        }
        let (first, last) = (ms(closed.first), ms(closed.last));
        writeln!(f, "{} connections closed {first:.1} to {last:.1} ms after the publication", closed.leaving)?;
        writeln!(f, "{others} of the {} others closed", connections - closed.leaving)
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

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

/// The authorities of one trust domain, the fleet, and the files that the gateway reads.
struct Mesh {
    folder: tempfile::TempDir,
    staying: Authority,
    leaving: Authority,
    joining: Authority,
    clients: Vec<Client>,
}

struct Client {
    config: Arc<ClientConfig>,
    stays: bool,
}

impl Mesh {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let [staying, leaving, joining] = [(); 3].map(|()| Authority::root(TRUST_DOMAIN).intermediate());
        let clients = clients(options.identities, &staying, &leaving)?;
        let mesh = Self { folder: tempfile::tempdir()?, staying, leaving, joining, clients };
        let own = mesh.staying.leaf(SERVER_ID).issue();
        let path = |name| mesh.folder.path().join(name);
        fs::write(path("own.pem"), own.chain_pem())?;
        fs::write(path("own.key"), own.key_pem())?;
        mesh.publish(&[&mesh.staying, &mesh.leaving])?;
        let config = GATEWAY
            .replace("@DIR@", &mesh.folder.path().display().to_string())
            .replace("@WORKERS@", &options.workers.to_string())
            .replace("@ORIGIN@", &origin()?.to_string());
        fs::write(path("gateway.yaml"), config)?;
        Ok(mesh)
    }

    /// Writes the bundle that the gateway is to trust, in one step.
    fn publish(&self, authorities: &[&Authority]) -> anyhow::Result<()> {
        let roots = authorities.iter().map(|authority| pem("CERTIFICATE", authority.root_certificate()));
        let next = self.folder.path().join("next");
        fs::write(&next, roots.collect::<String>())?;
        Ok(fs::rename(next, self.folder.path().join("roots.pem"))?)
    }

    /// Makes the fleet's connections, and proves each of them by a request.
    async fn connect(&self, address: SocketAddr, options: &Options) -> anyhow::Result<Vec<Connection>> {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut connecting = JoinSet::new();
        for number in 0..options.connections {
            let place = places.clone().acquire_owned().await?;
            let client = &self.clients[number % self.clients.len()];
            let (config, stays) = (client.config.clone(), client.stays);
            connecting.spawn(async move {
                let mut stream = connect(config, address).await?;
                ask(&mut stream).await?;
                drop(place);
                anyhow::Ok(Connection { stream, stays })
            });
        }
        let mut fleet = Vec::with_capacity(options.connections);
        while let Some(connected) = connecting.join_next().await {
            fleet.push(connected??);
        }
        Ok(fleet)
    }
}

const GATEWAY: &str = r#"
identity:
  files: { certificate: "@DIR@/own.pem", key: "@DIR@/own.key", bundle: "@DIR@/roots.pem" }
admin: 127.0.0.1:0
workers: @WORKERS@
listeners:
  - { name: inbound, mode: inbound, listen: "127.0.0.1:0", allow: ["spiffe://example.org/**"], upstream: origin }
upstreams:
  - { name: origin, address: "http://@ORIGIN@" }
"#;

/// Every second identity has its certificate from the authority that leaves.
fn clients(count: usize, staying: &Authority, leaving: &Authority) -> anyhow::Result<Vec<Client>> {
    let mut policies = TlsPolicies::new(Arc::new(SystemClock));
    let key = policies.client(ClientPolicy {
        alpn: vec![b"http/1.1".to_vec()],
        servers: [SERVER_ID.parse()?].into_iter().collect(),
        credentials: ClientCredentials::Svid,
    });
    let roots = [staying, leaving].map(|authority| authority.root_certificate().clone());
    let bundle = TrustBundle::new(TRUST_DOMAIN.parse()?, roots.to_vec())?;
    // They share one chain cache, as what comes after the first goes on in its trust epoch.
    let mut first: Option<Snapshot> = None;
    let mut made = Vec::with_capacity(count);
    for number in 0..count {
        let stays = number % 2 == 0;
        let authority = if stays { staying } else { leaving };
        let issued = authority.leaf(&format!("spiffe://{TRUST_DOMAIN}/bench/client-{number:04}")).issue();
        let snapshot = snapshot(&issued, &bundle, &policies, first.as_ref())?;
        made.push(Client { config: config(&snapshot, key), stays });
        first.get_or_insert(snapshot);
    }
    Ok(made)
}

fn snapshot(
    issued: &Issued,
    bundle: &TrustBundle,
    policies: &TlsPolicies,
    previous: Option<&Snapshot>,
) -> anyhow::Result<Snapshot> {
    let svid = X509Svid::from_der(issued.chain.clone(), issued.key())?;
    let material = Material { svid, bundles: [bundle.clone()].into_iter().collect() };
    Ok(Snapshot::build(material, policies, previous)?)
}

fn config(snapshot: &Snapshot, key: ClientKey) -> Arc<ClientConfig> {
    snapshot.client(key).clone()
}

/// One caller of the fleet.
struct Connection {
    stream: TlsStream<TcpStream>,
    stays: bool,
}

async fn connect(config: Arc<ClientConfig>, address: SocketAddr) -> anyhow::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(TlsConnector::from(config).connect(ServerName::try_from("gateway.invalid")?, tcp).await?)
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: origin\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(512);
    while !answer.ends_with(ANSWER) {
        anyhow::ensure!(stream.read_buf(&mut answer).await? > 0, "the gateway closed the connection");
        let begin = &answer[..answer.len().min(OK.len())];
        anyhow::ensure!(OK.starts_with(begin), "the gateway answers: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

const OK: &[u8] = b"HTTP/1.1 200 ";
const ANSWER: &[u8] = b"answered";

/// The plain service behind the gateway, on a thread of its own.
fn origin() -> anyhow::Result<SocketAddr> {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    thread::Builder::new()
        .name("origin".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = TcpListener::from_std(socket)?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    tokio::spawn(answer_all(stream));
                }
            })
        })
        .map(|_: JoinHandle<anyhow::Result<()>>| address)
        .map_err(Into::into)
}

async fn answer_all(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let answer = [b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n", ANSWER].concat();
    let mut request = Vec::with_capacity(1024);
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            anyhow::ensure!(stream.read_buf(&mut request).await? > 0, "closed");
        }
        request.clear();
        stream.write_all(&answer).await?;
    }
}

/// Requests on one live connection, one each millisecond.
struct Echo {
    done: Arc<AtomicBool>,
    least: Instant,
    thread: JoinHandle<anyhow::Result<Duration>>,
}

impl Echo {
    fn start(config: Arc<ClientConfig>, address: SocketAddr, for_least: Duration) -> anyhow::Result<Self> {
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        let thread = thread::Builder::new().name("echo".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut stream = connect(config, address).await?;
                // The first ones open the way to the origin.
                for _ in 0..10 {
                    ask(&mut stream).await?;
                }
                let mut longest = Duration::ZERO;
                while !told.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    ask(&mut stream).await?;
                    longest = longest.max(asked.elapsed());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ok(longest)
            })
        })?;
        Ok(Self { done, least: Instant::now() + for_least, thread })
    }

    /// The longest that one of the requests took.
    async fn finish(self) -> anyhow::Result<Duration> {
        tokio::time::sleep_until((self.least + SETTLE).into()).await;
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the echo panicked"))?
    }
}

/// When the fleet's connections end.
struct Closing {
    leaving: JoinSet<OffsetDateTime>,
    others: Others,
}

/// Those that are to stay. They listen until they are asked whether they are alive.
struct Others {
    staying: JoinSet<anyhow::Result<()>>,
    asked: Arc<Semaphore>,
}

struct Closed {
    leaving: usize,
    first: Duration,
    last: Duration,
}

impl Closing {
    fn begin(fleet: Vec<Connection>) -> Self {
        let others = Others { staying: JoinSet::new(), asked: Arc::new(Semaphore::new(0)) };
        let mut closing = Self { leaving: JoinSet::new(), others };
        for Connection { mut stream, stays } in fleet {
            if stays {
                let asked = closing.others.asked.clone();
                closing.others.staying.spawn(async move {
                    let mut byte = [0];
                    let _place = tokio::select! {
                        _ = stream.read(&mut byte) => anyhow::bail!("closed"),
                        place = asked.acquire() => place?,
                    };
                    ask(&mut stream).await
                });
            } else {
                closing.leaving.spawn(async move {
                    // An end or an error.
                    let _ = stream.read(&mut [0]).await;
                    OffsetDateTime::now_utc()
                });
            }
        }
        closing
    }

    async fn finish(mut self, published: OffsetDateTime) -> anyhow::Result<(Closed, Others)> {
        let all = async {
            let mut ends = Vec::with_capacity(self.leaving.len());
            while let Some(end) = self.leaving.join_next().await {
                ends.push((end? - published).unsigned_abs());
            }
            anyhow::Ok(ends)
        };
        let ends = tokio::time::timeout(PATIENCE, all).await.context("connections that should be closed are not")??;
        let first = ends.iter().min().copied().unwrap_or_default();
        let last = ends.iter().max().copied().unwrap_or_default();
        Ok((Closed { leaving: ends.len(), first, last }, self.others))
    }
}

impl Others {
    async fn count_closed(mut self) -> anyhow::Result<usize> {
        self.asked.add_permits(AT_ONCE);
        let mut closed = 0;
        while let Some(answered) = self.staying.join_next().await {
            closed += usize::from(answered?.is_err());
        }
        Ok(closed)
    }
}

/// The gateway, of which the log is read.
struct GatewayProcess {
    child: Child,
    lines: mpsc::Receiver<Value>,
}

/// A change of trust, as the gateway's log tells it.
struct Change {
    published: OffsetDateTime,
    /// From the publication until the last worker had judged every connection.
    judged: Duration,
    /// The longest that a worker was at it, pauses included.
    judging: Duration,
    cut_off: u64,
}

impl GatewayProcess {
    fn start(config: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--gateway")
            .arg(config)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("the gateway")?;
        let stderr = child.stderr.take().context("the gateway's log")?;
        let (sender, lines) = mpsc::channel(1024);
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str(&line) else {
                    eprintln!("{line}");
                    continue;
                };
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { child, lines })
    }

    async fn address(&mut self) -> anyhow::Result<SocketAddr> {
        let line = self.next(&[READY]).await?;
        Ok(text(&line, "address")?.parse()?)
    }

    /// Waits until a change was published and every worker has judged its connections.
    async fn change(&mut self, options: &Options) -> anyhow::Result<Change> {
        let (mut published, mut last, mut judging, mut cut_off, mut judged) = (None, None, 0, 0, 0);
        // The echo is one more. A worker may be done before the publication is logged.
        while published.is_none() || judged < options.connections as u64 {
            let line = self.next(&[PUBLISHED, JUDGED]).await?;
            if line["message"] == PUBLISHED {
                published = Some(at(&line)?);
                continue;
            }
            last = last.max(Some(at(&line)?));
            judging = judging.max(number(&line, "took_us")?);
            cut_off += number(&line, "cut_off")?;
            judged += number(&line, "connections")?;
        }
        let published = published.context("a publication")?;
        let judged = last.map_or(Duration::ZERO, |last| (last - published).try_into().unwrap_or_default());
        Ok(Change { published, judged, judging: Duration::from_micros(judging), cut_off })
    }

    /// The next line with one of these messages.
    async fn next(&mut self, messages: &[&str]) -> anyhow::Result<Value> {
        loop {
            let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await.ok().flatten();
            let line = line.with_context(|| format!("the gateway's log does not say: {}", messages.join(", or ")))?;
            if messages.iter().any(|message| line["message"] == *message) {
                return Ok(line);
            }
            if line["level"] == "ERROR" {
                eprintln!("{line}");
            }
        }
    }
}

const READY: &str = "ready";
const PUBLISHED: &str = "trust bundles changed";
const JUDGED: &str = "the peers of live connections were judged anew";

impl Drop for GatewayProcess {
    fn drop(&mut self) {
        // It is gone already, or goes now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn at(line: &Value) -> anyhow::Result<OffsetDateTime> {
    Ok(OffsetDateTime::parse(text(line, "timestamp")?, &Rfc3339)?)
}

fn text<'l>(line: &'l Value, field: &str) -> anyhow::Result<&'l str> {
    line[field].as_str().with_context(|| format!("no `{field}` in {line}"))
}

fn number(line: &Value, field: &str) -> anyhow::Result<u64> {
    line[field].as_u64().with_context(|| format!("no `{field}` in {line}"))
}

/// What the child does, as long as its parent lives.
fn gateway(config: &Path) -> anyhow::Result<()> {
    let config = Gateway::load(config)?;
    thread::Builder::new().name("parent".to_owned()).spawn(|| {
        // It writes nothing: what comes is its end.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    })?;
    let log = logging::init(Format::Json);
    let shutdown = signet_process::shutdown::signals()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (started, begun) = oneshot::channel::<Started>();
        let announce = async {
            let Ok(started) = begun.await else { return };
            while !started.readiness.reasons().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            for (_, address) in &started.listeners {
                tracing::info!(%address, "{READY}");
            }
        };
        let (result, ()) = tokio::join!(signet_gateway::run(config, Some(log), started, shutdown), announce);
        result
    })?;
    Ok(())
}
