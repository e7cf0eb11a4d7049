//! `signet get agents`, `get bans`, `evict`, `ban`, `unban`: those who attested themselves.

use serde::Serialize;
use signet_proto::admin::v1::{
    Agent, Applied, Ban, BanRequest, EvictAgentsRequest, ListAgentsRequest, ListBansRequest, UnbanRequest,
    evict_agents_request,
};
use time::OffsetDateTime;

use crate::admin;
use crate::args::{AgentsOptions, BanOptions, EvictOptions, IssuerOptions, UnbanOptions, Whose};
use crate::failure::Failure;
use crate::output::{self, Format, List, Report};

/// In one answer.
const PAGE: u32 = 1000;

pub(crate) fn list(options: &AgentsOptions, format: Format) -> Result<(), Failure> {
    let spiffe_id = options.spiffe_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let agents = admin::call(&options.issuer, async |mut client| {
        let mut all: Vec<Agent> = Vec::new();
        loop {
            let after = all.last().map_or(0, |agent| agent.number);
            let request = ListAgentsRequest { spiffe_id: spiffe_id.clone(), after, limit: PAGE };
            let page = client.list_agents(request).await?.into_inner().agents;
            let is_last = page.len() < PAGE as usize;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    })?;
    output::print_list(format, &AgentList { agents: agents.into_iter().map(AgentLine::from).collect() })
}

pub(crate) fn bans(options: &IssuerOptions, format: Format) -> Result<(), Failure> {
    let bans = admin::call(options, async |mut client| {
        let mut all: Vec<Ban> = Vec::new();
        loop {
            let after = all.last().map(|ban| ban.spiffe_id.clone()).unwrap_or_default();
            let page = client.list_bans(ListBansRequest { after, limit: PAGE }).await?.into_inner().bans;
            let is_last = page.len() < PAGE as usize;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    })?;
    output::print_list(format, &BanList { bans: bans.into_iter().map(BanLine::from).collect() })
}

pub(crate) fn evict(options: &EvictOptions, format: Format) -> Result<(), Failure> {
    let agents = match &options.whose {
        Whose::Id(id) => evict_agents_request::Agents::SpiffeId(id.to_string()),
        Whose::Number(number) => evict_agents_request::Agents::Number(*number),
    };
    let request = EvictAgentsRequest { agents: Some(agents) };
    let answer = admin::call(&options.issuer, async |mut client| Ok(client.evict_agents(request).await?.into_inner()))?;
    if answer.agents == 0 {
        return Err(Failure::new("there is none of them").remedy("look at `signet get agents`"));
    }
    output::print(format, &Evicted { evicted: answer.agents })
}

pub(crate) fn ban(options: &BanOptions, format: Format) -> Result<(), Failure> {
    let spiffe_id = options.spiffe_id.to_string();
    let request = BanRequest { spiffe_id: spiffe_id.clone(), reason: options.reason.clone() };
    admin::call(&options.issuer, async |mut client| client.ban(request).await.map(drop))?;
    output::print(format, &Standing { spiffe_id, banned: true })
}

pub(crate) fn unban(options: &UnbanOptions, format: Format) -> Result<(), Failure> {
    let spiffe_id = options.spiffe_id.to_string();
    let request = UnbanRequest { spiffe_id: spiffe_id.clone() };
    admin::call(&options.issuer, async |mut client| client.unban(request).await.map(drop))?;
    output::print(format, &Standing { spiffe_id, banned: false })
}

#[derive(Serialize)]
struct AgentList {
    agents: Vec<AgentLine>,
}

#[derive(Serialize)]
struct AgentLine {
    number: u64,
    spiffe_id: String,
    method: String,
    attributes: Vec<Attribute>,
    attested_at: Option<String>,
    issued_at: Option<String>,
    not_after: Option<String>,
    serial: String,
    connected: bool,
    /// Another issuer than the one that was asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    connected_to: String,
    /// Of what it was sent, while it is connected.
    applied: Option<AppliedLine>,
    #[serde(skip)]
    expires: Option<OffsetDateTime>,
}

#[derive(Serialize)]
struct AppliedLine {
    current: bool,
    /// Of the policy.
    revision: u64,
    since: Option<String>,
    /// The epoch of those that it has in force, where it asks for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    revocations: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    refused: String,
    #[serde(skip)]
    at: Option<OffsetDateTime>,
}

impl From<Applied> for AppliedLine {
    fn from(applied: Applied) -> Self {
        let Applied { current, since, refused, revision, revocations } = applied;
        let (shown, at) = (output::shown(since), since.and_then(output::time_of));
        Self { current, revision, since: shown, revocations, refused, at }
    }
}

impl AppliedLine {
    /// The revision, and how long it has been current or behind, or why it refuses.
    fn told(&self, now: OffsetDateTime) -> String {
        let age = self.at.map(|at| output::span((now - at).whole_seconds().unsigned_abs()));
        let (revision, age) = (self.revision, age.unwrap_or_default());
        match (self.current, self.refused.as_str()) {
            (true, _) => format!("revision {revision}, current for {age}"),
            (false, "") => format!("revision {revision}, behind for {age}"),
            (false, refused) => format!("revision {revision}, refused: {refused}"),
        }
    }
}

#[derive(Serialize)]
struct Attribute {
    name: String,
    value: String,
}

impl From<Agent> for AgentLine {
    fn from(agent: Agent) -> Self {
        let attribute =
            |attribute: signet_proto::admin::v1::Attribute| Attribute { name: attribute.name, value: attribute.value };
        Self {
            number: agent.number,
            spiffe_id: agent.spiffe_id,
            method: agent.method,
            attributes: agent.attributes.into_iter().map(attribute).collect(),
            attested_at: output::shown(agent.attested_at),
            issued_at: output::shown(agent.issued_at),
            not_after: output::shown(agent.not_after),
            serial: agent.serial,
            connected: agent.connected,
            connected_to: agent.connected_to,
            applied: agent.applied.map(AppliedLine::from),
            expires: agent.not_after.and_then(output::time_of),
        }
    }
}

impl AgentLine {
    /// Of the name of another issuer, its beginning is enough for a table.
    fn connection(&self) -> String {
        match (self.connected, self.connected_to.get(..8)) {
            (true, Some(issuer)) => format!("to {issuer}"),
            (true, None) => "yes".to_owned(),
            (false, _) => "no".to_owned(),
        }
    }
}

impl List for AgentList {
    const COLUMNS: &'static [&'static str] =
        &["number", "spiffe id", "attested by", "attested", "connected", "applied", "expires"];

    fn lines(&self) -> Vec<Vec<String>> {
        let now = OffsetDateTime::now_utc();
        let line = |agent: &AgentLine| {
            vec![
                agent.number.to_string(),
                agent.spiffe_id.clone(),
                agent.method.clone(),
                agent.attested_at.clone().unwrap_or_default(),
                agent.connection(),
                agent.applied.as_ref().map(|applied| applied.told(now)).unwrap_or_default(),
                agent.expires.map(|at| output::distance(now, at)).unwrap_or_default(),
            ]
        };
        self.agents.iter().map(line).collect()
    }

    fn nothing(&self) -> &'static str {
        "nobody has attested itself and holds a valid certificate"
    }
}

