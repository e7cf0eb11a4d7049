//! How far those have come who are connected to the issuers on this database. Nothing hangs on it but what operators are shown: it is
//! written beside the committer's transactions, and what is lost of it is written with the next change.

use time::OffsetDateTime;

use super::database::{in_time, parameters};
use super::{Store, StoreError, microseconds};
use crate::attestation::AttestationNumber;

/// One who is connected to an issuer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ProgressRecord {
    /// To which: a hash of its authority's key.
    pub(crate) issuer: String,
    pub(crate) number: AttestationNumber,
    pub(crate) connected_at: OffsetDateTime,
    /// The latest revision of the policy of which it has all in force.
    pub(crate) revision: u64,
    pub(crate) is_current: bool,
    pub(crate) since: OffsetDateTime,
    pub(crate) refused: String,
}

/// In one statement.
pub(crate) const MOST_AT_ONCE: usize = 64;
const COLUMNS: usize = 7;

impl Store {
    /// Of those that are connected to one issuer; [`MOST_AT_ONCE`] of them.
    pub(crate) async fn share_progress(&self, connected: &[ProgressRecord]) -> Result<(), StoreError> {
        if connected.is_empty() {
            return Ok(());
        }
        let mut sql =
            "INSERT INTO agent_progress (issuer, attestation_number, connected_at, revision, is_current, since, \
                       refused) VALUES "
                .to_owned();
        sql.push_str(&parameters(connected.len(), COLUMNS));
        sql.push_str(
            " ON CONFLICT (attestation_number) DO UPDATE SET issuer = excluded.issuer, connected_at = excluded.connected_at, \
             revision = excluded.revision, is_current = excluded.is_current, since = excluded.since, \
             refused = excluded.refused WHERE excluded.connected_at >= agent_progress.connected_at",
        );
        // Of numbers and the names of columns alone.
        let mut statement = sqlx::query(sqlx::AssertSqlSafe(sql));
        for record in connected {
            statement = statement
                .bind(&record.issuer)
                .bind(record.number.0)
                .bind(microseconds(record.connected_at))
                .bind(record.revision.cast_signed())
                .bind(i64::from(record.is_current))
                .bind(microseconds(record.since))
                .bind(&record.refused);
        }
        in_time(statement.execute(&self.database.lists)).await?;
        Ok(())
    }

    /// Those have left an issuer; [`MOST_AT_ONCE`] of them. Whoever is connected to another by now is.
    pub(crate) async fn forget_progress(&self, issuer: &str, gone: &[AttestationNumber]) -> Result<(), StoreError> {
        if gone.is_empty() {
            return Ok(());
        }
        let parameters: Vec<String> = (2..gone.len() + 2).map(|parameter| format!("${parameter}")).collect();
        let sql = format!(
            "DELETE FROM agent_progress WHERE issuer = $1 AND attestation_number IN ({})",
            parameters.join(", ")
        );
        let mut statement = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(issuer);
        for number in gone {
            statement = statement.bind(number.0);
        }
        in_time(statement.execute(&self.database.lists)).await?;
        Ok(())
    }

    /// Of an issuer that begins: nobody is connected to it.
    pub(crate) async fn forget_all_progress(&self, issuer: &str) -> Result<(), StoreError> {
        let removal = sqlx::query("DELETE FROM agent_progress WHERE issuer = $1").bind(issuer);
        in_time(removal.execute(&self.database.lists)).await?;
        Ok(())
    }
}
