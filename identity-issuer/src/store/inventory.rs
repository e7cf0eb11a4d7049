//! What was issued, for those who look through it: page by page, in the order of an index, with a bound on what is looked at for one page.
//! So a page may be short, or empty, and there is more all the same.

mod record;
mod walk;

use std::collections::HashMap;
use std::time::Duration;

use signet_identity::WorkloadId;
use signet_policy::Pattern;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::database::{in_time, padded};
use super::revocations::{RevocationRecord, list};
use super::{AttestationRecord, Store, StoreError, time, workload_id};
use crate::attestation::AttestationNumber;

pub(crate) use record::SvidRecord;
use record::{SVID, SvidRow};
pub(crate) use walk::{Cursor, Direction};
use walk::{Last, Seen, Walk};

/// Which certificates are wanted: those that all of it is true of.
#[derive(Clone, Debug, Default)]
pub(crate) struct SvidFilter {
    pub(crate) selection: Selection,
    pub(crate) ids: Option<Pattern>,
    /// Not expired, and no longer valid than that.
    pub(crate) expiring_until: Option<OffsetDateTime>,
    /// By its subject key identifier.
    pub(crate) authority: Option<Vec<u8>>,
    pub(crate) agent: Option<AttestationNumber>,
    pub(crate) rule: Option<String>,
    pub(crate) profile: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Selection {
    #[default]
    Unexpired,
    Expired,
    /// Expired or not: by itself, or with its authority.
    Revoked,
    All,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    Issued,
    Expiry,
    Id,
}

/// Where a page begins.
#[derive(Clone, Debug)]
pub(crate) enum PageStart {
    /// Without an order, in that which leads to what is wanted soonest.
    First(Option<Order>, Direction),
    Behind(Cursor),
}

#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) svids: Vec<SvidRecord>,
    /// None where there is no more.
    pub(crate) next: Option<Cursor>,
}

/// All about one certificate.
#[derive(Clone, Debug)]
pub(crate) struct SvidDetails {
    pub(crate) svid: SvidRecord,
    /// None for an issuer's own.
    pub(crate) attested: Option<AttestationRecord>,
    /// Who was attested.
    pub(crate) is_banned: bool,
    pub(crate) revocation: Option<RevocationRecord>,
    pub(crate) successor: Option<Successor>,
}

/// What its holder has instead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Successor {
    pub(crate) serial: Vec<u8>,
    pub(crate) issued_at: OffsetDateTime,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    #[error("where the page before ended is not for these filters")]
    OtherFilters,
    #[error("what the page before ended with has left the record")]
    Gone,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Of the record, for one page: after so many, or so long, a page ends whatever is in it.
const MOST_LOOKED_AT: usize = 32_768;
const LONGEST: Duration = Duration::from_millis(30);
/// Of the certificates that came to an attestation later, among which the successor is looked for.
const MOST_LATER: i64 = 20_000;

