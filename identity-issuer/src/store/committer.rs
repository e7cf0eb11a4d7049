//! The one writer: takes all requests that wait, and makes them durable by one transaction.

use std::sync::Arc;
use std::time::Instant;

use signet_audit::Act;
use signet_identity::SharedClock;
use signet_process::admin::{Readiness, State};
use sqlx::{Any, AnyConnection, Transaction};
use tokio_util::sync::CancellationToken;

use super::database::{Database, Kind, in_time, is_conflict};
use super::issued::{self, NotRecorded};
use super::log::{self, LogPlace, OwnLog, is_elsewhere};
use super::postgres::{self, Change};
use super::queue::{MAX_BATCH, Waiting};
use super::{
    Logged, Outbox, RecordRevisionError, Recorded, RenewalRequest, STORE, StoreError, Write, acts, agents,
    bundle_sequence, bundles, jwts, microseconds, policies, renewal_requests, retention, revoking, tokens,
};
use crate::attestation::Attestation;
use crate::audit::AuditMetrics;

/// After a conflict with another issuer's transaction.
const RETRIES: usize = 3;

/// What a transaction did with one request. Nobody is told before the commit.
enum Outcome {
    Done,
    /// With the index of its entry in the log.
    Logged(u64),
    NotRecorded(NotRecorded),
    Overtaken,
    /// How many records were changed.
    Changed(u64),
    Asked(RenewalRequest),
    Revoked(Recorded),
    Swept {
        is_done: bool,
    },
}

impl Outcome {
    fn of(recorded: Result<(), NotRecorded>, place: LogPlace) -> Self {
        recorded.map_or_else(Self::NotRecorded, |()| Self::Logged(place.index.unsigned_abs()))
    }
}

pub(super) struct Committer {
    pub(super) database: Database,
    pub(super) log: OwnLog,
    pub(super) outbox: Outbox,
    pub(super) metrics: AuditMetrics,
    pub(super) issuer: u64,
    pub(super) clock: SharedClock,
    pub(super) readiness: Readiness,
}

impl Committer {
    /// Runs until `stop` is cancelled and all that was submitted before is answered.
    pub(super) async fn run(mut self, mut waiting: Waiting, stop: CancellationToken) {
        self.readiness.set(STORE, State::Ready);
        let mut batch = Vec::with_capacity(MAX_BATCH);
        let outbox = self.outbox.clone();
        loop {
            tokio::select! {
                // Refuses what comes from now on; what waits already is received to the end.
                () = stop.cancelled(), if !waiting.is_closed() => waiting.close(),
                there_is_more = waiting.next(&mut batch) => match there_is_more {
                    false => break,
                    true => self.settle(&mut batch).await,
                },
                () = outbox.posted() => self.settle(&mut vec![Write::Posted]).await,
            }
        }
        if !outbox.is_empty() {
            self.settle(&mut vec![Write::Posted]).await;
        }
        self.database.close().await;
    }

