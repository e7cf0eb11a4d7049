//! A key that signs JSON Web Tokens of ours, and nothing else.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::kind::jws_header;
use super::{KeyName, Kind, Pace, SignError, Signs};

/// Of a signature (RFC 7518 §3.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub(crate) enum Algorithm {
    #[serde(rename = "ES256")]
    Es256,
    /// For those who verify nothing else.
    #[serde(rename = "RS256")]
    Rs256,
}

/// A private key for tokens, wherever it rests. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub(crate) struct JwtKey {
    algorithm: Algorithm,
    /// SubjectPublicKeyInfo, DER.
    spki: Vec<u8>,
    name: KeyName,
    signs: Arc<dyn Signs>,
}

impl Algorithm {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

impl JwtKey {
    /// `signs`: as a JSON Web Signature has it (RFC 7518 §3.3, §3.4).
    pub(super) fn new(algorithm: Algorithm, spki: Vec<u8>, signs: impl Signs + 'static) -> Self {
        Self { algorithm, name: KeyName::of(&spki), spki, signs: Arc::new(signs) }
    }

    /// Also the `kid` of what it signs.
    pub(crate) fn name(&self) -> &KeyName {
        &self.name
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(crate) fn pace(&self) -> Pace {
        self.signs.pace()
    }

    /// The signature of a signing input (RFC 7515 §5.1) whose header names this key and its algorithm. There is no other way to have
    /// something signed.
    pub(crate) fn sign(&self, input: &[u8]) -> Result<Vec<u8>, SignError> {
        let header = jws_header(input);
        match header.is_some_and(|header| header.is_of(&self.name, self.algorithm)) {
            true => self.signs.sign(input),
            false => Err(SignError::NotOfKind { wanted: Kind::Jwt.as_str() }),
        }
    }
}

/// One in memory.
pub(super) enum JwtPair {
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
}

impl JwtPair {
    /// A new one, and how it is kept (PKCS#8).
    pub(super) fn generate(algorithm: Algorithm) -> Result<(JwtKey, Zeroizing<Vec<u8>>), Unspecified> {
        let pkcs8 = match algorithm {
            Algorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
                Zeroizing::new(pair.to_pkcs8v1()?.as_ref().to_vec())
            }
            Algorithm::Rs256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
                let der: Pkcs8V1Der<'_> = pair.as_der()?;
                Zeroizing::new(der.as_ref().to_vec())
            }
        };
        Ok((Self::open(algorithm, &pkcs8)?, pkcs8))
    }

    pub(super) fn open(algorithm: Algorithm, pkcs8: &[u8]) -> Result<JwtKey, Unspecified> {
        let (pair, spki): (_, PublicKeyX509Der<'_>) = match algorithm {
            Algorithm::Es256 => {
                let pair =
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map_err(|_| Unspecified)?;
                let spki = pair.public_key().as_der()?;
                (Self::Es256(pair), spki)
            }
            Algorithm::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| Unspecified)?;
                let spki = pair.public_key().as_der()?;
                (Self::Rs256(pair), spki)
            }
        };
        Ok(JwtKey::new(algorithm, spki.as_ref().to_vec(), pair))
    }
}

impl Signs for JwtPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        match self {
            Self::Es256(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| SignError::Cryptography)?;
                Ok(signature.as_ref().to_vec())
            }
            Self::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(|_| SignError::Cryptography)?;
                Ok(signature)
            }
        }
    }

    fn pace(&self) -> Pace {
        Pace::Quick
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtKey").field(&self.name).finish()
    }
}
