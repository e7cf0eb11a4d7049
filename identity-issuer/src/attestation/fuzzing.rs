//! What foreign bytes may be to an issuer, for `fuzz/targets/attestation.rs`.
//!
//! Absent from every other build.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use serde_json::{Map, Value};
use signet_identity::SystemClock;

use super::jwks::{Jwks, KeySet};
use super::jwt::{Claims, TokenVerifier};
use super::oidc::Provider;
use super::{k8s_sa_token, x509_pop};
use crate::csr::ProvenKey;
use crate::key_type::KeyType;

/// The key of RFC 7515 A.3, whose private half signs nothing here.
const KEYS: &[u8] = br#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

/// Reads `bytes` as a document that a caller, or a publisher of keys, may send; the first of them says as which.
pub fn attestation(bytes: &[u8]) {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    match kind % 5 {
        0 => drop(KeySet::parse(bytes)),
        1 => drop(ProvenKey::from_csr(bytes, &KeyType::ALL)),
        2 => x509_pop::read(&[bytes.to_vec()]),
        3 => assert!(verifier().verify(&String::from_utf8_lossy(bytes)).is_err(), "a forged token is believed"),
        _ => claims(bytes),
    }
}

/// As if they had been signed.
fn claims(bytes: &[u8]) {
    let Ok(all) = serde_json::from_slice::<Map<String, Value>>(bytes) else { return };
    if let Some(binding) = all.get("kubernetes.io") {
        let subject = all.get("sub").and_then(Value::as_str).unwrap_or_default();
        let _ = k8s_sa_token::attributes_of("cluster", binding.clone(), subject);
    }
    let provider = Provider { name: "provider".to_owned(), verifier: verifier(), claims: Vec::new(), once: true };
    let claims =
        Claims { subject: "subject".to_owned(), expires_at: time::OffsetDateTime::UNIX_EPOCH, all: all.clone() };
    let _ = provider.attributes_of(claims);
    let _ = verifier().judge(all);
}

fn verifier() -> TokenVerifier {
    let keys = Jwks::none_yet();
    keys.replace(KeySet::parse(KEYS).unwrap());
    TokenVerifier { issuer: "issuer".to_owned(), audience: "audience".to_owned(), keys, clock: Arc::new(SystemClock) }
}
