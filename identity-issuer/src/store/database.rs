//! Where the records are: in a SQLite file of the state folder, or in a PostgreSQL database that several issuers share.
//!
//! Both speak the SQL of the modules beside this one, through sqlx's driver for any database; `$1` stands for a parameter in each.
//! What is different stands here: connecting, migrations, locks, and how others are told.

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Once;
use std::time::Duration;

use signet_identity::TrustDomain;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Any, AnyConnection, AnyPool, Connection, SqlSafeStr, Transaction};
use time::OffsetDateTime;

use super::log::OwnLog;
use super::postgres::PostgresUrl;
use super::{AuditLog, OpenError};
use crate::revocation::Lineage;

/// Where to keep records.
#[derive(Clone, Debug)]
pub(crate) enum Location {
    /// A file, of this process alone.
    File(PathBuf),
    Postgres(PostgresUrl),
}

impl Location {
    pub(crate) fn password_file(&self) -> Option<&Path> {
        match self {
            Self::File(_) => None,
            Self::Postgres(url) => url.password_file(),
        }
    }
}

/// An open database. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Database {
    pub(super) kind: Kind,
    /// The committer's. It uses one connection at a time.
    pub(super) writer: AnyPool,
    /// For what a request waits for.
    pub(super) readers: AnyPool,
    /// For what administrators list: it may take its time, and no renewal waits for it.
    pub(super) lists: AnyPool,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Sqlite,
    Postgres(PostgresUrl),
}

/// How long anything may take that a database is asked for. A host that is gone without a word ends no connection.
pub(super) const LIMIT: Duration = Duration::from_secs(12);
/// How long a statement waits for a connection, or for another process that has the database open.
const PATIENCE: Duration = Duration::from_secs(5);
/// SQLite databases up to this size are checked whole when opened; larger ones would delay the start.
const CHECKED_WHOLE: u64 = 64 * 1024 * 1024;
/// Of PostgreSQL: all issuers lock the same number.
pub(super) const STANDING_LOCK: i64 = 0x5369_676e_6574;

/// In order; one that was released is never changed.
const SQLITE_MIGRATIONS: Migrations = &[
    (1, "issued and join tokens", include_str!("../../migrations/sqlite/0001_issued_and_join_tokens.sql")),
    (2, "policy revisions", include_str!("../../migrations/sqlite/0002_policy_revisions.sql")),
    (3, "attestations", include_str!("../../migrations/sqlite/0003_attestations.sql")),
    (4, "join tokens by maker", include_str!("../../migrations/sqlite/0004_join_tokens_by_maker.sql")),
    (5, "removed rules", include_str!("../../migrations/sqlite/0005_removed_rules.sql")),
    (6, "profiles", include_str!("../../migrations/sqlite/0006_profiles.sql")),
    (7, "bundles and renewal requests", include_str!("../../migrations/sqlite/0007_bundles_and_renewal_requests.sql")),
    (8, "agent progress", include_str!("../../migrations/sqlite/0008_agent_progress.sql")),
    (9, "authorities", include_str!("../../migrations/sqlite/0009_authorities.sql")),
    (10, "revocations", include_str!("../../migrations/sqlite/0010_revocations.sql")),
    (11, "published", include_str!("../../migrations/sqlite/0011_published.sql")),
    (12, "jwt acknowledgements", include_str!("../../migrations/sqlite/0012_jwt_acknowledgements.sql")),
    (13, "starts", include_str!("../../migrations/sqlite/0013_starts.sql")),
    (14, "audit logs", include_str!("../../migrations/sqlite/0014_audit_logs.sql")),
    (15, "inventory", include_str!("../../migrations/sqlite/0015_inventory.sql")),
];
const POSTGRES_MIGRATIONS: Migrations = &[
    (1, "store", include_str!("../../migrations/postgres/0001_store.sql")),
    (2, "profiles", include_str!("../../migrations/postgres/0002_profiles.sql")),
    (
        3,
        "bundles and renewal requests",
        include_str!("../../migrations/postgres/0003_bundles_and_renewal_requests.sql"),
    ),
    (4, "agent progress", include_str!("../../migrations/postgres/0004_agent_progress.sql")),
    (5, "authorities", include_str!("../../migrations/postgres/0005_authorities.sql")),
    (6, "revocations", include_str!("../../migrations/postgres/0006_revocations.sql")),
    (7, "published", include_str!("../../migrations/postgres/0007_published.sql")),
    (8, "jwt acknowledgements", include_str!("../../migrations/postgres/0008_jwt_acknowledgements.sql")),
    (9, "starts", include_str!("../../migrations/postgres/0009_starts.sql")),
    (10, "audit logs", include_str!("../../migrations/postgres/0010_audit_logs.sql")),
    (11, "inventory", include_str!("../../migrations/postgres/0011_inventory.sql")),
];

