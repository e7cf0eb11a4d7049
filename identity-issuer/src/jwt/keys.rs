//! The keys that an issuer signs tokens with: each sealed in a file of its own, and their times in a journal.
//!
//! A key is in its file before the journal names it, and is named no more before its file goes: so a process that is killed at any
//! moment goes on where it was.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use signet_identity::SharedClock;
use time::OffsetDateTime;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::key::{Algorithm, JwtKey};
use super::plan::{Schedule, Step, Times};
use super::{JwksError, JwtAuthorities};
use crate::authority::custody::{KeyFileError, Passphrase, SealStrength, open, seal_new};
use crate::complaint::Complaint;
use crate::metrics::Metrics;
use crate::pem_files;
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
    pub(crate) folder: PathBuf,
    pub(crate) passphrase: Passphrase,
    pub(crate) strength: SealStrength,
    pub(crate) algorithm: Algorithm,
    pub(crate) schedule: Schedule,
}

#[derive(Clone, Debug)]
struct Held {
    key: JwtKey,
    algorithm: Algorithm,
    times: Times,
}

/// A key that signs now.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    pub(super) key: JwtKey,
    pub(super) not_after: OffsetDateTime,
}

#[derive(Debug, thiserror::Error)]
pub enum JwtKeysError {
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error("the folder of JWT keys {} cannot be used", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("{} is no journal of JWT keys\nrestore it from a backup, or remove its folder to begin with a new key", path.display())]
    Journal { path: PathBuf },
    #[error("{} is another key than its name says\nrestore it from a backup", path.display())]
    OtherKey { path: PathBuf },
    #[error("the cryptographic library refused to make a JWT key")]
    Cryptography,
    #[error("work on the JWT keys broke off")]
    BrokenOff,
}

/// Times are Unix seconds.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    keys: Vec<Entry>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kid: String,
    algorithm: Algorithm,
    made_at: i64,
    not_after: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activated_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired_at: Option<i64>,
}

const JOURNAL: &str = "keys.json";
/// No journal is larger.
const MAX_KEYS: usize = 16;
/// Between two looks at the time.
const LOOK: Duration = Duration::from_secs(1);

impl JwtKeys {
    /// Opens the keys that there are, and makes the first one. Takes a good part of a second for each, and blocks.
    pub(crate) fn open(place: Place, metrics: Metrics, clock: SharedClock) -> Result<Self, JwtKeysError> {
        let held = place.load()?;
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
            let gone = match self.next_step() {
                Step::Nothing => break,
                Step::Make => {
                    let made = self.0.place.make(now)?;
                    tracing::info!(kid = made.key.kid(), "JWT key prepared");
                    next.push(made);
                    None
                }
                Step::Activate(index) => {
                    let active = next.iter_mut().find(|held| held.times.is_active());
                    active.into_iter().for_each(|held| held.times.retired_at = Some(now));
                    next[index].times.activated_at = Some(now);
                    let (kid, not_after) = (next[index].key.kid(), Utc(next[index].times.not_after));
                    tracing::info!(kid, %not_after, "JWT key active");
                    None
                }
                Step::Remove(index) => {
                    let gone = next.remove(index);
                    tracing::info!(kid = gone.key.kid(), "JWT key removed");
                    Some(gone)
                }
            };
            self.0.place.write(&next)?;
            let public = public_of(&next);
            self.0.held.store(Arc::new(next));
            self.0.public.send_if_modified(|present| {
                let is_other = *present != public;
                *present = public;
                is_other
            });
            if let Some(gone) = gone {
                // What is left behind is sealed, and signs nothing any more.
                let _ = std::fs::remove_file(self.0.place.key_file(gone.key.kid()));
            }
        }
        let held = self.0.held.load();
        let ends = held.iter().find(|held| held.times.is_active()).map(|held| held.times.not_after);
        self.0.metrics.jwt_key(ends);
        Ok(())
    }
}

impl Place {
    fn key_file(&self, kid: &str) -> PathBuf {
        self.folder.join(format!("{kid}.key"))
    }

