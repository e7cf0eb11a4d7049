//! What is taken from a certificate signing request (PKCS#10, RFC 2986): its public key, once its signature has proved
//! that the requester holds the private one. Names, extensions and attributes in it are never looked at.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{PublicKeyData, SignatureAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::FromDer;

use crate::key_type::{KeyType, listed};

/// A public key whose private half the requester has proved to hold.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct ProvenKey {
    /// The contents of subjectPublicKey.
    bits: Vec<u8>,
    key_type: KeyType,
}

/// SHA-256 of a key's SubjectPublicKeyInfo in its one DER form, whatever form the request had.
#[derive(Copy, Clone, Eq, PartialEq, Hash)]
pub(crate) struct KeyHash([u8; 32]);

#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum CsrError {
    #[error("is empty")]
    Empty,
    #[error("is {bytes} bytes long, and may be {} at most", ProvenKey::MAX_CSR_BYTES)]
    TooLarge { bytes: usize },
    #[error("is not a PKCS#10 request in DER")]
    Malformed,
    #[error("is for another type of key than those accepted: {accepted}")]
    KeyType { accepted: String },
    #[error("is not signed by the key it is for")]
    Signature,
}

impl ProvenKey {
    pub(crate) const MAX_CSR_BYTES: usize = 4096;

    pub(crate) fn from_csr(der: &[u8], accepted: &[KeyType]) -> Result<Self, CsrError> {
        match der.len() {
            0 => return Err(CsrError::Empty),
            1..=Self::MAX_CSR_BYTES => {}
            bytes => return Err(CsrError::TooLarge { bytes }),
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        // A signature is whole octets; bits declared unused would not be looked at.
        if !rest.is_empty() || request.signature_value.unused_bits != 0 {
            return Err(CsrError::Malformed);
        }
        // The key before the signature: no cryptography for keys that are refused anyway.
        let spki = &request.certification_request_info.subject_pki;
        let key_type = KeyType::of(spki).filter(|key_type| accepted.contains(key_type));
        let key_type = key_type.ok_or_else(|| CsrError::KeyType { accepted: listed(accepted) })?;
        if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(&request.signature_algorithm.algorithm) {
            return Err(CsrError::Signature);
        }
        request.verify_signature().map_err(|_| CsrError::Signature)?;
        Ok(Self { bits: spki.subject_public_key.data.to_vec(), key_type })
    }

    pub(crate) fn key_type(&self) -> KeyType {
        self.key_type
    }

    pub(crate) fn hash(&self) -> KeyHash {
        KeyHash::of_spki(&self.subject_public_key_info())
    }
}

impl PublicKeyData for ProvenKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.key_type.algorithm()
    }
}

impl fmt::Debug for ProvenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenKey({}, {:?})", self.key_type, self.hash())
    }
}

impl KeyHash {
    pub(crate) fn of_spki(der: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(hash)
    }

    /// None for what has not 32 bytes.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn request(key: &KeyPair) -> Vec<u8> {
        CertificateParams::new(["attacker.example".to_owned()]).unwrap().serialize_request(key).unwrap().der().to_vec()
    }

    fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
        KeyPair::generate_for(algorithm).unwrap()
    }

    fn taken(der: &[u8]) -> Result<ProvenKey, CsrError> {
        ProvenKey::from_csr(der, &KeyType::ELLIPTIC)
    }

    #[test]
    fn only_the_public_key_is_taken() {
        for key_type in KeyType::ALL {
            let key = match key_type {
                KeyType::Rsa3072 | KeyType::Rsa4096 => continue,
                key_type => key(key_type.algorithm()),
            };
            let proven = ProvenKey::from_csr(&request(&key), &KeyType::ALL).unwrap();
            assert_eq!(proven.key_type(), key_type);
            assert_eq!(proven.subject_public_key_info(), key.subject_public_key_info());
            assert_eq!(proven.hash(), KeyHash::of_spki(&key.subject_public_key_info()));
        }
    }

    #[test]
    fn other_types_of_key_are_refused() {
        for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P521_SHA512, &rcgen::PKCS_RSA_SHA256] {
            let refused = taken(&request(&key(algorithm)));
            assert_eq!(refused, Err(CsrError::KeyType { accepted: "p256, p384".to_owned() }));
        }
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let (mine, other) = (key(KeyType::P256.algorithm()), key(KeyType::P256.algorithm()));
        let mut forged = request(&mine);
        let (theirs, mine) = (other.der_bytes(), mine.der_bytes());
        let at = forged.windows(mine.len()).position(|window| window == mine).unwrap();
        forged[at..at + theirs.len()].copy_from_slice(theirs);
        assert_eq!(taken(&forged), Err(CsrError::Signature));
    }

    #[test]
    fn an_altered_request_never_yields_another_key() {
        let whole = request(&key(KeyType::P256.algorithm()));
        let original = taken(&whole).unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut altered = whole.clone();
                altered[at] ^= 1 << bit;
                let taken = taken(&altered);
                assert!(taken.is_err() || taken == Ok(original.clone()), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        let whole = request(&key(KeyType::P256.algorithm()));
        assert_eq!(taken(&[]), Err(CsrError::Empty));
        assert_eq!(taken(&[0; 4097]), Err(CsrError::TooLarge { bytes: 4097 }));
        assert_eq!(taken(&whole[..whole.len() - 1]), Err(CsrError::Malformed));
        assert_eq!(taken(&[&whole[..], &[0]].concat()), Err(CsrError::Malformed));
        assert_eq!(taken(b"-----BEGIN CERTIFICATE REQUEST-----"), Err(CsrError::Malformed));
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
            let _ = ProvenKey::from_csr(&bytes, &KeyType::ALL);
        }
    }
}
