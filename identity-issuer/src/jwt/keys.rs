//! The keys that an issuer signs tokens with: in its custody, and their times in a journal.
//!
//! A key rests in the custody before the journal names it, and is destroyed before it is named no more: so a process that is killed at any
//! moment goes on where it was.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use signet_identity::SharedClock;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::journal::{Entry, Journal};
use super::key::TokenKey;
use super::plan::{Schedule, Step, Times};
use super::{JwksError, JwtAuthorities};
use crate::authority::CustodyError;
use crate::authority::custody::{Algorithm, Custody, Purpose};
use crate::complaint::Complaint;
use crate::metrics::Metrics;
use crate::utc::Utc;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct JwtKeys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    held: ArcSwap<Vec<Held>>,
    public: watch::Sender<JwtAuthorities>,
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
}

#[derive(Clone, Debug)]
struct Held {
    key: TokenKey,
    times: Times,
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

impl JwtKeys {
    /// Opens the keys that there are, and makes the first one. Blocks for as long as the custody takes.
    pub(crate) fn open(place: Place, metrics: Metrics, clock: SharedClock) -> Result<Self, JwtKeysError> {
        let held = place.load(clock.now())?;
        let public = watch::Sender::new(public_of(&held));
        let keys = Self(Arc::new(Inner { place, held: ArcSwap::from_pointee(held), public, metrics, clock }));
        keys.advance()?;
        Ok(keys)
    }

    /// What is to be published, as it changes.
    pub(crate) fn public(&self) -> watch::Receiver<JwtAuthorities> {
        self.0.public.subscribe()
    }

    /// None where the time has passed its key by.
    pub(super) fn signer(&self, now: OffsetDateTime) -> Option<Signer> {
        let held = self.0.held.load();
        let active = held.iter().find(|held| held.times.is_active() && held.times.not_after > now)?;
        Some(Signer { key: active.key.clone(), not_after: active.times.not_after })
    }

    /// Takes the steps that are due, until cancelled.
    pub(crate) async fn follow(self) {
        let mut complaint = Complaint::default();
        loop {
            tokio::time::sleep(LOOK).await;
            if self.next_step() == Step::Nothing {
                continue;
            }
            let keys = self.clone();
            let taken = tokio::task::spawn_blocking(move || keys.advance()).await;
            match taken.unwrap_or(Err(JwtKeysError::BrokenOff)) {
                Ok(()) => complaint.clear(),
                Err(error) => {
                    if let Some(cause) = complaint.of(&error) {
                        tracing::error!(cause, "JWT keys are not rotated; those that there are stay");
                    }
                }
            }
        }
    }

    fn next_step(&self) -> Step {
        let times: Vec<_> = self.0.held.load().iter().map(|held| held.times).collect();
        self.0.place.schedule.next_step(&times, self.0.clock.now())
    }

    /// Takes all steps that are due.
    fn advance(&self) -> Result<(), JwtKeysError> {
        loop {
            let now = self.0.clock.now();
            let mut next = Vec::clone(&self.0.held.load());
            match self.next_step() {
                Step::Nothing => break,
                Step::Make => {
                    let made = self.0.place.make(now)?;
                    tracing::info!(kid = made.key.kid(), "JWT key prepared");
                    next.push(made);
                }
                Step::Activate(index) => {
                    let active = next.iter_mut().find(|held| held.times.is_active());
                    active.into_iter().for_each(|held| held.times.retired_at = Some(now));
                    next[index].times.activated_at = Some(now);
                    let (kid, not_after) = (next[index].key.kid(), Utc(next[index].times.not_after));
                    tracing::info!(kid, %not_after, "JWT key active");
                }
                Step::Remove(index) => {
                    let gone = next.remove(index);
                    let key = &gone.key.key;
                    self.0.place.custody.destroy(key.name(), Purpose::Tokens(key.algorithm()))?;
                    tracing::info!(kid = gone.key.kid(), "JWT key destroyed");
                }
            }
            self.0.place.write(&next)?;
            let public = public_of(&next);
            self.0.held.store(Arc::new(next));
            self.0.public.send_if_modified(|present| {
                let is_other = *present != public;
                *present = public;
                is_other
            });
        }
        let held = self.0.held.load();
        let ends = held.iter().find(|held| held.times.is_active()).map(|held| held.times.not_after);
        self.0.metrics.jwt_key(ends);
        Ok(())
    }
}

impl Place {
    fn load(&self, now: OffsetDateTime) -> Result<Vec<Held>, JwtKeysError> {
        let journal = Journal::read(&self.journal)?;
        let mut held = Vec::with_capacity(journal.keys.len());
        for entry in &journal.keys {
            let wrong =
                || JwtKeysError::Journal { path: self.journal.clone(), what: "it names a key that is none".to_owned() };
            let (name, times) = entry.parsed().ok_or_else(wrong)?;
            let key = match self.custody.open_for_tokens(&name, entry.algorithm) {
                Ok(key) => key,
                // It was destroyed when it was over, and then the journal could not be written.
                Err(CustodyError::Gone { .. }) if self.schedule.is_over(&times, now) => continue,
                Err(error) => return Err(error.into()),
            };
            held.push(Held { key: TokenKey::of(key).ok_or(JwtKeysError::NoJwk)?, times });
        }
        Ok(held)
    }

    fn make(&self, now: OffsetDateTime) -> Result<Held, JwtKeysError> {
        let key = self.custody.make_for_tokens(self.algorithm)?;
        // As the journal keeps it.
        let made_at = now.replace_nanosecond(0).unwrap_or(now);
        let not_after = made_at + self.schedule.key_life;
        let times = Times { made_at, not_after, activated_at: None, retired_at: None };
        Ok(Held { key: TokenKey::of(key).ok_or(JwtKeysError::NoJwk)?, times })
    }

