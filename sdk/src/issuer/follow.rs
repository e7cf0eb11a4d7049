//! The issuer's stream: opened, read, and opened again when it breaks, for as long as one SVID is the newest.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use signet_identity::BundleSet;
use signet_proto::identity::v1::{
    Applied, Authority, Entitlement, RenewNow, Resource, Revocations, WatchRequest, WatchResponse,
    watch_response::Event,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{
    answer::{Versions, version},
    client::{CallError, IssuerClient, Issuers},
    revocations::StatementError,
    turns::Turns,
};
use crate::{Monitor, backoff::Backoff, cause};

/// What the issuer wants to be done.
#[derive(Debug)]
pub(super) enum Wish {
    /// Trust these, and nothing else.
    Bundles { bundles: BundleSet, version: Vec<u8> },
    /// What the policy gives is not what the certificate was made by: renew at a random moment within this time.
    Entitlement { within: Duration },
    /// The policy gives it no more.
    NotGiven { version: Vec<u8> },
    /// Renew at a random moment within this time.
    RenewNow { within: Duration },
    /// Believe nobody of whom this says that it is revoked.
    Revocations(Revocations),
    /// Say whether what each of these signs would be believed.
    Authorities { chains: Vec<Vec<CertificateDer<'static>>>, version: Vec<u8> },
}

/// Wishes that wait. When full, the stream is not read until there is room: its flow control holds the issuer back.
const BACKLOG: usize = 4;
/// Of a refusal, in characters.
const MOST_REASON: usize = 256;
/// For the issuer to hear what was said last.
const GOODBYE: Duration = Duration::from_millis(200);
/// No wish is spread over a longer time: certificates live at most this long.
const MAX_SPREAD: Duration = Duration::from_secs(24 * 3600);

/// An open stream, or the attempts to open one. Dropping it closes the stream.
pub(super) struct Following {
    wishes: mpsc::Receiver<Wish>,
    follow: Pin<Box<dyn Future<Output = Infallible> + Send>>,
    said: Said,
}

/// What is in force, and the way to tell the issuer.
#[derive(Clone)]
struct Said {
    saying: Arc<Mutex<Saying>>,
    given_up: Arc<Notify>,
}

struct Saying {
    versions: Versions,
    to: Option<mpsc::Sender<WatchRequest>>,
    /// Why the stream is of no use any more.
    useless: Option<StatementError>,
    /// Between streams that are of no use.
    backoff: Backoff,
}

impl Following {
    /// `versions`: of what is in force now.
    pub(super) fn new(issuers: Arc<Issuers>, monitor: Monitor, turns: Turns, versions: Versions) -> Self {
        let (sender, wishes) = mpsc::channel(BACKLOG);
        let saying = Saying { versions, to: None, useless: None, backoff: Backoff::new() };
        let said = Said { saying: Arc::new(Mutex::new(saying)), given_up: Arc::default() };
        Self { wishes, follow: Box::pin(follow(issuers, monitor, sender, turns, said.clone())), said }
    }

    /// What the issuer sent is in force, or why it is not.
    pub(super) fn applied(&self, resource: Resource, version: Vec<u8>, outcome: Result<(), String>) {
        let mut saying = self.said.lock();
        let refused = match outcome {
            Ok(()) => {
                match resource {
                    Resource::Bundles => saying.versions.bundles.clone_from(&version),
                    Resource::Entitlement => saying.versions.entitlement.clone_from(&version),
                    Resource::Revocations => saying.backoff.reset(),
                    Resource::Unspecified | Resource::Entitlements | Resource::Authorities => {}
                }
                String::new()
            }
            Err(reason) => reason.chars().take(MOST_REASON).collect(),
        };
        let applied = Applied { resource: resource.into(), version, refused };
        // Where there is no room, or no stream, the next one begins with what is in force.
        if let Some(to) = &saying.to {
            let _ = to.try_send(WatchRequest { applied: vec![applied], ..WatchRequest::default() });
        }
    }

    /// The stream is opened anew, after a pause: a statement that is not in force leaves a gap before all that follow.
    pub(super) fn give_up(&self, why: StatementError) {
        self.said.lock().useless = Some(why);
        self.said.given_up.notify_one();
    }

    /// Of what is in force.
    pub(super) fn versions(&self) -> Versions {
        self.said.lock().versions.clone()
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

impl Said {
    fn lock(&self) -> MutexGuard<'_, Saying> {
        self.saying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the stream is given up. May be dropped and called again.
    async fn given_up(&self) -> StatementError {
        loop {
            if let Some(why) = self.lock().useless.take() {
                return why;
            }
            self.given_up.notified().await;
        }
    }
}

async fn follow(
    issuers: Arc<Issuers>,
    monitor: Monitor,
    wishes: mpsc::Sender<Wish>,
    mut turns: Turns,
    said: Said,
) -> Infallible {
    loop {
        turns.is_there_one().await;
        let client = issuers.asked();
        let end = read(&issuers, &client, &monitor, &wishes, &mut turns, &said).await;
        said.lock().to = None;
        let cause = cause::whole(&end);
        if end.is_of_the_issuer() {
            // With it go the renewals: one that refuses streams alone does not keep its clients.
            issuers.give_up(&client, Some(&end));
        }
        if monitor.live().is_none() {
            monitor.renewal_failed(format!("it is not known yet what is revoked: {cause}").into());
        } else if let CallError::Answer { .. } | CallError::Revocations { .. } = end {
            monitor.refused(cause.clone());
        }
        monitor.disconnected(cause);
        let pause = turns.after(&end);
        let pause = match end {
            CallError::Revocations { .. } => pause.max(said.lock().backoff.delay()),
            _ => pause,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Opens the stream and reads it to its end.
async fn read(
    issuers: &Issuers,
    client: &IssuerClient,
    monitor: &Monitor,
    wishes: &mpsc::Sender<Wish>,
    turns: &mut Turns,
    said: &Said,
) -> CallError {
    let versions = said.lock().versions.clone();
    let mut stream = match client.watch(&versions, &issuers.revocations_version()).await {
        Ok((stream, say)) => {
            let mut saying = said.lock();
            (saying.to, saying.useless) = (Some(say), None);
            stream
        }
        Err(error) => return error,
    };
    let mut told = Instant::now();
    loop {
        let message = tokio::select! {
            biased;
            why = said.given_up() => {
                // What was said of it last is sent before the end.
                said.lock().to = None;
                let ending = async { while let Ok(Some(_)) = stream.message().await {} };
                let _heard = tokio::time::timeout(GOODBYE, ending).await;
                return client.unreliable(why);
            }
            message = stream.message() => message,
            () = tokio::time::sleep_until(told + client.patience()), if monitor.live().is_none() => {
                match monitor.live() {
                    // It was let go live meanwhile.
                    Some(_) => continue,
                    None => {
                        let seconds = client.patience().as_secs_f64();
                        return client.unreliable(StatementError::NotTold { seconds });
                    }
                }
            }
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return client.ended(None),
            Err(status) => return client.ended(Some(status)),
        };
        let wish = match wish_of(client, message) {
            Ok(Some(wish)) => Some(wish),
            Ok(None) => None,
            Err(error) => return error,
        };
        // Only a stream that says something is one: an issuer that opens and closes is not connected.
        turns.reset();
        if monitor.live().is_some() {
            monitor.connected();
        }
        if let Some(Wish::Revocations(_)) = wish {
            told = Instant::now();
        }
        if let Some(wish) = wish
            && wishes.send(wish).await.is_err()
        {
            return client.ended(None);
        }
    }
}

/// None for an event that a newer issuer may send and that means nothing here.
fn wish_of(client: &IssuerClient, message: WatchResponse) -> Result<Option<Wish>, CallError> {
    match message.event {
        Some(Event::Bundles(mut bundles)) => {
            let version = version(Some(std::mem::take(&mut bundles.version)));
            Ok(Some(Wish::Bundles { bundles: client.bundles(bundles)?, version }))
        }
        Some(Event::RenewNow(RenewNow { within, .. })) => Ok(Some(Wish::RenewNow { within: spread(within) })),
        Some(Event::Entitlement(Entitlement { given, within, version: told })) => Ok(Some(match given {
            true => Wish::Entitlement { within: spread(within) },
            false => Wish::NotGiven { version: version(Some(told)) },
        })),
        Some(Event::Revocations(revocations)) => Ok(Some(Wish::Revocations(revocations))),
        Some(Event::Authorities(told)) => {
            let chain = |authority: Authority| authority.chain.into_iter().map(CertificateDer::from).collect();
            let chains = told.authorities.into_iter().map(chain).collect();
            Ok(Some(Wish::Authorities { chains, version: version(Some(told.version)) }))
        }
        // Not asked for.
        Some(Event::Entitlements(_)) | None => Ok(None),
    }
}

fn spread(within: Option<prost_types::Duration>) -> Duration {
    // The conversion negates what is below zero, and there is one number that it cannot.
    let within = within.filter(|within| within.seconds >= 0 && within.nanos >= 0);
    within.and_then(|within| Duration::try_from(within).ok()).unwrap_or_default().min(MAX_SPREAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_that_an_issuer_names_does_harm() {
        for (seconds, nanos) in [(i64::MIN, 0), (-1, 0), (0, i32::MIN), (i64::MIN, i32::MIN)] {
            assert_eq!(spread(Some(prost_types::Duration { seconds, nanos })), Duration::ZERO);
        }
        assert_eq!(spread(Some(prost_types::Duration { seconds: i64::MAX, nanos: i32::MAX })), MAX_SPREAD);
        assert_eq!(spread(Some(prost_types::Duration { seconds: 2, nanos: 0 })), Duration::from_secs(2));
    }
}
