//! Where the issuer puts what others serve: a folder, or a bucket of an object storage that speaks S3.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{
    Attribute, Attributes, ClientOptions, ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions,
    PutPayload, RetryConfig, WriteMultipart,
};
use tokio::io::AsyncReadExt as _;

use crate::secret_file;

/// No secret is in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Target {
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

/// How those who fetch a file are to take it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServedAs {
    pub(crate) content_type: &'static str,
    pub(crate) cache_control: &'static str,
}

/// A target with its secrets: for a short time, as a secret may be another one later.
#[derive(Debug)]
pub(crate) struct OpenTarget {
    store: Box<dyn ObjectStore>,
    prefix: String,
    /// A folder has no place for them.
    has_attributes: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("{} cannot be used", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] object_store::Error),
    #[error("nothing was answered within {} s", LIMIT.as_secs())]
    Slow,
    #[error("{name} has {size} bytes, and {most} are the most")]
    TooLong { name: String, size: u64, most: usize },
}

/// For one file.
const LIMIT: Duration = Duration::from_secs(30);
/// In bytes, of what is put in one piece: S3 has no smaller parts than 5 MiB.
const PART: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 2;
/// In bytes.
const MAX_SECRET: usize = 4096;

impl Target {
    pub(crate) fn open(&self) -> Result<OpenTarget, TargetError> {
        let (store, prefix, has_attributes): (Box<dyn ObjectStore>, _, _) = match self {
            Self::Folder(path) => {
                let failed = |source| TargetError::File { path: path.clone(), source };
                std::fs::create_dir_all(path).map_err(failed)?;
                (Box::new(LocalFileSystem::new_with_prefix(path)?), String::new(), false)
            }
            Self::Bucket(bucket) => (bucket.open()?, bucket.prefix.clone(), true),
        };
        Ok(OpenTarget { store, prefix, has_attributes })
    }
}

impl Bucket {
    fn open(&self) -> Result<Box<dyn ObjectStore>, TargetError> {
        let secret = |path: &PathBuf| {
            let text = secret_file::read(path, MAX_SECRET);
            text.map_err(|source| TargetError::File { path: path.clone(), source })
        };
        let (id, key) = (secret(&self.access_key_id_file)?, secret(&self.secret_access_key_file)?);
        let is_plain = self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.name)
            .with_region(&self.region)
            .with_access_key_id(id.trim())
            .with_secret_access_key(key.trim())
            .with_client_options(ClientOptions::new().with_allow_http(is_plain).with_timeout(LIMIT))
            // Whoever puts something tries again.
            .with_retry(RetryConfig { max_retries: 0, retry_timeout: LIMIT, ..RetryConfig::default() });
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        Ok(Box::new(builder.build()?))
    }
}

impl OpenTarget {
    /// In the place of what had that name. Whoever reads it sees the one or the other.
    pub(crate) async fn put(&self, name: &str, bytes: Bytes, served: ServedAs) -> Result<(), TargetError> {
        let options = PutOptions { attributes: self.attributes(served), ..PutOptions::default() };
        let (path, payload) = (self.path(name), PutPayload::from(bytes));
        in_time(self.store.put_opts(&path, payload, options)).await.map(drop)
    }

    /// The same of a file of any length. Of one that is long, a part is in memory at a time.
    pub(crate) async fn put_file(&self, name: &str, file: &Path, served: ServedAs) -> Result<(), TargetError> {
        let failed = |source| TargetError::File { path: file.to_owned(), source };
        let mut from = tokio::fs::File::open(file).await.map_err(failed)?;
        if from.metadata().await.map_err(failed)?.len() <= PART as u64 {
            return self.put(name, tokio::fs::read(file).await.map_err(failed)?.into(), served).await;
        }
        let options = PutMultipartOptions { attributes: self.attributes(served), ..PutMultipartOptions::default() };
        let upload = in_time(self.store.put_multipart_opts(&self.path(name), options)).await?;
        let mut writing = WriteMultipart::new_with_chunk_size(upload, PART);
        let copied = async {
            loop {
                let mut bytes = BytesMut::with_capacity(PART / 8);
                if from.read_buf(&mut bytes).await.map_err(failed)? == 0 {
                    return Ok(());
                }
                in_time(writing.wait_for_capacity(PARTS_AT_ONCE)).await?;
                writing.put(bytes.freeze());
            }
        };
        match copied.await {
            Ok(()) => in_time(writing.finish()).await.map(drop),
            Err(error) => {
                // What came of it is of no use to anybody; the error is what counts.
                drop(writing.abort().await);
                Err(error)
            }
        }
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<(), TargetError> {
        let path = self.path(name);
        in_time(self.store.delete(&path)).await
    }

    /// At most `most` bytes; None where there is no such file.
    pub(crate) async fn get(&self, name: &str, most: usize) -> Result<Option<Bytes>, TargetError> {
        let path = self.path(name);
        let getting = async {
            let got = match self.store.get(&path).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                got => got?,
            };
            match got.meta.size > most as u64 {
                true => Err(TargetError::TooLong { name: name.to_owned(), size: got.meta.size, most }),
                false => Ok(Some(got.bytes().await?)),
            }
        };
        tokio::time::timeout(LIMIT, getting).await.map_err(|_| TargetError::Slow)?
    }

    fn attributes(&self, served: ServedAs) -> Attributes {
        let said = [(Attribute::ContentType, served.content_type), (Attribute::CacheControl, served.cache_control)];
        said.into_iter().filter(|_| self.has_attributes).collect()
    }

    fn path(&self, name: &str) -> ObjectPath {
        self.prefix.split('/').chain(name.split('/')).filter(|part| !part.is_empty()).collect()
    }
}

async fn in_time<T>(doing: impl Future<Output = Result<T, object_store::Error>>) -> Result<T, TargetError> {
    Ok(tokio::time::timeout(LIMIT, doing).await.map_err(|_| TargetError::Slow)??)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SERVED: ServedAs = ServedAs { content_type: "text/plain", cache_control: "no-cache" };

    #[tokio::test]
    async fn a_file_of_any_length_is_put_as_it_is_and_takes_the_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let (to, file) = (folder.path().join("to"), folder.path().join("file"));
        let target = Target::Folder(to.clone()).open().unwrap();
        for length in [0, 1, PART, PART + 1, 3 * PART + 7] {
            let content: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
            std::fs::write(&file, &content).unwrap();
            target.put_file("a/b", &file, SERVED).await.unwrap();
            assert!(std::fs::read(to.join("a/b")).unwrap() == content, "{length}");
            let got = target.get("a/b", length).await.unwrap().unwrap();
            assert!(got == content, "{length}");
        }
        assert!(matches!(target.get("a/b", PART).await, Err(TargetError::TooLong { .. })));
        assert!(target.get("a/c", PART).await.unwrap().is_none());
        let missing = target.put_file("a/c", &folder.path().join("missing"), SERVED).await;
        assert!(matches!(missing, Err(TargetError::File { .. })));
    }
}
