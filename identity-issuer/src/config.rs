//! The issuer's configuration: what the file says ([`file`]), and what the process runs on ([`Config`]).
//!
//! ```yaml
//! trust_domain: example.org
//! state: /var/lib/signet-issuer          # key, request, database; made if it is not there, mode 0700
//! database:                              # default: issuer.db in `state`; one PostgreSQL for several issuers
//!   url: postgres://signet@db.example.org/signet
//!   password_file: db-password
//! trust_bundle: root.pem                 # the root certificates, PEM; a change of the file is taken up
//! federation: []                         # bundles of other trust domains: [{ trust_domain: partner.example, bundle: partner.pem }]; see [`bundles`]
//! authority:
//!   certificate: authority.pem           # what `signet ca sign` wrote
//!   passphrase_file: passphrase          # seals the issuer's keys; where else they may be: see [`key`]
//!   path_length: 0                       # how many CAs there may be below it, for the profile `subordinate-ca`
//!   rotation: { deadline: 10m, quorum_percent: 95 } # after the deadline, that many of those connected do
//! listen: 127.0.0.1:8081                 # gRPC over mTLS
//! admin: 127.0.0.1:9902                  # metrics and health
//! admin_socket: issuer-admin.sock        # gRPC for operators on this machine
//! svid: { ttl: 1h, backdate: 60s }
//! profiles: []                           # certificate templates beside the built-in ones; see [`profiles`]
//! attestation: {}                        # who vouches for callers; see [`attestation`]
//! crl: {}                                # certificate revocation lists; see [`crl`]
//! audit: {}                              # the audit log; see [`audit`]
//! inventory: {}                          # how long what was issued stays on record; see [`inventory`]
//! administration: []                     # who may administer what; see [`administration`]
//! ```
//! Everything but the first four has a default. Relative paths start at the folder of the file.

mod administration;
mod attestation;
mod audit;
mod bundles;
mod crl;
mod file;
mod inventory;
mod jwt;
mod key;
mod profiles;
mod secrets;
mod target;
mod web;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use signet_identity::{SharedClock, TrustDomain};
use signet_process::config::ConfigError;
use signet_process::logging::LogHandle;

pub use key::{KeyPlace, KeyPlaceError};

use crate::administration::Binding;
use crate::attestation::{Published, X509Authority};
use crate::authority::SealStrength;
use crate::bundles::BundleFile;
use crate::profile::Profile;
use crate::rotation::Patience;
use crate::store::Location;

pub(crate) use audit::Audit;
pub(crate) use bundles::FederatedEndpoint;
pub(crate) use crl::Crl;
pub(crate) use inventory::Inventory;
pub(crate) use jwt::{AccessTokens, Jwt, Oidc};
pub use web::Web;

/// What an issuer runs on; every value is in its range.
#[derive(Clone, Debug)]
pub struct Config {
    pub trust_domain: TrustDomain,
    pub state: PathBuf,
    /// `issuer.db` in `state` where no other is named.
    pub(crate) database: Location,
    pub trust_bundle: BundleFile,
    /// Of other trust domains.
    pub federation: Vec<BundleFile>,
    pub(crate) federated_endpoints: Vec<FederatedEndpoint>,
    pub authority: Authority,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub admin_socket: PathBuf,
    pub svid: Svid,
    pub(crate) profiles: Vec<Profile>,
    pub attestation: Attestation,
    pub(crate) administration: Vec<Binding>,
    pub web: Web,
    /// None where no tokens are made.
    pub(crate) jwt: Option<Jwt>,
    pub(crate) crl: Crl,
    pub(crate) audit: Audit,
    pub(crate) inventory: Inventory,
    pub limits: Limits,
    /// How long connections may take to end at shutdown.
    pub drain: Duration,
    /// The configuration for `/config`, without secrets.
    pub redacted: String,
}

#[derive(Clone, Debug)]
pub struct Authority {
    pub certificate: PathBuf,
    pub key: KeyPlace,
    /// How many CAs there may be below its certificate; one with more is not taken.
    pub path_length: u8,
    /// With those who do not acknowledge a successor.
    pub patience: Patience,
    /// For a key that has yet to be made. Not in the file.
    pub seal_strength: SealStrength,
}

#[derive(Copy, Clone, Debug)]
pub struct Svid {
    /// From notBefore to notAfter.
    pub ttl: Duration,
    /// The part of it that lies before the making; a tenth of it at most.
    pub backdate: Duration,
}

/// Whose tokens and certificates prove who a caller is.
#[derive(Clone, Debug, Default)]
pub struct Attestation {
    pub(crate) clusters: Vec<TokenIssuer>,
    pub(crate) providers: Vec<TokenIssuer>,
    pub(crate) authorities: Vec<X509Authority>,
}

/// Somebody who makes tokens.
#[derive(Clone, Debug)]
pub(crate) struct TokenIssuer {
    /// The cluster's, or the provider's.
    pub(crate) name: String,
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) published: Published,
    /// How that is written.
    pub(crate) shown: String,
    /// Of a provider: the claims that become attributes.
    pub(crate) claims: Vec<String>,
    pub(crate) once: bool,
}

/// What one caller, or all of them, may take.
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    pub connections: usize,
    /// Connections without a client certificate, which only attest. The oldest that does not gives way to a newer one.
    pub anonymous_connections: usize,
    /// How long such a connection lives.
    pub anonymous_connection_life: Duration,
    /// Connections that have not said a whole ClientHello. When there are more, the oldest give way.
    pub silent_connections: usize,
    /// How long a connection may say nothing at all.
    pub first_byte_timeout: Duration,
    /// Connections from one address (IPv6: one /64) whose handshake is not done.
    pub unfinished_per_address: usize,
    pub handshakes: usize,
    /// For a ClientHello that has begun; for a place among the handshakes; and for the handshake once it has that.
    pub handshake_timeout: Duration,
    pub request_timeout: Duration,
    pub streams_per_connection: u32,
    /// Clients with a Watch stream.
    pub watchers: usize,
    /// Those of one SPIFFE ID.
    pub watchers_per_identity: usize,
    /// Of one attestation.
    pub renewals_per_minute: u32,
    /// From one address (IPv6: one /64).
    pub attestations_per_minute: u32,
    /// Renewals that wait for the database; and half as many first certificates, behind them.
    pub pending: usize,
    /// Of the rules, how many may be gone from a policy that another issuer recorded, without a record that somebody took them out.
    pub lost_rules_percent: u8,
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
}

/// What the process brings along that is no configuration.
#[derive(Clone, Debug)]
pub struct Environment {
    pub clock: SharedClock,
    /// None where something else logs for this process.
    pub log: Option<LogHandle>,
}

impl Config {
    /// Reads and checks the file at `path`, and the trust bundle it names.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        signet_process::config::load::<file::File>(path)?.resolve(path)
    }

    /// The same for text in memory; `name` is what errors call it and where relative paths start.
    pub fn parse(name: &Path, text: &str) -> Result<Self, ConfigError> {
        signet_process::config::parse::<file::File>(name, text)?.resolve(name)
    }

    /// All whose contents clients may be told of; this trust domain's first.
    pub(crate) fn bundle_files(&self) -> impl Iterator<Item = &BundleFile> {
        std::iter::once(&self.trust_bundle).chain(&self.federation)
    }
}

#[cfg(test)]
mod tests;
