//! From what a file says to what a gateway runs on.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use signet_identity::{SpiffeIdPattern, SpiffeIdPatterns, TrustBundle};
use signet_process::config::{self as shared, ConfigError, Located, Parsed, beside};
use signet_sdk::LogKey;

use super::{
    Credential, Gateway, HostPort, IdentitySource, Limits, Listener, Mode, Upstream, UpstreamIndex, UpstreamProtocol,
    file,
};

/// A file that serde understood.
pub(super) struct Read<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    pub(super) file: file::Gateway,
}

impl TryFrom<Read<'_>> for Gateway {
    type Error = ConfigError;

    fn try_from(read: Read<'_>) -> Result<Self, ConfigError> {
        let Read { path, text, file } = read;
        let upstreams = upstreams(path, file.upstreams)?;
        let listeners = listeners(path, file.listeners, &upstreams)?;
        Ok(Self {
            identity: identity(path, file.identity)?,
            admin: file.admin.0,
            workers: workers(path, file.workers)?,
            listeners,
            upstreams,
            limits: limits(path, &file.limits)?,
            drain: within(path, "shutdown.drain", &file.shutdown.drain, Duration::ZERO, HOUR)?,
            text: text.to_owned(),
        })
    }
}

fn identity(path: &Path, identity: Located<file::Identity>) -> Result<IdentitySource, ConfigError> {
    let error = |what: &str| identity.error(path, what, "write either `issuer:` or `files:` under `identity`");
    match (&identity.issuer, &identity.files) {
        (None, None) => Err(error("`identity` says nothing of where certificates come from")),
        (Some(_), Some(_)) => Err(error("`identity` names two sources")),
        (None, Some(files)) => Ok(IdentitySource::Files {
            certificate: beside(path, &files.certificate),
            key: beside(path, &files.key),
            bundle: beside(path, &files.bundle),
        }),
        (Some(issuer), None) => {
            let addresses = issuer.address.as_slice();
            if addresses.is_empty() || !addresses.iter().all(|address| host_port(address).is_some()) {
                let fix = "write it as `127.0.0.1:8081`, or a list of such";
                return Err(issuer.address.error(path, "the issuer's address is no host and port", fix));
            }
            Ok(IdentitySource::Issuer {
                addresses: addresses.to_vec(),
                bootstrap: bootstrap_bundle(path, issuer)?,
                credential: credential(path, issuer)?,
                spiffe_id: issuer.spiffe_id.as_ref().map(|id| id.0.clone()),
                id: issuer.id.as_ref().map(|id| id.0.clone()),
                log_keys: log_keys(path, issuer.require_logged.as_ref())?,
            })
        }
    }
}

/// How the gateway proves to the issuer who it is.
fn credential(path: &Path, issuer: &Located<file::Issuer>) -> Result<Credential, ConfigError> {
    let file::Issuer { join_token_file, k8s_sa_token, oidc, x509_pop, .. } = &issuer.value;
    let join_token = join_token_file.as_ref().map(|file| Credential::JoinToken { file: beside(path, file) });
    let kubernetes = k8s_sa_token.as_ref().map(|token| Credential::KubernetesToken {
        cluster: token.cluster.clone(),
        file: beside(path, &token.token_file),
    });
    let oidc = oidc
        .as_ref()
        .map(|token| Credential::Oidc { provider: token.provider.clone(), file: beside(path, &token.token_file) });
    let x509 = x509_pop
        .as_ref()
        .map(|files| Credential::X509 { certificate: beside(path, &files.certificate), key: beside(path, &files.key) });
    let mut given = [join_token, kubernetes, oidc, x509].into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(credential), None) => Ok(credential),
        (none, _) => {
            let what = match none {
                None => "`issuer` says nothing of how the gateway proves who it is",
                Some(_) => "`issuer` names two ways to prove who the gateway is",
            };
            Err(issuer.error(path, what, "write one of `join_token_file`, `k8s_sa_token`, `oidc`, `x509_pop`"))
        }
    }
}

fn log_keys(path: &Path, files: Option<&Located<Vec<PathBuf>>>) -> Result<Vec<LogKey>, ConfigError> {
    let Some(files) = files else { return Ok(Vec::new()) };
    let wrong = |what: String| {
        files.error(
            path,
            what,
            "name the files `audit/log.key.pub` of the issuers' state folders, with their lines as they are",
        )
    };
    let mut keys = Vec::new();
    for file in &files.value {
        let file = beside(path, file);
        let text = std::fs::read_to_string(&file).map_err(|cause| wrong(format!("{}: {cause}", file.display())))?;
        keys.extend(LogKey::read(&text).map_err(|cause| wrong(format!("{}: {cause}", file.display())))?);
    }
    match keys.is_empty() {
        true => Err(wrong("`require_logged` names no key".to_owned())),
        false => Ok(keys),
    }
}

