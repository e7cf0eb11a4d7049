//! What serde reads, and the checks that turn it into a [`Config`].

use std::fmt::Write;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use signet_identity::TrustDomain;
use signet_process::config::{self, ConfigError, Located, Parsed};

use super::administration::{self, BindingFile};
use super::attestation::{self, AttestationFile};
use super::audit::{self, AuditFile};
use super::bundles::{self, FederationFile};
use super::crl::{self, CrlFile};
use super::inventory::{self, InventoryFile};
use super::jwt::{self, JwtFile};
use super::key::{KeyFile, Said};
use super::profiles::{self, ProfileFile};
use super::web::{self, WebFile};
use super::{Authority, Config, Limits, Svid};
use crate::authority::SealStrength;
use crate::profile::BUILTIN;
use crate::rotation::Patience;
use crate::store::{Location, PostgresUrl, PostgresUrlError};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    trust_domain: Located<Parsed<TrustDomain>>,
    state: PathBuf,
    database: Option<DatabaseFile>,
    trust_bundle: Located<PathBuf>,
    #[serde(default)]
    federation: Vec<FederationFile>,
    authority: Located<AuthorityFile>,
    #[serde(default = "default_listen")]
    listen: SocketAddr,
    #[serde(default = "default_admin")]
    admin: SocketAddr,
    admin_socket: Option<PathBuf>,
    #[serde(default)]
    svid: SvidFile,
    #[serde(default)]
    profiles: Vec<ProfileFile>,
    #[serde(default)]
    attestation: AttestationFile,
    #[serde(default)]
    administration: Vec<BindingFile>,
    #[serde(default)]
    web: WebFile,
    jwt: Option<JwtFile>,
    #[serde(default)]
    crl: CrlFile,
    #[serde(default)]
    audit: AuditFile,
    #[serde(default)]
    inventory: InventoryFile,
    #[serde(default)]
    limits: LimitsFile,
    #[serde(default)]
    shutdown: ShutdownFile,
}

/// PostgreSQL.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DatabaseFile {
    url: Located<String>,
    password_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorityFile {
    certificate: PathBuf,
    passphrase_file: Option<PathBuf>,
    passphrase_fd: Option<u32>,
    key: Option<KeyFile>,
    #[serde(default = "no_ca_below")]
    path_length: Located<u64>,
    #[serde(default)]
    rotation: RotationFile,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RotationFile {
    deadline: Located<config::Duration>,
    quorum_percent: Located<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SvidFile {
    ttl: Located<config::Duration>,
    backdate: Located<config::Duration>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LimitsFile {
    connections: Located<u64>,
    anonymous_connections: Located<u64>,
    anonymous_connection_life: Located<config::Duration>,
    silent_connections: Located<u64>,
    first_byte_timeout: Located<config::Duration>,
    unfinished_per_address: Located<u64>,
    handshakes: Located<u64>,
    handshake_timeout: Located<config::Duration>,
    request_timeout: Located<config::Duration>,
    streams_per_connection: Located<u64>,
    watchers: Located<u64>,
    watchers_per_identity: Located<u64>,
    renewals_per_minute: Located<u64>,
    attestations_per_minute: Located<u64>,
    pending: Located<u64>,
    lost_rules_percent: Located<u64>,
    keepalive_interval: Located<config::Duration>,
    keepalive_timeout: Located<config::Duration>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ShutdownFile {
    drain: Located<config::Duration>,
}

fn no_ca_below() -> Located<u64> {
    Located::nowhere(0)
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8081))
}

fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9902))
}

pub(super) fn seconds(seconds: u64) -> Located<config::Duration> {
    Located::nowhere(config::Duration(Duration::from_secs(seconds)))
}

impl Default for SvidFile {
    fn default() -> Self {
        Self { ttl: seconds(3600), backdate: seconds(60) }
    }
}

impl Default for RotationFile {
    fn default() -> Self {
        Self { deadline: seconds(600), quorum_percent: Located::nowhere(95) }
    }
}

