//! A plain HTTP client, for what an issuer publishes and what a process tells of itself.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[derive(Debug, Default)]
pub struct Document {
    /// What tells it from the one that is there after it. Empty where nothing does.
    pub etag: String,
    pub body: Vec<u8>,
}

/// What is at a path; nothing where that is not there, or is what `known` names.
pub async fn get(address: SocketAddr, path: &str, known: &str) -> anyhow::Result<Option<Document>> {
    let mut tcp = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\nif-none-match: {known}\r\n\r\n");
    tcp.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("an answer without a head")?;
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer);
    let (status, headers) = head.split_once("\r\n").unwrap_or_default();
    let etag =
        headers.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| name.eq_ignore_ascii_case("etag"));
    let etag = etag.map(|(_, etag)| etag.to_owned()).unwrap_or_default();
    Ok(status.starts_with("HTTP/1.1 200").then_some(Document { etag, body }))
}
