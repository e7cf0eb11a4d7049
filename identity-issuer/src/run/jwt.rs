//! The keys of an issuer's tokens: opened at its start, and published as they change.

use std::sync::Arc;

use signet_identity::{SharedClock, TrustDomain};

use super::RunError;
use crate::authority::custody::Custody;
use crate::bundles::Bundles;
use crate::config::Config;
use crate::jwt::{JwtKeys, Place};
use crate::metrics::Metrics;

/// None where no tokens are made.
pub(super) async fn open_keys(
    config: &Config,
    custody: Option<Arc<dyn Custody>>,
    metrics: Metrics,
    clock: SharedClock,
) -> Result<Option<JwtKeys>, RunError> {
    let Some((jwt, custody)) = config.jwt.as_ref().zip(custody) else { return Ok(None) };
    let (algorithm, schedule) = (jwt.algorithm, jwt.schedule());
    let journal = config.state.join("jwt-keys.json");
    let place = Place { custody, journal, algorithm, schedule };
    let opening = tokio::task::spawn_blocking(move || JwtKeys::open(place, metrics, clock));
    Ok(opening.await?.map(Some)?)
}

/// Keeps what is trusted in step with the issuer's own keys of tokens.
pub(super) async fn publish_keys(keys: JwtKeys, bundles: Bundles, trust_domain: TrustDomain) {
    let mut public = keys.public();
    loop {
        let own = public.borrow_and_update().clone();
        bundles.change_own_jwt(|jwt| drop(jwt.insert(trust_domain.clone(), own)));
        if public.changed().await.is_err() {
            return;
        }
    }
}
