//! Takes certificates from the file that the configuration names, where whoever holds the root puts them, and judges all chains again
//! when what is trusted changes.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use signet_identity::{BundleSet, TrustBundle, TrustDomain};
use tokio::sync::watch;

use super::set::{Authorities, AuthorityState};
use crate::pem_files;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) authorities: Authorities,
    /// Where certificates are put.
    pub(crate) certificate: PathBuf,
    /// Where the requests for them are.
    pub(crate) request: PathBuf,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) bundles: watch::Receiver<BundleSet>,
}

impl Intake {
    /// Until cancelled. An authority that is active stays so when its file goes away or is replaced by a wrong one.
    pub(crate) async fn run(self) {
        let mut taken = None;
        let mut under = None;
        let mut refused = None;
        let mut seen = None;
        loop {
            let found = pem_files::read(&self.certificate).map_err(|error| error.kind());
            // `signet ca sign` takes the name first, and signs then.
            let found = found.and_then(|pem| if pem.is_empty() { Err(ErrorKind::NotFound) } else { Ok(pem) });
            let bundle = self.bundles.borrow().get(&self.trust_domain).cloned();
            let is_another = under != bundle;
            if is_another {
                self.authorities.judge_again(bundle.as_ref());
            }
            if taken.as_ref() != Some(&found) || is_another {
                match self.take(&found, bundle.as_ref()) {
                    Ok(()) => (taken, refused) = (Some(found.clone()), None),
                    // A file that is being written is bad for a moment.
                    Err(_) if seen.as_ref().is_some_and(|seen| *seen != found) => {}
                    // Looked at again each time: what is not valid yet may become so.
                    Err(reason) if refused.as_ref() != Some(&reason) => {
                        refused = Some(reason.clone());
                        // That there is none yet is how every issuer begins.
                        self.authorities.keep_waiting(if matches!(found, Err(ErrorKind::NotFound)) {
                            tracing::info!(reason, "intermediate awaited");
                            AuthorityState::Awaited { reason }
                        } else {
                            tracing::warn!(reason, "intermediate not taken");
                            AuthorityState::Refused { reason }
                        });
                    }
                    Err(_) => {}
                }
                under = bundle;
            }
            seen = Some(found);
            tokio::time::sleep(LOOK).await;
        }
    }

    fn take(&self, found: &Result<Vec<u8>, ErrorKind>, bundle: Option<&TrustBundle>) -> Result<(), String> {
        let path = self.certificate.display();
        let bundle = bundle.ok_or_else(|| "no trust bundle".to_owned())?;
        match found {
            // Since then, a later certificate may have come by another way.
            Ok(pem) if self.authorities.has_taken(pem) => Ok(()),
            Ok(pem) => {
                let imported = self.authorities.import(pem, bundle);
                imported
                    .map_err(|error| signet_process::start::Report::of(&error).cause)
                    .map_err(|cause| format!("{path}: {cause}"))?;
                self.authorities.note_taken(pem).map_err(|error| error.to_string())
            }
            Err(ErrorKind::NotFound) if self.authorities.active().is_some() => Ok(()),
            Err(ErrorKind::NotFound) => Err(format!(
                "no intermediate at {path}: run `signet ca sign --dir ROOT --passphrase-file FILE --csr {} --out {path}`",
                self.request.display()
            )),
            Err(kind) => Err(format!("the intermediate {path} cannot be read: {kind}")),
        }
    }
}
