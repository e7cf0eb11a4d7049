//! The end of the log that this issuer appends to: each transaction takes its entries with it, or leaves none.
//!
//! ```text
//! transaction ──► audit_entries ──► publisher: tiles, checkpoint ──► forgotten here once those are on disk
//! ```
//! Only the committer appends, and only that of the issuer that claimed the log last.

use std::sync::Arc;

use signet_audit::{Act, Entry, Previous, push_entry};
use signet_identity::TrustDomain;
use sqlx::AnyConnection;
use time::OffsetDateTime;
use tokio::sync::OwnedMutexGuard;

use super::database::in_time;
use super::{AuditLog, OpenError, Store, StoreError, Write};

/// Where an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct LogPlace {
    /// Of the log, in this database.
    pub(super) log: i64,
    pub(super) index: i64,
}

/// The log of this issuer.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnLog {
    number: i64,
    /// Drawn at this start.
    holder: i64,
    /// As far as is known here: a commit whose end was not heard of may have made it longer.
    size: i64,
}

/// What one transaction appends. Nothing of it counts before the commit.
#[derive(Debug)]
pub(super) struct Appending {
    log: OwnLog,
    time: OffsetDateTime,
    next: i64,
    entries: Vec<u8>,
}

/// Entries of one transaction, as bundles have them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Waiting {
    /// The index of the first.
    pub(crate) first: u64,
    pub(crate) entries: Vec<u8>,
}

impl OwnLog {
    /// Makes the log, or takes it over from whoever had it before. It has at least the entries that were published, or it is not the one
    /// that was.
    pub(super) async fn claim(
        connection: &mut AnyConnection,
        log: &AuditLog,
        holder: u64,
    ) -> Result<Result<Self, OpenError>, sqlx::Error> {
        let published = log.published;
        let (origin, key, holder) = (log.key.origin().as_str(), log.key.to_string(), holder.cast_signed());
        let insertion = "INSERT INTO audit_logs (origin, verifier_key, holder, size) VALUES ($1, $2, $3, 0) \
                         ON CONFLICT (origin) DO NOTHING";
        sqlx::query(insertion).bind(origin).bind(&key).bind(holder).execute(&mut *connection).await?;
        let claiming = "UPDATE audit_logs SET holder = $2 WHERE origin = $1 RETURNING number, verifier_key, size";
        let (number, kept, size): (i64, String, i64) =
            sqlx::query_as(claiming).bind(origin).bind(holder).fetch_one(&mut *connection).await?;
        if kept != key {
            return Ok(Err(OpenError::OtherLog { origin: origin.to_owned() }));
        }
        // Before its first entry, which says that the other one has ended.
        if let Some(previous) = log.follows.as_ref().filter(|_| size == 0) {
            let waiting = size_of(connection, &previous.origin).await?.unwrap_or(0).saturating_sub(previous.size);
            if waiting > 0 {
                return Ok(Err(OpenError::LeftBehind { origin: previous.origin.clone(), waiting }));
            }
        }
        Ok(match u64::try_from(size) {
            Ok(size) if size >= published => Ok(Self { number, holder, size: size.cast_signed() }),
            _ => Err(OpenError::LogBehind { origin: origin.to_owned(), size: size.unsigned_abs(), published }),
        })
    }

    pub(super) fn number(self) -> i64 {
        self.number
    }

    /// At `time`.
    pub(super) fn append(self, time: OffsetDateTime) -> Appending {
        Appending { log: self, time, next: self.size, entries: Vec::new() }
    }

    /// After a commit of which was not heard how it ended.
    pub(super) async fn catch_up(&mut self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        let reading = "SELECT size FROM audit_logs WHERE number = $1 AND holder = $2";
        let size: Option<i64> =
            sqlx::query_scalar(reading).bind(self.number).bind(self.holder).fetch_optional(connection).await?;
        self.size = size.ok_or_else(taken_over)?;
        Ok(())
    }
}

/// How many entries a log has on record. None where the database does not know it.
pub(super) async fn size_of(connection: &mut AnyConnection, origin: &str) -> Result<Option<u64>, sqlx::Error> {
    let reading = sqlx::query_scalar("SELECT size FROM audit_logs WHERE origin = $1").bind(origin);
    let size: Option<i64> = reading.fetch_optional(connection).await?;
    Ok(size.map(i64::unsigned_abs))
}

impl Appending {
    /// Of the entry that is pushed next.
    pub(super) fn place(&self) -> LogPlace {
        LogPlace { log: self.log.number, index: self.next }
    }

    pub(super) fn push(&mut self, act: Act) -> Result<(), sqlx::Error> {
        let entry = Entry::new(self.time, act).and_then(|entry| entry.encode());
        let entry = entry.map_err(|error| sqlx::Error::Encode(error.into()))?;
        // It was encoded as one.
        push_entry(&mut self.entries, &entry).ok_or_else(|| sqlx::Error::Encode("an entry is too long".into()))?;
        self.next += 1;
        Ok(())
    }