fn bootstrap_bundle(path: &Path, issuer: &file::Issuer) -> Result<TrustBundle, ConfigError> {
    let file = beside(path, &issuer.bundle);
    let pem = std::fs::read(&file).map_err(|cause| {
        issuer.bundle.error(
            path,
            format!("{}: {cause}", file.display()),
            "name the PEM file with the roots of the issuer's trust domain",
        )
    })?;
    TrustBundle::from_pem(issuer.trust_domain.value.0.clone(), &pem).map_err(|cause| {
        issuer.bundle.error(
            path,
            format!("{}: {cause}", file.display()),
            "it must hold the PEM certificates of the trust domain's authorities",
        )
    })
}

fn upstreams(path: &Path, upstreams: Vec<file::Upstream>) -> Result<Vec<Upstream>, ConfigError> {
    let mut names = HashSet::new();
    upstreams
        .into_iter()
        .map(|upstream| {
            let name = label(path, "upstream", &upstream.name)?;
            if !names.insert(name.clone()) {
                return Err(twice(path, "upstream", &upstream.name));
            }
            self::upstream(path, name, upstream)
        })
        .collect()
}

fn upstream(path: &Path, name: Arc<str>, upstream: file::Upstream) -> Result<Upstream, ConfigError> {
    let address_error = |what: &str| {
        upstream.address.error(
            path,
            format!("upstream `{name}`: {what}"),
            "write `127.0.0.1:9000` or `http://127.0.0.1:9000` for plain HTTP, `mtls://10.0.0.7:8443` for mTLS",
        )
    };
    let (scheme, rest) = match upstream.address.split_once("://") {
        Some((scheme, rest)) => (scheme, rest.strip_suffix('/').unwrap_or(rest)),
        None => ("http", upstream.address.as_str()),
    };
    let address = host_port(rest)
        .filter(|address| address.port != 0)
        .ok_or_else(|| address_error("`address` needs a host and a port, and nothing after them"))?;
    let protocol = match (scheme, &upstream.identity) {
        ("http", None) => UpstreamProtocol::Plain,
        ("http", Some(identity)) => {
            return Err(identity.error(
                path,
                format!("upstream `{name}`: an http upstream proves no identity"),
                "use an `mtls://` address, or remove `identity`",
            ));
        }
        ("mtls", Some(identity)) if !identity.is_empty() => {
            UpstreamProtocol::Mtls { servers: patterns(&identity.value) }
        }
        ("mtls", _) => {
            return Err(upstream.address.error(
                path,
                format!("upstream `{name}`: no server is expected, so none would be accepted"),
                "add `identity: [\"spiffe://example.org/…\"]` with the SPIFFE IDs that the server may have",
            ));
        }
        _ => return Err(address_error("unknown scheme in `address`")),
    };
    Ok(Upstream {
        address,
        protocol,
        connect_timeout: within(path, "connect_timeout", &upstream.connect_timeout, TENTH, HOUR)?,
        response_timeout: within(path, "response_timeout", &upstream.response_timeout, TENTH, DAY)?,
        idle_timeout: within(path, "idle_timeout", &upstream.idle_timeout, TENTH, DAY)?,
        connections: number(path, "connections", &upstream.connections, 1, 1 << 20)?,
        idle_connections: upstream.idle_connections.value as usize,
        name,
    })
}

fn listeners(
    path: &Path,
    listeners: Located<Vec<file::Listener>>,
    upstreams: &[Upstream],
) -> Result<Vec<Listener>, ConfigError> {
    if listeners.is_empty() {
        return Err(listeners.error(path, "no listeners", "a gateway needs at least one"));
    }
    let mut names = HashSet::new();
    let mut addresses: HashMap<SocketAddr, Arc<str>> = HashMap::new();
    let mut resolved = Vec::new();
    for listener in listeners.value {
        let name = label(path, "listener", &listener.name)?;
        if !names.insert(name.clone()) {
            return Err(twice(path, "listener", &listener.name));
        }
        let listen = listener.listen.value.0;
        if let Some(other) = addresses.insert(listen, name.clone())
            && listen.port() != 0
        {
            return Err(listener.listen.error(
                path,
                format!("listener `{name}` listens on {listen}, as `{other}` does"),
                "give each listener its own address",
            ));
        }
        let upstream = upstream_named(path, &name, &listener.upstream, upstreams)?;
        let mode = mode(path, &name, &listener, &upstreams[upstream.0])?;
        resolved.push(Listener { name, listen, mode, upstream });
    }
    Ok(resolved)
}

fn mode(path: &Path, name: &str, listener: &file::Listener, upstream: &Upstream) -> Result<Mode, ConfigError> {
    match (listener.mode, &listener.allow) {
        (file::Mode::Inbound, allow) => {
            let allow = allow.as_ref().map(|allow| patterns(&allow.value)).unwrap_or_default();
            Ok(Mode::Inbound { allow })
        }
        (file::Mode::Outbound, Some(allow)) => Err(allow.error(
            path,
            format!("listener `{name}`: the callers of an outbound listener have no identity that `allow` could match"),
            "remove `allow`; whom it may call is the upstream's `identity`",
        )),
        (file::Mode::Outbound, None) => match upstream.protocol {
            UpstreamProtocol::Mtls { .. } => Ok(Mode::Outbound),
            UpstreamProtocol::Plain => Err(listener.upstream.error(
                path,
                format!("listener `{name}`: outbound traffic would leave without mTLS"),
                "name an upstream with an `mtls://` address",
            )),
        },
    }
}

