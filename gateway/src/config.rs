//! The configuration in two layers: `file` is what an operator writes, [`Gateway`] is what the gateway runs on, with every
//! name resolved and every range checked. One `TryFrom` (in `resolve`) stands between them.

mod file;
mod resolve;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use signet_identity::{SpiffeIdPatterns, TrustBundle, WorkloadId};
use signet_process::config::ConfigError;
use signet_sdk::LogKey;

/// A whole gateway.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub identity: IdentitySource,
    pub admin: SocketAddr,
    pub workers: NonZeroUsize,
    pub listeners: Vec<Listener>,
    pub upstreams: Vec<Upstream>,
    pub limits: Limits,
    /// How long requests under way may take to end at shutdown.
    pub drain: Duration,
    /// The file's text, for the admin address. It holds no secret: those are named by file only.
    pub text: String,
}

impl Gateway {
    /// Reads the configuration at `path`. Files it names are looked for beside it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = signet_process::config::load(path)?;
        let text = std::fs::read_to_string(path)
            .map_err(|_| ConfigError::new(path, "changed while it was read").with_fix("try again"))?;
        resolve::Read { path, text: &text, file }.try_into()
    }

    /// The same from text; `name` is what errors call it, and where relative paths start.
    pub fn parse(name: &Path, text: &str) -> Result<Self, ConfigError> {
        let file = signet_process::config::parse(name, text)?;
        resolve::Read { path: name, text, file }.try_into()
    }
}

/// Where certificates come from.
#[derive(Clone, Debug)]
pub enum IdentitySource {
    Issuer {
        /// `host:port`
        addresses: Vec<String>,
        /// Whom to believe before there is an identity.
        bootstrap: TrustBundle,
        credential: Credential,
        /// Which identity to ask for.
        spiffe_id: Option<WorkloadId>,
        id: Option<WorkloadId>,
        /// Of the audit logs that certificates have to be in; none where they need be in none.
        log_keys: Vec<LogKey>,
    },
    Files {
        certificate: PathBuf,
        key: PathBuf,
        bundle: PathBuf,
    },
}

/// How the gateway proves to the issuer who it is. Files are read at each attempt.
#[derive(Clone, Debug)]
pub enum Credential {
    JoinToken { file: PathBuf },
    KubernetesToken { cluster: String, file: PathBuf },
    Oidc { provider: String, file: PathBuf },
    X509 { certificate: PathBuf, key: PathBuf },
}

#[derive(Clone, Debug)]
pub struct Listener {
    pub name: Arc<str>,
    pub listen: SocketAddr,
    pub mode: Mode,
    pub upstream: UpstreamIndex,
}

/// What a listener accepts.
#[derive(Clone, Debug)]
pub enum Mode {
    /// mTLS; only callers that `allow` matches are served.
    Inbound { allow: SpiffeIdPatterns },
    /// Plain connections of programs that may use this gateway's identity.
    Outbound,
}

/// A place in [`Gateway::upstreams`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UpstreamIndex(pub(crate) usize);

#[derive(Clone, Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    pub address: HostPort,
    pub protocol: UpstreamProtocol,
    pub connect_timeout: Duration,
    /// How long the head of an answer may take.
    pub response_timeout: Duration,
    pub idle_timeout: Duration,
    /// Connections at once, in all workers.
    pub connections: usize,
    /// Unused connections that each worker keeps.
    pub idle_connections: usize,
}

#[derive(Clone, Debug)]
pub enum UpstreamProtocol {
    /// HTTP/1.1 without TLS.
    Plain,
    /// mTLS with a server of one of these identities; HTTP/2 where it speaks that, else HTTP/1.1.
    Mtls { servers: SpiffeIdPatterns },
}

/// `host:port`, the host an IP address or a DNS name.
#[derive(Clone, Eq, PartialEq)]
pub struct HostPort {
    pub host: Arc<str>,
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Clone, Debug)]
pub struct Limits {
    /// Of one request's head.
    pub header_bytes: usize,
    /// Number of header lines in one request.
    pub headers: usize,
    pub header_timeout: Duration,
    pub handshake_timeout: Duration,
    /// Handshakes at once, in all workers.
    pub handshakes: usize,
    /// Connections at once, in all workers.
    pub connections: usize,
    /// How long a connection may stay without a request.
    pub idle_timeout: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
}

#[cfg(test)]
mod tests;
