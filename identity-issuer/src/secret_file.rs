//! Secrets that others put into files: a bearer token, a database's password.

use std::io::{Error, ErrorKind, Read as _};
use std::path::Path;

use zeroize::Zeroizing;

/// Reads it whole, or not at all; wiped when it is dropped. `most` is in bytes.
pub(crate) fn read(path: &Path, most: usize) -> std::io::Result<Zeroizing<String>> {
    // Does not grow, which would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(most + 1));
    std::fs::File::open(path)?.take(most as u64 + 1).read_to_string(&mut text)?;
    match text.len() > most {
        true => Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than {} KiB", most / 1024))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_secret_that_is_too_long_is_not_cut() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a".repeat(1024)).unwrap();
        assert_eq!(read(file.path(), 1024).unwrap().len(), 1024);
        std::fs::write(file.path(), "a".repeat(1025)).unwrap();
        assert_eq!(read(file.path(), 1024).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
