//! The join tokens.

use signet_identity::WorkloadId;
use sqlx::AnyConnection;
use time::OffsetDateTime;

use super::database::in_time;
use super::{Store, StoreError, TokenState, Write, microseconds, time, workload_id};
use crate::attestation::{JoinTokenHash, NewJoinToken};

impl Store {
    pub(crate) async fn add_token(&self, token: NewJoinToken) -> Result<(), StoreError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::Token { token, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Whom a token is for, and whether it is still good.
    pub(crate) async fn token(
        &self,
        hash: JoinTokenHash,
        now: OffsetDateTime,
    ) -> Result<Option<(WorkloadId, TokenState)>, StoreError> {
        let row: Option<(String, i64, Option<i64>)> = in_time(
            sqlx::query_as("SELECT spiffe_id, expires_at, used_at FROM join_tokens WHERE token_sha256 = $1")
                .bind(hash.as_bytes())
                .fetch_optional(&self.database.readers),
        )
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
    connection: &mut AnyConnection,
    hash: &JoinTokenHash,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let used = sqlx::query(
        "UPDATE join_tokens SET used_at = $1 WHERE token_sha256 = $2 AND used_at IS NULL AND expires_at > $1",
    )
    .bind(now)
    .bind(hash.as_bytes())
    .execute(connection)
    .await?;
    Ok(used.rows_affected() == 1)
}

pub(super) async fn add(connection: &mut AnyConnection, token: &NewJoinToken) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO join_tokens (token_sha256, spiffe_id, created_at, expires_at, created_by) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(token.hash.as_bytes())
    .bind(token.id.as_str())
    .bind(microseconds(token.created_at))
    .bind(microseconds(token.expires_at))
    .bind(token.created_by.as_str())
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// Takes back the unused ones that somebody made: whoever is banned could join by one as somebody else.
pub(super) async fn void(connection: &mut AnyConnection, created_by: &str) -> Result<(), sqlx::Error> {
    let statement = sqlx::query("DELETE FROM join_tokens WHERE created_by = $1 AND used_at IS NULL");
    statement.bind(created_by).execute(&mut *connection).await.map(drop)
}

/// Forgets those that are long over.
pub(super) async fn sweep(connection: &mut AnyConnection, now: i64) -> Result<(), sqlx::Error> {
    let statement = sqlx::query("DELETE FROM join_tokens WHERE expires_at < $1");
    statement.bind(now - KEPT_AFTER_EXPIRY).execute(connection).await.map(drop)
}

/// In microseconds: so long it is told of one that it was used, or has expired.
const KEPT_AFTER_EXPIRY: i64 = 7 * 86_400 * 1_000_000;
