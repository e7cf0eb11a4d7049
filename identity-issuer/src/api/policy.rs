//! `signet.admin.v1`, as far as it is about the policy.

use std::path::Path;

use signet_policy::{Document, Rule, render};
use signet_process::config::ConfigError;
use signet_proto::admin::v1::{
    ApplyPolicyRequest, ApplyPolicyResponse, GetPolicyRequest, GetPolicyResponse, ListPolicyRevisionsRequest,
    ListPolicyRevisionsResponse, PolicyFile, PolicyRevision, RollbackPolicyRequest, RuleChange,
};
use tonic::{Code, Status};

use super::{BUSY, bounded_text, comment, page, store_status, timestamp, too_many};
use crate::administration::{Permissions, Role, Target};
use crate::policy::{ChangeError, Plan, Policies, Prune, RevisionHead, Wish, path_of};

/// In bytes.
const MAX_FILE_NAME: usize = 4096;

pub(super) async fn apply(
    policies: &Policies,
    permissions: Permissions,
    request: ApplyPolicyRequest,
) -> Result<ApplyPolicyResponse, Status> {
    let comment = comment(request.comment)?;
    let mut document = read(request.files).await?;
    let wish = Wish {
        rules: std::mem::take(&mut document.rules),
        prune: if request.prune { Prune::Own } else { Prune::Nothing },
        dry_run: request.dry_run,
        permissions,
        comment,
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
    let comment = comment(request.comment)?;
    let wish = Wish {
        rules: policies.earlier(request.revision).await.map_err(|error| status(&error, None))?,
        prune: Prune::All,
        dry_run: request.dry_run,
        permissions,
        comment,
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
        ChangeError::Busy => return too_many(error.to_string(), BUSY),
        ChangeError::Overtaken { .. } => Code::Aborted,
        ChangeError::TooLarge(_) => Code::InvalidArgument,
        ChangeError::NotOnRecord { .. } => Code::FailedPrecondition,
        ChangeError::NoRevision(_) => Code::NotFound,
        ChangeError::Task(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
