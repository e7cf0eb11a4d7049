//! The steps of a rotation, for people: what is done, what is under way, and what is to come.

use super::{Parts, Wanted};
use crate::authority::{RootChange, Stage};
use crate::store::StoreError;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Step {
    pub(crate) description: String,
    pub(crate) state: StepState,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StepState {
    Done,
    Now,
    ToCome,
}

/// Of the rotation that is under way, or of one that is wanted.
pub(super) async fn steps(parts: &Parts, wanted: Option<&Wanted>) -> Result<Vec<Step>, StoreError> {
    let rotation = parts.authorities.rotation();
    let change = match (&rotation, wanted) {
        (Some(rotation), _) => rotation.root.clone(),
        (None, Some(wanted)) => parts.root_change(wanted).ok().flatten(),
        (None, None) => return Ok(Vec::new()),
    };
    let acknowledgements = parts.acknowledgements().await?;
    let acknowledged = acknowledgements.connected - acknowledgements.missing.len();
    let successor = rotation.as_ref().and_then(|rotation| rotation.successor.clone());
    let is_active = parts.authorities.active().is_some_and(|active| Some(active.name().to_string()) == successor);
    let is_begun = rotation.is_some();
    let mut all = Vec::new();
    if let Some(RootChange { to, .. }) = &change {
        all.push((format!("root {} is trusted beside the one before", shown(to)), is_begun));
        let waits = match parts.authorities.all().iter().any(|member| member.stage == Stage::Requested) {
            true if successor.is_none() => {
                ": its request waits (`signet ca csr`, have it signed by the new root, `signet ca import`)"
            }
            true | false => "",
        };
        all.push((format!("an authority is signed by it{waits}"), successor.is_some()));
    }
    if change.is_none() && parts.ready().is_empty() && !is_active {
        all.push(("a successor is signed (`signet ca csr`, `signet ca sign`, `signet ca import`)".to_owned(), false));
    }
    let connected = acknowledgements.connected;
    all.push((
        format!("{acknowledged} of {connected} connected clients would believe the authority to come"),
        is_active,
    ));
    all.push(("it signs, and the one before it retires".to_owned(), is_active));
    if let Some(change) = &change {
        let tainted = rotation.as_ref().and_then(|rotation| rotation.root.as_ref()).is_some_and(|root| root.tainted);
        let left = parts.left_under(change).await?;
        all.push(("all that was signed below the root before is renewed".to_owned(), tainted && left == 0));
        all.push((format!("root {} is trusted no more ({left} need it now)", shown(&change.from)), false));
    }
    let mut is_under_way = is_begun;
    let state = |is_done: bool| match (is_done, std::mem::replace(&mut is_under_way, is_done && is_begun)) {
        (true, _) => StepState::Done,
        (false, true) => StepState::Now,
        (false, false) => StepState::ToCome,
    };
    let mut state = state;
    Ok(all.into_iter().map(|(description, is_done)| Step { description, state: state(is_done) }).collect())
}

/// The beginning of each is enough for people.
fn shown(names: &[String]) -> String {
    names.iter().map(|name| name.get(..16).unwrap_or(name)).collect::<Vec<_>>().join(", ")
}
