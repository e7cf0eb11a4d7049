//! What is revoked, by whom and why.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use signet_identity::WorkloadId;
use time::OffsetDateTime;

use super::database::in_time;
use super::{Store, StoreError, Write, microseconds, time, workload_id};
use crate::attestation::AttestationNumber;
use crate::authority::KeyId;
use crate::csr::KeyHash;
use crate::policy::Actor;
use crate::revocation::{Lineage, Reason, SerialNumber};

/// Something to be revoked.
#[derive(Clone, Debug)]
pub(crate) struct NewRevocation {
    pub(crate) target: RevocationTarget,
    pub(crate) reason: Reason,
    pub(crate) actor: Actor,
    pub(crate) comment: String,
    pub(crate) at: OffsetDateTime,
}

#[derive(Clone, Debug)]
pub(crate) enum RevocationTarget {
    Serials(Vec<SerialNumber>),
    /// Whatever it has, and what was given beside it.
    Id(WorkloadId),
    /// Remembered for so long.
    Key(KeyHash, OffsetDateTime),
    Agent(AttestationNumber),
    /// By its key identifier and its key; remembered for so long.
    Authority(KeyId, KeyHash, OffsetDateTime),
    Rule(String),
}

/// What one transaction made of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Recorded {
    /// Of the revocation.
    pub(crate) number: i64,
    /// The epoch before it.
    pub(crate) before: u64,
    /// Of the latest there is.
    pub(crate) epoch: u64,
    pub(crate) certificates: u64,
    /// Evicted.
    pub(crate) agents: u64,
    /// There may be more of them.
    pub(crate) is_partial: bool,
}

/// A certificate that something to be revoked comes to.
#[derive(Clone, Debug)]
pub(crate) struct Concerned {
    pub(crate) serial: SerialNumber,
    /// Shared by all of it: there may be millions.
    pub(crate) id: Arc<WorkloadId>,
}

/// One thing on record, as the issuer keeps it.
#[derive(Clone, Debug)]
pub(crate) struct RevokedRecord {
    pub(crate) epoch: u64,
    pub(crate) kind: Kind,
    pub(crate) authority: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) not_after: i64,
    pub(crate) revoked_at: OffsetDateTime,
    pub(crate) reason: Reason,
}

/// The same, for those who read who did it and why.
#[derive(Clone, Debug)]
pub(crate) struct RevocationRecord {
    pub(crate) revoked: RevokedRecord,
    /// Of a certificate on record.
    pub(crate) id: Option<WorkloadId>,
    pub(crate) actor: Actor,
    pub(crate) comment: String,
    /// By what it was found.
    pub(crate) by_kind: String,
    pub(crate) by: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Serial,
    Key,
    Authority,
}

/// Which are wanted of those on record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter {
    pub(crate) after: u64,
    pub(crate) limit: u32,
    pub(crate) reason: Option<Reason>,
    pub(crate) since: OffsetDateTime,
    pub(crate) before: OffsetDateTime,
}

/// When it ends and begins, its position, who signed it, and its serial number.
type IssuedRow = (i64, i64, i64, Vec<u8>, Vec<u8>);

/// Of what was issued, read at once.
const PAGE: i64 = 10_000;
/// What comes after `$1`, `$2` and `$3`: of the same times, of the same end, and of later ends. Each is read by `issued_by_expiry`. Of rows
/// that are compared whole, PostgreSQL weighs the first column only, and reads the table where many end at the same time.
pub(super) const PAGE_OF_ISSUED: &str = "SELECT not_after, not_before, position, authority_key_id, serial FROM ( \
    SELECT * FROM (SELECT not_after, not_before, position, authority_key_id, serial FROM issued \
    WHERE not_after = $1 AND not_before = $2 AND position > $3 ORDER BY position LIMIT $4) AS same_times \
    UNION ALL SELECT * FROM (SELECT not_after, not_before, position, authority_key_id, serial FROM issued \
    WHERE not_after = $1 AND not_before > $2 ORDER BY not_before, position LIMIT $4) AS same_end \
    UNION ALL SELECT * FROM (SELECT not_after, not_before, position, authority_key_id, serial FROM issued \
    WHERE not_after > $1 ORDER BY not_after, not_before, position LIMIT $4) AS later_ends \
    ) AS page ORDER BY not_after, not_before, position LIMIT $4";
/// Of the columns of [`RevocationRow`].
const REVOCATION: &str = "SELECT epoch, revoked.kind, authority_key_id, value, not_after, revoked_at, reason, \
    (SELECT spiffe_id FROM issued WHERE serial = value AND revoked.kind = 0 \
    AND issued.authority_key_id = revoked.authority_key_id), \
    actor, comment, revocations.kind, target FROM revoked JOIN revocations ON number = revocation";
