//! How the issuer comes by its authority: it makes its own key and a request, and waits for whoever holds the root to
//! put the signed intermediate where the configuration says. It keeps looking there, so that a later one for the same
//! key is taken up as well.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rcgen::PublicKeyData;
use signet_identity::{BundleSet, SharedClock, TrustBundle, TrustDomain};
use tokio::sync::watch;

use super::hierarchy::intermediate_request;
use super::{Authority, KeyFileError, Passphrase, SealStrength, intermediate};
use crate::key::P256Key;
use crate::pem_files;
use crate::utc::Utc;

/// How often the file of the intermediate is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Where the issuer's own CA lives.
#[derive(Clone, Debug)]
pub(crate) struct AuthorityFiles {
    pub(crate) key: PathBuf,
    pub(crate) request: PathBuf,
    pub(crate) certificate: PathBuf,
    /// How many CAs the certificate may allow below it.
    pub(crate) path_length: u8,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error("the certificate request {} cannot be written", path.display())]
    Request { path: PathBuf, source: std::io::Error },
    #[error(
        "the key {} is gone, but its certificate {} is there\n\
         restore the key from a backup, or remove the certificate to begin with a new key",
        key.display(), certificate.display()
    )]
    KeyGone { key: PathBuf, certificate: PathBuf },
    #[error("the certificate request cannot be made")]
    MakeRequest(#[source] rcgen::Error),
}

/// The authority in force, if there is one yet.
#[derive(Clone, Debug)]
pub(crate) struct Authorities {
    active: Arc<ArcSwapOption<Authority>>,
    state: watch::Sender<AuthorityState>,
}

/// Whether the issuer has an authority.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AuthorityState {
    /// There is no certificate yet; what to do.
    Awaited { reason: String },
    /// There is one that does not do; why.
    Refused { reason: String },
    /// Certificates are signed.
    Active,
}

/// Opens the issuer's key, or makes one when there is none; then writes the request for its certificate.
pub(crate) fn open_or_make_key(
    files: &AuthorityFiles,
    trust_domain: &TrustDomain,
    passphrase: &Passphrase,
    strength: SealStrength,
) -> Result<P256Key, AuthorityError> {
    let key = match P256Key::open_sealed(&files.key, passphrase) {
        Err(KeyFileError::Missing { .. }) if files.certificate.exists() => {
            return Err(AuthorityError::KeyGone { key: files.key.clone(), certificate: files.certificate.clone() });
        }
        Err(KeyFileError::Missing { .. }) => P256Key::generate_sealed(&files.key, passphrase, strength)?,
        opened => opened?,
    };
    let request = intermediate_request(trust_domain, &key).map_err(AuthorityError::MakeRequest)?;
    let pem = pem_files::encode(pem_files::REQUEST, &request);
    pem_files::write_whole(&files.request, pem.as_bytes())
        .map_err(|source| AuthorityError::Request { path: files.request.clone(), source })?;
    Ok(key)
}

impl Authorities {
    pub(crate) fn none_yet() -> Self {
        let starting = AuthorityState::Awaited { reason: "starting".to_owned() };
        Self { active: Arc::default(), state: watch::Sender::new(starting) }
    }

    /// The one that signs now.
    pub(crate) fn active(&self) -> Option<Arc<Authority>> {
        self.active.load_full()
    }

    pub(crate) fn state(&self) -> watch::Receiver<AuthorityState> {
        self.state.subscribe()
    }

    /// Looks for the intermediate until cancelled. An authority that is active stays so when its file goes away or is
    /// replaced by a wrong one.
    pub(crate) async fn follow(
        self,
        files: AuthorityFiles,
        key: P256Key,
        (trust_domain, bundles): (TrustDomain, watch::Receiver<BundleSet>),
        clock: SharedClock,
    ) {
        let spki = key.subject_public_key_info();
        let mut taken = None;
        let mut under = None;
        let mut refused = None;
        let mut seen = None;
        loop {
            let found = pem_files::read(&files.certificate).map_err(|error| error.kind());
            // `signet ca sign` takes the name first, and signs then.
            let found = found.and_then(|pem| if pem.is_empty() { Err(ErrorKind::NotFound) } else { Ok(pem) });
            let bundle = bundles.borrow().get(&trust_domain).cloned();
            // Under another root of the same key, it may end at another time.
            if taken.as_ref() != Some(&found) || under != bundle {
                match examine(&files, &found, &spki, &key, bundle.as_ref(), &clock) {
                    Ok(authority) => {
                        self.activate(authority);
                        (taken, under, refused) = (Some(found.clone()), bundle, None);
                    }
                    // A file that is being written is bad for a moment.
                    Err(_) if seen.as_ref().is_some_and(|seen| *seen != found) => {}
                    // Looked at again each time: what is not valid yet may become so.
                    Err(reason) if refused.as_ref() != Some(&reason) => {
                        refused = Some(reason.clone());
                        // That there is none yet is how every issuer begins.
                        self.keep_waiting(if matches!(found, Err(ErrorKind::NotFound)) {
                            tracing::info!(reason, "intermediate awaited");
                            AuthorityState::Awaited { reason }
                        } else {
                            tracing::warn!(reason, "intermediate not taken");
                            AuthorityState::Refused { reason }
                        });
                    }
                    Err(_) => {}
                }
            }
            seen = Some(found);
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) fn activate(&self, authority: Authority) {
        tracing::info!(authority = %authority.key_id(), not_after = %Utc(authority.not_after()), "authority active");
        self.active.store(Some(Arc::new(authority)));
        self.state.send_replace(AuthorityState::Active);
    }

    /// An authority that is active stays so.
    fn keep_waiting(&self, waiting: AuthorityState) {
        self.state.send_if_modified(|state| {
            let changes = *state != AuthorityState::Active && *state != waiting;
            if changes {
                *state = waiting;
            }
            changes
        });
    }
}

/// The authority that the file makes of the key, or why it makes none.
fn examine(
    files: &AuthorityFiles,
    found: &Result<Vec<u8>, ErrorKind>,
    spki: &[u8],
    key: &P256Key,
    bundle: Option<&TrustBundle>,
    clock: &SharedClock,
) -> Result<Authority, String> {
    let path = files.certificate.display();
    let bundle = bundle.ok_or_else(|| "no trust bundle".to_owned())?;
    match found {
        Ok(pem) => intermediate::check(pem, spki, bundle, files.path_length, clock.now())
            .and_then(|checked| Authority::new(key.clone(), checked))
            .map_err(|error| format!("the intermediate {path} {error}")),
        Err(ErrorKind::NotFound) => Err(format!(
            "no intermediate at {path}: run `signet ca sign --dir ROOT --passphrase-file FILE --csr {} --out {path}`",
            files.request.display()
        )),
        Err(kind) => Err(format!("the intermediate {path} cannot be read: {kind}")),
    }
}
