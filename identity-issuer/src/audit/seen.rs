//! What witnesses have seen of a log, asked before its issuer goes on from a backup.
//!
//! They are shown the last checkpoint that is known once more (C2SP tlog-witness): whoever has seen another one says how large that was.

use futures_util::future::join_all;
use http::StatusCode;

use super::publisher::Published;
use super::witnesses::{MOST_ANSWER, TIMEOUT, Witness, Witnesses};
use crate::https;

/// What they say, all together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Seen {
    /// Of the witnesses that know this log.
    pub(crate) answered: usize,
    /// Entries, of who has seen most.
    pub(crate) most: u64,
    /// A witness that has seen another tree of as many entries.
    pub(crate) other: Option<String>,
}

impl Witnesses {
    /// One that says it has seen more than it has is believed: whoever restores is there to find out, and can take it out.
    pub(crate) async fn seen(&self, last: &Published) -> Seen {
        let asking = self.witnesses.iter().map(|witness| async move { (witness, ask(witness, last).await) });
        let mut seen = Seen::default();
        for (witness, answer) in join_all(asking).await {
            let (name, size) = (witness.key.name(), last.checkpoint.size);
            match answer {
                Ok(Some(answer)) => {
                    seen.answered += 1;
                    seen.most = seen.most.max(answer);
                    if answer > size {
                        tracing::warn!(witness = name, seen = answer, size, "a witness has seen more of the audit log");
                    }
                }
                Ok(None) => {
                    seen.answered += 1;
                    seen.other = Some(name.to_owned());
                }
                Err(cause) => tracing::warn!(witness = name, cause, "a witness does not say what it has seen"),
            }
        }
        seen
    }

    /// Whether so many have answered that no majority of them can have seen what these have not.
    pub(crate) fn is_majority(&self, answered: usize) -> bool {
        answered * 2 > self.witnesses.len()
    }
}

/// The size that it has seen; None where that is a tree as large as this one, and another.
async fn ask(Witness { url, tls, .. }: &Witness, last: &Published) -> Result<Option<u64>, String> {
    let size = last.checkpoint.size;
    let body = format!("old {size}\n\n{}", String::from_utf8_lossy(&last.signed));
    let (status, answer) = https::post(url, tls.as_ref(), body.into(), MOST_ANSWER, TIMEOUT).await?;
    match status {
        StatusCode::OK => Ok(Some(size)),
        StatusCode::CONFLICT => {
            let seen = String::from_utf8_lossy(&answer).trim_end().parse();
            let seen: u64 = seen.map_err(|_| "it answers 409 without the size that it has seen".to_owned())?;
            Ok(Some(seen).filter(|seen| *seen != size))
        }
        status => Err(format!("it answers {status}")),
    }
}
