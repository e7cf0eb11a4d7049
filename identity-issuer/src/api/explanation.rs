//! `signet.admin.v1.ExplainPolicy`: why a caller has an identity or has none, what was issued to it, and who may see it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use signet_identity::{TrustDomain, WorkloadId};
use signet_policy::{Attributes, Outcome, Rule};
use signet_proto::admin::v1::{
    Attestation, AttributeConditions, AttributeList, ExplainPolicyRequest, ExplainPolicyResponse, Granted, Issued,
    NoMatch, RoleBinding, RuleOutcome, explain_policy_request::Subject, rule_outcome,
};
use time::OffsetDateTime;
use tonic::Status;

use super::agents::{attributes_told, no_agent, number_of_wire};
use super::doorkeeper::Admitted;
use super::{parse_own_id, store_status, timestamp};
use crate::administration::{Administrators, Binding, Permissions, Role, Target};
use crate::agents::Agents;
use crate::distribution::Holder;
use crate::entitlement::by_name;
use crate::policy::{Current, Policies, path_of};
use crate::store::{AttestationRecord, IssuedRecord};

/// Of the latest certificates.
const MOST_ISSUED: u32 = 20;

/// Of the values that do not match, and of each in characters: they are told for each rule.
const MOST_FOUND: usize = 8;
const MOST_SHOWN: usize = 128;

/// What there is to look at.
pub(super) struct Explaining<'a> {
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) policies: &'a Policies,
    pub(super) agents: &'a Agents,
    pub(super) administrators: &'a Administrators,
    pub(super) permissions: &'a Permissions,
    /// Goes with what goes on when the caller leaves.
    pub(super) place: Admitted,
    pub(super) now: OffsetDateTime,
}

impl Explaining<'_> {
    pub(super) async fn answer(&self, request: ExplainPolicyRequest) -> Result<ExplainPolicyResponse, Status> {
        match request.subject {
            None => Err(Status::invalid_argument("subject: missing; give attributes, a SPIFFE ID or an agent")),
            Some(Subject::Attributes(list)) => {
                let mut answer = self.attributes(vec![attributes_of(list)?]).await?;
                let granted = answer.outcomes.iter().filter_map(|outcome| match &outcome.outcome {
                    Some(rule_outcome::Outcome::Granted(granted)) => granted.spiffe_id.parse::<WorkloadId>().ok(),
                    _ => None,
                });
                // What is told of several could not be told apart.
                if let [id] = &granted.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()[..] {
                    self.add_facts(&mut answer, &Holder::Id(id.clone()), id.path()).await?;
                }
                Ok(answer)
            }
            Some(Subject::SpiffeId(id)) => self.identity(parse_own_id(&id, "spiffe_id", self.trust_domain)?).await,
            Some(Subject::Agent(of)) => {
                let number = number_of_wire(of);
                let found = self.agents.store.attestation(number).await.map_err(|error| store_status(&error))?;
                // Whose it is, is nothing for those who may not see it.
                let record = found.filter(|record| self.permissions.sees(record.id.path()));
                let record = record.ok_or_else(|| no_agent("agent", of))?;
                let mut answer = self.attributes(proved_by(&record)).await?;
                self.add_facts(&mut answer, &Holder::Attestation(number), record.id.path()).await?;
                answer.attestation = Some(self.attested(record).await?);
                Ok(answer)
            }
        }
    }

    /// Which rules could give an identity; where somebody had it, what they say of whoever had it last.
    async fn identity(&self, id: WorkloadId) -> Result<ExplainPolicyResponse, Status> {
        let current = self.policies.current();
        let seen = |rule: &&Rule| self.permissions.sees(path_of(rule));
        let rules: BTreeMap<_, _> =
            current.rules_for(id.path()).filter(seen).map(|rule| (rule.name.to_string(), possible(rule))).collect();
        if !self.permissions.sees(id.path()) {
            return Ok(response(&current, rules.into_values().collect()));
        }
        let latest = self.agents.store.latest_attestation(&id).await.map_err(|error| store_status(&error))?;
        let mut answer = match latest.as_ref().filter(|record| record.attributes.is_some()) {
            Some(record) => {
                let mut answer = self.attributes(proved_by(record)).await?;
                answer.outcomes.retain(|outcome| rules.contains_key(&outcome.rule));
                answer
            }
            None => response(&current, rules.into_values().collect()),
        };
        if let Some(record) = latest {
            answer.attestation = Some(self.attested(record).await?);
        }
        self.add_facts(&mut answer, &Holder::Id(id.clone()), id.path()).await?;
        Ok(answer)
    }

    async fn attested(&self, record: AttestationRecord) -> Result<Attestation, Status> {
        let banned = self.agents.store.is_banned(&record.id).await.map_err(|error| store_status(&error))?;
        Ok(attestation(record, banned))
    }

    /// Many rules take their time: not on a worker of the runtime.
    async fn attributes(&self, attributes: Vec<Attributes>) -> Result<ExplainPolicyResponse, Status> {
        let (current, permissions, now) = (self.policies.current(), self.permissions.clone(), self.now);
        let place = self.place.clone();
        let explaining = tokio::task::spawn_blocking(move || {
            let _place = place;
            let outcomes = current.explain(&attributes, now, |rule| permissions.sees(path_of(rule)));
            let outcomes = outcomes.into_iter().map(|(rule, outcome)| told(rule.as_str(), outcome)).collect();
            response(&current, outcomes)
        });
        explaining.await.map_err(|_| Status::internal("explaining broke off"))
    }

    async fn add_facts(&self, answer: &mut ExplainPolicyResponse, whose: &Holder, path: &str) -> Result<(), Status> {
        let issued = self.agents.store.issued_to(whose, MOST_ISSUED).await.map_err(|error| store_status(&error))?;
        answer.issued = issued.into_iter().map(issued_told).collect();
        if self.permissions.may(Role::Viewer, Target::Everything) {
            answer.seen_by = self.administrators.who_see(path).map(binding).collect();
        }
        Ok(())
    }
}

