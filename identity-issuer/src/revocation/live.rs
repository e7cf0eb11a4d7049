//! What is revoked and has not expired, in memory: read from the record, told to all who ask for it.
//!
//! Statements are cut at places that are the same for all clients, and kept once they are signed: a thousand clients that come back at
//! once cost one signature for each statement, not a thousand.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signet_identity::{RevocationStatement, SharedClock, TrustDomain, WorkloadId};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::ahead::{Ahead, IsAhead, Summary};
use super::statement::{Lineage, SignedStatement, Span, Unsigned};
use super::{Entry, SerialNumber, What};
use crate::authority::{Authorities, Authority, KeyId, SignError, sign_with};
use crate::complaint::Complaint;
use crate::csr::KeyHash;
use crate::distribution::Distribution;
use crate::metrics::Metrics;
use crate::store::{RevokedKind, RevokedRecord, Store, StoreError};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Revocations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    trust_domain: TrustDomain,
    lineage: Lineage,
    store: Store,
    authorities: Authorities,
    distribution: Distribution,
    clock: SharedClock,
    live: Mutex<Live>,
    /// Counts the times that the record was begun to be read.
    begun: AtomicU64,
    /// Held by who reads the record: which time it was read to its end.
    reading: tokio::sync::Mutex<u64>,
    signed: Arc<tokio::sync::Mutex<Signed>>,
    /// There is something to be told.
    arrived: Notify,
    /// The latest time by which what has expired was forgotten, or not read.
    seen: Mutex<OffsetDateTime>,
    told: watch::Sender<Told>,
    complaint: Mutex<Complaint>,
    /// Who has heard of more than there is on record,
    ahead: Ahead,
    /// and when that was last told.
    lost: Mutex<Option<Instant>>,
}

/// In the order of their epochs.
#[derive(Debug, Default)]
struct Live {
    entries: Vec<Entry>,
    /// How far the record was read,
    read: u64,
    /// and how far it goes.
    latest: u64,
    /// Each once.
    authorities: HashSet<Arc<KeyId>>,
}

/// When clients were last told that there is more.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Told {
    /// How far the record was read then, and the time before.
    read: u64,
    previous: u64,
}

/// Statements that were signed.
#[derive(Debug, Default)]
struct Signed {
    by: Option<Arc<Authority>>,
    statements: HashMap<Span, Arc<SignedStatement>>,
    bytes: usize,
}

