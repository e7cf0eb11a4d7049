//! `signet rotate`: what would be done, doing it, and how far it has come.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;
use signet_proto::admin::v1::rotate_request::What;
use signet_proto::admin::v1::{
    AuthorityDetail, AuthorityRotation, CancelRotationRequest, GetRotationRequest, ListAuthoritiesRequest,
    RequestAuthoritiesRequest, RootRotation, RotateRequest, RotationStatus, RotationStep,
};
use time::OffsetDateTime;

use crate::admin;
use crate::args::{BeginOptions, IssuerOptions, RotateAuthorityOptions, RotateRootOptions, RotateStatusOptions};
use crate::asking::confirm;
use crate::authorities::Authority;
use crate::dev;
use crate::failure::Failure;
use crate::output::{self, Format};

/// Between two looks at how far it has come.
const LOOK: Duration = Duration::from_millis(200);
/// For the root of a development mesh to sign what is asked for.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn authority(options: &RotateAuthorityOptions, format: Format) -> Result<(), Failure> {
    let begin = &options.begin;
    if begin.apply && options.successor.is_none() && dev::folder_of(&begin.issuer).is_some() {
        have_one_prepared(&begin.issuer)?;
    }
    let successor = options.successor.clone().unwrap_or_default();
    carry_out(begin, &What::Authority(AuthorityRotation { successor }), format)
}

pub(crate) fn root(options: &RotateRootOptions, format: Format) -> Result<(), Failure> {
    let path = match (&options.root, dev::folder_of(&options.begin.issuer)) {
        (Some(path), _) => path.clone(),
        (None, Some(folder)) if options.begin.apply => dev::next_root(&folder)?,
        (None, Some(folder)) => return dev::with_some_next_root(&folder, |path| begin_root(options, path, format)),
        (None, None) => {
            return Err(Failure::new("which root is to come?")
                .remedy("make one by `signet ca init` and name its certificate by --root FILE"));
        }
    };
    begin_root(options, &path, format)
}

fn begin_root(options: &RotateRootOptions, path: &Path, format: Format) -> Result<(), Failure> {
    let root_pem = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("{}: {error}", path.display())).remedy("name the next root's certificate, PEM")
    })?;
    carry_out(&options.begin, &What::Root(RootRotation { root_pem }), format)
}

pub(crate) fn status(options: &RotateStatusOptions, format: Format) -> Result<(), Failure> {
    let status = get(&options.issuer)?;
    if options.watch && status.rotation.is_some() {
        return follow(&options.issuer, format);
    }
    print(&status, format)
}

pub(crate) fn cancel(options: &IssuerOptions, format: Format) -> Result<(), Failure> {
    admin::call(options, async |mut client| client.cancel_rotation(CancelRotationRequest {}).await.map(drop))?;
    match format {
        Format::Table => output::print_text("cancelled; what it has done stays\n"),
        Format::Json | Format::Yaml => print(&get(options)?, format),
    }
}

fn carry_out(options: &BeginOptions, what: &What, format: Format) -> Result<(), Failure> {
    let ask = |dry_run: bool| {
        let request = RotateRequest {
            what: Some(what.clone()),
            dry_run,
            override_acknowledgements: options.hurry,
            comment: options.message.clone(),
        };
        admin::call(&options.issuer, async |mut client| Ok(client.rotate(request).await?.into_inner()))
    };
    // One that is under way has been planned already.
    let is_under_way = options.hurry && get(&options.issuer)?.rotation.is_some();
    if !is_under_way {
        let plan = ask(true)?;
        if !options.apply {
            return print(&plan, format);
        }
        if format == Format::Table {
            print(&plan, format)?;
        }
    }
    if !options.yes {
        confirm(if options.hurry { "do this, and wait for nobody?" } else { "do this?" })?;
    }
    let begun = ask(false)?;
    if options.no_wait {
        return print(&begun, format);
    }
    follow(&options.issuer, format)
}

