//! What must not be lost: the record of everything issued, who proved what for it, join tokens, bans, and the policy.
//!
//! ```text
//! requests ──► two bounded queues ──► committer (one task, one connection) ──► SQLite or PostgreSQL
//!     ▲                                    │ all that wait, in one transaction
//!     └──── Logged<Certificate> ◄──────────┘ only after its commit
//! ```
//! Reads go through small pools of their own. With PostgreSQL, issuers share the records, and tell each other of what changes.

mod acts;
mod agents;
mod at_rest;
mod bundle_sequence;
mod bundles;
mod committer;
mod copy;
mod counts;
mod database;
mod inventory;
mod issued;
mod jwts;
mod log;
mod outbox;
mod policies;
mod postgres;
mod progress;
mod queue;
mod renewal_requests;
mod retention;
mod revocations;
mod revoking;
mod tokens;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use signet_audit::{Previous, VerifierKey};
use signet_identity::{SharedClock, TrustDomain, WorkloadId};
use signet_process::admin::Readiness;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::committer::Committer;
use self::database::Database;
use self::queue::Queue;
use crate::audit::AuditMetrics;
use crate::certificate::Certificate;
use crate::utc::{microseconds, of_microseconds};

pub use at_rest::entries_on_record;

pub(crate) use agents::{AgentRecord, AttestationRecord, Ban, IssuedRecord, Origin, StandingChange};
pub(crate) use bundles::{BundlesChange, PublishedBundles, SignedBundles};
pub(crate) use counts::{Counts, HORIZONS};
pub(crate) use database::Location;
pub(crate) use inventory::{
    Cursor, Direction, Order, PageError, PageStart, Selection, SvidDetails, SvidFilter, SvidRecord,
};
pub(crate) use log::Waiting;
pub(crate) use outbox::Outbox;
pub(crate) use policies::RecordRevisionError;
pub(crate) use postgres::{Change, Changes, PostgresUrl, PostgresUrlError};
pub(crate) use progress::{AcknowledgementRecord, MOST_AT_ONCE, ProgressRecord};
pub(crate) use renewal_requests::{NewRenewalRequest, RenewalRequest, Whose};
pub(crate) use revocations::{
    Concerned, Filter as RevocationFilter, Kind as RevokedKind, NewRevocation, Recorded, RevocationRecord,
    RevocationTarget, RevokedRecord,
};

/// Something whose record is durable. Only the committer makes one, after the commit.
#[derive(Debug)]
pub(crate) struct Logged<T> {
    what: T,
    index: u64,
}

impl<T> Logged<T> {
    /// Of its entry in the audit log.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// Lets it out.
    pub(crate) fn release(self) -> T {
        self.what
    }
}

