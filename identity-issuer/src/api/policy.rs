//! `signet.admin.v1`, as far as it is about the policy.

use std::path::Path;

use signet_policy::{Attributes, Document, Outcome, Rule, render};
use signet_process::config::ConfigError;
use signet_proto::admin::v1::{
    ApplyPolicyRequest, ApplyPolicyResponse, AttributeConditions, ExplainPolicyRequest, ExplainPolicyResponse,
    GetPolicyRequest, GetPolicyResponse, Granted, ListPolicyRevisionsRequest, ListPolicyRevisionsResponse, NoMatch,
    PolicyFile, PolicyRevision, RollbackPolicyRequest, RuleChange, RuleOutcome, explain_policy_request::Subject,
    rule_outcome,
};
use time::OffsetDateTime;
use tonic::{Code, Status};

use super::{bounded_text, page, parse_id, store_status, timestamp};
use crate::administration::{Permissions, Role, Target};
use crate::policy::{ChangeError, Current, Plan, Policies, Prune, RevisionHead, Wish, path_of};

/// In bytes.
const MAX_COMMENT: usize = 1024;
const MAX_FILE_NAME: usize = 4096;

pub(super) async fn apply(
    policies: &Policies,
    permissions: Permissions,
    request: ApplyPolicyRequest,
) -> Result<ApplyPolicyResponse, Status> {
    let mut document = read(request.files).await?;
    let wish = Wish {
        rules: std::mem::take(&mut document.rules),
        prune: if request.prune { Prune::Own } else { Prune::Nothing },
        dry_run: request.dry_run,
        permissions,
        comment: comment(request.comment)?,
        expected: request.expected_revision,
    };
    change(policies, wish, Some(&document)).await
}

/// Much YAML takes its time: not on a worker of the runtime.
async fn read(files: Vec<PolicyFile>) -> Result<Document, Status> {
    for file in &files {
        bounded_text(file.name.clone(), "files", MAX_FILE_NAME)?;
    }
    let reading = tokio::task::spawn_blocking(move || {
        let mut document = Document::default();
        files.iter().try_for_each(|file| document.add(Path::new(&file.name), &file.text))?;
        Ok(document)
    });
    let read = reading.await.map_err(|_| Status::internal("reading the files broke off"))?;
    read.map_err(|error: ConfigError| Status::invalid_argument(error.to_string()))
}

pub(super) async fn roll_back(
    policies: &Policies,
    permissions: Permissions,
    request: RollbackPolicyRequest,
) -> Result<ApplyPolicyResponse, Status> {
    let wish = Wish {
        rules: policies.earlier(request.revision).await.map_err(|error| status(&error, None))?,
        prune: Prune::All,
        dry_run: request.dry_run,
        permissions,
        comment: comment(request.comment)?,
        expected: request.expected_revision,
    };
    change(policies, wish, None).await
}

async fn change(policies: &Policies, wish: Wish, document: Option<&Document>) -> Result<ApplyPolicyResponse, Status> {
    let (revision, plan) = policies.change(wish).await.map_err(|error| status(&error, document))?;
    let Plan { changes, unchanged, .. } = plan;
    let yaml = |rule: Option<&Rule>| rule.map(|rule| render(std::slice::from_ref(rule))).unwrap_or_default();
    let changes = changes.into_iter().map(|change| RuleChange {
        rule: change.rules().next().map(|rule| rule.name.to_string()).unwrap_or_default(),
        before: yaml(change.before.as_ref()),
        after: yaml(change.after.as_ref()),
    });
    Ok(ApplyPolicyResponse { revision, changes: changes.collect(), unchanged: count(unchanged) })
}

/// As much of it as the caller may see.
pub(super) async fn get(
    policies: &Policies,
    permissions: &Permissions,
    request: GetPolicyRequest,
) -> Result<GetPolicyResponse, Status> {
    let mut revision = policies.revision(request.revision).await.map_err(|error| status(&error, None))?;
    revision.rules.retain(|rule| permissions.sees(path_of(rule)));
    revision.head.rules = revision.rules.len();
    let yaml = render(&revision.rules);
    Ok(GetPolicyResponse { yaml, revision: Some(head(revision.head, permissions)) })
}

