//! Who of those that are connected, to this issuer or to another one, would believe the authorities as they are now.

use super::Parts;
use crate::bundles::Shared;
use crate::distribution::Acknowledgement;
use crate::store::StoreError;

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
        let mut acknowledgements = Acknowledgements::default();
        for acknowledgement in self.distribution.acknowledgements(version) {
            acknowledgements.add(acknowledgement, None);
        }
        if self.store.is_shared() {
            let since = Shared::heard_of_since(self.clock.now());
            for record in self.store.acknowledgements_elsewhere(&self.shared.issuer(), since).await? {
                let acknowledged = record.version == version.to_vec();
                let (agent, id, refused) = (record.agent, record.id, record.refused);
                acknowledgements.add(Acknowledgement { agent, id, acknowledged, refused }, Some(record.issuer));
            }
        }
        Ok(acknowledgements)
    }
}

impl Acknowledgements {
    pub(crate) fn add(&mut self, acknowledgement: Acknowledgement, elsewhere: Option<String>) {
        self.connected += 1;
        if !acknowledgement.acknowledged {
            self.missing.push(Missing { acknowledgement, elsewhere });
        }
    }

    pub(crate) fn reach(&self, quorum: u8) -> bool {
        (self.connected - self.missing.len()) * 100 >= usize::from(quorum) * self.connected
    }
}
