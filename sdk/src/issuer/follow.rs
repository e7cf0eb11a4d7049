//! The issuer's stream: opened, read, and opened again when it breaks, for as long as one SVID is the newest.

use std::{convert::Infallible, pin::Pin, time::Duration};

use signet_identity::BundleSet;
use signet_proto::identity::v1::{RenewNow, WatchResponse, watch_response::Event};
use tokio::sync::mpsc;

use super::client::{CallError, IssuerClient};
use crate::{Monitor, backoff::Backoff, cause};

/// What the issuer wants to be done.
#[derive(Debug)]
pub(super) enum Wish {
    /// Trust these, and nothing else.
    Bundles(BundleSet),
    /// Renew at a random moment within this time.
    RenewNow { within: Duration },
}

/// Wishes that wait. When full, the stream is not read until there is room: its flow control holds the issuer back.
const BACKLOG: usize = 4;
/// No wish is spread over a longer time: certificates live at most this long.
const MAX_SPREAD: Duration = Duration::from_secs(24 * 3600);

/// An open stream, or the attempts to open one. Dropping it closes the stream.
pub(super) struct Following {
    wishes: mpsc::Receiver<Wish>,
    follow: Pin<Box<dyn Future<Output = Infallible> + Send>>,
}

impl Following {
    pub(super) fn new(client: IssuerClient, monitor: Monitor, backoff: Backoff) -> Self {
        let (sender, wishes) = mpsc::channel(BACKLOG);
        Self { wishes, follow: Box::pin(follow(client, monitor, sender, backoff)) }
    }

    /// The next wish. May be dropped and called again: nothing is lost.
    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            // The order keeps what was received ahead of what is yet to be read.
            biased;
            Some(wish) = self.wishes.recv() => wish,
            never = &mut self.follow => match never {},
        }
    }
}

async fn follow(
    client: IssuerClient,
    monitor: Monitor,
    wishes: mpsc::Sender<Wish>,
    mut backoff: Backoff,
) -> Infallible {
    loop {
        let end = read(&client, &monitor, &wishes, &mut backoff).await;
        let cause = cause::whole(&end);
        if end.is_of_the_issuer() {
            client.give_up();
        }
        if let CallError::Answer { .. } = end {
            monitor.refused(cause.clone());
        }
        monitor.disconnected(cause);
        tokio::time::sleep(backoff.delay()).await;
    }
}

/// Opens the stream and reads it to its end.
async fn read(
    client: &IssuerClient,
    monitor: &Monitor,
    wishes: &mpsc::Sender<Wish>,
    backoff: &mut Backoff,
) -> CallError {
    let mut stream = match client.watch().await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    loop {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return client.ended(None),
            Err(status) => return client.ended(Some(status)),
        };
        let wish = match wish_of(client, message) {
            Ok(Some(wish)) => wish,
            Ok(None) => continue,
            Err(error) => return error,
        };
        // Only a stream that says something is one: an issuer that opens and closes is not connected.
        backoff.reset();
        monitor.connected();
        if wishes.send(wish).await.is_err() {
            return client.ended(None);
        }
    }
}

/// None for an event that a newer issuer may send and that means nothing here.
fn wish_of(client: &IssuerClient, message: WatchResponse) -> Result<Option<Wish>, CallError> {
    match message.event {
        Some(Event::Bundles(bundles)) => Ok(Some(Wish::Bundles(client.bundles(bundles)?))),
        Some(Event::RenewNow(RenewNow { within })) => {
            let within = within.and_then(|within| Duration::try_from(within).ok()).unwrap_or_default();
            Ok(Some(Wish::RenewNow { within: within.min(MAX_SPREAD) }))
        }
        None => Ok(None),
    }
}
