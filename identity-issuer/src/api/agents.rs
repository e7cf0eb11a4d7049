//! `signet.admin.v1`, as far as it is about those who attested themselves.

use signet_identity::WorkloadId;
use signet_proto::admin::v1::{
    Agent, Attribute, Ban, BanRequest, EvictAgentsRequest, EvictAgentsResponse, ListAgentsRequest, ListAgentsResponse,
    ListBansRequest, ListBansResponse, evict_agents_request,
};
use tonic::Status;

use super::{bounded_text, page, parse_id, store_status, timestamp};
use crate::agents::{Agents, Whose};
use crate::attestation::AttestationNumber;
use crate::policy::Actor;
use crate::store::AgentRecord;

/// In bytes.
const MAX_REASON: usize = 1024;

pub(super) async fn list(agents: &Agents, request: ListAgentsRequest) -> Result<ListAgentsResponse, Status> {
    let ListAgentsRequest { spiffe_id, after, limit } = request;
    let id = (!spiffe_id.is_empty()).then(|| parse_id(&spiffe_id, "spiffe_id")).transpose()?;
    let found = agents.list(id.as_ref(), number(after), page(limit)?).await.map_err(|error| store_status(&error))?;
    Ok(ListAgentsResponse { agents: found.into_iter().map(|(record, connected)| agent(record, connected)).collect() })
}

pub(super) async fn evict(
    agents: &Agents,
    actor: Actor,
    grantable: impl Fn(&str) -> Result<WorkloadId, Status>,
    request: EvictAgentsRequest,
) -> Result<EvictAgentsResponse, Status> {
    use evict_agents_request::Agents::{Number, SpiffeId};
    let whose = match request.agents {
        None => return Err(Status::invalid_argument("agents: missing; give a SPIFFE ID or a number")),
        Some(SpiffeId(text)) => Whose::Id(grantable(&text)?),
        Some(Number(of)) => Whose::Number(number(of)),
    };
    let evicted = agents.evict(whose.clone()).await.map_err(|error| store_status(&error))?;
    tracing::warn!(actor = actor.as_str(), agents = ?whose, evicted, "evicted");
    Ok(EvictAgentsResponse { agents: u32::try_from(evicted).unwrap_or(u32::MAX) })
}

pub(super) async fn ban(agents: &Agents, actor: Actor, id: WorkloadId, request: BanRequest) -> Result<(), Status> {
    let reason = bounded_text(request.reason, "reason", MAX_REASON)?;
    agents.ban(id.clone(), actor.clone(), reason.clone()).await.map_err(|error| store_status(&error))?;
    tracing::warn!(actor = actor.as_str(), spiffe_id = %id, reason, "banned");
    Ok(())
}

pub(super) async fn unban(agents: &Agents, actor: Actor, id: WorkloadId) -> Result<(), Status> {
    if !agents.unban(id.clone()).await.map_err(|error| store_status(&error))? {
        return Err(Status::not_found(format!("spiffe_id: {id} is not banned")));
    }
    tracing::warn!(actor = actor.as_str(), spiffe_id = %id, "ban lifted");
    Ok(())
}

pub(super) async fn bans(agents: &Agents, request: ListBansRequest) -> Result<ListBansResponse, Status> {
    let bans = agents.bans(&request.after, page(request.limit)?).await.map_err(|error| store_status(&error))?;
    let bans = bans.into_iter().map(|ban| Ban {
        spiffe_id: ban.id.to_string(),
        banned_at: Some(timestamp(ban.banned_at)),
        actor: ban.actor.as_str().to_owned(),
        reason: ban.reason,
    });
    Ok(ListBansResponse { bans: bans.collect() })
}

fn agent(record: AgentRecord, connected: bool) -> Agent {
    let attributes = record.attributes.iter();
    let attributes = attributes.map(|(name, value)| Attribute { name: name.to_string(), value: value.to_owned() });
    Agent {
        number: record.number.0.cast_unsigned(),
        spiffe_id: record.id.to_string(),
        method: record.method,
        attributes: attributes.collect(),
        attested_at: Some(timestamp(record.attested_at)),
        issued_at: Some(timestamp(record.issued_at)),
        not_after: Some(timestamp(record.not_after)),
        serial: hex::encode(record.serial),
        connected,
    }
}

fn number(number: u64) -> AttestationNumber {
    AttestationNumber(i64::try_from(number).unwrap_or(i64::MAX))
}
