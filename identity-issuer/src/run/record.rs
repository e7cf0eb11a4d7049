//! What is done with the record from time to time: it is counted, and what is long over leaves it.

use std::time::Duration;

use signet_identity::SharedClock;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::store::Store;

const COUNT_INTERVAL: Duration = Duration::from_secs(15);
/// One part of so many of the time is spent on counting, at most.
const COUNT_SHARE: u32 = 20;
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);
/// Between parts of what is long over: as much leaves as can be issued.
const SWEEP_PAUSE: Duration = Duration::from_millis(50);

/// Keeps the gauges of what is on record in step.
pub(super) async fn count(store: Store, metrics: Metrics, clock: SharedClock) {
    loop {
        let began = Instant::now();
        match store.counts(clock.now()).await {
            Ok(counts) => metrics.identities(counts),
            Err(error) => tracing::warn!(%error, "certificates on record cannot be counted"),
        }
        // Many millions take seconds.
        tokio::time::sleep(COUNT_INTERVAL.max(began.elapsed() * COUNT_SHARE)).await;
    }
}

/// Forgets what is long over: certificates, when `keep` has passed since their ends.
pub(super) async fn sweep(store: Store, keep: Duration) {
    loop {
        let pause = match store.sweep(keep).await {
            Ok(true) => SWEEP_INTERVAL,
            Ok(false) => SWEEP_PAUSE,
            // Where there is no room for it, the next one does it.
            Err(_) => SWEEP_INTERVAL,
        };
        tokio::time::sleep(pause).await;
    }
}
