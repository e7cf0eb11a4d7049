//! Recording what is revoked. Each certificate, key or authority has a number of its own, the epoch: without gaps, in the order of the
//! commits, for whoever writes one holds the lock of standing.

use std::time::Duration;

use sqlx::AnyConnection;

use super::revocations::{Kind, NOT_YET, NewRevocation, Query, Recorded, RevocationTarget, SERIALS_AT_ONCE};
use super::revocations::{bind_target, list, positions};
use super::{StandingChange, agents, microseconds};
use crate::revocation::SerialNumber;

/// In one transaction: no other waits for it longer than a moment.
const MOST_AT_ONCE: i64 = 20_000;

/// Whoever calls it holds the lock of standing.
pub(super) async fn record(
    connection: &mut AnyConnection,
    revocation: &NewRevocation,
) -> Result<Recorded, sqlx::Error> {
    let NewRevocation { target, reason, actor, comment, at } = revocation;
    let before: i64 = sqlx::query_scalar("SELECT epoch FROM revocation_epoch").fetch_one(&mut *connection).await?;
    let number: i64 = sqlx::query_scalar(
        "INSERT INTO revocations (revoked_at, reason, actor, comment, kind, target) VALUES ($1, $2, $3, $4, $5, $6) \
         RETURNING number",
    )
    .bind(microseconds(*at))
    .bind(reason.number())
    .bind(actor.as_str())
    .bind(comment)
    .bind(target.kind())
    .bind(target.name())
    .fetch_one(&mut *connection)
    .await?;
    let mut adding = Adding { connection, number, epoch: before, now: at.unix_timestamp() };
    let certificates = adding.certificates(target).await?;
    adding.itself(target).await?;
    let epoch = adding.epoch;
    if epoch == before {
        // It was revoked already.
        sqlx::query("DELETE FROM revocations WHERE number = $1").bind(number).execute(&mut *connection).await?;
    } else {
        sqlx::query("UPDATE revocation_epoch SET epoch = $1").bind(epoch).execute(&mut *connection).await?;
    }
    let eviction = match target {
        RevocationTarget::Id(id) => Some(StandingChange::EvictId(id.clone(), *at)),
        RevocationTarget::Agent(number) => Some(StandingChange::EvictNumber(*number, *at)),
        _ => None,
    };
    let agents = match &eviction {
        Some(eviction) => agents::change(connection, eviction).await?,
        None => 0,
    };
    let is_partial = certificates >= MOST_AT_ONCE.cast_unsigned();
    let (before, epoch) = (before.cast_unsigned(), epoch.cast_unsigned());
    Ok(Recorded { number, before, epoch, certificates, agents, is_partial })
}

/// What is added by one transaction.
struct Adding<'a> {
    connection: &'a mut AnyConnection,
    /// Of the revocation.
    number: i64,
    /// Of the last that was added.
    epoch: i64,
    now: i64,
}

impl Adding<'_> {
    /// The certificates that a target comes to; how many.
    async fn certificates(&mut self, target: &RevocationTarget) -> Result<u64, sqlx::Error> {
        match target {
            RevocationTarget::Serials(serials) => {
                let mut all = 0;
                for chunk in serials.chunks(SERIALS_AT_ONCE) {
                    all += self.serials(chunk).await?;
                }
                Ok(all)
            }
            // Its own entry says it of all.
            RevocationTarget::Authority(..) => Ok(0),
            RevocationTarget::Id(_)
            | RevocationTarget::Key(..)
            | RevocationTarget::Agent(_)
            | RevocationTarget::Rule(_) => {
                let sql = format!(
                    "INSERT INTO revoked (epoch, revocation, kind, authority_key_id, value, not_after) \
                     SELECT $3 + row_number() OVER (ORDER BY position), $4, 0, authority_key_id, serial, not_after FROM \
                     (SELECT position, authority_key_id, serial, not_after FROM issued \
                     WHERE position IN ({}) AND {NOT_YET} ORDER BY position LIMIT {MOST_AT_ONCE}) AS part",
                    positions(target)
                );
                let query = bind_target(sqlx::query(sqlx::AssertSqlSafe(sql)), target);
                let query = query.bind(self.now).bind(self.epoch).bind(self.number);
                self.added(query).await
            }
        }
    }

    async fn serials(&mut self, serials: &[SerialNumber]) -> Result<u64, sqlx::Error> {
        let sql = format!(
            "INSERT INTO revoked (epoch, revocation, kind, authority_key_id, value, not_after) \
             SELECT $1 + row_number() OVER (ORDER BY position), $2, 0, authority_key_id, serial, not_after \
             FROM issued WHERE not_after >= $3 AND {NOT_YET} AND serial IN ({})",
            list(4, serials.len())
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(self.epoch).bind(self.number).bind(self.now);
        for serial in serials {
            query = query.bind(serial.as_bytes().to_vec());
        }
        self.added(query).await
    }

    /// The entry of a key, or of an authority.
    async fn itself(&mut self, target: &RevocationTarget) -> Result<(), sqlx::Error> {
        let (kind, key_id, hash, until) = match target {
            RevocationTarget::Key(hash, until) => (Kind::KEY, &[][..], hash, until),
            RevocationTarget::Authority(key_id, hash, until) => (Kind::AUTHORITY, key_id.as_bytes(), hash, until),
            RevocationTarget::Serials(_)
            | RevocationTarget::Id(_)
            | RevocationTarget::Agent(_)
            | RevocationTarget::Rule(_) => return Ok(()),
        };
        let query = sqlx::query(
            "INSERT INTO revoked (epoch, revocation, kind, authority_key_id, value, not_after) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (value, kind, authority_key_id) DO NOTHING",
        )
        .bind(self.epoch + 1)
        .bind(self.number)
        .bind(kind)
        .bind(key_id.to_vec())
        .bind(hash.as_bytes().to_vec())
        .bind(until.unix_timestamp());
        self.added(query).await.map(drop)
    }

    async fn added(&mut self, query: Query<'_>) -> Result<u64, sqlx::Error> {
        let added = query.execute(&mut *self.connection).await?.rows_affected();
        self.epoch += added.cast_signed();
        Ok(added)
    }
}

/// Forgets those that are long over, and why they were revoked. While a certificate is to be on record, so is that.
pub(super) async fn sweep(connection: &mut AnyConnection, now: i64, keep: Duration) -> Result<(), sqlx::Error> {
    let kept = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX).max(KEPT_AFTER_EXPIRY);
    let over = now.saturating_sub(kept) / 1_000_000;
    let removal = sqlx::query("DELETE FROM revoked WHERE not_after < $1").bind(over);
    if removal.execute(&mut *connection).await?.rows_affected() > 0 {
        let removal = "DELETE FROM revocations WHERE NOT EXISTS (SELECT 1 FROM revoked WHERE revocation = number)";
        sqlx::query(removal).execute(connection).await?;
    }
    Ok(())
}

/// In microseconds: a clock that jumped ahead by no more, and is set back, makes nothing good again.
const KEPT_AFTER_EXPIRY: i64 = 7 * 86_400 * 1_000_000;
