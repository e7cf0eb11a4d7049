//! A CA key sealed by a passphrase, in one file.
//!
//! The file is one PEM block, `SIGNET SEALED KEY`, whose contents are (integers big-endian):
//!
//! ```text
//! offset  bytes
//!      0      1  format version: 1
//!      1      4  argon2id memory, KiB
//!      5      4  argon2id passes
//!      9      4  argon2id lanes
//!     13     16  argon2id salt
//!     29     12  AES-256-GCM nonce
//!     41      n  ciphertext: the key as PKCS#8 (RFC 5958), and the 16-byte tag
//!   41+n     32  SHA-256 of all before it
//! ```
//!
//! The AES key is the 32-byte argon2id output (RFC 9106, version 0x13). The header is authenticated as associated data.
//! The digest at the end keeps nobody from altering the file; it tells a damaged file from a wrong passphrase.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::Passphrase;

const LABEL: &str = "SIGNET SEALED KEY";
const VERSION: u8 = 1;
const SALT: std::ops::Range<usize> = 13..29;
const NONCE: std::ops::Range<usize> = 29..HEADER;
const HEADER: usize = 41;
const TAG: usize = 16;
const DIGEST: usize = 32;
/// No key file is longer; the rest of a longer one is not read.
const MAX_FILE: u64 = 16 * 1024;

/// What a guess at the passphrase costs. Chosen when a key is sealed, and kept in the file.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct SealStrength {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("the key file {} exists already", path.display())]
    Exists { path: PathBuf },
    #[error("the key file {} does not exist", path.display())]
    Missing { path: PathBuf },
    #[error("the key file {} cannot be read", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the key file {} cannot be written", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{} is not a sealed key\nrestore it from a backup", path.display())]
    NotASealedKey { path: PathBuf },
    #[error(
        "the key file {} is of format {found}, and this program knows format {VERSION}\n\
         use the version of Signet that wrote it",
        path.display()
    )]
    UnknownVersion { path: PathBuf, found: u8 },
    #[error("the key file {} is damaged: its digest does not match\nrestore it from a backup", path.display())]
    Damaged { path: PathBuf },
    #[error(
        "the key file {} asks for key derivation beyond the bounds (memory, passes or lanes)\nrestore it from a backup",
        path.display()
    )]
    UnboundedDerivation { path: PathBuf },
    #[error("the passphrase does not open the key file {}\ngive the one that it was sealed with", path.display())]
    WrongPassphrase { path: PathBuf },
    #[error("the cryptographic library refused to seal or open the key file {}", path.display())]
    Cryptography { path: PathBuf },
}

impl SealStrength {
    /// RFC 9106 §4, second recommended option: 64 MiB, 3 passes, 4 lanes.
    pub const STANDARD: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
    /// As little as argon2 takes. For tests, and for passphrases that are random keys themselves.
    pub const MINIMAL: Self = Self { memory_kib: 8, passes: 1, lanes: 1 };

    /// Bounds that hold before any work is done for a file: an altered one cannot take all memory or run for hours.
    fn is_bounded(self) -> bool {
        let Self { memory_kib, passes, lanes } = self;
        (1..=16).contains(&lanes) && (1..=16).contains(&passes) && (8 * lanes..=1024 * 1024).contains(&memory_kib)
    }

    fn from_header(header: &[u8; HEADER]) -> Self {
        let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Self { memory_kib: number(1), passes: number(5), lanes: number(9) }
    }
}

/// Seals `pkcs8` into a new file of mode 0600. Never overwrites.
pub(crate) fn seal_new(
    path: &Path,
    pkcs8: &[u8],
    passphrase: &Passphrase,
    strength: SealStrength,
) -> Result<(), KeyFileError> {
    let sealed = seal(path, pkcs8, passphrase, strength)?;
    let text = pem::encode_config(&pem::Pem::new(LABEL, sealed), crate::pem_files::LINE_FEEDS);
    // Whole or not at all: a crash leaves no half of a key, and a link, unlike a rename, replaces nothing.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let written = write_private(&unfinished, text.as_bytes()).and_then(|()| std::fs::hard_link(&unfinished, path));
    // Left behind at worst is a sealed file under another name, which the next attempt overwrites.
    let _ = std::fs::remove_file(&unfinished);
    written.map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.to_owned() },
        _ => KeyFileError::Write { path: path.to_owned(), source },
    })
}

