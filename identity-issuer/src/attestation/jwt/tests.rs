#![allow(clippy::unwrap_used)]
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::json;
use signet_identity::ManualClock;

use super::*;
use crate::attestation::jwks::KeySet;

pub(in crate::attestation) const ISSUER: &str = "https://tokens.example";
pub(in crate::attestation) const AUDIENCE: &str = "signet";

/// An issuer of tokens with one P-256 key.
pub(in crate::attestation) struct Signer {
    key: KeyPair,
    kid: String,
    pub(in crate::attestation) clock: ManualClock,
}

impl Signer {
    pub(in crate::attestation) fn new() -> Self {
        let clock = ManualClock::new(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap());
        Self { key: KeyPair::generate().unwrap(), kid: "one".to_owned(), clock }
    }

    pub(in crate::attestation) fn jwk(&self) -> Value {
        let (x, y) = self.key.der_bytes()[1..].split_at(32);
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig", "x": part(x), "y": part(y)})
    }

    pub(in crate::attestation) fn verifier(&self) -> TokenVerifier {
        let keys = json!({"keys": [self.jwk()]}).to_string();
        TokenVerifier {
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            keys: Jwks::fixed(KeySet::parse(keys.as_bytes()).unwrap()),
            clock: self.clock.shared(),
        }
    }

    pub(in crate::attestation) fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.clone());
        self.sign_with(&header, claims)
    }

    /// With any header.
    fn sign_text(&self, header: &Value, claims: &Value) -> String {
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let key = EncodingKey::from_ec_der(&self.key.serialize_der());
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::ES256).unwrap();
        format!("{signed}.{signature}")
    }

    fn sign_with(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &EncodingKey::from_ec_der(&self.key.serialize_der())).unwrap()
    }

    /// Good for a minute.
    pub(in crate::attestation) fn claims(&self, more: Value) -> Value {
        let now = self.clock.shared().now().unix_timestamp();
        let mut claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "me", "iat": now, "exp": now + 60});
        let Value::Object(more) = more else { return claims };
        claims.as_object_mut().unwrap().extend(more);
        claims
    }
}

/// The same token with (r, n − s) for (r, s).
pub(in crate::attestation) fn twin_of(token: &str) -> String {
    /// The order of P-256 (SEC 2, 2.4.2).
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for (s, n) in signature[32..].iter_mut().zip(hex::decode(ORDER).unwrap()).rev() {
        let difference = i16::from(n) - i16::from(*s) - borrow;
        borrow = i16::from(difference < 0);
        *s = difference.rem_euclid(256) as u8;
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn reason(verifier: &TokenVerifier, token: &str) -> &'static str {
    verifier.verify(token).unwrap_err().reason()
}

#[test]
fn a_token_of_the_issuer_for_us_is_believed() {
    let signer = Signer::new();
    let verifier = signer.verifier();
    for audience in [json!(AUDIENCE), json!(["other", AUDIENCE])] {
        let (claims, _) = verifier.verify(&signer.sign(&signer.claims(json!({"aud": audience, "x": 1})))).unwrap();
        assert_eq!((claims.subject.as_str(), &claims.all["x"]), ("me", &json!(1)));
        assert_eq!(claims.expires_at.unix_timestamp(), 1_800_000_060);
    }
}

#[test]
fn a_token_of_somebody_else_or_for_somebody_else_is_refused() {
    let signer = Signer::new();
    let verifier = signer.verifier();
    for (claims, expected) in [
        (json!({"iss": "https://tokens.example/"}), "issuer"),
        // An array that also holds the right one.
        (json!({"iss": [ISSUER]}), "issuer"),
        (json!({"iss": null}), "issuer"),
        (json!({"aud": "signe"}), "audience"),
        (json!({"aud": []}), "audience"),
        (json!({"aud": [["signet"]]}), "audience"),
        (json!({"aud": {"signet": "signet"}}), "audience"),
        (json!({"sub": ""}), "malformed"),
        (json!({"sub": 7}), "malformed"),
    ] {
        let token = signer.sign(&signer.claims(claims.clone()));
        assert_eq!(reason(&verifier, &token), expected, "{claims}");
    }
    for missing in ["iss", "aud", "sub", "exp"] {
        let mut claims = signer.claims(json!({}));
        claims.as_object_mut().unwrap().remove(missing);
        verifier.verify(&signer.sign(&claims)).unwrap_err();
    }
}

#[test]
fn a_token_is_good_from_its_making_to_its_end() {
    let signer = Signer::new();
    let verifier = signer.verifier();
    let now = 1_800_000_000_i64;
    for (claims, expected) in [
        (json!({"exp": now}), "expired"),
        (json!({"exp": now - 1}), "expired"),
        (json!({"exp": "soon"}), "malformed"),
        (json!({"exp": -1}), "expired"),
        (json!({"exp": i64::MAX}), "malformed"),
        (json!({"exp": 1e300}), "malformed"),
        (json!({"nbf": now + 31}), "not_yet_valid"),
        (json!({"iat": now + 31}), "not_yet_valid"),
        (json!({"nbf": []}), "malformed"),
    ] {
        let token = signer.sign(&signer.claims(claims.clone()));
        assert_eq!(reason(&verifier, &token), expected, "{claims}");
    }
    for (claims, told) in [
        (json!({"exp": now - 1}), "it expired at 2027-01-15T07:59:59Z (`exp`)"),
        (json!({"nbf": now + 60}), "it is not valid before 2027-01-15T08:01:00Z (`nbf`)"),
        (json!({"iat": now + 60}), "it is not valid before 2027-01-15T08:01:00Z (`iat`)"),
    ] {
        let refused = verifier.verify(&signer.sign(&signer.claims(claims))).unwrap_err();
        assert_eq!(refused.to_string(), told);
    }
    for claims in [json!({"exp": now + 1}), json!({"exp": now as f64 + 1.5}), json!({"nbf": now + 30})] {
        verifier.verify(&signer.sign(&signer.claims(claims))).unwrap();
    }
}

#[test]
fn only_a_key_of_the_issuer_signs() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let verifier = signer.verifier();
    assert_eq!(reason(&verifier, &stranger.sign(&signer.claims(json!({})))), "signature");
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("two".to_owned());
    assert_eq!(reason(&verifier, &signer.sign_with(&header, &signer.claims(json!({})))), "unknown_key");
    // The only key may go unnamed.
    header.kid = None;
    verifier.verify(&signer.sign_with(&header, &signer.claims(json!({})))).unwrap();
    header.crit = Some(vec!["exp".to_owned()]);
    assert_eq!(reason(&verifier, &signer.sign_with(&header, &signer.claims(json!({})))), "malformed");
}