#[derive(Serialize)]
struct BanList {
    bans: Vec<BanLine>,
}

#[derive(Serialize)]
struct BanLine {
    spiffe_id: String,
    banned_at: Option<String>,
    actor: String,
    reason: String,
}

impl From<Ban> for BanLine {
    fn from(ban: Ban) -> Self {
        Self { spiffe_id: ban.spiffe_id, banned_at: output::shown(ban.banned_at), actor: ban.actor, reason: ban.reason }
    }
}

impl List for BanList {
    const COLUMNS: &'static [&'static str] = &["spiffe id", "banned", "by", "reason"];

    fn lines(&self) -> Vec<Vec<String>> {
        let line = |ban: &BanLine| {
            let reason = ban.reason.lines().next().unwrap_or_default().to_owned();
            vec![ban.spiffe_id.clone(), ban.banned_at.clone().unwrap_or_default(), ban.actor.clone(), reason]
        };
        self.bans.iter().map(line).collect()
    }

    fn nothing(&self) -> &'static str {
        "nobody is banned"
    }
}

#[derive(Serialize)]
struct Evicted {
    evicted: u32,
}

impl Report for Evicted {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![("evicted", self.evicted.to_string())]
    }
}

#[derive(Serialize)]
struct Standing {
    spiffe_id: String,
    banned: bool,
}

impl Report for Standing {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![("SPIFFE ID", self.spiffe_id.clone()), ("banned", if self.banned { "yes" } else { "no" }.to_owned())]
    }
}