/// Serial numbers in one statement.
pub(super) const SERIALS_AT_ONCE: usize = 512;

impl Kind {
    /// On record.
    pub(super) const SERIAL: i64 = 0;
    pub(super) const KEY: i64 = 1;
    pub(super) const AUTHORITY: i64 = 2;

    fn of_record(number: i64) -> Result<Self, StoreError> {
        match number {
            Self::SERIAL => Ok(Self::Serial),
            Self::KEY => Ok(Self::Key),
            Self::AUTHORITY => Ok(Self::Authority),
            _ => Err(StoreError::Record { what: "revoked is something that this program does not know" }),
        }
    }
}

impl RevocationTarget {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Serials(_) => "serial",
            Self::Id(_) => "id",
            Self::Key(..) => "key",
            Self::Agent(_) => "agent",
            Self::Authority(..) => "authority",
            Self::Rule(_) => "rule",
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Serials(serials) => match &serials[..] {
                [only] => only.to_string(),
                several => format!("{} serial numbers", several.len()),
            },
            Self::Id(id) => id.to_string(),
            Self::Key(hash, _) => hex::encode(hash.as_bytes()),
            Self::Agent(number) => number.0.to_string(),
            Self::Authority(key_id, ..) => key_id.to_string(),
            Self::Rule(name) => name.clone(),
        }
    }
}

/// Which certificates a target comes to, by their positions on record. `$1` is what names them, `$2` the time.
pub(super) fn positions(target: &RevocationTarget) -> &'static str {
    match target {
        RevocationTarget::Id(_) => {
            "SELECT position FROM issued WHERE spiffe_id = $1 AND not_after >= $2 UNION \
             SELECT position FROM attestations JOIN issued ON attestation_number = number \
             WHERE attestations.spiffe_id = $1 AND not_after >= $2"
        }
        RevocationTarget::Key(..) => "SELECT position FROM issued WHERE key_sha256 = $1 AND not_after >= $2",
        RevocationTarget::Agent(_) => "SELECT position FROM issued WHERE attestation_number = $1 AND not_after >= $2",
        RevocationTarget::Rule(_) => "SELECT position FROM issued WHERE rule = $1 AND not_after >= $2",
        RevocationTarget::Authority(..) => {
            "SELECT position FROM issued WHERE authority_key_id = $1 AND not_after >= $2"
        }
        // One by one; see `of_serials`.
        RevocationTarget::Serials(_) => "SELECT position FROM issued WHERE serial = $1 AND not_after >= $2",
    }
}

pub(super) type Query<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

pub(super) fn bind_target<'q>(query: Query<'q>, target: &RevocationTarget) -> Query<'q> {
    match target {
        RevocationTarget::Serials(serials) => query.bind(serials.first().map(|one| one.as_bytes().to_vec())),
        RevocationTarget::Id(id) => query.bind(id.to_string()),
        RevocationTarget::Key(hash, _) => query.bind(hash.as_bytes().to_vec()),
        RevocationTarget::Agent(number) => query.bind(number.0),
        RevocationTarget::Authority(key_id, ..) => query.bind(key_id.as_bytes().to_vec()),
        RevocationTarget::Rule(name) => query.bind(name.clone()),
    }
}

/// Such as are not revoked yet.
pub(super) const NOT_YET: &str = "NOT EXISTS (SELECT 1 FROM revoked WHERE value = issued.serial AND kind = 0 \
                       AND revoked.authority_key_id = issued.authority_key_id)";