fn upstream_named(
    path: &Path,
    listener: &str,
    wanted: &Located<String>,
    upstreams: &[Upstream],
) -> Result<UpstreamIndex, ConfigError> {
    let found = upstreams.iter().position(|upstream| *upstream.name == *wanted.value);
    found.map(UpstreamIndex).ok_or_else(|| {
        let known: Vec<&str> = upstreams.iter().map(|upstream| &*upstream.name).collect();
        let fix = match known.as_slice() {
            [] => "add it under `upstreams`".to_owned(),
            known => format!("known upstreams: {}", known.join(", ")),
        };
        wanted.error(path, format!("listener `{listener}`: no upstream `{}`", wanted.value.escape_debug()), fix)
    })
}

fn workers(path: &Path, workers: Option<Located<u32>>) -> Result<NonZeroUsize, ConfigError> {
    let Some(workers) = workers else {
        return Ok(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    };
    NonZeroUsize::new(workers.value as usize)
        .filter(|workers| workers.get() <= MAX_WORKERS)
        .ok_or_else(|| workers.error(path, "`workers` is out of range", format!("write 1 to {MAX_WORKERS}")))
}

fn limits(path: &Path, limits: &file::Limits) -> Result<Limits, ConfigError> {
    Ok(Limits {
        // hyper's smallest read buffer is 8 KiB.
        header_bytes: number(path, "limits.header_bytes", &limits.header_bytes.map(|size| size.0), 8 << 10, 1 << 20)?,
        headers: number(path, "limits.headers", &limits.headers, 1, 1_000)?,
        header_timeout: within(path, "limits.header_timeout", &limits.header_timeout, TENTH, HOUR)?,
        handshake_timeout: within(path, "limits.handshake_timeout", &limits.handshake_timeout, TENTH, HOUR)?,
        handshakes: number(path, "limits.handshakes", &limits.handshakes, 1, 1 << 20)?,
        connections: number(path, "limits.connections", &limits.connections, 1, 1 << 24)?,
        idle_timeout: within(path, "limits.idle_timeout", &limits.idle_timeout, TENTH, DAY)?,
        streams: number(path, "limits.streams", &limits.streams, 1, 1 << 16)?,
    })
}

fn patterns(patterns: &[Parsed<SpiffeIdPattern>]) -> SpiffeIdPatterns {
    patterns.iter().map(|pattern| pattern.0.clone()).collect()
}

/// A name that is also a metric label.
fn label(path: &Path, kind: &str, name: &Located<String>) -> Result<Arc<str>, ConfigError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
        let what = format!("`{}` cannot be the name of a {kind}", name.value.escape_debug());
        return Err(name.error(path, what, format!("use 1 to {MAX_NAME} of A-Z a-z 0-9 - _ .")));
    }
    Ok(name.value.as_str().into())
}

fn twice(path: &Path, kind: &str, name: &Located<String>) -> ConfigError {
    name.error(path, format!("two {kind}s are called `{}`", name.value), "give each its own name")
}

/// `host:port` or `[v6]:port`.
fn host_port(text: &str) -> Option<HostPort> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(HostPort { host: address.ip().to_string().into(), port: address.port() });
    }
    let (host, port) = text.rsplit_once(':')?;
    // What is an address there is one with brackets, and was taken above.
    let named = host.parse::<IpAddr>().is_err() && rustls_pki_types::DnsName::try_from(host).is_ok();
    named.then_some(HostPort { host: host.into(), port: port.parse().ok()? })
}

fn within(
    path: &Path,
    key: &str,
    value: &Located<shared::Duration>,
    min: Duration,
    max: Duration,
) -> Result<Duration, ConfigError> {
    let span = value.value.0;
    if span < min || span > max {
        let (min, max) = (shared::Duration(min), shared::Duration(max));
        return Err(value.error(path, format!("`{key}` is out of range"), format!("write {min} to {max}")));
    }
    Ok(span)
}

fn number<N: Copy + TryInto<u64>, U: TryFrom<u64>>(
    path: &Path,
    key: &str,
    value: &Located<N>,
    min: u64,
    max: u64,
) -> Result<U, ConfigError> {
    let checked = value.value.try_into().ok().filter(|number| (min..=max).contains(number));
    checked
        .and_then(|number| U::try_from(number).ok())
        .ok_or_else(|| value.error(path, format!("`{key}` is out of range"), format!("write {min} to {max}")))
}

const TENTH: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const MAX_WORKERS: usize = 512;
const MAX_NAME: usize = 64;
