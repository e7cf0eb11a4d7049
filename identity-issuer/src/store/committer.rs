//! The one writer: takes all requests that wait, and makes them durable by one transaction.

use std::collections::HashSet;
use std::sync::Arc;

use signet_identity::SharedClock;
use signet_process::admin::{Readiness, State};
use sqlx::{Connection, QueryBuilder, Sqlite, SqliteConnection, SqliteTransaction};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{LogError, Logged, RecordRevisionError, STORE, StoreError, Write, microseconds, policies};
use crate::attestation::{Attestation, JoinTokenHash, NewJoinToken};
use crate::certificate::Certificate;

/// More would make the first of them wait for the last.
const MAX_BATCH: usize = 256;

/// What a transaction did with one request. Nobody is told before the commit.
enum Outcome {
    Done,
    KeyReused,
    TokenUsed,
    Overtaken,
}

pub(super) struct Committer {
    pub(super) connection: SqliteConnection,
    pub(super) clock: SharedClock,
    pub(super) readiness: Readiness,
}

impl Committer {
    /// Runs until `stop` is cancelled and all that was submitted before is answered.
    pub(super) async fn run(mut self, mut writes: mpsc::Receiver<Write>, stop: CancellationToken) {
        self.readiness.set(STORE, State::Ready);
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            tokio::select! {
                // Refuses what comes from now on; what waits already is received to the end.
                () = stop.cancelled(), if !writes.is_closed() => writes.close(),
                received = writes.recv_many(&mut batch, MAX_BATCH) => match received {
                    0 => break,
                    _ => self.settle(&mut batch).await,
                },
            }
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the database did not close cleanly; the next start recovers it");
        }
    }

    /// Makes the batch durable and answers it, or answers that nothing of it is.
    async fn settle(&mut self, batch: &mut Vec<Write>) {
        // Whoever gave up meanwhile is not recorded, and loses neither key nor token.
        batch.retain(|write| !is_abandoned(write));
        match self.commit(batch).await {
            Ok(outcomes) => {
                self.readiness.set(STORE, State::Ready);
                batch.drain(..).zip(outcomes).for_each(|(write, outcome)| answer(write, outcome));
            }
            Err(error) => {
                tracing::error!(%error, requests = batch.len(), "nothing recorded: the commit failed");
                self.readiness.set(STORE, State::NotReady { reason: format!("the last commit failed: {error}") });
                let error = Arc::new(error);
                batch.drain(..).for_each(|write| fail(write, &error));
            }
        }
    }

    async fn commit(&mut self, batch: &[Write]) -> Result<Vec<Outcome>, sqlx::Error> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let now = microseconds(self.clock.now());
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut rows = Vec::with_capacity(batch.len());
        for (index, write) in batch.iter().enumerate() {
            outcomes.push(Outcome::Done);
            match write {
                Write::Certificate { certificate, .. } => match &certificate.attestation {
                    Attestation::JoinToken(hash) => {
                        outcomes[index] = redeem(&mut transaction, hash, certificate, now).await?;
                    }
                    Attestation::Svid(_) | Attestation::Issuer => rows.push((index, certificate)),
                },
                Write::Token { token, .. } => add_token(&mut transaction, token).await?,
                Write::Revision { revision, .. } => {
                    if !policies::record(&mut transaction, revision).await? {
                        outcomes[index] = Outcome::Overtaken;
                    }
                }
            }
        }
        for chunk in chunks(&rows) {
            let recorded = record(&mut transaction, chunk.iter().map(|(_, certificate)| *certificate)).await?;
            for (index, _) in chunk.iter().filter(|(_, certificate)| !recorded.contains(&certificate.serial)) {
                outcomes[*index] = Outcome::KeyReused;
            }
        }
        transaction.commit().await?;
        Ok(outcomes)
    }
}

/// Records a certificate and uses up its token, or does neither.
async fn redeem(
    transaction: &mut SqliteTransaction<'_>,
    hash: &JoinTokenHash,
    certificate: &Certificate,
    now: i64,
) -> Result<Outcome, sqlx::Error> {
    if !is_good(transaction, hash, now).await? {
        return Ok(Outcome::TokenUsed);
    }
    if record(transaction, std::iter::once(certificate)).await?.is_empty() {
        return Ok(Outcome::KeyReused);
    }
    use_up(transaction, hash, now).await?;
    Ok(Outcome::Done)
}