/// Why a certificate was not recorded, and so is not released.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("its key was certified before")]
    KeyReused,
    #[error("the proof was used before, or has expired")]
    ProofUsed,
    #[error("its SPIFFE ID is banned")]
    Banned,
    #[error("what was attested was evicted")]
    Evicted,
    #[error("its key is revoked, or the certificate that was shown for it, or the authority that signed it")]
    Revoked,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("too many requests wait to be recorded")]
    Busy,
    #[error("the store is shut down")]
    Closed,
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error("a commit failed")]
    Commit(#[source] Arc<sqlx::Error>),
    #[error("a record is not what this program wrote: {what}")]
    Record { what: &'static str },
    #[error("no random numbers")]
    Randomness,
}

/// Why the database of a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the issuer's key is there, but not its database {}: without it, used keys and tokens could be used again\n\
         restore it from a backup, or set another `state` folder to begin anew",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error(
        "the database {} is damaged\nrestore it from a backup, or set another `state` folder to begin anew",
        path.display()
    )]
    Damaged { path: PathBuf, source: Option<sqlx::Error> },
    #[error(
        "the database {place} was written by a newer version (schema {found}, this program knows {known})\n\
         install that version again"
    )]
    Newer { place: String, found: i64, known: i64 },
    #[error(
        "the database {place} belongs to the trust domain {found}, not to {expected}\n\
         set another `state` folder, or another `database`, for this trust domain"
    )]
    OtherTrustDomain { place: String, found: String, expected: String },
    #[error("the name of the database {} is no text", path.display())]
    Name { path: PathBuf },
    #[error("the database {} cannot be opened", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "the audit log {origin} is in this database with another key\n\
         give each issuer an `audit.origin` of its own, or restore the key of this log"
    )]
    OtherLog { origin: String },
    #[error(
        "the audit log {origin} has {size} entries in the database and {published} that were published: the database is older than what was \
         published\nrestore a later backup; or run `signet audit new-log`: the issuer then begins another log, with another key and name, which names this one"
    )]
    LogBehind { origin: String, size: u64, published: u64 },
    #[error(
        "{waiting} entries of the audit log {origin} that ended wait in the database, and are in no log\n\
         move its folder (`audit.1`) back to `audit`, start the issuer until they are published, and end that log again; or run \
         `signet audit new-log --leave-unpublished`: they are never published"
    )]
    LeftBehind { origin: String, waiting: u64 },
    #[error("no random numbers")]
    Randomness,
    #[error("the database {place} cannot be opened")]
    Database { place: String, source: sqlx::Error },
    #[error("the database {place} cannot be brought to this version")]
    Migration { place: String, source: sqlx::migrate::MigrateError },
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum TokenState {
    Good,
    Used { used_at: OffsetDateTime },
    Expired { expires_at: OffsetDateTime },
}

/// The tenths of its life after which a certificate is expected to have been renewed.
pub(crate) const EXPIRING_TENTHS: i64 = 7;

/// What the committer is asked to make durable.
#[derive(Debug)]
pub(crate) enum Write {
    Certificate {
        certificate: Certificate,
        reply: Reply<Result<Logged<Certificate>, LogError>>,
    },
    Token {
        token: crate::attestation::NewJoinToken,
        reply: Reply<Result<(), StoreError>>,
    },
    Revision {
        revision: crate::policy::Revision,
        reply: Reply<Result<(), RecordRevisionError>>,
    },
    Standing {
        change: StandingChange,
        reply: Reply<Result<u64, StoreError>>,
    },
    Bundles {
        change: BundlesChange,
        reply: Reply<Result<u64, StoreError>>,
    },
    RenewalRequest {
        request: NewRenewalRequest,
        reply: Reply<Result<RenewalRequest, StoreError>>,
    },
    Jwt {
        jwt: crate::jwt::Jwt,
        reply: Reply<Result<Logged<crate::jwt::Jwt>, LogError>>,
    },
    BundleSequence {
        content: [u8; 32],
        reply: Reply<Result<u64, StoreError>>,
    },
    Revocation {
        revocation: NewRevocation,
        reply: Reply<Result<Recorded, StoreError>>,
    },
    /// For the log alone.
    Note {
        act: Box<signet_audit::Act>,
        reply: Reply<Result<(), StoreError>>,
    },
    /// Nothing but what is in the outbox.
    Posted,
    /// Entries of the log before this one are in files.
    Published {
        below: u64,
        reply: Reply<Result<(), StoreError>>,
    },
    /// Forgets what is long over. Answered is whether that is all of it.
    Sweep {
        /// How long what has expired stays on record.
        keep: Duration,
        reply: Reply<Result<bool, StoreError>>,
    },
}

type Reply<T> = tokio::sync::oneshot::Sender<T>;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    queue: Queue,
    database: Database,
    /// Drawn anew at each start: by it an issuer knows what it told itself.
    issuer: u64,
    start: u64,
    /// The number of the log of this issuer.
    log: i64,
    outbox: Outbox,
    /// By whoever needs all of the log that is here.
    held: Arc<tokio::sync::Mutex<()>>,
}

