//! Who attested themselves, and who may not.

use signet_identity::WorkloadId;
use signet_policy::{AttributeName, Attributes};
use sqlx::AnyConnection;
use time::OffsetDateTime;

use super::database::in_time;
use super::issued::certificate_hash;
use super::{ProgressRecord, Store, StoreError, Write, microseconds, time, tokens, workload_id};
use crate::attestation::AttestationNumber;
use crate::distribution::Holder;
use crate::policy::Actor;

/// What a certificate on record was issued for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    pub(crate) number: AttestationNumber,
    /// Of the certificate, in the order of all.
    pub(crate) position: i64,
    /// The subject key identifier of the authority that signed it.
    pub(crate) authority: Vec<u8>,
    /// Who was attested: whoever was may hold certificates of other names too.
    pub(crate) attested: WorkloadId,
    /// What was proved; none where the proof named the identity.
    pub(crate) attributes: Option<Attributes>,
    pub(crate) evicted: bool,
    /// Whichever of its identities is.
    pub(crate) banned: Option<WorkloadId>,
    /// The certificate is, or that authority.
    pub(crate) revoked: bool,
}

/// One attestation whose latest certificate has not expired.
#[derive(Clone, Debug)]
pub(crate) struct AgentRecord {
    pub(crate) number: AttestationNumber,
    pub(crate) id: WorkloadId,
    pub(crate) method: String,
    pub(crate) attributes: Attributes,
    pub(crate) attested_at: OffsetDateTime,
    pub(crate) issued_at: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    pub(crate) serial: Vec<u8>,
    /// What an issuer on this database says of how far it has come.
    pub(crate) connected: Option<ProgressRecord>,
}

#[derive(Clone, Debug)]
pub(crate) struct Ban {
    pub(crate) id: WorkloadId,
    pub(crate) banned_at: OffsetDateTime,
    pub(crate) actor: Actor,
    pub(crate) reason: String,
}

/// Takes from somebody what they were given, or gives it back.
#[derive(Clone, Debug)]
pub(crate) enum StandingChange {
    /// Replaces a ban that there is.
    Ban(Ban),
    Unban(WorkloadId),
    EvictNumber(AttestationNumber, OffsetDateTime),
    EvictId(WorkloadId, OffsetDateTime),
}

type OriginRow = (Vec<u8>, Vec<u8>, i64, i64, String, Option<String>, Option<i64>, Option<String>, i64);

type AgentRow = (
    i64,
    String,
    String,
    Option<String>,
    i64,
    i64,
    i64,
    Vec<u8>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<i64>,
);

