//! The certificates that are in the logs: those that somebody may still present.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signet_audit::{Act, Entry, VerifierKey};

use super::now;

/// About 60 bytes for each certificate that has not ended; none of it grows with the logs.
#[derive(Default)]
pub(super) struct Certificates(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By SHA-256 of their DER: when they end, in seconds since 1970.
    ends: HashMap<[u8; 32], i64>,
    /// How many there may be before those that have ended are dropped.
    enough: usize,
    /// Logs of which every entry was read, by their keys, and when the newest of their checkpoints was signed.
    read: BTreeMap<String, u64>,
    /// Trust domains that the logs are of.
    domains: BTreeSet<String>,
    /// Origins of logs that another one goes on from: nothing more comes to them.
    ended: BTreeSet<String>,
}

/// What is known of a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Logged,
    /// No log that was read up to that moment has it.
    Unlogged,
    /// A log was not read that far.
    Open,
    /// Of another trust domain.
    Foreign,
}

/// How long they are known after their end: a gateway's list may be read that late. Seconds.
pub(super) const KEPT: i64 = 3600;
const FEW: usize = 1024;

impl Certificates {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of entries that were verified.
    pub(super) fn add(&self, entry: &Entry) {
        match &entry.act {
            Act::X509Issued(issued) => {
                let mut sha256 = [0; 32];
                if hex::decode_to_slice(&issued.certificate, &mut sha256).is_ok() {
                    self.known().add(sha256, issued.not_after, now().cast_signed());
                }
            }
            Act::LogBegun { trust_domain, previous, .. } => {
                let mut known = self.known();
                known.domains.insert(trust_domain.clone());
                known.ended.extend(previous.as_ref().map(|previous| previous.origin.clone()));
            }
            _ => {}
        }
    }

    /// Whether every entry of this log was read, once.
    pub(super) fn has_read(&self, log: &VerifierKey) -> bool {
        self.known().read.contains_key(&log.to_string())
    }

    /// All entries were read of a log whose checkpoint is of this time. Seconds since 1970.
    pub(super) fn note_read(&self, log: &VerifierKey, time: u64) {
        let mut known = self.known();
        let last = known.read.entry(log.to_string()).or_default();
        *last = time.max(*last);
    }

    /// Of a certificate of this trust domain, as the logs were at `by` or later.
    pub(super) fn judge(&self, logs: &[VerifierKey], domain: &str, sha256: &[u8; 32], by: u64) -> Verdict {
        let known = self.known();
        if known.ends.contains_key(sha256) {
            return Verdict::Logged;
        }
        let read_by = |log: &VerifierKey| known.read.get(&log.to_string()).copied();
        let is_read = |log: &VerifierKey| match read_by(log) {
            Some(time) => time >= by || known.ended.contains(log.origin().as_str()),
            None => false,
        };
        match (known.domains.contains(domain), logs.iter().all(is_read)) {
            (true, true) => Verdict::Unlogged,
            // Until the first entry of each was read, nobody knows whose logs they are.
            (false, _) if logs.iter().all(|log| read_by(log).is_some()) => Verdict::Foreign,
            (_, _) => Verdict::Open,
        }
    }
}

impl Known {
    fn add(&mut self, sha256: [u8; 32], end: i64, now: i64) {
        if end < now - KEPT {
            return;
        }
        if self.ends.len() >= self.enough.max(FEW) {
            self.ends.retain(|_, end| *end >= now - KEPT);
            self.enough = 2 * self.ends.len();
        }
        self.ends.insert(sha256, end);
    }
}

/// Judged by logs that were signed so long after it was presented: by then its entry is published.
pub(super) fn due(presented: u64, grace: Duration) -> u64 {
    presented.saturating_add(grace.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn key(name: &str) -> VerifierKey {
        VerifierKey::new(name.parse().unwrap(), [7; 32])
    }

    fn entry(act: &str) -> Entry {
        let json = format!(r#"{{"v":1,"time":"2026-11-28T09:30:00Z",{act}}}"#);
        Entry::decode(json.as_bytes()).unwrap()
    }

    fn begun(previous: &str) -> Entry {
        entry(&format!(r#""act":"log_begun","trust_domain":"example.org","software":"s"{previous}"#))
    }

    fn issued(sha256: u8, end: u64) -> Entry {
        entry(&format!(
            r#""act":"x509_issued","serial":"1","spiffe_id":"spiffe://example.org/a","profile":"workload","rule":"r",
            "not_before":1,"not_after":{end},"authority":"a","certificate":"{}","key":"k","attestation":"a","evidence":"e""#,
            hex::encode([sha256; 32])
        ))
    }

    #[test]
    fn a_certificate_is_in_no_log_once_every_log_was_read_to_after_it_was_presented() {
        let (known, logs) = (Certificates::default(), [key("example.org/audit/1"), key("example.org/audit/2")]);
        let judge = |sha256| known.judge(&logs, "example.org", &[sha256; 32], 1000);
        assert_eq!(judge(1), Verdict::Open);
        known.add(&begun(""));
        known.add(&issued(1, now() + 60));
        assert_eq!((judge(1), judge(2)), (Verdict::Logged, Verdict::Open));
        known.note_read(&logs[0], 1000);
        known.note_read(&logs[1], 999);
        assert_eq!(judge(2), Verdict::Open);
        known.note_read(&logs[1], 1000);
        // A copy that is behind takes nothing back.
        known.note_read(&logs[1], 10);
        assert_eq!((judge(1), judge(2)), (Verdict::Logged, Verdict::Unlogged));
        assert_eq!(known.judge(&logs, "example.com", &[2; 32], 1000), Verdict::Foreign);
    }

    #[test]
    fn a_log_that_another_goes_on_from_is_not_waited_for() {
        let (known, logs) = (Certificates::default(), [key("example.org/audit/1"), key("example.org/audit/2")]);
        let judge = || known.judge(&logs, "example.org", &[2; 32], 1000);
        known.note_read(&logs[0], 10);
        known.note_read(&logs[1], 1000);
        known.add(&begun(""));
        assert_eq!(judge(), Verdict::Open);
        known.add(&begun(r#","previous":{"origin":"example.org/audit/1","size":1,"root":"r"}"#));
        assert_eq!(judge(), Verdict::Unlogged);
    }

    #[test]
    fn what_has_ended_is_forgotten_in_time() {
        let mut known = Known::default();
        for number in 0..10_000_u64 {
            let mut sha256 = [0; 32];
            sha256[..8].copy_from_slice(&number.to_be_bytes());
            // A second each; each lives for a minute.
            let time = number.cast_signed();
            known.add(sha256, time + 60, time);
        }
        assert!(known.ends.len() < 3 * (KEPT as usize + 60), "{}", known.ends.len());
        assert!(known.ends.values().any(|end| *end == 9_999 + 60));
        known.add([0xff; 32], 1, 1 + KEPT + 1);
        assert!(!known.ends.contains_key(&[0xff; 32]));
    }
}