pub(super) async fn history(
    policies: &Policies,
    permissions: &Permissions,
    request: ListPolicyRevisionsRequest,
) -> Result<ListPolicyRevisionsResponse, Status> {
    let limit = page(request.limit)?;
    let revisions = policies.history(request.before, limit).await.map_err(|error| store_status(&error))?;
    let told = revisions.into_iter().map(|mut revision| {
        // How many of them are the caller's to see, is nothing that is on record.
        if !permissions.may(Role::Viewer, Target::Everything) {
            revision.rules = 0;
        }
        head(revision, permissions)
    });
    Ok(ListPolicyRevisionsResponse { revisions: told.collect() })
}

/// Many rules take their time: not on a worker of the runtime.
pub(super) async fn explain(
    policies: &Policies,
    permissions: Permissions,
    request: ExplainPolicyRequest,
    now: OffsetDateTime,
) -> Result<ExplainPolicyResponse, Status> {
    let current = policies.current();
    let explaining = tokio::task::spawn_blocking(move || explain_by(&current, &permissions, request, now));
    explaining.await.map_err(|_| Status::internal("explaining broke off"))?
}

fn explain_by(
    current: &Current,
    permissions: &Permissions,
    request: ExplainPolicyRequest,
    now: OffsetDateTime,
) -> Result<ExplainPolicyResponse, Status> {
    let outcomes = match request.subject {
        None => return Err(Status::invalid_argument("subject: missing; give attributes or a SPIFFE ID")),
        Some(Subject::Attributes(list)) => {
            let pairs = list.attributes.into_iter().map(|attribute| {
                let name = attribute.name.parse();
                name.map(|name| (name, attribute.value)).map_err(|error: signet_policy::UnknownAttribute| {
                    Status::invalid_argument(format!("attributes: {error}"))
                })
            });
            let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
            let attributes =
                Attributes::new(pairs).map_err(|error| Status::invalid_argument(format!("attributes: {error}")))?;
            let outcomes = current.explain(&attributes, now, |rule| permissions.sees(path_of(rule)));
            outcomes.into_iter().map(|(rule, outcome)| told(rule.as_str(), outcome)).collect()
        }
        Some(Subject::SpiffeId(id)) => {
            let id = parse_id(&id, "spiffe_id")?;
            current.rules_for(id.path()).filter(|rule| permissions.sees(path_of(rule))).map(possible).collect()
        }
    };
    Ok(ExplainPolicyResponse { revision: current.revision.head.number, outcomes })
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
            rule_outcome::Outcome::NoMatch(NoMatch { attribute: attribute.to_string(), wanted, found })
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

/// Who changed others' rules and why, is told to those alone who see everything.
fn head(head: RevisionHead, permissions: &Permissions) -> PolicyRevision {
    let is_told = permissions.may(Role::Viewer, Target::Everything) || head.actor == permissions.actor;
    let told = |text: String| if is_told { text } else { String::new() };
    PolicyRevision {
        revision: head.number,
        created_at: (head.number > 0).then(|| timestamp(head.created_at)),
        actor: told(head.actor.as_str().to_owned()),
        comment: told(head.comment),
        rules: count(head.rules),
    }
}

fn comment(text: String) -> Result<String, Status> {
    bounded_text(text, "comment", MAX_COMMENT)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn status(error: &ChangeError, document: Option<&Document>) -> Status {
    let code = match error {
        ChangeError::Store(error) => return store_status(error),
        ChangeError::Policy(cause) => {
            let located = document.and_then(|document| document.locate(cause));
            let text = match (located, &cause.fix) {
                (Some(located), _) => located.to_string(),
                (None, Some(fix)) => format!("{cause}\n{fix}"),
                (None, None) => cause.to_string(),
            };
            return Status::invalid_argument(text);
        }
        ChangeError::Denied { .. }
        | ChangeError::BeyondScope { .. }
        | ChangeError::OfOthers { .. }
        | ChangeError::OthersDiffer => Code::PermissionDenied,
        ChangeError::Busy => Code::ResourceExhausted,
        ChangeError::Overtaken { .. } => Code::Aborted,
        ChangeError::TooMany => Code::InvalidArgument,
        ChangeError::NoRevision(_) => Code::NotFound,
        ChangeError::Task(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
