//! Which witnesses have to have cosigned a checkpoint: so many of some, or as a policy says (C2SP tlog-policy).
//!
//! ```text
//! witness X1 w1.example.net+0a1b2c3d+BA…
//! witness X2 w2.example.net+4e5f6a7b+BA…
//! group both all X1 X2
//! quorum both
//! ```

use std::collections::BTreeMap;

use crate::checkpoint::Checkpoint;
use crate::verifier_key::{VerifierKey, VerifierKeyError};
use crate::witness::{CosignatureError, WitnessKey, WitnessKeyError};

#[derive(Clone, Debug)]
pub struct Quorum {
    /// Those that a policy names; none where any may be.
    logs: Vec<VerifierKey>,
    members: Vec<Member>,
    /// Which of them; None where nobody has to have cosigned.
    wanted: Option<usize>,
}

#[derive(Clone, Debug)]
enum Member {
    Witness(WitnessKey),
    Group { least: usize, of: Vec<usize> },
}

/// What witnesses say of a checkpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Witnessed {
    /// By name, with when they signed, in Unix seconds.
    pub by: Vec<(String, u64)>,
    pub missing: Vec<(String, CosignatureError)>,
    /// Since when there is a quorum that has said so, at the latest, in Unix seconds. None where there is none, or none is wanted.
    pub since: Option<u64>,
    pub is_met: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    #[error("a quorum is 1 to as many as there are witnesses, and here are {witnesses}; not {least}")]
    Count { least: usize, witnesses: usize },
    #[error("the key of {name} stands here twice: a witness counts once")]
    Twice { name: String },
    #[error("there are more than {MOST} witnesses and groups")]
    TooMany,
    #[error("line {line}: {cause}")]
    Line { line: usize, cause: LineError },
    #[error("the policy has no `quorum` line")]
    NoQuorum,
}

