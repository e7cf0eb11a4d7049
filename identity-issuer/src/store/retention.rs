//! What has expired long ago leaves the record of certificates, and that of tokens: a part of it with each sweep, so that nobody who
//! issues waits for long. Of each certificate there stays what keeps its key from being certified again.

use std::time::Duration;

use sqlx::AnyConnection;

use super::database::padded;
use super::revocations::list;

/// In one transaction, of each.
pub(super) const MOST_AT_ONCE: i64 = 128;
/// Of those that have expired: what is revoked is passed by as long as its revocation is on record.
const LOOKED_AT: i64 = 10_000;

/// Returns whether there is more. Whoever calls it holds the lock of standing: else a key could come in again while it moves from the one
/// table to the other.
pub(super) async fn sweep(connection: &mut AnyConnection, now: i64, keep: Duration) -> Result<bool, sqlx::Error> {
    let over = now / 1_000_000 - i64::try_from(keep.as_secs()).unwrap_or(i64::MAX);
    let certificates = certificates(connection, over).await?;
    let tokens = tokens(connection, over).await?;
    Ok(certificates.max(tokens) >= MOST_AT_ONCE as usize)
}

async fn certificates(connection: &mut AnyConnection, over: i64) -> Result<usize, sqlx::Error> {
    // The last one stays: SQLite would give its number again, and by numbers it is told who has renewed since.
    let positions: Vec<i64> = sqlx::query_scalar(
        "SELECT position FROM (SELECT position, serial, authority_key_id FROM issued WHERE not_after < $1 \
         ORDER BY not_after, not_before, position LIMIT $2) AS old \
         WHERE position < (SELECT max(position) FROM issued) AND NOT EXISTS (SELECT 1 FROM revoked \
         WHERE value = old.serial AND revoked.kind = 0 AND revoked.authority_key_id = old.authority_key_id) LIMIT $3",
    )
    .bind(over)
    .bind(LOOKED_AT)
    .bind(MOST_AT_ONCE)
    .fetch_all(&mut *connection)
    .await?;
    if positions.is_empty() {
        return Ok(0);
    }
    for part in padded(&positions) {
        let these = list(1, part.len());
        let keep = format!(
            "INSERT INTO former_keys (key) SELECT substr(key_sha256, 1, 16) FROM issued WHERE position IN ({these}) \
             ON CONFLICT (key) DO NOTHING"
        );
        let remove = format!("DELETE FROM issued WHERE position IN ({these})");
        for sql in [keep, remove] {
            // Of numbers of parameters alone.
            let statement = sqlx::query(sqlx::AssertSqlSafe(sql));
            part.iter()
                .fold(statement, |statement, position| statement.bind(*position))
                .execute(&mut *connection)
                .await?;
        }
    }
    let counting = sqlx::query("UPDATE former_certificates SET count = count + $1").bind(positions.len() as i64);
    counting.execute(connection).await?;
    Ok(positions.len())
}

/// They live for hours at most, so that those which were made first are over first.
async fn tokens(connection: &mut AnyConnection, over: i64) -> Result<usize, sqlx::Error> {
    let removal = sqlx::query(
        "DELETE FROM issued_jwts WHERE position IN (SELECT position FROM \
         (SELECT position, expires_at FROM issued_jwts ORDER BY position LIMIT $1) AS first WHERE expires_at < $2)",
    );
    let removed = removal.bind(MOST_AT_ONCE).bind(over).execute(connection).await?.rows_affected();
    Ok(usize::try_from(removed).unwrap_or(usize::MAX))
}
