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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;
    use crate::attestation::AttestationNumber;

    #[test]
    fn after_the_deadline_one_of_twenty_may_be_missing_and_of_fewer_nobody() {
        let told_at = OffsetDateTime::UNIX_EPOCH;
        let suffice = |connected: i64, missing: i64, quorum: u8, after: u64| {
            let missing = (0..connected).map(|number| Acknowledgement {
                agent: AttestationNumber(number),
                id: "spiffe://example.org/a".parse().unwrap(),
                acknowledged: number >= missing,
                refused: String::new(),
            });
            let patience = Patience { deadline: Duration::from_secs(600), quorum };
            let all = Acknowledgements::of(missing, Vec::new(), &Version::default());
            all.suffice(patience, told_at, told_at + Duration::from_secs(after))
        };
        for (connected, missing, quorum, after, expected) in [
            (0, 0, 95, 0, true),
            (20, 0, 95, 0, true),
            (20, 1, 95, 600, false),
            (20, 1, 95, 601, true),
            (20, 2, 95, 601, false),
            (40, 2, 95, 601, true),
            (19, 1, 95, 86_400, false),
            (1, 1, 95, 86_400, false),
            (2, 1, 50, 601, true),
            (1, 1, 0, 600, false),
            (1, 1, 0, 601, true),
            (100, 1, 100, 86_400, false),
        ] {
            let case = format!("{missing} of {connected} missing, {quorum} %, after {after} s");
            assert_eq!(suffice(connected, missing, quorum, after), expected, "{case}");
        }
    }
}
