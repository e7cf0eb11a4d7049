//! An identity from PEM files that something else writes: cert-manager, an agent, an operator's script. They are looked
//! at several times a second and read when they changed, by whatever way: rewritten in place, renamed over, or a symlink
//! to their folder swapped.

mod look;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use signet_identity::{BundleError, BundleSet, Material, SvidError, TlsPolicies, TrustBundle, X509Svid};
use tokio::time::{Instant, MissedTickBehavior};

use self::look::{Files, Look, ReadError, ReadWhen};
use crate::{Delivery, Source, cause, driver::Attempt};

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How often something is tried that was refused before: its time may have come, or it was read while it was written.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Where the files are.
#[derive(Clone, Debug)]
pub struct FilePaths {
    /// The certificate chain, leaf first, PEM.
    pub certificate: PathBuf,
    /// The leaf's private key, PEM.
    pub key: PathBuf,
    /// The authorities to trust in the certificate's own trust domain, PEM.
    pub bundle: PathBuf,
}

impl FilePaths {
    /// `svid.pem`, `svid.key` and `bundle.pem` in one folder.
    pub fn within(folder: &Path) -> Self {
        Self { certificate: folder.join("svid.pem"), key: folder.join("svid.key"), bundle: folder.join("bundle.pem") }
    }
}

/// Follows an identity in files. The trust domain is that of the certificate.
#[derive(Debug)]
pub struct FilesSource {
    paths: FilePaths,
    poll_interval: Duration,
}

impl FilesSource {
    /// The identity in these files. They need not be there yet.
    pub fn new(paths: FilePaths) -> Self {
        Self { paths, poll_interval: POLL_INTERVAL }
    }

    /// How often to look whether the files changed; 200 ms unless told.
    pub fn poll_interval(mut self, poll_interval: Duration) -> Self {
        self.poll_interval = poll_interval.max(Duration::from_millis(1));
        self
    }
}

impl Source for FilesSource {
    type Keys = ();

    fn register(&self, _policies: &mut TlsPolicies) {}

    async fn run(self, (): (), mut delivery: Delivery) {
        let mut ticks = tokio::time::interval(self.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = Look::new(self.paths.clone());
        let mut known = Known::default();
        loop {
            ticks.tick().await;
            let read = if known.retry_due() { ReadWhen::Always } else { ReadWhen::Changed };
            let looked = tokio::task::spawn_blocking(move || (look.look(read), look)).await;
            // The runtime is going away, or reading panicked: either way there is nothing left to follow.
            let Ok((seen, back)) = looked else { return };
            look = back;
            if let Some(files) = seen {
                known.offer(files, &self.paths, &mut delivery);
            }
        }
    }
}

/// What was read last, and what became of it.
#[derive(Default)]
struct Known {
    content: Option<Content>,
    retry_at: Option<Instant>,
}

/// What distinguishes one state of the files from another.
#[derive(Eq, PartialEq)]
enum Content {
    Readable { sha256: [u8; 32] },
    Unreadable { why: Arc<str> },
}

impl Known {
    fn retry_due(&self) -> bool {
        self.retry_at.is_some_and(|at| at <= Instant::now())
    }

    /// Makes what was read live, unless it is live already. What was refused is tried again by and by: it may be valid
    /// later, or complete. Only a refusal of something new is counted and told.
    fn offer(&mut self, files: Result<Files, ReadError>, paths: &FilePaths, delivery: &mut Delivery) {
        let content = match &files {
            Ok(files) => Content::Readable { sha256: files.sha256() },
            Err(error) => Content::Unreadable { why: cause::whole(error) },
        };
        let attempt = match self.content.as_ref() == Some(&content) {
            true if self.retry_at.is_none() => return,
            true => Attempt::Again,
            false => Attempt::First,
        };
        self.content = Some(content);
        let accepted = match files.map_err(Unusable::from).and_then(|files| material(&files, paths)) {
            Ok(material) => delivery.attempt(material, attempt).is_ok(),
            Err(unusable) => {
                if attempt == Attempt::First {
                    delivery.monitor().refused(cause::whole(&unusable));
                }
                false
            }
        };
        self.retry_at = (!accepted).then(|| Instant::now() + RETRY_INTERVAL);
    }
}

/// Why files are no identity.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{} and {} are not a certificate with its key", certificate.display(), key.display())]
    Svid { certificate: PathBuf, key: PathBuf, source: SvidError },
    #[error("{} is not a trust bundle", path.display())]
    Bundle { path: PathBuf, source: BundleError },
}

fn material(files: &Files, paths: &FilePaths) -> Result<Material, Unusable> {
    let svid = X509Svid::from_pem(&files.certificate, &files.key).map_err(|source| Unusable::Svid {
        certificate: paths.certificate.clone(),
        key: paths.key.clone(),
        source,
    })?;
    let bundle = TrustBundle::from_pem(svid.id().trust_domain().clone(), &files.bundle)
        .map_err(|source| Unusable::Bundle { path: paths.bundle.clone(), source })?;
    Ok(Material { svid, bundles: BundleSet::from_iter([bundle]) })
}

#[cfg(test)]
mod tests;