impl Store {
    /// Makes it durable; how many it is about.
    pub(crate) async fn change_standing(&self, change: StandingChange) -> Result<u64, StoreError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::Standing { change, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// None for a certificate of `id` that is not on record here for somebody who was attested. Whoever signs below this issuer's
    /// authority chooses serial numbers as it likes: what counts is the certificate.
    pub(crate) async fn origin(
        &self,
        id: &WorkloadId,
        serial: &[u8],
        sha256: &[u8; 32],
    ) -> Result<Option<Origin>, StoreError> {
        // One question for all: each is asked for each renewal.
        let row: Option<OriginRow> = in_time(
            sqlx::query_as(
                "SELECT certificate_sha256, authority_key_id, number, position, attestations.spiffe_id, attributes, evicted_at, \
                 (SELECT max(spiffe_id) FROM bans WHERE bans.spiffe_id IN ($2, attestations.spiffe_id)), \
                 (SELECT count(*) FROM revoked WHERE revoked.authority_key_id = issued.authority_key_id AND kind = 2) \
                 + (SELECT count(*) FROM revoked WHERE value = serial AND kind = 0 \
                 AND revoked.authority_key_id = issued.authority_key_id) FROM issued \
                 JOIN attestations ON number = attestation_number WHERE serial = $1",
            )
            .bind(serial)
            .bind(id.as_str())
            .fetch_optional(&self.database.readers),
        )
        .await?;
        let Some((certificate, authority, number, position, attested, attributes, evicted_at, banned, revoked)) = row
        else {
            return Ok(None);
        };
        if certificate_hash(&certificate) != sha256 {
            return Ok(None);
        }
        Ok(Some(Origin {
            number: AttestationNumber(number),
            position,
            authority,
            attested: workload_id(&attested)?,
            attributes: attributes.map(|text| attributes_of(&text)).transpose()?,
            evicted: evicted_at.is_some(),
            banned: banned.map(|id| workload_id(&id)).transpose()?,
            revoked: revoked > 0,
        }))
    }

    /// In the order in which they attested themselves.
    pub(crate) async fn agents(
        &self,
        id: Option<&WorkloadId>,
        after: AttestationNumber,
        limit: u32,
        (now, heard_of_since): (OffsetDateTime, OffsetDateTime),
    ) -> Result<Vec<AgentRecord>, StoreError> {
        let rows: Vec<AgentRow> = in_time(
            sqlx::query_as(
                "SELECT number, attestations.spiffe_id, method, attributes, attested_at, issued_at, not_after, serial, \
             agent_progress.issuer, connected_at, revision, is_current, since, refused, revocations \
             FROM attestations LEFT JOIN agent_progress ON agent_progress.attestation_number = number \
             AND agent_progress.issuer IN (SELECT issuer FROM issuer_bundles WHERE published_at >= $5) \
             JOIN issued ON position = \
             coalesce((SELECT max(position) FROM issued WHERE issued.attestation_number = number AND not_after >= $2 \
             AND issued.spiffe_id = attestations.spiffe_id), \
             (SELECT max(position) FROM issued WHERE issued.attestation_number = number AND not_after >= $2)) \
             WHERE number > $1 AND evicted_at IS NULL AND not_after >= $2 \
             AND ($3 IS NULL OR attestations.spiffe_id = $3) ORDER BY number LIMIT $4",
            )
            .bind(after.0)
            .bind(now.unix_timestamp())
            .bind(id.map(|id| id.as_str()))
            .bind(i64::from(limit))
            .bind(microseconds(heard_of_since))
            .fetch_all(&self.database.lists),
        )
        .await?;
        rows.into_iter().map(agent).collect()
    }

    pub(crate) async fn attested_identity(&self, number: AttestationNumber) -> Result<Option<WorkloadId>, StoreError> {
        let id: Option<String> = in_time(
            sqlx::query_scalar("SELECT spiffe_id FROM attestations WHERE number = $1")
                .bind(number.0)
                .fetch_optional(&self.database.readers),
        )
        .await?;
        id.map(|id| workload_id(&id)).transpose()
    }

    pub(crate) async fn is_banned(&self, id: &WorkloadId) -> Result<bool, StoreError> {
        let bans: i64 = in_time(
            sqlx::query_scalar("SELECT count(*) FROM bans WHERE spiffe_id = $1")
                .bind(id.as_str())
                .fetch_one(&self.database.readers),
        )
        .await?;
        Ok(bans > 0)
    }

    /// In the order of their SPIFFE IDs.
    pub(crate) async fn bans(&self, after: &str, limit: u32) -> Result<Vec<Ban>, StoreError> {
        let rows: Vec<(String, i64, String, String)> = in_time(
            sqlx::query_as(
                "SELECT spiffe_id, banned_at, actor, reason FROM bans WHERE spiffe_id > $1 ORDER BY spiffe_id LIMIT $2",
            )
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.database.lists),
        )
        .await?;
        let ban = |(id, banned_at, actor, reason): (String, i64, String, String)| {
            let actor = Actor::of_record(actor);
            Ok(Ban { id: workload_id(&id)?, banned_at: time(banned_at)?, actor, reason })
        };
        rows.into_iter().map(ban).collect()
    }
}

/// One attestation, live or not.
#[derive(Clone, Debug)]
pub(crate) struct AttestationRecord {
    pub(crate) number: AttestationNumber,
    pub(crate) id: WorkloadId,
    pub(crate) method: String,
    pub(crate) attributes: Option<Attributes>,
    pub(crate) attested_at: OffsetDateTime,
    pub(crate) evicted_at: Option<OffsetDateTime>,
}

