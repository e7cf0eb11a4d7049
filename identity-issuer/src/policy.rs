//! The policy in force, and how it changes: a revision at a time, each on record before it holds.

mod kept;
mod plan;
mod record;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use signet_identity::{BundleSet, SharedClock, SpiffeIdPattern, TrustDomain, WorkloadId};
use signet_policy::{Attributes, Grant, Outcome, Policy, PolicyError, Rule, RuleName, Size, Surroundings, TooLarge};
use time::OffsetDateTime;
use tokio::sync::{Mutex, Semaphore, watch};

use crate::administration::{Denied, Permissions, Role, Target};
use crate::profile::Profiles;
use crate::store::{RecordRevisionError, Store, StoreError};

pub(crate) use kept::KeptPolicy;
pub(crate) use plan::Plan;
use plan::RuleChange;
pub(crate) use record::CatchUpError;
use record::next_of;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Policies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    current: ArcSwap<Current>,
    /// Held while a revision is made: one follows the other.
    changing: Mutex<()>,
    /// For those that wait for it.
    places: Arc<Semaphore>,
    /// The number of the revision in force.
    changed: watch::Sender<u64>,
    surroundings: Surroundings,
    profiles: Profiles,
    bundles: watch::Receiver<BundleSet>,
    kept: KeptPolicy,
    most_lost_percent: u8,
    store: Store,
    clock: SharedClock,
}

/// What policies are made with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) trust_domain: TrustDomain,
    /// Names that no rule may give: an administrator's.
    pub(crate) protected: Vec<SpiffeIdPattern>,
    pub(crate) profiles: Profiles,
    /// Those that rules may give.
    pub(crate) bundles: watch::Receiver<BundleSet>,
    /// The one that was in force when this issuer ran last.
    pub(crate) kept: KeptPolicy,
    /// So many rules may be gone without a record that somebody took them out.
    pub(crate) most_lost_percent: u8,
    pub(crate) store: Store,
    pub(crate) clock: SharedClock,
}

/// A revision and what it was compiled to.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) revision: Revision,
    policy: Policy,
    profiles: Profiles,
}

/// One policy that was applied.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    pub(crate) head: RevisionHead,
    /// How many rules of the one before it leaves out.
    pub(crate) removed: usize,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RevisionHead {
    /// 0 for the policy without a rule that every issuer begins with.
    pub(crate) number: u64,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) actor: Actor,
    pub(crate) comment: String,
    /// How many.
    pub(crate) rules: usize,
}

/// Who did something.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Actor(Box<str>);

/// A wish for another policy.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) rules: Vec<Rule>,
    /// Whether rules that are not among these go.
    pub(crate) prune: Prune,
    pub(crate) dry_run: bool,
    /// Of whoever wishes it.
    pub(crate) permissions: Permissions,
    pub(crate) comment: String,
    /// The number of the revision that it is meant for.
    pub(crate) expected: Option<u64>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Prune {
    Nothing,
    /// Those that are whoever's who wishes it.
    Own,
    /// All, or the wish is refused.
    All,
}