#[test]
fn no_algorithm_but_that_of_the_key_is_taken() {
    let signer = Signer::new();
    let verifier = signer.verifier();
    for (algorithm, expected) in [
        ("none", "malformed"),
        ("HS256", "unknown_key"),
        ("ES384", "unknown_key"),
        ("RS256", "unknown_key"),
        ("EdDSA", "unknown_key"),
    ] {
        // By the right key: it is the algorithm that is wrong.
        let forged = signer.sign_text(&json!({"alg": algorithm, "kid": "one"}), &signer.claims(json!({})));
        assert_eq!(reason(&verifier, &forged), expected, "{algorithm}");
    }
    verifier.verify(&signer.sign_text(&json!({"alg": "ES256", "kid": "one"}), &signer.claims(json!({})))).unwrap();
    // The public key as the secret of an HMAC.
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("one".to_owned());
    let forged = encode(&header, &signer.claims(json!({})), &EncodingKey::from_secret(signer.key.der_bytes())).unwrap();
    assert_eq!(reason(&verifier, &forged), "unknown_key");
}

#[test]
fn a_key_that_the_token_brings_along_verifies_nothing() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let verifier = signer.verifier();
    let header = json!({"alg": "ES256", "kid": "one", "jwk": stranger.jwk(), "jku": "https://stranger.example/keys"});
    let forged = stranger.sign_text(&header, &signer.claims(json!({})));
    assert_eq!(reason(&verifier, &forged), "signature");
}

#[test]
fn the_other_signature_that_can_be_made_of_one_makes_no_other_token() {
    let signer = Signer::new();
    let verifier = signer.verifier();
    let token = signer.sign(&signer.claims(json!({})));
    let twin = twin_of(&token);
    assert_ne!(twin, token);
    let (_, hash) = verifier.verify(&token).unwrap();
    // Good by itself: it is what was used already that it is told by.
    let (_, of_twin) = verifier.verify(&twin).unwrap();
    assert_eq!(of_twin, hash);
    let (_, other) = verifier.verify(&signer.sign(&signer.claims(json!({"jti": "2"})))).unwrap();
    assert_ne!(other, hash);
}

#[test]
fn an_altered_token_is_never_believed() {
    let signer = Signer::new();
    let verifier = signer.verifier();
    let token = signer.sign(&signer.claims(json!({})));
    for at in 0..token.len() {
        let mut altered = token.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        verifier.verify(&altered).unwrap_err();
    }
    for wrong in ["", ".", "..", "...", &token[1..], &format!("{token}."), &format!(" {token}"), &format!("{token}=")] {
        verifier.verify(wrong).unwrap_err();
    }
    assert_eq!(reason(&verifier, &"a".repeat(MAX_TOKEN + 1)), "malformed");
}

proptest::proptest! {
    #[test]
    fn random_text_never_panics(text in "[a-zA-Z0-9_.-]{0,200}") {
        proptest::prop_assert!(Signer::new().verifier().verify(&text).is_err());
    }
}
