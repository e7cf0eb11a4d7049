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
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use signet_process::config::{self, ConfigError, Located};

use super::file::{number_within, seconds, within};
use crate::crl::{Bucket, DistributionPoints, ExportTo};

#[derive(Clone, Debug)]
pub(crate) struct Crl {
    /// As it is written.
    url: Option<String>,
    pub(crate) points: DistributionPoints,
    /// From thisUpdate to nextUpdate.
    pub(crate) life: Duration,
    pub(crate) export: Option<ExportTo>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CrlFile {
    url: Option<Located<String>>,
    shards: Located<u64>,
    life: Located<config::Duration>,
    export: Option<ExportFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportFile {
    url: Located<String>,
    region: Option<String>,
    endpoint: Option<Located<String>>,
    access_key_id_file: Option<PathBuf>,
    secret_access_key_file: Option<PathBuf>,
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

impl ExportFile {
    fn resolve(self, path: &Path) -> Result<ExportTo, ConfigError> {
        let wrong = |what: &str, fix: &str| self.url.error(path, format!("`url` {what}"), fix);
        if let Some(folder) = self.url.strip_prefix("file://") {
            let is_alone = self.region.is_none()
                && self.endpoint.is_none()
                && self.access_key_id_file.is_none()
                && self.secret_access_key_file.is_none();
            return match (folder.starts_with('/'), is_alone) {
                (true, true) => Ok(ExportTo::Folder(folder.into())),
                (false, _) => Err(wrong("names no absolute folder", "write file:///srv/crl")),
                (_, false) => Err(wrong("is a folder, which needs nothing else", "leave the other keys out")),
            };
        }
        let Some((name, prefix)) =
            self.url.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        else {
            return Err(wrong("is neither a folder nor a bucket", "write file:///FOLDER or s3://BUCKET/PREFIX"));
        };
        let is_name = |name: &str| {
            (3..=63).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
        };
        if !is_name(name) {
            return Err(wrong("names no bucket", "write s3://BUCKET/PREFIX"));
        }
        let (Some(id), Some(key)) = (&self.access_key_id_file, &self.secret_access_key_file) else {
            return Err(wrong("is a bucket without a key", "write `access_key_id_file` and `secret_access_key_file`"));
        };
        if let Some(endpoint) = self.endpoint.as_ref().filter(|endpoint| !is_safe(endpoint)) {
            let fix = "write https://HOST; http:// is for this machine alone";
            return Err(endpoint.error(path, format!("`endpoint` is {:?}", endpoint.value), fix));
        }
        Ok(ExportTo::Bucket(Bucket {
            name: name.to_owned(),
            prefix: prefix.trim_end_matches('/').to_owned(),
            region: self.region.clone().unwrap_or_else(|| "us-east-1".to_owned()),
            endpoint: self.endpoint.as_ref().map(|endpoint| endpoint.value.clone()),
            access_key_id_file: config::beside(path, id),
            secret_access_key_file: config::beside(path, key),
        }))
    }
}

/// Whoever listens on the way would have the lists, and could keep new ones back.
fn is_safe(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<http::Uri>() else { return false };
    let is_local = uri.host().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
    match uri.scheme_str() {
        Some("https") => uri.host().is_some(),
        Some("http") => is_local,
        _ => false,
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
    match &crl.export {
        None => {}
        Some(ExportTo::Folder(folder)) => {
            let _ = writeln!(text, "  export:\n    url: {:?}", format!("file://{}", folder.display()));
        }
        Some(ExportTo::Bucket(bucket)) => {
            let Bucket { name, prefix, region, endpoint, access_key_id_file, secret_access_key_file } = bucket;
            let _ = writeln!(text, "  export:\n    url: {:?}\n    region: {region:?}", format!("s3://{name}/{prefix}"));
            if let Some(endpoint) = endpoint {
                let _ = writeln!(text, "    endpoint: {endpoint:?}");
            }
            for (key, file) in
                [("access_key_id_file", access_key_id_file), ("secret_access_key_file", secret_access_key_file)]
            {
                let _ = writeln!(text, "    {key}: {:?}", file.display().to_string());
            }
        }
    }
    text
}
