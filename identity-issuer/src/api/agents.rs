//! `signet.admin.v1`, as far as it is about those who attested themselves.

use signet_identity::WorkloadId;
use signet_policy::Attributes;
use signet_proto::admin::v1::{
    Agent, Applied, Attribute, Ban, BanRequest, EvictAgentsRequest, EvictAgentsResponse, ListAgentsRequest,
    ListAgentsResponse, ListBansRequest, ListBansResponse, evict_agents_request::Agents as Which,
};
use tonic::Status;

use super::{bounded_text, page, parse_id, store_status, timestamp};
use crate::administration::Permissions;
use crate::agents::{Agents, Whose};
use crate::attestation::AttestationNumber;
use crate::distribution::Progress;
use crate::policy::Actor;
use crate::store::{AgentRecord, ProgressRecord};

/// In bytes.
const MAX_REASON: usize = 1024;

pub(super) async fn list(
    agents: &Agents,
    own: &str,
    permissions: &Permissions,
    request: ListAgentsRequest,
) -> Result<ListAgentsResponse, Status> {
    let ListAgentsRequest { spiffe_id, after, limit } = request;
    let id = (!spiffe_id.is_empty()).then(|| parse_id(&spiffe_id, "spiffe_id")).transpose()?;
    let (limit, mut after) = (page(limit)?, number_of_wire(after));
    // A page of what the caller may see; the rest costs reading, and nothing of it is told.
    let mut seen = Vec::new();
    loop {
        let found = agents.list(id.as_ref(), after, limit).await.map_err(|error| store_status(&error))?;
        let is_last = found.len() < limit as usize;
        after = found.last().map_or(after, |(record, _)| record.number);
        seen.extend(found.into_iter().filter(|(record, _)| permissions.sees(record.id.path())));
        if is_last || seen.len() >= limit as usize {
            seen.truncate(limit as usize);
            let agents = seen.into_iter().map(|(record, progress)| agent(record, progress, own));
            return Ok(ListAgentsResponse { agents: agents.collect() });
        }
    }
}

/// The identity of those whose attestations are to end.
pub(super) async fn whose(
    agents: &Agents,
    grantable: impl Fn(&str) -> Result<WorkloadId, Status>,
    request: &EvictAgentsRequest,
) -> Result<WorkloadId, Status> {
    match &request.agents {
        None => Err(Status::invalid_argument("agents: missing; give a SPIFFE ID or a number")),
        Some(Which::SpiffeId(text)) => grantable(text),
        Some(Which::Number(of)) => {
            let id = agents.identity_of(number_of_wire(*of)).await.map_err(|error| store_status(&error))?;
            id.ok_or_else(|| no_agent("number", *of))
        }
    }
}

pub(super) fn number_of(request: &EvictAgentsRequest) -> Option<u64> {
    match request.agents {
        Some(Which::Number(number)) => Some(number),
        _ => None,
    }
}

/// Or none that is the caller's to see.
pub(super) fn no_agent(field: &str, number: u64) -> Status {
    Status::not_found(format!("{field}: there is no agent {number}"))
}

/// All of `id`, or the one that the request names.
pub(super) async fn evict(
    agents: &Agents,
    id: WorkloadId,
    request: &EvictAgentsRequest,
) -> Result<EvictAgentsResponse, Status> {
    let whose = number_of(request).map_or(Whose::Id(id), |of| Whose::Number(number_of_wire(of)));
    let evicted = agents.evict(whose).await.map_err(|error| store_status(&error))?;
    Ok(EvictAgentsResponse { agents: u32::try_from(evicted).unwrap_or(u32::MAX) })
}

pub(super) async fn ban(agents: &Agents, actor: Actor, id: WorkloadId, request: BanRequest) -> Result<(), Status> {
    let reason = bounded_text(request.reason, "reason", MAX_REASON)?;
    agents.ban(id, actor, reason).await.map_err(|error| store_status(&error))
}

pub(super) async fn unban(agents: &Agents, id: WorkloadId) -> Result<(), Status> {
    match agents.unban(id.clone()).await.map_err(|error| store_status(&error))? {
        true => Ok(()),
        false => Err(Status::not_found(format!("spiffe_id: {id} is not banned"))),
    }
}

pub(super) async fn bans(
    agents: &Agents,
    permissions: &Permissions,
    request: ListBansRequest,
) -> Result<ListBansResponse, Status> {
    let (limit, mut after) = (page(request.limit)?, request.after);
    // Nothing, or where the page before ended.
    if !after.is_empty() {
        parse_id(&after, "after")?;
    }
    let mut seen = Vec::new();
    loop {
        let found = agents.bans(&after, limit).await.map_err(|error| store_status(&error))?;
        let is_last = found.len() < limit as usize;
        after = found.last().map_or(after, |ban| ban.id.to_string());
        seen.extend(found.into_iter().filter(|ban| permissions.sees(ban.id.path())));
        if is_last || seen.len() >= limit as usize {
            seen.truncate(limit as usize);
            return Ok(ListBansResponse { bans: seen.into_iter().map(ban_told).collect() });
        }
    }
}

fn ban_told(ban: crate::store::Ban) -> Ban {
    Ban {
        spiffe_id: ban.id.to_string(),
        banned_at: Some(timestamp(ban.banned_at)),
        actor: ban.actor.as_str().to_owned(),
        reason: ban.reason,
    }
}

/// Somebody who is not connected here may be so elsewhere. What was written of this issuer's own is older than what it knows.
fn agent(record: AgentRecord, progress: Option<Progress>, own: &str) -> Agent {
    let elsewhere = record.connected.filter(|elsewhere| progress.is_none() && elsewhere.issuer != own);
    Agent {
        number: record.number.0.cast_unsigned(),
        spiffe_id: record.id.to_string(),
        method: record.method,
        attributes: attributes_told(&record.attributes),
        attested_at: Some(timestamp(record.attested_at)),
        issued_at: Some(timestamp(record.issued_at)),
        not_after: Some(timestamp(record.not_after)),
        serial: hex::encode(record.serial),
        connected: progress.is_some() || elsewhere.is_some(),
        connected_to: elsewhere.as_ref().map(|elsewhere| elsewhere.issuer.clone()).unwrap_or_default(),
        applied: progress.map(applied).or_else(|| elsewhere.map(applied_elsewhere)),
    }
}

fn applied_elsewhere(progress: ProgressRecord) -> Applied {
    let ProgressRecord { is_current, since, refused, revision, revocations, .. } = progress;
    Applied { current: is_current, since: Some(timestamp(since)), refused, revision, revocations }
}

fn applied(progress: Progress) -> Applied {
    Applied {
        current: progress.is_current(),
        since: Some(timestamp(progress.since())),
        refused: progress.refused(),
        revision: progress.revision(),
        revocations: progress.revocations(),
    }
}

pub(super) fn attributes_told(attributes: &Attributes) -> Vec<Attribute> {
    attributes.iter().map(|(name, value)| Attribute { name: name.to_string(), value: value.to_owned() }).collect()
}

pub(super) fn number_of_wire(number: u64) -> AttestationNumber {
    AttestationNumber(i64::try_from(number).unwrap_or(i64::MAX))
}
