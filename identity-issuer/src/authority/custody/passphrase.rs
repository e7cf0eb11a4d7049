//! The secret that opens a sealed key.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// A passphrase of 1 to [`Passphrase::MAX_BYTES`] bytes, wiped from memory when dropped.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    #[error("the passphrase is empty\nput it on the first line, for example by `openssl rand -base64 33`")]
    Empty,
    #[error("the passphrase is longer than {} bytes", Passphrase::MAX_BYTES)]
    TooLong,
    #[error("the passphrase file {} cannot be read", path.display())]
    Read { path: PathBuf, source: std::io::Error },
}

impl Passphrase {
    pub const MAX_BYTES: usize = 1024;

    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Self, PassphraseError> {
        match bytes.len() {
            0 => Err(PassphraseError::Empty),
            1..=Self::MAX_BYTES => Ok(Self(bytes)),
            _ => Err(PassphraseError::TooLong),
        }
    }

    /// The first line of `source`, without its end, so that `echo` can make the file.
    pub fn read(source: impl Read) -> Result<Self, PassphraseError> {
        Self::read_from(source, Path::new("(stream)"))
    }

    /// The same, from the file at `path`.
    pub fn from_file(path: &Path) -> Result<Self, PassphraseError> {
        let file = File::open(path).map_err(|source| PassphraseError::Read { path: path.to_owned(), source })?;
        Self::read_from(file, path)
    }

    fn read_from(source: impl Read, path: &Path) -> Result<Self, PassphraseError> {
        // Room for all of it at once: a vector that grows leaves unwiped copies behind.
        let limit = Self::MAX_BYTES + 2;
        let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
        source
            .take(limit as u64)
            .read_to_end(&mut bytes)
            .map_err(|source| PassphraseError::Read { path: path.to_owned(), source })?;
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        bytes.truncate(end);
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Self::new(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_line_is_the_passphrase() {
        for text in ["a b", "a b\n", "a b\r\n", "a b\n\n", "a b\nc\n"] {
            assert_eq!(Passphrase::read(text.as_bytes()).unwrap().as_bytes(), b"a b");
        }
    }

    #[test]
    fn an_empty_or_endless_passphrase_is_refused() {
        assert!(matches!(Passphrase::read(&b"\n"[..]), Err(PassphraseError::Empty)));
        assert!(matches!(Passphrase::read(std::io::repeat(b'x')), Err(PassphraseError::TooLong)));
    }

    #[test]
    fn debug_output_shows_nothing_of_it() {
        assert_eq!(format!("{:?}", Passphrase::read(&b"hunter2"[..]).unwrap()), "Passphrase(…)");
    }
}
