//! An OpenID Connect provider without a server: a key, the key set that is published for it, and tokens of any content.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use signet_proto::identity::v1::OidcToken;
use signet_proto::identity::v1::attest_request::Proof;
use time::OffsetDateTime;

use crate::files::replace;

/// Signs with ES256 (RFC 7518 §3.4).
#[derive(Debug)]
pub struct TokenMaker {
    key: EcdsaKeyPair,
    kid: &'static str,
}

/// For the issuer's configuration: the provider `ci`, its key set in `keys.json`.
pub const PROVIDER: &str = "attestation:
  oidc:
    - { provider: ci, issuer: 'https://ci.example', audience: signet.example.org, jwks: { file: keys.json } }
";

impl TokenMaker {
    /// With a new key of this name.
    pub fn new(kid: &'static str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self { key, kid }
    }

    /// The provider of [`PROVIDER`]: its key set is in the folder.
    pub fn at(folder: &Path) -> Self {
        let maker = Self::new("one");
        let (x, y) = maker.key.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": maker.kid, "x": x, "y": y}]});
        replace(&folder.join("keys.json"), &keys.to_string());
        maker
    }

    /// A good token of `subject`, another one each time; `claims` replace what would be in it.
    pub fn token(&self, subject: &str, claims: Value) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let mut all = json!({
            "iss": "https://ci.example", "aud": "signet.example.org", "sub": subject, "iat": now, "exp": now + 600,
            "jti": NEXT.fetch_add(1, Ordering::Relaxed).to_string(),
        });
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        all.as_object_mut().expect("an object").extend(claims);
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "ES256", "kid": self.kid})), part(&all));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A token as it is shown to the issuer of [`PROVIDER`].
pub fn proof(token: &str) -> Proof {
    Proof::Oidc(OidcToken { provider: "ci".to_owned(), token: token.to_owned() })
}
