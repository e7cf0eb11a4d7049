//! What is revoked.

use identity_issuer::root::Reason;
use serde::Serialize;
use signet_proto::admin::v1::{ListRevocationsRequest, Revocation};
use time::OffsetDateTime;

use super::wire_reason;
use crate::admin;
use crate::args::RevocationsOptions;
use crate::failure::Failure;
use crate::output::{self, Format, List};

/// In one answer.
const PAGE: u32 = 1000;

pub(crate) fn list(options: &RevocationsOptions, format: Format) -> Result<(), Failure> {
    let since = options.within.map(|within| (OffsetDateTime::now_utc() - within).unix_timestamp());
    let since = since.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 });
    let reason = options.reason.map(wire_reason).unwrap_or_default();
    let revocations = admin::call(&options.issuer, async |mut client| {
        let mut all: Vec<Revocation> = Vec::new();
        loop {
            let after = all.last().map_or(0, |revocation| revocation.epoch);
            let request = ListRevocationsRequest { after, limit: PAGE, reason, since, before: None };
            let page = client.list_revocations(request).await?.into_inner().revocations;
            let is_last = page.len() < PAGE as usize;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    })?;
    output::print_list(format, &RevocationList { revocations: revocations.into_iter().map(Line::from).collect() })
}

#[derive(Serialize)]
struct RevocationList {
    revocations: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    epoch: u64,
    kind: String,
    value: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    authority: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    spiffe_id: String,
    reason: String,
    revoked_at: Option<String>,
    not_after: Option<String>,
    actor: String,
    comment: String,
    by: String,
    #[serde(skip)]
    expires: Option<OffsetDateTime>,
}

impl From<Revocation> for Line {
    fn from(revocation: Revocation) -> Self {
        Self {
            reason: name(revocation.reason),
            epoch: revocation.epoch,
            kind: revocation.kind,
            value: revocation.value,
            authority: revocation.authority,
            spiffe_id: revocation.spiffe_id,
            revoked_at: output::shown(revocation.revoked_at),
            not_after: output::shown(revocation.not_after),
            actor: revocation.actor,
            comment: revocation.comment,
            by: revocation.by,
            expires: revocation.not_after.and_then(output::time_of),
        }
    }
}

/// That of a later issuer may be unknown here.
fn name(number: i32) -> String {
    Reason::of_number(number.into()).map_or_else(|| "unspecified".to_owned(), |reason| reason.to_string())
}

impl List for RevocationList {
    const COLUMNS: &'static [&'static str] =
        &["epoch", "kind", "value", "spiffe id", "reason", "revoked", "by", "comment", "expires"];

    fn lines(&self) -> Vec<Vec<String>> {
        let now = OffsetDateTime::now_utc();
        let line = |line: &Line| {
            vec![
                line.epoch.to_string(),
                line.kind.clone(),
                line.value.clone(),
                line.spiffe_id.clone(),
                line.reason.clone(),
                line.revoked_at.clone().unwrap_or_default(),
                line.actor.clone(),
                line.comment.lines().next().unwrap_or_default().to_owned(),
                line.expires.map(|at| output::distance(now, at)).unwrap_or_default(),
            ]
        };
        self.revocations.iter().map(line).collect()
    }

    fn nothing(&self) -> &'static str {
        "nothing is revoked that has not expired by itself"
    }
}
