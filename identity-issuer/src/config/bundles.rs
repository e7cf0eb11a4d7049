//! `trust_bundle`, and the section `federation`: whose certificates are trusted.
//!
//! ```yaml
//! trust_bundle: root.pem
//! federation:
//!   - { trust_domain: partner.example, bundle: partner.pem }
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use signet_identity::TrustDomain;
use signet_process::config::{self, ConfigError, Located, Parsed};

use crate::bundles::{BundleFile, read};
use crate::pem_files;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FederationFile {
    trust_domain: Located<Parsed<TrustDomain>>,
    bundle: Located<PathBuf>,
}

/// A client takes so many trust domains, its own among them.
const MOST: usize = 63;

/// This trust domain's.
pub(super) fn own(path: &Path, file: &Located<PathBuf>, trust_domain: &TrustDomain) -> Result<BundleFile, ConfigError> {
    let bundle = bundle(path, file, trust_domain);
    bundle.map_err(|what| {
        let fix = "name the root certificate of this trust domain, as `signet ca init` wrote it";
        file.error(path, format!("trust_bundle {what}"), fix)
    })
}

/// Those of others.
pub(super) fn resolve(
    path: &Path,
    federation: Vec<FederationFile>,
    own: &TrustDomain,
) -> Result<Vec<BundleFile>, ConfigError> {
    let mut resolved: Vec<BundleFile> = Vec::with_capacity(federation.len());
    for FederationFile { trust_domain: written, bundle: file } in federation {
        let trust_domain = &written.value.0;
        if trust_domain == own {
            let fix = "its bundle is `trust_bundle`";
            return Err(written.error(path, format!("{own} is this issuer's own trust domain"), fix));
        }
        if resolved.iter().any(|other| other.bundle.trust_domain() == trust_domain) {
            return Err(written.error(
                path,
                format!("{trust_domain} stands here twice"),
                "put all its roots in one file",
            ));
        }
        if resolved.len() == MOST {
            return Err(written.error(path, format!("more than {MOST} trust domains"), "leave some out"));
        }
        let bundle = bundle(path, &file, trust_domain);
        resolved.push(bundle.map_err(|what| {
            let fix = format!("name the root certificates of {trust_domain}, PEM");
            file.error(path, format!("bundle {what}"), fix)
        })?);
    }
    Ok(resolved)
}

fn bundle(path: &Path, file: &Path, trust_domain: &TrustDomain) -> Result<BundleFile, String> {
    let file = config::beside(path, file);
    let pem = pem_files::read(&file).map_err(|error| error.to_string());
    match pem.and_then(|pem| read(trust_domain.clone(), &pem)) {
        Ok(bundle) => Ok(BundleFile { path: file, bundle }),
        Err(what) => Err(format!("{}: {what}", file.display())),
    }
}

pub(super) fn shown(federation: &[BundleFile]) -> String {
    let mut text = String::new();
    for (index, BundleFile { path, bundle }) in federation.iter().enumerate() {
        let key = if index == 0 { "federation:\n" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{key}  - trust_domain: {}\n    bundle: {:?}",
            bundle.trust_domain(),
            path.display().to_string()
        );
    }
    text
}
