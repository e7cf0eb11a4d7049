//! Keeps the bundles in step with this issuer's files, and with what the other issuers say.

use std::io::ErrorKind;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use signet_identity::{BundleSet, SharedClock, TrustBundle};
use time::OffsetDateTime;

use super::{BundleFile, Bundles, read};
use crate::authority::Authorities;
use crate::metrics::Metrics;
use crate::pem_files;
use crate::store::{BundleRecord, BundlesChange, PublishedBundles, Store, StoreError};
use crate::utc::Utc;

/// What this issuer reads of the others on its database, and writes for them.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    bundles: Bundles,
    store: Store,
    /// By which they know it.
    issuer: String,
    metrics: Metrics,
}

#[derive(Debug)]
pub(crate) struct Follower {
    shared: Shared,
    files: Vec<Followed>,
    authorities: Authorities,
    /// No identity that this issuer gives lives longer.
    longest_life: Duration,
    clock: SharedClock,
}

#[derive(Debug)]
struct Followed {
    file: BundleFile,
    /// What was found at the last look.
    seen: Option<Result<Vec<u8>, ErrorKind>>,
    /// What was found and taken.
    taken: Option<Result<Vec<u8>, ErrorKind>>,
    /// Why the file as it is now is not taken.
    complaint: Option<String>,
}

/// Why an issuer is not forgotten.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForgetError {
    #[error("there is no such issuer; `signet get bundles` names them")]
    Unknown,
    #[error("it was heard of at {}; end it, and wait 5 minutes", Utc(*heard_of))]
    Alive { heard_of: OffsetDateTime },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Between two looks at the files.
const LOOK: Duration = Duration::from_millis(500);
/// Before what has not changed is written again, to say that its issuer is there.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// One that has not said so for this long is gone.
const GONE: Duration = Duration::from_secs(300);
/// By so much clocks may differ, and a certificate's end be past.
const SLACK: Duration = Duration::from_secs(3600);

/// Where bundles come from.
const RECORD: &str = "record";
const FILE: &str = "file";

impl Shared {
    /// `authority_key` is the SubjectPublicKeyInfo, DER, of the issuer's own.
    pub(crate) fn new(bundles: Bundles, store: Store, authority_key: &[u8], metrics: Metrics) -> Self {
        let issuer = hex::encode(&digest(&SHA256, authority_key).as_ref()[..16]);
        Self { bundles, store, issuer, metrics }
    }

    /// By which the others know this issuer.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whoever was not heard of since then, is gone.
    pub(crate) fn heard_of_since(now: OffsetDateTime) -> OffsetDateTime {
        now - GONE
    }

    /// What each issuer says.
    pub(crate) async fn published(&self, now: OffsetDateTime) -> Result<Vec<BundleRecord>, StoreError> {
        self.store.published_bundles(now).await
    }

    pub(crate) fn is_own(&self, record: &BundleRecord) -> bool {
        record.issuer == self.issuer
    }

    /// Takes back what an issuer has said.
    pub(crate) async fn forget(&self, issuer: String, now: OffsetDateTime) -> Result<(), ForgetError> {
        let said = self.published(now).await?;
        let Some(record) = said.iter().find(|record| record.issuer == issuer) else {
            return Err(ForgetError::Unknown);
        };
        let since = Self::heard_of_since(now);
        if self.is_own(record) || record.published_at >= since {
            return Err(ForgetError::Alive { heard_of: record.published_at });
        }
        match self.store.change_bundles(BundlesChange::Forget { issuer, since }).await? {
            // It has come back in the meantime.
            0 => Err(ForgetError::Alive { heard_of: now }),
            _ => Ok(self.catch_up(now).await?),
        }
    }

    /// Takes up what the others say; what is no good of that leaves what there is.
    pub(crate) async fn catch_up(&self, now: OffsetDateTime) -> Result<(), StoreError> {
        let cause = match self.published(now).await {
            Ok(published) => {
                let others = published.into_iter().filter(|record| !self.is_own(record));
                match self.bundles.set_others(others.map(|record| record.bundle).collect()) {
                    Ok(()) => {
                        self.metrics.bundles_refused(RECORD, false);
                        return Ok(());
                    }
                    Err(error) => signet_process::start::Report::of(&error).cause,
                }
            }
            Err(error @ StoreError::Record { .. }) => error.to_string(),
            Err(error) => return Err(error),
        };
        // Once for each time that it begins.
        if self.metrics.bundles_refused(RECORD, true) {
            tracing::error!(cause, "the trust bundles on record are not put in force; the last good ones stay");
        }
        Ok(())
    }
}

