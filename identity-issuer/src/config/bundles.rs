//! `trust_bundle`, and the section `federation`: whose certificates are trusted.
//!
//! ```yaml
//! trust_bundle: root.pem
//! federation:
//!   - { trust_domain: partner.example, bundle: partner.pem }
//!   - trust_domain: web.example
//!     endpoint: { url: "https://web.example/bundle.json", profile: https_web }         # ca: private-ca.pem
//!   - trust_domain: spiffe.example
//!     endpoint:
//!       url: https://bundle.spiffe.example:8444/
//!       profile: https_spiffe
//!       spiffe_id: spiffe://spiffe.example/signet/issuer
//!       bundle: spiffe.pem                                # by which it is believed the first time
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use http::Uri;
use serde::Deserialize;
use signet_identity::{TrustDomain, WorkloadId};
use signet_process::config::{self, ConfigError, Located, Parsed};

use crate::bundles::{BundleFile, read};
use crate::federation::{Profile, Relationship};
use crate::pem_files;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FederationFile {
    trust_domain: Located<Parsed<TrustDomain>>,
    bundle: Option<Located<PathBuf>>,
    endpoint: Option<Located<EndpointFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointFile {
    url: Parsed<Uri>,
    profile: ProfileName,
    spiffe_id: Option<Parsed<WorkloadId>>,
    bundle: Option<PathBuf>,
    ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ProfileName {
    HttpsWeb,
    HttpsSpiffe,
}

/// A trust domain whose bundle is fetched.
#[derive(Clone, Debug)]
pub(crate) struct FederatedEndpoint {
    pub(crate) relationship: Relationship,
    /// As it is written, with its paths whole.
    shown: String,
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
) -> Result<(Vec<BundleFile>, Vec<FederatedEndpoint>), ConfigError> {
    let (mut files, mut endpoints): (Vec<BundleFile>, Vec<FederatedEndpoint>) = (Vec::new(), Vec::new());
    for FederationFile { trust_domain: written, bundle: file, endpoint } in federation {
        let trust_domain = &written.value.0;
        if trust_domain == own {
            let fix = "its bundle is `trust_bundle`";
            return Err(written.error(path, format!("{own} is this issuer's own trust domain"), fix));
        }
        let others = files.iter().map(|other| other.bundle.trust_domain());
        let mut others = others.chain(endpoints.iter().map(|other| &other.relationship.trust_domain));
        if others.any(|other| other == trust_domain) {
            return Err(written.error(
                path,
                format!("{trust_domain} stands here twice"),
                "put all its roots in one file",
            ));
        }
        if files.len() + endpoints.len() == MOST {
            return Err(written.error(path, format!("more than {MOST} trust domains"), "leave some out"));
        }
        match (file, endpoint) {
            (Some(file), None) => {
                let bundle = bundle(path, &file, trust_domain);
                files.push(bundle.map_err(|what| {
                    let fix = format!("name the root certificates of {trust_domain}, PEM");
                    file.error(path, format!("bundle {what}"), fix)
                })?);
            }
            (None, Some(endpoint)) => endpoints.push(self::endpoint(path, &endpoint, trust_domain)?),
            _ => {
                let what = format!("{trust_domain} says not where its bundle is, or says it twice");
                return Err(written.error(path, what, "write `bundle` or `endpoint`"));
            }
        }
    }
    Ok((files, endpoints))
}

fn endpoint(
    path: &Path,
    endpoint: &Located<EndpointFile>,
    trust_domain: &TrustDomain,
) -> Result<FederatedEndpoint, ConfigError> {
    let EndpointFile { url, profile, spiffe_id, bundle, ca } = &endpoint.value;
    let wrong = |what: String, fix: &str| endpoint.error(path, what, fix);
    let pem = |file: &Option<PathBuf>, key: &str| {
        let Some(file) = file else { return Ok((None, String::new())) };
        let file = config::beside(path, file);
        let text = pem_files::read(&file).ok().and_then(|text| String::from_utf8(text).ok());
        let text = text.ok_or_else(|| wrong(format!("{key} {} cannot be read", file.display()), "name a PEM file"))?;
        Ok((Some(text), format!(", {key}: {:?}", file.display().to_string())))
    };
    let ((bootstrap, bundle_shown), (ca, ca_shown)) = (pem(bundle, "bundle")?, pem(ca, "ca")?);
    let (profile, profile_shown) = match (profile, spiffe_id) {
        (ProfileName::HttpsWeb, None) if bootstrap.is_none() => (Profile::Web { ca }, format!("https_web{ca_shown}")),
        (ProfileName::HttpsSpiffe, Some(spiffe_id)) if ca.is_none() => {
            let spiffe_id = spiffe_id.0.clone();
            let shown = format!("https_spiffe, spiffe_id: {:?}{bundle_shown}", spiffe_id.as_str());
            (Profile::Spiffe { spiffe_id, bootstrap }, shown)
        }
        (ProfileName::HttpsWeb, _) => {
            let fix = "leave them out, or write `profile: https_spiffe`";
            return Err(wrong("`spiffe_id` and `bundle` are for `https_spiffe`".to_owned(), fix));
        }
        (ProfileName::HttpsSpiffe, None) => {
            let fix = "name the SPIFFE ID of the server, `spiffe_id`";
            return Err(wrong("`https_spiffe` without `spiffe_id`".to_owned(), fix));
        }
        (ProfileName::HttpsSpiffe, Some(_)) => {
            return Err(wrong("`ca` is for `https_web`".to_owned(), "leave it out, or write `profile: https_web`"));
        }
    };
    let relationship = Relationship { trust_domain: trust_domain.clone(), url: url.0.clone(), profile };
    relationship.check().map_err(|error| wrong(error.to_string(), "see the page on federation"))?;
    let shown = format!("url: {:?}, profile: {profile_shown}", url.0.to_string());
    Ok(FederatedEndpoint { relationship, shown })
}

fn bundle(path: &Path, file: &Path, trust_domain: &TrustDomain) -> Result<BundleFile, String> {
    let file = config::beside(path, file);
    let pem = pem_files::read(&file).map_err(|error| error.to_string());
    match pem.and_then(|pem| read(trust_domain.clone(), &pem)) {
        Ok(bundle) => Ok(BundleFile { path: file, bundle }),
        Err(what) => Err(format!("{}: {what}", file.display())),
    }
}

pub(super) fn shown(files: &[BundleFile], endpoints: &[FederatedEndpoint]) -> String {
    if files.is_empty() && endpoints.is_empty() {
        return String::new();
    }
    let mut text = "federation:\n".to_owned();
    // Writing to a String cannot fail.
    for BundleFile { path, bundle } in files {
        let path = path.display().to_string();
        let _ = writeln!(text, "  - trust_domain: {}\n    bundle: {path:?}", bundle.trust_domain());
    }
    for FederatedEndpoint { relationship, shown } in endpoints {
        let _ = writeln!(text, "  - trust_domain: {}\n    endpoint: {{ {shown} }}", relationship.trust_domain);
    }
    text
}
