//! `signet.admin.v1`, as far as it is about what is revoked.

use std::collections::BTreeSet;

use signet_identity::WorkloadId;
use signet_proto::admin::v1::revoke_request::Target as Wire;
use signet_proto::admin::v1::{
    GetRevocationProgressResponse, ListRevocationsRequest, ListRevocationsResponse, Revocation, RevocationReason,
    RevokeRequest, RevokeResponse,
};
use time::OffsetDateTime;
use tonic::Status;

use super::agents::{no_agent, number_of_wire};
use super::{comment, page, report, store_status, timestamp};
use crate::administration::{Administrators, Permissions, Role, Target};
use crate::agents::Agents;
use crate::authority::KeyId;
use crate::bundles::Shared;
use crate::csr::KeyHash;
use crate::revocation::{Plan, Reason, RevokeError, Revoker, SerialNumber};
use crate::store::{NewRevocation, RevocationFilter, RevocationRecord, RevocationTarget, RevokedKind};

/// One call that is to revoke something.
#[derive(Copy, Clone, Debug)]
pub(super) struct Revoking<'a> {
    pub(super) revoker: &'a Revoker,
    pub(super) agents: &'a Agents,
    pub(super) administrators: &'a Administrators,
}

/// What it came to.
#[derive(Debug)]
pub(super) struct Revoked {
    pub(super) told: RevokeResponse,
    pub(super) reason: Reason,
}

const MOST_SERIALS: usize = 16_384;
/// Of serial numbers that are not on record, named in an error.
const MOST_NAMED: usize = 4;

