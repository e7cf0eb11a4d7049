//! Where the issuer's keys rest, those of its authorities, of its tokens and of its audit log, and from where they sign.

mod checkpoint;
mod jwt_key;
mod kind;
mod log_key;
#[cfg(test)]
mod memory;
mod passphrase;
mod pkcs11;
mod sealed_file;
mod sealed_folder;
mod second_key;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use serde::{Deserialize, Serialize};

use jwt_key::JwtPair;
pub(crate) use jwt_key::{Algorithm, JwtKey};
pub(crate) use kind::{Kind, statement};
pub(crate) use log_key::LogKey;
use log_key::LogPair;
#[cfg(test)]
pub(crate) use memory::Memory;
pub use passphrase::{Passphrase, PassphraseError};
pub(crate) use pkcs11::Device;
pub use pkcs11::{TokenError, TokenName, TokenPlace};
pub use sealed_file::{KeyFileError, SealStrength};
pub(crate) use sealed_file::{open, seal_new};
pub(crate) use sealed_folder::SealedFolder;
pub(crate) use second_key::SecondKey;

/// Keeps an issuer's keys, each under its [`KeyName`] and for one [`Purpose`]: under another one it is not found. Each call may take
/// seconds, and blocks.
pub(crate) trait Custody: fmt::Debug + Send + Sync {
    /// A new key for certificates, which rests here when this returns.
    fn make(&self) -> Result<CaKey, CustodyError>;

    fn open(&self, name: &KeyName) -> Result<CaKey, CustodyError>;

    /// A new key for tokens, which rests here when this returns.
    fn make_for_tokens(&self, algorithm: Algorithm) -> Result<JwtKey, CustodyError>;

    fn open_for_tokens(&self, name: &KeyName, algorithm: Algorithm) -> Result<JwtKey, CustodyError>;

    /// A new key for an audit log, which rests here when this returns.
    fn make_for_log(&self) -> Result<LogKey, CustodyError>;

    fn open_for_log(&self, name: &KeyName) -> Result<LogKey, CustodyError>;

    /// A new second key for an audit log, which rests here when this returns. What keeps keys in a device has none.
    fn make_second_for_log(&self) -> Result<SecondKey, CustodyError> {
        Err(CustodyError::NoMlDsa)
    }

    fn open_second_for_log(&self, _name: &KeyName) -> Result<SecondKey, CustodyError> {
        Err(CustodyError::NoMlDsa)
    }

    /// That there is none of this name is no error.
    fn destroy(&self, name: &KeyName, purpose: Purpose) -> Result<(), CustodyError>;

    /// Whether what keeps the keys answers now.
    fn check(&self) -> Result<(), CustodyError>;
}

/// What a key is for. None is for two.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// Certificates, and what is said in an authority's name.
    Authority,
    /// JSON Web Tokens.
    Tokens(Algorithm),
    /// Checkpoints of an audit log, and statements about it.
    Log,
}

#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    #[error(transparent)]
    File(#[from] KeyFileError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "the key {name} is not where the issuer's keys are kept\nrestore it from a backup, or remove what is signed with it"
    )]
    Gone { name: KeyName },
    #[error("no key can be made: no random numbers")]
    Randomness,
    #[error(
        "the issuer's keys are in a token, and it keeps none of ML-DSA-44\nseal the log's keys in files: set `audit.passphrase_file`, or leave out `audit.ml_dsa`"
    )]
    NoMlDsa,
}

/// By which a key is known: the first 20 bytes of the SHA-256 of its SubjectPublicKeyInfo. Of an authority's, that is the subject key
/// identifier that `signet ca sign` gives it (RFC 7093 §2, method 1); of a token's, the `kid`; a log's is known by it here alone. Displays as lower-case hexadecimal.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyName(String);

/// A CA's private key, wherever it rests. P-256. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub(crate) struct CaKey {
    /// The public key, as SubjectPublicKeyInfo has it.
    point: Vec<u8>,
    signs: Arc<dyn Signs>,
}

/// What a key does, here or in a device.
pub(crate) trait Signs: Send + Sync {
    /// A CA's: ECDSA with SHA-256, ASN.1. One for tokens: as a JSON Web Signature has it. A log's: Ed25519 (RFC 8032).
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;

