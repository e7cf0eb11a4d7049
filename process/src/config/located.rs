//! A value that remembers where in the file it stood.

use std::fmt;
use std::ops::Deref;
use std::path::Path;

use serde::{Deserialize, Deserializer};

use super::ConfigError;

/// A value with its line and column (from 1), so that a check after parsing still points at it.
///
/// Both are 0 for a default that no file holds.
#[derive(Clone, Copy)]
pub struct Located<T> {
    pub value: T,
    pub line: u32,
    pub column: u32,
}

impl<T> Located<T> {
    /// A value that is in no file, such as a default.
    pub fn nowhere(value: T) -> Self {
        Self { value, line: 0, column: 0 }
    }

    /// An error about this value in the configuration at `path`.
    pub fn error(&self, path: &Path, what: impl Into<String>, fix: impl Into<String>) -> ConfigError {
        let error = ConfigError::new(path, what).with_fix(fix);
        if self.line == 0 { error } else { error.at(self.line, self.column) }
    }

    /// Another value from the same place.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: change(self.value), line: self.line, column: self.column }
    }
}

impl<T: Default> Default for Located<T> {
    fn default() -> Self {
        Self::nowhere(T::default())
    }
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Located<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<T>::deserialize(deserializer)?;
        let at = spanned.referenced;
        Ok(Self { value: spanned.value, line: at.line() as u32, column: at.column() as u32 })
    }
}
