//! Why a caller has an identity, or has none.

use serde::Serialize;
use signet_proto::admin::v1::{
    Attribute, AttributeList, ExplainPolicyRequest, NoMatch, RuleOutcome, explain_policy_request::Subject, rule_outcome,
};
use time::OffsetDateTime;

use crate::admin;
use crate::args::ExplainOptions;
use crate::failure::Failure;
use crate::output::{self, Format, List};

pub(crate) fn explain(options: &ExplainOptions, format: Format) -> Result<(), Failure> {
    let subject = match &options.spiffe_id {
        Some(id) => Subject::SpiffeId(id.to_string()),
        None => {
            let attributes = options.attributes.iter().cloned();
            let attributes = attributes.map(|(name, value)| Attribute { name, value });
            Subject::Attributes(AttributeList { attributes: attributes.collect() })
        }
    };
    let request = ExplainPolicyRequest { subject: Some(subject) };
    let answer =
        admin::call(&options.issuer, async |mut client| Ok(client.explain_policy(request).await?.into_inner()))?;
    let outcomes = answer.outcomes.into_iter().map(Outcome::from).collect();
    output::print_list(format, &Explanation { revision: answer.revision, outcomes })
}

#[derive(Serialize)]
struct Explanation {
    revision: u64,
    outcomes: Vec<Outcome>,
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
            Some(rule_outcome::Outcome::Granted(granted)) => ("granted", Some(granted.spiffe_id), String::new()),
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

impl List for Explanation {
    const COLUMNS: &'static [&'static str] = &["rule", "outcome", "why"];

    fn lines(&self) -> Vec<Vec<String>> {
        // What was granted first: it is what was asked about.
        let mut outcomes: Vec<&Outcome> = self.outcomes.iter().collect();
        outcomes.sort_by_key(|outcome| outcome.spiffe_id.is_none());
        let line = |outcome: &&Outcome| {
            let why = outcome.spiffe_id.clone().unwrap_or_else(|| outcome.why.clone());
            vec![outcome.rule.clone(), outcome.outcome.to_owned(), why]
        };
        outcomes.iter().map(line).collect()
    }

    fn nothing(&self) -> &'static str {
        "no rule: the identity can be had by join token only (`signet token create`)"
    }
}