/// The audit log that an issuer appends to.
#[derive(Clone, Debug)]
pub(crate) struct AuditLog {
    pub(crate) key: VerifierKey,
    /// Entries that the world has seen.
    pub(crate) published: u64,
    /// The log that this one follows, where none of its entries may be left unpublished.
    pub(crate) follows: Option<Previous>,
    pub(crate) metrics: AuditMetrics,
}

#[cfg(test)]
impl AuditLog {
    /// One that nobody publishes.
    pub(crate) fn unpublished() -> Self {
        #![allow(clippy::unwrap_used)]
        use std::sync::atomic::{AtomicU64, Ordering};
        // Of issuers that share a database, each has one of its own.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let origin = format!("example.org/audit/{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let key = VerifierKey::new(origin.parse().unwrap(), [1; 32]);
        Self { key, published: 0, follows: None, metrics: AuditMetrics::unwatched() }
    }
}

/// The committer, to be finished before the process ends.
#[derive(Debug)]
pub(crate) struct StoreTask {
    committer: JoinHandle<()>,
    stop: CancellationToken,
}

/// The component by which the store's state is known in readiness.
pub(crate) const STORE: &str = "store";

impl Store {
    /// Opens or makes the database, and brings it to this version. At most `pending` writes wait, and half as many first certificates.
    pub(crate) async fn open(
        location: &Location,
        trust_domain: &TrustDomain,
        log: AuditLog,
        pending: usize,
        clock: SharedClock,
        readiness: Readiness,
    ) -> Result<(Self, StoreTask), OpenError> {
        let mut issuer = [0; 8];
        aws_lc_rs::rand::fill(&mut issuer).map_err(|_| OpenError::Randomness)?;
        let issuer = u64::from_be_bytes(issuer);
        let (database, start, own) = Database::open(location, trust_domain, (&log, issuer), clock.now()).await?;
        let number = own.number();
        let (queue, waiting) = queue::queue(pending);
        let (stop, outbox) = (CancellationToken::new(), Outbox::default());
        let committer = Committer {
            database: database.clone(),
            log: own,
            outbox: outbox.clone(),
            metrics: log.metrics,
            issuer,
            clock,
            readiness,
        };
        let committer = tokio::spawn(committer.run(waiting, stop.clone()));
        Ok((
            Self { queue, database, issuer, start, log: number, outbox, held: Arc::default() },
            StoreTask { committer, stop },
        ))
    }

    /// For acts that have their record elsewhere.
    pub(crate) fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// The number of this start: more than that of each before on this database, whatever the clock says. About 32 bits.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Whether renewals wait to be recorded, more than go into one transaction.
    pub(crate) fn has_line(&self) -> bool {
        self.queue.has_line()
    }

    /// Forgets what is long over, a part of it at a time: certificates, and tokens, when `keep` has passed since their ends. Returns whether
    /// that was all.
    pub(crate) async fn sweep(&self, keep: Duration) -> Result<bool, StoreError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::Sweep { keep, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Makes the record of `certificate` durable, and only then hands it back as one that may leave.
    pub(crate) async fn log(&self, certificate: Certificate) -> Result<Logged<Certificate>, LogError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::Certificate { certificate, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }
}

impl StoreTask {
    /// Takes no more, and returns when all that was submitted is durable and the database is closed.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        if let Err(error) = self.committer.await {
            tracing::error!(error = %error, "the committer ended abnormally");
        }
    }
}

/// What a record's text and numbers mean.
fn workload_id(text: &str) -> Result<WorkloadId, StoreError> {
    text.parse().map_err(|_| StoreError::Record { what: "not a SPIFFE ID" })
}

fn time(microseconds: i64) -> Result<OffsetDateTime, StoreError> {
    of_microseconds(microseconds).ok_or(StoreError::Record { what: "not a time" })
}

#[cfg(test)]
mod tests;
