//! The types of key that certificates are made for, and the one form that a key of each type has.

use std::fmt;
use std::str::FromStr;

use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm as Algorithm,
};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum KeyType {
    P256,
    P384,
    Ed25519,
    Rsa2048,
    Rsa3072,
    Rsa4096,
}

impl KeyType {
    pub(crate) const ALL: [Self; 6] =
        [Self::P256, Self::P384, Self::Ed25519, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];
    /// What workloads use, and authorities.
    pub(crate) const ELLIPTIC: [Self; 2] = [Self::P256, Self::P384];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Ed25519 => "ed25519",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
        }
    }

    pub(crate) fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096)
    }

    pub(crate) fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::P256 => &PKCS_ECDSA_P256_SHA256,
            Self::P384 => &PKCS_ECDSA_P384_SHA384,
            Self::Ed25519 => &PKCS_ED25519,
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => &PKCS_RSA_SHA256,
        }
    }

    /// None for keys of other types, and for those that are written in another form than the one: so one key has one hash.
    pub(crate) fn of(spki: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let (algorithm, key) = (&spki.algorithm.algorithm, &spki.subject_public_key);
        if key.unused_bits != 0 {
            return None;
        }
        if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let curve = spki.algorithm.parameters.as_ref()?.as_oid().ok()?;
            // Uncompressed only (RFC 5480 §2.2).
            return match (key.data.len(), key.data.first()?) {
                (65, 4) if curve == OID_EC_P256 => Some(Self::P256),
                (97, 4) if curve == OID_NIST_EC_P384 => Some(Self::P384),
                _ => None,
            };
        }
        if *algorithm == OID_SIG_ED25519 {
            return (key.data.len() == 32).then_some(Self::Ed25519);
        }
        if *algorithm == OID_PKCS1_RSAENCRYPTION { Self::of_rsa(&key.data) } else { None }
    }

    fn of_rsa(der: &[u8]) -> Option<Self> {
        let (_, key) = RSAPublicKey::from_der(der).ok()?;
        // An odd number of exactly so many bits: its first octet is 0, its second has the top bit.
        let [0, modulus @ ..] = key.modulus else { return None };
        if modulus.first()? & 0x80 == 0 || modulus.last()? & 1 == 0 {
            return None;
        }
        // In this form alone, and with this exponent.
        let written = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_bigint_bytes(modulus, true);
                writer.next().write_u64(RSA_EXPONENT);
            });
        });
        match modulus.len() * 8 {
            _ if written != der => None,
            2048 => Some(Self::Rsa2048),
            3072 => Some(Self::Rsa3072),
            4096 => Some(Self::Rsa4096),
            _ => None,
        }
    }
}

/// A larger one would cost whoever verifies as much as its owner likes.
const RSA_EXPONENT: u64 = 65_537;

/// As errors and the documentation list them.
pub(crate) fn listed(types: &[KeyType]) -> String {
    types.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || format!("no type of key\nthere are {}", listed(&Self::ALL));
        Self::ALL.into_iter().find(|key| key.as_str() == text).ok_or_else(known)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{KeyPair, PublicKeyData, RsaKeySize};

    use super::*;

    fn of(der: &[u8]) -> Option<KeyType> {
        KeyType::of(&SubjectPublicKeyInfo::from_der(der).unwrap().1)
    }

    #[test]
    fn each_type_is_told_from_the_others() {
        for key in [KeyType::P256, KeyType::P384, KeyType::Ed25519] {
            let made = KeyPair::generate_for(key.algorithm()).unwrap();
            assert_eq!(of(&made.subject_public_key_info()), Some(key));
        }
        for (key, size) in [
            (KeyType::Rsa2048, RsaKeySize::_2048),
            (KeyType::Rsa3072, RsaKeySize::_3072),
            (KeyType::Rsa4096, RsaKeySize::_4096),
        ] {
            let made = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size).unwrap();
            assert_eq!(of(&made.subject_public_key_info()), Some(key));
        }
        let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        assert_eq!(of(&p521.subject_public_key_info()), None);
    }

    #[test]
    fn an_rsa_key_has_one_form_one_exponent_and_one_of_three_sizes() {
        let key = |bits: usize, exponent: u64, last: u8| {
            let mut modulus = vec![0xa5; bits / 8];
            *modulus.last_mut().unwrap() = last;
            yasna::construct_der(|writer| {
                writer.write_sequence(|writer| {
                    writer.next().write_bigint_bytes(&modulus, true);
                    writer.next().write_u64(exponent);
                });
            })
        };
        let good = key(2048, 65_537, 1);
        assert_eq!(KeyType::of_rsa(&good), Some(KeyType::Rsa2048));
        for wrong in [key(1024, 65_537, 1), key(2056, 65_537, 1), key(8192, 65_537, 1), key(2048, 3, 1)] {
            assert_eq!(KeyType::of_rsa(&wrong), None);
        }
        assert_eq!(KeyType::of_rsa(&key(2048, 1 << 40 | 1, 1)), None);
        assert_eq!(KeyType::of_rsa(&key(2048, 65_537, 2)), None, "an even modulus");
        // The same numbers, and something behind them.
        assert_eq!(KeyType::of_rsa(&[&good[..], &[0]].concat()), None);
        let mut padded = good.clone();
        // The modulus with one more zero in front.
        padded[7] = padded[7].wrapping_add(1);
        padded.insert(8, 0);
        padded[3] = padded[3].wrapping_add(1);
        assert_eq!(KeyType::of_rsa(&padded), None);
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_are_no_rsa_key(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
            proptest::prop_assert_eq!(KeyType::of_rsa(&bytes), None);
        }
    }
}
