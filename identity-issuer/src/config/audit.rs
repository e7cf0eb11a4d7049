//! The section `audit`: the log of all that the issuer does.
//!
//! ```yaml
//! audit:
//!   origin: log.example.org/eu-1         # the name of the log, for ever; without it, one that follows from its key
//!   passphrase_file: audit-passphrase    # its key in a file, where those of authorities are in a token that knows no Ed25519
//!   export:                              # where the log is put as well, for others to serve it; each issuer has a place of its own
//!     url: s3://bucket/audit/eu-1        # or file:///srv/audit; keys as in `crl.export`
//!   export_interval: 1s                  # at most so often
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use signet_audit::Origin;
use signet_process::config::{self, ConfigError, Located};

use super::file::within;
use super::target::{self, TargetFile};
use crate::audit::LogTarget;

#[derive(Clone, Debug, Default)]
pub(crate) struct Audit {
    /// None for one that follows from the key.
    pub(crate) origin: Option<Origin>,
    /// None where the key is kept with those of authorities.
    pub(crate) passphrase_file: Option<PathBuf>,
    pub(crate) export: Option<LogTarget>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AuditFile {
    origin: Option<Located<String>>,
    passphrase_file: Option<PathBuf>,
    export: Option<TargetFile>,
    export_interval: Option<Located<config::Duration>>,
}

const EXPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A bucket costs by the request.
const LONGEST_EXPORT_INTERVAL: Duration = Duration::from_secs(3600);

impl AuditFile {
    pub(super) fn resolve(self, path: &Path) -> Result<Audit, ConfigError> {
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
        Ok(Audit { origin: origin.transpose()?, passphrase_file, export })
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
    if let Some(LogTarget { to, interval }) = &audit.export {
        let _ = writeln!(text, "  export:\n{}", target::shown(to, "    "));
        let _ = writeln!(text, "  export_interval: {}", config::Duration(*interval));
    }
    if text.is_empty() { text } else { format!("audit:\n{text}") }
}
