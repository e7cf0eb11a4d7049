//! Rules that are good by themselves, and not beside each other.

use std::collections::HashMap;

use signet_identity::{PatternSegment, SpiffeIdPattern};

use crate::policy::{Compiled, PolicyError};
use crate::rule::Field;
use crate::template::Template;

/// No two rules may give one caller the same identity: which TTL or profile would it have?
///
/// Only rules with the same first segment and number of segments are compared, each with each.
pub(crate) fn check(rules: &[Compiled]) -> Result<(), PolicyError> {
    let mut alike: HashMap<(Option<&str>, usize), Vec<&Compiled>> = HashMap::new();
    for rule in rules {
        let segments = rule.path.segments();
        let shape = (segments.first().and_then(|first| first.literal()), segments.len());
        let others = alike.entry(shape).or_default();
        if let Some(other) = others.iter().find(|other| collide(rule, other)) {
            let what = format!("a caller could get the same identity by rule `{}`", other.name);
            return Err(PolicyError::of(&rule.name, Some(Field::SpiffeId), what)
                .fix("let their `match` exclude each other, or give them different paths"));
        }
        others.push(rule);
    }
    Ok(())
}

fn collide(one: &Compiled, two: &Compiled) -> bool {
    one.family() == two.family()
        && one.path.segments().iter().zip(two.path.segments()).all(|(one, two)| one.may_equal(two))
        && may_both_match(one, two)
}

/// Not so when one attribute would have to have two values. One that can have several values at once excludes nothing.
fn may_both_match(one: &Compiled, two: &Compiled) -> bool {
    one.conditions.iter().all(|condition| {
        let other = two.conditions.iter().find(|other| other.name == condition.name);
        other.is_none_or(|other| {
            condition.name.may_have_several_values()
                || condition.patterns.iter().any(|one| other.patterns.iter().any(|two| one.may_overlap(two)))
        })
    })
}

/// Whether the template could come out as an ID of the pattern.
pub(crate) fn could_give(path: &Template, pattern: &SpiffeIdPattern) -> bool {
    let mut templates = path.segments().iter();
    for segment in pattern.segments() {
        let Some(template) = templates.next() else { return false };
        match segment {
            PatternSegment::Rest => return true,
            PatternSegment::Any => {}
            PatternSegment::Exactly(text) if template.may_be(text) => {}
            PatternSegment::Exactly(_) => return false,
        }
    }
    templates.next().is_none()
}
