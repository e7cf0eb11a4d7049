//! The record of certificates, and what it takes to enter it: a proof that is not used up, a key that is new, and nobody banned or
//! evicted. All of it is asked of the database in the transaction that records, so that no order of events lets one slip through.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use sqlx::{Any, AnyConnection, Connection, Transaction};
use time::OffsetDateTime;

use super::database::{in_time, parameters};
use super::log::LogPlace;
use super::revocations::list;
use super::{LogError, Store, StoreError, microseconds, tokens};
use crate::attestation::{AttestationNumber, Attested, Evidence, ShownCertificate, Subject};
use crate::certificate::Certificate;

/// Why a certificate is not recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NotRecorded {
    KeyReused,
    ProofUsed,
    Banned,
    Evicted,
    Revoked,
}

impl NotRecorded {
    /// As the log has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::KeyReused => "key_reused",
            Self::ProofUsed => "proof_used",
            Self::Banned => "banned",
            Self::Evicted => "evicted",
            Self::Revoked => "revoked",
        }
    }
}

impl From<NotRecorded> for LogError {
    fn from(reason: NotRecorded) -> Self {
        match reason {
            NotRecorded::KeyReused => Self::KeyReused,
            NotRecorded::ProofUsed => Self::ProofUsed,
            NotRecorded::Banned => Self::Banned,
            NotRecorded::Evicted => Self::Evicted,
            NotRecorded::Revoked => Self::Revoked,
        }
    }
}

/// Records what was attested and the certificate made for it, and uses up the proof; or does nothing of it. Its entry is at `place`.
pub(super) async fn first(
    transaction: &mut Transaction<'_, Any>,
    attested: &Attested,
    certificate: &Certificate,
    place: LogPlace,
    now: i64,
) -> Result<Result<(), NotRecorded>, sqlx::Error> {
    let mut savepoint = transaction.begin().await?;
    let recorded = attempt(&mut savepoint, attested, certificate, place, now).await?;
    match recorded {
        Ok(()) => savepoint.commit().await?,
        Err(_) => savepoint.rollback().await?,
    }
    Ok(recorded)
}

async fn attempt(
    connection: &mut AnyConnection,
    attested: &Attested,
    certificate: &Certificate,
    place: LogPlace,
    now: i64,
) -> Result<Result<(), NotRecorded>, sqlx::Error> {
    let unused = match &attested.evidence {
        Evidence::JoinToken(hash) => tokens::use_up(connection, hash, now).await?,
        Evidence::Proof { once_until: None, .. } => true,
        Evidence::Proof { hash, once_until: Some(until), .. } => {
            use_up(connection, hash.as_bytes(), microseconds(*until), now).await?
        }
    };
    if !unused {
        return Ok(Err(NotRecorded::ProofUsed));
    }
    if let Some(shown) = &attested.shown
        && is_revoked(connection, shown).await?
    {
        return Ok(Err(NotRecorded::Revoked));
    }
    let number = add_attestation(connection, attested, certificate, now).await?;
    let recorded = insert(connection, &[(certificate, Some(number))], place).await?;
    if recorded.is_empty() {
        return Ok(Err(why(connection, certificate, Some(number)).await?));
    }
    Ok(Ok(()))
}

/// Whether anything is that was shown: the certificate, its key, or a CA above it.
async fn is_revoked(connection: &mut AnyConnection, shown: &ShownCertificate) -> Result<bool, sqlx::Error> {
    let keys = list(3, shown.keys.len());
    let sql = format!(
        "SELECT (SELECT count(*) FROM revoked WHERE value = $1 AND kind = 0 AND authority_key_id = $2) \
         + (SELECT count(*) FROM revoked WHERE kind IN (1, 2) AND value IN ({keys}))"
    );
    // Of numbers of parameters alone.
    let mut query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(&shown.serial[..]).bind(&shown.authority[..]);
    for key in &shown.keys {
        query = query.bind(key.as_bytes());
    }
    let revoked: i64 = query.fetch_one(connection).await?;
    Ok(revoked > 0)
}

/// The compare-and-set of a proof that is good once; true for whoever comes first, and in time.
async fn use_up(connection: &mut AnyConnection, proof: &[u8], until: i64, now: i64) -> Result<bool, sqlx::Error> {
    // What is over is refused without being looked up.
    if until <= now {
        return Ok(false);
    }
    let used =
        sqlx::query("INSERT INTO used_proofs (proof, expires_at) VALUES ($1, $2) ON CONFLICT (proof) DO NOTHING")
            .bind(proof)
            .bind(until)
            .execute(connection)
            .await?;
    Ok(used.rows_affected() == 1)
}

