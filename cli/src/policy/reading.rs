//! The policy and its revisions, as they are.

use std::collections::BTreeMap;

use serde::Serialize;
use signet_policy::{Document, Rule};
use signet_proto::admin::v1::{GetPolicyRequest, ListPolicyRevisionsRequest, PolicyRevision};
use time::OffsetDateTime;

use crate::admin;
use crate::args::{HistoryOptions, RevisionOptions};
use crate::failure::Failure;
use crate::output::{self, Format, List};

/// YAML that `signet apply` takes, unless JSON is asked for.
pub(crate) fn get(options: &RevisionOptions, format: Format) -> Result<(), Failure> {
    let yaml = yaml(options)?;
    match format {
        Format::Table | Format::Yaml => output::print_text(&yaml),
        Format::Json => output::print_text(&output::serialized(format, &RuleList::of(&yaml)?)?),
    }
}

pub(crate) fn rules(options: &RevisionOptions, format: Format) -> Result<(), Failure> {
    output::print_list(format, &RuleList::of(&yaml(options)?)?)
}

pub(crate) fn history(options: &HistoryOptions, format: Format) -> Result<(), Failure> {
    let request = ListPolicyRevisionsRequest { limit: options.limit, before: None };
    let answer =
        admin::call(&options.issuer, async |mut client| Ok(client.list_policy_revisions(request).await?.into_inner()))?;
    let revisions = answer.revisions.into_iter().map(Revision::from).collect();
    output::print_list(format, &History { revisions })
}

fn yaml(options: &RevisionOptions) -> Result<String, Failure> {
    let request = GetPolicyRequest { revision: options.revision };
    let answer = admin::call(&options.issuer, async |mut client| Ok(client.get_policy(request).await?.into_inner()))?;
    Ok(answer.yaml)
}

/// What the issuer wrote, read again.
pub(super) fn rules_of(yaml: &str) -> Result<Vec<Rule>, Failure> {
    let mut document = Document::default();
    document.add("the issuer's answer".as_ref(), yaml).map_err(|error| Failure::from_error(&error))?;
    Ok(document.rules)
}

#[derive(Serialize)]
struct RuleList {
    rules: Vec<Rule>,
}

impl RuleList {
    fn of(yaml: &str) -> Result<Self, Failure> {
        Ok(Self { rules: rules_of(yaml)? })
    }
}

impl List for RuleList {
    const COLUMNS: &'static [&'static str] = &["name", "match", "spiffe id"];

    fn lines(&self) -> Vec<Vec<String>> {
        let line = |rule: &Rule| vec![rule.name.to_string(), conditions(&rule.matches), rule.spiffe_id.clone()];
        self.rules.iter().map(line).collect()
    }

    fn nothing(&self) -> &'static str {
        "no rules: whoever has a join token gets the identity that it was made for, and nobody else any"
    }
}

/// `k8s.cluster=prod k8s.namespace=shop|billing`
pub(super) fn conditions(matches: &BTreeMap<String, Vec<String>>) -> String {
    let condition = |(name, values): (&String, &Vec<String>)| format!("{name}={}", values.join("|"));
    matches.iter().map(condition).collect::<Vec<_>>().join(" ")
}

#[derive(Serialize)]
struct History {
    revisions: Vec<Revision>,
}

#[derive(Serialize)]
struct Revision {
    revision: u64,
    created_at: Option<String>,
    actor: String,
    rules: u32,
    comment: String,
}

impl From<PolicyRevision> for Revision {
    fn from(revision: PolicyRevision) -> Self {
        let created_at = revision.created_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at.seconds).ok());
        Self {
            revision: revision.revision,
            created_at: created_at.map(output::timestamp),
            actor: revision.actor,
            rules: revision.rules,
            comment: revision.comment,
        }
    }
}

impl List for History {
    const COLUMNS: &'static [&'static str] = &["revision", "made", "by", "rules", "comment"];

    fn lines(&self) -> Vec<Vec<String>> {
        let line = |revision: &Revision| {
            let made = revision.created_at.clone().unwrap_or_default();
            let comment = revision.comment.lines().next().unwrap_or_default().to_owned();
            vec![revision.revision.to_string(), made, revision.actor.clone(), revision.rules.to_string(), comment]
        };
        self.revisions.iter().map(line).collect()
    }

    fn nothing(&self) -> &'static str {
        "the policy was never changed: it has no rules"
    }
}