/// Why the policy stays as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(
        "expected_revision: the policy is at revision {found} by now, not {expected}: somebody else has changed it"
    )]
    Overtaken { expected: u64, found: u64 },
    #[error("files: with the rules that stay, {0}")]
    TooLarge(TooLarge),
    #[error(
        "the policy in force, revision {present}, is not the one on record: was the database restored from a backup?"
    )]
    NotOnRecord { present: u64 },
    #[error("revision: there is no revision {0}")]
    NoRevision(u64),
    #[error("rule `{rule}`: {cause}")]
    Denied { rule: RuleName, cause: Denied },
    #[error("rule `{rule}`: it is, or would be, of a part of the trust domain that is not yours")]
    OfOthers { rule: RuleName },
    #[error("that revision differs in rules that are not yours")]
    OthersDiffer,
    #[error("too many changes at once; try again later")]
    Busy,
    #[error("rule `{rule}`: {what} of the whole trust domain")]
    BeyondScope { rule: RuleName, what: &'static str },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the change broke off")]
    Task(#[source] tokio::task::JoinError),
}

/// Why the policy on record cannot be put into force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyLoadError {
    #[error("revision {revision} of the policy does not go with this configuration: {cause}")]
    Policy { revision: u64, cause: PolicyError },
    #[error("the policy cannot be read")]
    Store(#[source] StoreError),
    #[error("reading the policy broke off")]
    Task(#[source] tokio::task::JoinError),
}

/// A rule ends in whole seconds.
const LOOK_FOR_ENDS: Duration = Duration::from_secs(1);

impl Policies {
    /// With the latest revision on record in force; or the one that was in force last, and why, where the record is not what it was.
    pub(crate) async fn load(parts: Parts) -> Result<(Self, Option<CatchUpError>), PolicyLoadError> {
        let Parts { trust_domain, protected, profiles, bundles, kept, most_lost_percent, store, clock } = parts;
        let surroundings = Surroundings { trust_domain, protected, profiles: profiles.terms() };
        let reading = kept.clone();
        let present = tokio::task::spawn_blocking(move || reading.path().exists().then(|| reading.read()).flatten());
        let present = present.await.map_err(PolicyLoadError::Task)?.unwrap_or_else(Revision::without_rules);
        let (revision, refused) = match next_of(&store, &present, most_lost_percent).await {
            Ok(next) => (next.unwrap_or(present), None),
            // A record of a newer version is as one that lost something, for whoever has what was in force.
            Err(CatchUpError::Store(error))
                if present.head.number == 0 || !matches!(error, StoreError::Record { .. }) =>
            {
                return Err(PolicyLoadError::Store(error));
            }
            Err(refused) => (present, Some(refused)),
        };
        let number = revision.head.number;
        let compiling = Current::compile(revision, surroundings.clone(), profiles.clone());
        let current = compiling.await.map_err(PolicyLoadError::Task)?;
        let current = current.map_err(|cause| PolicyLoadError::Policy { revision: number, cause })?;
        let changed = watch::Sender::new(current.revision.head.number);
        let policies = Self(Arc::new(Inner {
            current: ArcSwap::from_pointee(current),
            changing: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX_CHANGES)),
            changed,
            surroundings,
            profiles,
            bundles,
            kept,
            most_lost_percent,
            store,
            clock,
        }));
        policies.keep().await.map_err(PolicyLoadError::Task)?;
        Ok((policies, refused))
    }

    /// For the next start.
    async fn keep(&self) -> Result<(), tokio::task::JoinError> {
        let (kept, current) = (self.0.kept.clone(), self.current());
        tokio::task::spawn_blocking(move || kept.write(&current.revision)).await
    }

    fn put_in_force(&self, next: Current) {
        let number = next.revision.head.number;
        self.0.current.store(Arc::new(next));
        self.0.changed.send_replace(number);
    }

    /// Tells of rules that end, each as it does, until cancelled: what they gave is given no more from then on.
    pub(crate) async fn tell_of_ends(self) {
        let mut seen = self.0.clock.now();
        loop {
            tokio::time::sleep(LOOK_FOR_ENDS).await;
            let now = self.0.clock.now();
            let has_ended = |rule: &Rule| {
                let end = rule.settings.expires.and_then(|end| OffsetDateTime::from_unix_timestamp(end).ok());
                end.is_some_and(|end| seen < end && end <= now)
            };
            if self.current().revision.rules.iter().any(has_ended) {
                self.0.changed.send_modify(|_| {});
            }
            seen = now;
        }
    }

    /// Tells of each revision once it is in force.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        self.0.current.load_full()
    }

    /// What the wish comes to, and that in force and on record unless it is a dry run or nothing.
    ///
    /// It is carried out to its end also when nobody waits for it any more: what is on record would not be in force.
    pub(crate) async fn change(&self, wish: Wish) -> Result<(u64, Plan), ChangeError> {
        let policies = self.clone();
        // Each is carried out though its caller leaves: without a bound, they would pile up.
        let place = Arc::clone(&self.0.places).try_acquire_owned().map_err(|_| ChangeError::Busy)?;
        let carrying_out = tokio::spawn(async move {
            let _place = place;
            policies.carry_out(wish).await
        });
        carrying_out.await.map_err(ChangeError::Task)?
    }

    async fn carry_out(&self, wish: Wish) -> Result<(u64, Plan), ChangeError> {
        let _one = if wish.dry_run { None } else { Some(self.0.changing.lock().await) };
        let current = self.current();
        let found = current.revision.head.number;
        if let Some(expected) = wish.expected.filter(|expected| *expected != found) {
            return Err(ChangeError::Overtaken { expected, found });
        }
        // Another one of its number: what would be recorded behind that would hold here, and at no other issuer.
        if found > 0 && !self.0.store.is_on_record(&current.revision.head).await? {
            return Err(ChangeError::NotOnRecord { present: found });
        }
        let own = |rule: &Rule| wish.permissions.may(Role::Operator, Target::Path(path_of(rule)));
        let mut plan = Plan::new(&current.revision.rules, wish.rules, |rule| match wish.prune {
            Prune::Nothing => false,
            Prune::Own => own(rule),
            Prune::All => true,
        });
        let seen = plan.rules.iter().filter(|rule| wish.permissions.sees(path_of(rule))).count();
        plan.unchanged = seen.saturating_sub(plan.changes.iter().filter(|change| change.after.is_some()).count());
        let is_confined = !wish.permissions.may(Role::Operator, Target::Everything);
        for change in &plan.changes {
            for rule in change.rules() {
                if !wish.permissions.sees(path_of(rule)) {
                    return Err(match wish.prune {
                        Prune::All => ChangeError::OthersDiffer,
                        Prune::Nothing | Prune::Own => ChangeError::OfOthers { rule: rule.name.clone() },
                    });
                }
                let need = wish.permissions.need(Role::Operator, Target::Path(path_of(rule)));
                need.map_err(|cause| ChangeError::Denied { rule: rule.name.clone(), cause })?;
                if is_confined && change.gives_other_dns_names() {
                    return Err(ChangeError::BeyondScope { rule: rule.name.clone(), what: DNS_NAMES });
                }
                if is_confined && change.touches_a_profile() {
                    return Err(ChangeError::BeyondScope { rule: rule.name.clone(), what: PROFILES });
                }
                // A pattern is in a part when its beginning is, as it is written. In a trust domain, `*` could stand for a path too.
                let begin = format!("{}/", self.0.surroundings.trust_domain.id());
                let is_own = |pattern: &str| {
                    pattern.starts_with(&begin)
                        && wish.permissions.may(Role::Operator, Target::Path(path_of_id(pattern)))
                };
                if is_confined && !change.gives_to().all(is_own) {
                    return Err(ChangeError::BeyondScope { rule: rule.name.clone(), what: OTHERS_SVIDS });
                }
            }
        }
        // What is too large already may be made smaller.
        let (before, after) = (Size::of(&current.revision.rules), Size::of(&plan.rules));
        if !after.is_within(&before) {
            after.check().map_err(ChangeError::TooLarge)?;
        }
        let head = RevisionHead {
            number: found + 1,
            created_at: self.0.clock.now(),
            actor: wish.permissions.actor.clone(),
            comment: wish.comment,
            rules: plan.rules.len(),
        };
        let removed = plan.changes.iter().filter(|change| change.after.is_none()).count();
        let revision = Revision { head, removed, rules: plan.rules.clone() };
        let mut next = self.compile(revision).await.map_err(ChangeError::Task)??;
        plan.check_bundles(&self.0.bundles.borrow())?;
        if is_confined {
            let permissions = wish.permissions.clone();
            next = next.keeps_to_its_callers(&plan, permissions).await?;
        }
        if wish.dry_run || plan.changes.is_empty() {
            return Ok((found, plan));
        }
        self.0.store.record_revision(next.revision.clone()).await.map_err(|error| match error {
            RecordRevisionError::Overtaken => ChangeError::Overtaken { expected: found, found: found + 1 },
            RecordRevisionError::Store(error) => error.into(),
        })?;
        let number = next.revision.head.number;
        self.put_in_force(next);
        self.keep().await.map_err(ChangeError::Task)?;
        let (actor, changes) = (wish.permissions.actor.as_str(), plan.changes.len());
        tracing::info!(revision = number, actor, changes, rules = plan.rules.len(), "policy changed");
        Ok((number, plan))
    }

    /// Puts in force what another issuer has recorded. Returns its number, where there was something.
    pub(crate) async fn catch_up(&self) -> Result<Option<u64>, CatchUpError> {
        let _one = self.0.changing.lock().await;
        let current = self.current();
        let Some(next) = next_of(&self.0.store, &current.revision, self.0.most_lost_percent).await? else {
            return Ok(None);
        };
        let found = next.head.number;
        let next = self.compile(next).await.map_err(CatchUpError::Task)?;
        let next = next.map_err(|cause| CatchUpError::Policy { revision: found, cause })?;
        self.put_in_force(next);
        self.keep().await.map_err(CatchUpError::Task)?;
        Ok(Some(found))
    }

    async fn compile(&self, revision: Revision) -> Result<Result<Current, PolicyError>, tokio::task::JoinError> {
        Current::compile(revision, self.0.surroundings.clone(), self.0.profiles.clone()).await
    }

    /// The rules of an earlier revision; the one before the present one where none is named.
    pub(crate) async fn earlier(&self, number: Option<u64>) -> Result<Vec<Rule>, ChangeError> {
        let present = self.current().revision.head.number;
        let number = match number {
            Some(number) => number,
            None => present.checked_sub(1).ok_or(ChangeError::NoRevision(0))?,
        };
        Ok(self.revision(Some(number)).await?.rules)
    }

    pub(crate) async fn revision(&self, number: Option<u64>) -> Result<Revision, ChangeError> {
        match number {
            None => Ok(self.current().revision.clone()),
            Some(0) => Ok(Revision::without_rules()),
            Some(number) => self.0.store.revision(Some(number)).await?.ok_or(ChangeError::NoRevision(number)),
        }
    }

    pub(crate) async fn history(&self, before: Option<u64>, limit: u32) -> Result<Vec<RevisionHead>, StoreError> {
        self.0.store.revisions(before, limit).await
    }
}

