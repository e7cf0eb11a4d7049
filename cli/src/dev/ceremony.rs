//! Plays the person with the root, as long as the mesh runs: signs what the issuer asks for, and lets the next root take the place of the
//! first once nobody trusts that any more.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use identity_issuer::Passphrase;
use identity_issuer::root::{self, RootError};
use signet_identity::{BundleSet, SharedClock, TrustBundle, TrustDomain};
use tokio::sync::watch;

use super::state::{damaged, passphrase_of};
use crate::failure::Failure;

const INTERMEDIATE_LIFE: Duration = Duration::from_secs(365 * 86_400);
const END: &str = "-----END CERTIFICATE REQUEST-----\n";

pub(super) struct Ceremony {
    pub(super) trust_domain: TrustDomain,
    /// Where the root is.
    pub(super) root: PathBuf,
    /// Where the next one is, while it takes over.
    pub(super) next: PathBuf,
    /// Where the issuer looks for its certificates.
    pub(super) certificate: PathBuf,
    pub(super) clock: SharedClock,
}

impl Ceremony {
    /// Until the issuer is gone. What goes wrong is told, and tried again when something changes.
    pub(super) async fn run(self, mut requests: watch::Receiver<String>, mut trusted: watch::Receiver<BundleSet>) {
        loop {
            let (asked, bundles) = (requests.borrow_and_update().clone(), trusted.borrow_and_update().clone());
            let done = self.succeed(&bundles).and_then(|()| self.sign(&asked, &bundles));
            if let Err(failure) = done {
                tracing::error!(cause = failure.cause(), "the root of this mesh does not sign");
            }
            let changed = tokio::select! {
                changed = requests.changed() => changed,
                changed = trusted.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Signs all that is asked for with the latest root that is trusted.
    pub(super) fn sign(&self, requests: &str, trusted: &BundleSet) -> Result<(), Failure> {
        if requests.is_empty() {
            return Ok(());
        }
        let folder = if self.trusts(trusted, &self.next) { &self.next } else { &self.root };
        let passphrase = passphrase_of(folder);
        let passphrase = Passphrase::from_file(&passphrase)
            .map_err(|error| damaged(&passphrase, Failure::from_error(&error).cause()))?;
        let mut signed = String::new();
        for request in requests.split_inclusive(END) {
            let chain = root::sign(folder, &passphrase, request.as_bytes(), 0, INTERMEDIATE_LIFE, &*self.clock);
            signed += &chain.map_err(|error| damaged(folder, Failure::from_error(&error).cause()))?.to_pem();
        }
        let fresh = self.certificate.with_extension("pem.new");
        let written = fs::write(&fresh, signed).and_then(|()| fs::rename(&fresh, &self.certificate));
        written.map_err(|error| damaged(&self.certificate, error))
    }

    /// The next root is the root once the first is trusted no more.
    fn succeed(&self, trusted: &BundleSet) -> Result<(), Failure> {
        match self.trusts(trusted, &self.next) && !self.trusts(trusted, &self.root) {
            true => replace(&self.root, &self.next),
            false => Ok(()),
        }
    }

    fn trusts(&self, trusted: &BundleSet, folder: &Path) -> bool {
        let Ok(pem) = fs::read(folder.join("root.pem")) else { return false };
        let Ok(root) = TrustBundle::from_pem(self.trust_domain.clone(), &pem) else { return false };
        let Some(trusted) = trusted.get(&self.trust_domain) else { return false };
        !root.is_empty() && root.authorities().iter().all(|root| trusted.authorities().contains(root))
    }
}

/// Puts the next root in the place of the first, or ends what a run before has begun of that.
pub(super) fn replace(root: &Path, next: &Path) -> Result<(), Failure> {
    let before = root.with_file_name("root-before");
    if root.exists() {
        // Of the root before that one, nothing is needed.
        let _ = fs::remove_dir_all(&before);
        fs::rename(root, &before).map_err(|error| damaged(root, error))?;
    }
    fs::rename(next, root).map_err(|error| damaged(next, error))
}

/// The next root of a mesh, made where there is none yet.
pub(super) fn next_root(
    root: &Path,
    next: &Path,
    make: impl FnOnce(&TrustDomain) -> Result<(), Failure>,
) -> Result<PathBuf, Failure> {
    let certificate = next.join("root.pem");
    match root::show(next) {
        Ok(_) => Ok(certificate),
        Err(RootError::Missing { .. }) => {
            let present = root::show(root).map_err(|error| damaged(root, Failure::from_error(&error).cause()))?;
            make(&present.trust_domain)?;
            Ok(certificate)
        }
        Err(error) => Err(damaged(next, Failure::from_error(&error).cause())),
    }
}
