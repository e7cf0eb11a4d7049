//! What a log says of itself, signed: how many entries it has, and the root of their tree (C2SP tlog-checkpoint), and since when at least
//! (C2SP tlog-cosignature, by the log itself).
//!
//! ```text
//! example.org/audit/3f1c0d5a                                            origin
//! 20852163                                                              entries
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=                          root
//!
//! — example.org/audit/3f1c0d5a Az3grlgt…                                of the lines above
//! — example.org/audit/3f1c0d5a jWbPPwAA…                                of the time and the lines above
//! ```

use std::fmt;
use std::str::FromStr;

use signed_note::{Note, NoteError, Signature, Verifier as _, VerifierList};
use tlog_tiles::{Checkpoint as Parsed, Hash};

use crate::MOST_ENTRIES;
use crate::verifier_key::{SignatureType, VerifierKey};
use crate::witness::CosignatureError;

/// By which a log is known, to all who know it: the first line of its checkpoints, and the name of its key. A URL without a scheme, as
/// `example.org/audit/3f1c0d5a`; nothing needs to answer there.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Origin(String);

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an origin has 1 to 255 characters, none of them a space, a `+` or a control character; not {text:?}")]
pub struct OriginError {
    text: String,
}

/// The tree of a log at some time.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    pub origin: Origin,
    /// Entries.
    pub size: u64,
    pub root: Hash,
}

/// One that the log's own key has signed.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedCheckpoint {
    pub checkpoint: Checkpoint,
    /// Of the signature, Unix seconds.
    pub time: u64,
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CheckpointError {
    #[error("it is no checkpoint")]
    Malformed,
    #[error("it is of the log {found}, not of {expected}")]
    OtherOrigin { found: String, expected: Origin },
    #[error("it is not signed by the key of {origin}: it was changed, or made by somebody else")]
    NotSigned { origin: Origin },
    #[error("its time is not signed by the key of {origin}")]
    NotTimed { origin: Origin },
    #[error("it is not signed by the second key of {origin}, of ML-DSA-44: {cause}")]
    NotSecond { origin: Origin, cause: CosignatureError },
}

/// In bytes, of a checkpoint and all its signatures.
const MAX_CHECKPOINT: usize = 64 << 10;
const COSIGNATURE: &str = "cosignature/v1";

