//! JWT-SVIDs of this issuer's own trust domain, shown to it.

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::JwtAuthorities;

const MAX_TOKEN: usize = 8 << 10;

/// Whose it is, if it is for one of these audiences, now; or what is wrong with it.
pub(crate) fn verify_own(
    token: &str,
    keys: &JwtAuthorities,
    audiences: &[&str],
    now: OffsetDateTime,
) -> Result<String, &'static str> {
    if token.len() > MAX_TOKEN {
        return Err("it is too long");
    }
    let header = decode_header(token).map_err(|_| "it is no JSON Web Token")?;
    // An access token is no JWT-SVID.
    if !matches!(header.typ.as_deref(), None | Some("JWT" | "JOSE")) || header.crit.is_some() {
        return Err("it is no JWT-SVID");
    }
    let kid = header.kid.ok_or("it names no key")?;
    let set: JwkSet = serde_json::from_value(keys.to_oidc()).map_err(|_| "there are no keys")?;
    let jwk = set.find(&kid).ok_or("it is signed by none of the keys of this trust domain")?;
    let algorithm = jwk.common.key_algorithm.and_then(|algorithm| algorithm.to_string().parse::<Algorithm>().ok());
    if algorithm != Some(header.alg) {
        return Err("it is signed by another algorithm than its key is for");
    }
    let key = DecodingKey::from_jwk(jwk).map_err(|_| "its key cannot be used")?;
    let mut validation = Validation::new(header.alg);
    // Judged below, by our clock.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let read = decode::<Map<String, Value>>(token, &key, &validation).map_err(|_| "its signature is wrong")?;
    let claims = read.claims;
    let is_meant = |audience: &Value| audience.as_str().is_some_and(|audience| audiences.contains(&audience));
    let is_for_us = match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().any(is_meant),
        Some(one) => is_meant(one),
        None => false,
    };
    if !is_for_us {
        return Err("it is for another audience");
    }
    match claims.get("exp").and_then(Value::as_i64) {
        Some(exp) if exp > now.unix_timestamp() => {}
        _ => return Err("it has expired"),
    }
    claims.get("sub").and_then(Value::as_str).map(str::to_owned).ok_or("it is nobody's")
}
