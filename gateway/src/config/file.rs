//! What a configuration file may say, as serde reads it: every key, its default, and nothing that depends on another.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use signet_identity::{SpiffeIdPattern, TrustDomain, WorkloadId};
use signet_process::config::{ByteSize, Duration, Located, Parsed};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gateway {
    pub(super) identity: Located<Identity>,
    #[serde(default = "default_admin")]
    pub(super) admin: Parsed<SocketAddr>,
    /// Threads that serve connections. Default: one for each core.
    pub(super) workers: Option<Located<u32>>,
    pub(super) listeners: Located<Vec<Listener>>,
    pub(super) upstreams: Vec<Upstream>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) shutdown: Shutdown,
}

/// Exactly one of the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) issuer: Option<Located<Issuer>>,
    pub(super) files: Option<Files>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issuer {
    /// `host:port`, or a list of several issuers on one database.
    pub(super) address: Located<OneOrMore>,
    pub(super) trust_domain: Located<Parsed<TrustDomain>>,
    /// PEM file: whom to believe before there is an identity.
    pub(super) bundle: Located<PathBuf>,
    /// A token, never inline: the file is read at each attempt. This or one of the three below.
    pub(super) join_token_file: Option<PathBuf>,
    pub(super) k8s_sa_token: Option<KubernetesToken>,
    pub(super) oidc: Option<Oidc>,
    pub(super) x509_pop: Option<X509>,
    /// The identity to ask for, where the issuer's policy gives several.
    pub(super) spiffe_id: Option<Parsed<WorkloadId>>,
    /// Default: `spiffe://TRUST_DOMAIN/signet/issuer`.
    pub(super) id: Option<Parsed<WorkloadId>>,
    /// Files with public keys of audit logs, one in a line: a certificate that is proved to be in none of them is not taken.
    pub(super) require_logged: Option<Located<Vec<PathBuf>>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KubernetesToken {
    /// As the issuer knows it; may be left out where the issuer knows one cluster only.
    #[serde(default)]
    pub(super) cluster: String,
    pub(super) token_file: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Oidc {
    /// As the issuer knows it; may be left out where the issuer knows one provider only.
    #[serde(default)]
    pub(super) provider: String,
    pub(super) token_file: PathBuf,
}

/// PEM files, read at each attempt.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct X509 {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) bundle: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    pub(super) name: Located<String>,
    pub(super) mode: Mode,
    pub(super) listen: Located<Parsed<SocketAddr>>,
    /// Who may call, inbound only. Nobody may, unless it says so.
    pub(super) allow: Option<Located<Vec<Parsed<SpiffeIdPattern>>>>,
    /// Name of one of the upstreams.
    pub(super) upstream: Located<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// mTLS from the network.
    Inbound,
    /// Plain from this host.
    Outbound,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    pub(super) name: Located<String>,
    /// `host:port` or `http://host:port` for plain HTTP, `mtls://host:port` for mTLS.
    pub(super) address: Located<String>,
    /// Who the server must be, mtls only.
    pub(super) identity: Option<Located<Vec<Parsed<SpiffeIdPattern>>>>,
    #[serde(default = "default_connect_timeout")]
    pub(super) connect_timeout: Located<Duration>,
    /// How long the head of an answer may take, from the end of the request.
    #[serde(default = "default_response_timeout")]
    pub(super) response_timeout: Located<Duration>,
    /// How long an unused connection is kept.
    #[serde(default = "default_upstream_idle")]
    pub(super) idle_timeout: Located<Duration>,
    /// Connections at once, in all workers.
    #[serde(default = "default_upstream_connections")]
    pub(super) connections: Located<u32>,
    /// Unused connections that each worker keeps.
    #[serde(default = "default_idle_connections")]
    pub(super) idle_connections: Located<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) header_bytes: Located<ByteSize>,
    pub(super) headers: Located<u32>,
    pub(super) header_timeout: Located<Duration>,
    pub(super) handshake_timeout: Located<Duration>,
    /// Handshakes at once, in all workers.
    pub(super) handshakes: Located<u32>,
    /// Connections at once, in all workers.
    pub(super) connections: Located<u32>,
    /// How long a connection may stay without a request.
    pub(super) idle_timeout: Located<Duration>,
    /// Requests at once on one HTTP/2 connection.
    pub(super) streams: Located<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: Located::nowhere(ByteSize(64 << 10)),
            headers: Located::nowhere(100),
            header_timeout: seconds(10),
            handshake_timeout: seconds(10),
            handshakes: Located::nowhere(2_048),
            connections: Located::nowhere(100_000),
            idle_timeout: seconds(300),
            streams: Located::nowhere(256),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Shutdown {
    /// How long requests under way may take to end.
    pub(super) drain: Located<Duration>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { drain: seconds(4) }
    }
}

fn default_admin() -> Parsed<SocketAddr> {
    Parsed(SocketAddr::from(([127, 0, 0, 1], 9901)))
}

fn default_connect_timeout() -> Located<Duration> {
    seconds(5)
}

fn default_response_timeout() -> Located<Duration> {
    seconds(60)
}

fn default_upstream_idle() -> Located<Duration> {
    seconds(60)
}

fn default_upstream_connections() -> Located<u32> {
    Located::nowhere(4_096)
}

fn default_idle_connections() -> Located<u32> {
    Located::nowhere(1_024)
}

fn seconds(seconds: u64) -> Located<Duration> {
    Located::nowhere(Duration(std::time::Duration::from_secs(seconds)))
}
