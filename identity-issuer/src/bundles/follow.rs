//! Keeps the bundles in step with this issuer's files, and tells the others of it.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use signet_identity::{BundleSet, SharedClock, TrustBundle};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{BundleFile, Bundles, Shared, read};
use crate::authority::Authorities;
use crate::complaint::Complaint;
use crate::jwt::JwtTrust;
use crate::metrics::Metrics;
use crate::pem_files;

#[derive(Debug)]
pub(crate) struct Follower {
    bundles: Bundles,
    shared: Shared,
    files: Vec<Followed>,
    authorities: Authorities,
    /// Where certificates for them are put.
    certificate: PathBuf,
    /// Of other trust domains: what they publish.
    federated: watch::Receiver<BundleSet>,
    metrics: Metrics,
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

/// Between two looks at the files.
const LOOK: Duration = Duration::from_millis(500);
/// Before what has not changed is said again, and those who said something are held against the time.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// Where bundles come from.
const FILE: &str = "file";

impl Follower {
    /// `files` begins with this trust domain's.
    pub(crate) fn new(
        bundles: Bundles,
        shared: Shared,
        files: Vec<BundleFile>,
        (authorities, certificate): (Authorities, PathBuf),
        federated: watch::Receiver<BundleSet>,
        metrics: Metrics,
        clock: SharedClock,
    ) -> Self {
        let followed = |file| Followed { file, seen: None, taken: None, complaint: None };
        let files = files.into_iter().map(followed).collect();
        Self { bundles, shared, files, authorities, certificate, federated, metrics, clock }
    }

    /// Until cancelled.
    pub(crate) async fn run(mut self) {
        let mut said: Option<((BundleSet, JwtTrust), Instant)> = None;
        let mut authorities = self.authorities.changes();
        let mut jwt = self.bundles.own_jwt();
        let mut revoked = self.shared.revoked();
        let mut complaint = Complaint::default();
        loop {
            let is_other_authority = authorities.has_changed().is_ok_and(|changed| changed);
            authorities.mark_unchanged();
            // Others may be believed by what is new in the files, or not any more; or the roots are others.
            let is_other_federated = self.federated.has_changed().is_ok_and(|changed| changed);
            let is_more_revoked = revoked.has_changed().is_ok_and(|changed| changed);
            revoked.mark_unchanged();
            if self.look() || is_other_authority || is_other_federated || is_more_revoked {
                self.federated.mark_unchanged();
                // What others say of the same trust domain may not go with it: that is told where they are united.
                let _ = self.bundles.set_own(self.own());
                self.shared.unite();
            }
            if is_other_authority {
                said = None;
            }
            let own = (self.own(), jwt.borrow_and_update().clone());
            let is_said = said.as_ref().is_some_and(|(what, at)| *what == own && at.elapsed() < HEARTBEAT);
            if !is_said {
                let told = match self.shared.publish(&own.0, &own.1).await {
                    Ok(true) => self.shared.catch_up().await.map(|()| said = Some((own, Instant::now()))),
                    Ok(false) => Ok(()),
                    Err(error) => Err(error),
                };
                match told {
                    Ok(()) => complaint.clear(),
                    Err(error) => {
                        if let Some(cause) = complaint.of(&error) {
                            tracing::warn!(cause, "the other issuers are not told of this one's trust bundles");
                        }
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                // The sender lives in `self`.
                _ = authorities.changed() => authorities.mark_changed(),
                _ = jwt.changed() => {}
                _ = revoked.changed() => revoked.mark_changed(),
                _ = self.federated.changed() => self.federated.mark_changed(),
            }
        }
    }

    /// What the files say, for this trust domain with what a rotation of its root has changed since; and what others publish.
    fn own(&self) -> BundleSet {
        let trusted = |(index, followed): (usize, &Followed)| match index {
            0 => self.authorities.trusted(&followed.file.bundle),
            _ => followed.file.bundle.clone(),
        };
        let files = self.files.iter().enumerate().map(trusted);
        files.chain(self.federated.borrow().iter().cloned()).collect()
    }

    /// Takes up each file that has changed to something good; whether there was such.
    fn look(&mut self) -> bool {
        let mut has_taken = false;
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
            match self.judge(index, &found) {
                Ok(bundle) => {
                    let followed = &mut self.files[index];
                    (followed.file.bundle, followed.taken, followed.complaint) = (bundle, Some(found), None);
                    has_taken = true;
                }
                Err(cause) if self.files[index].complaint.as_ref() == Some(&cause) => {}
                Err(cause) => {
                    let followed = &mut self.files[index];
                    let path = followed.file.path.display();
                    tracing::warn!(%path, cause, "trust bundle not taken; the last good one stays");
                    followed.complaint = Some(cause);
                }
            }
        }
        self.metrics.bundles_refused(FILE, self.files.iter().any(|followed| followed.complaint.is_some()));
        has_taken
    }

    fn judge(&self, index: usize, found: &Result<Vec<u8>, ErrorKind>) -> Result<TrustBundle, String> {
        let present = &self.files[index].file.bundle;
        let pem = found.as_ref().map_err(|kind| kind.to_string())?;
        let bundle = read(present.trust_domain().clone(), pem)?;
        // Whoever took it up would refuse all that this issuer signs.
        let now = self.clock.now();
        if index == 0
            && let Some(authority) = self.authorities.active()
            && let trusted = self.authorities.trusted(&bundle)
            && let Err(error) = authority.check_is_under(&trusted, now)
            && authority.check_is_under(&self.authorities.trusted(present), now).is_ok()
            && !self.is_ready_for(&trusted)
        {
            return Err(format!("with it, the authority in force {error}"));
        }
        Ok(bundle)
    }

    /// Whether the certificate that is there makes an authority under it: both files may be replaced at one time.
    fn is_ready_for(&self, bundle: &TrustBundle) -> bool {
        let dropped = pem_files::read(&self.certificate).ok();
        self.authorities.is_ready_for(bundle, dropped.as_deref())
    }
}
