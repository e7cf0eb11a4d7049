//! What the issuer says of a report that it made, in a statement by its log's key beside the file.
//!
//! ```text
//! signet/audit-report/v1
//! log example.org/audit/3f1c0d5a
//! size 20852163                                          of the log that the report was made of
//! root CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//! from 2026-11-01T00:00:00Z                              the window
//! to 2026-12-01T00:00:00Z
//! format csv
//! rows 41873
//! file sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//! ```

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Made, Terms, Window};
use crate::Hash;
use crate::checkpoint::{Checkpoint, Origin};
use crate::statement::{About, Statement};

/// All that a report follows from, and what it came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub checkpoint: Checkpoint,
    pub terms: Terms,
    /// Certificates in it.
    pub rows: u64,
    /// Of the file.
    pub sha256: [u8; 32],
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ClaimError {
    #[error("what was signed says no `{name}` that a report can have")]
    Wrong { name: &'static str },
}

impl Claim {
    pub fn new(checkpoint: &Checkpoint, terms: Terms, made: &Made) -> Self {
        Self { checkpoint: checkpoint.clone(), terms, rows: made.rows, sha256: made.sha256 }
    }

    /// To be signed.
    pub fn statement(&self) -> Statement {
        let Self { checkpoint: Checkpoint { origin, size, root }, terms: Terms { window, format }, rows, sha256 } =
            self;
        Statement::new(About::Report, origin.clone())
            .with("size", size)
            .with("root", root)
            .with("from", shown(window.from()))
            .with("to", shown(window.to()))
            .with("format", format)
            .with("rows", rows)
            .with("file", format!("{SHA256}{}", hex::encode(sha256)))
    }

    /// Of a statement that was believed.
    pub fn of(statement: &Statement) -> Result<Self, ClaimError> {
        let origin: Origin = statement.log.clone();
        let root = Hash::parse_hash(says(statement, "root")?).map_err(|_| ClaimError::Wrong { name: "root" })?;
        let checkpoint = Checkpoint { origin, size: read(statement, "size")?, root };
        let time =
            |name| OffsetDateTime::parse(says(statement, name)?, &Rfc3339).map_err(|_| ClaimError::Wrong { name });
        let window = Window::new(time("from")?, time("to")?).map_err(|_| ClaimError::Wrong { name: "to" })?;
        let terms = Terms { window, format: read(statement, "format")? };
        let mut sha256 = [0; 32];
        let wrong = ClaimError::Wrong { name: "file" };
        let hash = says(statement, "file")?.strip_prefix(SHA256).ok_or(wrong)?;
        hex::decode_to_slice(hash, &mut sha256).map_err(|_| wrong)?;
        Ok(Self { checkpoint, terms, rows: read(statement, "rows")?, sha256 })
    }
}

/// Before the hash of a file.
const SHA256: &str = "sha256:";

fn says<'a>(statement: &'a Statement, name: &'static str) -> Result<&'a str, ClaimError> {
    statement.get(name).ok_or(ClaimError::Wrong { name })
}

fn read<T: std::str::FromStr>(statement: &Statement, name: &'static str) -> Result<T, ClaimError> {
    says(statement, name)?.parse().map_err(|_| ClaimError::Wrong { name })
}

pub(super) fn shown(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::report::Format;

    fn claim() -> Claim {
        let origin = "example.org/audit/1".parse().unwrap();
        let window = Window::new(Window::time("2026-11-01").unwrap(), Window::time("2026-12-01").unwrap()).unwrap();
        Claim {
            checkpoint: Checkpoint { origin, size: 7, root: Hash([3; 32]) },
            terms: Terms { window, format: Format::Html },
            rows: 3,
            sha256: [9; 32],
        }
    }

    #[test]
    fn a_claim_is_read_as_it_was_made() {
        let text = claim().statement().text();
        assert!(text.starts_with("signet/audit-report/v1\nlog example.org/audit/1\nsize 7\nroot "), "{text}");
        assert_eq!(Claim::of(&Statement::parse(&text).unwrap()), Ok(claim()));
    }

    #[test]
    fn a_statement_that_says_too_little_is_no_claim() {
        let text = claim().statement().text();
        for (line, name) in [(2, "size"), (3, "root"), (4, "from"), (5, "to"), (6, "format"), (7, "rows"), (8, "file")]
        {
            let without: String =
                text.split_inclusive('\n').enumerate().filter(|(n, _)| *n != line).map(|(_, l)| l).collect();
            let statement = Statement::parse(&without).unwrap();
            assert_eq!(Claim::of(&statement), Err(ClaimError::Wrong { name }));
        }
    }
}
