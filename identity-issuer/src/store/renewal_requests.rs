//! "Renew now", as operators asked for it: for those who are not there, and for the other issuers.

use signet_identity::WorkloadId;
use sqlx::AnyConnection;
use time::OffsetDateTime;

use std::time::Duration;

use super::database::in_time;
use super::{Store, StoreError, Write, microseconds, time, workload_id};

/// What somebody asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RenewalRequest {
    /// Everybody where it names none.
    pub(crate) id: Option<WorkloadId>,
    pub(crate) at: OffsetDateTime,
    pub(crate) within: Duration,
}

impl Store {
    /// Makes it durable.
    pub(crate) async fn record_renewal_request(&self, request: RenewalRequest) -> Result<(), StoreError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::RenewalRequest { request, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Those at `since` or later, in their order; of many, the latest.
    pub(crate) async fn renewal_requests(&self, since: OffsetDateTime) -> Result<Vec<RenewalRequest>, StoreError> {
        let rows: Vec<(String, i64, i64)> = in_time(
            sqlx::query_as(
                "SELECT spiffe_id, asked_at, within_ms FROM renewal_requests WHERE asked_at >= $1 \
                 ORDER BY asked_at DESC LIMIT $2",
            )
            .bind(microseconds(since))
            .bind(MOST)
            .fetch_all(&self.database.lists),
        )
        .await?;
        let request = |(id, asked_at, within_ms): (String, i64, i64)| {
            let id = (!id.is_empty()).then(|| workload_id(&id)).transpose()?;
            let within = u64::try_from(within_ms).map_err(|_| StoreError::Record { what: "a time below 0" })?;
            Ok(RenewalRequest { id, at: time(asked_at)?, within: Duration::from_millis(within) })
        };
        rows.into_iter().rev().map(request).collect()
    }
}

/// Whoever has not come since an older one has renewed by itself, most likely.
const MOST: i64 = 4096;
/// In microseconds: nobody's certificate is older.
const KEPT: i64 = 100 * 86_400 * 1_000_000;

pub(super) async fn record(connection: &mut AnyConnection, request: &RenewalRequest) -> Result<(), sqlx::Error> {
    let RenewalRequest { id, at, within } = request;
    if id.is_none() {
        // It is for them too.
        let removal = sqlx::query("DELETE FROM renewal_requests WHERE asked_at <= $1");
        removal.bind(microseconds(*at)).execute(&mut *connection).await?;
    }
    let insertion = sqlx::query(
        "INSERT INTO renewal_requests (spiffe_id, asked_at, within_ms) VALUES ($1, $2, $3) ON CONFLICT (spiffe_id) \
         DO UPDATE SET asked_at = excluded.asked_at, within_ms = excluded.within_ms",
    );
    let insertion = insertion.bind(id.as_ref().map_or("", |id| id.as_str())).bind(microseconds(*at));
    insertion.bind(i64::try_from(within.as_millis()).unwrap_or(i64::MAX)).execute(connection).await.map(drop)
}

/// Forgets those that are long over.
pub(super) async fn sweep(connection: &mut AnyConnection, now: i64) -> Result<(), sqlx::Error> {
    let statement = sqlx::query("DELETE FROM renewal_requests WHERE asked_at < $1");
    statement.bind(now - KEPT).execute(connection).await.map(drop)
}
