//! How many certificates there are of which kind, for the metrics. What has not expired is counted by the index of ends alone, one entry
//! after the other: whoever asks takes into account that ten million take seconds.

use sqlx::{Any, FromRow};
use time::OffsetDateTime;

use super::database::in_time;
use super::{EXPIRING_TENTHS, Store, StoreError};

/// How many certificates are on record. Each has one state.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    /// Neither revoked nor expired, and not past [`EXPIRING_TENTHS`] of their life.
    pub(crate) valid: u64,
    /// The same, but past it: their holders are late with renewing.
    pub(crate) expiring: u64,
    /// Revoked one by one, and not expired.
    pub(crate) revoked: u64,
    /// About so many: numbers that no certificate has count among them.
    pub(crate) expired: u64,
    /// Of those that are not expired, how many end within each of the [`HORIZONS`]: revoked or not.
    pub(crate) within: [u64; HORIZONS.len()],
}

/// By their labels, in seconds, in their order.
pub(crate) const HORIZONS: [(&str, i64); 5] =
    [("1h", 3_600), ("6h", 6 * 3_600), ("24h", 86_400), ("7d", 7 * 86_400), ("30d", 30 * 86_400)];

impl Store {
    pub(crate) async fn counts(&self, now: OffsetDateTime) -> Result<Counts, StoreError> {
        let now = now.unix_timestamp();
        let is_expiring = format!("($1 - not_before) * 10 > (issued.not_after - not_before) * {EXPIRING_TENTHS}");
        let expiring = format!("CAST(coalesce(sum(CASE WHEN {is_expiring} THEN 1 ELSE 0 END), 0) AS BIGINT)");
        // The numbers of rows only grow: with those that have left, the last number is about how many there are.
        let (total, live, expiring_or_revoked): (i64, i64, i64) = self
            .counted(
                format!(
                    "SELECT coalesce((SELECT max(position) FROM issued), 0) - (SELECT count FROM former_certificates), \
                     count(*), {expiring} FROM issued WHERE not_after >= $1"
                ),
                &[now],
            )
            .await?;
        let (revoked, expiring_and_revoked): (i64, i64) = self
            .counted(
                format!(
                    "SELECT count(*), {expiring} FROM revoked JOIN issued ON serial = value \
                     AND issued.authority_key_id = revoked.authority_key_id \
                     WHERE revoked.kind = 0 AND revoked.not_after >= $1"
                ),
                &[now],
            )
            .await?;
        let within = self.within(now).await?;
        let expiring = expiring_or_revoked - expiring_and_revoked;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(Counts {
            valid: count(live - revoked - expiring),
            expiring: count(expiring),
            revoked: count(revoked),
            expired: count(total - live),
            within,
        })
    }

    /// Each certificate is counted once, between two of the horizons.
    async fn within(&self, now: i64) -> Result<[u64; HORIZONS.len()], StoreError> {
        let between = |horizon: usize| {
            let (from, to) = (horizon + 1, horizon + 2);
            format!("(SELECT count(*) FROM issued WHERE not_after >= ${from} AND not_after < ${to})")
        };
        let parts: Vec<_> = (0..HORIZONS.len()).map(between).collect();
        let ends = HORIZONS.iter().map(|(_, seconds)| now + seconds + 1);
        let bounds: Vec<i64> = std::iter::once(now).chain(ends).collect();
        let (a, b, c, d, e): (i64, i64, i64, i64, i64) =
            self.counted(format!("SELECT {}", parts.join(", ")), &bounds).await?;
        let mut sum = 0;
        Ok([a, b, c, d, e].map(|more| {
            sum += u64::try_from(more).unwrap_or(0);
            sum
        }))
    }

    async fn counted<R>(&self, sql: String, numbers: &[i64]) -> Result<R, StoreError>
    where
        R: for<'r> FromRow<'r, <Any as sqlx::Database>::Row> + Send + Unpin,
    {
        // Of constants and numbers of parameters.
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql));
        let query = numbers.iter().fold(query, |query, number| query.bind(*number));
        Ok(in_time(query.fetch_one(&self.database.lists)).await?)
    }
}