impl Database {
    /// Opens or makes it, and brings it to this version. Returns the number of this start too: Unix seconds, unless it was opened later
    /// than `now` before; then one more than that. And the log, which `holder` has from now on.
    pub(super) async fn open(
        location: &Location,
        trust_domain: &TrustDomain,
        (log, holder): (&AuditLog, u64),
        now: OffsetDateTime,
    ) -> Result<(Self, u64, OwnLog), OpenError> {
        install_drivers();
        let opening = Opening { location };
        let (kind, write, read) = match location {
            Location::File(path) => {
                make_private_file(path).map_err(|source| OpenError::Io { path: path.clone(), source })?;
                let nameless = || OpenError::Name { path: path.clone() };
                let options = |mode| file_options(path, mode).ok_or_else(nameless);
                (Kind::Sqlite, options("mode=rw")?, options("mode=ro")?)
            }
            Location::Postgres(url) => {
                let options = url.options().map_err(|source| opening.failed(source))?;
                (Kind::Postgres(url.clone()), options.clone(), options)
            }
        };
        // A pool would try until its patience ends, and not tell what is wrong.
        let connecting = in_time(AnyConnection::connect_with(&write));
        let mut first = connecting.await.map_err(|source| opening.failed(source))?;
        kind.prepare(&mut first, true).await.map_err(|source| opening.failed(source))?;
        opening.check_integrity(&mut first).await?;
        opening.migrate(&kind, &mut first).await?;
        opening.claim(&mut first, trust_domain).await?;
        opening.draw_lineage(&mut first).await?;
        let start = opening.number_start(&mut first, now).await?;
        let claimed = OwnLog::claim(&mut first, log, holder).await;
        let log = claimed.map_err(|source| opening.failed(source))??;
        // A connection that hangs holds its place for long: of PostgreSQL there are more than are used at once.
        let (writers, readers, lists) = match kind {
            // Of two lists, the one may be a count that takes seconds.
            Kind::Sqlite => (1, 2, 2),
            Kind::Postgres(_) => (4, 8, 4),
        };
        let pools = async {
            Ok(Self {
                writer: kind.pool(writers, true).connect_with(write).await?,
                readers: kind.pool(readers, false).connect_with(read.clone()).await?,
                lists: kind.pool(lists, false).connect_with(read).await?,
                kind,
            })
        };
        let database = pools.await.map_err(|source| opening.failed(source))?;
        first.close().await.map_err(|source| opening.failed(source))?;
        Ok((database, start, log))
    }

    /// A transaction of the committer.
    pub(super) async fn begin<'c>(
        &self,
        connection: &'c mut AnyConnection,
    ) -> Result<Transaction<'c, Any>, sqlx::Error> {
        match &self.kind {
            // Not one that finds out at its first write that it has to wait.
            Kind::Sqlite => connection.begin_with("BEGIN IMMEDIATE").await,
            Kind::Postgres(_) => connection.begin().await,
        }
    }

    /// Until the end of the transaction, what has a standing keeps it, or the transaction alone takes it from somebody: whoever is
    /// told that a ban is on record is told so when no certificate can come behind it any more, at whichever issuer.
    pub(super) async fn lock_standing(
        &self,
        transaction: &mut AnyConnection,
        exclusive: bool,
    ) -> Result<(), sqlx::Error> {
        let statement = match (&self.kind, exclusive) {
            // There is one writer.
            (Kind::Sqlite, _) => return Ok(()),
            (Kind::Postgres(_), true) => "SELECT 1 FROM pg_advisory_xact_lock($1)",
            (Kind::Postgres(_), false) => "SELECT 1 FROM pg_advisory_xact_lock_shared($1)",
        };
        sqlx::query(statement).bind(STANDING_LOCK).execute(transaction).await.map(drop)
    }

    pub(super) async fn close(self) {
        // The connection that closes last moves SQLite's write-ahead log into the database: the writer's.
        let closing = async {
            self.readers.close().await;
            self.lists.close().await;
            self.writer.close().await;
        };
        if tokio::time::timeout(LIMIT, closing).await.is_err() {
            tracing::warn!("the database does not close; the process ends without");
        }
    }
}

