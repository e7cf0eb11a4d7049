//! The policies there were.

use sqlx::SqliteTransaction;

use super::{Store, StoreError, Write, microseconds, time};
use crate::policy::{Actor, Revision, RevisionHead};

/// Why a revision was not recorded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordRevisionError {
    #[error("another revision was recorded in the meantime")]
    Overtaken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Row = (i64, i64, String, String, i64);

impl Store {
    /// Makes a revision durable, if none of its number is.
    pub(crate) async fn record_revision(&self, revision: Revision) -> Result<(), RecordRevisionError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.submit(Write::Revision { revision, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// The one of this number, or the latest; none when there is none.
    pub(crate) async fn revision(&self, number: Option<u64>) -> Result<Option<Revision>, StoreError> {
        let number = number.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        let row: Option<(i64, i64, String, String, i64, String)> = sqlx::query_as(
            "SELECT revision, created_at, actor, comment, rule_count, rules FROM policy_revisions \
             WHERE revision = coalesce(?, (SELECT max(revision) FROM policy_revisions))",
        )
        .bind(number)
        .fetch_optional(self.lists())
        .await?;
        let Some((number, created_at, actor, comment, count, rules)) = row else { return Ok(None) };
        let rules = serde_json::from_str(&rules).map_err(|_| StoreError::Record { what: "not a policy" })?;
        Ok(Some(Revision { head: head((number, created_at, actor, comment, count))?, rules }))
    }

    /// The latest first; only those before `before`.
    pub(crate) async fn revisions(&self, before: Option<u64>, limit: u32) -> Result<Vec<RevisionHead>, StoreError> {
        let before = before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT revision, created_at, actor, comment, rule_count FROM policy_revisions WHERE revision < ? \
             ORDER BY revision DESC LIMIT ?",
        )
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(self.lists())
        .await?;
        rows.into_iter().map(head).collect()
    }
}

fn head((number, created_at, actor, comment, rules): Row) -> Result<RevisionHead, StoreError> {
    let unsigned = |number| u64::try_from(number).map_err(|_| StoreError::Record { what: "a number below 0" });
    Ok(RevisionHead {
        number: unsigned(number)?,
        created_at: time(created_at)?,
        actor: Actor::of_record(actor),
        comment,
        rules: unsigned(rules)? as usize,
    })
}

/// Whether it was recorded: not, when there is one of its number or beyond.
pub(super) async fn record(transaction: &mut SqliteTransaction<'_>, revision: &Revision) -> Result<bool, sqlx::Error> {
    let rules = serde_json::to_string(&revision.rules).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let recorded = sqlx::query(
        "INSERT INTO policy_revisions (revision, created_at, actor, comment, rule_count, rules) \
         SELECT ?, ?, ?, ?, ?, ? WHERE ? = coalesce((SELECT max(revision) FROM policy_revisions), 0) + 1",
    )
    .bind(revision.head.number.cast_signed())
    .bind(microseconds(revision.head.created_at))
    .bind(revision.head.actor.as_str())
    .bind(&revision.head.comment)
    .bind(revision.head.rules as i64)
    .bind(rules)
    .bind(revision.head.number.cast_signed())
    .execute(&mut **transaction)
    .await?;
    Ok(recorded.rows_affected() == 1)
}
