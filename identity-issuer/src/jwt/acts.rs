//! What operators do to keys of tokens: have another one sign, taint one, revoke one.
//!
//! A taint and a revocation of the key that signs have another one sign at once, whoever knows that one already: for clients that are
//! connected, that is a moment later.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use super::journal::{Act, MOST_REVOKED, Revoked};
use super::keys::{JwtKeys, JwtKeysError, State};
use super::plan::Known;
use crate::authority::custody::Algorithm;
use crate::authority::{KeyName, Stage};
use crate::utc::{microseconds, of_microseconds};

/// A key, for people.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) kid: KeyName,
    /// None where the key is gone.
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) stage: Stage,
    pub(crate) since: Option<OffsetDateTime>,
    /// None of one that is revoked.
    pub(crate) not_after: Option<OffsetDateTime>,
    /// Who tainted or revoked it.
    pub(crate) act: Option<Act>,
    /// Why it was revoked.
    pub(crate) reason: Option<String>,
}

/// How a key is revoked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Insistence {
    /// Not the one that signs.
    Careful,
    /// That one too: another one signs at once.
    Force,
}

/// Why a key stays as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
    #[error("no key of tokens is named {kid}; `signet get jwt-keys` shows them")]
    Unknown { kid: KeyName },
    #[error("the key {kid} is {} already", stage.label())]
    Already { kid: KeyName, stage: Stage },
    #[error(
        "the key {kid} signs tokens now: taint it first (`signet taint`), or use --force, so that another one signs at once"
    )]
    Signs { kid: KeyName },
    #[error("another key is to sign already; `signet get jwt-keys` shows when")]
    UnderWay,
    #[error("there are too many keys of tokens that are retired, tainted or revoked: wait until they are over")]
    TooMany,
    #[error(transparent)]
    Keys(#[from] JwtKeysError),
}

/// A journal has room for some more, so that keys follow each other all the same.
const MOST_HELD: usize = 12;