    /// Into the transaction. Returns the log as it is after the commit.
    pub(super) async fn write(self, connection: &mut AnyConnection) -> Result<OwnLog, sqlx::Error> {
        let OwnLog { number, holder, size } = self.log;
        if self.next == size {
            return Ok(self.log);
        }
        let growing = "UPDATE audit_logs SET size = $4 WHERE number = $1 AND holder = $2 AND size = $3";
        let grown = sqlx::query(growing).bind(number).bind(holder).bind(size).bind(self.next).execute(&mut *connection);
        if grown.await?.rows_affected() != 1 {
            return Err(not_where_it_was());
        }
        sqlx::query("INSERT INTO audit_entries (log, first, entries) VALUES ($1, $2, $3)")
            .bind(number)
            .bind(size)
            .bind(self.entries)
            .execute(connection)
            .await?;
        Ok(OwnLog { number, holder, size: self.next })
    }
}

impl Store {
    /// That the log begins, where it has no entry yet, and that the issuer was started.
    pub(crate) async fn begin_log(
        &self,
        trust_domain: &TrustDomain,
        previous: Option<Previous>,
    ) -> Result<(), StoreError> {
        let software = format!("signet {}", env!("CARGO_PKG_VERSION"));
        let (size, _) = self.log_from(0).await?;
        if size == 0 {
            let (trust_domain, software) = (trust_domain.to_string(), software.clone());
            self.note(Act::LogBegun { trust_domain, software, previous }).await?;
        }
        self.note(Act::Started { software }).await
    }

    /// Makes an act durable that has no other record.
    pub(crate) async fn note(&self, act: Act) -> Result<(), StoreError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::Note { act: Box::new(act), reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// How many entries the log has, and what waits of it from entry `from` on, about as many bytes as said. None of it comes twice; what is
    /// before `from` may have been forgotten.
    pub(crate) async fn log_from(&self, from: u64) -> Result<(u64, Vec<Waiting>), StoreError> {
        let size: i64 = in_time(
            sqlx::query_scalar("SELECT size FROM audit_logs WHERE number = $1")
                .bind(self.log)
                .fetch_one(&self.database.readers),
        )
        .await?;
        let rows: Vec<(i64, Vec<u8>)> = in_time(
            sqlx::query_as(
                "SELECT first, entries FROM audit_entries WHERE log = $1 AND first >= $2 ORDER BY first LIMIT $3",
            )
            .bind(self.log)
            .bind(from.cast_signed())
            .bind(TRANSACTIONS_AT_ONCE)
            .fetch_all(&self.database.readers),
        )
        .await?;
        let waiting = |(first, entries): (i64, Vec<u8>)| Waiting { first: first.unsigned_abs(), entries };
        Ok((size.unsigned_abs(), rows.into_iter().map(waiting).collect()))
    }

    /// The index of the first entry that is kept here still; the size of the log where none is.
    pub(crate) async fn log_kept_from(&self) -> Result<u64, StoreError> {
        let first: i64 = in_time(
            sqlx::query_scalar(
                "SELECT coalesce((SELECT min(first) FROM audit_entries WHERE log = $1), \
                 (SELECT size FROM audit_logs WHERE number = $1))",
            )
            .bind(self.log)
            .fetch_one(&self.database.readers),
        )
        .await?;
        Ok(first.unsigned_abs())
    }

    /// Until it is dropped, nothing of the log is forgotten.
    pub(crate) async fn hold_log(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.held).lock_owned().await
    }

    /// Forgets entries before `below`: they are in files that a power cut does not take away. Not now, where somebody holds the log.
    pub(crate) async fn forget_published(&self, below: u64) -> Result<(), StoreError> {
        let Ok(_free) = self.held.try_lock() else { return Ok(()) };
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::Published { below, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }
}

pub(super) async fn forget(connection: &mut AnyConnection, log: OwnLog, below: u64) -> Result<(), sqlx::Error> {
    let forgetting = "DELETE FROM audit_entries WHERE log = $1 AND first < $2";
    sqlx::query(forgetting).bind(log.number).bind(below.cast_signed()).execute(connection).await.map(drop)
}

/// Whether a transaction failed because the log is not where it was believed to end.
pub(super) fn is_elsewhere(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Configuration(cause) if cause.is::<NotWhereItWas>())
}

#[derive(Debug, thiserror::Error)]
#[error("the audit log is longer than this issuer knows, or another one appends to it")]
struct NotWhereItWas;

#[derive(Debug, thiserror::Error)]
#[error("another issuer has taken over the audit log of this one: end one of the two")]
struct TakenOver;

fn not_where_it_was() -> sqlx::Error {
    sqlx::Error::Configuration(NotWhereItWas.into())
}

fn taken_over() -> sqlx::Error {
    sqlx::Error::Configuration(TakenOver.into())
}

/// Of at most some hundred entries each.
const TRANSACTIONS_AT_ONCE: i64 = 64;
