//! Replaces the authority that signs, or the root above it: in steps, of which each waits for proof that it can be made.
//!
//! ```text
//! authority:  successor signed ─► those connected would believe it ─► it signs, the one before retires
//! root:       new root in the bundle ─► successor under it ─► … ─► it signs ─► the one before is tainted
//!             ─► nobody has only its certificates ─► old root leaves the bundle
//! ```
//! Where it stands is in the journal of the authorities, so that a process that is killed goes on where it was.

mod acknowledgements;
mod plan;
mod steps;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use signet_identity::{SharedClock, TrustBundle, TrustDomain};
use tokio::time::Instant;

use crate::authority::{
    Authorities, AuthorityError, CaCertificate, Kept, KeyName, Member, Publication, RootChange, Rotation, Stage,
    StepError,
};
use crate::bundles::{self, Bundles, Shared};
use crate::complaint::Complaint;
use crate::distribution::Distribution;
use crate::policy::Actor;
use crate::store::{Store, StoreError};
use crate::utc::{Utc, microseconds};

pub(crate) use acknowledgements::{Acknowledgements, Missing};
pub(crate) use plan::{Step, StepState};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Rotations(Arc<Parts>);

#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) authorities: Authorities,
    pub(crate) publication: Publication,
    pub(crate) bundles: Bundles,
    pub(crate) shared: Shared,
    pub(crate) distribution: Distribution,
    pub(crate) store: Store,
    pub(crate) patience: Patience,
    pub(crate) clock: SharedClock,
    /// Since when nobody needs the roots before any more.
    pub(crate) unneeded: Mutex<Option<Instant>>,
    /// When this process began.
    pub(crate) began: Instant,
    /// Whether there was a rotation then.
    pub(crate) resumes: bool,
}

/// How long is waited for those who do not acknowledge a successor.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From when they are told of it.
    pub deadline: Duration,
    /// How many are enough from then on, in percent of those who are connected.
    pub quorum: u8,
}

/// Why no rotation begins.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    #[error("a rotation is under way; `signet rotate status` tells how far it has come")]
    UnderWay,
    #[error("there is no authority yet")]
    NoAuthority,
    #[error("no authority is ready to follow: `signet ca csr`, have it signed, `signet ca import`")]
    NoSuccessor,
    #[error("there is no authority {0} that is ready to follow")]
    NotPrepared(String),
    #[error("root_pem: {0}")]
    Root(String),
    #[error(transparent)]
    Keep(#[from] AuthorityError),
}

/// What an operator wants.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// By its key; else the one whose certificate was taken first.
    Authority(Option<KeyName>),
    Root(TrustBundle),
}

/// Between two looks at what can be done next.
const LOOK: Duration = Duration::from_millis(250);
/// Between two looks for authorities that are over.
const SWEEP: Duration = Duration::from_secs(60);

impl Rotations {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    pub(crate) fn authorities(&self) -> &Authorities {
        &self.0.authorities
    }