/// Tells each step as it is made, to its end.
fn follow(options: &IssuerOptions, format: Format) -> Result<(), Failure> {
    let is_for_people = format == Format::Table;
    let mut told = String::new();
    let mut before = RotationStatus::default();
    loop {
        let status = get(options)?;
        if status.rotation.is_none() {
            if before.rotation.is_some() && !is_done(&before, &status) {
                return Err(Failure::new(
                    "the rotation was given up: it was cancelled, or the authority that was to follow cannot sign",
                )
                .remedy("look at `signet get authorities` and at the log of the issuer"));
            }
            return match is_for_people {
                true => output::print_text(&format!("done\n{}", overview(&status))),
                false => print(&status, format),
            };
        }
        let now = status.steps.iter().find(|step| step.state == "now").map(|step| step.description.clone());
        if let Some(now) = now.filter(|now| *now != told) {
            if is_for_people || io::stderr().is_terminal() {
                let _ = writeln!(io::stderr(), "… {}", output::harmless(&now));
            }
            told = now;
        }
        before = status;
        sleep(LOOK);
    }
}

/// Whether a rotation that is no more came to its end, by how it stood when it was last seen.
fn is_done(before: &RotationStatus, after: &RotationStatus) -> bool {
    let key = |authority: &Option<AuthorityDetail>| authority.as_ref().map(|authority| authority.key.clone());
    let followed = key(&before.successor).is_some() && key(&before.successor) == key(&after.active);
    let is_last = |step: &RotationStep| step.state == "now";
    match &before.rotation {
        // Its last step takes seconds, unless nobody is waited for.
        Some(rotation) if rotation.kind == "root" && rotation.overridden_by.is_empty() => {
            followed && before.steps.last().is_some_and(is_last)
        }
        Some(_) | None => followed,
    }
}

/// The root of a development mesh is at hand.
fn have_one_prepared(options: &IssuerOptions) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let is_prepared = admin::call(options, async |mut client| {
            let listed = client.list_authorities(ListAuthoritiesRequest {}).await?.into_inner();
            let is_prepared = listed.authorities.iter().any(|authority| authority.stage == "prepared");
            if !is_prepared {
                client.request_authorities(RequestAuthoritiesRequest { count: 1, discard: Vec::new() }).await?;
            }
            Ok(is_prepared)
        })?;
        match is_prepared {
            true => return Ok(()),
            false if Instant::now() > deadline => {
                return Err(Failure::new("the root of this mesh has signed no further authority")
                    .remedy("see why in the log of `signet dev`"));
            }
            false => sleep(LOOK),
        }
    }
}

fn get(options: &IssuerOptions) -> Result<RotationStatus, Failure> {
    admin::call(options, async |mut client| Ok(client.get_rotation(GetRotationRequest {}).await?.into_inner()))
}

#[derive(Serialize)]
struct Status {
    rotation: Option<Rotation>,
    active: Option<Authority>,
    successor: Option<Authority>,
    connected_clients: u32,
    acknowledged: u32,
    missing: Vec<Missing>,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Rotation {
    kind: String,
    begun_at: Option<String>,
    actor: String,
    deadline: Option<String>,
    quorum_percent: u32,
    overridden_by: Option<String>,
}

#[derive(Serialize)]
struct Missing {
    agent: u64,
    spiffe_id: String,
    refused: Option<String>,
    connected_to: Option<String>,
}

#[derive(Serialize)]
struct Step {
    description: String,
    state: String,
}

fn print(status: &RotationStatus, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => output::print_text(&overview(status)),
        Format::Json | Format::Yaml => output::print_text(&output::serialized(format, &Status::from(status.clone()))?),
    }
}

impl From<RotationStatus> for Status {
    fn from(status: RotationStatus) -> Self {
        let some = |text: String| (!text.is_empty()).then_some(text);
        let RotationStatus { rotation, active, successor, acknowledgements, steps } = status;
        let acknowledgements = acknowledgements.unwrap_or_default();
        Self {
            rotation: rotation.map(|rotation| Rotation {
                kind: rotation.kind,
                begun_at: output::shown(rotation.begun_at),
                actor: rotation.actor,
                deadline: output::shown(rotation.deadline),
                quorum_percent: rotation.quorum,
                overridden_by: some(rotation.overridden_by),
            }),
            active: active.map(Authority::from),
            successor: successor.map(Authority::from),
            connected_clients: acknowledgements.connected,
            acknowledged: acknowledgements.acknowledged,
            missing: acknowledgements
                .missing
                .into_iter()
                .map(|missing| Missing {
                    agent: missing.agent,
                    spiffe_id: missing.spiffe_id,
                    refused: some(missing.refused),
                    connected_to: some(missing.connected_to),
                })
                .collect(),
            steps: steps.into_iter().map(|step| Step { description: step.description, state: step.state }).collect(),
        }
    }
}

