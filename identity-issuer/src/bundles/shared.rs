//! What this issuer believes of the others on its database, and says to them.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signet_identity::{BundleSet, SharedClock, TrustBundle, TrustDomain};
use time::OffsetDateTime;

use super::statement::{Statement, sign};
use super::{Bundles, fingerprint};
use crate::authority::{
    Authorities, Authority, CaCertificate, KeyName, Member, Publication, Stage, check_is_under, sign_with,
};
use crate::jwt::JwtTrust;
use crate::metrics::Metrics;
use crate::revocation::{Revocations, Told};
use crate::store::{BundlesChange, PublishedBundles, SignedBundles, Store, StoreError};
use crate::utc::Utc;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    bundles: Bundles,
    trust_domain: TrustDomain,
    store: Store,
    /// By whose keys the others know this issuer.
    authorities: Authorities,
    publication: Publication,
    /// What says which of them are believed no more.
    revocations: Revocations,
    /// What each of them said last. One that is on record no more has said it all the same: only `signet forget` takes it back.
    believed: Arc<Mutex<BTreeMap<String, Statement>>>,
    metrics: Metrics,
    clock: SharedClock,
}

/// Why an issuer is not forgotten.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForgetError {
    #[error("there is no such issuer; `signet get bundles` names them")]
    Unknown,
    #[error("it was heard of at {}; end it, and wait 5 minutes", Utc(*heard_of))]
    Alive { heard_of: OffsetDateTime },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What one issuer says, for an operator.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) issuer: String,
    pub(crate) is_own: bool,
    pub(crate) at: Option<OffsetDateTime>,
    pub(crate) bundles: BundleSet,
}

/// One that has not said anything for this long is gone.
const GONE: Duration = Duration::from_secs(300);

/// Where bundles come from.
const RECORD: &str = "record";
const UNION: &str = "union";

impl Shared {
    pub(crate) fn new(
        bundles: Bundles,
        trust_domain: TrustDomain,
        store: Store,
        (authorities, publication): (Authorities, Publication),
        revocations: Revocations,
        metrics: Metrics,
        clock: SharedClock,
    ) -> Self {
        let believed = Arc::default();
        Self { bundles, trust_domain, store, authorities, publication, revocations, believed, metrics, clock }
    }

    /// By which the others know this issuer.
    pub(crate) fn issuer(&self) -> String {
        self.authorities.name().map(|name| name.to_string()).unwrap_or_default()
    }

    /// What this issuer itself has of a trust domain.
    pub(crate) fn own(&self, trust_domain: &TrustDomain) -> Option<TrustBundle> {
        self.bundles.own().borrow().get(trust_domain).cloned()
    }

    /// Whoever was not heard of since then, is gone.
    pub(crate) fn heard_of_since(now: OffsetDateTime) -> OffsetDateTime {
        now - GONE
    }

    /// What each issuer says, this one's own among it.
    pub(crate) fn said(&self) -> Vec<Said> {
        let own = Said { issuer: self.issuer(), is_own: true, at: None, bundles: self.bundles.own().borrow().clone() };
        let others = self.believed();
        let others = others.values().map(|statement| Said {
            issuer: statement.issuer.clone(),
            is_own: false,
            at: Some(statement.at),
            bundles: statement.bundles.clone(),
        });
        std::iter::once(own).chain(others).collect()
    }

    /// Takes back what an issuer has said.
    pub(crate) async fn forget(&self, issuer: String) -> Result<(), ForgetError> {
        self.catch_up().await?;
        let heard_of = self.believed().get(&issuer).map(|statement| statement.at);
        let now = self.clock.now();
        let heard_of = match heard_of {
            Some(heard_of) => heard_of,
            None if self.authorities.has(&issuer) => return Err(ForgetError::Alive { heard_of: now }),
            None => return Err(ForgetError::Unknown),
        };
        let (since, until) = (Self::heard_of_since(now), now + GONE);
        if (since..=until).contains(&heard_of) {
            return Err(ForgetError::Alive { heard_of });
        }
        let change = BundlesChange::Forget { issuer: issuer.clone(), since, until };
        let changed = self.store.change_bundles(change).await?;
        self.catch_up().await?;
        // It has come back in the meantime, or is on record no more.
        match (changed, self.believed().get(&issuer).map(|statement| statement.at)) {
            (0, Some(at)) if at >= since => return Err(ForgetError::Alive { heard_of: at }),
            _ => {}
        }
        self.believed().remove(&issuer);
        self.unite();
        Ok(())
    }

    /// Says to the others what is to be trusted by this issuer's files. Nothing, as long as it has no authority to sign it.
    pub(super) async fn publish(&self, bundles: &BundleSet, jwt: &JwtTrust) -> Result<bool, StoreError> {
        let Some(active) = self.authorities.active() else { return Ok(false) };
        let now = self.clock.now();
        let of_root_before = self.below_root_before(&active, now);
        let offered = self.authorities.all().into_iter().filter(Member::is_offered).filter_map(|member| member.chain);
        let offered: Vec<_> = offered.collect();
        let mut said = HashSet::new();
        for authority in std::iter::once(active).chain(of_root_before) {
            let (bundles, jwt, offered) = (bundles.clone(), jwt.clone(), offered.clone());
            let signed = sign_with(authority, move |authority| sign(authority, &bundles, &jwt, offered, now)).await;
            let signed = signed.unwrap_or(Err(StoreError::Record { what: "bundles that were not signed" }))?;
            said.insert(signed.issuer.clone());
            self.store.change_bundles(BundlesChange::Publish(signed, now)).await?;
        }
        // By the authorities before, it says nothing any more.
        let before = self.authorities.all().into_iter().map(|member| member.name().to_string());
        let before: Vec<_> = before.filter(|name| !said.contains(name)).collect();
        if !before.is_empty() {
            self.store.change_bundles(BundlesChange::Withdraw(before)).await?;
        }
        Ok(true)
    }

