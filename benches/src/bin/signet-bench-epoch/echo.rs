//! What a caller notices whose own identity is not in question.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::SETTLE;
use crate::connection::{ask, connect};

/// Requests on one live connection, one each millisecond.
pub(crate) struct Echo {
    done: Arc<AtomicBool>,
    least: Instant,
    thread: JoinHandle<anyhow::Result<Duration>>,
}

impl Echo {
    pub(crate) fn start(config: Arc<ClientConfig>, address: SocketAddr, for_least: Duration) -> anyhow::Result<Self> {
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        let thread = thread::Builder::new().name("echo".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut stream = connect(config, address).await?;
                // The first ones open the way to the origin.
                for _ in 0..10 {
                    ask(&mut stream).await?;
                }
                let mut longest = Duration::ZERO;
                while !told.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    ask(&mut stream).await?;
                    longest = longest.max(asked.elapsed());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ok(longest)
            })
        })?;
        Ok(Self { done, least: Instant::now() + for_least, thread })
    }

    /// The longest that one of the requests took.
    pub(crate) async fn finish(self) -> anyhow::Result<Duration> {
        tokio::time::sleep_until((self.least + SETTLE).into()).await;
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the echo panicked"))?
    }
}