    fn pace(&self) -> Pace;
}

/// How long a key takes to sign.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Pace {
    /// Less than a millisecond: it is in memory.
    Quick,
    /// It is in a device, which may take seconds. Whoever signs blocks for as long.
    Blocks,
}

/// Why a key signed nothing.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("what was to be signed as a {wanted} is none")]
    NotOfKind { wanted: &'static str },
    #[error("the cryptographic library refused to sign")]
    Cryptography,
    #[error("the key is out of reach")]
    Token(#[from] TokenError),
}

impl KeyName {
    const BYTES: usize = 20;

    /// Of the key with this SubjectPublicKeyInfo, DER.
    pub(crate) fn of(spki: &[u8]) -> Self {
        Self(hex::encode(&digest(&SHA256, spki).as_ref()[..Self::BYTES]))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_one =
            text.len() == 2 * Self::BYTES && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_one.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for KeyName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("no key is named so")
    }
}

impl From<KeyName> for String {
    fn from(name: KeyName) -> Self {
        name.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl CaKey {
    /// `point`: the public key, uncompressed (SEC 1 §2.3.3).
    pub(crate) fn new(point: Vec<u8>, signs: impl Signs + 'static) -> Self {
        Self { point, signs: Arc::new(signs) }
    }

    pub(crate) fn name(&self) -> KeyName {
        KeyName::of(&self.subject_public_key_info())
    }

    pub(crate) fn pace(&self) -> Pace {
        self.signs.pace()
    }

    /// ECDSA with SHA-256, ASN.1, of a message that has to be of this kind. There is no other way to have something signed.
    pub(crate) fn sign(&self, kind: Kind, message: &[u8]) -> Result<Vec<u8>, SignError> {
        match kind.is_for_authorities() && Kind::of(message) == Some(kind) {
            true => self.signs.sign(message),
            false => Err(SignError::NotOfKind { wanted: kind.as_str() }),
        }
    }

    /// To sign what rcgen writes.
    pub(crate) fn signer(&self, kind: Kind) -> Signer<'_> {
        Signer { key: self, kind }
    }
}

/// A key that signs one kind of message.
#[derive(Debug)]
pub(crate) struct Signer<'a> {
    key: &'a CaKey,
    kind: Kind,
}

impl PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.key.algorithm()
    }
}

impl SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(self.kind, message).map_err(|error| match error {
            // Why, rcgen cannot carry.
            SignError::Token(error) => {
                let cause = signet_process::start::Report::of(&error).cause;
                tracing::error!(key = %self.key.name(), error = cause, "nothing was signed");
                rcgen::Error::RemoteKeyError
            }
            SignError::NotOfKind { .. } | SignError::Cryptography => rcgen::Error::RingUnspecified,
        })
    }
}

