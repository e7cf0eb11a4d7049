//! `signet ca follow`: has a parent, which is another issuer, sign what the issuer beside it asks for, for as long as it runs.
//!
//! ```text
//! issuer ── requests, over its admin socket ──► follow ── Issue, as an identity of the parent's ──► parent
//!        ◄───────────── certificates ──────────        ◄──────────── certificates ──────────────
//! ```
//! Nothing is remembered: what is to be done follows from what the issuer has now ([`plan`]), so either side, and this one, may end and
//! start again at any moment.

mod chain;
mod child;
mod health;
mod identity;
mod parent;
mod plan;
mod refusals;
mod rounds;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use signet_identity::{SharedClock, SystemClock, TlsPolicies};
use signet_process::{logging, shutdown};
use signet_sdk::{Running, Starting};
use tokio_util::sync::CancellationToken;

use crate::args::CaFollowOptions;
use crate::failure::Failure;
use crate::output::{self, Format, List};

use self::child::Child;
use self::health::{Health, Outcome};
use self::parent::Parent;
use self::rounds::Following;

/// For an identity, where it is done once.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between looks at what stands in its way.
const LOOK: Duration = Duration::from_secs(1);

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
    let following = Following::new(child, parent, clock, monitor.authorities());
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
            () = tokio::time::sleep(LOOK) => {}
        }
        if once && begun.elapsed() > PATIENCE {
            let why = monitor.last_error().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(Failure::new(format!("no identity at the parent{why}")));
        }
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
