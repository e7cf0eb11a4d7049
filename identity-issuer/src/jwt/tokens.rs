//! How a token is issued: claims, signature, record, and only then it leaves.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use signet_identity::{SharedClock, WorkloadId};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::JwtKeys;
use super::keys::Signer;
use crate::attestation::AttestationNumber;
use crate::authority::SignError;
use crate::authority::custody::Pace;
use crate::metrics::{IssueResult, Metrics};
use crate::store::{LogError, Logged, Store, StoreError};

/// Issues tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) keys: JwtKeys,
    /// `iss`, where there is one.
    pub(crate) issuer: Option<String>,
    pub(crate) longest: Duration,
    /// Whose tokens the policy gives one by one: no JWT-SVID is for them, which whoever has an identity gets.
    pub(crate) access_audiences: Arc<HashSet<String>>,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) clock: SharedClock,
}

/// What a token is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A JWT-SVID.
    Svid,
    /// An OAuth 2.0 access token (RFC 9068).
    Access,
}

/// A token that somebody is entitled to.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) kind: Kind,
    pub(crate) id: WorkloadId,
    /// One at least.
    pub(crate) audience: Vec<String>,
    pub(crate) ttl: Duration,
    /// It does not live longer, whatever its `ttl`.
    pub(crate) until: Option<OffsetDateTime>,
    /// Claims beside those of every token.
    pub(crate) more: Map<String, Value>,
    /// By which certificate it was asked for.
    pub(crate) serial: Vec<u8>,
    pub(crate) attestation: AttestationNumber,
}

/// A token, and what is written down of it. Its `Debug` does not show the token: whoever has it can use it.
#[derive(Clone)]
pub(crate) struct Jwt {
    pub(crate) token: Zeroizing<String>,
    pub(crate) kind: Kind,
    pub(crate) jti: [u8; 16],
    pub(crate) kid: String,
    pub(crate) id: WorkloadId,
    pub(crate) audience: Vec<String>,
    pub(crate) issued_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) serial: Vec<u8>,
    pub(crate) attestation: AttestationNumber,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NotIssued {
    #[error("there is no key that signs tokens")]
    NoKey,
    #[error("its time is over before it begins")]
    Expired,
    #[error("it is banned")]
    Banned,
    #[error("it was evicted: it has to attest itself again")]
    Evicted,
    #[error("its certificate is revoked: it has to attest itself again")]
    Revoked,
    #[error("no random numbers")]
    Randomness,
    #[error(transparent)]
    Key(#[from] SignError),
    #[error("signing broke off")]
    BrokenOff,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Tokens {
    /// A token of this life, or as much of it as its key and its entitlement have left; on record when this returns.
    pub(crate) async fn issue(&self, wanted: Wanted) -> Result<Logged<Jwt>, NotIssued> {
        let kind = wanted.kind;
        let outcome = match self.sign_at_its_pace(wanted).await {
            Ok(jwt) => self.store.log_jwt(jwt).await.map_err(NotIssued::from),
            Err(error) => Err(error),
        };
        self.metrics.jwt(kind.label(), IssueResult::of_token(&outcome));
        outcome
    }

    async fn sign_at_its_pace(&self, wanted: Wanted) -> Result<Jwt, NotIssued> {
        let signer = self.keys.signer(self.clock.now()).ok_or(NotIssued::NoKey)?;
        match signer.key.pace() {
            Pace::Quick => self.sign(&signer, wanted),
            Pace::Blocks => {
                let tokens = self.clone();
                let signing = tokio::task::spawn_blocking(move || tokens.sign(&signer, wanted));
                signing.await.unwrap_or(Err(NotIssued::BrokenOff))
            }
        }
    }

    fn sign(&self, signer: &Signer, wanted: Wanted) -> Result<Jwt, NotIssued> {
        let Wanted { kind, id, audience, ttl, until, more, serial, attestation } = wanted;
        // Whole seconds: there are those who take no others.
        let now = self.clock.now();
        let issued_at = now.replace_nanosecond(0).unwrap_or(now);
        let end = (issued_at + ttl.min(self.longest)).min(signer.not_after);
        let end = until.map_or(end, |until| end.min(until));
        let expires_at = end.replace_nanosecond(0).unwrap_or(end);
        if expires_at <= now {
            return Err(NotIssued::Expired);
        }
        let jti = crate::serial::new_serial(now).map_err(|_| NotIssued::Randomness)?;
        let mut claims = more;
        claims.insert("sub".to_owned(), json!(id.as_str()));
        claims.insert("aud".to_owned(), json!(audience));
        claims.insert("iat".to_owned(), json!(issued_at.unix_timestamp()));
        claims.insert("exp".to_owned(), json!(expires_at.unix_timestamp()));
        claims.insert("jti".to_owned(), json!(hex::encode(jti)));
        if let Some(issuer) = &self.issuer {
            claims.insert("iss".to_owned(), json!(issuer));
        }
        let token = signer.key.sign(kind.header(), &Value::Object(claims))?;
        let kid = signer.key.kid().to_owned();
        Ok(Jwt { token, kind, jti, kid, id, audience, issued_at, expires_at, serial, attestation })
    }
}

impl Kind {
    /// `typ`: one cannot be taken for the other (RFC 8725 §3.11).
    fn header(self) -> &'static str {
        match self {
            Self::Svid => "JWT",
            Self::Access => "at+jwt",
        }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Svid => "jwt_svid",
            Self::Access => "access_token",
        }
    }
}