/// What somebody was attested as, and what its identity gives it beside that.
fn proved_by(record: &AttestationRecord) -> Vec<Attributes> {
    record.attributes.clone().into_iter().chain(by_name(&record.id)).collect()
}

fn response(current: &Arc<Current>, outcomes: Vec<RuleOutcome>) -> ExplainPolicyResponse {
    ExplainPolicyResponse { revision: current.revision.head.number, outcomes, ..ExplainPolicyResponse::default() }
}

fn attributes_of(list: AttributeList) -> Result<Attributes, Status> {
    let pairs = list.attributes.into_iter().map(|attribute| {
        let name = attribute.name.parse();
        name.map(|name| (name, attribute.value))
            .map_err(|error: signet_policy::UnknownAttribute| Status::invalid_argument(format!("attributes: {error}")))
    });
    let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    Attributes::new(pairs).map_err(|error| Status::invalid_argument(format!("attributes: {error}")))
}

fn issued_told(record: IssuedRecord) -> Issued {
    Issued {
        serial: hex::encode(record.serial),
        issued_at: Some(timestamp(record.issued_at)),
        not_after: Some(timestamp(record.not_after)),
        attestation: record.attestation,
        authority: hex::encode(record.authority),
        profile: record.profile,
    }
}

pub(super) fn attestation(record: AttestationRecord, banned: bool) -> Attestation {
    Attestation {
        number: record.number.0.cast_unsigned(),
        spiffe_id: record.id.to_string(),
        method: record.method,
        attributes: attributes_told(&record.attributes.unwrap_or_default()),
        attested_at: Some(timestamp(record.attested_at)),
        evicted_at: record.evicted_at.map(timestamp),
        banned,
    }
}

fn binding(binding: Binding) -> RoleBinding {
    RoleBinding {
        role: binding.role.to_string(),
        scope: binding.scope.as_str().to_owned(),
        users: binding.users,
        spiffe_ids: binding.identities.iter().map(ToString::to_string).collect(),
    }
}

fn told(rule: &str, outcome: Outcome) -> RuleOutcome {
    let outcome = match outcome {
        Outcome::Granted(grant) => rule_outcome::Outcome::Granted(Granted {
            spiffe_id: grant.id.to_string(),
            dns_names: grant.dns_names,
            ttl: grant.ttl.and_then(|ttl| prost_types::Duration::try_from(ttl).ok()),
            profile: grant.profile.unwrap_or_default(),
            hint: grant.hint.unwrap_or_default(),
            federates_with: grant.federates_with.iter().map(ToString::to_string).collect(),
        }),
        Outcome::NoMatch { attribute, wanted, found } => {
            let found = found.into_iter().take(MOST_FOUND).map(|value| value.chars().take(MOST_SHOWN).collect());
            rule_outcome::Outcome::NoMatch(NoMatch { attribute: attribute.to_string(), wanted, found: found.collect() })
        }
        Outcome::Expired { at } => rule_outcome::Outcome::ExpiredAt(timestamp(at)),
        Outcome::Unrenderable(cause) => rule_outcome::Outcome::Unrenderable(cause.to_string()),
    };
    RuleOutcome { rule: rule.to_owned(), outcome: Some(outcome) }
}

fn possible(rule: &Rule) -> RuleOutcome {
    let conditions = rule.matches.iter().map(|(attribute, wanted)| NoMatch {
        attribute: attribute.clone(),
        wanted: wanted.clone(),
        found: Vec::new(),
    });
    let conditions = AttributeConditions { conditions: conditions.collect() };
    RuleOutcome { rule: rule.name.to_string(), outcome: Some(rule_outcome::Outcome::Possible(conditions)) }
}
