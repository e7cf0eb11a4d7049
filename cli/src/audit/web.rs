//! Files at a web address.

use std::io;
use std::time::Duration;

use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};
use tokio::runtime::Runtime;

use crate::failure::Failure;

/// What is below one URL.
pub(crate) struct Web {
    store: Box<dyn ObjectStore>,
    runtime: Runtime,
}

/// For one file.
const LIMIT: Duration = Duration::from_secs(30);

impl Web {
    /// None where the text is no http:// nor https:// URL.
    pub(crate) fn of(url: &str) -> Result<Option<Self>, Failure> {
        let is_plain = url.starts_with("http://");
        if !is_plain && !url.starts_with("https://") {
            return Ok(None);
        }
        let options = ClientOptions::new().with_allow_http(is_plain).with_timeout(LIMIT);
        let retry = RetryConfig { max_retries: 2, retry_timeout: LIMIT, ..RetryConfig::default() };
        let store = HttpBuilder::new().with_url(url).with_client_options(options).with_retry(retry).build();
        let store = store.map_err(|error| Failure::from_error(&error))?;
        let runtime = Runtime::new().map_err(|error| Failure::from_error(&error))?;
        Ok(Some(Self { store: Box::new(store), runtime }))
    }

    /// One file of at most so many bytes; none where there is none.
    pub(crate) fn read(&self, path: &str, most: usize) -> io::Result<Option<Vec<u8>>> {
        self.runtime.block_on(async {
            let got = match self.store.get(&Path::from(path)).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                got => got?,
            };
            if got.meta.size > most as u64 {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("it has {} bytes, more than {most}", got.meta.size),
                ));
            }
            Ok(Some(got.bytes().await?.to_vec()))
        })
    }
}
