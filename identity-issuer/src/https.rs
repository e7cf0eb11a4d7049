//! One answer from one URL, over HTTPS: no redirect is followed, and neither time nor size is the server's to choose.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
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
    let mut request = Request::get(path(url)).header(HOST, authority(url)).header(ACCEPT, "application/json");
    if let Some(more) = request.headers_mut() {
        more.extend(headers);
    }
    let (status, body) = exchange(url, Some(tls), request.body(Full::default())?, most).await?;
    match status {
        StatusCode::OK => Ok(body),
        status => Err(format!("the answer is {status}").into()),
    }
}

/// What is answered to `body`, whatever the status: `most` bytes of it at most, within `timeout`. Without `tls`, it is not encrypted.
pub(crate) async fn post(
    url: &Uri,
    tls: Option<&Arc<rustls::ClientConfig>>,
    body: Bytes,
    most: usize,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), String> {
    let asking = async {
        let request = Request::post(path(url)).header(HOST, authority(url)).body(Full::new(body))?;
        exchange(url, tls, request, most).await
    };
    match tokio::time::timeout(timeout, asking).await {
        Ok(answered) => answered.map_err(|error| signet_process::start::Report::of(&*error).cause),
        Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
    }
}

async fn exchange(
    url: &Uri,
    tls: Option<&Arc<rustls::ClientConfig>>,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<(StatusCode, Bytes), Failure> {
    let host = bare(url.host().ok_or("the URL names no host")?);
    let port = url.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let tcp = TcpStream::connect((host, port)).await?;
    let Some(tls) = tls else { return exchange_over(tcp, request, most).await };
    let name = ServerName::try_from(host.to_owned())?;
    exchange_over(TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await?, request, most).await
}

async fn exchange_over<S>(stream: S, request: Request<Full<Bytes>>, most: usize) -> Result<(StatusCode, Bytes), Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        Ok::<_, Failure>((status, Limited::new(answer.into_body(), most).collect().await?.to_bytes()))
    };
    tokio::select! {
        answer = exchange => answer,
        // It ends first only when it fails; else the exchange has all that it wants from it.
        Err(error) = connection => Err(error.into()),
    }
}

fn path(url: &Uri) -> &str {
    url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

fn authority(url: &Uri) -> &str {
    url.authority().map(http::uri::Authority::as_str).unwrap_or_default()
}

/// An IPv6 address stands in brackets in a URL, and nowhere else.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
