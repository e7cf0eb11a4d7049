//! The section `audit`: the log of all that the issuer does.
//!
//! ```yaml
//! audit:
//!   origin: log.example.org/eu-1         # the name of the log, for ever; without it, one that follows from its key
//!   passphrase_file: audit-passphrase    # its key in a file, where those of authorities are in a token that knows no Ed25519
//!   ml_dsa: true                         # a second key signs each checkpoint too, by ML-DSA-44; false without it
//!   export:                              # where the log is put as well, for others to serve it; each issuer has a place of its own
//!     url: s3://bucket/audit/eu-1        # or file:///srv/audit; keys as in `crl.export`
//!   export_interval: 1s                  # at most so often
//!   reports:                             # of what was issued and revoked, each time that has ended
//!     every: 24h                         # whole hours; days begin at midnight, UTC
//!     formats: [csv, json, html]         # without it, csv
//!     to: { url: s3://bucket/reports }   # or a folder; keys as in `crl.export`
//!   witnesses:                           # who sign that they saw the log, and that it only grew
//!     - url: https://witness.example.net # what `add-checkpoint` is below
//!       key: witness.example.net/w1+…    # as they publish it: NAME+HASH+KEY
//!       ca: witness-ca.pem               # whom to believe their web address; without it, those that this system believes
//!   quorum: 1                            # so many of them make the file `checkpoint.witnessed`; without it, more than half
//!   witness_interval: 1s                 # at most so often
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use signet_audit::Origin;
use signet_audit::report::Format;
use signet_process::config::{self, ConfigError, Located};

use super::attestation::client_config;
use super::file::within;
use super::target::{self, TargetFile, is_safe};
use crate::audit::{LogTarget, Schedule, Witness, Witnesses};
use crate::pem_files;