impl Follower {
    /// `files` begins with this trust domain's.
    pub(crate) fn new(
        shared: Shared,
        files: Vec<BundleFile>,
        authorities: Authorities,
        longest_life: Duration,
        clock: SharedClock,
    ) -> Self {
        let followed = |file| Followed { file, seen: None, taken: None, complaint: None };
        Self { shared, files: files.into_iter().map(followed).collect(), authorities, longest_life, clock }
    }

    /// Until cancelled.
    pub(crate) async fn run(mut self) {
        let mut published: Option<(BundleSet, OffsetDateTime)> = None;
        let mut complaint = String::new();
        loop {
            self.look();
            let own: BundleSet = self.files.iter().map(|followed| followed.file.bundle.clone()).collect();
            let now = self.clock.now();
            let is_written =
                published.as_ref().is_some_and(|(what, at)| *what == own && (now - *at).unsigned_abs() < HEARTBEAT);
            if !is_written {
                match self.publish(own.clone(), now).await {
                    Ok(()) => {
                        published = Some((own, now));
                        complaint.clear();
                    }
                    Err(error) => {
                        let cause = signet_process::start::Report::of(&error).cause;
                        if complaint != cause {
                            tracing::warn!(cause, "the other issuers are not told of this one's trust bundles");
                            complaint = cause;
                        }
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn publish(&self, bundles: BundleSet, at: OffsetDateTime) -> Result<(), StoreError> {
        let good_until = at + self.longest_life + SLACK;
        let issuer = self.shared.issuer.clone();
        let published = PublishedBundles { issuer, bundles, at, good_until };
        self.shared.store.change_bundles(BundlesChange::Publish(published)).await.map(drop)
    }

    /// Takes up each file that has changed to something good.
    fn look(&mut self) {
        for index in 0..self.files.len() {
            let followed = &mut self.files[index];
            let found = pem_files::read(&followed.file.path).map_err(|error| error.kind());
            // A file that is being written is bad for a moment, or a part of what it will be.
            let is_settled = followed.seen.as_ref() == Some(&found);
            followed.seen = Some(found.clone());
            if !is_settled {
                continue;
            }
            if followed.taken.as_ref() == Some(&found) {
                followed.complaint = None;
                continue;
            }
            // What is refused is judged again each time: not all of that lies in the file.
            let taken = self.judge(index, &found).and_then(|bundle| self.take(index, bundle));
            let followed = &mut self.files[index];
            match taken {
                Ok(()) => (followed.taken, followed.complaint) = (Some(found), None),
                Err(cause) if followed.complaint.as_ref() == Some(&cause) => {}
                Err(cause) => {
                    let path = followed.file.path.display();
                    tracing::warn!(%path, cause, "trust bundle not taken; the last good one stays");
                    followed.complaint = Some(cause);
                }
            }
        }
        self.shared.metrics.bundles_refused(FILE, self.files.iter().any(|followed| followed.complaint.is_some()));
    }

    fn judge(&self, index: usize, found: &Result<Vec<u8>, ErrorKind>) -> Result<TrustBundle, String> {
        let present = &self.files[index].file.bundle;
        let pem = found.as_ref().map_err(|kind| kind.to_string())?;
        let bundle = read(present.trust_domain().clone(), pem)?;
        // Whoever took it up would refuse all that this issuer signs.
        if index == 0
            && let Some(authority) = self.authorities.active()
            && let Err(error) = authority.check_is_under(&bundle, self.clock.now())
            && authority.check_is_under(present, self.clock.now()).is_ok()
        {
            return Err(format!("with it, the authority in force {error}"));
        }
        Ok(bundle)
    }

    fn take(&mut self, index: usize, bundle: TrustBundle) -> Result<(), String> {
        let own = self.files.iter().enumerate().map(|(other, followed)| match other == index {
            true => bundle.clone(),
            false => followed.file.bundle.clone(),
        });
        let taken = self.shared.bundles.set_own(own.collect());
        taken.map_err(|error| signet_process::start::Report::of(&error).cause)?;
        self.files[index].file.bundle = bundle;
        Ok(())
    }
}