impl JwtKeys {
    /// This issuer's, in the order in which they were made; then those that are revoked, others' too.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let state = self.state();
        let held = state.keys.iter().map(|held| Listed {
            kid: held.key.key.name().clone(),
            algorithm: Some(held.key.key.algorithm()),
            stage: held.stage(),
            since: Some(held.since()),
            not_after: Some(held.times.not_after),
            act: held.tainted.clone(),
            reason: None,
        });
        let revoked = state.revoked.iter().map(|revoked| Listed {
            kid: revoked.kid.clone(),
            algorithm: revoked.rests,
            stage: Stage::Revoked,
            since: of_microseconds(revoked.act.at),
            not_after: None,
            act: Some(revoked.act.clone()),
            reason: Some(revoked.reason.clone()),
        });
        held.chain(revoked).collect()
    }

    /// When the next key signs, at the earliest, if somebody wants one to.
    pub(crate) fn rotation(&self) -> Option<(Act, OffsetDateTime)> {
        let state = self.state();
        let act = state.rotation.clone()?;
        let made_at = state.prepared().map(|index| state.keys[index].times.made_at);
        let made_at = made_at.or_else(|| of_microseconds(act.at))?;
        Some((act, made_at + self.schedule().publish_ahead))
    }

    /// Has another key sign, once it is known. Blocks for as long as the custody takes, as all of these do.
    pub(crate) fn rotate(&self, act: Act) -> Result<(), ActError> {
        let working = self.work();
        let mut next = self.next();
        if next.rotation.is_some() {
            return Err(ActError::UnderWay);
        }
        if next.keys.len() >= MOST_HELD {
            return Err(ActError::TooMany);
        }
        tracing::info!(actor = act.actor, comment = act.comment, "another JWT key is to sign");
        next.rotation = Some(act);
        self.put(next)?;
        drop(working);
        Ok(self.advance(Known::No)?)
    }

    /// It signs no more; what it has signed stays good.
    pub(crate) fn taint(&self, kid: &KeyName, act: Act) -> Result<(), ActError> {
        let _working = self.work();
        let mut next = self.next();
        let (index, stage) = next.find(kid)?;
        if stage == Stage::Tainted {
            return Err(ActError::Already { kid: kid.clone(), stage });
        }
        if next.keys.len() >= MOST_HELD {
            return Err(ActError::TooMany);
        }
        if stage == Stage::Active {
            self.hand_over(&mut next)?;
        }
        let now = self.now();
        next.keys[index].times.retired_at.get_or_insert(now);
        tracing::info!(kid = kid.as_str(), actor = act.actor, comment = act.comment, "JWT key tainted");
        next.keys[index].tainted = Some(act);
        Ok(self.put(next)?)
    }

    /// Nothing that it has signed is good, from now on. `published`: the keys that are trusted, other issuers' too.
    pub(crate) fn revoke(
        &self,
        kid: &KeyName,
        reason: &str,
        act: Act,
        insistence: Insistence,
        published: &BTreeSet<KeyName>,
    ) -> Result<(), ActError> {
        let _working = self.work();
        let mut next = self.next();
        if next.revoked.len() >= MOST_REVOKED {
            return Err(ActError::TooMany);
        }
        let rests = match next.find(kid) {
            Ok((_, Stage::Active)) if insistence == Insistence::Careful => {
                return Err(ActError::Signs { kid: kid.clone() });
            }
            Ok((index, stage)) => {
                if stage == Stage::Active {
                    self.hand_over(&mut next)?;
                }
                Some(next.keys.remove(index).key.key.algorithm())
            }
            // Another issuer's: it takes note of that by what this one tells.
            Err(ActError::Unknown { .. }) if published.contains(kid) => None,
            Err(error) => return Err(error),
        };
        tracing::info!(kid = kid.as_str(), reason, actor = act.actor, comment = act.comment, "JWT key revoked");
        next.revoked.push(Revoked { kid: kid.clone(), reason: reason.to_owned(), act, rests });
        self.put(next)?;
        // Where that does not work, it is tried again.
        if let Err(error) = self.destroy_revoked() {
            let cause = signet_process::start::Report::of(&error).cause;
            tracing::warn!(cause, "a revoked JWT key is not destroyed yet");
        }
        Ok(())
    }

    /// Whether it would be done.
    pub(crate) fn check_revoke(
        &self,
        kid: &KeyName,
        insistence: Insistence,
        published: &BTreeSet<KeyName>,
    ) -> Result<(), ActError> {
        match self.next().find(kid) {
            Ok((_, Stage::Active)) if insistence == Insistence::Careful => Err(ActError::Signs { kid: kid.clone() }),
            Err(ActError::Unknown { .. }) if published.contains(kid) => Ok(()),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes note of those of this issuer's that another one has revoked.
    pub(crate) fn heed(&self, revoked: &BTreeSet<KeyName>) -> Result<(), ActError> {
        let own: Vec<_> = self.state().keys.iter().map(|held| held.key.key.name().clone()).collect();
        for kid in own.into_iter().filter(|kid| revoked.contains(kid)) {
            let comment = "by another issuer, which knows by whom and why".to_owned();
            let act = Act { at: microseconds(self.now()), actor: "another issuer".to_owned(), comment };
            match self.revoke(&kid, UNKNOWN_REASON, act, Insistence::Force, &BTreeSet::new()) {
                // Somebody was quicker.
                Ok(()) | Err(ActError::Already { .. } | ActError::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Has the next key sign in the place of the one that does.
    fn hand_over(&self, next: &mut State) -> Result<(), JwtKeysError> {
        let now = self.now();
        let successor = match next.prepared() {
            Some(index) => index,
            None => {
                next.keys.push(self.make(now)?);
                next.keys.len() - 1
            }
        };
        next.activate(successor, now);
        Ok(())
    }
}

impl State {
    fn find(&self, kid: &KeyName) -> Result<(usize, Stage), ActError> {
        if self.revoked.iter().any(|revoked| revoked.kid == *kid) {
            return Err(ActError::Already { kid: kid.clone(), stage: Stage::Revoked });
        }
        let index = self.keys.iter().position(|held| held.key.key.name() == kid);
        let index = index.ok_or_else(|| ActError::Unknown { kid: kid.clone() })?;
        Ok((index, self.keys[index].stage()))
    }
}

/// RFC 5280 §5.3.1.
const UNKNOWN_REASON: &str = "unspecified";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::Arc;
    use std::time::Duration;

    use signet_identity::{Clock as _, ManualClock};

    use super::super::keys::Place;
    use super::super::plan::Schedule;
    use super::*;
    use crate::authority::CustodyError;
    use crate::authority::custody::Memory;
    use crate::metrics::Metrics;

    const HOUR: Duration = Duration::from_secs(3600);

    struct Issuer {
        place: Place,
        clock: ManualClock,
        _folder: tempfile::TempDir,
    }

    impl Issuer {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let place = Place {
                custody: Arc::new(Memory::default()),
                journal: folder.path().join("jwt-keys.json"),
                algorithm: Algorithm::Es256,
                schedule: Schedule { key_life: 24 * HOUR, publish_ahead: HOUR, longest_token: HOUR / 4 },
            };
            let clock = ManualClock::new(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap());
            Self { place, clock, _folder: folder }
        }

        fn pass(&self, time: Duration) {
            self.clock.advance(time.try_into().unwrap());
        }

        /// As after each restart.
        fn keys(&self) -> JwtKeys {
            let profiles = crate::profile::Profiles::new((HOUR, Duration::ZERO), []);
            let metrics = Metrics::register(&prometheus::Registry::new(), &profiles).unwrap();
            JwtKeys::open(self.place.clone(), metrics, self.clock.shared()).unwrap()
        }

        fn rests(&self, kid: &KeyName) -> bool {
            match self.place.custody.open_for_tokens(kid, Algorithm::Es256) {
                Ok(_) => true,
                Err(CustodyError::Gone { .. }) => false,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn act() -> Act {
        Act { at: 1_800_000_000_000_000, actor: "uid:0".to_owned(), comment: "ticket 1".to_owned() }
    }

    fn signer(keys: &JwtKeys) -> KeyName {
        keys.signer(keys.now()).unwrap().key.key.name().clone()
    }

    fn stages(keys: &JwtKeys) -> Vec<(KeyName, Stage)> {
        keys.list().into_iter().map(|listed| (listed.kid, listed.stage)).collect()
    }

    fn is_published(keys: &JwtKeys, kid: &KeyName) -> bool {
        keys.published().borrow().public.named().any(|(known, _)| known == *kid)
    }

    fn revoke(keys: &JwtKeys, kid: &KeyName, insistence: Insistence) -> Result<(), ActError> {
        keys.revoke(kid, "key-compromise", act(), insistence, &BTreeSet::new())
    }

    #[test]
    fn a_tainted_key_signs_no_more_and_is_known_until_its_last_token_has_expired() {
        let issuer = Issuer::new();
        let keys = issuer.keys();
        let first = signer(&keys);
        keys.taint(&first, act()).unwrap();
        let second = signer(&keys);
        assert_eq!(stages(&keys), [(first.clone(), Stage::Tainted), (second.clone(), Stage::Active)]);
        assert!(is_published(&keys, &first) && is_published(&keys, &second));
        let stage = Stage::Tainted;
        assert!(matches!(keys.taint(&first, act()), Err(ActError::Already { stage: found, .. }) if found == stage));

        let keys = issuer.keys();
        assert_eq!(stages(&keys), [(first.clone(), Stage::Tainted), (second.clone(), Stage::Active)]);
        assert_eq!(keys.list()[0].act, Some(act()));
        issuer.pass(HOUR / 4);
        keys.advance(Known::Yes).unwrap();
        assert!(is_published(&keys, &first) && issuer.rests(&first));
        issuer.pass(HOUR / 4);
        keys.advance(Known::Yes).unwrap();
        assert!(!is_published(&keys, &first) && !issuer.rests(&first));
        assert_eq!(stages(&keys), [(second, Stage::Active)]);
    }

    #[test]
    fn the_key_that_signs_is_revoked_by_force_alone_and_another_one_signs_at_once() {
        let issuer = Issuer::new();
        let keys = issuer.keys();
        let first = signer(&keys);
        assert!(matches!(revoke(&keys, &first, Insistence::Careful), Err(ActError::Signs { .. })));
        assert!(is_published(&keys, &first) && signer(&keys) == first);
        revoke(&keys, &first, Insistence::Force).unwrap();
        let second = signer(&keys);
        for keys in [keys, issuer.keys()] {
            assert_eq!(stages(&keys), [(second.clone(), Stage::Active), (first.clone(), Stage::Revoked)]);
            assert!(!is_published(&keys, &first) && !issuer.rests(&first));
            assert!(keys.published().borrow().revoked.contains(&first));
            let again = revoke(&keys, &first, Insistence::Force);
            assert!(matches!(again, Err(ActError::Already { stage: Stage::Revoked, .. })));
        }
        // It is named for longer than any key lives, and no longer.
        for _ in 0..401 {
            issuer.pass(24 * HOUR);
            issuer.keys();
        }
        assert!(issuer.keys().published().borrow().revoked.is_empty());
    }

    #[test]
    fn a_key_that_was_to_follow_or_has_retired_is_revoked_without_force() {
        let issuer = Issuer::new();
        let keys = issuer.keys();
        let first = signer(&keys);
        keys.rotate(act()).unwrap();
        assert!(matches!(keys.rotate(act()), Err(ActError::UnderWay)));
        let prepared = stages(&keys)[1].0.clone();
        assert_eq!(keys.rotation().unwrap().1, issuer.clock.now() + HOUR);
        revoke(&keys, &prepared, Insistence::Careful).unwrap();
        assert_eq!(signer(&keys), first);
        // What somebody wanted is done all the same, also after a restart.
        let keys = issuer.keys();
        issuer.pass(HOUR);
        keys.advance(Known::No).unwrap();
        assert_eq!(signer(&keys), first);
        keys.advance(Known::Yes).unwrap();
        let second = signer(&keys);
        assert!(second != first && second != prepared);
        assert!(keys.rotation().is_none());
        revoke(&keys, &first, Insistence::Careful).unwrap();
        assert_eq!(signer(&keys), second);
    }

    #[test]
    fn what_another_issuer_has_revoked_signs_no_more_and_ones_word_is_for_keys_of_others_too() {
        let issuer = Issuer::new();
        let keys = issuer.keys();
        let (first, foreign) = (signer(&keys), KeyName::of(b"another issuer's"));
        assert!(matches!(revoke(&keys, &foreign, Insistence::Force), Err(ActError::Unknown { .. })));
        let published = BTreeSet::from([foreign.clone()]);
        keys.revoke(&foreign, "superseded", act(), Insistence::Careful, &published).unwrap();
        assert!(keys.published().borrow().revoked.contains(&foreign));
        keys.heed(&published).unwrap();
        assert_eq!(signer(&keys), first);
        keys.heed(&BTreeSet::from([first.clone()])).unwrap();
        keys.heed(&BTreeSet::from([first.clone()])).unwrap();
        assert_ne!(signer(&keys), first);
        assert!(!is_published(&keys, &first) && !issuer.rests(&first));
    }

    #[test]
    fn what_operators_do_again_and_again_leaves_a_journal_that_can_be_read() {
        let mut issuer = Issuer::new();
        issuer.place.schedule.publish_ahead = Duration::ZERO;
        let keys = issuer.keys();
        let mut refused = [false; 2];
        for _ in 0..20 {
            refused[0] |= matches!(keys.rotate(act()), Err(ActError::TooMany));
            keys.advance(Known::Yes).unwrap();
            refused[1] |= matches!(keys.taint(&signer(&keys), act()), Err(ActError::TooMany));
            issuer.keys();
        }
        assert_eq!(refused, [true; 2]);
        let all =
            |from: u32| (from..from + 130).map(|number| KeyName::of(&number.to_be_bytes())).collect::<BTreeSet<_>>();
        for kid in all(0) {
            let revoked = keys.revoke(&kid, "superseded", act(), Insistence::Careful, &all(0));
            assert!(matches!(revoked, Ok(()) | Err(ActError::TooMany)));
        }
        assert_eq!(stages(&issuer.keys()).len(), MOST_HELD + MOST_REVOKED);
    }
}
