//! `signet ca follow`: has a parent, which is another issuer, sign what the issuer beside it asks for, for as long as it runs.
//!
//! ```text
//! issuer ── requests, over its admin socket ──► follow ── Issue, as an identity of the parent's ──► parent
//!        ◄───────────── certificates ──────────        ◄──────────── certificates ──────────────
//! ```
//! Nothing is remembered: what is to be done follows from what the issuer has now ([`plan`]), so either side, and this one, may end and
//! start again at any moment.

mod child;
mod health;
mod identity;
mod parent;
mod plan;
mod refusals;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;
use serde::Serialize;
use signet_identity::{SharedClock, SystemClock, TlsPolicies};
use signet_process::{logging, shutdown};
use signet_sdk::{Running, Starting};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::CaFollowOptions;
use crate::failure::Failure;
use crate::output::{self, Format, List};

use self::child::Child;
use self::health::{Health, Outcome};
use self::parent::Parent;
use self::plan::{Authority, Step};
use self::refusals::{Refusals, Refused};

/// What a parent said, as it changes: the chains of the authorities that sign there.
type Told = watch::Receiver<Arc<[Vec<CertificateDer<'static>>]>>;

/// For an identity, where it is done once.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between attempts, at least and at most.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// As long as the issuer has no authority.
const LONGEST_WITHOUT: Duration = Duration::from_secs(10);

pub(crate) fn run(options: &CaFollowOptions, format: Format) -> Result<(), Failure> {
    let log = logging::init(logging::Format::auto());
    let shutdown = shutdown::signals().map_err(|error| Failure::from_error(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from_error(&error))?;
    let clock: SharedClock = Arc::new(SystemClock);
    let health = Health::start(options.admin, clock.clone(), log)?;
    let done = runtime.block_on(follow(options, &health, clock, shutdown))?;
    match options.once {
        true => output::print_list(format, &done),
        false => Ok(()),
    }
}

async fn follow(
    options: &CaFollowOptions,
    health: &Health,
    clock: SharedClock,
    shutdown: CancellationToken,
) -> Result<Steps, Failure> {
    let child = Child::at(options.issuer.as_deref())?;
    let ended = || Steps::default();
    let Some(trust_domain) = shutdown.run_until_cancelled(child.trust_domain(options.once)).await else {
        return Ok(ended());
    };
    let trust_domain = trust_domain?;
    let mut policies = TlsPolicies::new(clock.clone());
    let key = policies.client(parent::policy(&trust_domain)?);
    let starting = identity::begin(options, trust_domain, policies, shutdown.clone())?;
    let monitor = starting.monitor().clone();
    let Some(Running { live, .. }) = arrival(starting, options.once, health).await? else { return Ok(ended()) };
    health.has_identity(&live);
    let parent = Parent::new(options, &live, key, &clock)?;
    let following = Following {
        child,
        parent,
        clock,
        signed: HashMap::new(),
        refusals: Refusals::default(),
        told: monitor.authorities(),
    };
    following.run(options.once, health, shutdown).await
}

/// Who this is at the parent. None where it is ended before.
async fn arrival(starting: Starting, once: bool, health: &Health) -> Result<Option<Running>, Failure> {
    let monitor = starting.monitor().clone();
    let begun = Instant::now();
    let mut arriving = pin!(starting.identity());
    loop {
        health.waits_for_identity(&monitor);
        tokio::select! {
            arrived = &mut arriving => return Ok(arrived.ok()),
            () = tokio::time::sleep(SHORTEST) => {}
        }
        if once && begun.elapsed() > PATIENCE {
            let why = monitor.last_error().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(Failure::new(format!("no identity at the parent{why}")));
        }
    }
}

struct Following {
    child: Child,
    parent: Parent,
    clock: SharedClock,
    /// What the issuer has not taken yet, by its key: a key is certified once.
    signed: HashMap<String, String>,
    refusals: Refusals,
    told: Told,
}

/// Why a step was not made.
struct Trouble {
    failure: Failure,
    /// When it is tried again, at the earliest.
    not_before: Duration,
    outcome: Outcome,
}

impl Following {
    async fn run(mut self, once: bool, health: &Health, shutdown: CancellationToken) -> Result<Steps, Failure> {
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
                    continue;
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
                Err(Trouble { failure, not_before, outcome }) => {
                    let cause = failure.to_string().replace('\n', "; ");
                    health.is_in_trouble(&cause, outcome);
                    if cause != complaint {
                        tracing::warn!(cause, "the issuer does not follow its parent; it is tried again");
                    }
                    complaint = cause;
                    failures += 1;
                    (SHORTEST * (1 << u32::min(failures - 1, 6))).min(self.pause().max(SHORTEST)).max(not_before)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = self.told.changed() => if changed.is_err() { tokio::time::sleep(pause).await },
                () = shutdown.cancelled() => return Ok(done),
            }
        }
    }

    /// Makes the next step, if there is one.
    async fn look(&mut self) -> Result<Looked, Trouble> {
        let authorities = self.child.authorities().await.map_err(Trouble::here)?;
        self.signed.retain(|key, _| authorities.iter().any(|authority| authority.key == *key));
        let told = self.told.borrow_and_update().clone();
        match plan::next(&authorities, &told, self.clock.now()) {
            Step::Nothing => Ok(Looked::Nothing),
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
        let chain = match self.signed.get(&authority.key) {
            Some(chain) => chain.clone(),
            None => match self.parent.sign(&authority.request).await {
                Ok(chain) => {
                    self.signed.insert(authority.key.clone(), chain.clone());
                    chain
                }
                Err(refused) => {
                    // Most likely it is signed, and the answer was lost.
                    if refused.spoils_the_request {
                        self.child.ask(std::slice::from_ref(&authority.key)).await.map_err(Trouble::here)?;
                    }
                    let not_before = refused.retry_after.unwrap_or_default();
                    return Err(Trouble { failure: refused.failure, not_before, outcome: refused.outcome });
                }
            },
        };
        match self.child.import(chain).await {
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
                Err(Trouble { failure, not_before: Duration::ZERO, outcome: Outcome::NotTaken })
            }
        }
    }

    /// Until the issuer is looked at again. The more often, the nearer its authority's end.
    fn pause(&self) -> Duration {
        let ends = self.child.ends();
        let left = ends.map(|ends| Duration::try_from(ends - self.clock.now()).unwrap_or_default());
        left.map_or(LONGEST_WITHOUT, |left| (left / 100).clamp(SHORTEST, LONGEST))
    }
}

impl Trouble {
    fn here(failure: Failure) -> Self {
        Self { failure, not_before: Duration::ZERO, outcome: Outcome::Other }
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

/// What was done, of `--once`.
#[derive(Default, Serialize)]
struct Steps {
    steps: Vec<DoneStep>,
}

#[derive(Serialize)]
struct DoneStep {
    authority: String,
    done: &'static str,
    #[serde(skip)]
    outcome: Outcome,
}

impl DoneStep {
    fn new(authority: &str, done: &'static str, outcome: Outcome) -> Self {
        Self { authority: authority.to_owned(), done, outcome }
    }
}

impl List for Steps {
    const COLUMNS: &'static [&'static str] = &["authority", "done"];

    fn lines(&self) -> Vec<Vec<String>> {
        self.steps.iter().map(|step| vec![step.authority.clone(), step.done.to_owned()]).collect()
    }

    fn nothing(&self) -> &'static str {
        "there is nothing to do"
    }
}