/// Why nothing can be said of what is revoked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatementError {
    #[error("no authority yet")]
    NoAuthority,
    #[error("the authority does not sign what is revoked")]
    Signing(#[from] SignError),
    #[error("the issuer ends")]
    Ended,
    #[error("what is on record cannot be read")]
    Store(#[from] StoreError),
}

/// Epochs in one statement, and entries at most: about 200 KiB.
const CHUNK: u64 = 8192;
/// Whoever is not far behind gets what begins at a multiple of this.
const STEP: u64 = 256;
/// So long what is added is gathered before clients are told of more.
const GATHER: Duration = Duration::from_millis(50);
const SWEEP: Duration = Duration::from_secs(60);
/// A clock that goes back by more than this was wrong.
const SET_BACK: Duration = Duration::from_secs(60);
/// After it was said that the record has lost something, before it is said again. At each sweep it is.
const SILENCE: Duration = Duration::from_secs(50);
/// Of the record, read at once.
const PAGE: u32 = 10_000;
/// Bytes of statements that are kept.
const MOST_KEPT: usize = 64 << 20;

impl Revocations {
    /// With all that is on record.
    pub(crate) async fn load(
        trust_domain: TrustDomain,
        store: Store,
        authorities: Authorities,
        distribution: Distribution,
        clock: SharedClock,
        metrics: &Metrics,
    ) -> Result<Self, StoreError> {
        let (lineage, _) = store.revocation_epoch().await?;
        let seen = Mutex::new(clock.now());
        let revocations = Self(Arc::new(Inner {
            trust_domain,
            lineage,
            store,
            authorities,
            distribution,
            clock,
            live: Mutex::default(),
            begun: AtomicU64::new(0),
            reading: tokio::sync::Mutex::default(),
            signed: Arc::default(),
            arrived: Notify::new(),
            seen,
            told: watch::Sender::default(),
            complaint: Mutex::default(),
            ahead: Ahead::new(metrics.revocations_ahead()),
            lost: Mutex::default(),
        }));
        revocations.catch_up().await?;
        revocations.tell();
        Ok(revocations)
    }

    pub(crate) fn lineage(&self) -> Lineage {
        self.0.lineage
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.live().entries.len()
    }

    /// Of the latest that was read.
    pub(crate) fn epoch(&self) -> u64 {
        self.live().read
    }

    /// All that is kept, in the order of the epochs, and how far that goes. Some has expired.
    pub(crate) fn inspect<T>(&self, look: impl FnOnce(&[Entry], u64) -> T) -> T {
        let live = self.live();
        look(&live.entries, live.read)
    }

    /// Whether one of those after an epoch revokes a certificate with this serial number of this issuer's own; and how far was looked.
    pub(crate) fn revokes(&self, serial: &[u8], after: u64) -> (bool, u64) {
        self.inspect(|entries, epoch| {
            let newer = entries.iter().rev().take_while(|entry| entry.epoch > after);
            let is_it = |entry: &Entry| matches!(&entry.what, What::Serial(_, found) if found.as_bytes() == serial);
            (newer.into_iter().any(is_it), epoch)
        })
    }

    /// Changes when there is more to be told.
    pub(crate) fn told(&self) -> watch::Receiver<Told> {
        self.0.told.subscribe()
    }

    /// Reads what was added to the record, ends the streams of those whose certificates it revokes, and has it told. Those who ask for it
    /// at the same time share one reading: that begins after the last of them has asked.
    pub(crate) async fn catch_up(&self) -> Result<(), StoreError> {
        let Inner { store, distribution, clock, begun, reading, arrived, .. } = &*self.0;
        let before = begun.load(Ordering::SeqCst);
        let mut was_read = reading.lock().await;
        if *was_read > before {
            return Ok(());
        }
        let this = begun.fetch_add(1, Ordering::SeqCst) + 1;
        let (_, latest) = store.revocation_epoch().await?;
        // So that nobody takes a part of what is being read for all of it.
        self.live().latest = latest;
        loop {
            let known = self.epoch();
            if known >= latest {
                break;
            }
            let now = clock.now();
            self.see(now);
            let page = store.revoked_between((known, latest), now - super::KEPT_AFTER_EXPIRY, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            let added = self.live().add(page, is_last)?;
            distribution.end_revoked(&added);
            arrived.notify_one();
        }
        *was_read = this;
        Ok(())
    }

    /// Where the clock was ahead, what is told too little of may have been forgotten, or not read at all: reads the record from its
    /// beginning, up to where it was read before.
    pub(crate) async fn read_again_if_set_back(&self) -> Result<(), StoreError> {
        let Inner { store, clock, distribution, reading, .. } = &*self.0;
        if !self.is_set_back(clock.now()) {
            return Ok(());
        }
        let _alone = reading.lock().await;
        let now = clock.now();
        // Another has done so meanwhile.
        if !self.is_set_back(now) {
            return Ok(());
        }
        let read = self.epoch();
        let mut again = Live { latest: read, ..Live::default() };
        while again.read < read {
            let page = store.revoked_between((again.read, read), now - super::KEPT_AFTER_EXPIRY, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            again.add(page, is_last)?;
        }
        distribution.end_revoked(&again.entries);
        {
            let mut live = self.live();
            let before = live.entries.len();
            tracing::warn!(entries = again.entries.len(), before, "the clock was set back: read again what is revoked");
            again.latest = live.latest;
            *live = again;
        }
        *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(())
    }

    /// Whether the clock was ahead when something was forgotten, or passed over, by it.
    fn is_set_back(&self, now: OffsetDateTime) -> bool {
        now < *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) - SET_BACK
    }

    /// By this time something is forgotten, or passed over.
    fn see(&self, now: OffsetDateTime) {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = now.max(*seen);
    }

    /// Tells clients of what is added, and forgets what has expired. Until cancelled.
    pub(crate) async fn run(self) {
        let mut next_sweep = Instant::now() + SWEEP;
        loop {
            tokio::select! {
                () = self.0.arrived.notified() => {
                    self.tell();
                    tokio::time::sleep(GATHER).await;
                }
                () = tokio::time::sleep_until(next_sweep) => {
                    next_sweep += SWEEP;
                    self.tell_of_loss();
                    if let Err(error) = self.sweep().await {
                        tracing::error!(%error, "what is revoked cannot be read again");
                    }
                }
            }
        }
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        self.read_again_if_set_back().await?;
        let now = self.0.clock.now();
        self.see(now);
        let over = (now - super::KEPT_AFTER_EXPIRY).unix_timestamp();
        self.live().entries.retain(|entry| entry.not_after >= over);
        Ok(())
    }

    fn tell(&self) {
        let read = self.epoch();
        self.0.ahead.has_come_to(read);
        self.0.told.send_if_modified(|told| {
            let is_more = told.read != read;
            if is_more {
                *told = Told { previous: told.read, read };
            }
            is_more
        });
    }

    /// Where a client that has come so far has heard of more than there is on record: to be kept as long as it is connected. What this
    /// issuer knows may be a moment older.
    pub(crate) async fn is_ahead(&self, has: u64, client: &WorkloadId) -> Result<Option<IsAhead>, StoreError> {
        if has > self.epoch() {
            self.catch_up().await?;
        }
        if has <= self.epoch() {
            return Ok(None);
        }
        let is_ahead = self.0.ahead.add(client.clone(), has);
        // The record may have come as far in between, and told so before this one was counted.
        if has <= self.epoch() {
            return Ok(None);
        }
        self.tell_of_loss();
        Ok(Some(is_ahead))
    }

    /// Again and again as long as it is so: one that says what is not true silences none that does.
    fn tell_of_loss(&self) {
        if let Some(Summary { clients, named, least }) = self.0.ahead.summary().filter(|_| self.is_to_be_told()) {
            tracing::error!(
                clients,
                named = named.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                known = least,
                on_record = self.epoch(),
                "clients say that they know of revocations that are not on record, and refuse what comes until they are passed: was the \
                 database restored from a backup? revoke again what is lost, and draw another lineage; where one client alone says \
                 so, look at that client"
            );
        }
    }

    /// Whether it was not a moment ago.
    fn is_to_be_told(&self) -> bool {
        let mut lost = self.0.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let is_silent = lost.is_some_and(|told| told.elapsed() < SILENCE);
        if !is_silent {
            *lost = Some(Instant::now());
        }
        !is_silent
    }

    /// How far the record goes, and nothing else, for those who know more: they refuse it, and say so.
    pub(crate) async fn end(&self) -> Result<Arc<SignedStatement>, StatementError> {
        let epoch = self.epoch();
        self.signed(|_, _| Span { after: epoch, epoch }).await
    }

    /// Whether there is anything that a client lacks which has come so far.
    pub(crate) fn lacks(&self, has: Option<u64>) -> bool {
        has.is_none_or(|has| has < self.epoch())
    }

    /// What a client lacks next that has come so far; nothing where it lacks nothing. One that has nothing yet gets something in any case.
    pub(crate) async fn next_for(&self, has: Option<u64>) -> Result<Option<Arc<SignedStatement>>, StatementError> {
        if !self.lacks(has) {
            return Ok(None);
        }
        let previous = self.0.told.borrow().previous;
        self.signed(|live, now| live.span(has.unwrap_or(0), previous, now)).await.map(Some)
    }

    async fn signed(
        &self,
        span: impl FnOnce(&Live, OffsetDateTime) -> Span,
    ) -> Result<Arc<SignedStatement>, StatementError> {
        let Inner { trust_domain, lineage, authorities, clock, .. } = &*self.0;
        let authority = authorities.active().ok_or(StatementError::NoAuthority)?;
        self.read_again_if_set_back().await?;
        let mut signed = Arc::clone(&self.0.signed).lock_owned().await;
        let now = clock.now();
        let unsigned = {
            let live = self.live();
            let span = span(&live, now);
            if let Some(statement) = signed.get(span, live.latest, &authority, now) {
                return Ok(statement);
            }
            let entries = live.of(span).iter().filter(|entry| is_told(entry, now));
            Unsigned::new((trust_domain, *lineage), (span, live.latest), entries, now)
        };
        // Whoever else wants one waits: most often it is the same. So does the next where this one is wanted no more: a key that
        // hangs is asked for one at a time.
        let signing = tokio::spawn(async move {
            let statement = sign_with(authority, move |authority| unsigned.sign(authority)).await;
            Ok(signed.keep(statement.ok_or(StatementError::Ended)??))
        });
        signing.await.map_err(|_| StatementError::Ended)?
    }

    /// Once for each cause.
    pub(crate) fn complain(&self, error: &StatementError) {
        let mut complaint = self.0.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cause) = complaint.of(error) {
            tracing::error!(cause, "clients are not told of what is revoked");
        }
    }

    /// Nothing panics while it is held.
    fn live(&self) -> MutexGuard<'_, Live> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever is told of it judges by a clock of its own: this one may be ahead.
fn is_told(entry: &Entry, now: OffsetDateTime) -> bool {
    entry.not_after >= (now - RevocationStatement::GRACE).unix_timestamp()
}

impl Live {
    /// Returns them. What is not among them and before the last, or the latest where they are the last, is over.
    fn add(&mut self, records: Vec<RevokedRecord>, are_last: bool) -> Result<Vec<Entry>, StoreError> {
        let added = records.into_iter().map(|record| self.entry(record)).collect::<Result<Vec<_>, _>>()?;
        self.entries.extend(added.iter().cloned());
        let last = added.last().map_or(self.read, |entry| entry.epoch);
        self.read = if are_last { self.latest } else { last };
        Ok(added)
    }

    fn entry(&mut self, record: RevokedRecord) -> Result<Entry, StoreError> {
        let RevokedRecord { epoch, kind, authority, value, not_after, revoked_at, reason } = record;
        let wrong = |what| move || StoreError::Record { what };
        let hash = |value: &[u8]| KeyHash::read(value).map(Box::new).ok_or_else(wrong("not a SHA-256"));
        let what = match kind {
            RevokedKind::Serial => {
                let serial = SerialNumber::from_be_bytes(&value).ok_or_else(wrong("not a serial number"))?;
                What::Serial(self.authority(&authority), serial)
            }
            RevokedKind::Key => What::Key(hash(&value)?),
            RevokedKind::Authority => What::Authority(self.authority(&authority), hash(&value)?),
        };
        Ok(Entry { epoch, what, not_after, revoked_at: revoked_at.unix_timestamp(), reason })
    }

    fn authority(&mut self, key_id: &[u8]) -> Arc<KeyId> {
        let key_id = KeyId::new(key_id);
        match self.authorities.get(&key_id) {
            Some(known) => Arc::clone(known),
            None => {
                let key_id = Arc::new(key_id);
                self.authorities.insert(Arc::clone(&key_id));
                key_id
            }
        }
    }

    fn of(&self, span: Span) -> &[Entry] {
        let index = |epoch| self.entries.partition_point(|entry| entry.epoch <= epoch);
        self.entries.get(index(span.after)..index(span.epoch)).unwrap_or_default()
    }

    /// What is told next of whoever has come so far.
    fn span(&self, has: u64, previous: u64, now: OffsetDateTime) -> Span {
        let live_in = |span| self.of(span).iter().filter(|entry| is_told(entry, now)).count() as u64;
        let mut span = Span { after: has - has % CHUNK, epoch: (has - has % CHUNK + CHUNK).min(self.read) };
        if span.epoch == self.read {
            // Whoever is up to date but for the last gets that alone.
            span.after = if has == previous { has } else { has - has % STEP };
        }
        // Where most have expired, one statement is of many epochs.
        let mut live = live_in(span);
        while span.epoch < self.read {
            let next = Span { after: span.epoch, epoch: (span.epoch + CHUNK).min(self.read) };
            live += live_in(next);
            if live > CHUNK || next.epoch - span.after > RevocationStatement::MAX_EPOCHS {
                break;
            }
            span.epoch = next.epoch;
        }
        span
    }
}

impl Signed {
    /// One that says that it is the last is good as long as it is; of any other, only that there is more. One that was made at a later
    /// time than it is now leaves too much out.
    fn get(
        &mut self,
        span: Span,
        latest: u64,
        authority: &Arc<Authority>,
        now: OffsetDateTime,
    ) -> Option<Arc<SignedStatement>> {
        let is_by = self.by.as_ref().is_some_and(|by| Arc::ptr_eq(by, authority));
        if !is_by {
            *self = Self { by: Some(Arc::clone(authority)), ..Self::default() };
        }
        let is_true = |statement: &SignedStatement| {
            statement.latest == latest || (statement.latest > statement.span.epoch && statement.latest <= latest)
        };
        let is_good = |statement: &&Arc<SignedStatement>| statement.at <= now && is_true(statement);
        self.statements.get(&span).filter(is_good).cloned()
    }

    fn keep(&mut self, statement: SignedStatement) -> Arc<SignedStatement> {
        let statement = Arc::new(statement);
        let latest = statement.latest;
        if self.bytes + statement.bytes() > MOST_KEPT {
            (self.statements, self.bytes) = (HashMap::new(), 0);
        }
        // Those that said that they are the last, and are so no more, are asked for by nobody.
        self.statements.retain(|span, kept| kept.latest == latest || span.epoch < kept.latest);
        self.statements.insert(statement.span, Arc::clone(&statement));
        self.bytes = self.statements.values().map(|kept| kept.bytes()).sum();
        statement
    }
}

#[cfg(test)]
mod tests;
