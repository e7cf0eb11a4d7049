//! The section `audit`: the log of all that the issuer does.
//!
//! ```yaml
//! audit:
//!   origin: log.example.org/eu-1         # the name of the log, for ever; without it, one that follows from its key
//!   passphrase_file: audit-passphrase    # its key in a file, where those of authorities are in a token that knows no Ed25519
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use signet_audit::Origin;
use signet_process::config::{self, ConfigError, Located};

#[derive(Clone, Debug, Default)]
pub(crate) struct Audit {
    /// None for one that follows from the key.
    pub(crate) origin: Option<Origin>,
    /// None where the key is kept with those of authorities.
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AuditFile {
    origin: Option<Located<String>>,
    passphrase_file: Option<PathBuf>,
}

impl AuditFile {
    pub(super) fn resolve(self, path: &Path) -> Result<Audit, ConfigError> {
        let origin = self.origin.map(|origin| {
            let fix = "write the URL of the log without its scheme, such as log.example.org/eu-1";
            origin.value.parse().map_err(|error| origin.error(path, format!("`origin`: {error}"), fix))
        });
        let passphrase_file = self.passphrase_file.as_deref().map(|file| config::beside(path, file));
        Ok(Audit { origin: origin.transpose()?, passphrase_file })
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
    if text.is_empty() { text } else { format!("audit:\n{text}") }
}
