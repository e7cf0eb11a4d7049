//! Keeps this issuer in step with those it shares a database with.
//!
//! ```text
//! one issuer: commit ──► NOTIFY ──► the others: read what has changed, put it in force, end streams
//!                                        ▲ also after a lost connection, and each few seconds
//! ```
//! A notification says only that there is something to read; one that is lost costs those seconds.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::FutureExt as _;
use signet_identity::SharedClock;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::bundles::Shared;
use crate::complaint::Complaint;
use crate::distribution::Distribution;
use crate::metrics::Metrics;
use crate::policy::{CatchUpError, Policies};
use crate::revocation::Revocations;
use crate::store::{Change, Changes, Store, StoreError};

#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) store: Store,
    pub(crate) policies: Policies,
    pub(crate) distribution: Distribution,
    pub(crate) bundles: Shared,
    pub(crate) revocations: Revocations,
    pub(crate) metrics: Metrics,
    pub(crate) clock: SharedClock,
}

/// Between two readings without a notification.
const LOOK: Duration = Duration::from_secs(5);
/// Between two readings with one.
const BREATH: Duration = Duration::from_millis(5);
/// Before another attempt to be notified.
const RETRY: Duration = Duration::from_millis(500);
/// By so much another issuer's clock may differ, and so long a commit may take.
const OVERLAP: Duration = Duration::from_secs(600);

/// What is to be read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Due {
    standing: bool,
    policy: bool,
    bundles: bool,
    renewal_requests: bool,
    revocations: bool,
}

impl Due {
    const ALL: Self = Self { standing: true, policy: true, bundles: true, renewal_requests: true, revocations: true };

    fn of(told: Option<Change>) -> Self {
        let nothing = Self::default();
        match told {
            Some(Change::Standing) => Self { standing: true, ..nothing },
            Some(Change::Policy) => Self { policy: true, ..nothing },
            Some(Change::Bundles) => Self { bundles: true, ..nothing },
            Some(Change::RenewalRequest) => Self { renewal_requests: true, ..nothing },
            Some(Change::Revocations) => Self { revocations: true, ..nothing },
            // Some may have been missed.
            None => Self::ALL,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            standing: self.standing || other.standing,
            policy: self.policy || other.policy,
            bundles: self.bundles || other.bundles,
            renewal_requests: self.renewal_requests || other.renewal_requests,
            revocations: self.revocations || other.revocations,
        }
    }
}

impl Replica {
    /// Until cancelled; at once where the database is this issuer's alone.
    pub(crate) async fn run(self) {
        if !self.store.is_shared() {
            return;
        }
        let mut seen = self.clock.now();
        let mut complaint = Complaint::default();
        loop {
            let lost = match self.store.changes().await {
                Ok(None) => return,
                Ok(Some(mut changes)) => match self.follow(&mut changes, &mut seen, &mut complaint).await {
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if let Some(cause) = complaint.of(&lost) {
                tracing::warn!(cause, "other issuers are not heard: the database");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Until it cannot any more.
    async fn follow(
        &self,
        changes: &mut Changes,
        seen: &mut OffsetDateTime,
        complaint: &mut Complaint,
    ) -> Result<Infallible, StoreError> {
        // What was told before somebody listened.
        self.read(Due::ALL, seen).await?;
        complaint.clear();
        let mut next_look = Instant::now() + LOOK;
        loop {
            let told = tokio::time::timeout_at(next_look, changes.next()).await;
            let mut due = match told {
                Ok(told) => Due::of(told?),
                Err(_) => Due::ALL,
            };
            // One look is enough for all that was told: somebody who tells much holds up nobody's ban.
            while let Some(told) = changes.next().now_or_never() {
                due = due.and(Due::of(told?));
            }
            if Instant::now() >= next_look {
                due = Due::ALL;
            }
            if due == Due::ALL {
                next_look = Instant::now() + LOOK;
            }
            self.read(due, seen).await?;
            tokio::time::sleep(BREATH).await;
        }
    }

    /// What is due, and what nobody may wait for first.
    async fn read(&self, due: Due, seen: &mut OffsetDateTime) -> Result<(), StoreError> {
        let before = *seen;
        if due.revocations {
            self.revocations.catch_up().await?;
        }
        if due.standing {
            self.read_standing(seen).await?;
        }
        if due.policy {
            self.read_policy().await?;
        }
        if due.bundles {
            self.bundles.catch_up().await?;
        }
        if due.renewal_requests {
            self.read_renewal_requests(before).await?;
        }
        Ok(())
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
