//! The record of certificates, and what it takes to enter it: a proof that is not used up, a key that is new, and nobody banned or
//! evicted. All of it is asked of the database in the transaction that records, so that no order of events lets one slip through.

use std::collections::HashSet;

use sqlx::{Connection, QueryBuilder, Sqlite, SqliteConnection, SqliteTransaction};

use super::{LogError, microseconds, tokens};
use crate::attestation::{AttestationNumber, Attested, Evidence, Subject};
use crate::certificate::Certificate;

/// Why a certificate is not recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NotRecorded {
    KeyReused,
    ProofUsed,
    Banned,
    Evicted,
}

impl From<NotRecorded> for LogError {
    fn from(reason: NotRecorded) -> Self {
        match reason {
            NotRecorded::KeyReused => Self::KeyReused,
            NotRecorded::ProofUsed => Self::ProofUsed,
            NotRecorded::Banned => Self::Banned,
            NotRecorded::Evicted => Self::Evicted,
        }
    }
}

/// Records what was attested and the certificate made for it, and uses up the proof; or does nothing of it.
pub(super) async fn first(
    transaction: &mut SqliteTransaction<'_>,
    attested: &Attested,
    certificate: &Certificate,
    now: i64,
) -> Result<Result<(), NotRecorded>, sqlx::Error> {
    let mut savepoint = transaction.begin().await?;
    let recorded = attempt(&mut savepoint, attested, certificate, now).await?;
    match recorded {
        Ok(()) => savepoint.commit().await?,
        Err(_) => savepoint.rollback().await?,
    }
    Ok(recorded)
}

async fn attempt(
    connection: &mut SqliteConnection,
    attested: &Attested,
    certificate: &Certificate,
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
    let number = add_attestation(connection, attested, certificate, now).await?;
    let recorded = insert(connection, &[(certificate, Some(number))]).await?;
    if recorded.is_empty() {
        return Ok(Err(why(connection, certificate, Some(number)).await?));
    }
    Ok(Ok(()))
}

/// The compare-and-set of a proof that is good once; true for whoever comes first, and in time.
async fn use_up(connection: &mut SqliteConnection, proof: &[u8], until: i64, now: i64) -> Result<bool, sqlx::Error> {
    // What is over is refused without being looked up.
    if until <= now {
        return Ok(false);
    }
    sqlx::query("DELETE FROM used_proofs WHERE expires_at <= ?")
        .bind(now - KEPT_AFTER_EXPIRY)
        .execute(&mut *connection)
        .await?;
    let used = sqlx::query("INSERT INTO used_proofs (proof, expires_at) VALUES (?, ?) ON CONFLICT (proof) DO NOTHING")
        .bind(proof)
        .bind(until)
        .execute(connection)
        .await?;
    Ok(used.rows_affected() == 1)
}

async fn add_attestation(
    connection: &mut SqliteConnection,
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
        "INSERT INTO attestations (spiffe_id, method, attributes, proof, attested_at) VALUES (?, ?, ?, ?, ?) \
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

/// Records renewals, and the issuer's own. Returns those that were not, with the reason.
pub(super) async fn renewals(
    transaction: &mut SqliteTransaction<'_>,
    rows: &[(usize, &Certificate, Option<AttestationNumber>)],
) -> Result<Vec<(usize, NotRecorded)>, sqlx::Error> {
    let mut refused = Vec::new();
    for chunk in chunks(rows) {
        let of_chunk: Vec<_> = chunk.iter().map(|(_, certificate, number)| (*certificate, *number)).collect();
        let recorded = insert(transaction, &of_chunk).await?;
        for (index, certificate, number) in chunk {
            if !recorded.contains(&certificate.serial) {
                refused.push((*index, why(transaction, certificate, *number).await?));
            }
        }
    }
    Ok(refused)
}

/// Adds the certificates by one statement, and returns the serial numbers of those that were let in.
async fn insert(
    connection: &mut SqliteConnection,
    certificates: &[(&Certificate, Option<AttestationNumber>)],
) -> Result<HashSet<[u8; 16]>, sqlx::Error> {
    let mut statement = QueryBuilder::<Sqlite>::new(
        "INSERT INTO issued (serial, spiffe_id, key_sha256, not_before, not_after, issued_at, attestation, evidence, \
         authority_key_id, certificate, attestation_number) SELECT * FROM (",
    );
    statement.push_values(certificates, |mut row, (certificate, number)| {
        row.push_bind(&certificate.serial[..])
            .push_bind(certificate.id.as_str())
            .push_bind(certificate.key_hash.as_bytes())
            .push_bind(certificate.validity.not_before.unix_timestamp())
            .push_bind(certificate.validity.not_after.unix_timestamp())
            .push_bind(microseconds(certificate.issued_at))
            .push_bind(certificate.attestation.kind())
            .push_bind(certificate.attestation.evidence())
            .push_bind(certificate.authority.as_bytes())
            .push_bind(certificate.chain.first().map(|leaf| leaf.as_ref()))
            .push_bind(number.map(|number| number.0));
    });
    // The columns of VALUES have no other names.
    statement.push(
        ") AS asked WHERE NOT EXISTS (SELECT 1 FROM bans WHERE bans.spiffe_id = asked.column2) \
         AND NOT EXISTS (SELECT 1 FROM attestations WHERE number = asked.column11 AND evicted_at IS NOT NULL) \
         ON CONFLICT (key_sha256) DO NOTHING RETURNING serial",
    );
    let serials: Vec<Vec<u8>> = statement.build_query_scalar().fetch_all(connection).await?;
    Ok(serials.into_iter().filter_map(|serial| serial.try_into().ok()).collect())
}

/// Of one that was not let in.
async fn why(
    connection: &mut SqliteConnection,
    certificate: &Certificate,
    number: Option<AttestationNumber>,
) -> Result<NotRecorded, sqlx::Error> {
    let (banned, evicted): (bool, bool) = sqlx::query_as(
        "SELECT EXISTS (SELECT 1 FROM bans WHERE spiffe_id = ?), \
         EXISTS (SELECT 1 FROM attestations WHERE number = ? AND evicted_at IS NOT NULL)",
    )
    .bind(certificate.id.as_str())
    .bind(number.map(|number| number.0))
    .fetch_one(connection)
    .await?;
    Ok(match (banned, evicted) {
        (true, _) => NotRecorded::Banned,
        (false, true) => NotRecorded::Evicted,
        (false, false) => NotRecorded::KeyReused,
    })
}

/// In microseconds: a clock that jumped ahead and is set back makes no used proof good again.
const KEPT_AFTER_EXPIRY: i64 = 7 * 86_400 * 1_000_000;

/// Statements of three sizes only, so that SQLite has prepared them all before.
fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = [64, 8, 1].into_iter().find(|size| *size <= rows.len())?;
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
            assert!(chunks(&rows).all(|chunk| [1, 8, 64].contains(&chunk.len())));
        }
    }
}
