//! What is going on, for whoever waits, and waiting itself.

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) fn say(what: fmt::Arguments<'_>) {
    eprintln!("[{:6.1} s] {what}", BEGAN.elapsed().as_secs_f64());
}

/// Looks until it is so, at most for `patience`.
///
/// # Errors
/// It is not so by then, or cannot be looked at.
pub(crate) async fn until(
    what: &str,
    patience: Duration,
    mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    while !is_so().await? {
        anyhow::ensure!(began.elapsed() < patience, "{what}: not after {} s", patience.as_secs());
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
