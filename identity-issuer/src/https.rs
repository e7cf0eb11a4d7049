//! One document from one URL, over HTTPS: no redirect is followed, and neither time nor size is the server's to choose.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is at `url`, `most` bytes of it at most, within `timeout`; or why it cannot be had, in one line.
pub(crate) async fn get(
    url: &Uri,
    tls: &Arc<rustls::ClientConfig>,
    headers: HeaderMap,
    most: usize,
    timeout: Duration,
) -> Result<Bytes, String> {
    match tokio::time::timeout(timeout, body(url, tls, headers, most)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) => Err(signet_process::start::Report::of(&*error).cause),
        Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
    }
}

async fn body(url: &Uri, tls: &Arc<rustls::ClientConfig>, headers: HeaderMap, most: usize) -> Result<Bytes, Failure> {
    let host = url.host().ok_or("the URL names no host")?;
    let tcp = TcpStream::connect((bare(host), url.port_u16().unwrap_or(443))).await?;
    let name = ServerName::try_from(bare(host).to_owned())?;
    let tls = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut request = Request::get(path).header(HOST, authority).header(ACCEPT, "application/json");
    if let Some(more) = request.headers_mut() {
        more.extend(headers);
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the answer is {}", answer.status()).into());
        }
        Ok::<_, Failure>(Limited::new(answer.into_body(), most).collect().await?.to_bytes())
    };
    tokio::select! {
        body = exchange => body,
        // It ends first only when it fails; else the exchange has all that it wants from it.
        Err(error) = connection => Err(error.into()),
    }
}

/// An IPv6 address stands in brackets in a URL, and nowhere else.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
