//! The admin address of a process, served by a thread of its own so that a costly scrape never adds to a request's
//! latency.
//!
//! | path | answer |
//! |---|---|
//! | `GET /metrics` | Prometheus text format |
//! | `GET /live` | 200 while this thread runs |
//! | `GET /ready` | 200, or 503 with the reasons |
//! | `GET /identity` | what is live, its expiry, generation and trust epoch; 503 before there is an identity |
//! | `GET /config` | the configuration in force, without secrets |
//! | `GET /log`, `POST /log?level=debug` | the log level, and its change |
//! | `GET /build` | version, compiler, target |
//!
//! A process may have pages of its own beside these.
//!
//! It has no authentication: bind it to a loopback or management address.

mod pages;
mod readiness;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::Registry;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::identity_slot::IdentitySlot;
use crate::logging::LogHandle;

pub use readiness::{Readiness, State};

/// What an admin address tells of.
#[derive(Clone, Debug)]
pub struct AdminBuilder {
    /// The name of the binary, for `/build`.
    pub process: &'static str,
    pub address: SocketAddr,
    pub registry: Registry,
    pub readiness: Readiness,
    pub identity: IdentitySlot,
    /// The configuration in force as YAML. The caller has taken every secret out.
    pub config: String,
    /// None where something else logs for this process.
    pub log: Option<LogHandle>,
    /// What only this process tells.
    pub pages: Vec<Page>,
}

/// A page in JSON, and those below it.
#[derive(Clone)]
pub struct Page {
    /// As `/peers`.
    pub path: &'static str,
    /// Asked with what comes after the path: nothing, or `/` and more. None where there is no such page. It must not block.
    pub answer: Arc<Answer>,
}

type Answer = dyn Fn(&str) -> Option<serde_json::Value> + Send + Sync;

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("path", &self.path).finish_non_exhaustive()
    }
}

impl AdminBuilder {
    /// Binds the address, then serves it until the returned server is stopped or dropped.
    pub fn start(self) -> Result<AdminServer, AdminError> {
        let address = self.address;
        let listener = TcpListener::bind(address).map_err(|cause| AdminError::of_bind(address, cause))?;
        let thread = |cause| AdminError::Thread { address, cause };
        listener.set_nonblocking(true).map_err(thread)?;
        let bound = listener.local_addr().map_err(thread)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(thread)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let join = std::thread::Builder::new()
            .name("signet-admin".to_owned())
            .spawn(move || runtime.block_on(serve(listener, Arc::new(self), stopped)))
            .map_err(thread)?;
        Ok(AdminServer { address: bound, stop, join: Some(join) })
    }
}

/// A running admin address. Dropping it ends it too, without waiting for that.
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
    stop: CancellationToken,
    join: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// The address that is bound; its port is real where the configuration said 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the server and waits for its thread; answers under way get a moment to finish. Blocks for at most
    /// half a second.
    pub fn stop(mut self) {
        self.stop.cancel();
        if let Some(join) = self.join.take()
            && join.join().is_err()
        {
            tracing::error!(address = %self.address, "the admin thread panicked");
        }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The admin address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("admin address {address} is in use\nstop the process that holds it, or set another `admin` address")]
    AddressInUse { address: SocketAddr },
    #[error("admin address {address} is not of this machine\nset `admin` to an address of one of its interfaces")]
    NotOurAddress { address: SocketAddr },
    #[error("cannot listen on admin address {address}\nset another `admin` address")]
    Bind {
        address: SocketAddr,
        #[source]
        cause: io::Error,
    },
    #[error("cannot serve admin address {address}")]
    Thread {
        address: SocketAddr,
        #[source]
        cause: io::Error,
    },
}

impl AdminError {
    fn of_bind(address: SocketAddr, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { address },
            io::ErrorKind::AddrNotAvailable => Self::NotOurAddress { address },
            _ => Self::Bind { address, cause },
        }
    }
}

async fn serve(listener: TcpListener, admin: Arc<AdminBuilder>, stop: CancellationToken) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(cause) => return tracing::error!(address = %admin.address, %cause, "cannot serve the admin address"),
    };
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        loop {
            // The semaphore is never closed. When it is used up, callers wait in the kernel's queue; header timeout
            // and connection life bound how long.
            let Ok(permit) = connections.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let serving = serve_connection(stream, admin.clone(), stop.clone());
                    tokio::spawn(async move {
                        serving.await;
                        drop(permit);
                    });
                }
                Err(cause) => {
                    tracing::warn!(%cause, "cannot accept on the admin address");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accepting).await;
    drop(listener);
    let all = connections.acquire_many(MAX_CONNECTIONS as u32);
    if tokio::time::timeout(STOP_GRACE, all).await.is_err() {
        tracing::debug!("admin connections cut off at shutdown");
    }
}

async fn serve_connection(stream: tokio::net::TcpStream, admin: Arc<AdminBuilder>, stop: CancellationToken) {
    let answer = service_fn(move |request| {
        let answer = pages::answer(&admin, &request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A caller that breaks off or sends no HTTP is the caller's affair.
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(CONNECTION_LIFE) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _cut_off = tokio::time::timeout(HEADER_TIMEOUT, connection).await;
}

const MAX_CONNECTIONS: usize = 64;
/// hyper's smallest buffer.
const MAX_HEADER_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 32;
/// Also how long an idle connection is kept, which is all that an attacker gains by opening every one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const STOP_GRACE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
