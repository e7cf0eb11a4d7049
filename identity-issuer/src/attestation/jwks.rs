//! The keys that an issuer of tokens publishes: a JSON Web Key Set (RFC 7517), in a file or at a URL that the operator named.
//!
//! A set that cannot be had or read never replaces the one that is there, which is believed for a day longer. One without a key that
//! is of use does: so an issuer of tokens takes all of its keys back.

mod fetch;
mod follow;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Notify;

pub(crate) use fetch::Remote;
pub(crate) use follow::Follower;

use super::jwt::TokenError;

/// A set as it is now. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Jwks(Arc<Shared>);

struct Shared {
    current: ArcSwapOption<KeySet>,
    /// Somebody came with a key that is not in the set.
    look: Notify,
}

/// Keys that verify signatures.
#[derive(Debug)]
pub(crate) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Where a set is published.
#[derive(Clone, Debug)]
pub(crate) enum Published {
    File(PathBuf),
    Url(Remote),
}

/// Why a set is not taken.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    #[error("{} cannot be read", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{} is no regular file", path.display())]
    NoFile { path: PathBuf },
    #[error("it is larger than {} KiB", MAX_SET / 1024)]
    TooLarge,
    #[error("it is not a JSON Web Key Set")]
    Malformed(#[source] serde_json::Error),
    #[error("it holds more than {MAX_KEYS} keys")]
    TooMany,
    #[error(
        "it holds no key that verifies signatures: RSA of 2,048 to 4,096 bits, P-256, P-384 and Ed25519 are accepted"
    )]
    NoKey,
    #[error("reading it broke off")]
    BrokenOff,
    #[error("{url} cannot be fetched: {cause}")]
    Fetch { url: String, cause: String },
}

impl Jwks {
    pub(crate) fn none_yet() -> Self {
        Self(Arc::new(Shared { current: ArcSwapOption::empty(), look: Notify::new() }))
    }

    #[cfg(test)]
    pub(super) fn fixed(set: KeySet) -> Self {
        let keys = Self::none_yet();
        keys.replace(set);
        keys
    }

    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.0.current.load_full()
    }

    pub(crate) fn replace(&self, set: KeySet) {
        self.0.current.store(Some(Arc::new(set)));
    }

    fn forget(&self) {
        self.0.current.store(None);
    }

    /// The issuer may have published another key by now.
    pub(super) fn look_again(&self) {
        self.0.look.notify_one();
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Jwks").field(&self.current()).finish()
    }
}

impl KeySet {
    /// Keys of other kinds, and for other uses, are passed over (RFC 7517 §5); perhaps all.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, JwksError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        if json.len() > MAX_SET {
            return Err(JwksError::TooLarge);
        }
        let Set { keys } = serde_json::from_slice(json).map_err(JwksError::Malformed)?;
        if keys.len() > MAX_KEYS {
            return Err(JwksError::TooMany);
        }
        Ok(Self(keys.into_iter().filter_map(Key::of_json).collect()))
    }

    pub(crate) fn read(path: &Path) -> Result<Self, JwksError> {
        use std::io::Read as _;
        let unreadable = |source| JwksError::File { path: path.to_owned(), source };
        // Opening a pipe would wait for whoever writes to it.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(JwksError::NoFile { path: path.to_owned() });
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_SET as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        Self::parse(&bytes)
    }

    /// The same of a file that should have a key.
    pub(crate) fn read_some(path: &Path) -> Result<Self, JwksError> {
        let set = Self::read(path)?;
        if set.0.is_empty() { Err(JwksError::NoKey) } else { Ok(set) }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The one key that a token can be signed with: the one it names, or the only one for its algorithm.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&DecodingKey, TokenError> {
        let fits = |key: &&Key| key.algorithms.contains(&algorithm);
        let Some(id) = id else {
            let mut fitting = self.0.iter().filter(fits);
            return match (fitting.next(), fitting.next()) {
                (Some(only), None) => Ok(&only.key),
                (None, _) => Err(TokenError::Algorithm(algorithm)),
                (Some(_), Some(_)) => Err(TokenError::NoKeyId),
            };
        };
        let mut named = self.0.iter().filter(|key| key.id.as_deref() == Some(id)).peekable();
        if named.peek().is_none() {
            return Err(TokenError::UnknownKey { kid: id.to_owned() });
        }
        named.find(fits).map(|key| &key.key).ok_or(TokenError::Algorithm(algorithm))
    }
}

impl Key {
    fn of_json(json: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(json).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let fitting = algorithms(&jwk.algorithm)?;
        let algorithms = match jwk.common.key_algorithm {
            None => fitting.to_vec(),
            Some(only) => fitting.iter().copied().filter(|algorithm| KeyAlgorithm::from(*algorithm) == only).collect(),
        };
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (!algorithms.is_empty()).then_some(Self { id: jwk.common.key_id, algorithms, key })
    }
}

