//! The keys that an issuer signs tokens with: in its custody, and what is remembered of them in a journal.
//!
//! A key rests in the custody before the journal names it, and is destroyed before it is named no more: so a process that is killed at any
//! moment goes on where it was. The custody may take its time, or be away: nobody waits for it who has a key revoked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use signet_identity::{SharedClock, TrustDomain};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::journal::{Act, Ending, Entry, Journal, MOST_ENDING, Revoked};
use super::key::TokenKey;
use super::plan::{Due, Known, Schedule, Step, Times};
use super::readers::Readers;
use super::{JwksError, JwtAuthorities, RevokedKeys};
use crate::authority::custody::{Algorithm, Custody, Purpose};
use crate::authority::{CustodyError, Stage};
use crate::bundles::Bundles;
use crate::complaint::Complaint;
use crate::metrics::Metrics;
use crate::store::Outbox;
use crate::utc::{Utc, of_microseconds};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct JwtKeys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    state: ArcSwap<State>,
    published: watch::Sender<OwnKeys>,
    /// Held by whoever changes `state`.
    working: Mutex<()>,
    metrics: Metrics,
    clock: SharedClock,
}

/// Where keys are kept, and how.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) custody: Arc<dyn Custody>,
    /// What is remembered of them.
    pub(crate) journal: PathBuf,
    pub(crate) algorithm: Algorithm,
    pub(crate) schedule: Schedule,
    /// Where what becomes of them is told for the audit log.
    pub(crate) outbox: Outbox,
}

/// What an issuer says of its keys.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct OwnKeys {
    pub(crate) public: JwtAuthorities,
    /// Other issuers' too.
    pub(crate) revoked: RevokedKeys,
}

/// All that the journal remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) keys: Vec<Held>,
    pub(super) revoked: Vec<Revoked>,
    /// To be destroyed.
    pub(super) ending: Vec<Ending>,
    /// Who wants another key to sign.
    pub(super) rotation: Option<Act>,
}

#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) key: TokenKey,
    pub(super) times: Times,
    pub(super) tainted: Option<Act>,
}

/// A key that signs now.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    pub(super) key: TokenKey,
    pub(super) not_after: OffsetDateTime,
}

#[derive(Debug, thiserror::Error)]
pub enum JwtKeysError {
    #[error("a key of tokens cannot be used")]
    Custody(#[from] CustodyError),
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error(
        "what the issuer remembers of its keys of tokens, {}, is damaged: {what}\nrestore it from a backup, or remove it to begin with a new key",
        path.display()
    )]
    Journal { path: PathBuf, what: String },
    #[error("a key of tokens is of no kind that has a JSON Web Key")]
    NoJwk,
    #[error("work on the keys of tokens broke off")]
    BrokenOff,
}

/// Between two looks at the time.
const LOOK: Duration = Duration::from_secs(1);
/// After a step that failed: the custody is not asked for a key each second.
const RETRY: Duration = Duration::from_secs(5);
/// A key that is revoked is named for longer than any key lives.
const NAMED: time::Duration = time::Duration::days(400);

impl JwtKeys {
    /// Opens the keys that there are, and makes the first one. Blocks for as long as the custody takes.
    pub(crate) fn open(place: Place, metrics: Metrics, clock: SharedClock) -> Result<Self, JwtKeysError> {
        let state = place.load(clock.now())?;
        let published = watch::Sender::new(state.published());
        state.changes_since(&State::default()).for_each(|act| place.outbox.post(act));
        let (state, working) = (ArcSwap::from_pointee(state), Mutex::default());
        let keys = Self(Arc::new(Inner { place, state, published, working, metrics, clock }));
        keys.tell_metrics();
        match keys.advance(Known::No) {
            // What is left over may stay for a while: a key that cannot be destroyed now keeps no issuer from its work.
            Err(error) if keys.signer(keys.now()).is_some() => {
                let cause = signet_process::start::Report::of(&error).cause;
                tracing::error!(cause, "JWT keys do not follow each other; those that there are stay");
            }
            advanced => advanced?,
        }
        Ok(keys)
    }

    /// What is to be told of them, as it changes.
    pub(crate) fn published(&self) -> watch::Receiver<OwnKeys> {
        self.0.published.subscribe()
    }

