//! Public keys as JSON Web Keys (RFC 7517), and the set of them by which one trust domain's JWT-SVIDs are verified.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};
use signet_identity::TrustDomain;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::authority::KeyName;
use crate::distribution::Version;

/// The keys of one trust domain, by their `kid`. Cheap to clone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct JwtAuthorities(Arc<BTreeMap<String, Parameters>>);

/// Of each trust domain; they are never pooled.
pub(crate) type JwtBundles = BTreeMap<TrustDomain, JwtAuthorities>;

/// By which keys tokens are believed, and which are named that are not believed, whoever publishes them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct JwtTrust {
    pub(crate) keys: JwtBundles,
    pub(crate) revoked: RevokedKeys,
}

/// Keys whose tokens are good nowhere, and since when: microseconds, Unix time.
pub(crate) type RevokedKeys = BTreeMap<KeyName, i64>;

/// What makes a key, checked: numbers of the right length.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Parameters {
    Ec { curve: &'static str, x: String, y: String },
    Rsa { n: String, e: String },
}

/// Why keys are no set of JWT authorities.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum JwksError {
    #[error("it is no JSON Web Key Set")]
    Malformed,
    #[error("a JWT key has no `kid`, or one of more than {MAX_KID} bytes")]
    KeyId,
    #[error("two different JWT keys have the same `kid`")]
    SameKeyId,
    #[error("the JWT key `{kid}` is not of EC (P-256, P-384, P-521) or RSA (2,048 to 8,192 bits)")]
    Key { kid: String },
    #[error("it has more than {MAX_KEYS} JWT keys")]
    TooMany,
}

const MAX_KEYS: usize = 32;
const MAX_KID: usize = 128;
/// In bytes: name, and length of a coordinate.
const CURVES: [(&str, usize); 3] = [("P-256", 32), ("P-384", 48), ("P-521", 66)];

