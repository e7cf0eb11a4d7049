//! A key that signs JSON Web Tokens, and nothing else.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use super::key_parameters;

/// Of a signature (RFC 7518 §3.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub(crate) enum Algorithm {
    #[serde(rename = "ES256")]
    Es256,
    /// For those who verify nothing else.
    #[serde(rename = "RS256")]
    Rs256,
}

/// Its `Debug` shows no secret.
#[derive(Clone)]
pub(crate) struct JwtKey {
    kid: String,
    /// Public, as a JSON Web Key.
    public: Value,
    pair: Arc<Pair>,
}

enum Pair {
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
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
    /// A new one, and how it is kept (PKCS#8).
    pub(super) fn generate(algorithm: Algorithm) -> Result<(Self, Zeroizing<Vec<u8>>), Unspecified> {
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
        Ok((Self::from_pkcs8(algorithm, &pkcs8)?, pkcs8))
    }

    pub(super) fn from_pkcs8(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, Unspecified> {
        let (pair, spki): (_, PublicKeyX509Der<'_>) = match algorithm {
            Algorithm::Es256 => {
                let pair =
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map_err(|_| Unspecified)?;
                let spki = pair.public_key().as_der()?;
                (Pair::Es256(pair), spki)
            }
            Algorithm::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| Unspecified)?;
                let spki = pair.public_key().as_der()?;
                (Pair::Rs256(pair), spki)
            }
        };
        let (_, parsed) = SubjectPublicKeyInfo::from_der(spki.as_ref()).map_err(|_| Unspecified)?;
        let mut public = key_parameters(&parsed).ok_or(Unspecified)?;
        let kid = hex::encode(&digest(&SHA256, spki.as_ref()).as_ref()[..16]);
        public["kid"] = json!(kid);
        Ok(Self { kid, public, pair: Arc::new(pair) })
    }

    /// 16 bytes of the SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    pub(super) fn public(&self) -> &Value {
        &self.public
    }

    /// The token of these claims, in the compact serialization (RFC 7515 §7.1).
    pub(super) fn sign(&self, kind: &str, claims: &Value) -> Result<Zeroizing<String>, Unspecified> {
        let algorithm = match &*self.pair {
            Pair::Es256(_) => Algorithm::Es256,
            Pair::Rs256(_) => Algorithm::Rs256,
        };
        let header = json!({"alg": algorithm.as_str(), "kid": self.kid, "typ": kind});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let random = SystemRandom::new();
        let signature = match &*self.pair {
            Pair::Es256(pair) => pair.sign(&random, signed.as_bytes())?.as_ref().to_vec(),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature)?;
                signature
            }
        };
        Ok(Zeroizing::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtKey").field(&self.kid).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{DecodingKey, Validation, decode};

    use super::*;

    #[test]
    fn a_token_is_verified_by_the_public_key_and_by_no_other() {
        for (algorithm, name) in
            [(Algorithm::Es256, jsonwebtoken::Algorithm::ES256), (Algorithm::Rs256, jsonwebtoken::Algorithm::RS256)]
        {
            let (key, pkcs8) = JwtKey::generate(algorithm).unwrap();
            let (other, _) = JwtKey::generate(algorithm).unwrap();
            let opened = JwtKey::from_pkcs8(algorithm, &pkcs8).unwrap();
            assert_eq!((opened.kid(), opened.public()), (key.kid(), key.public()));
            let token = opened.sign("JWT", &json!({"sub": "a"})).unwrap();
            let verify = |key: &JwtKey| {
                let jwk: Jwk = serde_json::from_value(key.public().clone()).unwrap();
                let mut validation = Validation::new(name);
                validation.required_spec_claims.clear();
                validation.validate_exp = false;
                decode::<Value>(&*token, &DecodingKey::from_jwk(&jwk).unwrap(), &validation)
            };
            let read = verify(&key).unwrap();
            assert_eq!((read.claims, read.header.kid.as_deref()), (json!({"sub": "a"}), Some(key.kid())));
            verify(&other).unwrap_err();
            assert_eq!(format!("{key:?}"), format!("JwtKey({:?})", key.kid()));
        }
    }
}
