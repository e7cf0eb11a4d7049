//! How far those have come who are connected to the issuers on this database. Nothing hangs on it but what operators are shown: it is
//! written beside the committer's transactions, and what is lost of it is written with the next change.

use signet_identity::WorkloadId;
use time::OffsetDateTime;

use super::database::{in_time, parameters};
use super::{Store, StoreError, microseconds, workload_id};
use crate::attestation::AttestationNumber;

/// One who is connected to an issuer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ProgressRecord {
    /// To which: a hash of its authority's key.
    pub(crate) issuer: String,
    pub(crate) number: AttestationNumber,
    pub(crate) connected_at: OffsetDateTime,
    /// The latest revision of the policy of which it has all in force.
    pub(crate) revision: u64,
    pub(crate) is_current: bool,
    pub(crate) since: OffsetDateTime,
    pub(crate) refused: String,
    /// The version of the authorities that it would believe, empty for none yet; none where it is not told of them.
    pub(crate) authorities: Option<Vec<u8>>,
    /// The epoch of revocations that it has in force, where it asks for them.
    pub(crate) revocations: Option<u64>,
    /// The version of the keys of tokens that it has in force.
    pub(crate) jwt: Option<Vec<u8>>,
}

/// What one has in force who is connected to another issuer: of the authorities, or of the keys of tokens.
#[derive(Clone, Debug)]
pub(crate) struct AcknowledgementRecord {
    pub(crate) issuer: String,
    pub(crate) agent: AttestationNumber,
    pub(crate) id: WorkloadId,
    pub(crate) version: Vec<u8>,
    pub(crate) refused: String,
}

/// In one statement.
pub(crate) const MOST_AT_ONCE: usize = 64;
const COLUMNS: usize = 10;

impl Store {
    /// Of those that are connected to one issuer; [`MOST_AT_ONCE`] of them.
    pub(crate) async fn share_progress(&self, connected: &[ProgressRecord]) -> Result<(), StoreError> {
        if connected.is_empty() {
            return Ok(());
        }
        let mut sql =
            "INSERT INTO agent_progress (issuer, attestation_number, connected_at, revision, is_current, since, \
                       refused, authorities, revocations, jwt) VALUES "
                .to_owned();
        sql.push_str(&parameters(connected.len(), COLUMNS));
        sql.push_str(
            " ON CONFLICT (attestation_number) DO UPDATE SET issuer = excluded.issuer, connected_at = excluded.connected_at, \
             revision = excluded.revision, is_current = excluded.is_current, since = excluded.since, \
             refused = excluded.refused, authorities = excluded.authorities, revocations = excluded.revocations, jwt = excluded.jwt \
             WHERE excluded.connected_at >= agent_progress.connected_at",
        );
        // Of numbers and the names of columns alone.
        let mut statement = sqlx::query(sqlx::AssertSqlSafe(sql));
        for record in connected {
            statement = statement
                .bind(&record.issuer)
                .bind(record.number.0)
                .bind(microseconds(record.connected_at))
                .bind(record.revision.cast_signed())
                .bind(i64::from(record.is_current))
                .bind(microseconds(record.since))
                .bind(&record.refused)
                .bind(record.authorities.as_deref())
                .bind(record.revocations.map(u64::cast_signed))
                .bind(record.jwt.as_deref());
        }
        in_time(statement.execute(&self.database.lists)).await?;
        Ok(())
    }

    /// Of those who are connected to another issuer than `own` that was heard of since then, and are told of authorities.
    pub(crate) async fn acknowledgements_elsewhere(
        &self,
        own: &str,
        heard_of_since: OffsetDateTime,
    ) -> Result<Vec<AcknowledgementRecord>, StoreError> {
        let query = sqlx::query_as(
            "SELECT issuer, attestation_number, spiffe_id, authorities, refused FROM agent_progress \
             JOIN attestations ON number = attestation_number WHERE issuer <> $1 AND authorities IS NOT NULL \
             AND issuer IN (SELECT issuer FROM issuer_bundles WHERE published_at >= $2)",
        );
        let query = query.bind(own).bind(microseconds(heard_of_since));
        records(in_time(query.fetch_all(&self.database.lists)).await?)
    }

    /// The same of the keys of tokens, of which everybody is told; empty of one that has said nothing.
    pub(crate) async fn jwt_acknowledgements_elsewhere(
        &self,
        own: &str,
        heard_of_since: OffsetDateTime,
    ) -> Result<Vec<AcknowledgementRecord>, StoreError> {
        let query = sqlx::query_as(
            "SELECT issuer, attestation_number, spiffe_id, jwt, refused FROM agent_progress \
             JOIN attestations ON number = attestation_number WHERE issuer <> $1 \
             AND issuer IN (SELECT issuer FROM issuer_bundles WHERE published_at >= $2)",
        );
        let query = query.bind(own).bind(microseconds(heard_of_since));
        records(in_time(query.fetch_all(&self.database.lists)).await?)
    }

    /// Those have left an issuer; [`MOST_AT_ONCE`] of them. Whoever is connected to another by now is.
    pub(crate) async fn forget_progress(&self, issuer: &str, gone: &[AttestationNumber]) -> Result<(), StoreError> {
        if gone.is_empty() {
            return Ok(());
        }
        let parameters: Vec<String> = (2..gone.len() + 2).map(|parameter| format!("${parameter}")).collect();
        let sql = format!(
            "DELETE FROM agent_progress WHERE issuer = $1 AND attestation_number IN ({})",
            parameters.join(", ")
        );
        let mut statement = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(issuer);
        for number in gone {
            statement = statement.bind(number.0);
        }
        in_time(statement.execute(&self.database.lists)).await?;
        Ok(())
    }

    /// Of those that are connected to other issuers: how many there are that ask for revocations, how many of them have come to this
    /// epoch, and how many do not ask. Of issuers that were not heard of since, nobody is.
    pub(crate) async fn revocation_progress(
        &self,
        issuer: &str,
        epoch: u64,
        heard_of_since: OffsetDateTime,
    ) -> Result<(u64, u64, u64), StoreError> {
        let (all, following, applied): (i64, i64, i64) = in_time(
            sqlx::query_as(
                "SELECT count(*), count(revocations), \
                 count(CASE WHEN revocations >= $1 THEN 1 END) FROM agent_progress \
                 WHERE issuer <> $2 AND issuer IN (SELECT issuer FROM issuer_bundles WHERE published_at >= $3)",
            )
            .bind(i64::try_from(epoch).unwrap_or(i64::MAX))
            .bind(issuer)
            .bind(microseconds(heard_of_since))
            .fetch_one(&self.database.lists),
        )
        .await?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok((count(following), count(applied), count(all - following)))
    }

    /// Of an issuer that begins: nobody is connected to it.
    pub(crate) async fn forget_all_progress(&self, issuer: &str) -> Result<(), StoreError> {
        let removal = sqlx::query("DELETE FROM agent_progress WHERE issuer = $1").bind(issuer);
        in_time(removal.execute(&self.database.lists)).await?;
        Ok(())
    }
}

type Row = (String, i64, String, Option<Vec<u8>>, String);

fn records(rows: Vec<Row>) -> Result<Vec<AcknowledgementRecord>, StoreError> {
    let record = |(issuer, number, id, version, refused): Row| {
        let (agent, version) = (AttestationNumber(number), version.unwrap_or_default());
        Ok(AcknowledgementRecord { issuer, agent, id: workload_id(&id)?, version, refused })
    };
    rows.into_iter().map(record).collect()
}
