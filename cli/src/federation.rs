//! `signet federate`: the bundles of other trust domains.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use serde::Serialize;
use signet_proto::admin::v1::{
    AddFederationRequest, Federation, ListFederationsRequest, RefreshFederationRequest, RemoveFederationRequest,
    SpiffeProfile, WebProfile, add_federation_request::Profile,
};
use time::OffsetDateTime;

use crate::admin;
use crate::args::{AddOptions, Arguments, IssuerOptions, PartnerOptions, ProfileName, RefreshOptions};
use crate::failure::Failure;
use crate::output::{self, Format, List, Report};

pub(crate) fn add(options: &AddOptions, format: Format) -> Result<(), Failure> {
    let AddOptions { trust_domain, url, profile, spiffe_id, bundle, ca, issuer } = options;
    let profile = match (profile, spiffe_id, bundle, ca) {
        (ProfileName::HttpsWeb, None, None, ca) => Profile::HttpsWeb(WebProfile { ca_pem: pem(ca.as_ref())? }),
        (ProfileName::HttpsSpiffe, Some(spiffe_id), bundle, None) => {
            let bundle_pem = pem(bundle.as_ref())?;
            Profile::HttpsSpiffe(SpiffeProfile { spiffe_id: spiffe_id.to_string(), bundle_pem })
        }
        (ProfileName::HttpsWeb, ..) => wrong_usage("--spiffe-id and --bundle are for --profile https_spiffe"),
        (ProfileName::HttpsSpiffe, ..) => wrong_usage("--ca is for --profile https_web"),
    };
    let (trust_domain, url) = (trust_domain.to_string(), url.clone());
    let request = AddFederationRequest { trust_domain, url, profile: Some(profile) };
    let added =
        admin::call(issuer, async |mut client| client.add_federation(request).await.map(tonic::Response::into_inner))?;
    output::print(format, &Line::from(added))
}

pub(crate) fn list(options: &IssuerOptions, format: Format) -> Result<(), Failure> {
    let answer = admin::call(options, async |mut client| {
        client.list_federations(ListFederationsRequest {}).await.map(tonic::Response::into_inner)
    })?;
    let federations = answer.federations.into_iter().map(Line::from).collect();
    output::print_list(format, &Lines { federations })
}

pub(crate) fn refresh(options: &RefreshOptions, format: Format) -> Result<(), Failure> {
    let RefreshOptions { trust_domain, accept, issuer } = options;
    let request = RefreshFederationRequest { trust_domain: trust_domain.to_string(), accept: *accept };
    let refreshed = admin::call(issuer, async |mut client| {
        client.refresh_federation(request).await.map(tonic::Response::into_inner)
    })?;
    output::print(format, &Line::from(refreshed))
}

pub(crate) fn remove(options: &PartnerOptions, format: Format) -> Result<(), Failure> {
    let removed = options.trust_domain.to_string();
    let request = RemoveFederationRequest { trust_domain: removed.clone() };
    admin::call(&options.issuer, async |mut client| client.remove_federation(request).await.map(drop))?;
    output::print(format, &Removed { removed })
}

fn wrong_usage(what: &str) -> ! {
    Arguments::command().error(ErrorKind::ArgumentConflict, what).exit()
}

/// What is in the file; nothing where none is named.
fn pem(file: Option<&PathBuf>) -> Result<String, Failure> {
    let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(|error| unreadable(path, &error));
    file.map_or_else(|| Ok(String::new()), read)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{} cannot be read: {error}", path.display())).remedy("name a PEM file of certificates")
}

#[derive(Serialize)]
struct Lines {
    federations: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    trust_domain: String,
    url: String,
    profile: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    spiffe_id: String,
    configured: bool,
    refreshed_at: Option<String>,
    sequence: u64,
    x509_authorities: u32,
    jwt_authorities: u32,
    refused: String,
    #[serde(skip)]
    refreshed: Option<OffsetDateTime>,
}

impl From<Federation> for Line {
    fn from(federation: Federation) -> Self {
        Self {
            trust_domain: federation.trust_domain,
            url: federation.url,
            profile: federation.profile,
            spiffe_id: federation.spiffe_id,
            configured: federation.configured,
            refreshed_at: output::shown(federation.refreshed_at),
            sequence: federation.sequence,
            x509_authorities: federation.x509_authorities,
            jwt_authorities: federation.jwt_authorities,
            refused: federation.refused,
            refreshed: federation.refreshed_at.and_then(output::time_of),
        }
    }
}

impl List for Lines {
    const COLUMNS: &'static [&'static str] = &["trust domain", "profile", "x509", "jwt", "refreshed", "refused"];

    fn lines(&self) -> Vec<Vec<String>> {
        let now = OffsetDateTime::now_utc();
        let line = |line: &Line| {
            vec![
                line.trust_domain.clone(),
                line.profile.clone(),
                line.x509_authorities.to_string(),
                line.jwt_authorities.to_string(),
                line.refreshed.map_or_else(|| "never".to_owned(), |at| output::distance(now, at)),
                line.refused.clone(),
            ]
        };
        self.federations.iter().map(line).collect()
    }

    fn nothing(&self) -> &'static str {
        "no bundle of another trust domain is fetched; `signet federate add` begins with one"
    }
}

impl Report for Line {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("trust domain", self.trust_domain.clone()),
            ("url", self.url.clone()),
            ("profile", self.profile.clone()),
            ("x509 authorities", self.x509_authorities.to_string()),
            ("jwt authorities", self.jwt_authorities.to_string()),
            ("sequence", self.sequence.to_string()),
        ]
    }
}

#[derive(Serialize)]
struct Removed {
    removed: String,
}

impl Report for Removed {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![("removed", self.removed.clone())]
    }
}
