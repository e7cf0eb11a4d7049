//! Revoking: from what an operator names to what is on record, in memory, and at an end.

use std::collections::HashSet;
use std::time::Duration;

use rcgen::PublicKeyData as _;
use signet_identity::{SharedClock, TrustDomain};
use time::OffsetDateTime;

use super::{Revocations, SerialNumber, What};
use crate::authority::{Authorities, CaCertificate, KeyId, Member, Stage, StepError};
use crate::bundles::Shared;
use crate::complaint::Complaint;
use crate::csr::KeyHash;
use crate::distribution::{Distribution, Holder};
use crate::pem_files;
use crate::store::{Concerned, NewRevocation, PublishedBundles, Recorded, RevocationTarget, Store, StoreError};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Revoker {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) store: Store,
    pub(crate) revocations: Revocations,
    pub(crate) distribution: Distribution,
    pub(crate) authorities: Authorities,
    pub(crate) bundles: Shared,
    pub(crate) clock: SharedClock,
}

/// What a revocation comes to.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) target: RevocationTarget,
    pub(crate) certificates: Vec<Concerned>,
    /// Clients that are connected with one of them.
    pub(crate) connected: usize,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeError {
    #[error("there is no authority {0} that this issuer knows")]
    UnknownAuthority(KeyId),
    #[error("{0} is a root: take it out of the trust bundle")]
    Root(KeyId),
    #[error("{0} signs now, or is above what does: make another one active first")]
    Active(KeyId),
    #[error(
        "certificates that hang on {key_id} and have no successor yet: {certificates}; {}, or force it",
        if *.is_tainted { "it is tainted, so their holders renew them: wait" } else { "taint it, so that they are replaced" }
    )]
    InUse { key_id: KeyId, certificates: u64, is_tainted: bool },
    #[error("there would be more than {MOST} revoked certificates that have not expired")]
    TooMany,
    #[error(transparent)]
    Stage(StepError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All clients hold them all: as many as are sure to fit.
pub(crate) const MOST: usize = 2_000_000;
const RETRY: Duration = Duration::from_secs(1);

impl Revoker {
    /// Until when a key or an authority has to be remembered: all that is trusted has ended by then, and a year has passed, for what hangs on
    /// a root that is trusted no more.
    pub(crate) fn end_of_trust(&self) -> OffsetDateTime {
        let bundles = self.distribution.bundles();
        let end = bundles.get(&self.trust_domain).and_then(|bundle| bundle.expires_at());
        let year = self.clock.now() + YEAR;
        end.map_or(year, |end| end.max(year))
    }

    /// An authority, by its key identifier.
    pub(crate) async fn authority(&self, key_id: KeyId) -> Result<RevocationTarget, RevokeError> {
        let end = self.end_of_trust();
        let target = |key: KeyHash| RevocationTarget::Authority(key_id.clone(), key, end);
        if let Some(active) = self.authorities.active() {
            let mut chain = active.chain().iter().filter_map(|der| CaCertificate::parse(der.to_vec()).ok());
            if chain.any(|certificate| certificate.key_id.as_ref() == Some(&key_id)) {
                return Err(RevokeError::Active(key_id));
            }
        }
        if let Some(own) = self.authorities.all().into_iter().find(|member| member.is_called(&key_id)) {
            if own.stage == Stage::Active {
                return Err(RevokeError::Active(key_id));
            }
            let key = KeyHash::of_spki(&own.key.subject_public_key_info());
            let Some(authority) = own.authority else { return Ok(RevocationTarget::Authority(key_id, key, end)) };
            // As its certificates name it. Its last list is to be signed again after each restart, as long as it lives: whatever the roots do.
            let end = end.max(authority.not_after());
            return Ok(RevocationTarget::Authority(authority.key_id().clone(), key, end));
        }
        let bundles = self.distribution.bundles();
        let roots = bundles.get(&self.trust_domain).map(|bundle| bundle.authorities()).unwrap_or_default();
        let mut roots = roots.iter().filter_map(|der| CaCertificate::parse(der.to_vec()).ok());
        if roots.any(|root| root.key_id.as_ref() == Some(&key_id)) {
            return Err(RevokeError::Root(key_id));
        }
        if let Some((key, signs)) = self.of_other_issuers(&key_id).await? {
            return if signs { Err(RevokeError::Active(key_id)) } else { Ok(target(key)) };
        }
        // A CA below this one.
        match self.store.key_of(&key_id, self.clock.now()).await? {
            Some(key) => Ok(target(key)),
            None => Err(RevokeError::UnknownAuthority(key_id)),
        }
    }

    /// Refuses what live certificates hang on that nothing has replaced. One that has a successor is not missed, though it has not expired.
    pub(crate) async fn must_not_be_in_use(&self, target: &RevocationTarget) -> Result<(), RevokeError> {
        let RevocationTarget::Authority(key_id, ..) = target else { return Ok(()) };
        match self.store.without_successor(key_id.as_bytes(), self.clock.now()).await? {
            0 => Ok(()),
            certificates => {
                let own = self.authorities.all().into_iter().find(|member| member.is_called(key_id));
                let is_tainted = own.is_some_and(|member| member.stage == Stage::Tainted);
                Err(RevokeError::InUse { key_id: key_id.clone(), certificates, is_tainted })
            }
        }
    }

    /// Whether a key is one by which somebody of this trust domain signs certificates, or could: it is revoked as an authority, with
    /// what that takes.
    pub(crate) async fn is_of_authority(&self, key: &KeyHash) -> Result<bool, StoreError> {
        let own = self.authorities.all().into_iter().map(|member| member.key.subject_public_key_info());
        let bundles = self.distribution.bundles();
        let roots = bundles.get(&self.trust_domain).map(|bundle| bundle.authorities()).unwrap_or_default();
        let above = self.authorities.active().map(|active| active.chain().to_vec()).unwrap_or_default();
        let certificates = roots.iter().chain(&above).filter_map(|der| CaCertificate::parse(der.to_vec()).ok());
        let mut known = own.chain(certificates.map(|certificate| certificate.spki));
        if known.any(|spki| KeyHash::of_spki(&spki) == *key) {
            return Ok(true);
        }
        let others = self.chains_of_other_issuers().await?;
        Ok(others.iter().flat_map(|(_, chain)| chain).any(|one| KeyHash::of_spki(&one.spki) == *key))
    }

    /// The key of an authority that another issuer on this database has or had, or that is above it; and whether such an issuer was
    /// heard of lately.
    async fn of_other_issuers(&self, key_id: &KeyId) -> Result<Option<(KeyHash, bool)>, StoreError> {
        let heard_of = Shared::heard_of_since(self.clock.now());
        let said = self.bundles.said();
        let is_alive =
            |issuer: &str| said.iter().any(|said| said.issuer == issuer && said.at.is_some_and(|at| at >= heard_of));
        let mut found: Option<(KeyHash, bool)> = None;
        for (issuer, chain) in self.chains_of_other_issuers().await? {
            if let Some(one) = chain.iter().find(|certificate| certificate.key_id.as_ref() == Some(key_id)) {
                let before = found.is_some_and(|(_, is_alive)| is_alive);
                found = Some((KeyHash::of_spki(&one.spki), before || is_alive(&issuer)));
            }
        }
        Ok(found)
    }

    /// With the issuers that sign by them.
    async fn chains_of_other_issuers(&self) -> Result<Vec<(String, Vec<CaCertificate>)>, StoreError> {
        let chain = |published| {
            let PublishedBundles::Said(said) = published else { return None };
            let blocks = pem_files::decode(pem_files::CERTIFICATE, said.chain.as_bytes()).unwrap_or_default();
            Some((said.issuer, blocks.into_iter().filter_map(|der| CaCertificate::parse(der).ok()).collect()))
        };
        Ok(self.store.published_bundles().await?.into_iter().filter_map(chain).collect())
    }

    /// What it would come to now.
    pub(crate) async fn plan(&self, target: RevocationTarget) -> Result<Plan, RevokeError> {
        let certificates = self.store.concerned(&target, self.clock.now(), MOST).await?;
        let serials: HashSet<SerialNumber> = certificates.iter().map(|one| one.serial).collect();
        let connected = self.distribution.count(|watcher| serials.contains(&watcher.serial));
        if self.revocations.count() + certificates.len() >= MOST {
            return Err(RevokeError::TooMany);
        }
        Ok(Plan { target, certificates, connected })
    }

    /// Carried out to its end also when nobody waits for it any more. When this returns it is on record, streams have ended, and
    /// clients are being told.
    pub(crate) async fn revoke(&self, revocation: NewRevocation) -> Result<Recorded, StoreError> {
        let this = self.clone();
        let revoking = tokio::spawn(async move {
            let holder = match &revocation.target {
                RevocationTarget::Id(id) => Some(Holder::Id(id.clone())),
                RevocationTarget::Agent(number) => Some(Holder::Attestation(*number)),
                _ => None,
            };
            let authority = match &revocation.target {
                RevocationTarget::Authority(key_id, ..) => Some(key_id.clone()),
                _ => None,
            };
            let mut all = Recorded::default();
            // Part by part: other requests are recorded in between. Whoever was evicted by the first has nothing renewed meanwhile.
            let recorded = loop {
                match this.store.revoke(revocation.clone()).await {
                    Ok(part) => {
                        all.epoch = part.epoch;
                        all.certificates += part.certificates;
                        all.agents += part.agents;
                        if !part.is_partial {
                            break Ok(all);
                        }
                    }
                    Err(error) => break Err(error),
                }
            };
            // Also where a later part failed: what is on record is put in force.
            this.put_in_force().await;
            if let (Some(key_id), Ok(_)) = (&authority, &recorded) {
                this.note_authority(key_id);
            }
            if let Some(holder) = holder.filter(|_| all.epoch > 0) {
                this.distribution.end(&holder);
            }
            recorded
        });
        revoking.await.map_err(|_| StoreError::Closed)?
    }

    /// Keeps the stages of this issuer's authorities in step with what is on record, whoever revoked them, until cancelled. What cannot
    /// be written down now is later: a disk may be full, or the authority one that signs until another is there.
    pub(crate) async fn follow_authorities(self) {
        let (mut told, mut changes) = (self.revocations.told(), self.authorities.changes());
        let (mut complaint, mut lost) = (Complaint::default(), Vec::new());
        loop {
            told.mark_unchanged();
            changes.mark_unchanged();
            let authority =
                |what: &What| if let What::Authority(key_id, _) = what { Some(KeyId::clone(key_id)) } else { None };
            let revoked: Vec<_> = self
                .revocations
                .inspect(|entries, _| entries.iter().filter_map(|entry| authority(&entry.what)).collect());
            // All of them are tried.
            let failed: Vec<_> =
                revoked.iter().filter_map(|key_id| Some((key_id, self.write_down(key_id).err()?))).collect();
            match failed.first() {
                None => complaint.clear(),
                Some((key_id, error)) => {
                    if let Some(cause) = complaint.of(error) {
                        tracing::error!(cause, authority = %key_id, "{UNWRITTEN}");
                    }
                }
            }
            let before = std::mem::replace(&mut lost, self.lost_by_the_record(&revoked));
            for key_id in lost.iter().filter(|key_id| !before.contains(key_id)) {
                tracing::error!(
                    authority = %key_id,
                    "an authority is written down as revoked, and the record does not have it: others may believe what it signed; \
                     revoke it again (`signet revoke authority`)"
                );
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                Ok(()) = told.changed() => {}
                // Neither sender ends before this does.
                Ok(()) = changes.changed() => {}
            }
        }
    }

    /// Written down as revoked for a while, and not on record: that was restored from a backup, or could not be written to.
    fn lost_by_the_record(&self, revoked: &[KeyId]) -> Vec<KeyId> {
        let now = self.clock.now();
        let is_lost = |member: Member| {
            let authority = member.authority.filter(|authority| authority.not_after() > now)?;
            let is_old = member.stage == Stage::Revoked && member.since + AGAIN < now;
            (is_old && !revoked.contains(authority.key_id())).then(|| authority.key_id().clone())
        };
        self.authorities.all().into_iter().filter_map(is_lost).collect()
    }

    /// Of an authority of this issuer's own that could still be made active, before it is on record: from now on it is not. It has signed
    /// nothing. One that has is written down once it is on record: whoever is killed before that has revoked nothing, and says so.
    pub(crate) fn take_out(&self, target: &RevocationTarget) -> Result<(), RevokeError> {
        let RevocationTarget::Authority(key_id, ..) = target else { return Ok(()) };
        let member = self.authorities.all().into_iter().find(|member| member.is_called(key_id));
        if member.is_none_or(|member| matches!(member.stage, Stage::Retired | Stage::Tainted | Stage::Revoked)) {
            return Ok(());
        }
        self.write_down(key_id).map_err(|error| match error {
            StepError::Stage { .. } => RevokeError::Active(key_id.clone()),
            error => RevokeError::Stage(error),
        })
    }

    fn note_authority(&self, key_id: &KeyId) {
        if let Err(error) = self.write_down(key_id) {
            let cause = signet_process::start::Report::of(&error).cause;
            tracing::error!(cause, authority = %key_id, "{UNWRITTEN}");
        }
    }

    /// Where it is one of this issuer's own, and not written down yet.
    fn write_down(&self, key_id: &KeyId) -> Result<(), StepError> {
        let member = self.authorities.all().into_iter().find(|member| member.is_called(key_id));
        match member {
            Some(member) if member.stage != Stage::Revoked => self.authorities.revoke(&member.name()),
            Some(_) | None => Ok(()),
        }
    }

    async fn put_in_force(&self) {
        while let Err(error) = self.revocations.catch_up().await {
            let cause = signet_process::start::Report::of(&error).cause;
            tracing::error!(cause, "what is revoked is on record, and cannot be read");
            tokio::time::sleep(RETRY).await;
        }
    }
}

const UNWRITTEN: &str = "an authority is revoked, and its stage cannot be written down";
/// After a stage could not be written down, and before one is missed on record.
const AGAIN: Duration = Duration::from_secs(10);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
