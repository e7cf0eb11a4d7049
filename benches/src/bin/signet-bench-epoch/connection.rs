//! One connection of a caller to the gateway, and a request on it.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// One caller of the fleet.
pub(crate) struct Connection {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) stays: bool,
}

pub(crate) async fn connect(config: Arc<ClientConfig>, address: SocketAddr) -> anyhow::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(TlsConnector::from(config).connect(ServerName::try_from("gateway.invalid")?, tcp).await?)
}

pub(crate) async fn ask(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: origin\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(512);
    while !answer.ends_with(ANSWER) {
        anyhow::ensure!(stream.read_buf(&mut answer).await? > 0, "the gateway closed the connection");
        let begin = &answer[..answer.len().min(OK.len())];
        anyhow::ensure!(OK.starts_with(begin), "the gateway answers: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

const OK: &[u8] = b"HTTP/1.1 200 ";
pub(crate) const ANSWER: &[u8] = b"answered";