#[derive(Clone, Debug, Default)]
pub(crate) struct Audit {
    /// None for one that follows from the key.
    pub(crate) origin: Option<Origin>,
    /// None where the key is kept with those of authorities.
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Whether a second key signs checkpoints too.
    pub(crate) ml_dsa: bool,
    pub(crate) export: Option<LogTarget>,
    pub(crate) reports: Option<Schedule>,
    /// None where there are none.
    pub(crate) witnesses: Option<Witnesses>,
    /// As they are written.
    shown_witnesses: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AuditFile {
    origin: Option<Located<String>>,
    passphrase_file: Option<PathBuf>,
    ml_dsa: bool,
    export: Option<TargetFile>,
    export_interval: Option<Located<config::Duration>>,
    reports: Option<ReportsFile>,
    witnesses: Vec<WitnessFile>,
    quorum: Option<Located<u64>>,
    witness_interval: Option<Located<config::Duration>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportsFile {
    every: Located<config::Duration>,
    #[serde(default)]
    formats: Vec<Located<String>>,
    to: TargetFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WitnessFile {
    url: Located<String>,
    key: Located<String>,
    ca: Option<Located<PathBuf>>,
}

const HOUR: Duration = Duration::from_secs(3600);
const LONGEST_REPORT: Duration = Duration::from_secs(366 * 86_400);

impl ReportsFile {
    fn resolve(self, path: &Path) -> Result<Schedule, ConfigError> {
        let every = within(path, &self.every, "every", HOUR..=LONGEST_REPORT)?;
        if every.as_secs() % HOUR.as_secs() != 0 {
            return Err(self.every.error(path, "`every` is no number of whole hours", "write it as 1h, 24h or 7d"));
        }
        let mut formats = Vec::new();
        for format in &self.formats {
            let parsed = format.value.parse::<Format>();
            let parsed =
                parsed.map_err(|error| format.error(path, format!("`formats`: {error}"), "write csv, json or html"))?;
            if formats.contains(&parsed) {
                return Err(format.error(path, format!("`formats` has {parsed} twice"), "leave one out"));
            }
            formats.push(parsed);
        }
        if formats.is_empty() {
            formats.push(Format::Csv);
        }
        Ok(Schedule { every, formats, to: self.to.resolve(path)? })
    }
}

/// Their cosignatures have room below a checkpoint.
const MOST_WITNESSES: usize = 16;
const WITNESS_INTERVAL: Duration = Duration::from_secs(1);
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A bucket costs by the request.
const LONGEST_EXPORT_INTERVAL: Duration = Duration::from_secs(3600);

impl AuditFile {
    pub(super) fn resolve(mut self, path: &Path) -> Result<Audit, ConfigError> {
        let (witnesses, shown_witnesses) = self.take_witnesses(path)?;
        let origin = self.origin.map(|origin| {
            let fix = "write the URL of the log without its scheme, such as log.example.org/eu-1";
            origin.value.parse().map_err(|error| origin.error(path, format!("`origin`: {error}"), fix))
        });
        let passphrase_file = self.passphrase_file.as_deref().map(|file| config::beside(path, file));
        let interval = match &self.export_interval {
            None => EXPORT_INTERVAL,
            Some(interval) if self.export.is_none() => {
                let fix = "say where the log is to be put: write `export`";
                return Err(interval.error(path, "`export_interval` without `export`", fix));
            }
            Some(interval) => within(path, interval, "export_interval", EXPORT_INTERVAL..=LONGEST_EXPORT_INTERVAL)?,
        };
        let export = self.export.map(|to| Ok(LogTarget { to: to.resolve(path)?, interval })).transpose()?;
        let reports = self.reports.map(|reports| reports.resolve(path)).transpose()?;
        Ok(Audit {
            origin: origin.transpose()?,
            passphrase_file,
            ml_dsa: self.ml_dsa,
            export,
            reports,
            witnesses,
            shown_witnesses,
        })
    }

    /// And how they are written.
    fn take_witnesses(&mut self, path: &Path) -> Result<(Option<Witnesses>, String), ConfigError> {
        let files = std::mem::take(&mut self.witnesses);
        let without = |key: &str| format!("`{key}` without `witnesses`");
        let fix = "say who cosigns the log: write `witnesses`";
        if files.is_empty() {
            return match (&self.quorum, &self.witness_interval) {
                (Some(quorum), _) => Err(quorum.error(path, without("quorum"), fix)),
                (_, Some(interval)) => Err(interval.error(path, without("witness_interval"), fix)),
                (None, None) => Ok((None, String::new())),
            };
        }
        let first = files[0].url.clone();
        if files.len() > MOST_WITNESSES {
            return Err(first.error(path, format!("more than {MOST_WITNESSES} witnesses"), "leave some out"));
        }
        let mut shown = "  witnesses:\n".to_owned();
        let mut witnesses = Vec::new();
        for file in &files {
            witnesses.push(file.resolve(path)?);
            // Writing to a String cannot fail.
            let _ = writeln!(shown, "    - url: {:?}\n      key: {:?}", file.url.value, file.key.value);
            if let Some(ca) = &file.ca {
                let _ = writeln!(shown, "      ca: {:?}", config::beside(path, ca).display().to_string());
            }
        }
        let quorum = self.quorum.unwrap_or_else(|| Located::nowhere(witnesses.len() as u64 / 2 + 1));
        let least = usize::try_from(quorum.value).unwrap_or(usize::MAX);
        let keys = witnesses.iter().map(|witness| witness.key.clone()).collect();
        let decided = signet_audit::Quorum::at_least(least, keys).map_err(|error| {
            let told = format!("`witnesses` and `quorum`: {error}");
            first.error(path, told, "name each witness once, and no larger quorum than there are witnesses")
        })?;
        let interval = match &self.witness_interval {
            None => WITNESS_INTERVAL,
            Some(interval) => within(path, interval, "witness_interval", WITNESS_INTERVAL..=LONGEST_EXPORT_INTERVAL)?,
        };
        let _ = writeln!(shown, "  quorum: {least}\n  witness_interval: {}", config::Duration(interval));
        Ok((Some(Witnesses { witnesses, quorum: decided, interval }), shown))
    }
}

impl WitnessFile {
    fn resolve(&self, path: &Path) -> Result<Witness, ConfigError> {
        let fix = "write the key as the witness publishes it, NAME+HASH+KEY, of type 4 or 6";
        let key = self.key.value.parse().map_err(|error| self.key.error(path, format!("`key`: {error}"), fix))?;
        let wrong_url = || {
            let fix = "write https://HOST/PATH, what `add-checkpoint` is below; http:// is for this machine alone";
            self.url.error(path, format!("`url` is {:?}", self.url.value), fix)
        };
        if !is_safe(&self.url) || self.url.contains(['?', '@']) {
            return Err(wrong_url());
        }
        let url = format!("{}/add-checkpoint", self.url.trim_end_matches('/'));
        let url: http::Uri = url.parse().map_err(|_| wrong_url())?;
        let tls = match (url.scheme_str(), &self.ca) {
            (Some("https"), ca) => {
                let config = client_config(self.roots(path, ca.as_ref())?);
                let bug = "this is a bug of this program";
                Some(config.map_err(|error| self.url.error(path, error.to_string(), bug))?)
            }
            (_, Some(ca)) => return Err(ca.error(path, "`ca` of an http:// URL", "leave it out")),
            (_, None) => None,
        };
        Ok(Witness { url, key, tls })
    }

    fn roots(&self, path: &Path, ca: Option<&Located<PathBuf>>) -> Result<rustls::RootCertStore, ConfigError> {
        let mut roots = rustls::RootCertStore::empty();
        let Some(ca) = ca else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return match roots.is_empty() {
                true => {
                    let fix = "install ca-certificates, or name the PEM file with `ca`";
                    Err(self.url.error(path, "this system has no authorities to believe", fix))
                }
                false => Ok(roots),
            };
        };
        let file = config::beside(path, ca);
        let read = pem_files::read(&file).ok();
        let found = read.and_then(|text| pem_files::decode(pem_files::CERTIFICATE, &text).ok()).unwrap_or_default();
        roots.add_parsable_certificates(found.into_iter().map(Into::into));
        match roots.is_empty() {
            true => {
                let told = format!("ca {} holds no CA's certificate", file.display());
                Err(ca.error(path, told, "name a PEM file with the CA's certificates"))
            }
            false => Ok(roots),
        }
    }
}

/// As it would be written in a file.
pub(super) fn shown(audit: &Audit) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    if let Some(origin) = &audit.origin {
        let _ = writeln!(text, "  origin: {:?}", origin.as_str());
    }
    if let Some(file) = &audit.passphrase_file {
        let _ = writeln!(text, "  passphrase_file: {:?}", file.display().to_string());
    }
    if audit.ml_dsa {
        text.push_str("  ml_dsa: true\n");
    }
    if let Some(LogTarget { to, interval }) = &audit.export {
        let _ = writeln!(text, "  export:\n{}", target::shown(to, "    "));
        let _ = writeln!(text, "  export_interval: {}", config::Duration(*interval));
    }
    if let Some(Schedule { every, formats, to }) = &audit.reports {
        let formats: Vec<_> = formats.iter().map(Format::to_string).collect();
        let _ = writeln!(
            text,
            "  reports:\n    every: {}\n    formats: [{}]",
            config::Duration(*every),
            formats.join(", ")
        );
        let _ = writeln!(text, "    to:\n{}", target::shown(to, "      "));
    }
    text.push_str(&audit.shown_witnesses);
    if text.is_empty() { text } else { format!("audit:\n{text}") }
}
