//! A key that signs checkpoints of an audit log and statements about it, and nothing else.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use super::{KeyName, Kind, Pace, SignError, Signs};

/// The private key of an audit log, wherever it rests. Ed25519. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub(crate) struct LogKey {
    public_key: [u8; 32],
    name: KeyName,
    signs: Arc<dyn Signs>,
}

/// What stands before the public key in a SubjectPublicKeyInfo (RFC 8410 §4), DER.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl LogKey {
    /// `signs`: 64 bytes, of the message itself (RFC 8032 §5.1.6).
    pub(super) fn new(public_key: [u8; 32], signs: impl Signs + 'static) -> Self {
        let name = KeyName::of(&[&SPKI[..], &public_key].concat());
        Self { public_key, name, signs: Arc::new(signs) }
    }

    pub(crate) fn name(&self) -> &KeyName {
        &self.name
    }

    /// RFC 8032 §5.1.5.
    pub(crate) fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// Of a message that is the text of a checkpoint (C2SP tlog-checkpoint) without lines of extensions, or what is signed with a time over
    /// one (C2SP tlog-cosignature, “Ed25519 signed message”), or of a statement about the log. There is no other way to have something signed.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        match matches!(Kind::of(message), Some(Kind::Checkpoint | Kind::LogStatement)) {
            true => self.signs.sign(message)?.try_into().map_err(|_| SignError::Cryptography),
            false => Err(SignError::NotOfKind { wanted: Kind::Checkpoint.as_str() }),
        }
    }
}

/// One in memory.
pub(super) struct LogPair(Ed25519KeyPair);

impl LogPair {
    /// A new one, and how it is kept (PKCS#8).
    pub(super) fn generate() -> Result<(LogKey, Zeroizing<Vec<u8>>), Unspecified> {
        let pkcs8 = Zeroizing::new(Ed25519KeyPair::generate()?.to_pkcs8v1()?.as_ref().to_vec());
        Ok((Self::open(&pkcs8)?, pkcs8))
    }

    pub(super) fn open(pkcs8: &[u8]) -> Result<LogKey, Unspecified> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| Unspecified)?;
        let public_key = pair.public_key().as_ref().try_into().map_err(|_| Unspecified)?;
        Ok(LogKey::new(public_key, Self(pair)))
    }
}

impl Signs for LogPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.0.try_sign(message).map_err(|_| SignError::Cryptography)?;
        Ok(signature.as_ref().to_vec())
    }

    fn pace(&self) -> Pace {
        Pace::Quick
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogKey").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn what_a_logs_key_signs_verifies_by_its_public_key_and_it_is_named_by_its_spki() {
        let (key, pkcs8) = LogPair::generate().unwrap();
        let text = b"o\n0\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
        let signature = key.sign(text).unwrap();
        let public = UnparsedPublicKey::new(&ED25519, key.public_key());
        public.verify(text, &signature).unwrap();
        assert!(public.verify(b"another", &signature).is_err());
        assert_eq!(LogPair::open(&pkcs8).unwrap().sign(text).unwrap(), signature);

        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).unwrap();
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        assert_eq!(*key.name(), KeyName::of(spki.as_ref()));
    }

    /// RFC 8032 §7.1, tests 1 and 2: the seed, and the public key.
    #[test]
    fn a_key_is_what_rfc_8032_makes_of_its_seed() {
        for (seed, public_key) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            ),
        ] {
            // RFC 8410 §7.
            let pkcs8 = [&hex::decode("302e020100300506032b657004220420").unwrap()[..], &hex::decode(seed).unwrap()];
            let key = LogPair::open(&pkcs8.concat()).unwrap();
            assert_eq!(hex::encode(key.public_key()), public_key);
        }
    }
}