/// One certificate on record.
#[derive(Clone, Debug)]
pub(crate) struct IssuedRecord {
    pub(crate) serial: Vec<u8>,
    pub(crate) issued_at: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    pub(crate) attestation: String,
    pub(crate) authority: Vec<u8>,
    pub(crate) profile: String,
}

type IssuedRow = (Vec<u8>, i64, i64, String, Vec<u8>, String);
type AttestationRow = (i64, String, String, Option<String>, i64, Option<i64>);

impl Store {
    pub(crate) async fn attestation(&self, number: AttestationNumber) -> Result<Option<AttestationRecord>, StoreError> {
        let row: Option<AttestationRow> = in_time(
            sqlx::query_as(
                "SELECT number, spiffe_id, method, attributes, attested_at, evicted_at FROM attestations \
                 WHERE number = $1",
            )
            .bind(number.0)
            .fetch_optional(&self.database.lists),
        )
        .await?;
        let Some((number, id, method, attributes, attested_at, evicted_at)) = row else { return Ok(None) };
        Ok(Some(AttestationRecord {
            number: AttestationNumber(number),
            id: workload_id(&id)?,
            method,
            attributes: attributes.map(|text| attributes_of(&text)).transpose()?,
            attested_at: time(attested_at)?,
            evicted_at: evicted_at.map(time).transpose()?,
        }))
    }

    /// The latest of an identity, live or not.
    pub(crate) async fn latest_attestation(&self, id: &WorkloadId) -> Result<Option<AttestationRecord>, StoreError> {
        let number: Option<i64> = in_time(
            sqlx::query_scalar("SELECT max(number) FROM attestations WHERE spiffe_id = $1")
                .bind(id.as_str())
                .fetch_one(&self.database.lists),
        )
        .await?;
        match number {
            Some(number) => self.attestation(AttestationNumber(number)).await,
            None => Ok(None),
        }
    }

    /// The latest first.
    pub(crate) async fn issued_to(&self, whose: &Holder, limit: u32) -> Result<Vec<IssuedRecord>, StoreError> {
        let rows: Vec<IssuedRow> = match whose {
            Holder::Id(id) => {
                let query = sqlx::query_as(
                    "SELECT serial, issued_at, not_after, attestation, authority_key_id, profile FROM issued \
                     WHERE spiffe_id = $1 ORDER BY not_after DESC, position DESC LIMIT $2",
                );
                in_time(query.bind(id.as_str()).bind(i64::from(limit)).fetch_all(&self.database.lists)).await?
            }
            Holder::Attestation(number) => {
                let query = sqlx::query_as(
                    "SELECT serial, issued_at, not_after, attestation, authority_key_id, profile FROM issued \
                     WHERE attestation_number = $1 ORDER BY position DESC LIMIT $2",
                );
                in_time(query.bind(number.0).bind(i64::from(limit)).fetch_all(&self.database.lists)).await?
            }
        };
        let record = |(serial, issued_at, not_after, attestation, authority, profile): IssuedRow| {
            let not_after = OffsetDateTime::from_unix_timestamp(not_after);
            Ok(IssuedRecord {
                serial,
                issued_at: time(issued_at)?,
                not_after: not_after.map_err(|_| StoreError::Record { what: "not a time" })?,
                attestation,
                authority,
                profile,
            })
        };
        rows.into_iter().map(record).collect()
    }

    /// From whom something was taken at `since` or later.
    pub(crate) async fn taken_since(&self, since: OffsetDateTime) -> Result<Vec<Holder>, StoreError> {
        let since = microseconds(since);
        let banned: Vec<String> = in_time(
            sqlx::query_scalar("SELECT spiffe_id FROM bans WHERE banned_at >= $1")
                .bind(since)
                .fetch_all(&self.database.lists),
        )
        .await?;
        let evicted: Vec<i64> = in_time(
            sqlx::query_scalar("SELECT number FROM attestations WHERE evicted_at >= $1")
                .bind(since)
                .fetch_all(&self.database.lists),
        )
        .await?;
        let banned = banned.iter().map(|id| Ok(Holder::Id(workload_id(id)?)));
        let evicted = evicted.into_iter().map(|number| Ok(Holder::Attestation(AttestationNumber(number))));
        banned.chain(evicted).collect()
    }
}

