//! Accepting connections, from the first to the end of the last.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After an accept that failed, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves each connection in a task of its own until `stop`; then lets them end by themselves, for `drain` at most.
pub(crate) async fn accept<S>(
    listener: TcpListener,
    stop: CancellationToken,
    drain: Duration,
    mut serve: impl FnMut(TcpStream, SocketAddr) -> S,
) where
    S: Future<Output = ()> + Send + 'static,
{
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((tcp, address)) => {
                    let serving = serve(tcp, address);
                    let cut = cut.clone();
                    connections.spawn(async move { cut.run_until_cancelled(serving).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accepting).await;
    drop(listener);
    connections.close();
    if tokio::time::timeout(drain, connections.wait()).await.is_err() {
        tracing::info!(connections = connections.len(), "connections cut off at shutdown");
        cut.cancel();
        connections.wait().await;
    }
}