pub(super) type Migrations = &'static [(i64, &'static str, &'static str)];

pub(super) fn migrator(migrations: Migrations) -> Migrator {
    let migrations = migrations.iter().map(|(version, description, sql)| {
        Migration::new(*version, (*description).into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect::<Vec<_>>())
}

impl Kind {
    pub(super) fn migrations(&self) -> Migrations {
        match self {
            Self::Sqlite => SQLITE_MIGRATIONS,
            Self::Postgres(_) => POSTGRES_MIGRATIONS,
        }
    }

    fn pool(&self, connections: u32, writes: bool) -> AnyPoolOptions {
        let pool = AnyPoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE);
        let kind = self.clone();
        pool.after_connect(move |connection, _| {
            let kind = kind.clone();
            Box::pin(async move { kind.prepare(connection, writes).await })
        })
    }

    /// For each new connection, of those that write or of those that read.
    async fn prepare(&self, connection: &mut AnyConnection, writes: bool) -> Result<(), sqlx::Error> {
        let statements: &[&'static str] = match self {
            Self::Sqlite if !writes => &[],
            // What was written is there after a power cut.
            Self::Sqlite => &[
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                // In KiB, of 2 MiB otherwise: keys are new at random places of their index.
                "PRAGMA cache_size = -16384",
                // In pages, 8 MiB: what is written again and again goes to the database once for many times, and nobody waits for long.
                "PRAGMA wal_autocheckpoint = 2048",
            ],
            Self::Postgres(_) => &[
                // A statement that hangs would hold up all that wait behind it.
                "SET statement_timeout = '10s'",
                "SET idle_in_transaction_session_timeout = '30s'",
                // Whoever has waited for a ban sees it: its statements see what was committed before each of them.
                "SET default_transaction_isolation = 'read committed'",
                "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
            ],
        };
        for statement in statements {
            sqlx::query(*statement).fetch_optional(&mut *connection).await?;
        }
        Ok(())
    }
}

pub(super) fn install_drivers() {
    static DRIVERS: Once = Once::new();
    DRIVERS.call_once(sqlx::any::install_default_drivers);
}

pub(super) fn file_options(path: &Path, mode: &str) -> Option<AnyConnectOptions> {
    let absolute = std::path::absolute(path).ok()?;
    let mut options = AnyConnectOptions::from_str("sqlite:///").ok()?;
    // It is decoded when it is read.
    options.database_url.set_path(&absolute.to_str()?.replace('%', "%25"));
    options.database_url.set_query(Some(mode));
    Some(options)
}

/// The parameters of so many rows, as VALUES takes them.
pub(super) fn parameters(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let parameters: Vec<_> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", parameters.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// Positions on record in parts of few sizes, so that their statements have been prepared before: what is lacking is filled up with one
/// that nothing has.
pub(super) fn padded(positions: &[i64]) -> Vec<Vec<i64>> {
    const SIZES: [usize; 3] = [16, 128, 1024];
    let fill = |part: &[i64]| {
        let size = SIZES.into_iter().find(|size| *size >= part.len()).unwrap_or(part.len());
        part.iter().copied().chain(std::iter::repeat(-1)).take(size).collect()
    };
    positions.chunks(SIZES[SIZES.len() - 1]).map(fill).collect()
}

/// What a database does, in time.
pub(super) async fn in_time<T>(asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(LIMIT, asked).await {
        Ok(answered) => answered,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// Whether the transaction failed because of another one, so that it may succeed the next time.
pub(super) fn is_conflict(error: &sqlx::Error) -> bool {
    /// serialization_failure and deadlock_detected of PostgreSQL.
    const CONFLICTS: [&str; 2] = ["40001", "40P01"];
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| CONFLICTS.contains(&&*code))
}

/// SQLite gives its side files the mode of this one.
fn make_private_file(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map(drop)
}

struct Opening<'a> {
    location: &'a Location,
}

impl Opening<'_> {
    async fn check_integrity(&self, connection: &mut AnyConnection) -> Result<(), OpenError> {
        let Location::File(path) = self.location else { return Ok(()) };
        let size = std::fs::metadata(path).map_err(|source| OpenError::Io { path: path.clone(), source })?.len();
        if size > CHECKED_WHOLE {
            return Ok(());
        }
        let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(connection)
            .await
            .map_err(|source| self.failed(source))?;
        match verdict.as_str() {
            "ok" => Ok(()),
            _ => Err(OpenError::Damaged { path: path.clone(), source: None }),
        }
    }

    async fn migrate(&self, kind: &Kind, connection: &mut AnyConnection) -> Result<(), OpenError> {
        let known = kind.migrations();
        if let Kind::Postgres(_) = kind {
            // A change of a large table takes its time. This connection ends with it.
            let unlimited = sqlx::query("SET statement_timeout = 0").execute(&mut *connection).await;
            unlimited.map_err(|source| self.failed(source))?;
        }
        migrator(known).run_direct(None, connection, false).await.map_err(|error| match error {
            MigrateError::VersionMissing(found) => {
                OpenError::Newer { place: self.location.to_string(), found, known: known.len() as i64 }
            }
            MigrateError::Execute(source) => self.failed(source),
            source => OpenError::Migration { place: self.location.to_string(), source },
        })
    }

    /// A database belongs to one trust domain for ever.
    async fn claim(&self, connection: &mut AnyConnection, expected: &TrustDomain) -> Result<(), OpenError> {
        let failed = |source| self.failed(source);
        sqlx::query("INSERT INTO issuer (only_row, trust_domain) VALUES (1, $1) ON CONFLICT (only_row) DO NOTHING")
            .bind(expected.as_str())
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
        let found: String =
            sqlx::query_scalar("SELECT trust_domain FROM issuer").fetch_one(connection).await.map_err(failed)?;
        match found == expected.as_str() {
            true => Ok(()),
            false => {
                let (place, expected) = (self.location.to_string(), expected.as_str().to_owned());
                Err(OpenError::OtherTrustDomain { place, found, expected })
            }
        }
    }

    /// Once for each database.
    async fn draw_lineage(&self, connection: &mut AnyConnection) -> Result<(), OpenError> {
        let drawn = Lineage::draw().map_err(|_| OpenError::Randomness)?;
        let insertion = "INSERT INTO revocation_epoch (only_row, lineage, epoch) VALUES (1, $1, 0) \
                         ON CONFLICT (only_row) DO NOTHING";
        let inserted = sqlx::query(insertion).bind(drawn.as_bytes()).execute(connection).await;
        inserted.map(drop).map_err(|source| self.failed(source))
    }

    async fn number_start(&self, connection: &mut AnyConnection, now: OffsetDateTime) -> Result<u64, OpenError> {
        let numbering = "INSERT INTO starts (only_row, latest) VALUES (1, $1) ON CONFLICT (only_row) DO UPDATE SET latest = CASE \
                         WHEN starts.latest >= excluded.latest THEN starts.latest + 1 ELSE excluded.latest END RETURNING latest";
        let numbered = sqlx::query_scalar(numbering).bind(now.unix_timestamp().max(0)).fetch_one(connection).await;
        numbered.map(i64::unsigned_abs).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: sqlx::Error) -> OpenError {
        /// SQLITE_CORRUPT and SQLITE_NOTADB, the low byte of any extended result code.
        const DAMAGED: [u32; 2] = [11, 26];
        let code = source.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
        match self.location {
            Location::File(path) if code.is_some_and(|code| DAMAGED.contains(&(code & 0xff))) => {
                OpenError::Damaged { path: path.clone(), source: Some(source) }
            }
            location => OpenError::Database { place: location.to_string(), source },
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => write!(f, "{url}"),
        }
    }
}
