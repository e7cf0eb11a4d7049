//! The keys of an issuer's tokens: opened at its start, and published as they change.

use signet_identity::{SharedClock, TrustDomain};

use super::RunError;
use crate::authority::{Passphrase, PassphraseError};
use crate::bundles::Bundles;
use crate::config::Config;
use crate::jwt::{JwtKeys, Place};
use crate::metrics::Metrics;

/// None where no tokens are made.
pub(super) async fn open_keys(
    config: &Config,
    passphrase: Option<Passphrase>,
    metrics: Metrics,
    clock: SharedClock,
) -> Result<Option<JwtKeys>, RunError> {
    let Some(jwt) = &config.jwt else { return Ok(None) };
    let (algorithm, schedule) = (jwt.algorithm, jwt.schedule());
    let (folder, strength) = (config.state.join("jwt"), config.authority.seal_strength);
    let passphrase_file = jwt.passphrase_file.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let passphrase = match (passphrase_file, passphrase) {
            (Some(file), _) => Passphrase::from_file(&file)?,
            (None, Some(passphrase)) => passphrase,
            // The configuration is refused before.
            (None, None) => return Err(PassphraseError::Empty.into()),
        };
        let place = Place { folder, passphrase, strength, algorithm, schedule };
        Ok::<_, RunError>(JwtKeys::open(place, metrics, clock)?)
    });
    opening.await?.map(Some)
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
