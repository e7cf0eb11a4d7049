//! The section `web`: what the issuer publishes over HTTP.
//!
//! ```yaml
//! web:
//!   listen: 127.0.0.1:8082               # plain HTTP; a proxy may stand in front of it
//!   tls: { listen: 0.0.0.0:443, certificate: web.pem, key: web.key }   # https_web
//!   spiffe_listen: 0.0.0.0:8444          # https_spiffe: by the issuer's own SVID
//!   refresh_hint: 5m                     # how often those who federate are to fetch the bundle
//!   connections: 1024
//! ```

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use signet_process::config::{self, ConfigError, Located};

use super::file::{number_within, seconds, within};
use crate::web::CertificateFiles;

/// What the issuer's web address is, and says.
#[derive(Clone, Debug)]
pub struct Web {
    pub listen: SocketAddr,
    pub(crate) tls: Option<WebTls>,
    /// Over mTLS with the issuer's own SVID.
    pub spiffe_listen: Option<SocketAddr>,
    /// After which those who federate are to fetch the bundle again.
    pub(crate) refresh_hint: Duration,
    /// Of each of its listeners. When there are more, the oldest give way.
    pub(crate) connections: usize,
}

/// A listener whose certificate browsers and clouds believe.
#[derive(Clone, Debug)]
pub(crate) struct WebTls {
    pub(crate) listen: SocketAddr,
    pub(crate) files: CertificateFiles,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WebFile {
    listen: SocketAddr,
    tls: Option<Located<WebTlsFile>>,
    spiffe_listen: Option<SocketAddr>,
    refresh_hint: Located<config::Duration>,
    connections: Located<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebTlsFile {
    listen: SocketAddr,
    certificate: PathBuf,
    key: PathBuf,
}

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

impl Default for WebFile {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8082)),
            tls: None,
            spiffe_listen: None,
            refresh_hint: seconds(300),
            connections: Located::nowhere(1024),
        }
    }
}

impl WebFile {
    pub(super) fn resolve(self, path: &Path) -> Result<Web, ConfigError> {
        let tls = self.tls.map(|tls| {
            let WebTlsFile { listen, certificate, key } = &tls.value;
            let certificate = config::beside(path, certificate);
            let files = CertificateFiles { certificate, key: config::beside(path, key) };
            // Read here only to say at once that they are the wrong ones.
            files.load().map_err(|error| {
                let what = signet_process::start::Report::of(&error).cause;
                tls.error(path, what, "name a certificate, those above it, and its key, all PEM")
            })?;
            Ok::<_, ConfigError>(WebTls { listen: *listen, files })
        });
        let refresh_hint = within(path, &self.refresh_hint, "refresh_hint", MINUTE..=DAY)?;
        if refresh_hint.subsec_nanos() != 0 {
            return Err(self.refresh_hint.error(path, "`refresh_hint` is not in whole seconds", "write whole seconds"));
        }
        Ok(Web {
            listen: self.listen,
            tls: tls.transpose()?,
            spiffe_listen: self.spiffe_listen,
            refresh_hint,
            connections: number_within(path, &self.connections, "connections", 1..=100_000)? as usize,
        })
    }
}

/// As it would be written in a file.
pub(super) fn shown(web: &Web) -> String {
    let Web { listen, tls, spiffe_listen, refresh_hint, connections } = web;
    let mut text = format!("web:\n  listen: \"{listen}\"\n");
    // Writing to a String cannot fail.
    if let Some(WebTls { listen, files: CertificateFiles { certificate, key } }) = tls {
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        let _ = writeln!(text, "  tls: {{ listen: \"{listen}\", certificate: {certificate:?}, key: {key:?} }}");
    }
    if let Some(address) = spiffe_listen {
        let _ = writeln!(text, "  spiffe_listen: \"{address}\"");
    }
    let _ = writeln!(text, "  refresh_hint: {}\n  connections: {connections}", config::Duration(*refresh_hint));
    text
}
