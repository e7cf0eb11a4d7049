//! Whoever is sent what is made for them, and may stop reading without leaving.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendTimeoutError;

/// For which nothing may be read.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Blocks until there is room for it, on a thread of the runtime for what blocks. Fails as `TimedOut` where there was none for so long, and as
/// `BrokenPipe` where nobody reads any more.
pub(crate) fn send<T>(to: &Sender<T>, item: T, patience: Duration) -> std::io::Result<()> {
    Handle::current().block_on(to.send_timeout(item, patience)).map_err(|error| match error {
        SendTimeoutError::Timeout(_) => {
            std::io::Error::new(ErrorKind::TimedOut, format!("nothing of it was read for {} s", patience.as_secs()))
        }
        SendTimeoutError::Closed(_) => ErrorKind::BrokenPipe.into(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::mpsc;
    use tokio::task::spawn_blocking;

    use super::*;

    #[tokio::test]
    async fn who_reads_is_waited_for_and_who_stops_is_not() {
        let (sender, mut receiver) = mpsc::channel(1);
        let sending = sender.clone();
        let sent = spawn_blocking(move || (1..=3).try_for_each(|item| send(&sending, item, PATIENCE)));
        for item in 1..=3 {
            assert_eq!(receiver.recv().await, Some(item));
        }
        sent.await.unwrap().unwrap();

        let sending = sender.clone();
        let stalled =
            spawn_blocking(move || (1..=3).try_for_each(|item| send(&sending, item, Duration::from_millis(20))));
        assert_eq!(stalled.await.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        drop(receiver);
        let left = spawn_blocking(move || send(&sender, 4, PATIENCE));
        assert_eq!(left.await.unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
