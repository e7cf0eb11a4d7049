//! What is asked of an issuer: a certificate for a key that was just made.

use aws_lc_rs::{
    error::Unspecified,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use rcgen::{
    CertificateParams, DistinguishedName, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A new P-256 key, to be certified once. Dropped, its memory is overwritten.
pub(super) struct NewKey(EcdsaKeyPair);

/// The key could not be made or used. It happens when the machine has no randomness.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error("a key could not be made")]
    Generate(#[from] Unspecified),
    #[error("a signing request could not be made")]
    Request(#[from] rcgen::Error),
}

impl NewKey {
    pub(super) fn generate() -> Result<Self, KeyError> {
        Ok(Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?))
    }

    /// A PKCS#10 request (DER) that says nothing but the public key: who this is, the issuer knows from elsewhere.
    pub(super) fn request(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(self)?.der().to_vec())
    }

    /// The private key, PKCS#8.
    pub(super) fn into_private_key(self) -> Result<PrivateKeyDer<'static>, KeyError> {
        let document = self.0.to_pkcs8v1()?;
        Ok(PrivatePkcs8KeyDer::from(document.as_ref().to_vec()).into())
    }
}

impl PublicKeyData for NewKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for NewKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

    use super::*;

    #[test]
    fn a_request_holds_the_public_key_and_proves_possession() {
        let key = NewKey::generate().unwrap();
        let request = key.request().unwrap();
        let (_, parsed) = X509CertificationRequest::from_der(&request).unwrap();
        parsed.verify_signature().unwrap();
        let info = parsed.certification_request_info;
        assert_eq!(&*info.subject_pki.subject_public_key.data, key.der_bytes());
        assert_eq!(info.subject.iter().count(), 0);
    }

    #[test]
    fn each_key_is_another() {
        let [one, two] = [NewKey::generate().unwrap(), NewKey::generate().unwrap()];
        assert_ne!(one.der_bytes(), two.der_bytes());
    }
}
