//! What operators do to keys of tokens: have another one sign, taint one, revoke one.
//!
//! A taint and a revocation of the key that signs have another one sign at once, whoever knows that one already: for clients that are
//! connected, that is a moment later.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, SendError};
use std::time::Duration;

use time::OffsetDateTime;

use super::RevokedKeys;
use super::journal::{Act, MOST_REVOKED, Revoked};
use super::keys::{Held, JwtKeys, JwtKeysError, State};
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

/// What is done to it, and by whom.
struct Revoking<'a> {
    reason: &'a str,
    act: Act,
    /// From another issuer.
    heard: bool,
    insistence: Insistence,
    published: &'a BTreeSet<KeyName>,
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
/// For a key to be made, before one is revoked without another in its place.
const PATIENCE: Duration = Duration::from_secs(5);

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
        let rests =
            |kid: &KeyName| state.ending.iter().find(|ending| ending.kid == *kid).map(|ending| ending.algorithm);
        let revoked = state.revoked.iter().map(|revoked| Listed {
            kid: revoked.kid.clone(),
            algorithm: rests(&revoked.kid),
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
        let mut spare = self.spare_for(kid)?;
        let tainted = self.taint_with(kid, act, &mut spare);
        spare.into_iter().for_each(|spare| self.discard(&spare));
        tainted
    }

    /// `spare` is left where it is not needed.
    fn taint_with(&self, kid: &KeyName, act: Act, spare: &mut Option<Held>) -> Result<(), ActError> {
        let _working = self.work();
        let mut next = self.next();
        let (index, stage) = next.find(kid)?;
        if stage == Stage::Tainted {
            return Err(ActError::Already { kid: kid.clone(), stage });
        }
        if next.keys.len() >= MOST_HELD {
            return Err(ActError::TooMany);
        }
        let now = self.now();
        if stage == Stage::Active && !next.hand_over(spare, now) {
            return Err(ActError::UnderWay);
        }
        next.keys[index].times.retired_at.get_or_insert(now);
        next.keys[index].tainted = Some(act.clone());
        self.put_with(next, spare)?;
        tracing::info!(kid = kid.as_str(), actor = act.actor, comment = act.comment, "JWT key tainted");
        Ok(())
    }

    /// One to sign in the place of this one, where it does sign and none is prepared.
    fn spare_for(&self, kid: &KeyName) -> Result<Option<Held>, ActError> {
        let state = self.state();
        let (_, stage) = state.find(kid)?;
        match stage == Stage::Active && state.prepared().is_none() && state.keys.len() < MOST_HELD {
            true => Ok(Some(self.make()?)),
            false => Ok(None),
        }
    }

    /// The same, where that does not take long: a key that is to be revoked does not wait for another one.
    fn spare_in_time(&self, kid: &KeyName) -> Option<Held> {
        // Nothing rests in between: what is sent is received, or its sender knows.
        let (give, given) = mpsc::sync_channel(0);
        let (keys, kid) = (self.clone(), kid.clone());
        in_the_background(move || match keys.spare_for(&kid) {
            Ok(None) => {}
            Ok(Some(spare)) => {
                if let Err(SendError(late)) = give.send(spare) {
                    keys.discard(&late);
                }
            }
            Err(error) => {
                let cause = signet_process::start::Report::of(&error).cause;
                tracing::warn!(cause, "no JWT key can be made for the one that is to be revoked");
            }
        });
        given.recv_timeout(PATIENCE).ok()
    }

    /// [`put`](Self::put), with the spare key where it is used.
    fn put_with(&self, next: State, spare: &mut Option<Held>) -> Result<(), JwtKeysError> {
        let names = |spare: &Held| next.keys.iter().any(|held| held.key.kid() == spare.key.kid());
        let is_used = spare.as_ref().is_some_and(names);
        self.put(next)?;
        if is_used {
            *spare = None;
        }
        Ok(())
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
        self.revoke_as(kid, Revoking { reason, act, heard: false, insistence, published })
    }

    fn revoke_as(&self, kid: &KeyName, how: Revoking<'_>) -> Result<(), ActError> {
        self.check_revoke(kid, how.insistence, how.published)?;
        let mut spare = self.spare_in_time(kid);
        let recorded = self.record(kid, how, &mut spare);
        spare.into_iter().for_each(|spare| self.discard(&spare));
        recorded?;
        // Where there was no spare, no key signs until this is done.
        self.advance_in_time();
        Ok(())
    }

    /// Takes the steps that are due. What takes longer, or fails, is done later: it is tried again.
    fn advance_in_time(&self) {
        let (tell, told) = mpsc::sync_channel(1);
        let keys = self.clone();
        // Nobody may listen any more.
        in_the_background(move || drop(tell.send(keys.advance(Known::No))));
        let cause = match told.recv_timeout(PATIENCE) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => signet_process::start::Report::of(&error).cause,
            Err(_) => "what keeps the keys does not answer".to_owned(),
        };
        tracing::warn!(cause, "a JWT key is revoked; it is not destroyed yet, or there is no other one yet");
    }

    /// `spare` is left where it is not needed.
    fn record(&self, kid: &KeyName, how: Revoking<'_>, spare: &mut Option<Held>) -> Result<(), ActError> {
        let Revoking { reason, act, heard, insistence, published } = how;
        let _working = self.work();
        let mut next = self.next();
        if !heard && next.revoked.iter().filter(|revoked| !revoked.heard).count() >= MOST_REVOKED {
            return Err(ActError::TooMany);
        }
        match next.find(kid) {
            Ok((_, Stage::Active)) if insistence == Insistence::Careful => {
                return Err(ActError::Signs { kid: kid.clone() });
            }
            Ok((index, stage)) => {
                if stage == Stage::Active {
                    next.hand_over(spare, self.now());
                }
                next.end(index);
            }
            // Another issuer's: it takes note of that by what this one tells.
            Err(ActError::Unknown { .. }) if published.contains(kid) => {}
            Err(error) => return Err(error),
        }
        next.revoked.push(Revoked { kid: kid.clone(), reason: reason.to_owned(), act: act.clone(), heard });
        self.put_with(next, spare)?;
        tracing::info!(kid = kid.as_str(), reason, actor = act.actor, comment = act.comment, "JWT key revoked");
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

    /// Takes note of what other issuers have revoked: of this one's own keys, and of others', in case that their record is lost.
    pub(crate) fn heed(&self, revoked: &RevokedKeys) -> Result<(), ActError> {
        let own: Vec<_> = self.state().keys.iter().map(|held| held.key.key.name().clone()).collect();
        for kid in own.into_iter().filter(|kid| revoked.contains_key(kid)) {
            let (act, none) = (heard_of(microseconds(self.now())), BTreeSet::new());
            let insistence = Insistence::Force;
            let how = Revoking { reason: UNKNOWN_REASON, act, heard: true, insistence, published: &none };
            match self.revoke_as(&kid, how) {
                // Somebody was quicker.
                Ok(()) | Err(ActError::Already { .. } | ActError::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.remember(revoked)?)
    }

    /// Since when it was revoked where it was: else those who hear of it from each other would name it for ever.
    fn remember(&self, revoked: &RevokedKeys) -> Result<(), JwtKeysError> {
        let _working = self.work();
        let (mut next, now) = (self.next(), self.now());
        let heard = |kid: &KeyName, at: i64| Revoked {
            kid: kid.clone(),
            reason: UNKNOWN_REASON.to_owned(),
            act: heard_of(at.min(microseconds(now))),
            heard: true,
        };
        let named: BTreeSet<_> = next.revoked.iter().map(|revoked| revoked.kid.clone()).collect();
        let new = revoked.iter().filter(|(kid, _)| !named.contains(kid)).map(|(kid, at)| heard(kid, *at));
        let mut new: Vec<_> = new.filter(|revoked| !revoked.is_forgotten(now)).collect();
        let room = MOST_REVOKED.saturating_sub(next.revoked.iter().filter(|revoked| revoked.heard).count());
        if new.len() > room {
            tracing::warn!(left_out = new.len() - room, "other issuers have revoked more JWT keys than are kept here");
            new.truncate(room);
        }
        if new.is_empty() {
            return Ok(());
        }
        next.revoked.extend(new);
        self.put(next)
    }
}

/// Beside whoever has a key revoked: the custody may not answer for long. A thread that cannot be had is as a custody that is away.
fn in_the_background(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().spawn(work) {
        tracing::error!(%error, "no thread for work on JWT keys");
    }
}

impl State {
    /// Has the next key sign, the spare one where none is prepared. False where there is neither.
    fn hand_over(&mut self, spare: &Option<Held>, now: OffsetDateTime) -> bool {
        let successor = self.prepared().or_else(|| {
            self.keys.push(spare.clone()?);
            Some(self.keys.len() - 1)
        });
        if let Some(index) = successor {
            self.activate(index, now);
        }
        successor.is_some()
    }

    fn find(&self, kid: &KeyName) -> Result<(usize, Stage), ActError> {
        if self.revoked.iter().any(|revoked| revoked.kid == *kid) {
            return Err(ActError::Already { kid: kid.clone(), stage: Stage::Revoked });
        }
        let index = self.keys.iter().position(|held| held.key.key.name() == kid);
        let index = index.ok_or_else(|| ActError::Unknown { kid: kid.clone() })?;
        Ok((index, self.keys[index].stage()))
    }
}

fn heard_of(at: i64) -> Act {
    let comment = "by another issuer, which knows by whom and why".to_owned();
    Act { at, actor: "another issuer".to_owned(), comment }
}

/// RFC 5280 §5.3.1.
const UNKNOWN_REASON: &str = "unspecified";

#[cfg(test)]
mod tests;
