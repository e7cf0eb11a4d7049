//! Who of those that are connected, to this issuer or to another one, would believe the authorities as they are now.

use time::OffsetDateTime;

use super::{Parts, Patience};
use crate::bundles::Shared;
use crate::distribution::{Acknowledgement, Version};
use crate::store::{AcknowledgementRecord, StoreError};

#[derive(Clone, Debug, Default)]
pub(crate) struct Acknowledgements {
    pub(crate) connected: usize,
    pub(crate) missing: Vec<Missing>,
}

#[derive(Clone, Debug)]
pub(crate) struct Missing {
    pub(crate) acknowledgement: Acknowledgement,
    /// To which other issuer it is connected.
    pub(crate) elsewhere: Option<String>,
}

impl Parts {
    pub(super) async fn acknowledgements(&self) -> Result<Acknowledgements, StoreError> {
        let version = self.publication.current().version();
        let since = Shared::heard_of_since(self.clock.now());
        let elsewhere = match self.store.is_shared() {
            true => self.store.acknowledgements_elsewhere(&self.shared.issuer(), since).await?,
            false => Vec::new(),
        };
        Ok(Acknowledgements::of(self.distribution.acknowledgements(version), elsewhere, &version))
    }
}

impl Acknowledgements {
    /// Those `elsewhere` have acknowledged what is of this version.
    pub(crate) fn of(
        here: impl IntoIterator<Item = Acknowledgement>,
        elsewhere: Vec<AcknowledgementRecord>,
        version: &Version,
    ) -> Self {
        let mut all = Self::default();
        for acknowledgement in here {
            all.add(acknowledgement, None);
        }
        for AcknowledgementRecord { issuer, agent, id, version: has, refused } in elsewhere {
            let acknowledged = has == version.to_vec();
            all.add(Acknowledgement { agent, id, acknowledged, refused }, Some(issuer));
        }
        all
    }

    /// All have said so; or enough of them, and the others have had their time since `told_at`.
    pub(crate) fn suffice(&self, patience: Patience, told_at: OffsetDateTime, now: OffsetDateTime) -> bool {
        self.missing.is_empty() || (now - told_at > patience.deadline && self.reach(patience.quorum))
    }

    fn add(&mut self, acknowledgement: Acknowledgement, elsewhere: Option<String>) {
        self.connected += 1;
        if !acknowledgement.acknowledged {
            self.missing.push(Missing { acknowledgement, elsewhere });
        }
    }

    fn reach(&self, quorum: u8) -> bool {
        (self.connected - self.missing.len()) * 100 >= usize::from(quorum) * self.connected
    }
}
