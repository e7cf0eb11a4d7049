//! Why a caller has an identity, or has none.

use serde::Serialize;
use signet_proto::admin::v1::{
    Attestation, Attribute, AttributeList, ExplainPolicyRequest, Issued, NoMatch, RoleBinding, RuleOutcome,
    explain_policy_request::Subject, rule_outcome,
};
use time::OffsetDateTime;

use crate::admin;
use crate::args::{ExplainOptions, Whose};
use crate::failure::Failure;
use crate::output::{self, Format};

pub(crate) fn explain(options: &ExplainOptions, format: Format) -> Result<(), Failure> {
    let subject = match &options.whose {
        Some(Whose::Id(id)) => Subject::SpiffeId(id.to_string()),
        Some(Whose::Number(number)) => Subject::Agent(*number),
        None => {
            let attributes = options.attributes.iter().cloned();
            let attributes = attributes.map(|(name, value)| Attribute { name, value });
            Subject::Attributes(AttributeList { attributes: attributes.collect() })
        }
    };
    let request = ExplainPolicyRequest { subject: Some(subject) };
    let answer =
        admin::call(&options.issuer, async |mut client| Ok(client.explain_policy(request).await?.into_inner()))?;
    let explanation = Explanation {
        revision: answer.revision,
        attestation: answer.attestation.map(Attested::from),
        outcomes: answer.outcomes.into_iter().map(Outcome::from).collect(),
        issued: answer.issued.into_iter().map(IssuedLine::from).collect(),
        seen_by: answer.seen_by.into_iter().map(Seer::from).collect(),
    };
    match format {
        Format::Table => output::print_text(&explanation.told()),
        Format::Json | Format::Yaml => output::print_text(&output::serialized(format, &explanation)?),
    }
}

#[derive(Serialize)]
struct Explanation {
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    attestation: Option<Attested>,
    outcomes: Vec<Outcome>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    issued: Vec<IssuedLine>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    seen_by: Vec<Seer>,
}

/// What an identity was given for.
#[derive(Serialize)]
pub(crate) struct Attested {
    number: u64,
    spiffe_id: String,
    method: String,
    attributes: Vec<String>,
    attested_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evicted_at: Option<String>,
    banned: bool,
}

#[derive(Serialize)]
struct IssuedLine {
    serial: String,
    issued_at: Option<String>,
    not_after: Option<String>,
    attestation: String,
    authority: String,
    profile: String,
}

#[derive(Serialize)]
struct Seer {
    role: String,
    scope: String,
    users: Vec<u32>,
    spiffe_ids: Vec<String>,
}

impl From<Attestation> for Attested {
    fn from(told: Attestation) -> Self {
        let attribute = |attribute: Attribute| format!("{}={}", attribute.name, attribute.value);
        Self {
            number: told.number,
            spiffe_id: told.spiffe_id,
            method: told.method,
            attributes: told.attributes.into_iter().map(attribute).collect(),
            attested_at: output::shown(told.attested_at),
            evicted_at: output::shown(told.evicted_at),
            banned: told.banned,
        }
    }
}

impl From<Issued> for IssuedLine {
    fn from(told: Issued) -> Self {
        let Issued { serial, issued_at, not_after, attestation, authority, profile } = told;
        let (issued_at, not_after) = (output::shown(issued_at), output::shown(not_after));
        Self { serial, issued_at, not_after, attestation, authority, profile }
    }
}

impl From<RoleBinding> for Seer {
    fn from(told: RoleBinding) -> Self {
        let RoleBinding { role, scope, users, spiffe_ids } = told;
        Self { role, scope, users, spiffe_ids }
    }
}

