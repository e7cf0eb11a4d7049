//! HTTP/2 by hyper, for requests that curl itself would not send.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::files::IdentityFiles;
use crate::tls::client_config;

/// Sends a GET with one more header on a new connection and returns the answer's status.
///
/// # Errors
/// What the connection or HTTP said.
pub fn get_plain(address: SocketAddr, path: &str, header: (&str, &str)) -> anyhow::Result<u16> {
    runtime().block_on(async { get(TcpStream::connect(address).await?, path, header).await })
}

/// The same over mTLS.
///
/// # Errors
/// As [`get_plain`].
pub fn get_mtls(address: SocketAddr, files: &IdentityFiles, path: &str, header: (&str, &str)) -> anyhow::Result<u16> {
    runtime().block_on(async {
        let connector = TlsConnector::from(client_config(files, &["h2"]));
        let tcp = TcpStream::connect(address).await?;
        let tls = connector.connect(ServerName::IpAddress(address.ip().into()), tcp).await?;
        get(tls, path, header).await
    })
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    (name, value): (&str, &str),
) -> anyhow::Result<u16> {
    let (mut client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let uri = format!("http://test{path}");
    let answer = client.send_request(Request::get(uri).header(name, value).body(Empty::<Bytes>::new())?).await?;
    connection.abort();
    Ok(answer.status().as_u16())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