impl Store {
    /// Makes it durable. What was attested for it is evicted in the same transaction.
    pub(crate) async fn revoke(&self, revocation: NewRevocation) -> Result<Recorded, StoreError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::Revocation { revocation, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// The certificates that it comes to; `most` of them.
    pub(crate) async fn concerned(
        &self,
        target: &RevocationTarget,
        now: OffsetDateTime,
        most: usize,
    ) -> Result<Vec<Concerned>, StoreError> {
        if let RevocationTarget::Serials(serials) = target {
            return self.concerned_serials(serials, now).await;
        }
        let sql = format!(
            "SELECT serial, spiffe_id FROM issued WHERE position IN ({}) AND {NOT_YET} LIMIT $3",
            positions(target)
        );
        // Of constants alone.
        let query = bind_target(sqlx::query(sqlx::AssertSqlSafe(sql)), target);
        let query = query.bind(now.unix_timestamp()).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let reading = async {
            let mut reading = Reading::default();
            let mut rows = query.fetch(&self.database.lists);
            while let Some(row) = rows.try_next().await? {
                let (serial, id): (Vec<u8>, String) = sqlx::FromRow::from_row(&row)?;
                reading.add(&serial, &id);
            }
            Ok(reading)
        };
        in_time(reading).await?.finish()
    }

    /// The serial numbers that an authority has given to what has not expired, with their ends in Unix seconds; all of them, or none where
    /// there are more than `most`.
    pub(crate) async fn signed_by(
        &self,
        key_id: &KeyId,
        now: OffsetDateTime,
        most: usize,
    ) -> Result<Option<Vec<(SerialNumber, i64)>>, StoreError> {
        self.signed_by_in_pages(key_id, now, most, PAGE).await
    }

    /// In pages of what has not expired, whoever signed it, in the order of an index that there is anyway: each is read in time, and nobody
    /// who issues pays for it.
    pub(super) async fn signed_by_in_pages(
        &self,
        key_id: &KeyId,
        now: OffsetDateTime,
        most: usize,
        page: i64,
    ) -> Result<Option<Vec<(SerialNumber, i64)>>, StoreError> {
        let mut found = Vec::new();
        let mut last = (now.unix_timestamp(), i64::MIN, i64::MIN);
        loop {
            let (not_after, not_before, position) = last;
            let query = sqlx::query_as(PAGE_OF_ISSUED).bind(not_after).bind(not_before).bind(position).bind(page);
            let rows: Vec<IssuedRow> = in_time(query.fetch_all(&self.database.lists)).await?;
            let Some((not_after, not_before, position, ..)) = rows.last() else { return Ok(Some(found)) };
            last = (*not_after, *not_before, *position);
            for (not_after, _, _, signer, serial) in rows {
                if signer == key_id.as_bytes() {
                    let serial = SerialNumber::from_be_bytes(&serial)
                        .ok_or(StoreError::Record { what: "not a serial number" })?;
                    found.push((serial, not_after));
                }
            }
            if found.len() > most {
                return Ok(None);
            }
        }
    }

    /// Those of them that are on record and have not expired; also those that are revoked already.
    async fn concerned_serials(
        &self,
        serials: &[SerialNumber],
        now: OffsetDateTime,
    ) -> Result<Vec<Concerned>, StoreError> {
        let mut reading = Reading::default();
        for chunk in serials.chunks(SERIALS_AT_ONCE) {
            let sql = format!(
                "SELECT serial, spiffe_id FROM issued WHERE serial IN ({}) AND not_after >= $1",
                list(2, chunk.len())
            );
            let mut query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(now.unix_timestamp());
            for serial in chunk {
                query = query.bind(serial.as_bytes().to_vec());
            }
            let rows: Vec<(Vec<u8>, String)> = in_time(query.fetch_all(&self.database.lists)).await?;
            rows.iter().for_each(|(serial, id)| reading.add(serial, id));
        }
        reading.finish()
    }

    /// Of this database, and the epoch of the latest.
    pub(crate) async fn revocation_epoch(&self) -> Result<(Lineage, u64), StoreError> {
        let (lineage, epoch): (Vec<u8>, i64) =
            in_time(sqlx::query_as("SELECT lineage, epoch FROM revocation_epoch").fetch_one(&self.database.lists))
                .await?;
        let lineage = Lineage::read(&lineage).ok_or(StoreError::Record { what: "not a lineage of 8 bytes" })?;
        Ok((lineage, unsigned(epoch)?))
    }

    /// In their order; those after an epoch, up to another, and not over at some time.
    pub(crate) async fn revoked_between(
        &self,
        (after, to): (u64, u64),
        not_over_at: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<RevokedRecord>, StoreError> {
        let rows: Vec<RevokedRow> = in_time(
            sqlx::query_as(
                "SELECT epoch, revoked.kind, authority_key_id, value, not_after, revoked_at, reason FROM revoked \
                 JOIN revocations ON number = revocation WHERE epoch > $1 AND epoch <= $2 AND not_after >= $3 \
                 ORDER BY epoch LIMIT $4",
            )
            .bind(signed(after))
            .bind(signed(to))
            .bind(not_over_at.unix_timestamp())
            .bind(i64::from(limit))
            .fetch_all(&self.database.lists),
        )
        .await?;
        rows.into_iter().map(revoked).collect()
    }

    /// In their order.
    pub(crate) async fn revocations(
        &self,
        filter: &Filter,
        now: OffsetDateTime,
    ) -> Result<Vec<RevocationRecord>, StoreError> {
        let rows: Vec<RevocationRow> = in_time(
            sqlx::query_as(
                // Of constants.
                sqlx::AssertSqlSafe(format!(
                    "{REVOCATION} WHERE epoch > $1 AND not_after >= $2 AND ($3 = 0 OR reason = $3) AND revoked_at >= $4 \
                     AND revoked_at < $5 ORDER BY epoch LIMIT $6"
                )),
            )
            .bind(signed(filter.after))
            .bind(now.unix_timestamp())
            .bind(filter.reason.map_or(0, Reason::number))
            .bind(microseconds(filter.since))
            .bind(microseconds(filter.before))
            .bind(i64::from(filter.limit))
            .fetch_all(&self.database.lists),
        )
        .await?;
        rows.into_iter().map(revocation).collect()
    }

    /// The one with this epoch, over or not.
    pub(crate) async fn revocation(&self, epoch: u64) -> Result<Option<RevocationRecord>, StoreError> {
        // Of constants.
        let query = sqlx::query_as(sqlx::AssertSqlSafe(format!("{REVOCATION} WHERE epoch = $1"))).bind(signed(epoch));
        let row: Option<RevocationRow> = in_time(query.fetch_optional(&self.database.lists)).await?;
        row.map(revocation).transpose()
    }

    /// A key that was certified and has this identifier: the first 20 bytes of its SHA-256, as in each certificate that is issued here.
    pub(crate) async fn key_of(&self, key_id: &KeyId, now: OffsetDateTime) -> Result<Option<KeyHash>, StoreError> {
        let found: Option<Vec<u8>> = in_time(
            sqlx::query_scalar(
                "SELECT key_sha256 FROM issued WHERE not_after >= $1 AND substr(key_sha256, 1, 20) = $2",
            )
            .bind(now.unix_timestamp())
            .bind(key_id.as_bytes())
            .fetch_optional(&self.database.lists),
        )
        .await?;
        found.map(|hash| KeyHash::read(&hash).ok_or(StoreError::Record { what: "not a SHA-256" })).transpose()
    }
}

type RevokedRow = (i64, i64, Vec<u8>, Vec<u8>, i64, i64, i64);
type RevocationRow = (i64, i64, Vec<u8>, Vec<u8>, i64, i64, i64, Option<String>, String, String, String, String);

/// What is concerned, as it is read.
#[derive(Debug, Default)]
struct Reading {
    found: Vec<Concerned>,
    ids: HashMap<String, Arc<WorkloadId>>,
    error: Option<StoreError>,
}

impl Reading {
    fn add(&mut self, serial: &[u8], id: &str) {
        match self.concerned(serial, id) {
            Ok(concerned) => self.found.push(concerned),
            Err(error) => self.error = Some(error),
        }
    }

    fn concerned(&mut self, serial: &[u8], id: &str) -> Result<Concerned, StoreError> {
        let serial = SerialNumber::from_be_bytes(serial).ok_or(StoreError::Record { what: "not a serial number" })?;
        let id = match self.ids.get(id) {
            Some(known) => Arc::clone(known),
            None => {
                let parsed = Arc::new(workload_id(id)?);
                self.ids.insert(id.to_owned(), Arc::clone(&parsed));
                parsed
            }
        };
        Ok(Concerned { serial, id })
    }

    fn finish(self) -> Result<Vec<Concerned>, StoreError> {
        self.error.map_or(Ok(self.found), Err)
    }
}

fn revoked(
    (epoch, kind, authority, value, not_after, revoked_at, reason): RevokedRow,
) -> Result<RevokedRecord, StoreError> {
    Ok(RevokedRecord {
        epoch: unsigned(epoch)?,
        kind: Kind::of_record(kind)?,
        authority,
        value,
        not_after,
        revoked_at: time(revoked_at)?,
        reason: Reason::of_number(reason).ok_or(StoreError::Record { what: "not a reason" })?,
    })
}

fn revocation(row: RevocationRow) -> Result<RevocationRecord, StoreError> {
    let (epoch, kind, authority, value, not_after, revoked_at, reason, id, actor, comment, by_kind, by) = row;
    Ok(RevocationRecord {
        revoked: revoked((epoch, kind, authority, value, not_after, revoked_at, reason))?,
        id: id.map(|id| workload_id(&id)).transpose()?,
        actor: Actor::of_record(actor),
        comment,
        by_kind,
        by,
    })
}

/// So many parameters, from this one.
pub(super) fn list(first: usize, count: usize) -> String {
    (first..first + count).map(|parameter| format!("${parameter}")).collect::<Vec<_>>().join(", ")
}

fn signed(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Record { what: "a number below 0" })
}
