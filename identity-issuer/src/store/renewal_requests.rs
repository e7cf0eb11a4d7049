//! "Renew now", as operators asked for it: for those who are not there, and for the other issuers.
//!
//! Clocks of issuers differ, and are set. So who has renewed since is told by the number of its certificate on record, and which request
//! is the later one by an order that the record makes.

use std::fmt;
use std::time::Duration;

use signet_identity::WorkloadId;
use sqlx::AnyConnection;
use time::OffsetDateTime;

use super::database::in_time;
use super::{Store, StoreError, Write, microseconds, time, workload_id};

/// Whose certificates.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Whose {
    Everybody,
    Id(WorkloadId),
    /// Those that the authority with this subject key identifier has signed.
    Authority(Vec<u8>),
}

/// What somebody asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NewRenewalRequest {
    pub(crate) whose: Whose,
    pub(crate) at: OffsetDateTime,
    pub(crate) within: Duration,
}

/// The same on record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RenewalRequest {
    pub(crate) whose: Whose,
    /// Later than those before it.
    pub(crate) at: OffsetDateTime,
    pub(crate) within: Duration,
    /// It is for certificates up to this one.
    pub(crate) position: i64,
}

/// Before the key identifier of an authority, which is no SPIFFE ID.
const AUTHORITY: &str = "authority:";

impl Whose {
    fn read(text: &str) -> Result<Self, StoreError> {
        match text.strip_prefix(AUTHORITY) {
            Some(key_id) => {
                let key_id = hex::decode(key_id).map_err(|_| StoreError::Record { what: "not a key identifier" })?;
                Ok(Self::Authority(key_id))
            }
            None if text.is_empty() => Ok(Self::Everybody),
            None => workload_id(text).map(Self::Id),
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => Ok(()),
            Self::Id(id) => f.write_str(id.as_str()),
            Self::Authority(key_id) => write!(f, "{AUTHORITY}{}", hex::encode(key_id)),
        }
    }
}

impl Store {
    /// Makes it durable.
    pub(crate) async fn record_renewal_request(
        &self,
        request: NewRenewalRequest,
    ) -> Result<RenewalRequest, StoreError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::RenewalRequest { request, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Those at `since` or later, in their order; of many, the latest. What is no request is left out.
    pub(crate) async fn renewal_requests(&self, since: OffsetDateTime) -> Result<Vec<RenewalRequest>, StoreError> {
        let rows: Vec<(String, i64, i64, i64)> = in_time(
            sqlx::query_as(
                "SELECT whose, asked_at, position, within_ms FROM renewal_requests WHERE asked_at >= $1 \
                 ORDER BY CASE WHEN whose = '' THEN 0 ELSE 1 END, asked_at DESC LIMIT $2",
            )
            .bind(microseconds(since))
            .bind(MOST)
            .fetch_all(&self.database.lists),
        )
        .await?;
        let request = |(whose, asked_at, position, within_ms): (String, i64, i64, i64)| {
            let whose = Whose::read(&whose)?;
            let within = u64::try_from(within_ms).map_err(|_| StoreError::Record { what: "a time below 0" })?;
            Ok::<_, StoreError>(RenewalRequest {
                whose,
                at: time(asked_at)?,
                within: Duration::from_millis(within),
                position,
            })
        };
        let mut requests: Vec<_> = rows.into_iter().filter_map(|row| request(row).ok()).collect();
        requests.sort_by_key(|request| request.at);
        Ok(requests)
    }
}

/// Whoever has not come since an older one has renewed by itself, most likely.
const MOST: i64 = 4096;
/// In microseconds: nobody's certificate is older.
const KEPT: i64 = 100 * 86_400 * 1_000_000;

/// One after the other: whoever calls it holds the lock of standing.
pub(super) async fn record(
    connection: &mut AnyConnection,
    request: &NewRenewalRequest,
) -> Result<RenewalRequest, sqlx::Error> {
    let NewRenewalRequest { whose, at, within } = request;
    let (latest, position): (i64, i64) = sqlx::query_as(
        "SELECT coalesce((SELECT max(asked_at) FROM renewal_requests), 0), coalesce((SELECT max(position) FROM issued), 0)",
    )
    .fetch_one(&mut *connection)
    .await?;
    let asked_at = microseconds(*at).max(latest.saturating_add(1));
    if *whose == Whose::Everybody {
        // It is for them too.
        sqlx::query("DELETE FROM renewal_requests").execute(&mut *connection).await?;
    }
    let insertion = sqlx::query(
        "INSERT INTO renewal_requests (whose, asked_at, position, within_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (whose) DO UPDATE SET asked_at = excluded.asked_at, position = excluded.position, \
         within_ms = excluded.within_ms",
    );
    let insertion = insertion.bind(whose.to_string()).bind(asked_at).bind(position);
    insertion.bind(i64::try_from(within.as_millis()).unwrap_or(i64::MAX)).execute(connection).await?;
    let at = time(asked_at).unwrap_or(*at);
    Ok(RenewalRequest { whose: whose.clone(), at, within: *within, position })
}

/// Forgets those that are long over.
pub(super) async fn sweep(connection: &mut AnyConnection, now: i64) -> Result<(), sqlx::Error> {
    let statement = sqlx::query("DELETE FROM renewal_requests WHERE asked_at < $1");
    statement.bind(now - KEPT).execute(connection).await.map(drop)
}