    fn load(&self) -> Result<Vec<Held>, JwtKeysError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let folder = |source| JwtKeysError::Folder { path: self.folder.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(folder)?;
        let path = self.folder.join(JOURNAL);
        let text = match pem_files::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(folder(source)),
        };
        let wrong = || JwtKeysError::Journal { path: path.clone() };
        let journal: Journal = serde_json::from_slice(&text).map_err(|_| wrong())?;
        if journal.keys.len() > MAX_KEYS {
            return Err(wrong());
        }
        journal.keys.into_iter().map(|entry| self.open(entry)).collect()
    }

    fn open(&self, entry: Entry) -> Result<Held, JwtKeysError> {
        let wrong = || JwtKeysError::Journal { path: self.folder.join(JOURNAL) };
        // It becomes part of a path.
        if entry.kid.is_empty() || !entry.kid.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let time = |seconds| OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| wrong());
        let times = Times {
            made_at: time(entry.made_at)?,
            not_after: time(entry.not_after)?,
            activated_at: entry.activated_at.map(time).transpose()?,
            retired_at: entry.retired_at.map(time).transpose()?,
        };
        let path = self.key_file(&entry.kid);
        let pkcs8 = open(&path, &self.passphrase)?;
        let key = JwtKey::from_pkcs8(entry.algorithm, &pkcs8).ok().filter(|key| key.kid() == entry.kid);
        let key = key.ok_or(JwtKeysError::OtherKey { path })?;
        Ok(Held { key, algorithm: entry.algorithm, times })
    }

    fn make(&self, now: OffsetDateTime) -> Result<Held, JwtKeysError> {
        let (key, pkcs8): (_, Zeroizing<Vec<u8>>) =
            JwtKey::generate(self.algorithm).map_err(|_| JwtKeysError::Cryptography)?;
        seal_new(&self.key_file(key.kid()), &pkcs8, &self.passphrase, self.strength)?;
        // As the journal keeps it.
        let made_at = now.replace_nanosecond(0).unwrap_or(now);
        let not_after = made_at + self.schedule.key_life;
        let times = Times { made_at, not_after, activated_at: None, retired_at: None };
        Ok(Held { key, algorithm: self.algorithm, times })
    }

    fn write(&self, held: &[Held]) -> Result<(), JwtKeysError> {
        let entry = |Held { key, algorithm, times }: &Held| Entry {
            kid: key.kid().to_owned(),
            algorithm: *algorithm,
            made_at: times.made_at.unix_timestamp(),
            not_after: times.not_after.unix_timestamp(),
            activated_at: times.activated_at.map(OffsetDateTime::unix_timestamp),
            retired_at: times.retired_at.map(OffsetDateTime::unix_timestamp),
        };
        let path = self.folder.join(JOURNAL);
        let journal = Journal { keys: held.iter().map(entry).collect() };
        let text = serde_json::to_string(&journal).map_err(|_| JwtKeysError::Journal { path: path.clone() })?;
        pem_files::write_whole(&path, text.as_bytes()).map_err(|source| JwtKeysError::Folder { path, source })
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

    const HOUR: Duration = Duration::from_secs(3600);

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn place(folder: &std::path::Path) -> Place {
        Place {
            folder: folder.join("jwt"),
            passphrase: Passphrase::read(&b"open sesame"[..]).unwrap(),
            strength: SealStrength::MINIMAL,
            algorithm: Algorithm::Es256,
            schedule: Schedule { key_life: 24 * HOUR, publish_ahead: HOUR / 2, longest_token: HOUR },
        }
    }

    fn open_keys(place: &Place, clock: &ManualClock) -> Result<JwtKeys, JwtKeysError> {
        let profiles = crate::profile::Profiles::new((HOUR, Duration::ZERO), []);
        let metrics = Metrics::register(&prometheus::Registry::new(), &profiles).unwrap();
        JwtKeys::open(place.clone(), metrics, clock.shared())
    }

    fn files(place: &Place) -> usize {
        std::fs::read_dir(&place.folder).unwrap().count() - 1
    }

    #[test]
    fn keys_outlive_a_restart_at_each_step_of_their_lives() {
        let folder = tempfile::tempdir().unwrap();
        let (place, clock) = (place(folder.path()), ManualClock::new(now()));
        let first = open_keys(&place, &clock).unwrap().signer(clock.now()).unwrap().key.kid().to_owned();
        let mut signers = vec![first.clone()];
        for _ in 0..60 {
            clock.advance(time::Duration::hours(1));
            let keys = open_keys(&place, &clock).unwrap();
            let kid = keys.signer(clock.now()).unwrap().key.kid().to_owned();
            assert_eq!(files(&place), keys.public().borrow().len());
            if signers.last() != Some(&kid) {
                signers.push(kid);
            }
        }
        assert!(signers.len() >= 4, "{signers:?}");
        assert!(!std::fs::exists(place.key_file(&first)).unwrap());
    }

    #[test]
    fn keys_that_are_not_what_the_journal_says_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let (place, clock) = (place(folder.path()), ManualClock::new(now()));
        let kid = open_keys(&place, &clock).unwrap().signer(now()).unwrap().key.kid().to_owned();
        let wrong = Place { passphrase: Passphrase::read(&b"open barley"[..]).unwrap(), ..place.clone() };
        assert!(matches!(open_keys(&wrong, &clock), Err(JwtKeysError::Key(KeyFileError::WrongPassphrase { .. }))));

        let (_, pkcs8) = JwtKey::generate(Algorithm::Es256).unwrap();
        std::fs::remove_file(place.key_file(&kid)).unwrap();
        assert!(matches!(open_keys(&place, &clock), Err(JwtKeysError::Key(KeyFileError::Missing { .. }))));
        seal_new(&place.key_file(&kid), &pkcs8, &place.passphrase, place.strength).unwrap();
        assert!(matches!(open_keys(&place, &clock), Err(JwtKeysError::OtherKey { .. })));
        for journal in ["", "{}", r#"{"keys": [{"kid": "../a", "algorithm": "ES256", "made_at": 0, "not_after": 0}]}"#]
        {
            std::fs::write(place.folder.join(JOURNAL), journal).unwrap();
            assert!(matches!(open_keys(&place, &clock), Err(JwtKeysError::Journal { .. })), "{journal}");
        }
    }
}
