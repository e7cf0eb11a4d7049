//! `signet get jwt-keys`, `rotate jwt-key`, `taint`, `revoke jwt-key`: the keys that sign tokens.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;
use signet_proto::admin::v1::{
    JwtKey, ListJwtKeysRequest, ListJwtKeysResponse, RevokeJwtKeyRequest, RotateJwtKeyRequest, TaintJwtKeyRequest,
};
use time::OffsetDateTime;

use crate::admin;
use crate::args::{IssuerOptions, RevokeJwtKeyOptions, RotateJwtKeyOptions, TaintOptions};
use crate::asking::confirm;
use crate::failure::Failure;
use crate::output::{self, Format, List};
use crate::revocations::{reason_name, wire_reason};

/// Between two looks at how far clients have come.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) fn list(options: &IssuerOptions, format: Format) -> Result<(), Failure> {
    output::print_list(format, &Keys::from(get(options)?))
}

pub(crate) fn rotate(options: &RotateJwtKeyOptions, format: Format) -> Result<(), Failure> {
    if options.apply && !options.yes {
        confirm(
            "another key is made and published now; it signs once it was published for long enough, and the connected clients have it\nrotate?",
        )?;
    }
    let request = RotateJwtKeyRequest { dry_run: !options.apply, comment: options.message.clone() };
    let answer =
        admin::call(&options.issuer, async |mut client| Ok(client.rotate_jwt_key(request).await?.into_inner()))?;
    output::print_list(format, &Keys::from(answer))
}

/// Whether there is a key of tokens of this name, which belongs to the issuer that is asked.
pub(crate) fn has(options: &IssuerOptions, key: &str) -> Result<bool, Failure> {
    Ok(get(options)?.keys.iter().any(|known| known.kid == key))
}

pub(crate) fn taint(options: &TaintOptions, format: Format) -> Result<(), Failure> {
    let request = TaintJwtKeyRequest { kid: options.key.clone(), comment: options.message.clone() };
    let answer =
        admin::call(&options.issuer, async |mut client| Ok(client.taint_jwt_key(request).await?.into_inner()))?;
    output::print_list(format, &Keys::from(answer))
}

/// Tells what it is about before it is done, and how far it has come afterwards.
pub(crate) fn revoke(options: &RevokeJwtKeyOptions, format: Format) -> Result<(), Failure> {
    let revoke = &options.revoke;
    let ask = |dry_run: bool| {
        let request = RevokeJwtKeyRequest {
            kid: options.kid.clone(),
            reason: wire_reason(revoke.reason),
            comment: revoke.message.clone(),
            dry_run,
            force: options.force,
        };
        admin::call(&revoke.issuer, async |mut client| Ok(client.revoke_jwt_key(request).await?.into_inner()))
    };
    if revoke.dry_run || !revoke.yes {
        let plan = ask(true)?;
        if revoke.dry_run {
            return output::print_list(format, &Keys::from(plan));
        }
        let clients = plan.acknowledgements.map(|acknowledgements| acknowledgements.connected).unwrap_or_default();
        let kid = output::harmless(&options.kid);
        confirm(&format!(
            "key {kid}: all tokens that it has signed, {clients} connected clients are told. Nothing of it can be taken back.\nrevoke?"
        ))?;
    }
    let mut answer = ask(false)?;
    let deadline = Instant::now() + revoke.wait;
    while !revoke.no_wait && !is_in_force(&answer) && Instant::now() < deadline {
        sleep(LOOK);
        answer = get(&revoke.issuer)?;
    }
    output::print_list(format, &Keys::from(answer))
}

fn is_in_force(answer: &ListJwtKeysResponse) -> bool {
    answer.acknowledgements.as_ref().is_none_or(|told| told.acknowledged >= told.connected)
}

fn get(options: &IssuerOptions) -> Result<ListJwtKeysResponse, Failure> {
    admin::call(options, async |mut client| Ok(client.list_jwt_keys(ListJwtKeysRequest {}).await?.into_inner()))
}

#[derive(Serialize)]
struct Keys {
    keys: Vec<Key>,
    /// When another one signs at the earliest, where somebody wants one to.
    signs_at: Option<String>,
    connected_clients: u32,
    /// Of those, who have the keys in force as they are.
    acknowledged: u32,
}

#[derive(Serialize)]
struct Key {
    kid: String,
    algorithm: String,
    stage: String,
    since: Option<String>,
    not_after: Option<String>,
    own: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    actor: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip)]
    expires: Option<OffsetDateTime>,
    #[serde(skip)]
    came_at: Option<OffsetDateTime>,
}

impl From<ListJwtKeysResponse> for Keys {
    fn from(answer: ListJwtKeysResponse) -> Self {
        let ListJwtKeysResponse { keys, signs_at, acknowledgements } = answer;
        let acknowledgements = acknowledgements.unwrap_or_default();
        Self {
            keys: keys.into_iter().map(Key::from).collect(),
            signs_at: output::shown(signs_at),
            connected_clients: acknowledgements.connected,
            acknowledged: acknowledgements.acknowledged,
        }
    }
}

impl From<JwtKey> for Key {
    fn from(key: JwtKey) -> Self {
        let JwtKey { kid, algorithm, stage, since, not_after, own, actor, comment, reason } = key;
        Self {
            kid,
            algorithm,
            stage,
            since: output::shown(since),
            not_after: output::shown(not_after),
            own,
            actor,
            comment,
            reason: reason_name(reason),
            expires: not_after.and_then(output::time_of),
            came_at: since.and_then(output::time_of),
        }
    }
}

impl List for Keys {
    const COLUMNS: &'static [&'static str] = &["kid", "algorithm", "stage", "since", "expires"];

    fn lines(&self) -> Vec<Vec<String>> {
        let now = OffsetDateTime::now_utc();
        let distance = |at: Option<OffsetDateTime>| at.map(|at| output::distance(now, at)).unwrap_or_default();
        let line = |key: &Key| {
            vec![
                key.kid.clone(),
                key.algorithm.clone(),
                key.stage.clone(),
                distance(key.came_at),
                distance(key.expires),
            ]
        };
        self.keys.iter().map(line).collect()
    }

    fn nothing(&self) -> &'static str {
        "there is no key of tokens"
    }
}