    /// Has these bundles be by the keys as they are at this moment.
    pub(crate) fn tell(&self, bundles: &Bundles, trust_domain: &TrustDomain) {
        bundles.change_own_jwt(|jwt| {
            let OwnKeys { public, revoked } = self.0.published.borrow().clone();
            jwt.keys.insert(trust_domain.clone(), public);
            jwt.revoked = revoked;
        });
    }

    /// None where the time has passed its key by.
    pub(super) fn signer(&self, now: OffsetDateTime) -> Option<Signer> {
        let state = self.state();
        let active = state.keys.iter().find(|held| held.times.is_active() && held.times.not_after > now)?;
        Some(Signer { key: active.key.clone(), not_after: active.times.not_after })
    }

    /// Takes the steps that are due, until cancelled.
    pub(crate) async fn follow(self, readers: Readers) {
        let mut complaint = Complaint::default();
        let mut pause = LOOK;
        loop {
            tokio::time::sleep(pause).await;
            match self.look(&readers).await {
                Ok(()) => {
                    pause = LOOK;
                    complaint.clear();
                }
                Err(error) => {
                    pause = RETRY;
                    if let Some(cause) = complaint.of(&error) {
                        tracing::error!(cause, "JWT keys do not follow each other; those that there are stay");
                    }
                }
            }
        }
    }

    async fn look(&self, readers: &Readers) -> Result<(), JwtKeysError> {
        let known = match self.next_step(Known::Yes) {
            Step::Nothing if !self.has_leftovers() => return Ok(()),
            Step::Activate(index) => {
                let made_at = self.state().keys.get(index).map(|held| held.times.made_at);
                readers.know(made_at.unwrap_or_else(|| self.now())).await
            }
            Step::Nothing | Step::Make | Step::Remove(_) => Known::No,
        };
        let keys = self.clone();
        let taken = tokio::task::spawn_blocking(move || keys.advance(known)).await;
        taken.unwrap_or(Err(JwtKeysError::BrokenOff))
    }

    fn next_step(&self, known: Known) -> Step {
        let state = self.state();
        let times: Vec<_> = state.keys.iter().map(|held| held.times).collect();
        let due = if state.rotation.is_some() { Due::Soon } else { Due::ByItsLife };
        self.0.place.schedule.next_step(&times, due, known, self.now())
    }

    /// Takes all steps that are due; then destroys what has come to its end, whatever became of them.
    pub(super) fn advance(&self, known: Known) -> Result<(), JwtKeysError> {
        let stepped = self.take_steps(known);
        let cleared = self.clear();
        stepped.and(cleared)
    }

    fn take_steps(&self, known: Known) -> Result<(), JwtKeysError> {
        loop {
            let mut made = match self.next_step(known) {
                Step::Nothing => return Ok(()),
                Step::Make => Some(self.make()?),
                Step::Activate(_) | Step::Remove(_) => None,
            };
            let taken = self.take_step(known, &mut made);
            // Somebody was quicker, or it cannot be written down.
            made.into_iter().for_each(|spare| self.discard(&spare));
            taken?;
        }
    }

    /// The step that is due when it is its turn. `made` is left where it is not needed.
    fn take_step(&self, known: Known, made: &mut Option<Held>) -> Result<(), JwtKeysError> {
        let _working = self.work();
        let mut next = self.next();
        match self.next_step(known) {
            Step::Nothing => return Ok(()),
            Step::Make => match &*made {
                Some(made) => next.keys.push(made.clone()),
                None => return Ok(()),
            },
            Step::Activate(index) => next.activate(index, self.now()),
            Step::Remove(index) => next.end(index),
        }
        let is_made = next.keys.len() > self.state().keys.len();
        self.put(next)?;
        if is_made && let Some(made) = made.take() {
            tracing::info!(kid = made.key.kid(), "JWT key prepared");
        }
        Ok(())
    }

    /// Whether there is a key that is to be destroyed, or one that need not be named any more.
    fn has_leftovers(&self) -> bool {
        let (state, now) = (self.state(), self.now());
        !state.ending.is_empty() || state.revoked.iter().any(|revoked| revoked.is_forgotten(now))
    }

