//! What a rotation of the root adds to this trust domain's bundle file, and takes from it, until whoever keeps the file has done the same.

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use signet_identity::TrustBundle;

use super::{bounded, read};
use crate::pem_files;

/// Kept in the issuer's state folder.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Roots {
    /// PEM, a bundle each.
    added: Vec<String>,
    /// As [`fingerprint`] names them.
    withdrawn: Vec<String>,
}

/// The SHA-256 of a certificate, hexadecimal.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex::encode(digest(&SHA256, certificate))
}

impl Roots {
    /// One that was withdrawn before may come again.
    pub(crate) fn add(&mut self, roots: &TrustBundle) {
        let names: Vec<_> = roots.authorities().iter().map(fingerprint).collect();
        self.withdrawn.retain(|withdrawn| !names.contains(withdrawn));
        let pem = roots.to_pem();
        if !self.added.contains(&pem) {
            self.added.push(pem);
        }
    }

    pub(crate) fn withdraw(&mut self, names: &[String]) {
        let new: Vec<_> = names.iter().filter(|name| !self.withdrawn.contains(name)).cloned().collect();
        self.withdrawn.extend(new);
        // What adds nothing any more need not be kept.
        let Self { added, withdrawn } = self;
        added.retain(|pem| {
            let roots = pem_files::decode(pem_files::CERTIFICATE, pem.as_bytes()).unwrap_or_default();
            roots.into_iter().any(|root| !withdrawn.contains(&fingerprint(&root.into())))
        });
    }

    /// What is trusted by the file and by what was changed since. Where that would be nothing, or too much, it is the file alone.
    pub(crate) fn applied_to(&self, file: &TrustBundle) -> TrustBundle {
        if *self == Self::default() {
            return file.clone();
        }
        let trust_domain = file.trust_domain();
        let added = self.added.iter().filter_map(|pem| read(trust_domain.clone(), pem.as_bytes()).ok());
        let mut trusted = file.authorities().to_vec();
        trusted.extend(added.flat_map(|bundle| bundle.authorities().to_vec()));
        trusted.retain(|root| !self.withdrawn.contains(&fingerprint(root)));
        match bounded(trust_domain.clone(), trusted) {
            Ok(bundle) if !bundle.is_empty() => bundle,
            Ok(_) => file.clone(),
            // Too much: what was withdrawn is trusted all the same no more.
            Err(_) => {
                let left = file.authorities().iter().filter(|root| !self.withdrawn.contains(&fingerprint(root)));
                match bounded(trust_domain.clone(), left.cloned().collect()) {
                    Ok(bundle) if !bundle.is_empty() => bundle,
                    Ok(_) | Err(_) => file.clone(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::bundle;
    use super::*;

    #[test]
    fn a_root_comes_beside_the_file_and_another_goes_and_never_all() {
        let (file, next) = (bundle("example.org", 1), bundle("example.org", 1));
        let names = |bundle: &TrustBundle| bundle.authorities().iter().map(fingerprint).collect::<Vec<_>>();
        let mut roots = Roots::default();
        assert_eq!(roots.applied_to(&file), file);
        roots.add(&next);
        roots.add(&next);
        assert_eq!(roots.applied_to(&file).authorities().len(), 2);
        roots.withdraw(&names(&file));
        assert_eq!(roots.applied_to(&file), next);
        // The file says the same now, or has gone on.
        assert_eq!(roots.applied_to(&next), next);
        let later = bundle("example.org", 2);
        assert_eq!(roots.applied_to(&later).authorities().len(), 3);
        roots.withdraw(&names(&next));
        assert_eq!(roots.applied_to(&file), file, "nothing would be trusted");
        roots.add(&file);
        assert_eq!(roots.applied_to(&file), file);
    }
}
