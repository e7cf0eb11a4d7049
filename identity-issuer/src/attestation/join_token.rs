//! Join tokens: a secret that makes whoever presents it first, before it expires, one SPIFFE ID.
//!
//! A token is `signet_join_` and 64 hexadecimal digits: 256 random bits, nothing that a double click or a shell breaks,
//! and a prefix by which secret scanners know it. The store holds its SHA-256 only. It is used up in the transaction
//! that records the certificate made for it, so that of any number of presentations one gets a certificate.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use signet_identity::{SharedClock, WorkloadId};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{Attested, Attestor, Evidence, NotAttested, Subject};
use crate::policy::Actor;
use crate::store::{Store, StoreError, TokenState};
use crate::utc::Utc;

const PREFIX: &str = "signet_join_";
const SECRET_BYTES: usize = 32;

/// The secret itself; wiped when dropped, shown by nothing but [`JoinToken::expose`].
pub(crate) struct JoinToken(Zeroizing<String>);

/// SHA-256 of a token's text.
#[derive(Copy, Clone, Eq, PartialEq, Hash)]
pub(crate) struct JoinTokenHash([u8; 32]);

/// A token as the store keeps it.
#[derive(Clone, Debug)]
pub(crate) struct NewJoinToken {
    pub(crate) hash: JoinTokenHash,
    pub(crate) id: WorkloadId,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) created_by: Actor,
}

/// Makes tokens and believes them.
#[derive(Clone, Debug)]
pub(crate) struct JoinTokens {
    store: Store,
    clock: SharedClock,
}

/// Which it was is logged, and not told to the caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinTokenError {
    #[error("the join token is malformed")]
    Malformed,
    #[error("the join token is unknown")]
    Unknown,
    #[error("the join token for {id} was used at {}", Utc(*used_at))]
    Used { id: WorkloadId, used_at: OffsetDateTime },
    #[error("the join token for {id} expired at {}", Utc(*expires_at))]
    Expired { id: WorkloadId, expires_at: OffsetDateTime },
}

impl JoinTokenError {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Used { .. } => "used",
            Self::Expired { .. } => "expired",
        }
    }
}

impl JoinTokens {
    pub(crate) fn new(store: Store, clock: SharedClock) -> Self {
        Self { store, clock }
    }

    /// A new token for `id`, on record when this returns.
    pub(crate) async fn create(
        &self,
        id: WorkloadId,
        ttl: std::time::Duration,
        created_by: Actor,
    ) -> Result<(JoinToken, OffsetDateTime), StoreError> {
        let token = JoinToken::generate().map_err(|_| StoreError::Randomness)?;
        let created_at = self.clock.now();
        let expires_at = created_at + ttl;
        self.store.add_token(NewJoinToken { hash: token.hash(), id, created_at, expires_at, created_by }).await?;
        Ok((token, expires_at))
    }
}

impl Attestor for JoinTokens {
    type Proof = str;

    /// Uses nothing up: the recording of the certificate does.
    async fn attest(&self, presented: &str, _: &[u8]) -> Result<Attested, NotAttested> {
        let hash = JoinTokenHash::of_presented(presented).ok_or(JoinTokenError::Malformed)?;
        let found = self.store.token(hash, self.clock.now()).await?;
        let (id, state) = found.ok_or(JoinTokenError::Unknown)?;
        match state {
            TokenState::Good => {
                Ok(Attested { subject: Subject::Named(id), evidence: Evidence::JoinToken(hash), shown: None })
            }
            TokenState::Used { used_at } => Err(JoinTokenError::Used { id, used_at }.into()),
            TokenState::Expired { expires_at } => Err(JoinTokenError::Expired { id, expires_at }.into()),
        }
    }
}

impl JoinToken {
    fn generate() -> Result<Self, Unspecified> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        rand::fill(&mut *secret)?;
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 2 * SECRET_BYTES));
        text.push_str(PREFIX);
        text.push_str(&Zeroizing::new(hex::encode(*secret)));
        Ok(Self(text))
    }

    /// The text to hand to whoever shall join.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    fn hash(&self) -> JoinTokenHash {
        JoinTokenHash::of(&self.0)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

impl JoinTokenHash {
    /// None for what cannot be a token: it costs no hash and no look-up.
    fn of_presented(text: &str) -> Option<Self> {
        let secret = text.strip_prefix(PREFIX)?;
        let is_hex = secret.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (secret.len() == 2 * SECRET_BYTES && is_hex).then(|| Self::of(text))
    }

    fn of(text: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self(hash)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for JoinTokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_one_word_and_is_found_again_by_its_hash() {
        let token = JoinToken::generate().unwrap();
        assert!(token.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        assert_eq!(JoinTokenHash::of_presented(token.expose()), Some(token.hash()));
        assert_ne!(JoinToken::generate().unwrap().expose(), token.expose());
        assert_eq!(format!("{token:?}"), "JoinToken(…)");
    }

    #[test]
    fn what_cannot_be_a_token_is_not_looked_up() {
        let token = JoinToken::generate().unwrap();
        let text = token.expose();
        let upper = text.to_uppercase();
        for wrong in ["", "signet_join_", &text[1..], &text[..75], &format!("{text}0"), &format!("{text} "), &upper] {
            assert_eq!(JoinTokenHash::of_presented(wrong), None, "{wrong}");
        }
    }
}
