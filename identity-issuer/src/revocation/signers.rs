//! Whether those by whose word something is believed are revoked.

use super::{Entry, Revocations, SerialNumber, What};
use crate::authority::{CaCertificate, KeyId};
use crate::csr::KeyHash;

/// An authority and those above it. What was looked at once is not looked at again: there may be millions that are revoked.
#[derive(Clone, Debug)]
pub(crate) struct Signers {
    signers: Vec<Signer>,
    /// How far that is known,
    looked: u64,
    /// and what was found.
    are_revoked: bool,
}

#[derive(Clone, Debug)]
struct Signer {
    key: KeyHash,
    /// By whom its certificate is signed, and its number.
    certificate: Option<(KeyId, SerialNumber)>,
}

impl Signers {
    pub(crate) fn of(chain: &[CaCertificate]) -> Self {
        let signer = |certificate: &CaCertificate| Signer {
            key: KeyHash::of_spki(&certificate.spki),
            certificate: certificate.authority_key_id.clone().zip(SerialNumber::from_be_bytes(&certificate.serial)),
        };
        Self { signers: chain.iter().map(signer).collect(), looked: 0, are_revoked: false }
    }

    /// One of them is enough.
    pub(crate) fn are_revoked(&mut self, revocations: &Revocations) -> bool {
        if !self.are_revoked {
            revocations.inspect(|entries, epoch| self.look(entries, epoch));
        }
        self.are_revoked
    }

    /// `entries` are those up to this epoch, in their order.
    fn look(&mut self, entries: &[Entry], epoch: u64) {
        let newer = entries.iter().rev().take_while(|entry| entry.epoch > self.looked);
        let mut newer = newer.map(|entry| &entry.what);
        self.are_revoked |= newer.any(|what| self.signers.iter().any(|signer| signer.is_meant_by(what)));
        self.looked = epoch;
    }
}

impl Signer {
    fn is_meant_by(&self, what: &What) -> bool {
        match what {
            What::Serial(authority, serial) => {
                self.certificate.as_ref().is_some_and(|(by, number)| *by == **authority && number == serial)
            }
            What::Key(key) | What::Authority(_, key) => **key == self.key,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use time::OffsetDateTime;

    use super::*;
    use crate::authority::testing;
    use crate::revocation::Reason;

    fn entry(epoch: u64, what: What) -> Entry {
        Entry { epoch, what, not_after: i64::MAX, revoked_at: 0, reason: Reason::CaCompromise }
    }

    #[test]
    fn an_authority_is_revoked_by_its_key_and_by_its_number_and_stays_so() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let root = testing::Root::new("example.org", now);
        let [one, other] = [(); 2].map(|()| {
            let der = root.authority(now).chain()[0].to_vec();
            CaCertificate::parse(der).unwrap()
        });
        let number = SerialNumber::from_be_bytes(&one.serial).unwrap();
        let (by, key) = (one.authority_key_id.clone().unwrap(), Box::new(KeyHash::of_spki(&one.spki)));
        for what in [
            What::Authority(Arc::new(one.key_id.clone().unwrap()), key.clone()),
            What::Key(key),
            What::Serial(Arc::new(by), number),
        ] {
            let [mut signer, mut stranger, mut below] =
                [vec![one.clone()], vec![other.clone()], vec![other.clone(), one.clone()]].map(|of| Signers::of(&of));
            let before = [entry(1, What::Key(Box::new(KeyHash::of_spki(b"another"))))];
            signer.look(&before, 1);
            assert!(!signer.are_revoked);
            let entries = [before[0].clone(), entry(2, what.clone())];
            for signers in [&mut signer, &mut stranger, &mut below] {
                signers.look(&entries, 2);
            }
            assert_eq!([signer.are_revoked, stranger.are_revoked, below.are_revoked], [true, false, true], "{what:?}");
            // What it is by has expired, and is in memory no more.
            signer.look(&entries[..1], 2);
            assert!(signer.are_revoked);
        }
        // The same number of another authority is another certificate.
        let mut signer = Signers::of(std::slice::from_ref(&one));
        signer.look(&[entry(1, What::Serial(Arc::new(KeyId::new(&[9; 20])), number))], 1);
        assert!(!signer.are_revoked);
    }
}