impl Default for LimitsFile {
    fn default() -> Self {
        Self {
            connections: Located::nowhere(10_000),
            anonymous_connections: Located::nowhere(1_000),
            anonymous_connection_life: seconds(60),
            silent_connections: Located::nowhere(1_000),
            first_byte_timeout: seconds(2),
            unfinished_per_address: Located::nowhere(256),
            handshakes: Located::nowhere(256),
            handshake_timeout: seconds(10),
            request_timeout: seconds(10),
            streams_per_connection: Located::nowhere(100),
            watchers: Located::nowhere(10_000),
            watchers_per_identity: Located::nowhere(256),
            renewals_per_minute: Located::nowhere(600),
            attestations_per_minute: Located::nowhere(6_000),
            pending: Located::nowhere(4_096),
            lost_rules_percent: Located::nowhere(10),
            keepalive_interval: seconds(30),
            keepalive_timeout: seconds(20),
        }
    }
}

impl Default for ShutdownFile {
    fn default() -> Self {
        Self { drain: seconds(4) }
    }
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// An X.509-SVID is short-lived; a month is not, and is the most that is sensible for anything.
const MAX_TTL: Duration = Duration::from_secs(31 * 86_400);

impl File {
    pub(super) fn resolve(self, path: &Path) -> Result<Config, ConfigError> {
        let beside = |file: &Path| config::beside(path, file);
        let trust_domain = self.trust_domain.value.0.clone();
        let state = beside(&self.state);
        let database = match &self.database {
            None => Location::File(state.join("issuer.db")),
            Some(database) => Location::Postgres(database.resolve(path)?),
        };
        let svid = self.svid.resolve(path)?;
        let web = self.web.resolve(path)?;
        let authority = resolve_authority(path, &self.authority)?;
        let profiles = profiles::resolve(path, self.profiles, (svid.ttl, svid.backdate))?;
        let is_taken = |name: &str| BUILTIN.contains(&name) || profiles.iter().any(|profile| *profile.name == *name);
        let jwt = self.jwt.map(|jwt| jwt.resolve(path, web.refresh_hint, is_taken)).transpose()?;
        let (federation, federated_endpoints) = bundles::resolve(path, self.federation, &trust_domain)?;
        let mut config = Config {
            database,
            trust_bundle: bundles::own(path, &self.trust_bundle, &trust_domain)?,
            federation,
            federated_endpoints,
            authority,
            listen: self.listen,
            admin: self.admin,
            admin_socket: self.admin_socket.as_deref().map_or_else(|| state.join("issuer-admin.sock"), beside),
            svid,
            profiles,
            attestation: self.attestation.resolve(path, &trust_domain)?,
            administration: administration::resolve(path, self.administration, &trust_domain)?,
            jwt,
            web,
            crl: self.crl.resolve(path)?,
            audit: self.audit.resolve(path)?,
            inventory: self.inventory.resolve(path)?,
            limits: self.limits.resolve(path)?,
            drain: within(path, &self.shutdown.drain, "drain", Duration::ZERO..=HOUR)?,
            redacted: String::new(),
            trust_domain,
            state,
        };
        config.redacted = redacted(&config);
        Ok(config)
    }
}

impl DatabaseFile {
    fn resolve(&self, path: &Path) -> Result<PostgresUrl, ConfigError> {
        let password_file = self.password_file.as_ref().map(|file| config::beside(path, file));
        PostgresUrl::new(&self.url, password_file).map_err(|error| {
            let fix = match error {
                PostgresUrlError::Malformed => "write postgres://USER@HOST/DATABASE",
                PostgresUrlError::Parameter => "leave it out, or set it at the database for its user",
                PostgresUrlError::Password => "put the password into a file, and name that by `password_file`",
                PostgresUrlError::Unverified => {
                    "leave `sslmode` out, or write `verify-full`; `sslrootcert` names the CA"
                }
            };
            self.url.error(path, format!("`url`: {error}"), fix)
        })
    }
}

fn resolve_authority(path: &Path, file: &Located<AuthorityFile>) -> Result<Authority, ConfigError> {
    let AuthorityFile { certificate, passphrase_file, passphrase_fd, key, path_length, rotation } = &file.value;
    let said = Said { passphrase_file: passphrase_file.as_deref(), passphrase_fd: *passphrase_fd, key: key.as_ref() };
    let wrong = |what: &str, fix: &str| file.error(path, what.to_owned(), fix.to_owned());
    Ok(Authority {
        certificate: config::beside(path, certificate),
        key: said.resolve(path, wrong)?,
        path_length: number_within(path, path_length, "path_length", 0..=4)? as u8,
        patience: rotation.resolve(path)?,
        seal_strength: SealStrength::STANDARD,
    })
}

impl RotationFile {
    fn resolve(&self, path: &Path) -> Result<Patience, ConfigError> {
        Ok(Patience {
            deadline: within(path, &self.deadline, "deadline", SECOND..=30 * 24 * HOUR)?,
            quorum: number_within(path, &self.quorum_percent, "quorum_percent", 0..=100)? as u8,
        })
    }
}

impl SvidFile {
    fn resolve(self, path: &Path) -> Result<Svid, ConfigError> {
        let ttl = within(path, &self.ttl, "ttl", 5 * SECOND..=MAX_TTL)?;
        if ttl.subsec_nanos() != 0 {
            return Err(self.ttl.error(path, "`ttl` is not in whole seconds", "certificates know whole seconds only"));
        }
        let backdate = within(path, &self.backdate, "backdate", Duration::ZERO..=HOUR)?;
        Ok(Svid { ttl, backdate: backdate.min(ttl / 10) })
    }
}

impl LimitsFile {
    fn resolve(self, path: &Path) -> Result<Limits, ConfigError> {
        let number = |value: &Located<u64>, name, range: RangeInclusive<u64>| {
            let value = number_within(path, value, name, range)?;
            Ok::<_, ConfigError>(usize::try_from(value).unwrap_or(usize::MAX))
        };
        let time = |value: &Located<config::Duration>, name, range| within(path, value, name, range);
        let rate =
            |value: &Located<u64>, name| number_within(path, value, name, 1..=60_000_000).map(|rate| rate as u32);
        Ok(Limits {
            connections: number(&self.connections, "connections", 1..=1_000_000)?,
            anonymous_connections: number(&self.anonymous_connections, "anonymous_connections", 1..=1_000_000)?,
            anonymous_connection_life: time(
                &self.anonymous_connection_life,
                "anonymous_connection_life",
                SECOND..=HOUR,
            )?,
            silent_connections: number(&self.silent_connections, "silent_connections", 1..=100_000)?,
            first_byte_timeout: time(&self.first_byte_timeout, "first_byte_timeout", SECOND / 10..=HOUR)?,
            unfinished_per_address: number(&self.unfinished_per_address, "unfinished_per_address", 1..=100_000)?,
            handshakes: number(&self.handshakes, "handshakes", 1..=100_000)?,
            handshake_timeout: time(&self.handshake_timeout, "handshake_timeout", SECOND / 10..=HOUR)?,
            request_timeout: time(&self.request_timeout, "request_timeout", SECOND / 10..=HOUR)?,
            streams_per_connection: number_within(
                path,
                &self.streams_per_connection,
                "streams_per_connection",
                1..=10_000,
            )? as u32,
            watchers: number(&self.watchers, "watchers", 1..=1_000_000)?,
            watchers_per_identity: number(&self.watchers_per_identity, "watchers_per_identity", 1..=1_000_000)?,
            renewals_per_minute: rate(&self.renewals_per_minute, "renewals_per_minute")?,
            attestations_per_minute: rate(&self.attestations_per_minute, "attestations_per_minute")?,
            pending: number(&self.pending, "pending", 1..=1_000_000)?,
            lost_rules_percent: number_within(path, &self.lost_rules_percent, "lost_rules_percent", 0..=100)? as u8,
            keepalive_interval: time(&self.keepalive_interval, "keepalive_interval", SECOND..=HOUR)?,
            keepalive_timeout: time(&self.keepalive_timeout, "keepalive_timeout", SECOND..=HOUR)?,
        })
    }
}

pub(super) fn within(
    path: &Path,
    value: &Located<config::Duration>,
    name: &str,
    range: RangeInclusive<Duration>,
) -> Result<Duration, ConfigError> {
    let shown = |duration: &Duration| config::Duration(*duration);
    if range.contains(&value.0) {
        return Ok(value.0);
    }
    let what = format!("`{name}` is {}", value.value);
    Err(value.error(path, what, format!("write {} to {}", shown(range.start()), shown(range.end()))))
}

pub(super) fn number_within(
    path: &Path,
    value: &Located<u64>,
    name: &str,
    range: RangeInclusive<u64>,
) -> Result<u64, ConfigError> {
    if range.contains(value) {
        return Ok(value.value);
    }
    let fix = format!("write {} to {}", range.start(), range.end());
    Err(value.error(path, format!("`{name}` is {}", value.value), fix))
}

/// The configuration with its defaults. It holds no secret: the passphrase is named by its file.
fn redacted(config: &Config) -> String {
    let Config { authority, svid, limits, .. } = config;
    let duration = |value: Duration| config::Duration(value).to_string();
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let lines = [
        ("trust_domain", config.trust_domain.to_string()),
        ("state", quoted(&config.state)),
        ("trust_bundle", quoted(&config.trust_bundle.path)),
        ("authority:\n  certificate", quoted(&authority.certificate)),
        authority.key.shown(),
        ("  path_length", authority.path_length.to_string()),
        ("  rotation:\n    deadline", duration(authority.patience.deadline)),
        ("    quorum_percent", authority.patience.quorum.to_string()),
        ("listen", config.listen.to_string()),
        ("admin", config.admin.to_string()),
        ("admin_socket", quoted(&config.admin_socket)),
        ("svid:\n  ttl", duration(svid.ttl)),
        ("  backdate", duration(svid.backdate)),
        ("limits:\n  connections", limits.connections.to_string()),
        ("  anonymous_connections", limits.anonymous_connections.to_string()),
        ("  anonymous_connection_life", duration(limits.anonymous_connection_life)),
        ("  silent_connections", limits.silent_connections.to_string()),
        ("  first_byte_timeout", duration(limits.first_byte_timeout)),
        ("  unfinished_per_address", limits.unfinished_per_address.to_string()),
        ("  handshakes", limits.handshakes.to_string()),
        ("  handshake_timeout", duration(limits.handshake_timeout)),
        ("  request_timeout", duration(limits.request_timeout)),
        ("  streams_per_connection", limits.streams_per_connection.to_string()),
        ("  watchers", limits.watchers.to_string()),
        ("  watchers_per_identity", limits.watchers_per_identity.to_string()),
        ("  renewals_per_minute", limits.renewals_per_minute.to_string()),
        ("  attestations_per_minute", limits.attestations_per_minute.to_string()),
        ("  pending", limits.pending.to_string()),
        ("  lost_rules_percent", limits.lost_rules_percent.to_string()),
        ("  keepalive_interval", duration(limits.keepalive_interval)),
        ("  keepalive_timeout", duration(limits.keepalive_timeout)),
        ("shutdown:\n  drain", duration(config.drain)),
    ];
    let text = lines.iter().fold(String::new(), |mut text, (key, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key}: {value}");
        text
    });
    text + &bundles::shown(&config.federation, &config.federated_endpoints)
        + &database_shown(&config.database)
        + &profiles::shown(&config.profiles)
        + &attestation::shown(&config.attestation)
        + &administration::shown(&config.administration)
        + &crl::shown(&config.crl)
        + &audit::shown(&config.audit)
        + &inventory::shown(config.inventory)
        + &web::shown(&config.web)
        + &jwt::shown(config.jwt.as_ref())
}

fn database_shown(database: &Location) -> String {
    let Location::Postgres(url) = database else { return String::new() };
    let mut text = format!("database:\n  url: {:?}\n", url.to_string());
    if let Some(file) = url.password_file() {
        let _ = writeln!(text, "  password_file: {:?}", file.display().to_string());
    }
    text
}