impl fmt::Debug for CaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CaKey").field(&self.name()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn opens_again(custody: &dyn Custody) {
        let made = custody.make().unwrap();
        let other = custody.make().unwrap();
        assert_ne!(made.name(), other.name());
        let opened = custody.open(&made.name()).unwrap();
        assert_eq!((made.der_bytes(), made.name()), (opened.der_bytes(), opened.name()));
        custody.destroy(&made.name(), Purpose::Authority).unwrap();
        custody.destroy(&made.name(), Purpose::Authority).unwrap();
        assert!(matches!(custody.open(&made.name()), Err(CustodyError::Gone { name }) if name == made.name()));
        custody.open(&other.name()).unwrap();
        assert_eq!(format!("{made:?}"), format!("CaKey(KeyName({:?}))", made.name().as_str()));
    }

    fn opens_again_for_tokens(custody: &dyn Custody) {
        for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
            let made = custody.make_for_tokens(algorithm).unwrap();
            let other = custody.make_for_tokens(algorithm).unwrap();
            assert_ne!(made.name(), other.name());
            let opened = custody.open_for_tokens(made.name(), algorithm).unwrap();
            assert_eq!((made.spki(), made.algorithm()), (opened.spki(), opened.algorithm()));
            custody.destroy(made.name(), Purpose::Tokens(algorithm)).unwrap();
            custody.destroy(made.name(), Purpose::Tokens(algorithm)).unwrap();
            let gone = custody.open_for_tokens(made.name(), algorithm);
            assert!(matches!(gone, Err(CustodyError::Gone { name }) if name == *made.name()));
            custody.open_for_tokens(other.name(), algorithm).unwrap();
            assert_eq!(format!("{made:?}"), format!("JwtKey(KeyName({:?}))", made.name().as_str()));
        }
    }

    fn opens_again_for_a_log(custody: &dyn Custody) {
        const TEXT: &[u8] = b"example.org/audit/1\n0\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
        let made = custody.make_for_log().unwrap();
        let other = custody.make_for_log().unwrap();
        assert_ne!(made.name(), other.name());
        let opened = custody.open_for_log(made.name()).unwrap();
        assert_eq!((made.public_key(), made.name()), (opened.public_key(), opened.name()));
        assert_eq!(made.sign(TEXT).unwrap(), opened.sign(TEXT).unwrap());
        let second = custody.make_second_for_log().unwrap();
        assert_eq!(custody.open_second_for_log(second.name()).unwrap().public_key(), second.public_key());
        custody.open_second_for_log(made.name()).unwrap_err();
        custody.open_for_log(second.name()).unwrap_err();
        custody.destroy(made.name(), Purpose::Log).unwrap();
        custody.destroy(made.name(), Purpose::Log).unwrap();
        assert!(matches!(custody.open_for_log(made.name()), Err(CustodyError::Gone { name }) if name == *made.name()));
        custody.open_for_log(other.name()).unwrap();
        assert_eq!(format!("{made:?}"), format!("LogKey(KeyName({:?}))", made.name().as_str()));
    }

    fn sealed(folder: &std::path::Path) -> SealedFolder {
        let passphrase = Passphrase::read(&b"open sesame"[..]).unwrap();
        SealedFolder::new(folder.to_owned(), passphrase, SealStrength::MINIMAL)
    }

    #[test]
    fn what_is_kept_opens_again_until_it_is_destroyed() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = sealed(&folder.path().join("keys"));
        for custody in [&Memory::default() as &dyn Custody, &sealed] {
            opens_again(custody);
            opens_again_for_tokens(custody);
            opens_again_for_a_log(custody);
        }
    }

    #[test]
    fn a_key_does_not_open_for_another_purpose() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = sealed(folder.path());
        for custody in [&Memory::default() as &dyn Custody, &sealed] {
            let authority = custody.make().unwrap().name();
            let tokens = custody.make_for_tokens(Algorithm::Es256).unwrap().name().clone();
            custody.open_for_tokens(&authority, Algorithm::Es256).unwrap_err();
            custody.open(&tokens).unwrap_err();
            custody.open_for_tokens(&tokens, Algorithm::Rs256).unwrap_err();
            let log = custody.make_for_log().unwrap().name().clone();
            custody.open(&log).unwrap_err();
            custody.open_for_tokens(&log, Algorithm::Es256).unwrap_err();
            custody.open_for_log(&authority).unwrap_err();
            custody.open_for_log(&tokens).unwrap_err();
            custody.open_for_log(&log).unwrap();
            custody.open(&authority).unwrap();
            custody.open_for_tokens(&tokens, Algorithm::Es256).unwrap();
        }
    }

    #[test]
    fn a_sealed_key_under_anothers_name_is_not_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let passphrase = Passphrase::read(&b"open sesame"[..]).unwrap();
        let custody = SealedFolder::new(folder.path().to_owned(), passphrase, SealStrength::MINIMAL);
        let (one, other) = (custody.make().unwrap().name(), custody.make().unwrap().name());
        std::fs::copy(folder.path().join(format!("{one}.key")), folder.path().join(format!("{other}.key"))).unwrap();
        assert!(matches!(custody.open(&other), Err(CustodyError::File(KeyFileError::Damaged { .. }))));
    }

    #[test]
    fn a_name_is_forty_hexadecimal_digits_and_no_path() {
        let name = KeyName::of(b"spki");
        assert_eq!(KeyName::parse(name.as_str()), Some(name));
        for wrong in
            ["", "../../../../../../../../../../../etc/passwd", "0123456789ABCDEF0123456789ABCDEF01234567", "00"]
        {
            assert_eq!(KeyName::parse(wrong), None, "{wrong}");
        }
    }
}
