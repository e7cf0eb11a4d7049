//! What a log's key signs beside checkpoints: what the issuer says about a part of its log, as a signed note (C2SP signed-note).
//!
//! ```text
//! signet/audit-digest/v1                                                what it is
//! log example.org/audit/3f1c0d5a                                        of which log
//! size 20852163                                                         and what it says: a name and a value in each line
//! …
//!
//! — example.org/audit/3f1c0d5a Az3grlgt…                                of the lines above
//! ```
//! It passes for no checkpoint, whose second line is a number.

use signed_note::{Note, Signature, Verifier as _, VerifierList};

use crate::checkpoint::Origin;
use crate::verifier_key::{SignatureType, VerifierKey};

/// A statement about a log, by the log's key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Statement {
    pub about: About,
    pub log: Origin,
    /// Names and values, each name once.
    says: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum About {
    /// A report of what was issued and revoked in some time.
    Report,
    /// What was logged within an hour.
    Digest,
    /// The state of the log's issuer.
    Backup,
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StatementError {
    #[error("it is no {}", expected.name())]
    Malformed { expected: About },
    #[error("it is about the log {found}, not {expected}")]
    OtherLog { found: Origin, expected: Origin },
    #[error("it is not signed by the key of {log}: it was changed, or made by somebody else")]
    NotSigned { log: Origin },
}

/// In bytes, with its signatures.
pub const MAX_STATEMENT: usize = 8 << 10;
/// Of one statement.
const MOST_LINES: usize = 32;
/// In bytes.
const LONGEST_NAME: usize = 32;
const LONGEST_VALUE: usize = 512;

impl About {
    const ALL: [Self; 3] = [Self::Report, Self::Digest, Self::Backup];

    /// The first line.
    fn as_str(self) -> &'static str {
        match self {
            Self::Report => "signet/audit-report/v1",
            Self::Digest => "signet/audit-digest/v1",
            Self::Backup => "signet/backup/v1",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Report => "signed report",
            Self::Digest => "digest",
            Self::Backup => "backup",
        }
    }
}

impl Statement {
    pub fn new(about: About, log: Origin) -> Self {
        Self { about, log, says: Vec::new() }
    }

