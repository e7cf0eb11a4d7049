//! How the servers of a bench listen: one current-thread runtime for each thread, each with its own listening socket.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// Runs `serve` on `threads` threads, each with a listener of its own on `address` (`SO_REUSEPORT`), and prints the address
/// once it is bound. Returns only when a thread fails.
pub fn on_each_thread<F>(address: SocketAddr, threads: NonZeroUsize, serve: F) -> io::Result<()>
where
    F: AsyncFn(TcpListener) -> io::Result<()> + Clone + Send + 'static,
{
    let first = bind(address)?;
    // Port 0 is the kernel's choice: the others follow the first.
    let address = first.local_addr()?;
    println!("listening on {address}");

    for _ in 1..threads.get() {
        let (socket, serve) = (bind(address)?, serve.clone());
        std::thread::Builder::new().spawn(move || run(socket, serve))?;
    }
    run(first, serve)
}

fn run(socket: std::net::TcpListener, serve: impl AsyncFn(TcpListener) -> io::Result<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::from_std(socket)?;
        serve(listener).await
    })
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}