    /// Each by itself: one that cannot be destroyed holds up no other.
    fn clear(&self) -> Result<(), JwtKeysError> {
        if !self.has_leftovers() {
            return Ok(());
        }
        let (mut destroyed, mut failed) = (Vec::new(), Ok(()));
        for Ending { kid, algorithm } in &self.state().ending {
            match self.0.place.custody.destroy(kid, Purpose::Tokens(*algorithm)) {
                Ok(()) => {
                    tracing::info!(kid = kid.as_str(), "JWT key destroyed");
                    destroyed.push(kid.clone());
                }
                Err(error) => failed = Err(error.into()),
            }
        }
        let _working = self.work();
        let (mut next, now) = (self.next(), self.now());
        next.ending.retain(|ending| !destroyed.contains(&ending.kid));
        next.revoked.retain(|revoked| !revoked.is_forgotten(now));
        self.put(next).and(failed)
    }

    /// One that was made and is not needed: nobody knows of it.
    pub(super) fn discard(&self, spare: &Held) {
        let key = &spare.key.key;
        if let Err(error) = self.0.place.custody.destroy(key.name(), Purpose::Tokens(key.algorithm())) {
            let cause = signet_process::start::Report::of(&error).cause;
            tracing::error!(kid = spare.key.kid(), cause, "a JWT key that is not needed is not destroyed");
        }
    }

    pub(super) fn state(&self) -> Arc<State> {
        self.0.state.load_full()
    }

    /// To be changed, and [`put`](Self::put).
    pub(super) fn next(&self) -> State {
        State::clone(&self.state())
    }

    /// Makes a step durable, then puts it in force. By whoever holds [`work`](Self::work).
    pub(super) fn put(&self, next: State) -> Result<(), JwtKeysError> {
        self.0.place.write(&next)?;
        // Before it has an effect: what is signed from now on is behind it in the log.
        next.changes_since(&self.0.state.load()).for_each(|act| self.0.place.outbox.post(act));
        let published = next.published();
        self.0.state.store(Arc::new(next));
        self.0.published.send_if_modified(|present| {
            let is_other = *present != published;
            *present = published;
            is_other
        });
        self.tell_metrics();
        Ok(())
    }

    /// One after the other: what one reads, no other has changed when it writes.
    pub(super) fn work(&self) -> MutexGuard<'_, ()> {
        self.0.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks for as long as the custody takes: not to be called by whoever holds [`work`](Self::work).
    pub(super) fn make(&self) -> Result<Held, JwtKeysError> {
        self.0.place.make(self.now())
    }

    pub(super) fn schedule(&self) -> &Schedule {
        &self.0.place.schedule
    }

    pub(super) fn now(&self) -> OffsetDateTime {
        self.0.clock.now()
    }

    fn tell_metrics(&self) {
        let state = self.state();
        let active = state.keys.iter().find(|held| held.times.is_active());
        self.0.metrics.jwt_key(active.map(|held| held.times.not_after));
        for stage in [Stage::Prepared, Stage::Active, Stage::Retired, Stage::Tainted] {
            let count = state.keys.iter().filter(|held| held.stage() == stage).count();
            self.0.metrics.jwt_keys(stage.label(), count);
        }
        self.0.metrics.jwt_keys(Stage::Revoked.label(), state.revoked.len());
    }
}

impl Held {
    pub(super) fn stage(&self) -> Stage {
        match (&self.tainted, self.times.retired_at, self.times.activated_at) {
            (Some(_), ..) => Stage::Tainted,
            (None, Some(_), _) => Stage::Retired,
            (None, None, Some(_)) => Stage::Active,
            (None, None, None) => Stage::Prepared,
        }
    }

    /// When it came to that.
    pub(super) fn since(&self) -> OffsetDateTime {
        let tainted_at = self.tainted.as_ref().and_then(|act| of_microseconds(act.at));
        tainted_at.or(self.times.retired_at).or(self.times.activated_at).unwrap_or(self.times.made_at)
    }
}

impl Revoked {
    pub(super) fn is_forgotten(&self, now: OffsetDateTime) -> bool {
        of_microseconds(self.act.at).is_none_or(|at| at + NAMED < now)
    }
}

