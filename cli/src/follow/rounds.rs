//! One round after the other: what the issuer has and what the parent told give a step, and it is made.

use std::collections::HashMap;
use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use signet_identity::SharedClock;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::health::{Health, Outcome};
use super::parent;
use super::plan::{self, Authority, Stage, Step};
use super::refusals::{Refusals, Refused};
use super::{DoneStep, Steps, chain};
use crate::failure::Failure;

/// The one that has its authorities from the parent.
pub(super) trait Issuer {
    async fn authorities(&self) -> Result<Vec<Authority>, Failure>;

    /// Has a request wait, and gives up those of these keys.
    async fn ask(&self, discard: &[String]) -> Result<(), Failure>;

    async fn import(&self, certificates_pem: String) -> Result<(), Failure>;

    /// Has it take over. False where the issuer goes over to another one now.
    async fn rotate(&self, successor: &str) -> Result<bool, Failure>;
}

/// The one above it.
pub(super) trait Signer {
    /// What it gives for the request (PEM): a certificate and those above it, as it says.
    async fn sign(&mut self, request_pem: &str) -> Result<Vec<Vec<u8>>, parent::Refused>;
}

/// What a parent said, as it changes: the chains of the authorities that sign there.
pub(super) type Told = watch::Receiver<Arc<[Vec<CertificateDer<'static>>]>>;

/// Between attempts, at least and at most.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// As long as the issuer has no authority.
const LONGEST_WITHOUT: Duration = Duration::from_secs(10);

pub(super) struct Following<C, P> {
    child: C,
    parent: P,
    clock: SharedClock,
    /// What the issuer had when it was looked at last.
    seen: Arc<[Authority]>,
    /// What the issuer has not taken yet, by its key: a key is certified once.
    signed: HashMap<String, String>,
    refusals: Refusals,
    told: Told,
    /// What it had told at that look,
    heard: Arc<[Vec<CertificateDer<'static>>]>,
    /// and since when the one above the issuer's authority has not been among it.
    gone_since: Option<OffsetDateTime>,
}

/// Why a step was not made.
struct Trouble {
    failure: Failure,
    outcome: Outcome,
}

impl<C: Issuer, P: Signer> Following<C, P> {
    pub(super) fn new(child: C, parent: P, clock: SharedClock, told: Told) -> Self {
        let (signed, refusals) = (HashMap::new(), Refusals::default());
        let (seen, heard) = (Arc::default(), Arc::default());
        Self { child, parent, clock, seen, signed, refusals, told, heard, gone_since: None }
    }

    pub(super) async fn run(
        mut self,
        once: bool,
        health: &Health,
        shutdown: CancellationToken,
    ) -> Result<Steps, Failure> {
        let (mut done, mut failures, mut complaint) = (Steps::default(), 0, String::new());
        loop {
            let look = self.look();
            let Some(looked) = shutdown.run_until_cancelled(look).await else { return Ok(done) };
            let pause = match looked {
                Ok(Looked::Did(step)) => {
                    tracing::info!(authority = step.authority, done = step.done, "the issuer follows its parent");
                    (failures, complaint) = (0, String::new());
                    health.did(step.outcome);
                    if once {
                        done.steps.push(step);
                    }
                    SHORTEST
                }
                Ok(Looked::Nothing | Looked::Waits(_)) if once => return Ok(done),
                Ok(Looked::Nothing) => {
                    (failures, complaint) = (0, String::new());
                    health.is_well();
                    self.pause()
                }
                // What stands in the way has been told.
                Ok(Looked::Waits(left)) => self.pause().min(left),
                Err(trouble) if once => return Err(trouble.failure),
                Err(Trouble { failure, outcome }) => {
                    let cause = failure.to_string().replace('\n', "; ");
                    health.is_in_trouble(&cause, outcome);
                    if cause != complaint {
                        tracing::warn!(cause, "the issuer does not follow its parent; it is tried again");
                    }
                    complaint = cause;
                    failures += 1;
                    (SHORTEST * (1 << u32::min(failures - 1, 6))).min(self.pause())
                }
            };
            if shutdown.run_until_cancelled(self.rest(pause)).await.is_none() {
                return Ok(done);
            }
        }
    }

    /// The parent may tell something new each second. What it tells cuts a pause short where it changes what is to be done, and none is
    /// shorter than the shortest.
    async fn rest(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        tokio::time::sleep(SHORTEST).await;
        while !self.changes_side() {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                changed = self.told.changed() => if changed.is_err() {
                    return tokio::time::sleep_until(until).await;
                },
            }
        }
    }

    /// Whether there is a step to make that was none by what the parent had told before.
    fn changes_side(&self) -> bool {
        let (told, now) = (self.told.borrow(), self.clock.now());
        let gone_since = self.gone_since.unwrap_or(now);
        let [before, next] = [&self.heard, &*told].map(|told| plan::next(&self.seen, told, gone_since, now));
        let may_be_made = match next {
            Step::Nothing | Step::Waits(_) => false,
            Step::Sign(_) => self.refusals.left(Instant::now()).is_none(),
            Step::Ask | Step::Rotate(_) => true,
        };
        may_be_made && discriminant(&before) != discriminant(&next)
    }

    /// Makes the next step, if there is one.
    async fn look(&mut self) -> Result<Looked, Trouble> {
        let authorities: Arc<[Authority]> = self.child.authorities().await.map_err(Trouble::here)?.into();
        self.seen = authorities.clone();
        self.signed.retain(|key, _| authorities.iter().any(|authority| authority.key == *key));
        self.heard = self.told.borrow_and_update().clone();
        let now = self.clock.now();
        self.gone_since = plan::is_gone(&authorities, &self.heard).then(|| self.gone_since.unwrap_or(now));
        match plan::next(&authorities, &self.heard.clone(), self.gone_since.unwrap_or(now), now) {
            Step::Nothing => Ok(Looked::Nothing),
            Step::Waits(why) => Err(Trouble::here(why.told())),
            Step::Sign(authority) => match self.refusals.left(Instant::now()) {
                Some(left) => Ok(Looked::Waits(left)),
                None => self.sign(authority).await.map(Looked::Did),
            },
            Step::Ask => {
                self.child.ask(&[]).await.map_err(Trouble::here)?;
                Ok(Looked::did(
                    "",
                    "a successor is asked for: the parent's authority above signs no more",
                    Outcome::Other,
                ))
            }
            Step::Rotate(successor) => match self.child.rotate(&successor.key).await.map_err(Trouble::here)? {
                true => Ok(Looked::did(&successor.key, "it takes over", Outcome::Other)),
                // One is under way.
                false => Ok(Looked::Nothing),
            },
        }
    }

    async fn sign(&mut self, authority: &Authority) -> Result<DoneStep, Trouble> {
        let brought = match self.signed.get(&authority.key) {
            Some(chain) => Ok(chain.clone()),
            None => match self.parent.sign(&authority.request).await {
                Ok(answer) => chain::for_key(&authority.key, &self.seen, answer),
                Err(refused) => {
                    let now = Instant::now();
                    if let Some(pause) = refused.retry_after {
                        self.refusals.wait(pause, now);
                    }
                    // Most likely it is signed, and the answer was lost. A parent may say so of each key.
                    if refused.spoils_the_request {
                        self.refusals.another(now);
                        self.child.ask(std::slice::from_ref(&authority.key)).await.map_err(Trouble::here)?;
                    }
                    return Err(Trouble { failure: refused.failure, outcome: refused.outcome });
                }
            },
        };
        let taken = match brought {
            Ok(chain) => {
                self.signed.insert(authority.key.clone(), chain.clone());
                self.child.import(chain).await
            }
            Err(failure) => Err(failure),
        };
        match taken {
            Ok(()) => {
                self.signed.remove(&authority.key);
                self.refusals.over();
                Ok(DoneStep::new(&authority.key, "signed by the parent", Outcome::Signed))
            }
            Err(failure) => {
                if self.refusals.another(Instant::now()) == Refused::GivenUp {
                    self.child.ask(std::slice::from_ref(&authority.key)).await.map_err(Trouble::here)?;
                    self.signed.remove(&authority.key);
                }
                Err(Trouble { failure, outcome: Outcome::NotTaken })
            }
        }
    }

    /// Until the issuer is looked at again. The more often, the nearer its authority's end.
    fn pause(&self) -> Duration {
        let active = self.seen.iter().find(|authority| authority.stage == Stage::Active);
        let left = active
            .and_then(|active| active.not_after)
            .map(|ends| Duration::try_from(ends - self.clock.now()).unwrap_or_default());
        left.map_or(LONGEST_WITHOUT, |left| (left / 100).clamp(SHORTEST, LONGEST))
    }
}

impl Trouble {
    fn here(failure: Failure) -> Self {
        Self { failure, outcome: Outcome::Other }
    }
}

enum Looked {
    Did(DoneStep),
    Nothing,
    /// There is something to be signed, but not yet.
    Waits(Duration),
}

impl Looked {
    fn did(authority: &str, done: &'static str, outcome: Outcome) -> Self {
        Self::Did(DoneStep::new(authority, done, outcome))
    }
}

#[cfg(test)]
mod tests;
