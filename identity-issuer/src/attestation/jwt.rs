//! JSON Web Tokens (RFC 7519) of one issuer, believed by the keys that it publishes.
//!
//! The crate `jsonwebtoken` verifies signatures. Who signed, for whom and until when is judged here: by our clock, and more
//! strictly than it does.

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};
use signet_identity::SharedClock;
use time::{Duration, OffsetDateTime};

use super::jwks::Jwks;
use super::{ProofHash, shown};
use crate::utc::Utc;

/// Believes the tokens that one issuer made for one audience.
#[derive(Clone, Debug)]
pub(crate) struct TokenVerifier {
    /// `iss`, exactly.
    pub(crate) issuer: String,
    /// One of `aud`.
    pub(crate) audience: String,
    pub(crate) keys: Jwks,
    pub(crate) clock: SharedClock,
}

/// What a token says that was signed, and is for us, now.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) subject: String,
    pub(super) expires_at: OffsetDateTime,
    pub(super) all: Map<String, Value>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("it is {bytes} bytes long, and may be {MAX_TOKEN} at most")]
    TooLarge { bytes: usize },
    #[error("it is not a JSON Web Token")]
    Malformed,
    #[error("it is signed with {0:?}, which none of the issuer's keys is for")]
    Algorithm(Algorithm),
    #[error("none of the issuer's keys is `{}`", shown(.kid))]
    UnknownKey { kid: String },
    #[error("it does not say with which of the issuer's keys it is signed")]
    NoKeyId,
    #[error("the issuer's keys are not known yet")]
    NoKeysYet,
    #[error("its signature is wrong")]
    Signature,
    #[error("its issuer is {}, not {expected}", shown(.found))]
    Issuer { found: String, expected: String },
    #[error("its audience is {}, not {expected}", shown(.found))]
    Audience { found: String, expected: String },
    #[error("it expired at {} (`exp`)", Utc(*at))]
    Expired { at: OffsetDateTime },
    #[error("it is not valid before {} (`{claim}`)", Utc(*at))]
    NotYet { claim: &'static str, at: OffsetDateTime },
    #[error("its claim `{claim}` is missing, or not what it should be")]
    Claim { claim: &'static str },
    #[error("it is not bound to a pod")]
    NoPod,
}

impl TokenError {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::Malformed | Self::Claim { .. } | Self::NoPod => "malformed",
            Self::Algorithm(_) | Self::UnknownKey { .. } | Self::NoKeyId => "unknown_key",
            Self::NoKeysYet => "no_keys",
            Self::Signature => "signature",
            Self::Issuer { .. } => "issuer",
            Self::Audience { .. } => "audience",
            Self::Expired { .. } => "expired",
            Self::NotYet { .. } => "not_yet_valid",
        }
    }
}

impl TokenVerifier {
    /// One signature is verified at most, and nothing that was not signed is believed.
    ///
    /// The hash is of what was signed, and so the same for every signature over it: whoever holds one by ECDSA, (r, s), can make
    /// another of it, (r, n − s).
    pub(super) fn verify(&self, token: &str) -> Result<(Claims, ProofHash), TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLarge { bytes: token.len() });
        }
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        // None of the extensions that it calls critical is known here (RFC 7515 §4.1.11).
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let keys = self.keys.current().ok_or(TokenError::NoKeysYet)?;
        let key = keys.find(header.kid.as_deref(), header.alg).inspect_err(|_| self.keys.look_again())?;
        let claims = decode::<Map<String, Value>>(token, key, &signature_only(header.alg));
        let claims = claims.map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => TokenError::Signature,
            _ => TokenError::Malformed,
        })?;
        let (signed, _) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        Ok((self.judge(claims.claims)?, ProofHash::of(signed.as_bytes())))
    }

    pub(super) fn judge(&self, all: Map<String, Value>) -> Result<Claims, TokenError> {
        let now = self.clock.now();
        match all.get("iss") {
            Some(Value::String(issuer)) if *issuer == self.issuer => {}
            found => return Err(TokenError::Issuer { found: written(found), expected: self.issuer.clone() }),
        }
        if !is_audience(all.get("aud"), &self.audience) {
            return Err(TokenError::Audience { found: written(all.get("aud")), expected: self.audience.clone() });
        }
        let expires_at = numeric_date(&all, "exp")?.ok_or(TokenError::Claim { claim: "exp" })?;
        if expires_at <= now {
            return Err(TokenError::Expired { at: expires_at });
        }
        for claim in ["nbf", "iat"] {
            if let Some(at) = numeric_date(&all, claim)?
                && at > now + LEEWAY
            {
                return Err(TokenError::NotYet { claim, at });
            }
        }
        match all.get("sub") {
            Some(Value::String(subject)) if !subject.is_empty() => {
                Ok(Claims { subject: subject.clone(), expires_at, all })
            }
            _ => Err(TokenError::Claim { claim: "sub" }),
        }
    }
}

/// The crate's own judgement of claims goes by another clock than ours, and takes what is missing for good.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// RFC 7519 §4.1.3: one string, or an array of them.
fn is_audience(found: Option<&Value>, wanted: &str) -> bool {
    match found {
        Some(Value::String(audience)) => audience == wanted,
        Some(Value::Array(audiences)) => audiences.iter().any(|audience| audience.as_str() == Some(wanted)),
        _ => false,
    }
}

/// Seconds of the Unix epoch, perhaps with a fraction (RFC 7519 §2).
fn numeric_date(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<OffsetDateTime>, TokenError> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64));
    let time = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.map(Some).ok_or(TokenError::Claim { claim })
}

fn written(value: Option<&Value>) -> String {
    match value {
        None => "missing".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Tokens of Kubernetes have 1 KiB, of CI systems 2.
const MAX_TOKEN: usize = 8 << 10;
/// By so much the issuer's clock may be ahead of ours.
const LEEWAY: Duration = Duration::seconds(30);

#[cfg(test)]
pub(super) mod tests;