impl Store {
    /// At most `limit` certificates, of those identities that are seen.
    pub(crate) async fn svids(
        &self,
        filter: &SvidFilter,
        start: PageStart,
        limit: usize,
        now: OffsetDateTime,
        sees: impl Fn(&WorkloadId) -> bool,
    ) -> Result<Page, PageError> {
        let (walk, direction, mut last) = self.begin(filter, start).await?;
        let began = Instant::now();
        let (mut positions, mut looked_at) = (Vec::new(), 0);
        let is_over = 'pages: loop {
            let seen = self.look(walk, direction, filter, &last, now).await?;
            let is_last = seen.len() < walk::AT_ONCE;
            looked_at += seen.len();
            for Seen { position, id, fits, place } in seen {
                last = Some(place);
                if let (true, Some(position)) = (fits, position)
                    && filter.ids.as_ref().is_none_or(|ids| ids.matches(&id))
                    && sees(&workload_id(&id)?)
                {
                    positions.push(position);
                    if positions.len() >= limit {
                        break 'pages false;
                    }
                }
            }
            if is_last {
                break true;
            }
            if looked_at >= MOST_LOOKED_AT || began.elapsed() >= LONGEST {
                break false;
            }
        };
        let next = last.filter(|_| !is_over).map(|last| Cursor::behind(walk, direction, &last));
        Ok(Page { svids: self.records(&positions).await?, next })
    }

    async fn begin(&self, filter: &SvidFilter, start: PageStart) -> Result<(Walk, Direction, Option<Last>), PageError> {
        match start {
            PageStart::First(order, direction) => {
                let is_individual = order.is_none()
                    && filter.selection == Selection::Revoked
                    && !self.is_an_authority_revoked().await?;
                Ok((Walk::to(filter, order, is_individual), direction, None))
            }
            PageStart::Behind(cursor) => {
                if !cursor.walk.fits(filter) {
                    return Err(PageError::OtherFilters);
                }
                let id = match cursor.walk {
                    Walk::Id => self.id_at(cursor.last.position).await?.ok_or(PageError::Gone)?,
                    Walk::Issued | Walk::Expiry | Walk::Agent | Walk::Revoked => String::new(),
                };
                Ok((cursor.walk, cursor.direction, Some(Last { id, ..cursor.last })))
            }
        }
    }

    async fn look(
        &self,
        walk: Walk,
        direction: Direction,
        filter: &SvidFilter,
        last: &Option<Last>,
        now: OffsetDateTime,
    ) -> Result<Vec<Seen>, StoreError> {
        let mut seen = Vec::new();
        for statement in walk.statements(direction, filter, last.as_ref(), now.unix_timestamp()) {
            // One after the other, each is further on. What the first ones have is enough for a while.
            let rows = in_time(statement.query().fetch_all(&self.database.lists)).await?;
            seen.extend(rows.into_iter().map(|row| walk.seen(row, last.as_ref())));
            if seen.len() >= walk::AT_ONCE {
                break;
            }
        }
        Ok(seen)
    }

    async fn records(&self, positions: &[i64]) -> Result<Vec<SvidRecord>, StoreError> {
        let mut found: HashMap<i64, SvidRecord> = HashMap::with_capacity(positions.len());
        for positions in padded(positions) {
            let sql = format!("{SVID} WHERE issued.position IN ({})", list(1, positions.len()));
            // Of a constant, and numbers of parameters.
            let query = sqlx::query_as(sqlx::AssertSqlSafe(sql));
            let query = positions.iter().fold(query, |query, position| query.bind(*position));
            let rows: Vec<SvidRow> = in_time(query.fetch_all(&self.database.lists)).await?;
            for row in rows {
                found.insert(row.position, row.read()?);
            }
        }
        Ok(positions.iter().filter_map(|position| found.remove(position)).collect())
    }

    /// None where no certificate on record has the serial number.
    pub(crate) async fn svid(&self, serial: &[u8]) -> Result<Option<SvidDetails>, StoreError> {
        // Of a constant.
        let query = sqlx::query_as(sqlx::AssertSqlSafe(format!("{SVID} WHERE serial = $1"))).bind(serial.to_vec());
        let row: Option<SvidRow> = in_time(query.fetch_optional(&self.database.lists)).await?;
        let Some(row) = row else { return Ok(None) };
        let position = row.position;
        let svid = row.read()?;
        let attested = match svid.agent {
            Some(number) => self.attestation(number).await?,
            None => None,
        };
        let revocation = match svid.revoked {
            Some(epoch) => self.revocation(epoch).await?,
            None => None,
        };
        let is_banned = match &attested {
            Some(record) => self.is_banned(&record.id).await?,
            None => false,
        };
        let successor = self.successor(&svid, position).await?;
        Ok(Some(SvidDetails { svid, attested, is_banned, revocation, successor }))
    }

    async fn successor(&self, svid: &SvidRecord, position: i64) -> Result<Option<Successor>, StoreError> {
        let Some(number) = svid.agent else { return Ok(None) };
        let row: Option<(Vec<u8>, i64)> = in_time(
            sqlx::query_as(
                "SELECT serial, issued_at FROM (SELECT position, serial, issued_at, attestation, evidence FROM issued \
                 WHERE attestation_number = $1 AND position > $2 ORDER BY position LIMIT $3) AS later \
                 WHERE evidence = $4 AND attestation = 'x509_svid' ORDER BY position LIMIT 1",
            )
            .bind(number.0)
            .bind(position)
            .bind(MOST_LATER)
            .bind(svid.serial.clone())
            .fetch_optional(&self.database.lists),
        )
        .await?;
        row.map(|(serial, issued_at)| Ok(Successor { serial, issued_at: time(issued_at)? })).transpose()
    }

    async fn id_at(&self, position: i64) -> Result<Option<String>, StoreError> {
        let query = sqlx::query_scalar("SELECT spiffe_id FROM issued WHERE position = $1").bind(position);
        Ok(in_time(query.fetch_optional(&self.database.lists)).await?)
    }

    async fn is_an_authority_revoked(&self) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar("SELECT count(*) FROM revoked WHERE kind = 2");
        let count: i64 = in_time(query.fetch_one(&self.database.lists)).await?;
        Ok(count > 0)
    }
}

/// What is asked for a first page, and for one behind it.
#[cfg(test)]
pub(super) fn statements(
    filter: &SvidFilter,
    order: Option<Order>,
    direction: Direction,
    now: i64,
) -> Vec<walk::Statement> {
    let walk = Walk::to(filter, order, false);
    let last =
        Last { id: "spiffe://example.org/n/500".to_owned(), first: now + 2_950, second: now - 600, position: 4711 };
    let pages = [None, Some(&last)].map(|last| walk.statements(direction, filter, last, now));
    pages.into_iter().flatten().collect()
}