async fn add_attestation(
    connection: &mut AnyConnection,
    attested: &Attested,
    certificate: &Certificate,
    now: i64,
) -> Result<AttestationNumber, sqlx::Error> {
    let attributes = match &attested.subject {
        Subject::Named(_) => None,
        Subject::Proved(attributes) => {
            let pairs: Vec<_> = attributes.iter().map(|(name, value)| (name.as_str(), value)).collect();
            Some(serde_json::to_string(&pairs).map_err(|error| sqlx::Error::Encode(error.into()))?)
        }
    };
    let number = sqlx::query_scalar(
        "INSERT INTO attestations (spiffe_id, method, attributes, proof, attested_at) VALUES ($1, $2, $3, $4, $5) \
         RETURNING number",
    )
    .bind(certificate.id.as_str())
    .bind(attested.evidence.method().as_str())
    .bind(attributes)
    .bind(attested.evidence.hash())
    .bind(now)
    .fetch_one(connection)
    .await?;
    Ok(AttestationNumber(number))
}

/// Records renewals, and the issuer's own, whose entries follow each other from `place` on. Returns what became of each, in their order.
pub(super) async fn renewals(
    transaction: &mut Transaction<'_, Any>,
    rows: &[(usize, &Certificate, Option<AttestationNumber>)],
    mut place: LogPlace,
) -> Result<Vec<Result<(), NotRecorded>>, sqlx::Error> {
    let mut outcomes = Vec::with_capacity(rows.len());
    for chunk in chunks(rows) {
        let of_chunk: Vec<_> = chunk.iter().map(|(_, certificate, number)| (*certificate, *number)).collect();
        let recorded = insert(transaction, &of_chunk, place).await?;
        place.index += chunk.len() as i64;
        for (_, certificate, number) in chunk {
            outcomes.push(match recorded.contains(&certificate.serial) {
                true => Ok(()),
                false => Err(why(transaction, certificate, *number).await?),
            });
        }
    }
    Ok(outcomes)
}

/// Adds the certificates by one statement, and returns the serial numbers of those that were let in. The entry of the first is at `place`.
async fn insert(
    connection: &mut AnyConnection,
    certificates: &[(&Certificate, Option<AttestationNumber>)],
    place: LogPlace,
) -> Result<HashSet<[u8; 16]>, sqlx::Error> {
    let mut statement = sqlx::query_scalar(insertion(certificates.len()));
    for (index, (certificate, number)) in (place.index..).zip(certificates) {
        statement = statement
            .bind(&certificate.serial[..])
            .bind(certificate.id.as_str())
            .bind(certificate.key_hash.as_bytes())
            .bind(certificate.validity.not_before.unix_timestamp())
            .bind(certificate.validity.not_after.unix_timestamp())
            .bind(microseconds(certificate.issued_at))
            .bind(certificate.attestation.kind())
            .bind(certificate.attestation.evidence())
            .bind(certificate.authority.as_bytes())
            .bind(certificate.sha256().map(Vec::from))
            .bind(number.map(|number| number.0))
            .bind(&*certificate.profile.name)
            .bind(certificate.rule.as_ref().map_or("", |rule| rule.as_str()))
            .bind(place.log)
            .bind(index);
    }
    let serials: Vec<Vec<u8>> = statement.fetch_all(connection).await?;
    Ok(serials.into_iter().filter_map(|serial| serial.try_into().ok()).collect())
}

/// The statement that adds so many certificates: made once for each of the [`chunks`].
fn insertion(certificates: usize) -> &'static str {
    static MADE: [OnceLock<String>; SIZES.len()] = [const { OnceLock::new() }; SIZES.len()];
    // `chunks` makes no other.
    let size = SIZES.iter().position(|size| *size == certificates).unwrap_or(SIZES.len() - 1);
    MADE[size].get_or_init(|| {
        let mut sql = "INSERT INTO issued (serial, spiffe_id, key_sha256, not_before, not_after, issued_at, attestation, evidence, \
                       authority_key_id, certificate_sha256, attestation_number, profile, rule, log, log_index) SELECT * FROM (VALUES "
            .to_owned();
        sql.push_str(&parameters(certificates, COLUMNS));
        // The columns of VALUES have no other names.
        sql.push_str(
            ") AS asked WHERE NOT EXISTS (SELECT 1 FROM bans WHERE bans.spiffe_id = asked.column2) \
             AND NOT EXISTS (SELECT 1 FROM attestations WHERE number = asked.column11 AND (evicted_at IS NOT NULL \
             OR EXISTS (SELECT 1 FROM bans WHERE bans.spiffe_id = attestations.spiffe_id))) \
             AND NOT EXISTS (SELECT 1 FROM former_keys WHERE key = substr(asked.column3, 1, 16)) \
             AND NOT EXISTS (SELECT 1 FROM revoked WHERE value = asked.column3 AND kind = 1) \
             AND NOT EXISTS (SELECT 1 FROM revoked WHERE authority_key_id = asked.column9 AND kind = 2) \
             AND (asked.column7 NOT IN ('x509_svid', 'x509_svid_beside') OR NOT EXISTS (SELECT 1 FROM issued AS shown \
             JOIN revoked ON value = shown.serial AND kind = 0 AND revoked.authority_key_id = shown.authority_key_id \
             WHERE shown.serial = asked.column8) AND NOT EXISTS (SELECT 1 FROM issued AS shown \
             JOIN revoked ON revoked.authority_key_id = shown.authority_key_id AND kind = 2 \
             WHERE shown.serial = asked.column8)) \
             ON CONFLICT (key_sha256) DO NOTHING RETURNING serial",
        );
        sql
    })
}