    /// Until cancelled.
    pub(crate) async fn run(self) {
        let mut complaint = Complaint::default();
        let mut swept: Option<Instant> = None;
        loop {
            if swept.is_none_or(|swept| swept.elapsed() >= SWEEP) {
                swept = Some(Instant::now());
                self.0.sweep().await;
            }
            match self.0.advance().await {
                Ok(()) => complaint.clear(),
                Err(error) => {
                    if let Some(cause) = complaint.of(&error) {
                        tracing::warn!(cause, "the rotation does not go on");
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) fn under_way(&self) -> Option<Rotation> {
        self.0.authorities.rotation()
    }

    pub(crate) fn patience(&self) -> Patience {
        self.0.patience
    }

    /// Begins it, unless only the plan is wanted; or has one that is under way wait for nobody.
    pub(crate) fn begin(&self, wanted: &Wanted, actor: &Actor, comment: &str, hurry: bool) -> Result<(), BeginError> {
        let change = self.0.root_change(wanted)?;
        let ready = self.0.ready();
        self.0.authorities.change(|kept, now| {
            let overridden_by = hurry.then(|| actor.as_str().to_owned());
            if let Some(rotation) = &mut kept.rotation {
                let is_it = match wanted {
                    Wanted::Authority(None) => rotation.root.is_none(),
                    Wanted::Authority(Some(name)) => {
                        rotation.root.is_none() && rotation.successor.as_deref() == Some(name.as_str())
                    }
                    Wanted::Root(_) => {
                        rotation.root.as_ref().map(|root| &root.to) == change.as_ref().map(|root| &root.to)
                    }
                };
                if !hurry || !is_it {
                    return Err(BeginError::UnderWay);
                }
                rotation.overridden_by = overridden_by;
                return Ok(());
            }
            let successor = successor(kept, &ready, wanted)?;
            if let Wanted::Root(roots) = wanted {
                kept.roots.add(roots);
            }
            kept.rotation = Some(Rotation {
                successor: successor.map(|name| name.to_string()),
                root: change,
                begun_at: microseconds(now),
                actor: actor.as_str().to_owned(),
                comment: comment.to_owned(),
                overridden_by,
                told_at: None,
            });
            Ok(())
        })
    }

    /// Whether it could begin.
    pub(crate) fn check(&self, wanted: &Wanted) -> Result<(), BeginError> {
        self.0.root_change(wanted)?;
        let ready = self.0.ready();
        self.0.authorities.inspect(|kept| match kept.rotation {
            Some(_) => Err(BeginError::UnderWay),
            None => match successor(kept, &ready, wanted) {
                // A plan says how there comes to be one.
                Ok(_) | Err(BeginError::NoSuccessor) => Ok(()),
                Err(error) => Err(error),
            },
        })
    }

    /// Whether there was one.
    pub(crate) fn cancel(&self) -> Result<bool, AuthorityError> {
        self.0.authorities.change(|kept, _| Ok(kept.rotation.take().is_some()))
    }

    /// The authority that comes next, by the rotation that is under way or that could be.
    pub(crate) fn successor(&self) -> Option<Member> {
        match self.under_way() {
            Some(Rotation { successor, .. }) => {
                self.0.authorities.all().into_iter().find(|member| successor.as_deref() == Some(member.name().as_str()))
            }
            None => self.ready().into_iter().next(),
        }
    }

    /// Those that could follow the one that signs, in the order in which their keys were made.
    pub(crate) fn ready(&self) -> Vec<Member> {
        self.0.ready()
    }

    pub(crate) async fn acknowledgements(&self) -> Result<Acknowledgements, StoreError> {
        self.0.acknowledgements().await
    }

    pub(crate) async fn steps(&self, plan: Option<&Wanted>) -> Result<Vec<Step>, StoreError> {
        plan::steps(&self.0, plan).await
    }

    /// Has all that the authority signed renewed: how many certificates live, who was asked, and over which time they do it.
    pub(crate) async fn taint(&self, name: &KeyName) -> Result<(u64, usize, Duration), TaintError> {
        self.0.taint(name).await
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TaintError {
    #[error(transparent)]
    Step(#[from] StepError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn successor(kept: &Kept, ready: &[Member], wanted: &Wanted) -> Result<Option<KeyName>, BeginError> {
    kept.active().ok_or(BeginError::NoAuthority)?;
    let is_ready = |member: &&Member| kept.get(&member.name()).is_some_and(|kept| kept.stage == Stage::Prepared);
    let mut ready = ready.iter().filter(is_ready);
    match wanted {
        Wanted::Authority(None) => ready.next().map(Member::name).map(Some).ok_or(BeginError::NoSuccessor),
        Wanted::Authority(Some(name)) => {
            let found = ready.find(|member| member.name() == *name).map(Member::name).map(Some);
            found.ok_or_else(|| BeginError::NotPrepared(name.to_string()))
        }
        // Nothing is signed by it yet.
        Wanted::Root(_) => Ok(None),
    }
}

impl Parts {
    fn root_change(&self, wanted: &Wanted) -> Result<Option<RootChange>, BeginError> {
        let Wanted::Root(roots) = wanted else { return Ok(None) };
        for root in roots.authorities() {
            self.check_is_valid(root).map_err(BeginError::Root)?;
        }
        let trusted = self.own_bundle().ok_or_else(|| BeginError::Root("there is no trust bundle".to_owned()))?;
        let to: Vec<_> = roots.authorities().iter().map(bundles::fingerprint).collect();
        let from: Vec<_> = trusted.authorities().iter().map(bundles::fingerprint).collect();
        let from: Vec<_> = from.into_iter().filter(|root| !to.contains(root)).collect();
        if from.is_empty() {
            return Err(BeginError::Root("it is the only root already".to_owned()));
        }
        // Both at once are what is trusted for a while.
        let others = roots.authorities().iter().filter(|root| !trusted.authorities().contains(root));
        let both = trusted.authorities().iter().chain(others).cloned().collect();
        bundles::bounded(self.trust_domain.clone(), both).map_err(BeginError::Root)?;
        Ok(Some(RootChange { to, from, tainted: false }))
    }

    /// Below one that is not, nothing would be believed.
    fn check_is_valid(&self, root: &CertificateDer<'static>) -> Result<(), String> {
        let root = CaCertificate::parse(root.to_vec()).map_err(|error| error.to_string())?;
        match self.clock.now() {
            now if now > root.not_after => Err(format!("{} has expired at {}", root.subject, Utc(root.not_after))),
            now if now < root.not_before => {
                Err(format!("{} is not valid before {}: is the clock right?", root.subject, Utc(root.not_before)))
            }
            _ => Ok(()),
        }
    }

    /// Prepared, and believed by whoever trusts our own bundle now.
    fn ready(&self) -> Vec<Member> {
        let bundle = self.own_bundle();
        let is_ready = |member: &Member| member.stage == Stage::Prepared && self.is_under(member, bundle.as_ref());
        self.authorities.all().into_iter().filter(is_ready).collect()
    }

    fn own_bundle(&self) -> Option<TrustBundle> {
        self.bundles.own().borrow().get(&self.trust_domain).cloned()
    }

    /// Those roots of the bundle that are among these.
    fn only(&self, names: &[String]) -> Option<TrustBundle> {
        let bundle = self.own_bundle()?;
        let roots = bundle.authorities().iter().filter(|root| names.contains(&bundles::fingerprint(root)));
        TrustBundle::new(self.trust_domain.clone(), roots.cloned().collect()).ok()
    }

    fn is_under(&self, member: &Member, roots: Option<&TrustBundle>) -> bool {
        let (Some(authority), Some(roots)) = (&member.authority, roots) else { return false };
        authority.check_is_under(roots, self.clock.now()).is_ok()
    }
}
