//! The policies there were.

use serde::Deserialize as _;
use serde_json::Value;
use signet_policy::Rule;
use sqlx::AnyConnection;

use super::database::in_time;
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
    /// Whether this very revision is on record, and not another of its number.
    pub(crate) async fn is_on_record(&self, head: &RevisionHead) -> Result<bool, StoreError> {
        let same: i64 = in_time(
            sqlx::query_scalar(
                "SELECT count(*) FROM policy_revisions \
                 WHERE revision = $1 AND created_at = $2 AND actor = $3 AND rule_count = $4",
            )
            .bind(head.number.cast_signed())
            .bind(microseconds(head.created_at))
            .bind(head.actor.as_str())
            .bind(head.rules as i64)
            .fetch_one(&self.database.lists),
        )
        .await?;
        Ok(same == 1)
    }

    /// The number of the latest, and how many rules were taken out by those behind `seen`.
    pub(crate) async fn latest_revision(&self, seen: u64) -> Result<(u64, u64), StoreError> {
        let (latest, removed): (i64, i64) = in_time(
            sqlx::query_as(
                "SELECT coalesce(max(revision), 0), \
             CAST(coalesce(sum(CASE WHEN revision > $1 THEN removed ELSE 0 END), 0) AS BIGINT) FROM policy_revisions",
            )
            .bind(seen.cast_signed())
            .fetch_one(&self.database.lists),
        )
        .await?;
        Ok((u64::try_from(latest).unwrap_or(0), u64::try_from(removed).unwrap_or(0)))
    }

    /// Makes a revision durable, if none of its number is.
    pub(crate) async fn record_revision(&self, revision: Revision) -> Result<(), RecordRevisionError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::Revision { revision, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// The one of this number, or the latest; none when there is none.
    pub(crate) async fn revision(&self, number: Option<u64>) -> Result<Option<Revision>, StoreError> {
        let number = number.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        let row: Option<(i64, i64, String, String, i64, i64, String)> = in_time(
            sqlx::query_as(
                "SELECT revision, created_at, actor, comment, rule_count, removed, rules FROM policy_revisions \
             WHERE revision = coalesce($1, (SELECT max(revision) FROM policy_revisions))",
            )
            .bind(number)
            .fetch_optional(&self.database.lists),
        )
        .await?;
        let Some((number, created_at, actor, comment, count, removed, rules)) = row else { return Ok(None) };
        let rules = rules_of(&rules)?;
        let head = head((number, created_at, actor, comment, count))?;
        if head.rules != rules.len() {
            return Err(StoreError::Record { what: "not all rules of a policy" });
        }
        Ok(Some(Revision { head, removed: usize::try_from(removed).unwrap_or(0), rules }))
    }

    /// The latest first; only those before `before`.
    pub(crate) async fn revisions(&self, before: Option<u64>, limit: u32) -> Result<Vec<RevisionHead>, StoreError> {
        let before = before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
        let rows: Vec<Row> = in_time(
            sqlx::query_as(
                "SELECT revision, created_at, actor, comment, rule_count FROM policy_revisions WHERE revision < $1 \
             ORDER BY revision DESC LIMIT $2",
            )
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(&self.database.lists),
        )
        .await?;
        rows.into_iter().map(head).collect()
    }
}

fn rules_of(text: &str) -> Result<Vec<Rule>, StoreError> {
    let wrong = || StoreError::Record { what: "not a policy, or one of a newer version" };
    let written: Value = serde_json::from_str(text).map_err(|_| wrong())?;
    let rules = Vec::<Rule>::deserialize(&written).map_err(|_| wrong())?;
    // What is not known here would be left out, and might have been a condition.
    match serde_json::to_value(&rules) {
        Ok(understood) if understood == written => Ok(rules),
        _ => Err(wrong()),
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

/// The rules as they were recorded. None, and nothing is, when there is one of its number or beyond.
pub(super) async fn record(connection: &mut AnyConnection, revision: &Revision) -> Result<Option<String>, sqlx::Error> {
    let rules = serde_json::to_string(&revision.rules).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let recorded = sqlx::query(
        "INSERT INTO policy_revisions (revision, created_at, actor, comment, rule_count, removed, rules) \
         SELECT $1, $2, $3, $4, $5, $6, $7 WHERE $1 = coalesce((SELECT max(revision) FROM policy_revisions), 0) + 1 \
         ON CONFLICT (revision) DO NOTHING",
    )
    .bind(revision.head.number.cast_signed())
    .bind(microseconds(revision.head.created_at))
    .bind(revision.head.actor.as_str())
    .bind(&revision.head.comment)
    .bind(revision.head.rules as i64)
    .bind(revision.removed as i64)
    .bind(&rules)
    .execute(connection)
    .await?;
    Ok((recorded.rows_affected() == 1).then_some(rules))
}