    /// While the root is being replaced, the authority that signed before, once the one that does is below the next root. Other issuers, which
    /// do not know that root by their own files yet, go on believing what is said by it; their clients would trust the next root no more.
    fn below_root_before(&self, active: &Authority, now: OffsetDateTime) -> Option<Arc<Authority>> {
        let change = self.authorities.rotation()?.root?;
        let own = self.own(&self.trust_domain)?;
        let before = own.authorities().iter().filter(|root| change.from.contains(&fingerprint(root))).cloned();
        let before = TrustBundle::new(self.trust_domain.clone(), before.collect()).ok()?;
        if active.check_is_under(&before, now).is_ok() {
            return None;
        }
        let members = self.authorities.all().into_iter().rev();
        let signed_before = members.filter(|member| matches!(member.stage, Stage::Retired | Stage::Tainted));
        let mut authorities = signed_before.filter_map(|member| member.authority);
        authorities.find(|authority| authority.check_is_under(&before, now).is_ok())
    }

    /// Takes up what the others say. What is no good of that leaves what they said before.
    pub(crate) async fn catch_up(&self) -> Result<(), StoreError> {
        let published = self.store.published_bundles().await?;
        let mut refused = None;
        for record in published {
            match record {
                PublishedBundles::Forgotten { issuer } => drop(self.believed().remove(&issuer)),
                PublishedBundles::Said(record) if self.authorities.has(&record.issuer) => {}
                PublishedBundles::Said(record) => {
                    if let Err(cause) = self.believe(&record) {
                        let issuer = record.issuer.chars().take(64).collect::<String>().escape_debug().to_string();
                        refused = Some(format!("issuer {issuer}: {cause}"));
                    }
                }
            }
        }
        self.refused(RECORD, refused);
        self.unite();
        Ok(())
    }

    fn believe(&self, record: &SignedBundles) -> Result<(), String> {
        let mut believed = self.believed();
        let known = believed.get_mut(&record.issuer);
        let is_of_revoked = |said: &mut Statement| match said.is_of_revoked(&self.revocations) {
            true => Err("the authority that signed it, or one above it, is revoked".to_owned()),
            false => Ok(()),
        };
        if let Some(known) = known
            && known.is(record)
        {
            return is_of_revoked(known);
        }
        let known = believed.get(&record.issuer);
        let own = self.bundles.own().borrow().get(&self.trust_domain).cloned();
        let own = own.ok_or_else(|| "no trust bundle".to_owned())?;
        let statement = Statement::verify(record, &own, self.clock.now());
        let statement = statement.map_err(|error| signet_process::start::Report::of(&error).cause)?;
        if known.is_some_and(|known| known.at > statement.at) {
            return Err(
                "what it says is older than what it said before: was the database restored from a backup?".to_owned()
            );
        }
        let mut statement = statement.following(known);
        let judged = is_of_revoked(&mut statement);
        // An operator has it forgotten by its name.
        believed.insert(record.issuer.clone(), statement);
        judged
    }

    /// Puts in force what is said by those who are believed now.
    pub(super) fn unite(&self) {
        let own = self.bundles.own().borrow().get(&self.trust_domain).cloned();
        let now = self.clock.now();
        let mut said = self.believed();
        let mut believed: Vec<&Statement> = Vec::new();
        for said in said.values_mut() {
            let is_under = own.as_ref().is_some_and(|own| said.is_believed(own, now));
            if is_under && !said.is_of_revoked(&self.revocations) {
                believed.push(said);
            }
        }
        self.bundles.set_other_jwt(believed.iter().map(|said| said.jwt.clone()).collect());
        let others = believed.iter().flat_map(|said| said.bundles.iter().cloned()).collect();
        let united = self.bundles.set_others(others);
        self.refused(UNION, united.err().map(|error| error.to_string()));
        self.publish_authorities(&believed, now);
    }

    /// Tells the clients of the authorities of all issuers, as far as they lead to a root of what is in force.
    fn publish_authorities(&self, believed: &[&Statement], now: OffsetDateTime) {
        let in_force = self.bundles.in_force().borrow().get(&self.trust_domain).cloned();
        let Some(in_force) = in_force else { return };
        let own = self.authorities.all().into_iter().filter(Member::is_offered);
        let own = own.filter_map(|member| member.authority.map(|authority| authority.chain().to_vec()));
        let others = believed.iter().flat_map(|said| said.authorities.iter().cloned());
        let good = own.chain(others).filter(|chain| check_is_under(chain, &in_force, now).is_ok());
        let named = good.filter_map(|chain| {
            let own = CaCertificate::parse(chain.first()?.to_vec()).ok()?;
            Some((KeyName::of(&own.spki), chain))
        });
        self.publication.publish(named.collect());
    }

    /// Once for each time that it begins.
    fn refused(&self, source: &'static str, cause: Option<String>) {
        if self.metrics.bundles_refused(source, cause.is_some())
            && let Some(cause) = cause
        {
            tracing::error!(cause, source, "trust bundles are not put in force; the last good ones stay");
        }
    }

    /// Changes when there may be one that is believed no more.
    pub(super) fn revoked(&self) -> tokio::sync::watch::Receiver<Told> {
        self.revocations.told()
    }

    /// Nothing panics while it is held.
    fn believed(&self) -> MutexGuard<'_, BTreeMap<String, Statement>> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
