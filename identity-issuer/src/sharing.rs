//! Tells the issuers that share the database how far those have come who are connected to this one: an operator asks any of them.
//!
//! Written is what has changed, a moment later, so that a change of the policy is one line for each client and an idle one costs nothing.

use std::time::Duration;

use crate::attestation::AttestationNumber;
use crate::bundles::Shared;
use crate::complaint::Complaint;
use crate::distribution::{Acknowledged, Distribution, Progress, Version};
use crate::store::{MOST_AT_ONCE, ProgressRecord, Store, StoreError};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Sharing {
    pub(crate) store: Store,
    pub(crate) distribution: Distribution,
    pub(crate) bundles: Shared,
}

/// Between two looks at what has changed.
const LOOK: Duration = Duration::from_secs(1);

impl Sharing {
    /// Of an issuer that ends. Of one that is killed, the others find out by its silence.
    pub(crate) async fn end(&self) {
        if !self.store.is_shared() {
            return;
        }
        // A database that is away holds up no end: the others find out all the same.
        if let Ok(Err(error)) = tokio::time::timeout(LOOK, self.store.forget_all_progress(&self.bundles.issuer())).await
        {
            tell(&mut Complaint::default(), &error);
        }
    }

    /// Until cancelled; at once where there is nobody to tell.
    pub(crate) async fn run(self) {
        if !self.store.is_shared() {
            return;
        }
        let mut complaint = Complaint::default();
        // By which the others know this issuer.
        let mut issuer = self.bundles.issuer();
        // What a process before this one has left behind.
        self.forget(&issuer, &mut complaint).await;
        loop {
            tokio::time::sleep(LOOK).await;
            if issuer != self.bundles.issuer() {
                self.forget(&issuer, &mut complaint).await;
                issuer = self.bundles.issuer();
                self.distribution.changed_again(self.distribution.connected().into_keys());
            }
            let changed = self.distribution.changed();
            let (connected, gone): (Vec<_>, Vec<_>) = changed.into_iter().partition(|(_, progress)| progress.is_some());
            let connected: Vec<_> = connected
                .into_iter()
                .filter_map(|(number, progress)| progress.map(|progress| record(&issuer, number, &progress)))
                .collect();
            let gone: Vec<_> = gone.into_iter().map(|(number, _)| number).collect();
            match self.write(&issuer, &connected, &gone).await {
                Ok(()) => complaint.clear(),
                Err(error) => {
                    tell(&mut complaint, &error);
                    let again = connected.iter().map(|record| record.number).chain(gone);
                    self.distribution.changed_again(again);
                }
            }
        }
    }

    async fn write(
        &self,
        issuer: &str,
        connected: &[ProgressRecord],
        gone: &[AttestationNumber],
    ) -> Result<(), StoreError> {
        for records in connected.chunks(MOST_AT_ONCE) {
            self.store.share_progress(records).await?;
        }
        for numbers in gone.chunks(MOST_AT_ONCE) {
            self.store.forget_progress(issuer, numbers).await?;
        }
        Ok(())
    }

    async fn forget(&self, issuer: &str, complaint: &mut Complaint) {
        while let Err(error) = self.store.forget_all_progress(issuer).await {
            tell(complaint, &error);
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn record(issuer: &str, number: AttestationNumber, progress: &Progress) -> ProgressRecord {
    ProgressRecord {
        issuer: issuer.to_owned(),
        number,
        connected_at: progress.connected_at(),
        revision: progress.revision(),
        is_current: progress.is_current(),
        since: progress.since(),
        refused: progress.refused(),
        revocations: progress.revocations(),
        jwt: progress.jwt().map(Version::to_vec),
        authorities: progress.authorities().map(|Acknowledged(known)| known.map(Version::to_vec).unwrap_or_default()),
    }
}

fn tell(complaint: &mut Complaint, error: &StoreError) {
    if let Some(cause) = complaint.of(error) {
        tracing::warn!(cause, "the other issuers are not told of who is connected to this one");
    }
}