/// Of one that was not let in.
async fn why(
    connection: &mut AnyConnection,
    certificate: &Certificate,
    number: Option<AttestationNumber>,
) -> Result<NotRecorded, sqlx::Error> {
    let (banned, evicted, reused): (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM bans WHERE spiffe_id = $1 \
         OR spiffe_id = (SELECT spiffe_id FROM attestations WHERE number = $2)), \
         (SELECT count(*) FROM attestations WHERE number = $2 AND evicted_at IS NOT NULL), \
         (SELECT count(*) FROM issued WHERE key_sha256 = $3) \
         + (SELECT count(*) FROM former_keys WHERE key = substr($3, 1, 16))",
    )
    .bind(certificate.id.as_str())
    .bind(number.map(|number| number.0))
    .bind(certificate.key_hash.as_bytes())
    .fetch_one(connection)
    .await?;
    Ok(match (banned, evicted, reused) {
        (0, 0, 0) => NotRecorded::Revoked,
        (0, 0, _) => NotRecorded::KeyReused,
        (0, _, _) => NotRecorded::Evicted,
        _ => NotRecorded::Banned,
    })
}

/// Forgets the used proofs that are long over.
pub(super) async fn sweep(connection: &mut AnyConnection, now: i64) -> Result<(), sqlx::Error> {
    let statement = sqlx::query("DELETE FROM used_proofs WHERE expires_at <= $1");
    statement.bind(now - KEPT_AFTER_EXPIRY).execute(connection).await.map(drop)
}

impl Store {
    /// How many certificates on record have not expired, by the key identifiers of the authorities that signed them.
    pub(crate) async fn live_by_authority(&self, now: OffsetDateTime) -> Result<HashMap<Vec<u8>, u64>, StoreError> {
        let rows: Vec<(Vec<u8>, i64)> = in_time(
            sqlx::query_as(
                "SELECT authority_key_id, count(*) FROM issued WHERE not_after >= $1 GROUP BY authority_key_id",
            )
            .bind(now.unix_timestamp())
            .fetch_all(&self.database.lists),
        )
        .await?;
        Ok(rows.into_iter().map(|(key_id, count)| (key_id, u64::try_from(count).unwrap_or(0))).collect())
    }

    /// How many live certificates of an authority have no successor yet, of those who were attested and not evicted. Below a CA there
    /// may be others until it expires.
    pub(crate) async fn without_successor(&self, authority: &[u8], now: OffsetDateTime) -> Result<u64, StoreError> {
        let count: i64 = in_time(
            sqlx::query_scalar(
                "SELECT count(*) FROM issued JOIN attestations ON number = attestation_number \
                 WHERE not_after >= $1 AND authority_key_id = $2 AND evicted_at IS NULL \
                 AND (issued.profile = 'subordinate-ca' OR NOT EXISTS (SELECT 1 FROM issued AS later WHERE later.attestation_number = issued.attestation_number \
                 AND later.position > issued.position AND later.spiffe_id = issued.spiffe_id \
                 AND later.profile = issued.profile))",
            )
            .bind(now.unix_timestamp())
            .bind(authority)
            .fetch_one(&self.database.lists),
        )
        .await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

/// The SHA-256 of a certificate on record. Rows of before have the certificate.
pub(super) fn certificate_hash(recorded: &[u8]) -> Vec<u8> {
    match recorded.len() {
        // No certificate is as short.
        SHA256_OUTPUT_LEN => recorded.to_vec(),
        _ => digest(&SHA256, recorded).as_ref().to_vec(),
    }
}

/// In microseconds: a clock that jumped ahead and is set back makes no used proof good again.
const KEPT_AFTER_EXPIRY: i64 = 7 * 86_400 * 1_000_000;
const COLUMNS: usize = 15;
/// Statements of three sizes only, so that the database has prepared them all before.
const SIZES: [usize; 3] = [64, 8, 1];

fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rows.len())?;
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_all_rows_in_order() {
        for length in [0, 1, 7, 8, 9, 63, 64, 65, 200] {
            let rows: Vec<usize> = (0..length).collect();
            assert_eq!(chunks(&rows).flatten().copied().collect::<Vec<_>>(), rows);
            assert!(chunks(&rows).all(|chunk| SIZES.contains(&chunk.len())));
        }
    }
}
