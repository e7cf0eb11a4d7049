//! Where the issuer's keys rest.
//!
//! ```yaml
//! authority:
//!   passphrase_file: passphrase          # in files, sealed; or
//!   passphrase_fd: 3                     # the same, with the passphrase read from an open descriptor; or
//!   key:                                 # in a token
//!     pkcs11:
//!       module: /usr/lib/softhsm/libsofthsm2.so
//!       token_label: signet              # or token_serial
//!       pin_file: pin
//!       sessions: 8                      # signatures at once
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;
use signet_process::config::{self, ConfigError, Located};

use super::file::number_within;
use crate::authority::{Passphrase, PassphraseError, TokenName, TokenPlace};

/// Where the issuer's keys rest, and what opens them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyPlace {
    /// In files, sealed by the passphrase that this file begins with.
    Sealed { passphrase: PathBuf },
    /// In a token.
    Token(TokenPlace),
}

#[derive(Debug, thiserror::Error)]
pub enum KeyPlaceError {
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyFile {
    pkcs11: Located<Pkcs11File>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pkcs11File {
    module: PathBuf,
    token_label: Option<String>,
    token_serial: Option<String>,
    pin_file: PathBuf,
    #[serde(default = "eight")]
    sessions: Located<u64>,
}

fn eight() -> Located<u64> {
    Located::nowhere(8)
}

/// What the file says of it, one of which has to be there.
pub(super) struct Said<'a> {
    pub(super) passphrase_file: Option<&'a Path>,
    pub(super) passphrase_fd: Option<u32>,
    pub(super) key: Option<&'a KeyFile>,
}

impl Said<'_> {
    /// `wrong` makes an error of what is wrong and how to mend it.
    pub(super) fn resolve(
        &self,
        path: &Path,
        wrong: impl Fn(&str, &str) -> ConfigError,
    ) -> Result<KeyPlace, ConfigError> {
        match (self.passphrase_file, self.passphrase_fd, self.key) {
            (Some(file), None, None) => Ok(KeyPlace::Sealed { passphrase: config::beside(path, file) }),
            // The kernel lends an open descriptor under this name; taking it by number would need unsafe code.
            (None, Some(descriptor), None) => {
                Ok(KeyPlace::Sealed { passphrase: PathBuf::from(format!("/dev/fd/{descriptor}")) })
            }
            (None, None, Some(key)) => key.pkcs11.resolve(path).map(KeyPlace::Token),
            (None, None, None) => Err(wrong(
                "`authority` does not say what opens its key",
                "name a file by `passphrase_file`, a descriptor by `passphrase_fd`, or a token by `key`",
            )),
            _ => Err(wrong(
                "`authority` says in several ways what opens its key",
                "keep one of `passphrase_file`, `passphrase_fd` and `key`",
            )),
        }
    }
}

trait Resolve {
    fn resolve(&self, path: &Path) -> Result<TokenPlace, ConfigError>;
}

impl Resolve for Located<Pkcs11File> {
    fn resolve(&self, path: &Path) -> Result<TokenPlace, ConfigError> {
        let file = &self.value;
        let token = match (&file.token_label, &file.token_serial) {
            (Some(label), None) => TokenName::Label(label.clone()),
            (None, Some(serial)) => TokenName::Serial(serial.clone()),
            _ => {
                return Err(self.error(
                    path,
                    "`pkcs11` does not name one token".to_owned(),
                    "give either `token_label` or `token_serial`".to_owned(),
                ));
            }
        };
        Ok(TokenPlace {
            module: config::beside(path, &file.module),
            token,
            pin_file: config::beside(path, &file.pin_file),
            sessions: number_within(path, &file.sessions, "sessions", 1..=256)? as usize,
        })
    }
}

impl KeyPlace {
    /// Whether what the configuration names is there. The token itself is not asked: it counts wrong PINs.
    pub fn check(&self) -> Result<(), KeyPlaceError> {
        match self {
            Self::Sealed { passphrase } => Passphrase::from_file(passphrase).map(drop).map_err(KeyPlaceError::from),
            Self::Token(TokenPlace { module, pin_file, .. }) => {
                [module, pin_file].into_iter().try_for_each(|path| match std::fs::File::open(path) {
                    Ok(_) => Ok(()),
                    Err(source) => Err(KeyPlaceError::Unreadable { path: path.clone(), source }),
                })
            }
        }
    }

    /// For `/config`, below `authority`: a key and its value.
    pub(super) fn shown(&self) -> (&'static str, String) {
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        match self {
            Self::Sealed { passphrase } => ("  passphrase_file", quoted(passphrase)),
            Self::Token(TokenPlace { module, token, pin_file, sessions }) => {
                let token = match token {
                    TokenName::Label(label) => format!("token_label: {label:?}"),
                    TokenName::Serial(serial) => format!("token_serial: {serial:?}"),
                };
                let (module, pin_file) = (quoted(module), quoted(pin_file));
                let place = format!("module: {module}, {token}, pin_file: {pin_file}, sessions: {sessions}");
                ("  key", format!("{{ pkcs11: {{ {place} }} }}"))
            }
        }
    }
}
