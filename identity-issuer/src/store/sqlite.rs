//! The store on SQLite: opening, migrating, reading.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use signet_identity::{SharedClock, TrustDomain};
use signet_process::admin::Readiness;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlSafeStr, SqliteConnection, SqlitePool};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::committer::Committer;
use super::{Counts, EXPIRING_TENTHS, OpenError, StoreError, Write};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    writes: mpsc::Sender<Write>,
    readers: SqlitePool,
    lists: SqlitePool,
}

/// The committer, to be finished before the process ends.
#[derive(Debug)]
pub(crate) struct StoreTask {
    committer: JoinHandle<()>,
    readers: [SqlitePool; 2],
    stop: CancellationToken,
}

/// The component by which the store's state is known in readiness.
pub(crate) const STORE: &str = "store";

/// Reads are few: a token at each first issue, what a renewal goes back to.
const READERS: u32 = 2;
const LISTS: u32 = 1;
/// How long a statement waits for another process that has the database open, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Databases up to this size are checked whole when opened; larger ones would delay the start.
const CHECKED_WHOLE: u64 = 64 * 1024 * 1024;

/// In order; one that was released is never changed.
const MIGRATIONS: [(i64, &str, &str); 4] = [
    (1, "issued and join tokens", include_str!("../../migrations/0001_issued_and_join_tokens.sql")),
    (2, "policy revisions", include_str!("../../migrations/0002_policy_revisions.sql")),
    (3, "attestations", include_str!("../../migrations/0003_attestations.sql")),
    (4, "join tokens by maker", include_str!("../../migrations/0004_join_tokens_by_maker.sql")),
];

impl Store {
    /// Opens or makes the database at `path`, and brings it to this version. At most `pending` writes wait.
    pub(crate) async fn open(
        path: &Path,
        trust_domain: &TrustDomain,
        pending: usize,
        clock: SharedClock,
        readiness: Readiness,
    ) -> Result<(Self, StoreTask), OpenError> {
        make_private_file(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        let mut writer = options.connect().await.map_err(|source| classify(path, source))?;
        check_integrity(path, &mut writer).await?;
        migrate(path, &mut writer).await?;
        claim(path, &mut writer, trust_domain).await?;
        let options = options.read_only(true);
        let pool = async |connections| {
            let pool = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(BUSY_TIMEOUT);
            pool.connect_with(options.clone()).await.map_err(|source| classify(path, source))
        };
        let (readers, lists) = (pool(READERS).await?, pool(LISTS).await?);
        let (writes, waiting) = mpsc::channel(pending);
        let stop = CancellationToken::new();
        let committer = Committer { connection: writer, clock, readiness };
        let committer = tokio::spawn(committer.run(waiting, stop.clone()));
        let task = StoreTask { committer, readers: [readers.clone(), lists.clone()], stop };
        Ok((Self { writes, readers, lists }, task))
    }

    pub(super) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// For what administrators list: it may take its time, and no renewal waits for it.
    pub(super) fn lists(&self) -> &SqlitePool {
        &self.lists
    }

    /// Never waits: when too much is pending already, more would only be late.
    pub(super) fn submit(&self, write: Write) -> Result<(), StoreError> {
        self.writes.try_send(write).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })
    }

    pub(crate) async fn counts(&self, now: OffsetDateTime) -> Result<Counts, StoreError> {
        let now = now.unix_timestamp();
        // Rows are only ever added, and numbered without a gap: the last number is how many there are.
        let (total, live, expiring): (i64, i64, i64) = sqlx::query_as(
            "SELECT coalesce((SELECT max(position) FROM issued), 0), count(*), \
             coalesce(sum((? - not_before) * 10 > (not_after - not_before) * ?), 0) FROM issued WHERE not_after >= ?",
        )
        .bind(now)
        .bind(EXPIRING_TENTHS)
        .bind(now)
        .fetch_one(&self.lists)
        .await?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(Counts { valid: count(live - expiring), expiring: count(expiring), expired: count(total - live) })
    }
}

impl StoreTask {
    /// Takes no more, and returns when all that was submitted is durable and the database is closed.
    pub(crate) async fn finish(self) {
        // The connection that closes last moves the write-ahead log into the database: the writer's.
        for readers in self.readers {
            readers.close().await;
        }
        self.stop.cancel();
        if let Err(error) = self.committer.await {
            tracing::error!(error = %error, "the committer ended abnormally");
        }
    }
}

/// SQLite gives its side files the mode of this one.
fn make_private_file(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map(drop)
}

async fn check_integrity(path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let size = std::fs::metadata(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?.len();
    if size > CHECKED_WHOLE {
        return Ok(());
    }
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(connection)
        .await
        .map_err(|source| classify(path, source))?;
    match verdict.as_str() {
        "ok" => Ok(()),
        _ => Err(OpenError::Damaged { path: path.to_owned(), source: None }),
    }
}

async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let migrations = MIGRATIONS.map(|(version, description, sql)| {
        Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let known = MIGRATIONS.len() as i64;
    let migrator = Migrator::with_migrations(migrations.into());
    migrator.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) => OpenError::Newer { path: path.to_owned(), found, known },
        MigrateError::Execute(source) => classify(path, source),
        source => OpenError::Migration { path: path.to_owned(), source },
    })
}

/// A state folder belongs to one trust domain for ever.
async fn claim(path: &Path, connection: &mut SqliteConnection, expected: &TrustDomain) -> Result<(), OpenError> {
    let classified = |source| classify(path, source);
    sqlx::query("INSERT INTO issuer (only_row, trust_domain) VALUES (1, ?) ON CONFLICT (only_row) DO NOTHING")
        .bind(expected.as_str())
        .execute(&mut *connection)
        .await
        .map_err(classified)?;
    let found: String =
        sqlx::query_scalar("SELECT trust_domain FROM issuer").fetch_one(connection).await.map_err(classified)?;
    match found == expected.as_str() {
        true => Ok(()),
        false => {
            Err(OpenError::OtherTrustDomain { path: path.to_owned(), found, expected: expected.as_str().to_owned() })
        }
    }
}

fn classify(path: &Path, source: sqlx::Error) -> OpenError {
    /// SQLITE_CORRUPT and SQLITE_NOTADB, the low byte of any extended result code.
    const DAMAGED: [u32; 2] = [11, 26];
    let path: PathBuf = path.to_owned();
    let code = source.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    match code.is_some_and(|code| DAMAGED.contains(&(code & 0xff))) {
        true => OpenError::Damaged { path, source: Some(source) },
        false => OpenError::Database { path, source },
    }
}

#[cfg(test)]
mod tests;