    /// With one line more. What has no room in a line is left out: of it there is no statement that can be signed.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.says.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.says.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    /// Names in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.says.iter().map(|(name, _)| name.as_str())
    }

    pub fn text(&self) -> String {
        let mut text = format!("{}\nlog {}\n", self.about.as_str(), self.log);
        for (name, value) in &self.says {
            text.extend([name, " ", value, "\n"]);
        }
        text
    }

    /// The one that this text is, to the byte: each has one form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n').filter(|_| text.len() <= MAX_STATEMENT)?.split('\n');
        let first = lines.next()?;
        let about = About::ALL.into_iter().find(|about| about.as_str() == first)?;
        let mut statement = Self::new(about, lines.next()?.strip_prefix("log ")?.parse().ok()?);
        for line in lines {
            let (name, value) = line.split_once(' ')?;
            let is_new = statement.get(name).is_none() && statement.says.len() < MOST_LINES;
            if !is_new || !is_name(name) || !is_value(value) {
                return None;
            }
            statement = statement.with(name, value);
        }
        Some(statement)
    }

    /// As it is published. `signing` signs with the key of `key`.
    pub fn sign<E>(&self, key: &VerifierKey, signing: impl FnOnce(&[u8]) -> Result<[u8; 64], E>) -> Result<String, E> {
        let text = self.text();
        let signature = signing(text.as_bytes())?.to_vec();
        // An origin is a name that a key may have.
        let line = Signature::new(key.origin().to_string(), key.key_id(SignatureType::Ed25519), signature);
        let line = line.map(|line| line.to_bytes()).unwrap_or_default();
        Ok(format!("{text}\n{}", String::from_utf8_lossy(&line)))
    }

    /// One of this kind that `key` has signed, about its own log. Signatures by others are passed over.
    pub fn open(note: &[u8], about: About, key: &VerifierKey) -> Result<Self, StatementError> {
        let malformed = || StatementError::Malformed { expected: about };
        let note = Some(note).filter(|note| note.len() <= MAX_STATEMENT).ok_or_else(malformed)?;
        let note = Note::from_bytes(note).map_err(|_| malformed())?;
        let verifier = key.verifier(SignatureType::Ed25519);
        let id = verifier.key_id();
        let text = std::str::from_utf8(note.text()).map_err(|_| malformed())?;
        let statement = Self::parse(text).filter(|statement| statement.about == about).ok_or_else(malformed)?;
        if statement.log != *key.origin() {
            return Err(StatementError::OtherLog { found: statement.log, expected: key.origin().clone() });
        }
        let verified = note.verify(&VerifierList::new(vec![Box::new(verifier)]));
        match verified.is_ok_and(|(by_the_log, _)| by_the_log.iter().any(|signature| signature.id() == id)) {
            true => Ok(statement),
            false => Err(StatementError::NotSigned { log: key.origin().clone() }),
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn is_value(value: &str) -> bool {
    let is_plain = |character: char| !character.is_control() && (character == ' ' || !character.is_whitespace());
    (1..=LONGEST_VALUE).contains(&value.len()) && value.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::tests::Log;
    use crate::{Checkpoint, CheckpointError, Hash, SignedCheckpoint};

    impl Log {
        fn said(&self) -> Statement {
            Statement::new(About::Report, self.key.origin().clone()).with("size", 3).with("format", "csv")
        }

        fn state(&self, statement: &Statement) -> String {
            statement.sign(&self.key, |message| self.signs(message)).unwrap()
        }
    }

    fn open(log: &Log, note: &str) -> Result<Statement, StatementError> {
        Statement::open(note.as_bytes(), About::Report, &log.key)
    }

    #[test]
    fn what_a_log_says_is_read_as_it_was_said_and_nothing_of_it_can_be_changed() {
        let log = Log::new("example.org/audit/1", 1);
        let note = log.state(&log.said());
        assert_eq!(open(&log, &note).unwrap(), log.said());
        assert_eq!(open(&log, &note).unwrap().get("size"), Some("3"));
        for position in 0..note.len() {
            let mut changed = note.clone().into_bytes();
            changed[position] ^= 1;
            assert!(Statement::open(&changed, About::Report, &log.key).is_err(), "{position}");
            assert!(Statement::open(&changed[..position], About::Report, &log.key).is_err(), "{position}");
        }
    }

    #[test]
    fn it_passes_for_no_other_and_no_other_for_it() {
        let log = Log::new("example.org/audit/1", 1);
        let note = log.state(&log.said());
        let as_digest = Statement::open(note.as_bytes(), About::Digest, &log.key);
        assert_eq!(as_digest, Err(StatementError::Malformed { expected: About::Digest }));
        assert_eq!(SignedCheckpoint::open(note.as_bytes(), &log.key), Err(CheckpointError::Malformed));
        // A log that has the name of a statement.
        let named = Log::new("signet/audit-report/v1", 1);
        let checkpoint = Checkpoint { origin: named.key.origin().clone(), size: 3, root: Hash([9; 32]) };
        assert_eq!(Statement::parse(&checkpoint.text()), None);

        let other = Log::new("example.org/audit/1", 2);
        let not_signed = StatementError::NotSigned { log: log.key.origin().clone() };
        assert_eq!(open(&log, &other.state(&log.said())), Err(not_signed));
        let elsewhere = Log::new("example.org/audit/2", 1);
        assert!(matches!(open(&log, &elsewhere.state(&elsewhere.said())), Err(StatementError::OtherLog { .. })));
    }

    #[test]
    fn what_differs_from_a_statement_by_anything_is_none() {
        let good = "signet/audit-report/v1\nlog o\nsize 3\n";
        assert!(Statement::parse(good).is_some());
        for wrong in [
            "",
            "\n",
            "signet/audit-report/v1\n",
            "signet/audit-report/v2\nlog o\n",
            "signet/audit-report/v1\nlog o",
            "signet/audit-report/v1\nlog o\n\n",
            "signet/audit-report/v1\nlog  o\n",
            "signet/audit-report/v1\nlog o+\n",
            "signet/audit-report/v1\nsize 3\n",
            "signet/audit-report/v1\nlog o\nsize\n",
            "signet/audit-report/v1\nlog o\nsize \n",
            "signet/audit-report/v1\nlog o\nSize 3\n",
            "signet/audit-report/v1\nlog o\nsize 3\r\n",
            "signet/audit-report/v1\nlog o\nsize 3\t4\n",
            "signet/audit-report/v1\nlog o\nsize 3\u{2028}\n",
            "signet/audit-report/v1\nlog o\nsize 3\nsize 4\n",
            " signet/audit-report/v1\nlog o\n",
        ] {
            assert_eq!(Statement::parse(wrong), None, "{wrong:?}");
        }
        let lines: String = (0..33_u8)
            .map(|n| format!("{} 1\n", char::from(b'a' + n % 26).to_string().repeat(1 + usize::from(n / 26))))
            .collect();
        assert_eq!(Statement::parse(&format!("signet/audit-report/v1\nlog o\n{lines}")), None);
        assert_eq!(Statement::parse(&format!("signet/audit-report/v1\nlog o\nsize {}\n", "3".repeat(513))), None);
    }

    proptest! {
        #[test]
        fn whatever_is_parsed_is_written_the_same(text in "signet/audit-(report|digest)/v1\nlog [a-z +]{1,4}\n([a-z_ ]{1,5} ?[ -~]{0,5}\n){0,3}") {
            if let Some(statement) = Statement::parse(&text) {
                prop_assert_eq!(statement.text(), text);
            }
        }
    }
}
