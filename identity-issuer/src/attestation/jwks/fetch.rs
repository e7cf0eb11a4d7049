//! A key set that is fetched over HTTPS, from the one address that the operator wrote down: no redirect is followed, and nothing
//! that a caller sent is part of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::{JwksError, KeySet, MAX_SET};
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

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Remote {
    pub(super) async fn fetch(&self) -> Result<KeySet, JwksError> {
        let failed = |cause: String| JwksError::Fetch { url: self.url.to_string(), cause };
        let body = match tokio::time::timeout(TIMEOUT, self.body()).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return Err(failed(signet_process::start::Report::of(&*error).cause)),
            Err(_) => return Err(failed(format!("no answer within {} s", TIMEOUT.as_secs()))),
        };
        KeySet::parse(&body)
    }

    async fn body(&self) -> Result<Bytes, Failure> {
        let host = self.url.host().ok_or("the URL names no host")?;
        let tcp = TcpStream::connect((bare(host), self.url.port_u16().unwrap_or(443))).await?;
        let name = ServerName::try_from(bare(host).to_owned())?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        let request = self.request().await?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            if answer.status() != http::StatusCode::OK {
                return Err(format!("the answer is {}", answer.status()).into());
            }
            Ok::<_, Failure>(Limited::new(answer.into_body(), MAX_SET).collect().await?.to_bytes())
        };
        tokio::select! {
            body = exchange => body,
            // It ends first only when it fails; else the exchange has all that it wants from it.
            Err(error) = connection => Err(error.into()),
        }
    }

    async fn request(&self) -> Result<Request<Empty<Bytes>>, Failure> {
        let authority = self.url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let path = self.url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut request = Request::get(path).header(HOST, authority).header(ACCEPT, "application/json");
        if let Some(file) = &self.bearer_file {
            let file = file.clone();
            let bearer = tokio::task::spawn_blocking(move || secret_file::read(&file, MAX_BEARER)).await??;
            // hyper's copies of it are not wiped.
            let mut value = http::HeaderValue::try_from(&*Zeroizing::new(format!("Bearer {}", bearer.trim_ascii())))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        Ok(request.body(Empty::new())?)
    }
}

/// An IPv6 address stands in brackets in a URL, and nowhere else.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
pub(super) mod tests;
