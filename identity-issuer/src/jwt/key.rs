//! A key, and the tokens that it signs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use super::key_parameters;
use crate::authority::SignError;
use crate::authority::custody::{JwtKey, Pace};

#[derive(Clone, Debug)]
pub(super) struct TokenKey {
    pub(super) key: JwtKey,
    /// As a JSON Web Key.
    public: Value,
}

impl TokenKey {
    /// None of one that has no form as a JSON Web Key: there is no such.
    pub(super) fn of(key: JwtKey) -> Option<Self> {
        let (_, parsed) = SubjectPublicKeyInfo::from_der(key.spki()).ok()?;
        let mut public = key_parameters(&parsed)?;
        public["kid"] = json!(key.name().as_str());
        Some(Self { key, public })
    }

    pub(super) fn kid(&self) -> &str {
        self.key.name().as_str()
    }

    pub(super) fn public(&self) -> &Value {
        &self.public
    }

    pub(super) fn pace(&self) -> Pace {
        self.key.pace()
    }

    /// The token of these claims, in the compact serialization (RFC 7515 §7.1).
    pub(super) fn sign(&self, kind: &str, claims: &Value) -> Result<Zeroizing<String>, SignError> {
        let header = json!({"alg": self.key.algorithm().as_str(), "kid": self.kid(), "typ": kind});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.key.sign(signed.as_bytes())?;
        Ok(Zeroizing::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{DecodingKey, Validation, decode};

    use super::*;
    use crate::authority::custody::{Algorithm, Custody as _, Memory};

    #[test]
    fn a_token_is_verified_by_the_public_key_and_by_no_other() {
        let custody = Memory::default();
        for (algorithm, name) in
            [(Algorithm::Es256, jsonwebtoken::Algorithm::ES256), (Algorithm::Rs256, jsonwebtoken::Algorithm::RS256)]
        {
            let make = || TokenKey::of(custody.make_for_tokens(algorithm).unwrap()).unwrap();
            let (key, other) = (make(), make());
            for kind in ["JWT", "at+jwt"] {
                let token = key.sign(kind, &json!({"sub": "a"})).unwrap();
                let verify = |key: &TokenKey| {
                    let jwk: Jwk = serde_json::from_value(key.public().clone()).unwrap();
                    let mut validation = Validation::new(name);
                    validation.required_spec_claims.clear();
                    validation.validate_exp = false;
                    decode::<Value>(&*token, &DecodingKey::from_jwk(&jwk).unwrap(), &validation)
                };
                let read = verify(&key).unwrap();
                assert_eq!((read.claims, read.header.kid.as_deref()), (json!({"sub": "a"}), Some(key.kid())));
                verify(&other).unwrap_err();
            }
            assert!(matches!(key.sign("JOSE", &json!({})), Err(SignError::NotOfKind { .. })));
        }
    }
}
