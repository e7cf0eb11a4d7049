//! That a certificate is in the issuer's audit log, before it is used (C2SP tlog-proof).

use signet_audit::{Act, Entry, InclusionProof, ProofError, VerifierKey, sha256};
use signet_proto::identity::v1::LogPlace;

/// Why a certificate is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLogged {
    #[error("the certificate comes without a proof that it is in the issuer's audit log")]
    NoProof,
    #[error("the certificate is said to be in the audit log {origin}, whose key is not known here")]
    OtherLog { origin: String },
    #[error("the proof that the certificate is in the audit log is not to be believed")]
    Proof(#[from] ProofError),
    #[error("the proof is of another entry of the audit log than the issuing of this certificate")]
    OtherEntry,
}

/// In bytes; a proof has an entry of some hundred and a hash for each level of the tree.
const MAX_PROOF: usize = 64 << 10;

/// Whether the issuing of `leaf`, DER, is in a log that one of these keys has signed.
pub(super) fn check(place: Option<&LogPlace>, leaf: &[u8], keys: &[VerifierKey]) -> Result<(), NotLogged> {
    let place = place.filter(|place| !place.proof.is_empty() && place.proof.len() <= MAX_PROOF);
    let LogPlace { origin, proof, .. } = place.ok_or(NotLogged::NoProof)?;
    // Two logs may have one name, while a key is replaced.
    let mut of_the_log = keys.iter().filter(|key| key.origin().as_str() == origin).peekable();
    if of_the_log.peek().is_none() {
        return Err(NotLogged::OtherLog { origin: origin.chars().take(128).collect() });
    }
    let proof = InclusionProof::parse(proof)?;
    let mut verified = Ok(());
    for key in of_the_log {
        verified = proof.verify(key).map(drop);
        if verified.is_ok() {
            break;
        }
    }
    verified?;
    match Entry::decode(&proof.entry) {
        Some(Entry { act: Act::X509Issued(issued), .. }) if issued.certificate == hex::encode(sha256(leaf)) => Ok(()),
        _ => Err(NotLogged::OtherEntry),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use signet_audit::{Checkpoint, Edge, Resource, Source, X509, inclusion, sign};
    use time::OffsetDateTime;

    use super::*;

    struct Log {
        pair: Ed25519KeyPair,
        key: VerifierKey,
        files: BTreeMap<Resource, Vec<u8>>,
        edge: Edge,
    }

    impl Source for Log {
        fn read(&self, resource: Resource, _: usize) -> std::io::Result<Option<Vec<u8>>> {
            Ok(self.files.get(&resource).cloned())
        }
    }

    impl Log {
        /// Of the issuing of these certificates.
        fn of(seed: u8, leaves: &[&[u8]]) -> Self {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
            let public = pair.public_key().as_ref().try_into().unwrap();
            let key = VerifierKey::new("example.org/audit/1".parse().unwrap(), public);
            let mut log = Self { pair, key, files: BTreeMap::new(), edge: Edge::default() };
            for leaf in leaves {
                let issued = Act::X509Issued(X509 {
                    serial: "01".to_owned(),
                    spiffe_id: "spiffe://example.org/a".to_owned(),
                    profile: "workload".to_owned(),
                    rule: String::new(),
                    not_before: 0,
                    not_after: 1,
                    authority: "02".to_owned(),
                    certificate: hex::encode(sha256(leaf)),
                    key: "03".to_owned(),
                    attestation: "join_token".to_owned(),
                    evidence: String::new(),
                });
                log.append(issued);
            }
            log
        }

        fn append(&mut self, act: Act) {
            let entry = Entry::new(OffsetDateTime::UNIX_EPOCH, act).unwrap().encode().unwrap();
            let files = &mut self.files;
            self.edge.append(&entry, |resource, bytes| drop(files.insert(resource, bytes))).unwrap();
            self.files.extend(self.edge.partial());
        }

        fn place(&self, index: u64) -> LogPlace {
            let origin = self.key.origin().clone();
            let checkpoint = Checkpoint { origin: origin.clone(), size: self.edge.size(), root: self.edge.root() };
            let signing = |message: &[u8]| Ok::<_, ()>(self.pair.sign(message).as_ref().try_into().unwrap());
            let note = sign(&checkpoint, &self.key, 1_800_000_000, signing).unwrap();
            let proof = inclusion(self, &checkpoint, &note, index).unwrap().to_text();
            LogPlace { origin: origin.to_string(), index, proof }
        }
    }

    #[test]
    fn a_certificate_that_is_in_the_log_is_used_and_no_other() {
        let log = Log::of(1, &[b"one", b"two", b"three"]);
        let keys = [log.key.clone()];
        let place = log.place(1);
        check(Some(&place), b"two", &keys).unwrap();
        assert!(matches!(check(Some(&place), b"one", &keys), Err(NotLogged::OtherEntry)));
        assert!(matches!(check(None, b"two", &keys), Err(NotLogged::NoProof)));
        let empty = LogPlace { proof: String::new(), ..place.clone() };
        assert!(matches!(check(Some(&empty), b"two", &keys), Err(NotLogged::NoProof)));
        // A log of the same name, and one of another, whose keys are not believed.
        let other = Log::of(2, &[b"two"]);
        assert!(matches!(check(Some(&other.place(0)), b"two", &keys), Err(NotLogged::Proof(_))));
        check(Some(&other.place(0)), b"two", &[log.key.clone(), other.key.clone()]).unwrap();
        let elsewhere = LogPlace { origin: "example.org/audit/2".to_owned(), ..place.clone() };
        assert!(matches!(check(Some(&elsewhere), b"two", &keys), Err(NotLogged::OtherLog { .. })));
        // Another entry about the same certificate.
        let mut log = Log::of(1, &[]);
        log.append(Act::Started { software: hex::encode(sha256(b"two")) });
        assert!(matches!(check(Some(&log.place(0)), b"two", &keys), Err(NotLogged::OtherEntry)));
        for position in 0..place.proof.len() {
            let mut changed = place.proof.clone().into_bytes();
            changed[position] ^= 1;
            let Ok(proof) = String::from_utf8(changed) else { continue };
            assert!(check(Some(&LogPlace { proof, ..place.clone() }), b"two", &keys).is_err(), "{position}");
        }
    }
}
