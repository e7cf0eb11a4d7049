//! How an issuer comes by its authorities at its start, and by the first certificate of its own.

use std::path::PathBuf;
use std::sync::Arc;

use signet_identity::{IdentityPublisher, LiveIdentity, SharedClock, TrustBundle};
use signet_process::admin::{Readiness, State};

use super::{AUTHORITY, LISTENER, RETRY, RunError};
use crate::authority::custody::Custody;
use crate::authority::{Authorities, AuthorityState, Place};
use crate::config::Config;
use crate::own_identity::OwnIdentity;
use crate::store::Outbox;

/// For whoever holds the root.
pub(super) fn request_file(config: &Config) -> PathBuf {
    config.state.join("authority.csr")
}

/// Argon2 takes memory and time: not on a worker of the runtime.
pub(super) async fn open_authorities(
    config: &Config,
    custody: Arc<dyn Custody>,
    (journal, outbox): (PathBuf, Outbox),
    bundle: Option<TrustBundle>,
    clock: SharedClock,
) -> Result<Authorities, RunError> {
    let (request, path_length) = (request_file(config), config.authority.path_length);
    let trust_domain = config.trust_domain.clone();
    tokio::task::spawn_blocking(move || {
        let place = Place { trust_domain, custody, journal, request, path_length, outbox };
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
