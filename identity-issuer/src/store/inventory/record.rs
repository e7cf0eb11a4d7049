//! A certificate on record, as it is read.

use signet_identity::WorkloadId;
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row as _};
use time::{Duration, OffsetDateTime};

use crate::attestation::AttestationNumber;
use crate::store::issued::certificate_hash;
use crate::store::{EXPIRING_TENTHS, StoreError, time, workload_id};

#[derive(Clone, Debug)]
pub(crate) struct SvidRecord {
    pub(crate) serial: Vec<u8>,
    pub(crate) id: WorkloadId,
    pub(crate) key_sha256: Vec<u8>,
    pub(crate) certificate_sha256: Vec<u8>,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    pub(crate) issued_at: OffsetDateTime,
    /// How it was asked for.
    pub(crate) attestation: String,
    /// The hash of the proof; the serial number of the certificate that was shown.
    pub(crate) evidence: Option<Vec<u8>>,
    pub(crate) authority: Vec<u8>,
    pub(crate) agent: Option<AttestationNumber>,
    pub(crate) profile: String,
    /// Empty where none gave it.
    pub(crate) rule: String,
    /// None for what was issued before there was a log.
    pub(crate) log: Option<LogPlace>,
    /// The epoch of its own revocation, or else of its authority's.
    pub(crate) revoked: Option<u64>,
}

/// Where an entry of a log is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LogPlace {
    pub(crate) origin: String,
    pub(crate) index: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SvidState {
    Valid,
    /// Past the part of its life after which it should have been renewed.
    Expiring,
    Expired,
    /// Whether it has expired since or not.
    Revoked,
}

/// Of the columns of [`SvidRow`].
pub(super) const SVID: &str = "SELECT issued.position AS position, serial, issued.spiffe_id AS spiffe_id, key_sha256, certificate_sha256, \
    issued.not_before AS not_before, issued.not_after AS not_after, issued_at, attestation, evidence, \
    issued.authority_key_id AS authority_key_id, attestation_number, profile, rule, origin, log_index, \
    coalesce((SELECT epoch FROM revoked WHERE value = issued.serial AND revoked.kind = 0 \
    AND revoked.authority_key_id = issued.authority_key_id), (SELECT max(epoch) FROM revoked WHERE revoked.kind = 2 \
    AND revoked.authority_key_id = issued.authority_key_id)) AS revoked \
    FROM issued LEFT JOIN audit_logs ON audit_logs.number = issued.log";

/// What the database has.
#[derive(Debug)]
pub(super) struct SvidRow {
    pub(super) position: i64,
    serial: Vec<u8>,
    spiffe_id: String,
    key_sha256: Vec<u8>,
    certificate_sha256: Vec<u8>,
    not_before: i64,
    not_after: i64,
    issued_at: i64,
    attestation: String,
    evidence: Option<Vec<u8>>,
    authority_key_id: Vec<u8>,
    attestation_number: Option<i64>,
    profile: String,
    rule: String,
    origin: Option<String>,
    log_index: Option<i64>,
    revoked: Option<i64>,
}

impl FromRow<'_, AnyRow> for SvidRow {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            position: row.try_get("position")?,
            serial: row.try_get("serial")?,
            spiffe_id: row.try_get("spiffe_id")?,
            key_sha256: row.try_get("key_sha256")?,
            certificate_sha256: row.try_get("certificate_sha256")?,
            not_before: row.try_get("not_before")?,
            not_after: row.try_get("not_after")?,
            issued_at: row.try_get("issued_at")?,
            attestation: row.try_get("attestation")?,
            evidence: row.try_get("evidence")?,
            authority_key_id: row.try_get("authority_key_id")?,
            attestation_number: row.try_get("attestation_number")?,
            profile: row.try_get("profile")?,
            rule: row.try_get("rule")?,
            origin: row.try_get("origin")?,
            log_index: row.try_get("log_index")?,
            revoked: row.try_get("revoked")?,
        })
    }
}

impl SvidRow {
    pub(super) fn read(self) -> Result<SvidRecord, StoreError> {
        let number = |number: i64| u64::try_from(number).map_err(|_| StoreError::Record { what: "a number below 0" });
        let seconds = |seconds| {
            OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| StoreError::Record { what: "not a time" })
        };
        let log = match (self.origin, self.log_index) {
            (Some(origin), Some(index)) => Some(LogPlace { origin, index: number(index)? }),
            _ => None,
        };
        Ok(SvidRecord {
            serial: self.serial,
            id: workload_id(&self.spiffe_id)?,
            key_sha256: self.key_sha256,
            certificate_sha256: certificate_hash(&self.certificate_sha256),
            not_before: seconds(self.not_before)?,
            not_after: seconds(self.not_after)?,
            issued_at: time(self.issued_at)?,
            attestation: self.attestation,
            evidence: self.evidence,
            authority: self.authority_key_id,
            agent: self.attestation_number.map(AttestationNumber),
            profile: self.profile,
            rule: self.rule,
            log,
            revoked: self.revoked.map(number).transpose()?,
        })
    }
}

impl SvidRecord {
    pub(crate) fn state(&self, now: OffsetDateTime) -> SvidState {
        let life: Duration = self.not_after - self.not_before;
        match () {
            () if self.revoked.is_some() => SvidState::Revoked,
            () if self.not_after.unix_timestamp() < now.unix_timestamp() => SvidState::Expired,
            () if (now - self.not_before).whole_seconds() * 10 > life.whole_seconds() * EXPIRING_TENTHS => {
                SvidState::Expiring
            }
            () => SvidState::Valid,
        }
    }
}

impl SvidState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}
