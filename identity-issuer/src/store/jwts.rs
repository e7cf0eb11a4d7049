//! The record of tokens. As with certificates, none is entered for somebody who is banned or was evicted, or whose certificate is revoked:
//! that is asked in the transaction that records.

use sqlx::AnyConnection;

use super::issued::NotRecorded;
use super::log::LogPlace;
use super::{LogError, Logged, Store, StoreError, Write, microseconds};
use crate::jwt::Jwt;

impl Store {
    /// Makes the record of a token durable, and only then hands it back as one that may leave.
    pub(crate) async fn log_jwt(&self, jwt: Jwt) -> Result<Logged<Jwt>, LogError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::Jwt { jwt, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }
}

/// Its entry is at `place`.
pub(super) async fn record(
    connection: &mut AnyConnection,
    jwt: &Jwt,
    place: LogPlace,
) -> Result<Result<(), NotRecorded>, sqlx::Error> {
    let audience = serde_json::to_string(&jwt.audience).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let recorded = sqlx::query(
        "INSERT INTO issued_jwts (jti, kind, spiffe_id, audience, key_id, issued_at, expires_at, serial, attestation_number, log, log_index) \
         SELECT * FROM (VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)) AS asked \
         WHERE NOT EXISTS (SELECT 1 FROM bans WHERE bans.spiffe_id = asked.column3) \
         AND NOT EXISTS (SELECT 1 FROM attestations WHERE number = asked.column9 AND (evicted_at IS NOT NULL \
         OR EXISTS (SELECT 1 FROM bans WHERE bans.spiffe_id = attestations.spiffe_id))) \
         AND NOT EXISTS (SELECT 1 FROM issued AS shown JOIN revoked ON value = shown.serial AND revoked.kind = 0 \
         AND revoked.authority_key_id = shown.authority_key_id WHERE shown.serial = asked.column8) \
         AND NOT EXISTS (SELECT 1 FROM issued AS shown JOIN revoked \
         ON revoked.authority_key_id = shown.authority_key_id AND revoked.kind = 2 WHERE shown.serial = asked.column8)",
    )
    .bind(&jwt.jti[..])
    .bind(jwt.kind.label())
    .bind(jwt.id.as_str())
    .bind(audience)
    .bind(&jwt.kid)
    .bind(microseconds(jwt.issued_at))
    .bind(jwt.expires_at.unix_timestamp())
    .bind(&jwt.serial)
    .bind(jwt.attestation.0)
    .bind(place.log)
    .bind(place.index)
    .execute(&mut *connection)
    .await?;
    if recorded.rows_affected() == 1 {
        return Ok(Ok(()));
    }
    let (evicted, banned): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM attestations WHERE number = $1 AND evicted_at IS NOT NULL), \
         (SELECT count(*) FROM bans WHERE spiffe_id = $2 \
         OR spiffe_id = (SELECT spiffe_id FROM attestations WHERE number = $1))",
    )
    .bind(jwt.attestation.0)
    .bind(jwt.id.as_str())
    .fetch_one(connection)
    .await?;
    Ok(Err(match (evicted, banned) {
        (0, 0) => NotRecorded::Revoked,
        (0, _) => NotRecorded::Banned,
        _ => NotRecorded::Evicted,
    }))
}
