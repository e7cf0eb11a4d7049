//! The one writer: takes all requests that wait, and makes them durable by one transaction.

use std::sync::Arc;

use signet_identity::SharedClock;
use signet_process::admin::{Readiness, State};
use sqlx::{Connection, SqliteConnection, SqliteTransaction};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{LogError, Logged, STORE, StoreError, Write};
use crate::attestation::{Attestation, JoinTokenHash, NewJoinToken};
use crate::certificate::Certificate;

/// More would make the first of them wait for the last.
const MAX_BATCH: usize = 256;

/// What a transaction did with one request. Nobody is told before the commit.
enum Outcome {
    Done,
    KeyReused,
    TokenUsed,
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
        let now = self.clock.now().unix_timestamp();
        let mut outcomes = Vec::with_capacity(batch.len());
        for write in batch {
            outcomes.push(match write {
                Write::Certificate { certificate, .. } => record(&mut transaction, certificate, now).await?,
                Write::Token { token, .. } => add_token(&mut transaction, token).await?,
            });
        }
        transaction.commit().await?;
        Ok(outcomes)
    }
}

async fn record(
    transaction: &mut SqliteTransaction<'_>,
    certificate: &Certificate,
    now: i64,
) -> Result<Outcome, sqlx::Error> {
    if let Attestation::JoinToken(hash) = &certificate.attestation
        && !is_good(transaction, hash, now).await?
    {
        return Ok(Outcome::TokenUsed);
    }
    let inserted = sqlx::query(
        "INSERT INTO issued (serial, spiffe_id, key_sha256, not_before, not_after, issued_at, attestation, evidence, \
         authority_key_id, certificate) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key_sha256) DO NOTHING",
    )
    .bind(&certificate.serial[..])
    .bind(certificate.id.as_str())
    .bind(certificate.key_hash.as_bytes())
    .bind(certificate.validity.not_before.unix_timestamp())
    .bind(certificate.validity.not_after.unix_timestamp())
    .bind((certificate.issued_at.unix_timestamp_nanos() / 1000) as i64)
    .bind(certificate.attestation.kind())
    .bind(certificate.attestation.evidence())
    .bind(certificate.authority.as_bytes())
    .bind(certificate.chain.first().map(|leaf| leaf.as_ref()))
    .execute(&mut **transaction)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(Outcome::KeyReused);
    }
    if let Attestation::JoinToken(hash) = &certificate.attestation {
        use_up(transaction, hash, now).await?;
    }
    Ok(Outcome::Done)
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

/// The compare-and-set. It hits exactly one row, as [`is_good`] saw in the same transaction; if not, all is rolled back.
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

async fn add_token(transaction: &mut SqliteTransaction<'_>, token: &NewJoinToken) -> Result<Outcome, sqlx::Error> {
    sqlx::query("INSERT INTO join_tokens (token_sha256, spiffe_id, created_at, expires_at) VALUES (?, ?, ?, ?)")
        .bind(token.hash.as_bytes())
        .bind(token.id.as_str())
        .bind(token.created_at.unix_timestamp())
        .bind(token.expires_at.unix_timestamp())
        .execute(&mut **transaction)
        .await?;
    Ok(Outcome::Done)
}

fn is_abandoned(write: &Write) -> bool {
    match write {
        Write::Certificate { reply, .. } => reply.is_closed(),
        Write::Token { reply, .. } => reply.is_closed(),
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
            };
            let _ = reply.send(answer);
        }
        Write::Token { reply, .. } => {
            let _ = reply.send(Ok(()));
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
    }
}