fn agent(row: AgentRow) -> Result<AgentRecord, StoreError> {
    let (
        number,
        id,
        method,
        attributes,
        attested_at,
        issued_at,
        not_after,
        serial,
        issuer,
        connected_at,
        revision,
        is_current,
        since,
        refused,
        revocations,
    ) = row;
    let number = AttestationNumber(number);
    let connected = issuer.map(|issuer| {
        Ok::<_, StoreError>(ProgressRecord {
            issuer,
            number,
            connected_at: time(connected_at.unwrap_or_default())?,
            revision: u64::try_from(revision.unwrap_or_default()).unwrap_or_default(),
            is_current: is_current == Some(1),
            since: time(since.unwrap_or_default())?,
            refused: refused.unwrap_or_default(),
            authorities: None,
            revocations: revocations.map(i64::cast_unsigned),
            jwt: None,
        })
    });
    let not_after = OffsetDateTime::from_unix_timestamp(not_after);
    Ok(AgentRecord {
        number,
        id: workload_id(&id)?,
        method,
        attributes: attributes.map_or_else(|| Ok(Attributes::default()), |text| attributes_of(&text))?,
        attested_at: time(attested_at)?,
        issued_at: time(issued_at)?,
        not_after: not_after.map_err(|_| StoreError::Record { what: "not a time" })?,
        serial,
        connected: connected.transpose()?,
    })
}

fn attributes_of(json: &str) -> Result<Attributes, StoreError> {
    let wrong = || StoreError::Record { what: "not attributes" };
    let pairs: Vec<(String, String)> = serde_json::from_str(json).map_err(|_| wrong())?;
    let pairs = pairs.into_iter().map(|(name, value)| Ok((name.parse::<AttributeName>().map_err(|_| wrong())?, value)));
    Attributes::new(pairs.collect::<Result<Vec<_>, StoreError>>()?).map_err(|_| wrong())
}

/// Returns how many records it changed.
pub(super) async fn change(connection: &mut AnyConnection, change: &StandingChange) -> Result<u64, sqlx::Error> {
    match change {
        StandingChange::Ban(Ban { id, .. }) | StandingChange::EvictId(id, _) => {
            tokens::void(connection, id.as_str()).await?;
        }
        StandingChange::EvictNumber(..) | StandingChange::Unban(_) => {}
    }
    let statement = match change {
        StandingChange::Ban(ban) => sqlx::query(
            "INSERT INTO bans (spiffe_id, banned_at, actor, reason) VALUES ($1, $2, $3, $4) ON CONFLICT (spiffe_id) \
             DO UPDATE SET banned_at = excluded.banned_at, actor = excluded.actor, reason = excluded.reason",
        )
        .bind(ban.id.as_str())
        .bind(microseconds(ban.banned_at))
        .bind(ban.actor.as_str())
        .bind(&ban.reason),
        StandingChange::Unban(id) => sqlx::query("DELETE FROM bans WHERE spiffe_id = $1").bind(id.as_str()),
        StandingChange::EvictNumber(number, at) => {
            sqlx::query("UPDATE attestations SET evicted_at = $1 WHERE number = $2 AND evicted_at IS NULL")
                .bind(microseconds(*at))
                .bind(number.0)
        }
        StandingChange::EvictId(id, at) => {
            // What somebody was given beside its identity is taken with what it was attested for.
            sqlx::query(
                "UPDATE attestations SET evicted_at = $1 WHERE evicted_at IS NULL AND (spiffe_id = $2 OR number IN \
                 (SELECT attestation_number FROM issued WHERE issued.spiffe_id = $2 AND not_after >= $3))",
            )
            .bind(microseconds(*at))
            .bind(id.as_str())
            .bind(at.unix_timestamp())
        }
    };
    Ok(statement.execute(connection).await?.rows_affected())
}
