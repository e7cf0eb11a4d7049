//! Lists are put where others serve them: a folder, or a bucket of an object storage that speaks S3.
//!
//! What cannot be put is tried again, after longer and longer; nothing waits for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{Attribute, Attributes, ClientOptions, ObjectStore, PutOptions, RetryConfig};

use super::{Crls, Place};
use crate::complaint::Complaint;
use crate::secret_file;

/// Where lists are put. No secret is in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ExportTo {
    Folder(PathBuf),
    Bucket(Bucket),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    /// Before each name; empty for none.
    pub(crate) prefix: String,
    pub(crate) region: String,
    /// None for Amazon's.
    pub(crate) endpoint: Option<String>,
    pub(crate) access_key_id_file: PathBuf,
    pub(crate) secret_access_key_file: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("{} cannot be used", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] object_store::Error),
    #[error("nothing was answered within {} s", LIMIT.as_secs())]
    Slow,
}

/// For one list.
const LIMIT: Duration = Duration::from_secs(30);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// In bytes.
const MAX_SECRET: usize = 4096;

/// Until cancelled.
pub(crate) async fn run(crls: Crls, to: ExportTo) {
    let mut changes = crls.changes();
    let mut put: BTreeMap<Place, u128> = BTreeMap::new();
    let (mut complaint, mut wait) = (Complaint::default(), FIRST_WAIT);
    loop {
        changes.mark_unchanged();
        match export(&crls, &to, &mut put).await {
            Ok(()) => {
                complaint.clear();
                wait = FIRST_WAIT;
                if changes.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                crls.export_failed();
                if let Some(cause) = complaint.of(&error) {
                    tracing::error!(cause, "CRLs are not exported, and are tried again");
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// Puts what is newer than what was put.
async fn export(crls: &Crls, to: &ExportTo, put: &mut BTreeMap<Place, u128>) -> Result<(), ExportError> {
    let all = crls.all();
    put.retain(|place, _| all.iter().any(|(found, _)| found == place));
    let newer: Vec<_> = all.into_iter().filter(|(place, list)| put.get(place) != Some(&list.number)).collect();
    if newer.is_empty() {
        return Ok(());
    }
    // Each time anew: a secret may be another by now.
    let (store, prefix, attributes) = open(to)?;
    for (place, list) in newer {
        let path = ObjectPath::from_iter(
            prefix
                .split('/')
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .chain([place.authority.clone(), format!("{}.crl", place.shard)]),
        );
        let options = PutOptions { attributes: attributes.clone(), ..PutOptions::default() };
        let putting = store.put_opts(&path, list.der.clone().into(), options);
        tokio::time::timeout(LIMIT, putting).await.map_err(|_| ExportError::Slow)??;
        put.insert(place, list.number);
    }
    Ok(())
}

fn open(to: &ExportTo) -> Result<(Box<dyn ObjectStore>, &str, Attributes), ExportError> {
    match to {
        ExportTo::Folder(path) => {
            let failed = |source| ExportError::File { path: path.clone(), source };
            std::fs::create_dir_all(path).map_err(failed)?;
            Ok((Box::new(LocalFileSystem::new_with_prefix(path)?), "", Attributes::new()))
        }
        ExportTo::Bucket(bucket) => {
            let secret = |path: &PathBuf| {
                let text = secret_file::read(path, MAX_SECRET);
                text.map_err(|source| ExportError::File { path: path.clone(), source })
            };
            let (id, key) = (secret(&bucket.access_key_id_file)?, secret(&bucket.secret_access_key_file)?);
            let is_plain = bucket.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(&bucket.name)
                .with_region(&bucket.region)
                .with_access_key_id(id.trim())
                .with_secret_access_key(key.trim())
                .with_client_options(ClientOptions::new().with_allow_http(is_plain).with_timeout(LIMIT))
                // Tried again here.
                .with_retry(RetryConfig { max_retries: 0, retry_timeout: LIMIT, ..RetryConfig::default() });
            if let Some(endpoint) = &bucket.endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            let attributes = [
                (Attribute::ContentType, "application/pkix-crl"),
                (Attribute::CacheControl, "public, max-age=300, must-revalidate"),
            ];
            Ok((Box::new(builder.build()?), &bucket.prefix, attributes.into_iter().collect()))
        }
    }
}