impl Revoking<'_> {
    pub(super) async fn answer(
        self,
        permissions: &Permissions,
        request: RevokeRequest,
        grantable: impl Fn(&str) -> Result<WorkloadId, Status>,
    ) -> Result<Revoked, Status> {
        let reason = reason_of(request.reason)?;
        let reason =
            reason.ok_or_else(|| Status::invalid_argument("reason: missing; nothing is revoked without one"))?;
        let comment = comment(request.comment)?;
        let target = request.target.ok_or_else(|| Status::invalid_argument("target: missing"))?;
        let target = self.target(permissions, target, grantable).await?;
        let plan = self.revoker.plan(target).await.map_err(status)?;
        self.may(permissions, &plan)?;
        if !(request.force || request.dry_run) {
            self.revoker.must_not_be_in_use(&plan.target).await.map_err(status)?;
        }
        let connected = u32::try_from(plan.connected).unwrap_or(u32::MAX);
        if request.dry_run {
            let certificates = plan.certificates.len() as u64;
            let told = RevokeResponse { epoch: self.revoker.revocations.epoch(), certificates, agents: 0, connected };
            return Ok(Revoked { told, reason });
        }
        let (actor, at) = (permissions.actor.clone(), self.agents.clock.now());
        let revocation = NewRevocation { target: plan.target, reason, actor, comment, at };
        self.revoker.take_out(&revocation.target).map_err(status)?;
        let recorded = self.revoker.revoke(revocation).await.map_err(|error| store_status(&error))?;
        let agents = u32::try_from(recorded.agents).unwrap_or(u32::MAX);
        let told = RevokeResponse { epoch: recorded.epoch, certificates: recorded.certificates, agents, connected };
        Ok(Revoked { told, reason })
    }

    /// What is meant, if whoever asks may have it revoked whatever it comes to.
    async fn target(
        &self,
        permissions: &Permissions,
        target: Wire,
        grantable: impl Fn(&str) -> Result<WorkloadId, Status>,
    ) -> Result<RevocationTarget, Status> {
        match target {
            Wire::Serials(list) => serials(&list.serials).map(RevocationTarget::Serials),
            Wire::SpiffeId(text) => {
                let id = grantable(&text)?;
                self.may_over(permissions, &id)?;
                Ok(RevocationTarget::Id(id))
            }
            Wire::Agent(number) => {
                let attestation = number_of_wire(number);
                let id = self.agents.identity_of(attestation).await.map_err(|error| store_status(&error))?;
                // Whose a number is, is nothing for those who may not decide over it.
                match id {
                    Some(id) if self.may_over(permissions, &id).is_ok() => Ok(RevocationTarget::Agent(attestation)),
                    Some(_) | None => Err(no_agent("agent", number)),
                }
            }
            Wire::Rule(name) => Ok(RevocationTarget::Rule(name)),
            Wire::KeySha256(hash) => {
                need(permissions, Role::Administrator, Target::Everything)?;
                let hash = KeyHash::read(&hash).ok_or_else(|| Status::invalid_argument("key_sha256: not 32 bytes"))?;
                if self.revoker.is_of_authority(&hash).await.map_err(|error| store_status(&error))? {
                    return Err(Status::failed_precondition(
                        "key_sha256: it is an authority's; revoke that (`signet revoke authority`), or take a root out of the trust bundle",
                    ));
                }
                Ok(RevocationTarget::Key(hash, self.revoker.end_of_trust()))
            }
            Wire::Authority(key_id) => {
                need(permissions, Role::Administrator, Target::Everything)?;
                let key_id = hex::decode(key_id.trim()).ok().filter(|key_id| (1..=MAX_KEY_ID).contains(&key_id.len()));
                let wrong = || Status::invalid_argument("authority: no key identifier, as `signet status` shows it");
                let key_id = KeyId::new(&key_id.ok_or_else(wrong)?);
                self.revoker.authority(key_id).await.map_err(status)
            }
        }
    }

    /// Whether all that it comes to is the caller's to revoke. What is not, there is not.
    fn may(&self, permissions: &Permissions, plan: &Plan) -> Result<(), Status> {
        let ids: BTreeSet<&WorkloadId> = plan.certificates.iter().map(|one| &*one.id).collect();
        let is_all_theirs = permissions.is_owner() || ids.iter().all(|id| self.may_over(permissions, id).is_ok());
        match &plan.target {
            RevocationTarget::Serials(serials) => {
                let theirs = plan.certificates.iter().filter(|one| self.may_over(permissions, &one.id).is_ok());
                let theirs: BTreeSet<&[u8]> = theirs.map(|one| one.serial.as_bytes()).collect();
                let missing: Vec<_> = serials.iter().filter(|serial| !theirs.contains(serial.as_bytes())).collect();
                if missing.is_empty() {
                    return Ok(());
                }
                let named: Vec<_> = missing.iter().take(MOST_NAMED).map(ToString::to_string).collect();
                let more = missing.len().saturating_sub(MOST_NAMED);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let named = named.join(", ");
                Err(Status::not_found(format!("serials: no valid certificate on record has {named}{more}")))
            }
            RevocationTarget::Rule(name) if ids.is_empty() || !is_all_theirs => {
                let name: String = name.chars().take(128).flat_map(char::escape_debug).collect();
                Err(Status::not_found(format!(
                    "rule: no certificate was issued by a rule `{name}` that is valid, and all of them yours to revoke"
                )))
            }
            // What was given beside an identity is taken with it, whatever its name.
            RevocationTarget::Id(_)
            | RevocationTarget::Agent(_)
            | RevocationTarget::Rule(_)
            | RevocationTarget::Key(..)
            | RevocationTarget::Authority(..) => Ok(()),
        }
    }

    /// Whoever decides over an identity that a role is bound to decides over the role.
    fn may_over(&self, permissions: &Permissions, id: &WorkloadId) -> Result<(), Status> {
        match self.administrators.is_bound(id) || crate::certificate::is_reserved(id) {
            true => need(permissions, Role::Administrator, Target::Everything),
            false => need(permissions, Role::Operator, Target::Path(id.path())),
        }
    }
}

/// A subject key identifier has 20 bytes, mostly.
const MAX_KEY_ID: usize = 64;

fn need(permissions: &Permissions, role: Role, target: Target<'_>) -> Result<(), Status> {
    permissions.need(role, target).map_err(|denied| Status::permission_denied(denied.to_string()))
}

fn serials(list: &[Vec<u8>]) -> Result<Vec<SerialNumber>, Status> {
    if list.is_empty() || list.len() > MOST_SERIALS {
        return Err(Status::invalid_argument(format!("serials: not between 1 and {MOST_SERIALS}")));
    }
    let serial = |(index, bytes): (usize, &Vec<u8>)| {
        let wrong = || Status::invalid_argument(format!("serials[{index}]: no serial number of 1 to 20 bytes"));
        SerialNumber::from_be_bytes(bytes).ok_or_else(wrong)
    };
    list.iter().enumerate().map(serial).collect()
}

/// None where there is none.
fn reason_of(number: i32) -> Result<Option<Reason>, Status> {
    match number {
        0 => Ok(None),
        number => {
            let reason = Reason::of_number(number.into());
            reason
                .map(Some)
                .ok_or_else(|| Status::invalid_argument(format!("reason: there is none with number {number}")))
        }
    }
}

