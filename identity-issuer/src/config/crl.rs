//! The section `crl`: certificate revocation lists.
//!
//! ```yaml
//! crl:
//!   url: http://crl.example.org/crl      # where leaves say that the lists are: it leads to /crl of the web address
//!   shards: 16                           # each list in so many parts, by serial numbers; a change of it is for new leaves
//!   life: 24h                            # of one list; each quarter of it there is a new one
//!   export:                              # where lists are put as well, for others to serve them
//!     url: s3://bucket/crl               # or file:///srv/crl
//!     region: eu-central-1
//!     endpoint: https://s3.example.org   # where it is not Amazon's
//!     access_key_id_file: s3-id
//!     secret_access_key_file: s3-secret
//! ```

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use signet_process::config::{self, ConfigError, Located};

use super::file::{number_within, seconds, within};
use super::target::{self, TargetFile};
use crate::crl::DistributionPoints;
use crate::target::Target;

#[derive(Clone, Debug)]
pub(crate) struct Crl {
    /// As it is written.
    url: Option<String>,
    pub(crate) points: DistributionPoints,
    /// From thisUpdate to nextUpdate.
    pub(crate) life: Duration,
    pub(crate) export: Option<Target>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CrlFile {
    url: Option<Located<String>>,
    shards: Located<u64>,
    life: Located<config::Duration>,
    export: Option<TargetFile>,
}

impl Default for CrlFile {
    fn default() -> Self {
        Self { url: None, shards: Located::nowhere(1), life: seconds(86_400), export: None }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
/// What has expired is kept for two days: a quarter of this is less.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);
/// In bytes: it stands in each leaf.
const MAX_URL: usize = 256;

impl CrlFile {
    pub(super) fn resolve(self, path: &Path) -> Result<Crl, ConfigError> {
        if let Some(url) = &self.url
            && !is_http(url)
        {
            let fix = "write http://HOST/PATH: a list is signed, and whoever fetches it by https may have to check a certificate first";
            return Err(url.error(path, format!("`url` is {:?}", url.value), fix));
        }
        let shards = number_within(path, &self.shards, "shards", 1..=1024)? as u32;
        if shards > 1 && self.url.is_none() {
            return Err(self.shards.error(
                path,
                "`shards` without `url`",
                "no leaf would say in which part it is: write `url`",
            ));
        }
        let life = within(path, &self.life, "life", MINUTE..=LONGEST)?;
        let export = self.export.map(|export| export.resolve(path)).transpose()?;
        let url = self.url.map(|url| url.value);
        Ok(Crl { export, points: DistributionPoints::new(url.as_deref(), shards), url, life })
    }
}

/// ASCII, as a certificate has it (IA5String).
fn is_http(url: &str) -> bool {
    let parsed = url.parse::<http::Uri>();
    let is_plain = |uri: &http::Uri| {
        uri.scheme() == Some(&http::uri::Scheme::HTTP) && uri.host().is_some() && uri.query().is_none()
    };
    url.len() <= MAX_URL && url.bytes().all(|byte| byte.is_ascii_graphic()) && parsed.is_ok_and(|uri| is_plain(&uri))
}

pub(super) fn shown(crl: &Crl) -> String {
    let mut text = String::from("crl:\n");
    // Writing to a String cannot fail.
    if let Some(url) = &crl.url {
        let _ = writeln!(text, "  url: {url:?}");
    }
    let _ = writeln!(text, "  shards: {}\n  life: {}", crl.points.shards(), config::Duration(crl.life));
    if let Some(export) = &crl.export {
        let _ = writeln!(text, "  export:\n{}", target::shown(export, "    "));
    }
    text
}