/// What is wrong with a line of a policy.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error(
        "it is none of `log KEY [URL]`, `witness NAME KEY [URL]`, `group NAME all|any|NUMBER NAME…` and `quorum NAME`"
    )]
    Form,
    #[error("it has a control character")]
    Control,
    #[error("the key of the log: {0}")]
    Log(#[from] VerifierKeyError),
    #[error("the key of the witness: {0}")]
    Witness(#[from] WitnessKeyError),
    #[error("{0} is defined already")]
    Defined(String),
    #[error("{0} is not defined above")]
    Undefined(String),
    #[error("{0} is a member of a group already")]
    Member(String),
    #[error("a group wants 1 to as many as it has")]
    Count,
    #[error("there is a `quorum` already")]
    SecondQuorum,
}

/// Witnesses and groups, and logs. The specification asks for 32 of each.
const MOST: usize = 128;

impl Quorum {
    /// So many of these at least.
    pub fn at_least(least: usize, witnesses: Vec<WitnessKey>) -> Result<Self, QuorumError> {
        if !(1..=witnesses.len()).contains(&least) {
            return Err(QuorumError::Count { least, witnesses: witnesses.len() });
        }
        if witnesses.len() > MOST {
            return Err(QuorumError::TooMany);
        }
        for (at, key) in witnesses.iter().enumerate() {
            if witnesses[..at].iter().any(|before| before.is_same_key(key)) {
                return Err(QuorumError::Twice { name: key.name().to_owned() });
            }
        }
        let of = (0..witnesses.len()).collect();
        let mut members: Vec<Member> = witnesses.into_iter().map(Member::Witness).collect();
        members.push(Member::Group { least, of });
        Ok(Self { logs: Vec::new(), wanted: Some(members.len() - 1), members })
    }

    /// C2SP tlog-policy.
    pub fn parse(text: &str) -> Result<Self, QuorumError> {
        let mut policy = Policy::default();
        for (number, line) in text.lines().enumerate() {
            policy.take(line).map_err(|cause| QuorumError::Line { line: number + 1, cause })?;
            if policy.members.len() > MOST || policy.logs.len() > MOST {
                return Err(QuorumError::TooMany);
            }
        }
        let wanted = policy.quorum.ok_or(QuorumError::NoQuorum)?;
        Ok(Self { logs: policy.logs, members: policy.members, wanted })
    }

    /// Whether a log is one of those that the policy is for.
    pub fn is_for(&self, log: &VerifierKey) -> bool {
        self.logs.is_empty() || self.logs.iter().any(|known| known.is_same_log(log))
    }

    /// What the witnesses say below a checkpoint, which `note` is with all signatures. A cosignature that claims to be of a time after `latest`,
    /// in Unix seconds, does not count: one witness whose clock is ahead is not to have the others' refused as too.
    pub fn of(&self, note: &[u8], checkpoint: &Checkpoint, latest: u64) -> Witnessed {
        let note = String::from_utf8_lossy(note);
        let lines = note.split_once("\n\n").map_or("", |(_, lines)| lines);
        let (mut by, mut missing, mut times) = (Vec::new(), Vec::new(), vec![None; self.members.len()]);
        for (member, time) in self.members.iter().zip(&mut times) {
            let Member::Witness(key) = member else { continue };
            match key.find(lines, checkpoint) {
                Ok(found) if found.time > latest => {
                    missing.push((key.name().to_owned(), CosignatureError::Future { ahead: found.time - latest }));
                }
                Ok(found) => {
                    *time = Some(found.time);
                    by.push((key.name().to_owned(), found.time));
                }
                Err(error) => missing.push((key.name().to_owned(), error)),
            }
        }
        let mut newest: Vec<u64> = times.iter().copied().flatten().collect();
        newest.sort_unstable_by_key(|time| std::cmp::Reverse(*time));
        let since = newest.into_iter().find(|time| self.is_met_by(&times, *time));
        let is_met = self.wanted.is_none() || since.is_some();
        Witnessed { by, missing, since, is_met }
    }

    /// By those who signed at `since` or later. A group stands behind its members.
    fn is_met_by(&self, times: &[Option<u64>], since: u64) -> bool {
        let mut have: Vec<bool> = Vec::new();
        for (member, time) in self.members.iter().zip(times) {
            have.push(match member {
                Member::Witness(_) => time.is_some_and(|time| time >= since),
                Member::Group { least, of } => of.iter().filter(|at| have[**at]).count() >= *least,
            });
        }
        self.wanted.is_some_and(|wanted| have[wanted])
    }
}

#[derive(Default)]
struct Policy {
    logs: Vec<VerifierKey>,
    members: Vec<Member>,
    names: BTreeMap<String, usize>,
    /// Each may be in one group.
    grouped: Vec<usize>,
    quorum: Option<Option<usize>>,
}

impl Policy {
    fn take(&mut self, line: &str) -> Result<(), LineError> {
        if line.contains(|character: char| character.is_ascii_control() && character != '\t') {
            return Err(LineError::Control);
        }
        let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        match words[..] {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            ["log", key] | ["log", key, _] => {
                let key: VerifierKey = key.parse()?;
                match self.logs.contains(&key) {
                    true => Err(LineError::Defined(key.origin().to_string())),
                    false => {
                        self.logs.push(key);
                        Ok(())
                    }
                }
            }
            ["witness", name, key] | ["witness", name, key, _] => {
                let key: WitnessKey = key.parse()?;
                let is_known = |member: &Member| matches!(member, Member::Witness(known) if known.is_same_key(&key));
                if self.members.iter().any(is_known) {
                    return Err(LineError::Defined(key.name().to_owned()));
                }
                self.define(name, Member::Witness(key))
            }
            ["group", name, least, ref of @ ..] if !of.is_empty() => {
                let least = match least {
                    "any" => 1,
                    "all" => of.len(),
                    number => number.parse().map_err(|_| LineError::Form)?,
                };
                if !(1..=of.len()).contains(&least) {
                    return Err(LineError::Count);
                }
                let mut members = Vec::new();
                for member in of {
                    let at = self.find(member)?;
                    if self.grouped.contains(&at) {
                        return Err(LineError::Member((*member).to_owned()));
                    }
                    self.grouped.push(at);
                    members.push(at);
                }
                self.define(name, Member::Group { least, of: members })
            }
            ["quorum", _] if self.quorum.is_some() => Err(LineError::SecondQuorum),
            ["quorum", "none"] => {
                self.quorum = Some(None);
                Ok(())
            }
            ["quorum", name] => {
                self.quorum = Some(Some(self.find(name)?));
                Ok(())
            }
            _ => Err(LineError::Form),
        }
    }

    fn define(&mut self, name: &str, member: Member) -> Result<(), LineError> {
        if name == "none" || self.names.contains_key(name) {
            return Err(LineError::Defined(name.to_owned()));
        }
        self.names.insert(name.to_owned(), self.members.len());
        self.members.push(member);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize, LineError> {
        self.names.get(name).copied().ok_or_else(|| LineError::Undefined(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::witness::tests::{Signer, checkpoint};

    fn signers() -> Vec<Signer> {
        (1..=4).map(|seed| Signer::ed25519(&format!("w.example/{seed}"), seed)).collect()
    }

    fn note(by: &[(&Signer, u64)]) -> Vec<u8> {
        let lines: String = by.iter().map(|(signer, time)| signer.cosign(&checkpoint(9), *time)).collect();
        format!("{}\n{lines}", checkpoint(9).text()).into_bytes()
    }

    #[test]
    fn two_of_three_are_enough_and_one_of_three_is_not() {
        let signers = signers();
        let quorum = Quorum::at_least(2, signers.iter().take(3).map(|signer| signer.key.clone()).collect()).unwrap();
        let two = quorum.of(&note(&[(&signers[0], 50), (&signers[2], 40)]), &checkpoint(9), 100);
        assert_eq!((two.is_met, two.since), (true, Some(40)));
        assert_eq!(two.missing, [("w.example/2".to_owned(), CosignatureError::Absent)]);
        // Neither a stranger nor the same again makes up for another.
        let early = quorum.of(&note(&[(&signers[0], 50), (&signers[2], 40)]), &checkpoint(9), 45);
        assert!(!early.is_met && early.by.len() == 1, "{early:?}");
        assert!(early.missing.iter().any(|(_, error)| *error == CosignatureError::Future { ahead: 5 }), "{early:?}");
        let one = quorum.of(&note(&[(&signers[0], 50), (&signers[3], 50), (&signers[0], 51)]), &checkpoint(9), 100);
        assert_eq!((one.is_met, one.since, one.missing.len()), (false, None, 2));
        assert!(!quorum.of(&note(&[(&signers[0], 50), (&signers[1], 50)]), &checkpoint(8), 100).is_met);
    }

    #[test]
    fn a_quorum_that_cannot_be_is_refused() {
        let keys = || signers().into_iter().map(|signer| signer.key).collect::<Vec<_>>();
        assert!(matches!(Quorum::at_least(0, keys()), Err(QuorumError::Count { .. })));
        assert!(matches!(Quorum::at_least(5, keys()), Err(QuorumError::Count { .. })));
        assert!(matches!(Quorum::at_least(2, [keys(), keys()].concat()), Err(QuorumError::Twice { .. })));
    }

    #[test]
    fn a_policy_of_groups_is_kept_to() {
        let signers = signers();
        let [x1, x2, x3, y] = [0, 1, 2, 3].map(|at| signers[at].key.to_string());
        let log = VerifierKey::new("example.org/audit".parse().unwrap(), [7; 32]);
        let quorum = Quorum::parse(&format!(
            "# ours\nlog {log} https://log.example\nwitness X1 {x1}\nwitness\tX2 {x2}\n witness X3 {x3} https://x3.example\n\
             group X 2 X1 X2 X3\nwitness Y {y}\ngroup all all X Y\n\nquorum all\n"
        ))
        .unwrap();
        let is_met = |by: &[usize]| {
            let by: Vec<_> = by.iter().map(|at| (&signers[*at], 50)).collect();
            quorum.of(&note(&by), &checkpoint(9), 100).is_met
        };
        assert_eq!((is_met(&[0, 2, 3]), is_met(&[0, 1, 2]), is_met(&[0, 3])), (true, false, false));
        assert!(quorum.is_for(&log) && !quorum.is_for(&VerifierKey::new(log.origin().clone(), [8; 32])));
        assert!(Quorum::parse("quorum none").unwrap().of(&note(&[]), &checkpoint(9), 100).is_met);
    }

    #[test]
    fn a_policy_that_was_written_wrongly_says_in_which_line() {
        let key = &signers()[0].key.to_string();
        for (text, told) in [
            ("".to_owned(), "the policy has no `quorum` line"),
            ("quorum X".to_owned(), "line 1: X is not defined above"),
            (format!("witness X {key}\nwitness Y {key}"), "line 2: w.example/1 is defined already"),
            (format!("witness none {key}"), "line 1: none is defined already"),
            (format!("witness X {key}\ngroup G 2 X"), "line 2: a group wants 1 to as many as it has"),
            (format!("witness X {key}\ngroup G 1 X\ngroup H any X"), "line 3: X is a member of a group already"),
            ("quorum none\nquorum none".to_owned(), "line 2: there is a `quorum` already"),
            ("quorum\u{b}none".to_owned(), "line 1: it has a control character"),
        ] {
            assert_eq!(Quorum::parse(&text).unwrap_err().to_string(), told, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_policy_does_harm(text in "((log|witness|group|quorum|any|all|2|none|X|Y|#|[ \t])[ \n]?){0,40}") {
            let _ = Quorum::parse(&text);
        }
    }
}