impl Current {
    /// Many rules take their time: not on a worker of the runtime.
    async fn compile(
        revision: Revision,
        surroundings: Surroundings,
        profiles: Profiles,
    ) -> Result<Result<Self, PolicyError>, tokio::task::JoinError> {
        tokio::task::spawn_blocking(move || {
            let policy = Policy::compile(&revision.rules, &surroundings)?;
            Ok(Self { revision, policy, profiles })
        })
        .await
    }

    /// Refuses what an operator of one part changes so that others' callers match it too: each would have an identity more, and
    /// those that name none would have none.
    async fn keeps_to_its_callers(self, plan: &Plan, permissions: Permissions) -> Result<Self, ChangeError> {
        let changed: HashSet<_> = plan.changes.iter().filter_map(RuleChange::matches_others).cloned().collect();
        let looking = tokio::task::spawn_blocking(move || {
            let others =
                self.revision.rules.iter().filter(|rule| !permissions.may(Role::Operator, Target::Path(path_of(rule))));
            let others: HashSet<_> = others.map(|rule| &rule.name).collect();
            let overlap = self.policy.overlap(|name| changed.contains(name), |name| others.contains(name));
            let overlap = overlap.map(|rule| rule.cloned());
            (self, overlap)
        });
        match looking.await.map_err(ChangeError::Task)? {
            (_, Err(error)) => Err(error.into()),
            (current, Ok(None)) => Ok(current),
            (_, Ok(Some(rule))) => Err(ChangeError::BeyondScope { rule, what: OVERLAP }),
        }
    }

