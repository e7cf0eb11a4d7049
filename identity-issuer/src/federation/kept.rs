//! What outlives a restart, in a file for each trust domain: the last good bundle, and a relationship that came by the command.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use signet_identity::TrustDomain;
use time::OffsetDateTime;

use super::{Document, Profile, Relationship};
use crate::pem_files;

#[derive(Debug, thiserror::Error)]
#[error("what is known of {trust_domain} cannot be kept in {}", path.display())]
pub(crate) struct KeepError {
    trust_domain: TrustDomain,
    path: PathBuf,
    source: std::io::Error,
}

/// Of one trust domain.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// None of one that the configuration names.
    pub(super) added: Option<Relationship>,
    pub(super) good: Option<Good>,
}

/// A bundle that was taken.
#[derive(Clone, Debug)]
pub(super) struct Good {
    pub(super) document: Document,
    /// As it was fetched.
    pub(super) text: String,
    pub(super) refreshed_at: OffsetDateTime,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    trust_domain: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    added: Option<Added>,
    /// As it was fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bundle: Option<String>,
    /// Unix seconds.
    refreshed_at: i64,
}

#[derive(Deserialize, Serialize)]
struct Added {
    url: String,
    #[serde(flatten)]
    profile: Profile,
}

/// Where these files are.
#[derive(Clone, Debug)]
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    /// Of a trust domain whose name is part of no path: it has no slash.
    fn file(&self, trust_domain: &TrustDomain) -> PathBuf {
        self.0.join(format!("{trust_domain}.json"))
    }

    /// All that was kept and can be read; what cannot is told, and fetched again.
    pub(super) fn read(&self) -> Vec<(TrustDomain, Kept)> {
        let Ok(entries) = std::fs::read_dir(&self.0) else { return Vec::new() };
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        files
            .filter_map(|path| {
                let read = read(&path);
                if read.is_none() {
                    tracing::warn!(path = %path.display(), "what was known of a federated trust domain cannot be read");
                }
                read
            })
            .collect()
    }

    pub(super) fn write(&self, trust_domain: &TrustDomain, kept: &Kept) -> Result<(), KeepError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = self.file(trust_domain);
        let failed = |source| KeepError { trust_domain: trust_domain.clone(), path: path.clone(), source };
        let file = File {
            trust_domain: trust_domain.to_string(),
            added: kept
                .added
                .as_ref()
                .map(|added| Added { url: added.url.to_string(), profile: added.profile.clone() }),
            bundle: kept.good.as_ref().map(|good| good.text.clone()),
            refreshed_at: kept.good.as_ref().map_or(0, |good| good.refreshed_at.unix_timestamp()),
        };
        let text = serde_json::to_string(&file).map_err(|error| failed(error.into()))?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(failed)?;
        pem_files::write_whole(&path, text.as_bytes()).map_err(failed)
    }

    pub(super) fn remove(&self, trust_domain: &TrustDomain) -> Result<(), KeepError> {
        let path = self.file(trust_domain);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(KeepError { trust_domain: trust_domain.clone(), path, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn read(path: &Path) -> Option<(TrustDomain, Kept)> {
    use std::io::Read as _;
    let mut text = Vec::new();
    std::fs::File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
    let file: File = serde_json::from_slice(&text).ok()?;
    let trust_domain: TrustDomain = file.trust_domain.parse().ok()?;
    if path.file_stem()?.to_str()? != trust_domain.as_str() {
        return None;
    }
    let added = match file.added {
        None => None,
        Some(Added { url, profile }) => {
            let relationship = Relationship { trust_domain: trust_domain.clone(), url: url.parse().ok()?, profile };
            relationship.check().ok()?;
            Some(relationship)
        }
    };
    let good = match file.bundle {
        None => None,
        Some(bundle) => Some(Good {
            document: Document::parse(&trust_domain, bundle.as_bytes()).ok()?,
            text: bundle,
            refreshed_at: OffsetDateTime::from_unix_timestamp(file.refreshed_at).ok()?,
        }),
    };
    Some((trust_domain, Kept { added, good }))
}

/// The largest bundle, written as text in text, and a relationship.
const MAX_FILE: u64 = 1 << 20;