impl State {
    /// What the audit log says of them.
    fn changes_since(&self, before: &Self) -> impl Iterator<Item = signet_audit::Act> {
        let stages = |state: &Self| -> BTreeMap<String, &'static str> {
            let held = state.keys.iter().map(|held| (held.key.key.name().to_string(), held.stage().label()));
            held.chain(state.revoked.iter().map(|revoked| (revoked.kid.to_string(), "revoked"))).collect()
        };
        let (before, mut after) = (stages(before), stages(self));
        for key in before.keys().filter(|key| !after.contains_key(*key)).cloned().collect::<Vec<_>>() {
            after.insert(key, "destroyed");
        }
        after.retain(|key, stage| before.get(key) != Some(stage));
        after.into_iter().map(|(key, stage)| signet_audit::Act::JwtKeyChanged { key, stage: stage.to_owned() })
    }

    /// The next to sign.
    pub(super) fn prepared(&self) -> Option<usize> {
        self.keys.iter().position(|held| held.stage() == Stage::Prepared)
    }

    /// From now on it signs, and the one before it does not.
    pub(super) fn activate(&mut self, index: usize, now: OffsetDateTime) {
        for held in self.keys.iter_mut().filter(|held| held.times.is_active()) {
            held.times.retired_at = Some(now);
        }
        if let Some(held) = self.keys.get_mut(index) {
            held.times.activated_at = Some(now);
            tracing::info!(kid = held.key.kid(), not_after = %Utc(held.times.not_after), "JWT key active");
        }
        self.rotation = None;
    }

    /// It is of no use any more, and known to nobody.
    pub(super) fn end(&mut self, index: usize) {
        let Held { key, .. } = self.keys.remove(index);
        self.ending.push(Ending { kid: key.key.name().clone(), algorithm: key.key.algorithm() });
        if self.ending.len() > MOST_ENDING {
            let forgotten = self.ending.remove(0);
            tracing::error!(kid = forgotten.kid.as_str(), "a JWT key that cannot be destroyed is left where it is");
        }
    }

    fn published(&self) -> OwnKeys {
        let read = JwtAuthorities::read(self.keys.iter().map(|held| held.key.public().clone()));
        // They are ours, and few.
        let public = read.unwrap_or_else(|error: JwksError| {
            tracing::error!(%error, "JWT keys are not published");
            JwtAuthorities::default()
        });
        OwnKeys { public, revoked: self.revoked.iter().map(|revoked| (revoked.kid.clone(), revoked.act.at)).collect() }
    }
}

impl Place {
    fn load(&self, now: OffsetDateTime) -> Result<State, JwtKeysError> {
        let journal = Journal::read(&self.journal)?;
        let mut keys = Vec::with_capacity(journal.keys.len());
        for entry in journal.keys {
            let wrong =
                || JwtKeysError::Journal { path: self.journal.clone(), what: "it names a key that is none".to_owned() };
            let (name, times) = entry.parsed().ok_or_else(wrong)?;
            let key = match self.custody.open_for_tokens(&name, entry.algorithm) {
                Ok(key) => key,
                // It was destroyed when it was over, and then the journal could not be written.
                Err(CustodyError::Gone { .. }) if self.schedule.is_over(&times, now) => continue,
                Err(error) => return Err(error.into()),
            };
            keys.push(Held { key: TokenKey::of(key).ok_or(JwtKeysError::NoJwk)?, times, tainted: entry.tainted });
        }
        Ok(State { keys, revoked: journal.revoked, ending: journal.ending, rotation: journal.rotation })
    }

    fn make(&self, now: OffsetDateTime) -> Result<Held, JwtKeysError> {
        let key = self.custody.make_for_tokens(self.algorithm)?;
        // As the journal keeps it.
        let made_at = now.replace_nanosecond(0).unwrap_or(now);
        let not_after = made_at + self.schedule.key_life;
        let times = Times { made_at, not_after, activated_at: None, retired_at: None };
        Ok(Held { key: TokenKey::of(key).ok_or(JwtKeysError::NoJwk)?, times, tainted: None })
    }

    fn write(&self, state: &State) -> Result<(), JwtKeysError> {
        let entry = |Held { key, times, tainted }: &Held| {
            Entry::of(key.key.name(), key.key.algorithm(), times, tainted.clone())
        };
        let keys = state.keys.iter().map(entry).collect();
        Journal::of(keys, state.revoked.clone(), state.ending.clone(), state.rotation.clone()).write(&self.journal)
    }
}

#[cfg(test)]
mod tests;