/// For people: the authorities, the steps, and who is waited for.
fn overview(status: &RotationStatus) -> String {
    let now = OffsetDateTime::now_utc();
    let mut text = String::new();
    let mut line = |line: String| text.push_str(&(output::harmless(&line) + "\n"));
    for (name, authority) in [("signs", &status.active), ("to come", &status.successor)] {
        if let Some(authority) = authority {
            let expires = authority.not_after.and_then(output::time_of);
            let expires = expires.map(|at| format!(", expires {}", output::distance(now, at))).unwrap_or_default();
            let live = authority.live_certificates;
            line(format!("{name:8} {} ({}){expires}, {live} live certificates", authority.key, authority.stage));
        }
    }
    match &status.rotation {
        None if status.steps.is_empty() => line("no rotation is under way".to_owned()),
        None => {}
        Some(rotation) => {
            let deadline = rotation.deadline.and_then(output::time_of);
            let deadline = deadline.map(|at| {
                format!("; {} % of the connected clients are enough {}", rotation.quorum, output::distance(now, at))
            });
            let hurry = match rotation.overridden_by.as_str() {
                "" => String::new(),
                actor => format!("; {actor} waits for nobody"),
            };
            line(format!(
                "rotation of the {} by {}{}{hurry}",
                rotation.kind,
                rotation.actor,
                deadline.unwrap_or_default()
            ));
        }
    }
    for step in &status.steps {
        let mark = match step.state.as_str() {
            "done" => "done   ",
            "now" => "now    ",
            _ => "to come",
        };
        line(format!("  {mark}  {}", step.description));
    }
    let missing = status.acknowledgements.as_ref().map(|acknowledgements| &acknowledgements.missing[..]);
    for missing in missing.filter(|_| status.rotation.is_some()).unwrap_or_default() {
        let refused = match missing.refused.as_str() {
            "" => "has not acknowledged".to_owned(),
            refused => format!("refuses: {refused}"),
        };
        line(format!("  agent {} {} {refused}", missing.agent, missing.spiffe_id));
    }
    text
}

#[cfg(test)]
mod tests {
    use signet_proto::admin::v1::{Acknowledgements, Unacknowledged};

    use super::*;

    #[test]
    fn a_rotation_that_was_given_up_is_not_told_as_done() {
        let authority = |key: &str| Some(AuthorityDetail { key: key.to_owned(), ..Default::default() });
        let before = |kind: &str, last: &str| RotationStatus {
            rotation: Some(signet_proto::admin::v1::Rotation { kind: kind.to_owned(), ..Default::default() }),
            successor: authority("b"),
            steps: vec![RotationStep { description: String::new(), state: last.to_owned() }],
            ..Default::default()
        };
        let after = |active: &str| RotationStatus { active: authority(active), ..Default::default() };
        assert!(is_done(&before("authority", "now"), &after("b")));
        assert!(!is_done(&before("authority", "now"), &after("a")));
        assert!(is_done(&before("root", "now"), &after("b")));
        assert!(!is_done(&before("root", "to come"), &after("b")));
        assert!(!is_done(&RotationStatus { successor: None, ..before("root", "now") }, &RotationStatus::default()));
    }

    #[test]
    fn a_person_sees_who_is_waited_for_and_nothing_that_drives_a_terminal() {
        let step = |description: &str, state: &str| RotationStep {
            description: description.to_owned(),
            state: state.to_owned(),
        };
        let missing = Unacknowledged {
            agent: 7,
            spiffe_id: "spiffe://example.org/a".to_owned(),
            refused: "not\u{1b}[2J yet".to_owned(),
            ..Unacknowledged::default()
        };
        let status = RotationStatus {
            rotation: Some(signet_proto::admin::v1::Rotation {
                kind: "authority".to_owned(),
                actor: "uid:0".to_owned(),
                ..Default::default()
            }),
            steps: vec![step("one", "done"), step("two", "now"), step("three", "to come")],
            acknowledgements: Some(Acknowledgements { connected: 1, acknowledged: 0, missing: vec![missing] }),
            ..RotationStatus::default()
        };
        let told = overview(&status);
        assert!(told.contains("agent 7 spiffe://example.org/a refuses: not\\u{1b}[2J yet"), "{told}");
        assert!(told.contains("  now      two\n  to come  three\n"), "{told}");
        assert_eq!(overview(&RotationStatus::default()), "no rotation is under way\n");
    }
}
