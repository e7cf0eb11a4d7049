//! A key that cosigns checkpoints of an audit log, beside the log's own, for the time when Ed25519 can be forged. It signs nothing else.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::signature::{KeyPair as _, ML_DSA_44_SIGNING, PqdsaKeyPair};
use signet_audit::ML_DSA_44_KEY;
use zeroize::Zeroizing;

use super::{KeyName, SignError};

/// ML-DSA-44 (FIPS 204), in memory. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub(crate) struct SecondKey {
    public_key: [u8; ML_DSA_44_KEY],
    name: KeyName,
    pair: Arc<PqdsaKeyPair>,
}

/// In bytes, of a signature (FIPS 204 §4).
const SIGNATURE: usize = 2420;
/// How what is signed begins (C2SP tlog-cosignature).
const SUBTREE: &[u8] = b"subtree/v1\n\0";
/// In bytes, of what stands behind the log's name: where the tree begins, where it ends, and its root.
const TREE: usize = 8 + 8 + 32;

impl SecondKey {
    /// A new one, and how it is kept (PKCS#8).
    pub(super) fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), Unspecified> {
        let pkcs8 = PqdsaKeyPair::generate(&ML_DSA_44_SIGNING)?.to_pkcs8v1()?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Ok((Self::open(&pkcs8)?, pkcs8))
    }

    pub(super) fn open(pkcs8: &[u8]) -> Result<Self, Unspecified> {
        let pair = PqdsaKeyPair::from_pkcs8(&ML_DSA_44_SIGNING, pkcs8).map_err(|_| Unspecified)?;
        let public_key = pair.public_key().as_ref().try_into().map_err(|_| Unspecified)?;
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
        Ok(Self { public_key, name: KeyName::of(spki.as_ref()), pair: Arc::new(pair) })
    }

    pub(crate) fn name(&self) -> &KeyName {
        &self.name
    }

    /// As FIPS 204 §7.2 encodes it.
    pub(crate) fn public_key(&self) -> &[u8; ML_DSA_44_KEY] {
        &self.public_key
    }

    /// Of a message that says of a log's whole tree that the log itself has it (C2SP tlog-cosignature, “ML-DSA-44 signed message”). There
    /// is no other way to have something signed.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        if !is_cosigned_by_the_log(message) {
            return Err(SignError::NotOfKind { wanted: "cosigned checkpoint" });
        }
        let mut signature = vec![0; SIGNATURE];
        let signed = self.pair.sign(message, &mut signature).ok().filter(|length| *length == SIGNATURE);
        signed.map(|_| signature).ok_or(SignError::Cryptography)
    }
}

fn is_cosigned_by_the_log(message: &[u8]) -> bool {
    let read = || {
        let (cosigner, rest) = named(message.strip_prefix(SUBTREE)?)?;
        let (_time, rest) = rest.split_first_chunk::<8>()?;
        let (log, tree) = named(rest)?;
        Some(!log.is_empty() && cosigner == log && tree.len() == TREE && tree.starts_with(&[0; 8]))
    };
    read().unwrap_or(false)
}

/// What is behind its length, and what comes after it.
fn named(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

impl fmt::Debug for SecondKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecondKey").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_lc_rs::signature::{ML_DSA_44, UnparsedPublicKey};

    use super::super::Kind;
    use super::*;

    fn message(cosigner: &str, log: &str, start: u64) -> Vec<u8> {
        let length = |name: &str| u8::try_from(name.len()).unwrap();
        let mut message = SUBTREE.to_vec();
        message.push(length(cosigner));
        message.extend([cosigner.as_bytes(), &7_u64.to_be_bytes()].concat());
        message.push(length(log));
        message.extend([log.as_bytes(), &start.to_be_bytes(), &9_u64.to_be_bytes(), &[7; 32]].concat());
        message
    }

    #[test]
    fn what_it_signs_verifies_by_its_public_key_and_is_a_tree_of_its_own_log() {
        let (key, pkcs8) = SecondKey::generate().unwrap();
        let tree = message("o", "o", 0);
        let public = UnparsedPublicKey::new(&ML_DSA_44, key.public_key());
        public.verify(&tree, &key.sign(&tree).unwrap()).unwrap();
        let opened = SecondKey::open(&pkcs8).unwrap();
        assert_eq!((opened.name(), opened.public_key()), (key.name(), key.public_key()));
        public.verify(&tree, &opened.sign(&tree).unwrap()).unwrap();
        assert!(public.verify(&message("o", "o", 1), &key.sign(&tree).unwrap()).is_err());

        let cut = &tree[..tree.len() - 1];
        let longer = [&tree[..], &[0]].concat();
        let others = [message("w", "o", 0), message("o", "o", 1), message("", "", 0), longer, cut.to_vec(), Vec::new()];
        for other in others {
            assert!(matches!(key.sign(&other), Err(SignError::NotOfKind { .. })), "{other:?}");
        }
        // No other key signs it.
        assert_eq!(Kind::of(&tree), None);
    }
}
