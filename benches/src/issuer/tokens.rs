//! Service-account tokens of a cluster of our own, which the issuer believes.

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// The cluster.
#[derive(Debug)]
pub struct TokenMaker {
    key: EcdsaKeyPair,
}

/// For the issuer's configuration.
pub const CONFIGURATION: &str = "attestation: { k8s_sa_token: [{ cluster: bench, issuer: https://k8s.example, audience: signet, jwks: { file: keys.json } }] }\n";

impl TokenMaker {
    /// Puts its key set into the folder.
    pub fn at(folder: &Path) -> anyhow::Result<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "bench", "x": part(x), "y": part(y)}]});
        std::fs::write(folder.join("keys.json"), keys.to_string())?;
        Ok(Self { key })
    }

    /// Of the pod of a service account; good once.
    pub fn token(&self, namespace: &str, account: &str) -> anyhow::Result<String> {
        let now = time::OffsetDateTime::now_utc();
        let claims = json!({
            "iss": "https://k8s.example", "aud": ["signet"], "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "iat": now.unix_timestamp(), "exp": now.unix_timestamp() + 3600, "jti": now.unix_timestamp_nanos().to_string(),
            "kubernetes.io": {
                "namespace": namespace, "serviceaccount": {"name": account, "uid": "1"},
                "pod": {"name": format!("{account}-0"), "uid": "2"},
            },
        });
        let part = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "ES256", "kid": "bench"})), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
