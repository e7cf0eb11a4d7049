//! How an issuer comes by its authorities at its start, and by the first certificate of its own.

use std::path::PathBuf;
use std::sync::Arc;

use signet_identity::{IdentityPublisher, LiveIdentity, SharedClock, TrustBundle};
use signet_process::admin::{Readiness, State};

use super::{AUTHORITY, LISTENER, RETRY, RunError};
use crate::authority::custody::{Custody, Device};
use crate::authority::{Authorities, AuthorityError, AuthorityState, Passphrase, PassphraseError, Place, SealedFolder};
use crate::config::{self, Config, KeyPlace};
use crate::own_identity::OwnIdentity;

/// For whoever holds the root.
pub(super) fn request_file(config: &Config) -> PathBuf {
    config.state.join("authority.csr")
}

/// Once: a descriptor is read to its end. None where a token keeps the keys.
pub(super) async fn read_passphrase(config: &Config) -> Result<Option<Passphrase>, RunError> {
    let KeyPlace::Sealed { passphrase } = config.authority.key.clone() else { return Ok(None) };
    Ok(tokio::task::spawn_blocking(move || Passphrase::from_file(&passphrase)).await?.map(Some)?)
}

/// Argon2 takes memory and time: not on a worker of the runtime.
pub(super) async fn open_authorities(
    config: &Config,
    passphrase: Option<Passphrase>,
    journal: PathBuf,
    bundle: Option<TrustBundle>,
    clock: SharedClock,
) -> Result<Authorities, RunError> {
    let config::Authority { key, seal_strength, path_length, .. } = config.authority.clone();
    let (folder, request) = (config.state.join("authorities"), request_file(config));
    let trust_domain = config.trust_domain.clone();
    tokio::task::spawn_blocking(move || {
        let custody: Arc<dyn Custody> = match key {
            KeyPlace::Sealed { .. } => {
                let passphrase = passphrase.ok_or(PassphraseError::Empty)?;
                Arc::new(SealedFolder::new(folder, passphrase, seal_strength))
            }
            KeyPlace::Token(place) => {
                Arc::new(Device::open(place).map_err(|error| AuthorityError::Custody(error.into()))?)
            }
        };
        let place = Place { trust_domain, custody, journal, request, path_length };
        Ok(Authorities::open(place, bundle.as_ref(), clock)?)
    })
    .await?
}

/// The issuer's own first SVID. What stands in its way is told by readiness, and tried again.
pub(super) async fn first_identity(
    own: &OwnIdentity,
    authorities: &Authorities,
    readiness: &Readiness,
) -> (IdentityPublisher, LiveIdentity) {
    let mut state = authorities.state();
    loop {
        // The sender lives in `authorities`.
        let _ = state.wait_for(|state| *state == AuthorityState::Active).await;
        match own.first().await {
            Ok(identity) => return identity,
            Err(error) => {
                let cause = signet_process::start::Report::of(&error).cause;
                tracing::error!(cause, "no identity for the issuer itself");
                readiness.set(LISTENER, State::NotReady { reason: cause });
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Keeps readiness in step with the authority.
pub(super) async fn report_authority(authorities: Authorities, readiness: Readiness) {
    let mut state = authorities.state();
    loop {
        let current = state.borrow_and_update().clone();
        readiness.set(
            AUTHORITY,
            match current {
                AuthorityState::Active => State::Ready,
                AuthorityState::Awaited { reason } | AuthorityState::Refused { reason } => State::NotReady { reason },
            },
        );
        if state.changed().await.is_err() {
            return;
        }
    }
}
