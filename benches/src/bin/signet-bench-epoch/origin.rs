//! The plain service behind the gateway, on a thread of its own.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::connection::ANSWER;

/// Starts it; returns where it listens.
pub(crate) fn origin() -> anyhow::Result<SocketAddr> {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    thread::Builder::new()
        .name("origin".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = TcpListener::from_std(socket)?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    tokio::spawn(answer_all(stream));
                }
            })
        })
        .map(|_: JoinHandle<anyhow::Result<()>>| address)
        .map_err(Into::into)
}

async fn answer_all(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let answer = [b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n", ANSWER].concat();
    let mut request = Vec::with_capacity(1024);
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            anyhow::ensure!(stream.read_buf(&mut request).await? > 0, "closed");
        }
        request.clear();
        stream.write_all(&answer).await?;
    }
}
