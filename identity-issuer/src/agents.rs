//! Those who attested themselves: who they are, and what is taken from them.
//!
//! A change is on record before anybody is told of it. The record decides over renewals and first certificates; streams are ended
//! here.

use signet_identity::{PeerIdentity, SharedClock, WorkloadId};

use crate::attestation::{AttestationNumber, Sources};
use crate::bundles::Shared;
use crate::distribution::{Distribution, Holder, Progress};
use crate::policy::Actor;
use crate::store::{AgentRecord, Ban, Origin, StandingChange, Store, StoreError};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Agents {
    pub(crate) store: Store,
    pub(crate) distribution: Distribution,
    pub(crate) sources: Sources,
    pub(crate) clock: SharedClock,
}

/// Whose attestations.
#[derive(Clone, Debug)]
pub(crate) enum Whose {
    Number(AttestationNumber),
    Id(WorkloadId),
}

/// Why the holder of a valid certificate is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoStanding {
    #[error("its certificate is not on record at this issuer: it has to attest itself again")]
    NotOnRecord,
    #[error("`{name}`, which vouched for it, is believed no more at this issuer: it has to attest itself again")]
    SourceGone { name: String },
    #[error("it was evicted: it has to attest itself again")]
    Evicted,
    #[error("{0} is banned")]
    Banned(WorkloadId),
    #[error("its certificate is revoked: it has to attest itself again")]
    Revoked,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Agents {
    /// What the holder of a certificate was attested as, unless that was taken from it.
    pub(crate) async fn standing(&self, peer: &PeerIdentity) -> Result<Origin, NoStanding> {
        self.standing_of(peer.id(), peer.serial().as_bytes(), peer.leaf_sha256()).await
    }

    pub(crate) async fn standing_of(
        &self,
        id: &WorkloadId,
        serial: &[u8],
        sha256: &[u8; 32],
    ) -> Result<Origin, NoStanding> {
        let origin = self.store.origin(id, serial, sha256).await?.ok_or(NoStanding::NotOnRecord)?;
        if origin.evicted {
            return Err(NoStanding::Evicted);
        }
        if origin.revoked {
            return Err(NoStanding::Revoked);
        }
        if let Some(gone) = origin.attributes.as_ref().and_then(|attributes| self.sources.no_more(attributes)) {
            return Err(NoStanding::SourceGone { name: gone.to_owned() });
        }
        match &origin.banned {
            Some(id) => Err(NoStanding::Banned(id.clone())),
            None => Ok(origin),
        }
    }

    pub(crate) async fn ban(&self, id: WorkloadId, actor: Actor, reason: String) -> Result<(), StoreError> {
        let ban = Ban { id: id.clone(), banned_at: self.clock.now(), actor, reason };
        self.take(StandingChange::Ban(ban), Holder::Id(id)).await.map(drop)
    }

    /// Whether it was banned.
    pub(crate) async fn unban(&self, id: WorkloadId) -> Result<bool, StoreError> {
        Ok(self.store.change_standing(StandingChange::Unban(id)).await? > 0)
    }

    /// How many were evicted.
    pub(crate) async fn evict(&self, whose: Whose) -> Result<u64, StoreError> {
        let now = self.clock.now();
        match whose {
            Whose::Number(number) => {
                self.take(StandingChange::EvictNumber(number, now), Holder::Attestation(number)).await
            }
            Whose::Id(id) => self.take(StandingChange::EvictId(id.clone(), now), Holder::Id(id)).await,
        }
    }

    /// Carried out to its end also when nobody waits for it any more: what is on record would leave streams open.
    async fn take(&self, change: StandingChange, holder: Holder) -> Result<u64, StoreError> {
        let Self { store, distribution, .. } = self.clone();
        let taking = tokio::spawn(async move {
            let changed = store.change_standing(change).await?;
            distribution.end(&holder);
            Ok(changed)
        });
        taking.await.map_err(|_| StoreError::Closed)?
    }

    /// Whom a number is of, be they live or not.
    pub(crate) async fn identity_of(&self, number: AttestationNumber) -> Result<Option<WorkloadId>, StoreError> {
        self.store.attested_identity(number).await
    }

    /// With how far those that are connected have come with what they were sent.
    pub(crate) async fn list(
        &self,
        id: Option<&WorkloadId>,
        after: AttestationNumber,
        limit: u32,
    ) -> Result<Vec<(AgentRecord, Option<Progress>)>, StoreError> {
        let now = self.clock.now();
        let agents = self.store.agents(id, after, limit, (now, Shared::heard_of_since(now))).await?;
        let mut connected = self.distribution.connected();
        let with_connection = |agent: AgentRecord| {
            let progress = connected.remove(&agent.number);
            (agent, progress)
        };
        Ok(agents.into_iter().map(with_connection).collect())
    }

    pub(crate) async fn bans(&self, after: &str, limit: u32) -> Result<Vec<Ban>, StoreError> {
        self.store.bans(after, limit).await
    }
}