    fn write(&self, held: &[Held]) -> Result<(), JwtKeysError> {
        let entry = |Held { key, times }: &Held| Entry::of(key.key.name(), key.key.algorithm(), times);
        Journal::of(held.iter().map(entry).collect()).write(&self.journal)
    }
}

fn public_of(held: &[Held]) -> JwtAuthorities {
    let read = JwtAuthorities::read(held.iter().map(|held| held.key.public().clone()));
    // They are ours, and few.
    read.unwrap_or_else(|error: JwksError| {
        tracing::error!(%error, "JWT keys are not published");
        JwtAuthorities::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use signet_identity::{Clock as _, ManualClock};

    use super::*;
    use crate::authority::custody::{KeyFileError, KeyName, Memory, Passphrase, SealStrength, SealedFolder};

    const HOUR: Duration = Duration::from_secs(3600);

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn place(folder: &std::path::Path, custody: Arc<dyn Custody>) -> Place {
        Place {
            custody,
            journal: folder.join("jwt-keys.json"),
            algorithm: Algorithm::Es256,
            schedule: Schedule { key_life: 24 * HOUR, publish_ahead: HOUR / 2, longest_token: HOUR },
        }
    }

    fn sealed(folder: &std::path::Path, passphrase: &str) -> Arc<dyn Custody> {
        let passphrase = Passphrase::read(passphrase.as_bytes()).unwrap();
        Arc::new(SealedFolder::new(folder.join("jwt"), passphrase, SealStrength::MINIMAL))
    }

    fn open_keys(place: &Place, clock: &ManualClock) -> Result<JwtKeys, JwtKeysError> {
        let profiles = crate::profile::Profiles::new((HOUR, Duration::ZERO), []);
        let metrics = Metrics::register(&prometheus::Registry::new(), &profiles).unwrap();
        JwtKeys::open(place.clone(), metrics, clock.shared())
    }

    fn kid(keys: &JwtKeys, clock: &ManualClock) -> KeyName {
        keys.signer(clock.now()).unwrap().key.key.name().clone()
    }

    #[test]
    fn keys_outlive_a_restart_at_each_step_of_their_lives() {
        let folder = tempfile::tempdir().unwrap();
        let (place, clock) = (place(folder.path(), sealed(folder.path(), "open sesame")), ManualClock::new(now()));
        let mut signers = vec![kid(&open_keys(&place, &clock).unwrap(), &clock)];
        for _ in 0..60 {
            clock.advance(time::Duration::hours(1));
            let keys = open_keys(&place, &clock).unwrap();
            let kid = kid(&keys, &clock);
            let files = std::fs::read_dir(folder.path().join("jwt")).unwrap().count();
            assert_eq!(files, keys.public().borrow().len());
            if signers.last() != Some(&kid) {
                signers.push(kid);
            }
        }
        assert!(signers.len() >= 4, "{signers:?}");
        let gone = place.custody.open_for_tokens(&signers[0], Algorithm::Es256);
        assert!(matches!(gone, Err(CustodyError::Gone { .. })));
    }

    #[test]
    fn an_issuer_that_stopped_between_a_keys_end_and_the_journal_starts_and_one_whose_key_is_lost_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (place, clock) = (place(folder.path(), Arc::new(Memory::default())), ManualClock::new(now()));
        let first = kid(&open_keys(&place, &clock).unwrap(), &clock);
        place.custody.destroy(&first, Purpose::Tokens(Algorithm::Es256)).unwrap();
        let lost = open_keys(&place, &clock);
        assert!(matches!(lost, Err(JwtKeysError::Custody(CustodyError::Gone { .. }))));
        clock.advance(time::Duration::hours(25));
        assert_ne!(kid(&open_keys(&place, &clock).unwrap(), &clock), first);
    }

    #[test]
    fn keys_that_are_not_what_the_journal_says_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let (place, clock) = (place(folder.path(), sealed(folder.path(), "open sesame")), ManualClock::new(now()));
        let first = kid(&open_keys(&place, &clock).unwrap(), &clock);
        let wrong = Place { custody: sealed(folder.path(), "open barley"), ..place.clone() };
        let refused = open_keys(&wrong, &clock);
        let is_passphrase =
            |error: &CustodyError| matches!(error, CustodyError::File(KeyFileError::WrongPassphrase { .. }));
        assert!(matches!(&refused, Err(JwtKeysError::Custody(error)) if is_passphrase(error)));

        let file = |name: &KeyName| folder.path().join(format!("jwt/{name}.key"));
        let other = place.custody.make_for_tokens(Algorithm::Es256).unwrap();
        std::fs::rename(file(other.name()), file(&first)).unwrap();
        let refused = open_keys(&place, &clock);
        let is_damaged = |error: &CustodyError| matches!(error, CustodyError::File(KeyFileError::Damaged { .. }));
        assert!(matches!(&refused, Err(JwtKeysError::Custody(error)) if is_damaged(error)));
        let entry = |kid: &str, at: i64| {
            format!(
                r#"{{"version": 1, "keys": [{{"kid": "{kid}", "algorithm": "ES256", "made_at": {at}, "not_after": 0}}]}}"#
            )
        };
        for journal in ["", "{}", r#"{"version": 2, "keys": []}"#, &entry("../a", 0), &entry(first.as_str(), i64::MAX)]
        {
            std::fs::write(&place.journal, journal).unwrap();
            assert!(matches!(open_keys(&place, &clock), Err(JwtKeysError::Journal { .. })), "{journal}");
        }
    }
}