    /// Those that its rules choose among.
    pub(crate) fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    /// What a caller may be.
    pub(crate) fn decide(&self, attributes: &Attributes, now: OffsetDateTime) -> Vec<Grant> {
        self.policy.decide(attributes, now)
    }

    /// What each of these rules says of a caller.
    pub(crate) fn explain(
        &self,
        attributes: &[Attributes],
        now: OffsetDateTime,
        of_these: impl Fn(&Rule) -> bool,
    ) -> Vec<(&RuleName, Outcome)> {
        let wanted: HashSet<_> =
            self.revision.rules.iter().filter(|rule| of_these(rule)).map(|rule| &rule.name).collect();
        self.policy.explain(attributes, now, |rule| wanted.contains(rule))
    }

    /// The rules that could give this path to somebody.
    pub(crate) fn rules_for<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Rule> {
        let names: HashSet<_> = self.policy.rules_for(path).collect();
        self.revision.rules.iter().filter(move |rule| names.contains(&rule.name))
    }
}

impl Revision {
    fn without_rules() -> Self {
        let head = RevisionHead {
            number: 0,
            created_at: OffsetDateTime::UNIX_EPOCH,
            actor: Actor("".into()),
            comment: String::new(),
            rules: 0,
        };
        Self { head, removed: 0, rules: Vec::new() }
    }
}

impl Actor {
    pub(crate) fn user(uid: u32) -> Self {
        Self(format!("uid:{uid}").into())
    }

    pub(crate) fn identity(id: &WorkloadId) -> Self {
        Self(id.to_string().into())
    }

    pub(crate) fn of_record(text: String) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a rule's identities are, as far as it is written; an attribute adds no segment to it.
pub(crate) fn path_of(rule: &Rule) -> &str {
    path_of_id(&rule.spiffe_id)
}

/// Of an identity, a template or a pattern.
fn path_of_id(id: &str) -> &str {
    let id = id.strip_prefix("spiffe://").unwrap_or(id);
    id.find('/').map_or("", |slash| &id[slash..])
}

const DNS_NAMES: &str = "DNS names are given by operators";
const PROFILES: &str = "profiles other than `workload` are given by operators";
const OTHERS_SVIDS: &str =
    "`svid.spiffe_id` matches identities that are not yours; such rules are written by operators";
const OVERLAP: &str =
    "its `match` could hold for callers of rules that are not yours: narrow it, or leave it to operators";

const MAX_CHANGES: usize = 8;

#[cfg(test)]
mod tests;
