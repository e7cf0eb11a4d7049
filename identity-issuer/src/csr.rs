//! What is taken from a certificate signing request (PKCS#10, RFC 2986): its public key, once its signature has proved
//! that the requester holds the private one. Names, extensions and attributes in it are never looked at.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData, SignatureAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A public key whose private half the requester has proved to hold.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct ProvenKey {
    point: Vec<u8>,
    curve: Curve,
}

/// SHA-256 of a key's SubjectPublicKeyInfo in its one DER form, whatever form the request had.
#[derive(Copy, Clone, Eq, PartialEq, Hash)]
pub(crate) struct KeyHash([u8; 32]);

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Curve {
    P256,
    P384,
}

#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum CsrError {
    #[error("is empty")]
    Empty,
    #[error("is {bytes} bytes long, and may be {} at most", ProvenKey::MAX_CSR_BYTES)]
    TooLarge { bytes: usize },
    #[error("is not a PKCS#10 request in DER")]
    Malformed,
    #[error("is for another type of key: P-256 and P-384 are accepted")]
    KeyType,
    #[error("is not signed by the key it is for")]
    Signature,
}

impl ProvenKey {
    pub(crate) const MAX_CSR_BYTES: usize = 4096;

    pub(crate) fn from_csr(der: &[u8]) -> Result<Self, CsrError> {
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
        let key = Self::from_spki(&request.certification_request_info.subject_pki)?;
        request.verify_signature().map_err(|_| CsrError::Signature)?;
        Ok(key)
    }

    fn from_spki(spki: &SubjectPublicKeyInfo<'_>) -> Result<Self, CsrError> {
        if spki.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return Err(CsrError::KeyType);
        }
        let parameters = spki.algorithm.parameters.as_ref().ok_or(CsrError::KeyType)?;
        let named = parameters.as_oid().map_err(|_| CsrError::KeyType)?;
        let (curve, length) = if named == OID_EC_P256 {
            (Curve::P256, 65)
        } else if named == OID_NIST_EC_P384 {
            (Curve::P384, 97)
        } else {
            return Err(CsrError::KeyType);
        };
        // Uncompressed only (RFC 5480 §2.2), so that one key has one form and one hash.
        let point = &spki.subject_public_key.data;
        if point.len() != length || point[0] != 4 {
            return Err(CsrError::KeyType);
        }
        Ok(Self { point: point.to_vec(), curve })
    }

    pub(crate) fn hash(&self) -> KeyHash {
        KeyHash::of_spki(&self.subject_public_key_info())
    }
}

impl PublicKeyData for ProvenKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.curve {
            Curve::P256 => &PKCS_ECDSA_P256_SHA256,
            Curve::P384 => &PKCS_ECDSA_P384_SHA384,
        }
    }
}

impl fmt::Debug for ProvenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvenKey({:?}, {:?})", self.curve, self.hash())
    }
}

impl KeyHash {
    pub(crate) fn of_spki(der: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(hash)
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

    #[test]
    fn only_the_public_key_is_taken() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
            let key = key(algorithm);
            let proven = ProvenKey::from_csr(&request(&key)).unwrap();
            assert_eq!(proven.subject_public_key_info(), key.subject_public_key_info());
            assert_eq!(proven.hash(), KeyHash::of_spki(&key.subject_public_key_info()));
        }
    }

    #[test]
    fn other_types_of_key_are_refused() {
        for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P521_SHA512, &rcgen::PKCS_RSA_SHA256] {
            assert_eq!(ProvenKey::from_csr(&request(&key(algorithm))), Err(CsrError::KeyType));
        }
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let (mine, other) = (key(&PKCS_ECDSA_P256_SHA256), key(&PKCS_ECDSA_P256_SHA256));
        let mut forged = request(&mine);
        let (theirs, mine) = (other.der_bytes(), mine.der_bytes());
        let at = forged.windows(mine.len()).position(|window| window == mine).unwrap();
        forged[at..at + theirs.len()].copy_from_slice(theirs);
        assert_eq!(ProvenKey::from_csr(&forged), Err(CsrError::Signature));
    }

    #[test]
    fn an_altered_request_never_yields_another_key() {
        let whole = request(&key(&PKCS_ECDSA_P256_SHA256));
        let original = ProvenKey::from_csr(&whole).unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut altered = whole.clone();
                altered[at] ^= 1 << bit;
                let taken = ProvenKey::from_csr(&altered);
                assert!(taken.is_err() || taken == Ok(original.clone()), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        let whole = request(&key(&PKCS_ECDSA_P256_SHA256));
        assert_eq!(ProvenKey::from_csr(&[]), Err(CsrError::Empty));
        assert_eq!(ProvenKey::from_csr(&[0; 4097]), Err(CsrError::TooLarge { bytes: 4097 }));
        assert_eq!(ProvenKey::from_csr(&whole[..whole.len() - 1]), Err(CsrError::Malformed));
        assert_eq!(ProvenKey::from_csr(&[&whole[..], &[0]].concat()), Err(CsrError::Malformed));
        assert_eq!(ProvenKey::from_csr(b"-----BEGIN CERTIFICATE REQUEST-----"), Err(CsrError::Malformed));
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
            let _ = ProvenKey::from_csr(&bytes);
        }
    }
}
