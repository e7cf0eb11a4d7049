//! What the audit log says of authorities.

use signet_audit::{Act, Text};

use super::member::{Kept, Member};

/// What is different after a step.
pub(super) fn between(before: &Kept, after: &Kept) -> impl Iterator<Item = Act> {
    let of = |kept: &Kept, member: &Member| kept.get(&member.name()).map(|same| (same.stage, same.chain.clone()));
    let changed =
        after.members.iter().filter(|member| of(before, member) != Some((member.stage, member.chain.clone())));
    let changed = changed.map(|member| changed_to(member, member.stage.label()));
    let gone = before.members.iter().filter(|member| of(after, member).is_none());
    let gone = gone.map(|member| changed_to(member, "destroyed"));
    let rotation = after.rotation.as_ref().filter(|rotation| before.rotation.as_ref() != Some(rotation));
    let rotation = rotation.map(|rotation| Act::RotationBegun {
        successor: rotation.successor.clone().unwrap_or_default(),
        root: rotation.root.is_some(),
        actor: rotation.actor.clone(),
        comment: Text::from(rotation.comment.as_str()),
        overridden_by: rotation.overridden_by.clone().unwrap_or_default(),
    });
    changed.chain(gone).chain(rotation).collect::<Vec<_>>().into_iter()
}

fn changed_to(member: &Member, stage: &str) -> Act {
    // The first is its own.
    let certificate = member.chain.as_deref().and_then(|chain| pem::parse(chain).ok());
    Act::AuthorityChanged {
        authority: member.name().to_string(),
        stage: stage.to_owned(),
        certificate: certificate.map_or_else(String::new, |block| hex::encode(signet_audit::sha256(block.contents()))),
    }
}