fn status(error: RevokeError) -> Status {
    match error {
        RevokeError::UnknownAuthority(_) => Status::not_found(format!("authority: {error}")),
        RevokeError::Root(_) | RevokeError::Active(_) | RevokeError::InUse { .. } => {
            Status::failed_precondition(format!("authority: {error}"))
        }
        RevokeError::TooMany => Status::resource_exhausted(error.to_string()),
        RevokeError::Stage(_) => Status::unavailable(report(&error)),
        RevokeError::Store(error) => store_status(&error),
    }
}

/// At this issuer, and at the others on its database.
pub(super) async fn progress(
    revoker: &Revoker,
    own: &str,
    epoch: u64,
) -> Result<GetRevocationProgressResponse, Status> {
    let here = revoker.distribution.revocation_progress(epoch);
    let elsewhere = if revoker.store.is_shared() {
        let heard_of = Shared::heard_of_since(revoker.clock.now());
        revoker.store.revocation_progress(own, epoch, heard_of).await.map_err(|error| store_status(&error))?
    } else {
        (0, 0, 0)
    };
    let both = |one: u64, other: u64| u32::try_from(one + other).unwrap_or(u32::MAX);
    Ok(GetRevocationProgressResponse {
        following: both(here.0, elsewhere.0),
        applied: both(here.1, elsewhere.1),
        others: both(here.2, elsewhere.2),
    })
}

pub(super) async fn list(
    revoker: &Revoker,
    permissions: &Permissions,
    request: ListRevocationsRequest,
) -> Result<ListRevocationsResponse, Status> {
    let limit = page(request.limit)?;
    let time = |at: Option<prost_types::Timestamp>, field: &str, default| match at {
        None => Ok(default),
        Some(at) => time_of(at).ok_or_else(|| Status::invalid_argument(format!("{field}: no time"))),
    };
    let mut filter = RevocationFilter {
        after: request.after,
        // However small a page is, and however little of the record is the caller's to see.
        limit: READ_AT_ONCE,
        reason: reason_of(request.reason)?,
        since: time(request.since, "since", OffsetDateTime::UNIX_EPOCH)?,
        before: time(request.before, "before", LATEST)?,
    };
    // A page of what the caller may see; the rest costs reading, and nothing of it is told.
    let mut seen = Vec::new();
    loop {
        let found = revoker.store.revocations(&filter, revoker.clock.now()).await;
        let found = found.map_err(|error| store_status(&error))?;
        let is_last = found.len() < READ_AT_ONCE as usize;
        filter.after = found.last().map_or(filter.after, |record| record.revoked.epoch);
        seen.extend(found.into_iter().filter(|record| sees(permissions, record)));
        if is_last || seen.len() >= limit as usize {
            seen.truncate(limit as usize);
            let revocations = seen.into_iter().map(|record| told(permissions, record));
            return Ok(ListRevocationsResponse { revocations: revocations.collect() });
        }
    }
}

/// Of the record.
const READ_AT_ONCE: u32 = 1000;

const LATEST: OffsetDateTime = time::macros::datetime!(9999-12-31 23:59:59 UTC);

fn time_of(at: prost_types::Timestamp) -> Option<OffsetDateTime> {
    let nanos = u32::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    OffsetDateTime::from_unix_timestamp(at.seconds).ok()?.replace_nanosecond(nanos).ok()
}

/// What is no certificate of somebody's is told to those alone who see everything.
fn sees(permissions: &Permissions, record: &RevocationRecord) -> bool {
    record.id.as_ref().map_or(permissions.may(Role::Viewer, Target::Everything), |id| permissions.sees(id.path()))
}

pub(super) fn told(permissions: &Permissions, record: RevocationRecord) -> Revocation {
    let RevocationRecord { revoked, id, actor, comment, by_kind, by } = record;
    let kind = match revoked.kind {
        RevokedKind::Serial => "serial",
        RevokedKind::Key => "key",
        RevokedKind::Authority => "authority",
    };
    // It may name what is nothing for those who see a part.
    let by = if permissions.may(Role::Viewer, Target::Everything) { format!("{by_kind} {by}") } else { by_kind };
    Revocation {
        epoch: revoked.epoch,
        kind: kind.to_owned(),
        value: hex::encode(revoked.value),
        authority: hex::encode(revoked.authority),
        spiffe_id: id.map(|id| id.to_string()).unwrap_or_default(),
        not_after: Some(prost_types::Timestamp { seconds: revoked.not_after, nanos: 0 }),
        revoked_at: Some(timestamp(revoked.revoked_at)),
        reason: RevocationReason::try_from(revoked.reason.number() as i32).unwrap_or_default().into(),
        actor: actor.as_str().to_owned(),
        comment,
        by,
    }
}