/// Adds the certificates by one statement, and returns the serial numbers of those whose key was new.
async fn record<'c>(
    transaction: &mut SqliteTransaction<'_>,
    certificates: impl Iterator<Item = &'c Certificate>,
) -> Result<HashSet<[u8; 16]>, sqlx::Error> {
    let mut statement = QueryBuilder::<Sqlite>::new(
        "INSERT INTO issued (serial, spiffe_id, key_sha256, not_before, not_after, issued_at, attestation, evidence, \
         authority_key_id, certificate) ",
    );
    statement.push_values(certificates, |mut row, certificate| {
        row.push_bind(&certificate.serial[..])
            .push_bind(certificate.id.as_str())
            .push_bind(certificate.key_hash.as_bytes())
            .push_bind(certificate.validity.not_before.unix_timestamp())
            .push_bind(certificate.validity.not_after.unix_timestamp())
            .push_bind(microseconds(certificate.issued_at))
            .push_bind(certificate.attestation.kind())
            .push_bind(certificate.attestation.evidence())
            .push_bind(certificate.authority.as_bytes())
            .push_bind(certificate.chain.first().map(|leaf| leaf.as_ref()));
    });
    statement.push(" ON CONFLICT (key_sha256) DO NOTHING RETURNING serial");
    let serials: Vec<Vec<u8>> = statement.build_query_scalar().fetch_all(&mut **transaction).await?;
    Ok(serials.into_iter().filter_map(|serial| serial.try_into().ok()).collect())
}

/// Statements of three sizes only, so that SQLite has prepared them all before.
fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = [64, 8, 1].into_iter().find(|size| *size <= rows.len())?;
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}

async fn is_good(transaction: &mut SqliteTransaction<'_>, hash: &JoinTokenHash, now: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM join_tokens WHERE token_sha256 = ? AND used_at IS NULL AND expires_at > ?)",
    )
    .bind(hash.as_bytes())
    .bind(now)
    .fetch_one(&mut **transaction)
    .await
}

/// The compare-and-set. It hits exactly one row, as [`is_good`] saw in the same transaction; else all is rolled back.
async fn use_up(transaction: &mut SqliteTransaction<'_>, hash: &JoinTokenHash, now: i64) -> Result<(), sqlx::Error> {
    let used = sqlx::query("UPDATE join_tokens SET used_at = ? WHERE token_sha256 = ? AND used_at IS NULL")
        .bind(now)
        .bind(hash.as_bytes())
        .execute(&mut **transaction)
        .await?;
    match used.rows_affected() {
        1 => Ok(()),
        _ => Err(sqlx::Error::RowNotFound),
    }
}

async fn add_token(transaction: &mut SqliteTransaction<'_>, token: &NewJoinToken) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO join_tokens (token_sha256, spiffe_id, created_at, expires_at) VALUES (?, ?, ?, ?)")
        .bind(token.hash.as_bytes())
        .bind(token.id.as_str())
        .bind(microseconds(token.created_at))
        .bind(microseconds(token.expires_at))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

fn is_abandoned(write: &Write) -> bool {
    match write {
        Write::Certificate { reply, .. } => reply.is_closed(),
        Write::Token { reply, .. } => reply.is_closed(),
        Write::Revision { reply, .. } => reply.is_closed(),
    }
}

/// Whoever asked may have gone: then nobody hears the answer, and the record stands.
fn answer(write: Write, outcome: Outcome) {
    match write {
        Write::Certificate { certificate, reply } => {
            let answer = match outcome {
                Outcome::Done => Ok(Logged(certificate)),
                Outcome::KeyReused => Err(LogError::KeyReused),
                Outcome::TokenUsed => Err(LogError::TokenUsed),
                // Of revisions alone.
                Outcome::Overtaken => Err(StoreError::Closed.into()),
            };
            let _ = reply.send(answer);
        }
        Write::Token { reply, .. } => {
            let _ = reply.send(Ok(()));
        }
        Write::Revision { reply, .. } => {
            let answer = match outcome {
                Outcome::Overtaken => Err(RecordRevisionError::Overtaken),
                Outcome::Done | Outcome::KeyReused | Outcome::TokenUsed => Ok(()),
            };
            let _ = reply.send(answer);
        }
    }
}

fn fail(write: Write, error: &Arc<sqlx::Error>) {
    let error = StoreError::Commit(Arc::clone(error));
    match write {
        Write::Certificate { reply, .. } => {
            let _ = reply.send(Err(error.into()));
        }
        Write::Token { reply, .. } => {
            let _ = reply.send(Err(error));
        }
        Write::Revision { reply, .. } => {
            let _ = reply.send(Err(error.into()));
        }
    }
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