impl From<LogError> for NotIssued {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Banned => Self::Banned,
            LogError::Evicted => Self::Evicted,
            LogError::Revoked => Self::Revoked,
            LogError::Store(error) => Self::Store(error),
            // Of certificates.
            LogError::KeyReused | LogError::ProofUsed => Self::Store(StoreError::Closed),
        }
    }
}

impl IssueResult {
    fn of_token<T>(outcome: &Result<T, NotIssued>) -> Self {
        match outcome {
            Ok(_) => Self::Issued,
            Err(NotIssued::Expired | NotIssued::Banned | NotIssued::Evicted | NotIssued::Revoked) => Self::Refused,
            Err(NotIssued::Store(StoreError::Busy)) => Self::Shed,
            Err(
                NotIssued::NoKey
                | NotIssued::Randomness
                | NotIssued::Key(_)
                | NotIssued::BrokenOff
                | NotIssued::Store(_),
            ) => Self::Failed,
        }
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("jti", &hex::encode(self.jti)).field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use signet_identity::{Clock as _, ManualClock};
    use signet_process::admin::Readiness;

    use super::*;
    use crate::authority::custody::Algorithm;
    use crate::authority::custody::Memory;
    use crate::jwt::{Place, Schedule};
    use crate::profile::Profiles;
    use crate::store::{AuditLog, Location};

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn no_token_lives_longer_than_the_key_that_signs_it() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap());
        let metrics =
            Metrics::register(&prometheus::Registry::new(), &Profiles::new((HOUR, Duration::ZERO), [])).unwrap();
        let location = Location::File(folder.path().join("issuer.db"));
        let trust_domain = "example.org".parse().unwrap();
        let opening =
            Store::open(&location, &trust_domain, AuditLog::unpublished(), 100, clock.shared(), Readiness::default());
        let (store, task) = opening.await.unwrap();
        let place = Place {
            custody: Arc::new(Memory::default()),
            journal: folder.path().join("jwt-keys.json"),
            algorithm: Algorithm::Es256,
            schedule: Schedule { key_life: 24 * HOUR, publish_ahead: HOUR, longest_token: HOUR },
            outbox: crate::store::Outbox::default(),
        };
        let keys = JwtKeys::open(place, metrics.clone(), clock.shared()).unwrap();
        let key_ends = clock.now() + 24 * HOUR;
        let (longest, access_audiences, shared) = (HOUR, Arc::default(), clock.shared());
        let tokens = Tokens { keys, issuer: None, longest, access_audiences, store, metrics, clock: shared };
        let life = |ttl| {
            let wanted = Wanted {
                kind: Kind::Svid,
                id: "spiffe://example.org/a".parse().unwrap(),
                audience: vec!["db".to_owned()],
                ttl,
                until: None,
                more: Map::new(),
                serial: vec![1],
                attestation: AttestationNumber(1),
            };
            let jwt = tokens.sign(&tokens.keys.signer(clock.now()).unwrap(), wanted).unwrap();
            let claims = URL_SAFE_NO_PAD.decode(jwt.token.split('.').nth(1).unwrap()).unwrap();
            let claims: Value = serde_json::from_slice(&claims).unwrap();
            assert_eq!(claims["exp"], jwt.expires_at.unix_timestamp());
            jwt.expires_at - clock.now()
        };
        assert_eq!(life(HOUR), HOUR);
        // Nothing has taken its place, and it ends in ten minutes.
        clock.advance(key_ends - HOUR / 6 - clock.now());
        assert_eq!((life(HOUR), life(HOUR / 12)), (time::Duration::minutes(10), time::Duration::minutes(5)));
        drop(tokens);
        task.finish().await;
    }
}