#[derive(Serialize)]
struct Outcome {
    rule: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_id: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

impl From<RuleOutcome> for Outcome {
    fn from(told: RuleOutcome) -> Self {
        let (outcome, spiffe_id, why) = match told.outcome {
            Some(rule_outcome::Outcome::Granted(granted)) => {
                let profile = Some(granted.profile).filter(|profile| !profile.is_empty());
                ("granted", Some(granted.spiffe_id), profile.map(|name| format!("profile {name}")).unwrap_or_default())
            }
            Some(rule_outcome::Outcome::NoMatch(no_match)) => ("no match", None, of_no_match(&no_match)),
            Some(rule_outcome::Outcome::ExpiredAt(at)) => {
                let at = OffsetDateTime::from_unix_timestamp(at.seconds).map(output::timestamp).unwrap_or_default();
                ("expired", None, format!("the rule ended at {at}"))
            }
            Some(rule_outcome::Outcome::Unrenderable(why)) => ("no name", None, why),
            Some(rule_outcome::Outcome::Possible(conditions)) => {
                let wanted = conditions.conditions.iter();
                let wanted = wanted.map(|one| format!("{}={}", one.attribute, one.wanted.join("|")));
                ("possible", None, format!("for {}", wanted.collect::<Vec<_>>().join(" ")))
            }
            None => ("unknown", None, "this issuer is newer than this command".to_owned()),
        };
        Self { rule: told.rule, outcome, spiffe_id, why }
    }
}

fn of_no_match(no_match: &NoMatch) -> String {
    let wanted = no_match.wanted.join("|");
    match &no_match.found[..] {
        [] => format!("{} is missing, {wanted} is wanted", no_match.attribute),
        found => format!("{} is {}, {wanted} is wanted", no_match.attribute, found.join(", ")),
    }
}

impl Explanation {
    /// For a person: who it is, what each rule says, what was issued, who may see it.
    fn told(&self) -> String {
        let mut parts = Vec::new();
        if let Some(attested) = &self.attestation {
            parts.push(format!("{}\n", output::harmless(&attested.told())));
        }
        let by_token = self.attestation.as_ref().is_some_and(|attested| attested.attributes.is_empty());
        let nothing = if by_token {
            "there are no rules, and its join token named it"
        } else {
            "no rule: the identity can be had by join token only (`signet token create`)"
        };
        parts.push(output::table(&["rule", "outcome", "why"], &self.lines(), nothing));
        if !self.issued.is_empty() {
            let line = |issued: &IssuedLine| {
                let time = |time: &Option<String>| time.clone().unwrap_or_default();
                vec![
                    issued.serial.clone(),
                    time(&issued.issued_at),
                    time(&issued.not_after),
                    issued.profile.clone(),
                    issued.attestation.clone(),
                    issued.authority.clone(),
                ]
            };
            let lines: Vec<_> = self.issued.iter().map(line).collect();
            parts.push(output::table(&["serial", "issued", "expires", "profile", "by", "authority"], &lines, ""));
        }
        if !self.seen_by.is_empty() {
            let line = |seer: &Seer| {
                let users = seer.users.iter().map(|user| format!("uid:{user}"));
                let who: Vec<String> = users.chain(seer.spiffe_ids.iter().cloned()).collect();
                vec![seer.role.clone(), seer.scope.clone(), who.join(", ")]
            };
            let lines: Vec<_> = self.seen_by.iter().map(line).collect();
            parts.push(output::table(&["seen by", "scope", "who"], &lines, ""));
        }
        parts.join("\n")
    }

    fn lines(&self) -> Vec<Vec<String>> {
        // What was granted first: it is what was asked about.
        let mut outcomes: Vec<&Outcome> = self.outcomes.iter().collect();
        outcomes.sort_by_key(|outcome| outcome.spiffe_id.is_none());
        let line = |outcome: &&Outcome| {
            let why = match &outcome.spiffe_id {
                Some(id) if outcome.why.is_empty() => id.clone(),
                Some(id) => format!("{id}, {}", outcome.why),
                None => outcome.why.clone(),
            };
            vec![outcome.rule.clone(), outcome.outcome.to_owned(), why]
        };
        outcomes.iter().map(line).collect()
    }
}

impl Attested {
    /// In a sentence.
    pub(crate) fn told(&self) -> String {
        let standing = match (&self.evicted_at, self.banned) {
            (_, true) => ", banned".to_owned(),
            (Some(at), false) => format!(", evicted at {at}"),
            (None, false) => String::new(),
        };
        let at = self.attested_at.as_deref().unwrap_or_default();
        let proved =
            if self.attributes.is_empty() { String::new() } else { format!(": {}", self.attributes.join(" ")) };
        format!("agent {} is {}, attested at {at} by {}{proved}{standing}", self.number, self.spiffe_id, self.method)
    }
}