fn write_private(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// The key of the file at `path`, as PKCS#8.
pub(crate) fn open(path: &Path, passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let mut text = String::new();
    std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)).map_err(|source| {
        match source.kind() {
            std::io::ErrorKind::NotFound => KeyFileError::Missing { path: path.to_owned() },
            std::io::ErrorKind::InvalidData => KeyFileError::NotASealedKey { path: path.to_owned() },
            _ => KeyFileError::Read { path: path.to_owned(), source },
        }
    })?;
    match pem::parse(text) {
        Ok(block) if block.tag() == LABEL => unseal(path, block.contents(), passphrase),
        Ok(_) | Err(_) => Err(KeyFileError::NotASealedKey { path: path.to_owned() }),
    }
}

fn seal(path: &Path, pkcs8: &[u8], passphrase: &Passphrase, strength: SealStrength) -> Result<Vec<u8>, KeyFileError> {
    let cryptography = |_| KeyFileError::Cryptography { path: path.to_owned() };
    let mut header = [0; HEADER];
    header[0] = VERSION;
    header[1..5].copy_from_slice(&strength.memory_kib.to_be_bytes());
    header[5..9].copy_from_slice(&strength.passes.to_be_bytes());
    header[9..13].copy_from_slice(&strength.lanes.to_be_bytes());
    rand::fill(&mut header[SALT]).map_err(cryptography)?;
    rand::fill(&mut header[NONCE]).map_err(cryptography)?;

    let key = derive(path, &header, passphrase)?;
    let mut text = Zeroizing::new(Vec::with_capacity(pkcs8.len() + TAG));
    text.extend_from_slice(pkcs8);
    key.seal_in_place_append_tag(nonce(&header), Aad::from(header), &mut *text).map_err(cryptography)?;

    let mut sealed = header.to_vec();
    sealed.extend_from_slice(&text);
    let checksum = digest(&SHA256, &sealed);
    sealed.extend_from_slice(checksum.as_ref());
    Ok(sealed)
}

fn unseal(path: &Path, sealed: &[u8], passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let version = *sealed.first().ok_or_else(|| KeyFileError::NotASealedKey { path: path.to_owned() })?;
    if version != VERSION {
        return Err(KeyFileError::UnknownVersion { path: path.to_owned(), found: version });
    }
    let damaged = || KeyFileError::Damaged { path: path.to_owned() };
    let (body, checksum) = sealed.split_last_chunk::<DIGEST>().ok_or_else(damaged)?;
    if digest(&SHA256, body).as_ref() != checksum {
        return Err(damaged());
    }
    let (header, ciphertext) = body.split_first_chunk::<HEADER>().ok_or_else(damaged)?;

    let key = derive(path, header, passphrase)?;
    let mut text = Zeroizing::new(ciphertext.to_vec());
    let length = key
        .open_in_place(nonce(header), Aad::from(*header), &mut text)
        .map_err(|_| KeyFileError::WrongPassphrase { path: path.to_owned() })?
        .len();
    text.truncate(length);
    Ok(text)
}

fn derive(path: &Path, header: &[u8; HEADER], passphrase: &Passphrase) -> Result<LessSafeKey, KeyFileError> {
    let strength = SealStrength::from_header(header);
    if !strength.is_bounded() {
        return Err(KeyFileError::UnboundedDerivation { path: path.to_owned() });
    }
    let cryptography = || KeyFileError::Cryptography { path: path.to_owned() };
    let params = Params::new(strength.memory_kib, strength.passes, strength.lanes, Some(32))
        .map_err(|_| KeyFileError::UnboundedDerivation { path: path.to_owned() })?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), &header[SALT], &mut *key)
        .map_err(|_| cryptography())?;
    UnboundKey::new(&AES_256_GCM, &*key).map(LessSafeKey::new).map_err(|_| cryptography())
}

