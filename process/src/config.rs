//! Strict configuration files: an unknown key, a wrong value or a dangling name is an error that names its place and
//! the fix.
//!
//! A process has two layers: what serde reads here (`deny_unknown_fields`, values that later checks may complain of
//! wrapped in [`Located`]), and what it runs on, made from the first by one `TryFrom`.

mod budget;
mod error;
mod located;
mod parsed;
mod place;
mod units;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use budget::Budget;
pub use error::ConfigError;
pub use located::Located;
pub use parsed::Parsed;
pub use units::{ByteSize, Duration, UnitError};

/// Reads and parses the configuration at `path`.
///
/// A file over 1 MiB is refused: it is the wrong file.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|cause| ConfigError::unreadable(path, cause))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::new(path, "larger than 1 MiB").with_fix("is this a configuration file?"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| ConfigError::new(path, "not UTF-8 text").with_fix("save the file as UTF-8"))?;
    parse(path, &text)
}

/// Parses a configuration that is already in memory; `name` is what errors call it.
pub fn parse<T: DeserializeOwned>(name: &Path, text: &str) -> Result<T, ConfigError> {
    parse_within(name, text, &Budget::CONFIGURATION)
}

/// The same for a document that may hold so much.
pub fn parse_within<T: DeserializeOwned>(name: &Path, text: &str, budget: &Budget) -> Result<T, ConfigError> {
    let options = serde_saphyr::options! {
        budget: budget.of_parser(),
        strict_booleans: true,
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|cause| ConfigError::of_yaml(name, text, budget, &cause))
}

/// Where a file named inside the configuration at `config` is: a relative path starts at the configuration's folder.
pub fn beside(config: &Path, file: &Path) -> PathBuf {
    config.parent().unwrap_or(Path::new("")).join(file)
}

const MAX_FILE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;