/// What a key of this type and size may verify. None of a key that is too small to believe, or large enough to be costly.
fn algorithms(parameters: &AlgorithmParameters) -> Option<&'static [Algorithm]> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    /// Unpadded base64 of so many bytes.
    const fn encoded(bytes: usize) -> usize {
        (bytes * 4).div_ceil(3)
    }
    match parameters {
        AlgorithmParameters::RSA(rsa) => {
            let fits = (encoded(256)..=encoded(512)).contains(&rsa.n.len()) && rsa.e.len() <= encoded(4);
            fits.then_some(&[RS256, RS384, RS512, PS256, PS384, PS512])
        }
        AlgorithmParameters::EllipticCurve(key) => {
            let (length, algorithms): (_, &[Algorithm]) = match key.curve {
                EllipticCurve::P256 => (encoded(32), &[ES256]),
                EllipticCurve::P384 => (encoded(48), &[ES384]),
                _ => return None,
            };
            (key.x.len() == length && key.y.len() == length).then_some(algorithms)
        }
        AlgorithmParameters::OctetKeyPair(key) => {
            (key.curve == EllipticCurve::Ed25519 && key.x.len() == encoded(32)).then_some(&[EdDSA])
        }
        // A secret that is published is none.
        _ => None,
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.id, self.algorithms)
    }
}

const MAX_SET: usize = 256 << 10;
const MAX_KEYS: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::jwt::tests::Signer;
    use super::*;

    fn parse(keys: &Value) -> Result<KeySet, JwksError> {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes())
    }

    #[test]
    fn keys_that_verify_no_signature_are_passed_over() {
        let good = Signer::new().jwk();
        let with = |name: &str, value: Value| {
            let mut key = good.clone();
            key[name] = value;
            key
        };
        for useless in [
            with("use", json!("enc")),
            with("alg", json!("ES384")),
            with("alg", json!("HS256")),
            with("alg", json!("ECDH-ES")),
            with("kty", json!("FUTURE")),
            with("crv", json!("P-521")),
            with("crv", json!("P-384")),
            with("x", json!("AAAA")),
            json!({"kty": "oct", "k": "c2VjcmV0", "kid": "one"}),
            json!({"kty": "RSA", "n": "A".repeat(171), "e": "AQAB"}),
            json!({"kty": "RSA", "n": "A".repeat(1366), "e": "AQAB"}),
            json!({"kty": "RSA", "n": "A".repeat(342), "e": "A".repeat(342)}),
            json!(7),
        ] {
            assert_eq!(parse(&json!([useless.clone()])).unwrap().len(), 0, "{useless}");
            assert_eq!(parse(&json!([useless, good.clone()])).unwrap().len(), 1);
        }
        assert_eq!(parse(&json!([with("alg", json!("ES256"))])).unwrap().len(), 1);
        assert_eq!(parse(&json!([{"kty": "RSA", "n": "A".repeat(342), "e": "AQAB"}])).unwrap().len(), 1);
    }

    #[test]
    fn a_set_is_bounded() {
        let good = Signer::new().jwk();
        assert!(matches!(parse(&json!(vec![good.clone(); MAX_KEYS + 1])), Err(JwksError::TooMany)));
        assert_eq!(parse(&json!(vec![good; MAX_KEYS])).unwrap().len(), MAX_KEYS);
        assert!(matches!(KeySet::parse(&vec![b' '; MAX_SET + 1]), Err(JwksError::TooLarge)));
        for wrong in ["", "{}", "[]", "{\"keys\": {}}", "{\"keys\": []} x"] {
            assert!(matches!(KeySet::parse(wrong.as_bytes()), Err(JwksError::Malformed(_))), "{wrong}");
        }
    }

    #[test]
    fn a_token_names_its_key_unless_there_is_only_one() {
        let named = |id: Value| {
            let mut key = Signer::new().jwk();
            key["kid"] = id;
            key
        };
        let set = parse(&json!([named(json!("a")), named(json!("b")), named(json!(null))])).unwrap();
        set.find(Some("a"), Algorithm::ES256).unwrap();
        assert!(matches!(set.find(Some("c"), Algorithm::ES256), Err(TokenError::UnknownKey { .. })));
        assert!(matches!(set.find(Some("a"), Algorithm::ES384), Err(TokenError::Algorithm(_))));
        assert!(matches!(set.find(None, Algorithm::ES256), Err(TokenError::NoKeyId)));
        assert!(matches!(set.find(None, Algorithm::RS256), Err(TokenError::Algorithm(_))));
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = KeySet::parse(&bytes);
        }
    }
}
