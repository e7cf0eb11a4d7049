//! `signet get bundles`, `forget`: what is trusted, and by whose word.

use serde::Serialize;
use signet_proto::admin::v1::{ForgetIssuerRequest, ListBundlesRequest, PublishedBundle};
use time::OffsetDateTime;

use crate::admin;
use crate::args::{ForgetOptions, IssuerOptions};
use crate::failure::Failure;
use crate::output::{self, Format, List, Report};

pub(crate) fn list(options: &IssuerOptions, format: Format) -> Result<(), Failure> {
    let answer = admin::call(options, async |mut client| {
        client.list_bundles(ListBundlesRequest {}).await.map(tonic::Response::into_inner)
    })?;
    let bundles = answer.bundles.into_iter().map(BundleLine::from).collect();
    output::print_list(format, &BundleList { bundles })
}

pub(crate) fn forget(options: &ForgetOptions, format: Format) -> Result<(), Failure> {
    let issuer = options.which.clone();
    let request = ForgetIssuerRequest { issuer: issuer.clone() };
    admin::call(&options.issuer, async |mut client| client.forget_issuer(request).await.map(drop))?;
    output::print(format, &Forgotten { forgotten: issuer })
}

#[derive(Serialize)]
struct BundleList {
    bundles: Vec<BundleLine>,
}

#[derive(Serialize)]
struct BundleLine {
    trust_domain: String,
    x509_authorities: u32,
    expires_at: Option<String>,
    issuer: String,
    own: bool,
    published_at: Option<String>,
    #[serde(skip)]
    expires: Option<OffsetDateTime>,
    #[serde(skip)]
    published: Option<OffsetDateTime>,
}

impl From<PublishedBundle> for BundleLine {
    fn from(bundle: PublishedBundle) -> Self {
        let PublishedBundle { issuer, own, published_at, trust_domain, x509_authorities, expires_at } = bundle;
        Self {
            trust_domain,
            x509_authorities,
            expires_at: output::shown(expires_at),
            issuer,
            own,
            published_at: output::shown(published_at),
            expires: expires_at.and_then(output::time_of),
            published: published_at.and_then(output::time_of),
        }
    }
}

impl List for BundleList {
    const COLUMNS: &'static [&'static str] = &["trust domain", "certificates", "expires", "issuer", "heard of"];

    fn lines(&self) -> Vec<Vec<String>> {
        let now = OffsetDateTime::now_utc();
        let line = |bundle: &BundleLine| {
            let issuer = if bundle.own { format!("{} (this one)", bundle.issuer) } else { bundle.issuer.clone() };
            vec![
                bundle.trust_domain.clone(),
                bundle.x509_authorities.to_string(),
                bundle.expires.map(|at| output::distance(now, at)).unwrap_or_default(),
                issuer,
                bundle.published.map(|at| output::distance(now, at)).unwrap_or_default(),
            ]
        };
        self.bundles.iter().map(line).collect()
    }

    fn nothing(&self) -> &'static str {
        "no issuer has said yet what is to be trusted"
    }
}

#[derive(Serialize)]
struct Forgotten {
    forgotten: String,
}

impl Report for Forgotten {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![("forgotten", self.forgotten.clone())]
    }
}
