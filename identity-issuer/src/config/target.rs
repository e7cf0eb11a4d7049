//! A folder or a bucket, wherever a section names one.
//!
//! ```yaml
//! url: s3://bucket/prefix            # or file:///srv/folder
//! region: eu-central-1
//! endpoint: https://s3.example.org   # where it is not Amazon's
//! access_key_id_file: s3-id
//! secret_access_key_file: s3-secret
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use signet_process::config::{self, ConfigError, Located};

use crate::target::{Bucket, Target};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetFile {
    url: Located<String>,
    region: Option<String>,
    endpoint: Option<Located<String>>,
    access_key_id_file: Option<PathBuf>,
    secret_access_key_file: Option<PathBuf>,
}

impl TargetFile {
    pub(super) fn resolve(self, path: &Path) -> Result<Target, ConfigError> {
        let wrong = |what: &str, fix: &str| self.url.error(path, format!("`url` {what}"), fix);
        if let Some(folder) = self.url.strip_prefix("file://") {
            let is_alone = self.region.is_none()
                && self.endpoint.is_none()
                && self.access_key_id_file.is_none()
                && self.secret_access_key_file.is_none();
            return match (folder.starts_with('/'), is_alone) {
                (true, true) => Ok(Target::Folder(folder.into())),
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
        Ok(Target::Bucket(Bucket {
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
pub(super) fn is_safe(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<http::Uri>() else { return false };
    let is_local = uri.host().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
    match uri.scheme_str() {
        Some("https") => uri.host().is_some(),
        Some("http") => is_local,
        _ => false,
    }
}

/// As it would be written in a file, each line behind `indent`, without the last end of a line.
pub(super) fn shown(target: &Target, indent: &str) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    match target {
        Target::Folder(folder) => {
            let _ = write!(text, "{indent}url: {:?}", format!("file://{}", folder.display()));
        }
        Target::Bucket(bucket) => {
            let Bucket { name, prefix, region, endpoint, access_key_id_file, secret_access_key_file } = bucket;
            let _ = write!(text, "{indent}url: {:?}\n{indent}region: {region:?}", format!("s3://{name}/{prefix}"));
            if let Some(endpoint) = endpoint {
                let _ = write!(text, "\n{indent}endpoint: {endpoint:?}");
            }
            for (key, file) in
                [("access_key_id_file", access_key_id_file), ("secret_access_key_file", secret_access_key_file)]
            {
                let _ = write!(text, "\n{indent}{key}: {:?}", file.display().to_string());
            }
        }
    }
    text
}
