//! The keys of an issuer's tokens: opened at its start, and published as they change.

use std::sync::Arc;

use signet_identity::{SharedClock, TrustDomain};

use super::{RETRY, RunError};
use crate::authority::custody::Custody;
use crate::bundles::Bundles;
use crate::complaint::Complaint;
use crate::config::Config;
use crate::jwt::{JwtKeys, JwtKeysError, Place};
use crate::metrics::Metrics;
use crate::store::Outbox;

/// None where no tokens are made.
pub(super) async fn open_keys(
    config: &Config,
    custody: Option<Arc<dyn Custody>>,
    outbox: Outbox,
    metrics: Metrics,
    clock: SharedClock,
) -> Result<Option<JwtKeys>, RunError> {
    let Some((jwt, custody)) = config.jwt.as_ref().zip(custody) else { return Ok(None) };
    let (algorithm, schedule) = (jwt.algorithm, jwt.schedule());
    let journal = config.state.join("jwt-keys.json");
    let place = Place { custody, journal, algorithm, schedule, outbox };
    let opening = tokio::task::spawn_blocking(move || JwtKeys::open(place, metrics, clock));
    Ok(opening.await?.map(Some)?)
}

/// Keeps what is trusted in step with the issuer's own keys of tokens.
pub(super) async fn publish_keys(keys: JwtKeys, bundles: Bundles, trust_domain: TrustDomain) {
    let mut published = keys.published();
    loop {
        published.mark_unchanged();
        keys.tell(&bundles, &trust_domain);
        if published.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps the issuer's own keys in step with what other issuers have revoked.
pub(super) async fn heed(keys: JwtKeys, bundles: Bundles) {
    let mut revoked = bundles.jwt_revoked();
    let mut complaint = Complaint::default();
    loop {
        let named = revoked.borrow_and_update().clone();
        let keys = keys.clone();
        let heeded = tokio::task::spawn_blocking(move || keys.heed(&named)).await;
        let wait = match heeded.unwrap_or(Err(JwtKeysError::BrokenOff.into())) {
            Ok(()) => None,
            Err(error) => {
                if let Some(cause) = complaint.of(&error) {
                    tracing::error!(cause, "a JWT key that another issuer has revoked still signs here");
                }
                Some(RETRY)
            }
        };
        // The sender lives in `bundles`.
        match wait {
            None => drop(revoked.changed().await),
            Some(wait) => drop(tokio::time::timeout(wait, revoked.changed()).await),
        }
    }
}
