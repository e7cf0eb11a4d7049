//! What waits to be recorded, in two queues: what keeps somebody's identity, and what operators do, goes before what is new. So a
//! fleet that starts at once waits, and whoever is there already does not wait behind it.

use tokio::sync::mpsc;

use super::{StoreError, Write};
use crate::attestation::Attestation;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    kept: mpsc::Sender<Write>,
    new: mpsc::Sender<Write>,
}

/// The other end.
#[derive(Debug)]
pub(super) struct Waiting {
    kept: mpsc::Receiver<Write>,
    new: mpsc::Receiver<Write>,
}

/// More would make the first of them wait for the last.
pub(super) const MAX_BATCH: usize = 256;
/// A first certificate is many statements: whoever comes while they are recorded waits for them.
const MOST_NEW: usize = 32;

/// At most `pending` wait, and half as many that are new.
pub(super) fn queue(pending: usize) -> (Queue, Waiting) {
    let (kept, waiting_kept) = mpsc::channel(pending);
    let (new, waiting_new) = mpsc::channel((pending / 2).max(1));
    (Queue { kept, new }, Waiting { kept: waiting_kept, new: waiting_new })
}

impl Queue {
    /// Whether more waits of what is kept than goes into one transaction.
    pub(super) fn has_line(&self) -> bool {
        self.kept.max_capacity() - self.kept.capacity() > MAX_BATCH
    }

    /// Never waits: when too much is pending already, more would only be late.
    pub(super) fn submit(&self, write: Write) -> Result<(), StoreError> {
        let sender = if is_new(&write) { &self.new } else { &self.kept };
        sender.try_send(write).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })
    }
}

fn is_new(write: &Write) -> bool {
    match write {
        Write::Certificate { certificate, .. } => {
            matches!(certificate.attestation, Attestation::First(_) | Attestation::Beside { .. })
        }
        Write::Token { .. }
        | Write::Revision { .. }
        | Write::Standing { .. }
        | Write::Bundles { .. }
        | Write::BundleSequence { .. }
        | Write::Jwt { .. }
        | Write::RenewalRequest { .. }
        | Write::Revocation { .. }
        | Write::Note { .. }
        | Write::Published { .. }
        | Write::Posted
        | Write::Sweep { .. } => false,
    }
}

impl Waiting {
    /// Adds what is next, once there is something; false when there will be nothing more. Nothing is lost where it is given up.
    pub(super) async fn next(&mut self, batch: &mut Vec<Write>) -> bool {
        loop {
            batch.extend(std::iter::from_fn(|| self.kept.try_recv().ok()).take(MAX_BATCH));
            let room = MOST_NEW.min(MAX_BATCH - batch.len());
            batch.extend(std::iter::from_fn(|| self.new.try_recv().ok()).take(room));
            if !batch.is_empty() {
                return true;
            }
            let write = tokio::select! {
                Some(write) = self.kept.recv() => write,
                Some(write) = self.new.recv() => write,
                else => return false,
            };
            batch.push(write);
        }
    }

    /// Takes no more. What waits is handed out to the end.
    pub(super) fn close(&mut self) {
        self.kept.close();
        self.new.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.kept.is_closed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::time::Duration;

    use time::OffsetDateTime;

    use super::*;
    use crate::attestation::AttestationNumber;
    use crate::certificate::Certificate;
    use crate::profile::{Profiles, Validity};

    fn write(number: u8, attestation: Attestation) -> Write {
        let now = OffsetDateTime::UNIX_EPOCH;
        let certificate = Certificate {
            chain: Vec::new(),
            id: "spiffe://example.org/a".parse().unwrap(),
            profile: Profiles::new((Duration::from_secs(60), Duration::ZERO), []).workload(),
            rule: None,
            key_hash: crate::csr::KeyHash::of_spki(&[number]),
            serial: [number; 16],
            validity: Validity { not_before: now, not_after: now },
            issued_at: now,
            attestation,
            authority: crate::authority::KeyId::new(&[1]),
        };
        Write::Certificate { certificate, reply: tokio::sync::oneshot::channel().0 }
    }

    fn renewal(number: u8) -> Write {
        write(number, Attestation::Renewal { serial: Vec::new(), of: AttestationNumber(1) })
    }

    fn new(number: u8) -> Write {
        write(number, Attestation::Beside { serial: Vec::new(), of: AttestationNumber(1) })
    }

    fn numbers(batch: &[Write]) -> Vec<u8> {
        let number = |write: &Write| match write {
            Write::Certificate { certificate, .. } => certificate.serial[0],
            _ => unreachable!(),
        };
        batch.iter().map(number).collect()
    }

    #[tokio::test]
    async fn what_is_kept_goes_before_what_is_new() {
        let (queue, mut waiting) = queue(200);
        (0..100).for_each(|number| queue.submit(new(number)).unwrap());
        assert!(matches!(queue.submit(new(100)), Err(StoreError::Busy)));
        (200..202).for_each(|number| queue.submit(renewal(number)).unwrap());
        let mut batch = Vec::new();
        assert!(waiting.next(&mut batch).await);
        assert_eq!(numbers(&batch), [vec![200, 201], (0..32).collect()].concat());
        queue.submit(renewal(202)).unwrap();
        batch.clear();
        assert!(waiting.next(&mut batch).await);
        assert_eq!(numbers(&batch)[..2], [202, 32]);
    }

    #[tokio::test]
    async fn all_that_waits_is_handed_out_and_then_it_ends() {
        let (queue, mut waiting) = queue(10);
        queue.submit(new(1)).unwrap();
        queue.submit(renewal(2)).unwrap();
        waiting.close();
        assert!(matches!(queue.submit(renewal(3)), Err(StoreError::Closed)));
        let mut batch = Vec::new();
        assert!(waiting.next(&mut batch).await);
        assert_eq!(numbers(&batch), [2, 1]);
        assert!(!waiting.next(&mut Vec::new()).await);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_either() {
        for write in [new(1), renewal(1)] {
            let (queue, mut waiting) = queue(10);
            let queue = Arc::new(queue);
            let sender = Arc::clone(&queue);
            tokio::spawn(async move { sender.submit(write).unwrap() });
            let mut batch = Vec::new();
            assert!(waiting.next(&mut batch).await && numbers(&batch) == [1]);
        }
    }
}
