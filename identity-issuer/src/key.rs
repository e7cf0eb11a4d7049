//! The issuer's private keys, in memory: those of its authorities and that of its own SVID.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::pkcs8::Document;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};

use crate::authority::custody::{self, CaKey, KeyFileError, Pace, Passphrase, SealStrength, SignError, Signs};

/// A P-256 key. Roots and intermediates have this type too: every full handshake of every peer verifies both their
/// signatures, P-384 would cost each of them several times as much, and leaves and key exchange do not reach beyond 128
/// bits of security either.
#[derive(Clone)]
pub(crate) struct P256Key(Arc<EcdsaKeyPair>);

impl P256Key {
    pub(crate) fn generate() -> Result<Self, Unspecified> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map(|key| Self(Arc::new(key)))
    }

    /// A new key that rests sealed at `path`, where nothing may be yet.
    pub(crate) fn generate_sealed(
        path: &Path,
        passphrase: &Passphrase,
        strength: SealStrength,
    ) -> Result<Self, KeyFileError> {
        let key = Self::generate().map_err(|_| KeyFileError::Cryptography { path: path.to_owned() })?;
        key.seal(path, passphrase, strength)?;
        Ok(key)
    }

    /// Seals it at `path`, where nothing may be yet.
    pub(crate) fn seal(
        &self,
        path: &Path,
        passphrase: &Passphrase,
        strength: SealStrength,
    ) -> Result<(), KeyFileError> {
        let pkcs8 = self.to_pkcs8().map_err(|_| KeyFileError::Cryptography { path: path.to_owned() })?;
        custody::seal_new(path, pkcs8.as_ref(), passphrase, strength)
    }

    /// Opens the key sealed at `path`. Deriving the sealing key takes a good part of a second, by design.
    pub(crate) fn open_sealed(path: &Path, passphrase: &Passphrase) -> Result<Self, KeyFileError> {
        let pkcs8 = custody::open(path, passphrase)?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8)
            .map(|key| Self(Arc::new(key)))
            .map_err(|_| KeyFileError::Damaged { path: path.to_owned() })
    }

    /// RFC 5958. The document wipes itself when dropped.
    pub(crate) fn to_pkcs8(&self) -> Result<Document, Unspecified> {
        self.0.to_pkcs8v1()
    }
}

impl PublicKeyData for P256Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for P256Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl Signs for P256Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        SigningKey::sign(self, message).map_err(|_| SignError::Cryptography)
    }

    fn pace(&self) -> Pace {
        Pace::Quick
    }
}

impl From<P256Key> for CaKey {
    fn from(key: P256Key) -> Self {
        Self::new(key.der_bytes().to_vec(), key)
    }
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256Key(…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_survives_being_sealed_and_shows_nothing_of_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authority.key");
        let passphrase = Passphrase::read(&b"open sesame"[..]).unwrap();
        let made = P256Key::generate_sealed(&path, &passphrase, SealStrength::MINIMAL).unwrap();
        let opened = P256Key::open_sealed(&path, &passphrase).unwrap();
        assert_eq!(made.der_bytes(), opened.der_bytes());
        assert_eq!(format!("{opened:?}"), "P256Key(…)");
    }
}
