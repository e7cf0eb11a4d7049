//! Whether those who are connected, to this issuer or to another one, know the next key: they have it in force before it signs.
//!
//! Whoever is not connected fetches keys over HTTP, as often as they are told to: for them a key is published ahead of its first token.

use signet_identity::{SharedClock, TrustDomain};
use tokio::time::{Duration, Instant};

use super::plan::Known;
use crate::authority::KeyName;
use crate::bundles::Shared;
use crate::distribution::Distribution;
use crate::rotation::{Acknowledgements, Patience};
use crate::store::{Store, StoreError};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) distribution: Distribution,
    pub(crate) store: Store,
    pub(crate) shared: Shared,
    pub(crate) patience: Patience,
    /// When this process began.
    pub(crate) began: (Instant, time::OffsetDateTime),
    pub(crate) clock: SharedClock,
}

/// For clients to come back to an issuer that was started again.
const RECONNECTING: Duration = Duration::from_secs(10);

impl Readers {
    /// `published_at`: since when they are told of it.
    pub(super) async fn know(&self, published_at: time::OffsetDateTime) -> Known {
        let (began, began_at) = self.began;
        if published_at < began_at && began.elapsed() < RECONNECTING {
            return Known::No;
        }
        let acknowledgements = match self.acknowledgements().await {
            Ok(acknowledgements) => acknowledgements,
            Err(error) => {
                let cause = signet_process::start::Report::of(&error).cause;
                tracing::debug!(cause, "who knows the next JWT key cannot be found out");
                return Known::No;
            }
        };
        match acknowledgements.suffice(self.patience, published_at, self.clock.now()) {
            true => Known::Yes,
            false => Known::No,
        }
    }

    /// The keys of this trust domain that are trusted now, with their algorithms.
    pub(crate) fn published(&self) -> Vec<(KeyName, &'static str)> {
        let keys = self.distribution.jwt_bundles().remove(&self.trust_domain).unwrap_or_default();
        keys.named().collect()
    }

    /// Of the keys as they are published now.
    pub(crate) async fn acknowledgements(&self) -> Result<Acknowledgements, StoreError> {
        let keys = self.distribution.jwt_bundles().remove(&self.trust_domain).unwrap_or_default();
        let version = keys.version();
        let since = Shared::heard_of_since(self.clock.now());
        let elsewhere = match self.store.is_shared() {
            true => self.store.jwt_acknowledgements_elsewhere(&self.shared.issuer(), since).await?,
            false => Vec::new(),
        };
        Ok(Acknowledgements::of(self.distribution.jwt_acknowledgements(version), elsewhere, &version))
    }
}
