//! To which key a backup is encrypted. The issuer has the public one alone; the other rests with whoever restores.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256;
use rustls::crypto::hpke::{Hpke, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

/// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM (RFC 9180 §7).
pub(crate) const SUITE: &dyn Hpke = DH_KEM_X25519_HKDF_SHA256_AES_256;

/// The public key: `signet-backup-v1+HASH+KEY`, where the hash is there for typing errors.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackupKey(pub(crate) [u8; KEY]);

/// The private key: `signet-backup-secret-v1+KEY`. Wiped when it is dropped; its `Debug` shows the public one.
pub struct BackupSecret {
    pub(crate) public: BackupKey,
    pub(crate) secret: HpkePrivateKey,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    #[error("it is not written as {}+HASH+KEY", PUBLIC)]
    Form,
    #[error("its hash is not that of its key: it was changed, or is not copied whole")]
    Hash,
    #[error("it is a private key; what is encrypted is encrypted to the public one that stands above it")]
    Secret,
    #[error("it is no private key, as {}+PUBLIC+KEY", SECRET)]
    NotSecret,
    #[error("no key can be made")]
    Cryptography,
}

const PUBLIC: &str = "signet-backup-v1";
const SECRET: &str = "signet-backup-secret-v1";
/// In bytes, of either (RFC 7748 §5).
pub(crate) const KEY: usize = 32;
/// In bytes.
pub(crate) const KEY_HASH: usize = 4;

impl BackupKey {
    /// By which whoever has a key knows that something is for it.
    pub(crate) fn hash(&self) -> [u8; KEY_HASH] {
        let mut hash = [0; KEY_HASH];
        hash.copy_from_slice(&digest(&SHA256, &[PUBLIC.as_bytes(), b"+", &self.0].concat()).as_ref()[..KEY_HASH]);
        hash
    }

    pub(crate) fn hpke(&self) -> HpkePublicKey {
        HpkePublicKey(self.0.to_vec())
    }
}

impl BackupSecret {
    pub fn generate() -> Result<Self, KeyError> {
        let (public, secret) = SUITE.generate_key_pair().map_err(|_| KeyError::Cryptography)?;
        let public = BackupKey(public.0.try_into().map_err(|_| KeyError::Cryptography)?);
        Ok(Self { public, secret })
    }

    pub fn public(&self) -> &BackupKey {
        &self.public
    }

    /// As it is kept.
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(STANDARD.encode(self.secret.secret_bytes()));
        Zeroizing::new(format!("{SECRET}+{}+{}", STANDARD.encode(self.public.0), *secret))
    }

    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let rest = text.strip_prefix(SECRET).and_then(|rest| rest.strip_prefix('+')).ok_or(KeyError::NotSecret)?;
        // Base64 of 32 bytes has 44 characters, and may have a + among them.
        let (public, secret) = rest.split_at_checked(44).ok_or(KeyError::NotSecret)?;
        let secret = secret.strip_prefix('+').ok_or(KeyError::NotSecret)?;
        let public = STANDARD.decode(public).ok().and_then(|key| key.try_into().ok()).ok_or(KeyError::NotSecret)?;
        let secret = Zeroizing::new(STANDARD.decode(secret).map_err(|_| KeyError::NotSecret)?);
        match secret.len() == KEY {
            true => Ok(Self { public: BackupKey(public), secret: HpkePrivateKey::from(secret.to_vec()) }),
            false => Err(KeyError::NotSecret),
        }
    }
}

impl fmt::Display for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}+{}+{}", hex::encode(self.hash()), STANDARD.encode(self.0))
    }
}

impl FromStr for BackupKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with(SECRET) {
            return Err(KeyError::Secret);
        }
        let rest = text.strip_prefix(PUBLIC).and_then(|rest| rest.strip_prefix('+')).ok_or(KeyError::Form)?;
        let (hash, key) = rest.split_once('+').ok_or(KeyError::Form)?;
        let key = STANDARD.decode(key).ok().and_then(|key| key.try_into().ok()).ok_or(KeyError::Form)?;
        let key = Self(key);
        match hex::encode(key.hash()) == hash {
            true => Ok(key),
            false => Err(KeyError::Hash),
        }
    }
}

impl fmt::Debug for BackupSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupSecret").field("public", &self.public).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let secret = BackupSecret::generate().unwrap();
        let public = secret.public().to_string();
        assert_eq!(public.parse(), Ok(secret.public().clone()));
        let again = BackupSecret::parse(&secret.to_text()).unwrap();
        assert_eq!(again.public(), secret.public());
        assert_eq!(again.secret.secret_bytes(), secret.secret.secret_bytes());
        let shown = hex::encode(secret.secret.secret_bytes());
        assert!(!format!("{secret:?}").contains(&shown[..8]));
    }

    #[test]
    fn a_key_that_is_none_is_refused_and_a_private_one_is_not_taken_for_a_public_one() {
        let secret = BackupSecret::generate().unwrap();
        let public = secret.public().to_string();
        let parse = |text: &str| text.parse::<BackupKey>().unwrap_err();
        assert_eq!(parse(&secret.to_text()), KeyError::Secret);
        assert_eq!(parse(""), KeyError::Form);
        assert_eq!(parse(&public[..public.len() - 4]), KeyError::Form);
        let hash = &public[PUBLIC.len() + 1..PUBLIC.len() + 9];
        assert_eq!(parse(&public.replacen(hash, "00000000", 1)), KeyError::Hash);
        for wrong in ["", "signet-backup-secret-v1+", &public, &secret.to_text()[..60]] {
            assert_eq!(BackupSecret::parse(wrong).unwrap_err(), KeyError::NotSecret, "{wrong}");
        }
    }
}
