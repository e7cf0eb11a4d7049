//! The gateway in a process of its own, and what its log tells.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use signet_gateway::Started;
use signet_gateway::config::Gateway;
use signet_process::logging::{self, Format};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{mpsc, oneshot};

use crate::{Options, PATIENCE};

/// The gateway, of which the log is read.
pub(crate) struct GatewayProcess {
    child: Child,
    lines: mpsc::Receiver<Value>,
}

/// A change of trust, as the gateway's log tells it.
pub(crate) struct Change {
    pub(crate) published: OffsetDateTime,
    /// From the publication until the last worker had judged every connection.
    pub(crate) judged: Duration,
    /// The longest that a worker was at it, pauses included.
    pub(crate) judging: Duration,
    pub(crate) cut_off: u64,
}

impl GatewayProcess {
    pub(crate) fn start(config: &Path) -> anyhow::Result<Self> {
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

    pub(crate) async fn address(&mut self) -> anyhow::Result<SocketAddr> {
        let line = self.next(&[READY]).await?;
        Ok(text(&line, "address")?.parse()?)
    }

    /// Waits until a change was published and every worker has judged its connections.
    pub(crate) async fn change(&mut self, options: &Options) -> anyhow::Result<Change> {
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
pub(crate) fn run(config: &Path) -> anyhow::Result<()> {
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
