//! The join tokens.

use signet_identity::WorkloadId;
use sqlx::{SqliteConnection, SqliteTransaction};
use time::OffsetDateTime;

use super::{Store, StoreError, TokenState, Write, microseconds, time, workload_id};
use crate::attestation::{JoinTokenHash, NewJoinToken};

impl Store {
    pub(crate) async fn add_token(&self, token: NewJoinToken) -> Result<(), StoreError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.submit(Write::Token { token, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Whom a token is for, and whether it is still good.
    pub(crate) async fn token(
        &self,
        hash: JoinTokenHash,
        now: OffsetDateTime,
    ) -> Result<Option<(WorkloadId, TokenState)>, StoreError> {
        let row: Option<(String, i64, Option<i64>)> =
            sqlx::query_as("SELECT spiffe_id, expires_at, used_at FROM join_tokens WHERE token_sha256 = ?")
                .bind(hash.as_bytes())
                .fetch_optional(self.readers())
                .await?;
        let Some((id, expires_at, used_at)) = row else { return Ok(None) };
        let state = match used_at {
            Some(used_at) => TokenState::Used { used_at: time(used_at)? },
            None if expires_at <= microseconds(now) => TokenState::Expired { expires_at: time(expires_at)? },
            None => TokenState::Good,
        };
        Ok(Some((workload_id(&id)?, state)))
    }
}

/// The compare-and-set; true for whoever comes first, and in time.
pub(super) async fn use_up(
    connection: &mut SqliteConnection,
    hash: &JoinTokenHash,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let used =
        sqlx::query("UPDATE join_tokens SET used_at = ? WHERE token_sha256 = ? AND used_at IS NULL AND expires_at > ?")
            .bind(now)
            .bind(hash.as_bytes())
            .bind(now)
            .execute(connection)
            .await?;
    Ok(used.rows_affected() == 1)
}

pub(super) async fn add(transaction: &mut SqliteTransaction<'_>, token: &NewJoinToken) -> Result<(), sqlx::Error> {
    // So long it is told of one that it was used, or has expired.
    sqlx::query("DELETE FROM join_tokens WHERE expires_at < ?")
        .bind(microseconds(token.created_at) - KEPT_AFTER_EXPIRY)
        .execute(&mut **transaction)
        .await?;
    sqlx::query(
        "INSERT INTO join_tokens (token_sha256, spiffe_id, created_at, expires_at, created_by) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(token.hash.as_bytes())
    .bind(token.id.as_str())
    .bind(microseconds(token.created_at))
    .bind(microseconds(token.expires_at))
    .bind(token.created_by.as_str())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Takes back the unused ones that somebody made: whoever is banned could join by one as somebody else.
pub(super) async fn void(transaction: &mut SqliteTransaction<'_>, created_by: &str) -> Result<(), sqlx::Error> {
    let statement = sqlx::query("DELETE FROM join_tokens WHERE created_by = ? AND used_at IS NULL");
    statement.bind(created_by).execute(&mut **transaction).await.map(drop)
}

/// In microseconds.
const KEPT_AFTER_EXPIRY: i64 = 7 * 86_400 * 1_000_000;