/// As it is read.
#[derive(Debug, Deserialize)]
struct Read {
    kty: String,
    kid: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl JwtAuthorities {
    /// From the JSON Web Keys that a set has for it.
    pub(crate) fn read(keys: impl IntoIterator<Item = Value>) -> Result<Self, JwksError> {
        let mut set = BTreeMap::new();
        for key in keys {
            let read: Read = serde_json::from_value(key).map_err(|_| JwksError::Malformed)?;
            let kid = read.kid.clone().filter(|kid| !kid.is_empty() && kid.len() <= MAX_KID);
            let kid = kid.ok_or(JwksError::KeyId)?;
            let shown = || kid.escape_debug().to_string();
            let parameters = read.parameters().ok_or_else(|| JwksError::Key { kid: shown() })?;
            if set.get(&kid).is_some_and(|other| *other != parameters) {
                return Err(JwksError::SameKeyId);
            }
            set.insert(kid, parameters);
            if set.len() > MAX_KEYS {
                return Err(JwksError::TooMany);
            }
        }
        Ok(Self(Arc::new(set)))
    }

    /// From a JSON Web Key Set of such keys alone.
    pub(crate) fn parse(jwks: &Value) -> Result<Self, JwksError> {
        let keys = jwks.get("keys").and_then(Value::as_array).ok_or(JwksError::Malformed)?;
        Self::read(keys.iter().cloned())
    }

    /// What both have. Of two keys with one `kid`, this one's stays: whoever else names a key so cannot have its tokens believed.
    pub(crate) fn united(&self, other: &Self) -> Self {
        if self == other || other.is_empty() {
            return self.clone();
        }
        let more = other.0.iter().filter(|(kid, _)| !self.0.contains_key(*kid)).take(2 * MAX_KEYS - self.0.len());
        let all = self.0.iter().chain(more).map(|(kid, parameters)| (kid.clone(), parameters.clone()));
        Self(Arc::new(all.collect()))
    }

    /// Those of these names left out.
    pub(crate) fn without(&self, revoked: &RevokedKeys) -> Self {
        let is_revoked = |kid: &str| KeyName::parse(kid).is_some_and(|name| revoked.contains_key(&name));
        if !self.0.keys().any(|kid| is_revoked(kid)) {
            return self.clone();
        }
        let left = self.0.iter().filter(|(kid, _)| !is_revoked(kid));
        Self(Arc::new(left.map(|(kid, parameters)| (kid.clone(), parameters.clone())).collect()))
    }

    /// Those that are named as an issuer names keys, with their algorithms.
    pub(crate) fn named(&self) -> impl Iterator<Item = (KeyName, &'static str)> {
        self.0.iter().filter_map(|(kid, parameters)| Some((KeyName::parse(kid)?, parameters.algorithm())))
    }

    /// By which others know that they have the same.
    pub(crate) fn version(&self) -> Version {
        Version::of(self.to_jwks().to_string().as_bytes())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A key set as any program for JSON Web Tokens reads it (SPIFFE Workload API §6.2.2).
    pub(crate) fn to_jwks(&self) -> Value {
        json!({"keys": self.keys(|_, _| {})})
    }

    /// For a SPIFFE bundle.
    pub(crate) fn to_bundle_keys(&self) -> Vec<Value> {
        self.keys(|key, _| key["use"] = json!("jwt-svid"))
    }

    /// For OIDC, where a key names its use and algorithm (RFC 7517 §4.2, §4.4).
    pub(crate) fn to_oidc(&self) -> Value {
        let keys = self.keys(|key, parameters| {
            key["use"] = json!("sig");
            key["alg"] = json!(parameters.algorithm());
        });
        json!({"keys": keys})
    }

    fn keys(&self, add: impl Fn(&mut Value, &Parameters)) -> Vec<Value> {
        let key = |(kid, parameters): (&String, &Parameters)| {
            let mut key = parameters.to_json();
            key["kid"] = json!(kid);
            add(&mut key, parameters);
            key
        };
        self.0.iter().map(key).collect()
    }
}

impl Parameters {
    fn to_json(&self) -> Value {
        match self {
            Self::Ec { curve, x, y } => json!({"kty": "EC", "crv": curve, "x": x, "y": y}),
            Self::Rsa { n, e } => json!({"kty": "RSA", "n": n, "e": e}),
        }
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ec { curve: "P-384", .. } => "ES384",
            Self::Ec { curve: "P-521", .. } => "ES512",
            Self::Ec { .. } => "ES256",
            Self::Rsa { .. } => "RS256",
        }
    }
}

impl Read {
    fn parameters(self) -> Option<Parameters> {
        let number = |text: Option<String>| {
            let bytes = URL_SAFE_NO_PAD.decode(text.as_ref()?).ok()?;
            Some((bytes.len(), text?))
        };
        match self.kty.as_str() {
            "EC" => {
                let wanted = self.crv?;
                let (curve, length) = CURVES.into_iter().find(|(name, _)| *name == wanted)?;
                let ((x_length, x), (y_length, y)) = (number(self.x)?, number(self.y)?);
                (x_length == length && y_length == length).then_some(Parameters::Ec { curve, x, y })
            }
            "RSA" => {
                let ((n_length, n), (e_length, e)) = (number(self.n)?, number(self.e)?);
                ((256..=1024).contains(&n_length) && (1..=8).contains(&e_length)).then_some(Parameters::Rsa { n, e })
            }
            _ => None,
        }
    }
}

/// A public key without a name (RFC 7518 §6). None of one that has no form there.
pub(crate) fn key_parameters(spki: &SubjectPublicKeyInfo<'_>) -> Option<Value> {
    let parameters = match spki.parsed().ok()? {
        PublicKey::EC(point) => {
            let (curve, length) = CURVES.into_iter().find(|(_, length)| point.data().len() == 2 * length + 1)?;
            // Uncompressed: 4, x, y.
            let (x, y) = point.data().strip_prefix(&[4])?.split_at(length);
            Parameters::Ec { curve, x: URL_SAFE_NO_PAD.encode(x), y: URL_SAFE_NO_PAD.encode(y) }
        }
        PublicKey::RSA(rsa) => Parameters::Rsa { n: number(rsa.modulus), e: number(rsa.exponent) },
        _ => return None,
    };
    Some(parameters.to_json())
}

/// Without the zero bytes that DER puts before it (RFC 7518 §2).
fn number(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    URL_SAFE_NO_PAD.encode(bytes.get(zeros..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // RFC 7517, Appendix A.1.
    const X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    const Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";

    fn key(kid: &str) -> Value {
        json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": kid})
    }

    #[test]
    fn what_is_written_is_read_again() {
        let set = JwtAuthorities::read([key("one"), key("two")]).unwrap();
        assert_eq!(JwtAuthorities::parse(&set.to_jwks()).unwrap(), set);
        assert_eq!(JwtAuthorities::read(set.to_bundle_keys()).unwrap(), set);
        assert_eq!(JwtAuthorities::parse(&set.to_oidc()).unwrap(), set);
        assert_eq!(set.to_oidc()["keys"][0]["alg"], "ES256");
        assert_eq!(set.to_bundle_keys()[0]["use"], "jwt-svid");
        assert_eq!(set.to_jwks()["keys"][0].get("use"), None);
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_reason() {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut key = key("one");
            change(&mut key);
            JwtAuthorities::read([key]).unwrap_err()
        };
        let of_key = || JwksError::Key { kid: "one".to_owned() };
        assert_eq!(with(&|key| key["kid"] = json!("")), JwksError::KeyId);
        assert_eq!(with(&|key| drop(key.as_object_mut().unwrap().remove("kid"))), JwksError::KeyId);
        assert_eq!(with(&|key| key["kid"] = json!("k".repeat(129))), JwksError::KeyId);
        assert_eq!(with(&|key| key["x"] = json!(&X[1..])), of_key());
        assert_eq!(with(&|key| key["crv"] = json!("P-384")), of_key());
        assert_eq!(with(&|key| key["kty"] = json!("oct")), of_key());
        assert_eq!(with(&|key| key["kty"] = json!("RSA")), of_key());
        assert_eq!(with(&|key| *key = json!(1)), JwksError::Malformed);
        let mut other = key("one");
        other["x"] = json!(Y);
        assert_eq!(JwtAuthorities::read([key("one"), other]), Err(JwksError::SameKeyId));
        let many = (0..33).map(|number| key(&number.to_string()));
        assert_eq!(JwtAuthorities::read(many), Err(JwksError::TooMany));
        assert_eq!(JwtAuthorities::parse(&json!({})), Err(JwksError::Malformed));
    }

    #[test]
    fn nobody_replaces_a_key_by_another_of_its_name() {
        let mut foreign = key("one");
        (foreign["x"], foreign["y"]) = (json!(Y), json!(X));
        let own = JwtAuthorities::read([key("one")]).unwrap();
        let others = JwtAuthorities::read([foreign, key("two")]).unwrap();
        let united = own.united(&others);
        assert_eq!(united, JwtAuthorities::read([key("one"), key("two")]).unwrap());
    }
}