impl Origin {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_bad = |character: char| character.is_whitespace() || character.is_control() || character == '+';
        // What is signed with the time begins with that line.
        let is_one = (1..=255).contains(&text.len()) && !text.contains(is_bad) && text != COSIGNATURE;
        match is_one {
            true => Ok(Self(text.to_owned())),
            false => Err(OriginError { text: text.chars().take(64).collect() }),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Checkpoint {
    /// The three lines.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }
}

/// What is signed with a time, in Unix seconds (C2SP tlog-cosignature, “Ed25519 signed message”).
pub(crate) fn timed(time: u64, text: &str) -> String {
    format!("{COSIGNATURE}\ntime {time}\n{text}")
}

/// The checkpoint with both signatures of its log, as it is published. `signing` signs with the key of `key`.
pub fn sign<E>(
    checkpoint: &Checkpoint,
    key: &VerifierKey,
    time: u64,
    mut signing: impl FnMut(&[u8]) -> Result<[u8; 64], E>,
) -> Result<String, E> {
    let text = checkpoint.text();
    let plain = signing(text.as_bytes())?;
    let by_time = signing(timed(time, &text).as_bytes())?;
    let by_time = [&time.to_be_bytes(), &by_time[..]].concat();
    let line = |of, signature: Vec<u8>| {
        // An origin is a name that a key may have.
        let signature = Signature::new(key.origin().to_string(), key.key_id(of), signature);
        signature.map(|signature| signature.to_bytes()).unwrap_or_default()
    };
    let lines = [line(SignatureType::Ed25519, plain.to_vec()), line(SignatureType::Cosignature, by_time)].concat();
    Ok(format!("{text}\n{}", String::from_utf8_lossy(&lines)))
}

impl SignedCheckpoint {
    /// One that `key` has signed, with both keys where it has two, and when. Signatures by others are passed over.
    pub fn open(note: &[u8], key: &VerifierKey) -> Result<Self, CheckpointError> {
        if note.len() > MAX_CHECKPOINT {
            return Err(CheckpointError::Malformed);
        }
        let text = String::from_utf8_lossy(note);
        let note = Note::from_bytes(note).map_err(|_| CheckpointError::Malformed)?;
        let checkpoint = parse(note.text(), key.origin())?;
        let [plain, timed] = [SignatureType::Ed25519, SignatureType::Cosignature].map(|of| key.verifier(of));
        let (plain_id, timed_id) = (plain.key_id(), timed.key_id());
        let not_signed = || CheckpointError::NotSigned { origin: key.origin().clone() };
        let not_timed = || CheckpointError::NotTimed { origin: key.origin().clone() };
        let verified = note.verify(&VerifierList::new(vec![Box::new(plain), Box::new(timed)]));
        let (by_the_log, _) = verified.map_err(|error| match error {
            NoteError::InvalidSignature { id, .. } if id == timed_id => not_timed(),
            _ => not_signed(),
        })?;
        let of = |id| by_the_log.iter().find(|signature| signature.id() == id);
        of(plain_id).ok_or_else(not_signed)?;
        let time = of(timed_id).and_then(|signature| signature.signature().first_chunk());
        let time = u64::from_be_bytes(*time.ok_or_else(not_timed)?);
        if let Some(second) = key.second() {
            let lines = text.split_once("\n\n").map_or("", |(_, lines)| lines);
            let not_second = |cause| CheckpointError::NotSecond { origin: key.origin().clone(), cause };
            let found = second.find(lines, &checkpoint).map_err(not_second)?;
            // Who has the first key alone, some day, sets the time of nothing that was signed.
            if found.time != time {
                return Err(not_second(CosignatureError::Wrong));
            }
        }
        Ok(Self { checkpoint, time })
    }
}

fn parse(text: &[u8], expected: &Origin) -> Result<Checkpoint, CheckpointError> {
    let found = Parsed::from_bytes(text).map_err(|_| CheckpointError::Malformed)?;
    if found.origin() != expected.as_str() {
        let found = found.origin().chars().take(255).collect();
        return Err(CheckpointError::OtherOrigin { found, expected: expected.clone() });
    }
    let checkpoint = Checkpoint { origin: expected.clone(), size: found.size(), root: *found.hash() };
    // It has no other lines, and is written in one way only.
    match checkpoint.text().as_bytes() == text && checkpoint.size <= MOST_ENTRIES {
        true => Ok(checkpoint),
        false => Err(CheckpointError::Malformed),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::witness::tests::Signer;

    /// Its key, both halves.
    pub(crate) struct Log {
        pair: Ed25519KeyPair,
        pub(crate) key: VerifierKey,
    }

    impl Log {
        pub(crate) fn new(origin: &str, seed: u8) -> Self {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
            let public = pair.public_key().as_ref().try_into().unwrap();
            Self { pair, key: VerifierKey::new(origin.parse().unwrap(), public) }
        }

        pub(crate) fn signs(&self, message: &[u8]) -> Result<[u8; 64], ()> {
            self.pair.sign(message).as_ref().try_into().map_err(drop)
        }

        fn checkpoint(&self, size: u64) -> Checkpoint {
            Checkpoint { origin: self.key.origin().clone(), size, root: Hash([9; 32]) }
        }

        fn sign(&self, checkpoint: &Checkpoint, time: u64) -> String {
            sign(checkpoint, &self.key, time, |message| self.signs(message)).unwrap()
        }

        fn open(&self, note: &str) -> Result<SignedCheckpoint, CheckpointError> {
            SignedCheckpoint::open(note.as_bytes(), &self.key)
        }
    }

    #[test]
    fn what_a_log_signs_is_what_it_says_and_when() {
        let log = Log::new("example.org/audit/1", 1);
        for size in [0, 1, 70_000, MOST_ENTRIES] {
            let checkpoint = log.checkpoint(size);
            let note = log.sign(&checkpoint, 1_800_000_000);
            assert_eq!(log.open(&note), Ok(SignedCheckpoint { checkpoint, time: 1_800_000_000 }));
        }
    }

    #[test]
    fn nothing_of_it_can_be_changed() {
        let log = Log::new("example.org/audit/1", 1);
        let note = log.sign(&log.checkpoint(70_000), 1_800_000_000);
        for position in 0..note.len() {
            let mut changed = note.clone().into_bytes();
            changed[position] ^= 1;
            assert!(SignedCheckpoint::open(&changed, &log.key).is_err(), "{position}");
            assert!(SignedCheckpoint::open(&changed[..position], &log.key).is_err(), "{position}");
        }
        let without = |line: usize| {
            let lines: Vec<_> = note.lines().enumerate().filter(|(number, _)| *number != line).collect();
            lines.iter().map(|(_, line)| format!("{line}\n")).collect::<String>()
        };
        let origin = log.key.origin().clone();
        assert_eq!(log.open(&without(4)), Err(CheckpointError::NotSigned { origin: origin.clone() }));
        assert_eq!(log.open(&without(5)), Err(CheckpointError::NotTimed { origin }));
        assert_eq!(log.open(&note.replacen("\n\n", "\nmore\n\n", 1)), Err(CheckpointError::Malformed));
        assert_eq!(log.open(&note.replacen("70000", "070000", 1)), Err(CheckpointError::Malformed));
    }

    #[test]
    fn anothers_signatures_count_for_nothing() {
        let log = Log::new("example.org/audit/1", 1);
        let note = log.sign(&log.checkpoint(3), 1_800_000_000);
        let other = Log::new("example.org/audit/1", 2);
        let theirs = other.sign(&log.checkpoint(3), 1_900_000_000);
        assert_eq!(log.open(&theirs), Err(CheckpointError::NotSigned { origin: log.key.origin().clone() }));
        let (_, signatures) = theirs.split_once("\n\n").unwrap();
        assert_eq!(log.open(&format!("{note}{signatures}")).unwrap().time, 1_800_000_000);
        let elsewhere = Log::new("example.org/audit/2", 1);
        let moved = elsewhere.sign(&elsewhere.checkpoint(3), 1_800_000_000);
        assert!(matches!(log.open(&moved), Err(CheckpointError::OtherOrigin { .. })));
    }

    #[test]
    fn whoever_knows_both_keys_of_a_log_demands_both_signatures_of_one_time() {
        let log = Log::new("example.org/audit/1", 1);
        let (second, stranger) = (Signer::ml_dsa("example.org/audit/1"), Signer::ml_dsa("example.org/audit/1"));
        let both = VerifierKey::read(&format!("{}\n{}", log.key, second.key)).unwrap().remove(0);
        let (checkpoint, time) = (log.checkpoint(3), 1_800_000_000);
        let note = log.sign(&checkpoint, time);
        let with = |line: String| SignedCheckpoint::open(format!("{note}{line}").as_bytes(), &both);
        let refused = |cause| Err(CheckpointError::NotSecond { origin: both.origin().clone(), cause });
        let opened = SignedCheckpoint { checkpoint: checkpoint.clone(), time };
        assert_eq!(with(second.cosign(&checkpoint, time)), Ok(opened.clone()));
        assert_eq!(with(String::new()), refused(CosignatureError::Absent));
        assert_eq!(with(stranger.cosign(&checkpoint, time)), refused(CosignatureError::Absent));
        assert_eq!(with(second.cosign(&log.checkpoint(2), time)), refused(CosignatureError::Wrong));
        assert_eq!(with(second.cosign(&checkpoint, time - 1)), refused(CosignatureError::Wrong));
        // It takes the place of none.
        let alone = format!("{}\n{}", checkpoint.text(), second.cosign(&checkpoint, time));
        let opened_alone = SignedCheckpoint::open(alone.as_bytes(), &both);
        assert_eq!(opened_alone, Err(CheckpointError::NotSigned { origin: both.origin().clone() }));
        // Whoever knows the first alone passes it over.
        assert_eq!(log.open(&format!("{note}{}", second.cosign(&checkpoint, time))), Ok(opened));
    }

    #[test]
    fn a_tree_that_is_too_large_is_none() {
        let log = Log::new("example.org/audit/1", 1);
        let note = log.sign(&log.checkpoint(MOST_ENTRIES + 1), 1_800_000_000);
        assert_eq!(log.open(&note), Err(CheckpointError::Malformed));
    }

    #[test]
    fn an_origin_is_a_name_that_a_key_may_have() {
        for good in ["example.org/audit", "a", &"a".repeat(255)] {
            assert_eq!(good.parse::<Origin>().unwrap().as_str(), good);
        }
        for wrong in ["", " ", "a b", "a+b", "a\n", "a\u{2003}b", "a\u{7f}", "cosignature/v1", &"a".repeat(256)] {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong:?}");
        }
    }
}
