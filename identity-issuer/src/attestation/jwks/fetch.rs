//! A key set that is fetched over HTTPS, from the one address that the operator wrote down: no redirect is followed, and nothing
//! that a caller sent is part of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Uri};
use zeroize::Zeroizing;

use super::{JwksError, KeySet, MAX_SET};
use crate::https::{self, Failure};
use crate::secret_file;

/// Where to fetch from.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) url: Uri,
    /// Whom to believe.
    pub(crate) tls: Arc<rustls::ClientConfig>,
    /// A file with what is sent as a bearer token, read each time: an API server of Kubernetes may want one.
    pub(crate) bearer_file: Option<PathBuf>,
}

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BEARER: usize = 16 << 10;

impl Remote {
    pub(super) async fn fetch(&self) -> Result<KeySet, JwksError> {
        let failed = |cause: String| JwksError::Fetch { url: self.url.to_string(), cause };
        let headers = self.headers().await.map_err(|error| failed(signet_process::start::Report::of(&*error).cause))?;
        KeySet::parse(&https::get(&self.url, &self.tls, headers, MAX_SET, TIMEOUT).await.map_err(failed)?)
    }

    async fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(file) = &self.bearer_file {
            let file = file.clone();
            let bearer = tokio::task::spawn_blocking(move || secret_file::read(&file, MAX_BEARER)).await??;
            // hyper's copies of it are not wiped.
            let mut value = HeaderValue::try_from(&*Zeroizing::new(format!("Bearer {}", bearer.trim_ascii())))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

#[cfg(test)]
pub(super) mod tests;
