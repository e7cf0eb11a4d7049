//! Where a log is: a folder, or a web address that a copy of such a folder is behind.

use std::time::Duration;

use object_store::http::HttpBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};
use signet_audit::{Folder, Resource, Source};
use tokio::runtime::Runtime;

use crate::failure::Failure;

pub(crate) enum Place {
    Folder(Folder),
    Web { store: Box<dyn ObjectStore>, runtime: Runtime },
}

/// For one file.
const LIMIT: Duration = Duration::from_secs(30);

impl Place {
    pub(crate) fn of(text: &str) -> Result<Self, Failure> {
        let is_plain = text.starts_with("http://");
        if !is_plain && !text.starts_with("https://") {
            return match std::path::Path::new(text).is_dir() {
                true => Ok(Self::Folder(Folder::new(text))),
                false => Err(Failure::new(format!("{text} is no folder"))
                    .remedy("give the folder that has `checkpoint` and `tile`, or an http:// or https:// URL")),
            };
        }
        let options = ClientOptions::new().with_allow_http(is_plain).with_timeout(LIMIT);
        let retry = RetryConfig { max_retries: 2, retry_timeout: LIMIT, ..RetryConfig::default() };
        let store = HttpBuilder::new().with_url(text).with_client_options(options).with_retry(retry).build();
        let store =
            store.map_err(|error| Failure::from_error(&error).or_remedy("give the URL that the log is below"))?;
        let runtime = Runtime::new().map_err(|error| Failure::from_error(&error))?;
        Ok(Self::Web { store: Box::new(store), runtime })
    }
}

impl Source for Place {
    fn read(&self, resource: Resource, most: usize) -> std::io::Result<Option<Vec<u8>>> {
        let (store, runtime) = match self {
            Self::Folder(folder) => return folder.read(resource, most),
            Self::Web { store, runtime } => (store, runtime),
        };
        runtime.block_on(async {
            let got = match store.get(&ObjectPath::from(resource.to_string())).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                got => got?,
            };
            if got.meta.size > most as u64 {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::FileTooLarge,
                    format!("it has {} bytes, more than {most}", got.meta.size),
                ));
            }
            Ok(Some(got.bytes().await?.to_vec()))
        })
    }
}
