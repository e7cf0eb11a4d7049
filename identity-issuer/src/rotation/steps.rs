//! What a rotation does next, by what is proved.

use std::sync::PoisonError;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use super::{Parts, TaintError};
use crate::authority::{AuthorityError, Kept, KeyName, Member, RootChange, Rotation, Stage, StepError, check_is_under};
use crate::store::{NewRenewalRequest, StoreError, Whose};
use crate::utc::{microseconds, of_microseconds};

/// Why a step is not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdvanceError {
    #[error(transparent)]
    Step(#[from] StepError),
    #[error(transparent)]
    Keep(#[from] AuthorityError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Taint(#[from] TaintError),
    #[error("making a key broke off")]
    Task(#[from] tokio::task::JoinError),
}

/// What an authority signed is renewed at most at this rate, so that there is room for others: 5 ms each.
const RENEWAL: Duration = Duration::from_millis(5);
const LEAST_SPREAD: Duration = Duration::from_secs(1);
const MOST_SPREAD: Duration = Duration::from_secs(24 * 3600);
/// For clients to come back to an issuer that was started again.
const RECONNECTING: Duration = Duration::from_secs(10);
/// Between the last renewal and the end of the root before.
const SETTLING: Duration = Duration::from_secs(5);

impl Parts {
    /// Custody may take its time: not on a worker of the runtime.
    pub(super) async fn sweep(&self) {
        let authorities = self.authorities.clone();
        let swept = tokio::task::spawn_blocking(move || authorities.sweep()).await;
        if let Ok(Err(error)) = swept {
            let cause = signet_process::start::Report::of(&error).cause;
            tracing::warn!(cause, "keys of authorities that are over are not destroyed yet");
        }
    }

    /// Makes the next step, if it can be made.
    pub(super) async fn advance(&self) -> Result<(), AdvanceError> {
        // As an issuer starts, nothing can be judged for a moment.
        if self.own_bundle().is_none() {
            return Ok(());
        }
        let Some(rotation) = self.authorities.rotation() else { return self.begin_in_time().await };
        let successor = match &rotation.successor {
            Some(name) => KeyName::parse(name),
            None => return self.find_successor(&rotation).await,
        };
        let is_it = |member: &Member| Some(member.name()) == successor;
        let active = self.authorities.active().map(|active| active.name());
        match (&successor, &rotation.root) {
            (Some(name), root) if self.ready().iter().any(is_it) => {
                self.activate(&rotation, name, root.is_some()).await
            }
            (Some(_), Some(change)) if active == successor => match change.tainted {
                false => self.taint_before(&rotation, change).await,
                true => self.withdraw(&rotation, change).await,
            },
            _ => self.give_up_successor(&rotation),
        }
    }

    /// Changes what is kept as a step of this rotation; false where it was given up, hurried or replaced meanwhile: the next look sees to that.
    fn step<E: From<AuthorityError>>(
        &self,
        rotation: &Rotation,
        act: impl FnOnce(&mut Kept, OffsetDateTime) -> Result<(), E>,
    ) -> Result<bool, E> {
        self.authorities.change(|kept, now| match kept.rotation.as_ref() == Some(rotation) {
            true => act(kept, now).map(|()| true),
            false => Ok(false),
        })
    }

    /// It was revoked, or has expired while it waited. Of a rotation of the root, another one may follow.
    fn give_up_successor(&self, rotation: &Rotation) -> Result<(), AdvanceError> {
        let is_given_up = self.step(rotation, |kept, _| {
            match &mut kept.rotation {
                Some(rotation) if rotation.root.as_ref().is_some_and(|change| !change.tainted) => {
                    (rotation.successor, rotation.told_at) = (None, None);
                }
                rotation => *rotation = None,
            }
            Ok::<_, AuthorityError>(())
        })?;
        if is_given_up {
            let successor = rotation.successor.as_deref();
            tracing::warn!(successor, "the authority that was to follow cannot sign: it is given up");
        }
        Ok(())
    }

    /// Of a rotation of the root: the first one that is ready under the new one. Until there is one, a request for it waits.
    async fn find_successor(&self, rotation: &Rotation) -> Result<(), AdvanceError> {
        let Some(change) = &rotation.root else { return Ok(()) };
        let roots = self.only(&change.to);
        let mut ready = self.ready().into_iter().filter(|member| self.is_under(member, roots.as_ref()));
        let Some(successor) = ready.next() else { return self.keep_request().await };
        self.step(rotation, |kept, _| {
            if let Some(rotation) = &mut kept.rotation {
                rotation.successor = Some(successor.name().to_string());
            }
            Ok::<_, AuthorityError>(())
        })?;
        Ok(())
    }

    async fn keep_request(&self) -> Result<(), AdvanceError> {
        if self.authorities.all().iter().any(|member| member.stage == Stage::Requested) {
            return Ok(());
        }
        let authorities = self.authorities.clone();
        Ok(tokio::task::spawn_blocking(move || authorities.request(1)).await??)
    }

    /// Begins a rotation while there is time to wait for everybody; asks for a successor long before.
    async fn begin_in_time(&self) -> Result<(), AdvanceError> {
        let Some(active) = self.authorities.active() else { return Ok(()) };
        let now = self.clock.now();
        // One that ends with it, or before, is no way out.
        let outlives =
            |member: &Member| member.authority.as_ref().is_some_and(|next| next.not_after() > active.not_after());
        match self.ready().into_iter().find(outlives) {
            Some(next) if now > active.gives_way() => {
                let name = next.name();
                let has_begun = self.authorities.change(|kept, now| {
                    // An operator may have been quicker.
                    if kept.rotation.is_some() {
                        return Ok(false);
                    }
                    kept.rotation = Some(Rotation {
                        successor: Some(name.to_string()),
                        root: None,
                        begun_at: microseconds(now),
                        actor: "issuer".to_owned(),
                        comment: "a quarter of the authority's life is left".to_owned(),
                        overridden_by: None,
                        told_at: None,
                    });
                    Ok::<_, AuthorityError>(true)
                })?;
                if has_begun {
                    tracing::info!(successor = name.as_str(), "the authority gives way to the next one");
                }
                Ok(())
            }
            None if now > active.successor_due() => self.keep_request().await,
            Some(_) | None => Ok(()),
        }
    }

    /// Once all that are connected would believe it, or enough of them and the rest have had their time.
    async fn activate(&self, rotation: &Rotation, name: &KeyName, goes_on: bool) -> Result<(), AdvanceError> {
        if !self.publication.current().has(name) {
            return Ok(());
        }
        let now = self.clock.now();
        let Some(told_at) = rotation.told_at.and_then(of_microseconds) else {
            self.step(rotation, |kept, now| {
                if let Some(rotation) = &mut kept.rotation {
                    rotation.told_at = Some(microseconds(now));
                }
                Ok::<_, AuthorityError>(())
            })?;
            return Ok(());
        };
        // Those who were waited for before a restart are not connected at once.
        if self.resumes && self.began.elapsed() < RECONNECTING && rotation.overridden_by.is_none() {
            return Ok(());
        }
        let acknowledgements = self.acknowledgements().await?;
        let is_acknowledged = acknowledgements.suffice(self.patience, told_at, now);
        let overridden_by = match &rotation.overridden_by {
            Some(actor) => Some(actor.clone()),
            None if is_acknowledged => None,
            // What it signs would live ever shorter, and end with it.
            None if self.is_at_its_end(now) => Some("issuer: the authority in force expires soon".to_owned()),
            None => return Ok(()),
        };
        let is_made = self.step(rotation, |kept, now| {
            kept.activate(name, now)?;
            // What nobody wanted but the issuer counts for this step alone.
            if !goes_on {
                kept.rotation = None;
            }
            Ok::<_, StepError>(())
        })?;
        if is_made {
            let (connected, missing) = (acknowledgements.connected, acknowledgements.missing.len());
            tracing::info!(
                target: signet_process::logging::ADMINISTRATION,
                actor = rotation.actor, action = "Rotate", target = %name, comment = rotation.comment, overridden_by, connected, missing,
                outcome = "the authority is active", "administration"
            );
        }
        Ok(())
    }

    fn is_at_its_end(&self, now: OffsetDateTime) -> bool {
        let active = self.authorities.active();
        active.is_some_and(|active| {
            // Half of the time in which it gives way.
            active.not_after() - now < (active.not_after() - active.gives_way()) / 2
        })
    }

    /// What was signed under the roots before is renewed.
    async fn taint_before(&self, rotation: &Rotation, change: &RootChange) -> Result<(), AdvanceError> {
        *self.unneeded.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let to = self.only(&change.to);
        for member in self.authorities.all() {
            if member.stage == Stage::Retired && !self.is_under(&member, to.as_ref()) {
                self.taint(&member.name()).await?;
            }
        }
        let is_unusable = |member: &Member| member.stage == Stage::Prepared && !self.is_under(member, to.as_ref());
        let members = self.authorities.all();
        let unusable: Vec<_> = members.iter().filter(|member| is_unusable(member)).map(Member::name).collect();
        self.step(rotation, |kept, now| {
            // Those that were to follow below the root before have signed nothing, and will not.
            kept.give_up(&unusable, now);
            if let Some(change) = kept.rotation.as_mut().and_then(|rotation| rotation.root.as_mut()) {
                change.tainted = true;
            }
            Ok::<_, AuthorityError>(())
        })?;
        Ok(())
    }

    /// Once nobody needs the roots before.
    async fn withdraw(&self, rotation: &Rotation, change: &RootChange) -> Result<(), AdvanceError> {
        let left = self.left_under(change).await?;
        if rotation.overridden_by.is_none() && !self.is_settled(left == 0) {
            return Ok(());
        }
        let from = change.from.clone();
        let is_made = self.step(rotation, |kept, _| {
            kept.roots.withdraw(&from);
            kept.rotation = None;
            Ok::<_, AuthorityError>(())
        })?;
        if is_made {
            tracing::info!(
                target: signet_process::logging::ADMINISTRATION,
                actor = rotation.actor, action = "Rotate", target = ?from, comment = rotation.comment, overridden_by = rotation.overridden_by,
                outcome = "the roots are withdrawn", "administration"
            );
        }
        Ok(())
    }

    /// What is on record as renewed is in force at its holder a little later, and connections that were made before it end after that.
    fn is_settled(&self, is_unneeded: bool) -> bool {
        let mut unneeded = self.unneeded.lock().unwrap_or_else(PoisonError::into_inner);
        *unneeded = if is_unneeded { Some(unneeded.unwrap_or_else(Instant::now)) } else { None };
        unneeded.is_some_and(|since| since.elapsed() >= SETTLING)
    }

    /// How many certificates, and authorities of other issuers, would be believed no more without the roots before.
    pub(super) async fn left_under(&self, change: &RootChange) -> Result<u64, StoreError> {
        let (to, now) = (self.only(&change.to), self.clock.now());
        let mut left = 0;
        if let Some(to) = &to {
            let published = self.publication.current();
            left += published.chains().filter(|chain| check_is_under(chain, to, now).is_err()).count() as u64;
        }
        for member in self.authorities.all() {
            if let Some(authority) = &member.authority
                && !self.is_under(&member, to.as_ref())
            {
                left += self.store.without_successor(authority.key_id().as_bytes(), now).await?;
            }
        }
        Ok(left)
    }

    /// The wish goes on record first: whoever is killed in between asks twice, and never for nothing.
    pub(super) async fn taint(&self, name: &KeyName) -> Result<(u64, usize, Duration), TaintError> {
        let key_id = self.authorities.taintable(name)?.unwrap_or_default();
        let asked = self.renew_all_of(key_id).await?;
        self.authorities.taint(name)?;
        Ok(asked)
    }

    async fn renew_all_of(&self, key_id: Vec<u8>) -> Result<(u64, usize, Duration), StoreError> {
        let now = self.clock.now();
        let live = self.store.without_successor(&key_id, now).await?;
        let spread = RENEWAL * u32::try_from(live).unwrap_or(u32::MAX);
        let within = spread.clamp(LEAST_SPREAD, MOST_SPREAD);
        let request = NewRenewalRequest { whose: Whose::Authority(key_id), at: now, within };
        let request = self.store.record_renewal_request(request).await?;
        Ok((live, self.distribution.request_renewal(&request), within))
    }
}
