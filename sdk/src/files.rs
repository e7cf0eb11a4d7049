//! An identity from PEM files that something else writes: cert-manager, an agent, an operator's script. They are read as
//! soon as they changed, by whatever way: rewritten in place, renamed over, a symlink on the way to them swapped, their
//! folder made anew.
//!
//! ```text
//! inotify ── something changed ─┐
//! time ───── look anyway ───────┼─► read ─► fits? ─► live ─────────────┐
//! refused ── try again ─────────┘             └────► told, if it lasts ┴─► watch the way to the files anew
//! ```

mod look;
#[cfg(target_os = "linux")]
mod places;
#[cfg(target_os = "linux")]
mod watch;
#[cfg(not(target_os = "linux"))]
#[path = "files/unwatched.rs"]
mod watch;

use std::{
    future::pending,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use signet_identity::{BundleError, BundleSet, Material, RevocationSet, SvidError, TlsPolicies, TrustBundle, X509Svid};
use tokio::time::Instant;

use self::{
    look::{Files, Look, ReadError, ReadWhen},
    watch::Watches,
};
use crate::{Delivery, Monitor, Source, cause};

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

/// Follows an identity in files. The trust domain is that of the certificate. Needs a runtime with time and IO.
#[derive(Debug)]
pub struct FilesSource {
    paths: FilePaths,
    pauses: Pauses,
    inotify: watch::Open,
}

/// How long to wait, for what.
#[derive(Clone, Copy, Debug)]
struct Pauses {
    /// Until the next look, though no change was seen.
    poll: Duration,
    /// Until it is told that the files do not fit: such as are replaced one after the other do not fit for a moment.
    tell: Duration,
    /// Until what was refused is tried again; each time twice as long.
    first_retry: Duration,
    longest_retry: Duration,
}

impl Pauses {
    const USUAL: Self = Self {
        poll: Duration::from_secs(1),
        tell: Duration::from_secs(1),
        first_retry: Duration::from_millis(10),
        longest_retry: Duration::from_secs(1),
    };
}

impl FilesSource {
    /// The identity in these files. They need not be there yet.
    pub fn new(paths: FilePaths) -> Self {
        Self { paths, pauses: Pauses::USUAL, inotify: watch::by_kernel }
    }

    /// How often to look at the files of which no change was seen; 1 s unless told. Matters where the kernel tells of no
    /// changes: on file systems that other machines write to, and on other kernels than Linux.
    pub fn poll_interval(mut self, poll_interval: Duration) -> Self {
        self.pauses.poll = poll_interval.max(Duration::from_millis(1));
        self
    }
}

impl Source for FilesSource {
    type Keys = ();

    fn register(&self, _policies: &mut TlsPolicies) {}

    async fn run(self, (): (), delivery: Delivery) {
        let Self { paths, pauses, inotify } = self;
        let mut watches = Watches::new(paths.clone(), inotify);
        let mut follower = Follower { look: Look::new(paths.clone()), paths, known: Known::new(pauses), delivery };
        let mut read = ReadWhen::Changed;
        loop {
            watches.open();
            let followed = tokio::task::spawn_blocking(move || {
                follower.follow(read);
                // Afterwards, so that it delays nothing.
                watches.renew();
                (follower, watches)
            });
            // The runtime is going away, or reading panicked: either way there is nothing left to follow.
            let Ok(both) = followed.await else { return };
            (follower, watches) = both;
            read = tokio::select! {
                () = watches.changed() => ReadWhen::Always,
                () = follower.known.retry() => ReadWhen::Always,
                () = tokio::time::sleep(pauses.poll) => ReadWhen::Changed,
            };
        }
    }
}

/// Reads and delivers.
struct Follower {
    paths: FilePaths,
    look: Look,
    known: Known,
    delivery: Delivery,
}

impl Follower {
    /// Makes live what is in the files, if it may have changed. Blocks.
    fn follow(&mut self, read: ReadWhen) {
        if let Some(files) = self.look.look(read) {
            self.known.offer(files, &self.paths, &mut self.delivery);
        }
    }
}

/// What was read last, and what became of it.
struct Known {
    content: Option<Content>,
    refusal: Option<Refusal>,
    pauses: Pauses,
}

/// What distinguishes one state of the files from another.
#[derive(Eq, PartialEq)]
enum Content {
    Readable { sha256: [u8; 32] },
    Unreadable { why: Arc<str> },
}

/// What was read is no identity. It is tried again: it may be valid later, or was read while it was written.
struct Refusal {
    telling: Telling,
    retry_at: Instant,
    pause: Duration,
}

/// Whether a refusal has been counted and told.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Telling {
    At(Instant),
    Done,
}

impl Known {
    fn new(pauses: Pauses) -> Self {
        Self { content: None, refusal: None, pauses }
    }

    /// Waits until what was refused is to be tried again.
    async fn retry(&self) {
        match &self.refusal {
            Some(refusal) => tokio::time::sleep_until(refusal.retry_at).await,
            None => pending().await,
        }
    }

    /// Makes what was read live, unless it is live already.
    fn offer(&mut self, files: Result<Files, ReadError>, paths: &FilePaths, delivery: &mut Delivery) {
        let content = match &files {
            Ok(files) => Content::Readable { sha256: files.sha256() },
            Err(error) => Content::Unreadable { why: cause::whole(error) },
        };
        let same = self.content.as_ref() == Some(&content);
        if same && self.refusal.is_none() {
            return;
        }
        let refused = match files.map_err(Unusable::from).and_then(|files| material(&files, paths)) {
            Ok(material) => delivery.offer_quietly(material).err().map(|refused| cause::whole(&refused)),
            Err(unusable) => Some(cause::whole(&unusable)),
        };
        self.refusal = refused.map(|why| {
            let mut refusal = self.refusal_of(same);
            refusal.tell_in_time(why, delivery.monitor());
            refusal
        });
        self.content = Some(content);
    }

    /// The refusal of what was read just now.
    fn refusal_of(&mut self, same: bool) -> Refusal {
        let Pauses { tell, first_retry, longest_retry, .. } = self.pauses;
        let now = Instant::now();
        let (telling, pause) = match self.refusal.take() {
            Some(known) if same => (known.telling, (known.pause * 2).min(longest_retry)),
            // One half of a replacement comes after the other: what does not fit, does not fit since the first.
            Some(Refusal { telling: telling @ Telling::At(_), .. }) => (telling, first_retry),
            // Whoever starts without an identity is told at once why.
            None if self.content.is_none() => (Telling::At(now), first_retry),
            Some(_) | None => (Telling::At(now + tell), first_retry),
        };
        Refusal { telling, pause, retry_at: now + pause }
    }
}

impl Refusal {
    fn tell_in_time(&mut self, why: Arc<str>, monitor: &Monitor) {
        let Telling::At(at) = self.telling else { return };
        if at <= Instant::now() {
            monitor.refused(why);
            self.telling = Telling::Done;
        } else {
            self.retry_at = self.retry_at.min(at);
        }
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
    Ok(Material { svid, bundles: BundleSet::from_iter([bundle]), revocations: RevocationSet::default() })
}

#[cfg(test)]
mod tests;
