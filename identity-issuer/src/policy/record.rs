//! What may come after the policy in force: the record is another issuer's too, and may be restored from a backup.

use std::collections::HashSet;

use signet_policy::PolicyError;

use super::Revision;
use crate::store::{Store, StoreError};

/// Why the policy on record is not put in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatchUpError {
    #[error("it has gone back from revision {present} to {found}: was the database restored from a backup?")]
    Backwards { present: u64, found: u64 },
    #[error("revision {present} on record is another than the one in force: was the database restored from a backup?")]
    Another { present: u64 },
    #[error("in revision {revision}, {missing} of {present} rules are missing, and nobody has taken out so many")]
    Lost { revision: u64, missing: u64, present: usize },
    #[error("revision {revision} does not go with this issuer's configuration: {cause}")]
    Policy { revision: u64, cause: PolicyError },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("reading it broke off")]
    Task(#[source] tokio::task::JoinError),
}

/// What on record comes after `present`, if there is something: unless it is not what may come after it.
pub(super) async fn next_of(
    store: &Store,
    present: &Revision,
    most_lost_percent: u8,
) -> Result<Option<Revision>, CatchUpError> {
    let head = &present.head;
    let (found, removed) = store.latest_revision(head.number).await?;
    if found >= head.number && head.number > 0 && !store.is_on_record(head).await? {
        return Err(CatchUpError::Another { present: head.number });
    }
    if found <= head.number {
        let back = CatchUpError::Backwards { present: head.number, found };
        return if found == head.number { Ok(None) } else { Err(back) };
    }
    let Some(next) = store.revision(Some(found)).await? else { return Ok(None) };
    let before = present.rules.len();
    let names: HashSet<_> = next.rules.iter().map(|rule| &rule.name).collect();
    let missing = present.rules.iter().filter(|rule| !names.contains(&rule.name)).count() as u64;
    if missing > removed + before as u64 * u64::from(most_lost_percent) / 100 {
        return Err(CatchUpError::Lost { revision: found, missing, present: before });
    }
    Ok(Some(next))
}
