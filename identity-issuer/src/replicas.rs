//! Keeps this issuer in step with those it shares a database with.
//!
//! ```text
//! one issuer: commit ──► NOTIFY ──► the others: read what has changed, put it in force, end streams
//!                                        ▲ also after a lost connection, and each few seconds
//! ```
//! A notification says only that there is something to read; one that is lost costs those seconds.

use std::time::Duration;

use signet_identity::SharedClock;
use time::OffsetDateTime;

use crate::bundles::Shared;
use crate::distribution::Distribution;
use crate::metrics::Metrics;
use crate::policy::{CatchUpError, Policies};
use crate::store::{Change, Changes, Store, StoreError};

#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) store: Store,
    pub(crate) policies: Policies,
    pub(crate) distribution: Distribution,
    pub(crate) bundles: Shared,
    pub(crate) metrics: Metrics,
    pub(crate) clock: SharedClock,
}

/// Between two readings without a notification.
const LOOK: Duration = Duration::from_secs(5);
/// Before another attempt to be notified.
const RETRY: Duration = Duration::from_millis(500);
/// By so much another issuer's clock may differ, and so long a commit may take.
const OVERLAP: Duration = Duration::from_secs(600);

impl Replica {
    /// Until cancelled; at once where the database is this issuer's alone.
    pub(crate) async fn run(self) {
        if !self.store.is_shared() {
            return;
        }
        let mut seen = self.clock.now();
        let mut complaint = String::new();
        loop {
            let lost = match self.store.changes().await {
                Ok(None) => return,
                Ok(Some(mut changes)) => self.follow(&mut changes, &mut seen, &mut complaint).await,
                Err(error) => error,
            };
            complain(&mut complaint, &lost, "other issuers are not heard: the database");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Returns why it cannot any more.
    async fn follow(&self, changes: &mut Changes, seen: &mut OffsetDateTime, complaint: &mut String) -> StoreError {
        // What was told before somebody listened.
        if let Err(error) = self.catch_up(seen).await {
            return error;
        }
        complaint.clear();
        loop {
            let read = match tokio::time::timeout(LOOK, changes.next()).await {
                Ok(Ok(Some(Change::Policy))) => self.read_policy().await,
                Ok(Ok(Some(Change::Standing))) => self.read_standing(seen).await,
                Ok(Ok(Some(Change::Bundles))) => self.bundles.catch_up(self.clock.now()).await,
                Ok(Ok(Some(Change::RenewalRequest))) => self.read_renewal_requests(*seen).await,
                Ok(Ok(None)) | Err(_) => self.catch_up(seen).await,
                Ok(Err(error)) => Err(error),
            };
            if let Err(error) = read {
                return error;
            }
        }
    }

    async fn catch_up(&self, seen: &mut OffsetDateTime) -> Result<(), StoreError> {
        self.read_renewal_requests(*seen).await?;
        // A policy that cannot be read keeps nobody's ban.
        self.read_standing(seen).await?;
        self.bundles.catch_up(self.clock.now()).await?;
        self.read_policy().await
    }

    /// What cannot be put in force leaves the policy as it is.
    async fn read_policy(&self) -> Result<(), StoreError> {
        match self.policies.catch_up().await {
            Ok(changed) => {
                if let Some(revision) = changed {
                    tracing::info!(revision, "policy changed at another issuer");
                }
                self.metrics.policy_refused(false);
                Ok(())
            }
            Err(CatchUpError::Store(error)) if !matches!(error, StoreError::Record { .. }) => Err(error),
            Err(error) => {
                // Once for each time that it begins.
                if self.metrics.policy_refused(true) {
                    let cause = signet_process::start::Report::of(&error).cause;
                    tracing::error!(cause, "the policy on record is not put in force; the last good one stays");
                }
                Ok(())
            }
        }
    }

    async fn read_standing(&self, seen: &mut OffsetDateTime) -> Result<(), StoreError> {
        let now = self.clock.now();
        let taken = self.store.taken_since(since(*seen, now)).await?;
        taken.iter().for_each(|holder| self.distribution.end(holder));
        *seen = now;
        Ok(())
    }

    /// Those that were read before ask nobody twice.
    async fn read_renewal_requests(&self, seen: OffsetDateTime) -> Result<(), StoreError> {
        let requests = self.store.renewal_requests(since(seen, self.clock.now())).await?;
        for request in &requests {
            self.distribution.request_renewal(request);
        }
        Ok(())
    }
}

fn since(seen: OffsetDateTime, now: OffsetDateTime) -> OffsetDateTime {
    seen.min(now) - OVERLAP
}

/// Once for each cause.
fn complain(complaint: &mut String, error: &StoreError, what: &str) {
    let cause = signet_process::start::Report::of(error).cause;
    if cause != *complaint {
        tracing::warn!(cause, "{what}");
        *complaint = cause;
    }
}