    /// Makes the batch durable and answers it, or answers that nothing of it is.
    async fn settle(&mut self, batch: &mut Vec<Write>) {
        // Whoever gave up meanwhile is not recorded, and loses neither key nor token.
        batch.retain(|write| !is_abandoned(write));
        let began = Instant::now();
        match self.commit(batch).await {
            Ok(outcomes) => {
                self.metrics.committed(began.elapsed());
                self.readiness.set(STORE, State::Ready);
                batch.drain(..).zip(outcomes).for_each(|(write, outcome)| answer(write, outcome));
            }
            // One of them may be made to conflict: the others are not held up by it.
            Err(error) if is_conflict(&error) && batch.len() > 1 => {
                for write in std::mem::take(batch) {
                    Box::pin(self.settle(&mut vec![write])).await;
                }
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
        let mut attempts = 0;
        loop {
            let ended = match self.database.kind {
                // A disk that stalls ends by itself; and what was committed behind an answer would be known to nobody.
                Kind::Sqlite => self.attempt(batch).await,
                Kind::Postgres(_) => in_time(self.attempt(batch)).await,
            };
            match ended {
                Err(error) if is_conflict(&error) && attempts < RETRIES => attempts += 1,
                // A commit whose end was not heard of has come about.
                Err(error) if is_elsewhere(&error) && attempts < RETRIES => {
                    attempts += 1;
                    let mut connection = self.database.writer.acquire().await?;
                    self.log.catch_up(&mut connection).await?;
                }
                Err(error) => return Err(error),
                Ok((outcomes, log, posted)) => {
                    self.log = log;
                    self.outbox.taken(&posted);
                    return Ok(outcomes);
                }
            }
        }
    }

    /// What became of each, and of the log; and which acts of the outbox went into it.
    async fn attempt(&self, batch: &[Write]) -> Result<(Vec<Outcome>, OwnLog, Vec<Act>), sqlx::Error> {
        if batch.is_empty() {
            return Ok((Vec::new(), self.log, Vec::new()));
        }
        let mut connection = self.database.writer.acquire().await?;
        let ended = self.attempt_on(&mut connection, batch).await;
        if ended.is_err() && matches!(self.database.kind, Kind::Sqlite) {
            // SQLite takes some transactions back by itself, as where the disk is full; sqlx then counts them as open for ever.
            connection.close_on_drop();
        }
        ended
    }

    async fn attempt_on(
        &self,
        connection: &mut AnyConnection,
        batch: &[Write],
    ) -> Result<(Vec<Outcome>, OwnLog, Vec<Act>), sqlx::Error> {
        let mut transaction = self.database.begin(connection).await?;
        let takes = batch.iter().any(is_taking);
        self.database.lock_standing(&mut transaction, takes).await?;
        let time = self.clock.now();
        let (now, mut log) = (microseconds(time), self.log.append(time));
        let posted = self.outbox.waiting();
        posted.iter().try_for_each(|act| log.push(act.clone()))?;
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut rows = Vec::with_capacity(batch.len());
        for (index, write) in batch.iter().enumerate() {
            outcomes.push(Outcome::Done);
            match write {
                Write::Certificate { certificate, .. } => match &certificate.attestation {
                    Attestation::First(attested) => {
                        let place = log.place();
                        let recorded = issued::first(&mut transaction, attested, certificate, place, now).await?;
                        log.push(acts::of_certificate(certificate, recorded))?;
                        outcomes[index] = Outcome::of(recorded, place);
                    }
                    Attestation::Renewal { of, .. } | Attestation::Beside { of, .. } => {
                        rows.push((index, certificate, Some(*of)));
                    }
                    Attestation::Issuer => rows.push((index, certificate, None)),
                },
                Write::Token { token, .. } => {
                    tokens::add(&mut transaction, token).await?;
                    log.push(acts::of_token(token))?;
                }
                Write::Sweep { keep, .. } => {
                    issued::sweep(&mut transaction, now).await?;
                    tokens::sweep(&mut transaction, now).await?;
                    renewal_requests::sweep(&mut transaction, now).await?;
                    revoking::sweep(&mut transaction, now, *keep).await?;
                    let is_more = retention::sweep(&mut transaction, now, *keep).await?;
                    outcomes[index] = Outcome::Swept { is_done: !is_more };
                }
                Write::Revision { revision, .. } => match policies::record(&mut transaction, revision).await? {
                    Some(rules) => {
                        log.push(acts::of_revision(revision, &rules))?;
                        self.tell(&mut transaction, Change::Policy).await?;
                    }
                    None => outcomes[index] = Outcome::Overtaken,
                },
                Write::Standing { change, .. } => {
                    let changed = agents::change(&mut transaction, change).await?;
                    log.push(acts::of_standing(change, changed))?;
                    outcomes[index] = Outcome::Changed(changed);
                    self.tell(&mut transaction, Change::Standing).await?;
                }
                Write::Bundles { change, .. } => {
                    outcomes[index] = Outcome::Changed(bundles::change(&mut transaction, change).await?);
                    self.tell(&mut transaction, Change::Bundles).await?;
                }
                Write::Jwt { jwt, .. } => {
                    let place = log.place();
                    let recorded = jwts::record(&mut transaction, jwt, place).await?;
                    log.push(acts::of_jwt(jwt, recorded))?;
                    outcomes[index] = Outcome::of(recorded, place);
                }
                Write::BundleSequence { content, .. } => {
                    outcomes[index] = Outcome::Changed(bundle_sequence::next(&mut transaction, content, now).await?);
                }
                Write::RenewalRequest { request, .. } => {
                    let request = renewal_requests::record(&mut transaction, request).await?;
                    log.push(acts::of_renewal_request(&request))?;
                    outcomes[index] = Outcome::Asked(request);
                    self.tell(&mut transaction, Change::RenewalRequest).await?;
                }
                Write::Revocation { revocation, .. } => {
                    let recorded = revoking::record(&mut transaction, revocation).await?;
                    acts::of_revocation(&mut transaction, revocation, &recorded, &mut log).await?;
                    outcomes[index] = Outcome::Revoked(recorded);
                    self.tell(&mut transaction, Change::Revocations).await?;
                    // Some may have been evicted.
                    self.tell(&mut transaction, Change::Standing).await?;
                }
                Write::Note { act, .. } => log.push(Act::clone(act))?,
                Write::Posted => {}
                Write::Published { below, .. } => log::forget(&mut transaction, self.log, *below).await?,
            }
        }
        // In the same order at each issuer, so that no two transactions wait for each other.
        rows.sort_unstable_by(|(_, one, _), (_, two, _)| one.key_hash.as_bytes().cmp(two.key_hash.as_bytes()));
        let recorded = issued::renewals(&mut transaction, &rows, log.place()).await?;
        for ((index, certificate, _), recorded) in rows.iter().zip(recorded) {
            let place = log.place();
            log.push(acts::of_certificate(certificate, recorded))?;
            outcomes[*index] = Outcome::of(recorded, place);
        }
        let log = log.write(&mut transaction).await?;
        transaction.commit().await?;
        Ok((outcomes, log, posted))
    }

    async fn tell(&self, transaction: &mut Transaction<'_, Any>, change: Change) -> Result<(), sqlx::Error> {
        postgres::tell(&self.database.kind, self.issuer, transaction, change).await
    }
}

/// Whether it takes something from somebody, or follows others of its kind; or moves what is asked for with what is issued.
fn is_taking(write: &Write) -> bool {
    matches!(
        write,
        Write::Standing { .. } | Write::RenewalRequest { .. } | Write::Revocation { .. } | Write::Sweep { .. }
    )
}

fn is_abandoned(write: &Write) -> bool {
    match write {
        Write::Certificate { reply, .. } => reply.is_closed(),
        Write::Jwt { reply, .. } => reply.is_closed(),
        Write::Token { reply, .. } => reply.is_closed(),
        Write::Revision { reply, .. } => reply.is_closed(),
        // Carried out all the same: nobody bans by accident.
        Write::Standing { .. }
        | Write::Bundles { .. }
        | Write::BundleSequence { .. }
        | Write::RenewalRequest { .. }
        | Write::Revocation { .. }
        | Write::Note { .. }
        | Write::Published { .. }
        | Write::Posted
        | Write::Sweep { .. } => false,
    }
}

/// Whoever asked may have gone: then nobody hears the answer, and the record stands.
fn answer(write: Write, outcome: Outcome) {
    match write {
        Write::Certificate { certificate, reply } => {
            let answer = match outcome {
                Outcome::Logged(index) => Ok(Logged { what: certificate, index }),
                Outcome::NotRecorded(reason) => Err(reason.into()),
                // Of others alone.
                Outcome::Done
                | Outcome::Overtaken
                | Outcome::Changed(_)
                | Outcome::Asked(_)
                | Outcome::Revoked(_)
                | Outcome::Swept { .. } => Err(StoreError::Closed.into()),
            };
            let _ = reply.send(answer);
        }
        Write::Jwt { jwt, reply } => {
            let answer = match outcome {
                Outcome::Logged(index) => Ok(Logged { what: jwt, index }),
                Outcome::NotRecorded(reason) => Err(reason.into()),
                // Of others alone.
                Outcome::Done
                | Outcome::Overtaken
                | Outcome::Changed(_)
                | Outcome::Asked(_)
                | Outcome::Revoked(_)
                | Outcome::Swept { .. } => Err(StoreError::Closed.into()),
            };
            let _ = reply.send(answer);
        }
        Write::Token { reply, .. } | Write::Note { reply, .. } | Write::Published { reply, .. } => {
            let _ = reply.send(Ok(()));
        }
        Write::RenewalRequest { reply, .. } => {
            let answer = if let Outcome::Asked(request) = outcome { Ok(request) } else { Err(StoreError::Closed) };
            let _ = reply.send(answer);
        }
        Write::Revision { reply, .. } => {
            let answer = match outcome {
                Outcome::Overtaken => Err(RecordRevisionError::Overtaken),
                Outcome::Done
                | Outcome::Logged(_)
                | Outcome::NotRecorded(_)
                | Outcome::Changed(_)
                | Outcome::Asked(_)
                | Outcome::Revoked(_)
                | Outcome::Swept { .. } => Ok(()),
            };
            let _ = reply.send(answer);
        }
        Write::Standing { reply, .. } | Write::Bundles { reply, .. } | Write::BundleSequence { reply, .. } => {
            let changed = if let Outcome::Changed(changed) = outcome { changed } else { 0 };
            let _ = reply.send(Ok(changed));
        }
        Write::Revocation { reply, .. } => {
            let answer = if let Outcome::Revoked(recorded) = outcome { Ok(recorded) } else { Err(StoreError::Closed) };
            let _ = reply.send(answer);
        }
        Write::Posted => {}
        Write::Sweep { reply, .. } => {
            let _ = reply.send(Ok(matches!(outcome, Outcome::Swept { is_done: true })));
        }
    }
}

fn fail(write: Write, error: &Arc<sqlx::Error>) {
    let error = StoreError::Commit(Arc::clone(error));
    match write {
        Write::Certificate { reply, .. } => {
            let _ = reply.send(Err(error.into()));
        }
        Write::Jwt { reply, .. } => {
            let _ = reply.send(Err(error.into()));
        }
        Write::Token { reply, .. } | Write::Note { reply, .. } | Write::Published { reply, .. } => {
            let _ = reply.send(Err(error));
        }
        Write::RenewalRequest { reply, .. } => {
            let _ = reply.send(Err(error));
        }
        Write::Revocation { reply, .. } => {
            let _ = reply.send(Err(error));
        }
        Write::Revision { reply, .. } => {
            let _ = reply.send(Err(error.into()));
        }
        Write::Standing { reply, .. } | Write::Bundles { reply, .. } | Write::BundleSequence { reply, .. } => {
            let _ = reply.send(Err(error));
        }
        Write::Posted => {}
        Write::Sweep { reply, .. } => {
            let _ = reply.send(Err(error));
        }
    }
}