fn nonce(header: &[u8; HEADER]) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(&header[NONCE]);
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &[u8] = b"not really PKCS#8";

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::read(text.as_bytes()).unwrap()
    }

    fn sealed() -> Vec<u8> {
        seal(Path::new("test.key"), KEY, &passphrase("open sesame"), SealStrength::MINIMAL).unwrap()
    }

    fn unseal_with(sealed: &[u8], text: &str) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
        unseal(Path::new("test.key"), sealed, &passphrase(text))
    }

    /// What an attacker does who knows the format: alters the file and makes the digest fit again.
    fn with_fitting_digest(mut sealed: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        sealed.truncate(sealed.len() - DIGEST);
        change(&mut sealed);
        let checksum = digest(&SHA256, &sealed);
        sealed.extend_from_slice(checksum.as_ref());
        sealed
    }

    #[test]
    fn a_sealed_key_opens_with_its_passphrase_and_no_other() {
        let sealed = sealed();
        assert_eq!(*unseal_with(&sealed, "open sesame").unwrap(), KEY);
        assert!(matches!(unseal_with(&sealed, "open barley"), Err(KeyFileError::WrongPassphrase { .. })));
        assert!(!sealed.windows(KEY.len()).any(|window| window == KEY));
    }

    #[test]
    fn any_flipped_bit_is_told_apart_from_a_wrong_passphrase() {
        let whole = sealed();
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            let error = unseal_with(&altered, "open sesame").unwrap_err();
            match at {
                0 => assert!(matches!(error, KeyFileError::UnknownVersion { found: 0, .. })),
                _ => assert!(matches!(error, KeyFileError::Damaged { .. }), "byte {at}: {error}"),
            }
        }
    }

    #[test]
    fn a_key_file_altered_on_purpose_does_not_open() {
        for at in (13..sealed().len() - DIGEST).step_by(7) {
            let altered = with_fitting_digest(sealed(), |bytes| bytes[at] ^= 1);
            assert!(matches!(unseal_with(&altered, "open sesame"), Err(KeyFileError::WrongPassphrase { .. })));
        }
    }

    #[test]
    fn derivation_parameters_are_bounded_before_they_cost_anything() {
        for (at, value) in [(1, u32::MAX), (1, 0), (5, 17), (5, 0), (9, 17), (9, 0), (9, u32::MAX)] {
            let altered =
                with_fitting_digest(sealed(), |bytes| bytes[at..at + 4].copy_from_slice(&value.to_be_bytes()));
            let error = unseal_with(&altered, "open sesame").unwrap_err();
            assert!(matches!(error, KeyFileError::UnboundedDerivation { .. }), "{at} {value}: {error}");
        }
    }

    #[test]
    fn a_truncated_file_is_damaged() {
        let whole = sealed();
        for length in 1..whole.len() {
            assert!(matches!(unseal_with(&whole[..length], "open sesame"), Err(KeyFileError::Damaged { .. })));
        }
    }

    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.key");
        let passphrase = passphrase("open sesame");
        seal_new(&path, KEY, &passphrase, SealStrength::MINIMAL).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = seal_new(&path, b"another", &passphrase, SealStrength::MINIMAL);
        assert!(matches!(again, Err(KeyFileError::Exists { .. })));
        assert_eq!(*open(&path, &passphrase).unwrap(), KEY);
    }

    #[test]
    fn what_is_no_sealed_key_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.key");
        assert!(matches!(open(&path, &passphrase("x")), Err(KeyFileError::Missing { .. })));
        for text in [&b""[..], b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(open(&path, &passphrase("x")), Err(KeyFileError::NotASealedKey { .. })));
        }
    }
}
