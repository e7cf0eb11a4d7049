//! Rules that are good by themselves, and not beside each other.

use std::collections::{HashMap, HashSet};

use signet_identity::{PatternSegment, SpiffeIdPattern};

use crate::attributes::AttributeName;
use crate::policy::{Compiled, PolicyError};
use crate::rule::Field;
use crate::template::Template;

/// No two rules may give one caller the same identity: which TTL or profile would it have?
///
/// Each is compared with those alone that have the same first segment and number of segments, and are not told apart by a
/// value of the one attribute that has most values in these. So ten thousand namespaces are not compared with each other.
pub(crate) fn check(rules: &[Compiled]) -> Result<(), PolicyError> {
    let mut alike: HashMap<(Option<&str>, usize), Vec<&Compiled>> = HashMap::new();
    for rule in rules {
        let segments = rule.path.segments();
        let shape = (segments.first().and_then(|first| first.literal()), segments.len());
        alike.entry(shape).or_default().push(rule);
    }
    alike.values().try_for_each(|rules| check_alike(rules))
}

fn check_alike(rules: &[&Compiled]) -> Result<(), PolicyError> {
    // By how many values, not of how many rules: all may want the same cluster, and each a namespace of its own.
    let mut told_apart: HashMap<&AttributeName, HashSet<&str>> = HashMap::new();
    for (name, values) in rules.iter().flat_map(|rule| values(rule)) {
        told_apart.entry(name).or_default().extend(values);
    }
    let by = told_apart.into_iter().max_by_key(|(name, values)| (values.len(), *name)).map(|(name, _)| name);
    let mut of_value: HashMap<&str, Vec<&Compiled>> = HashMap::new();
    // Those that could go with any value.
    let mut others: Vec<&Compiled> = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        let values = by.and_then(|by| values(rule).find(|(name, _)| *name == by)).map(|(_, values)| values);
        let found = match &values {
            None => rules[..number].iter().find(|other| collide(rule, other)),
            Some(values) => {
                let of_same = values.iter().filter_map(|value| of_value.get(value)).flatten();
                of_same.chain(&others).find(|other| collide(rule, other))
            }
        };
        if let Some(other) = found {
            let what = format!("a caller could get the same identity by rule `{}`", other.name);
            return Err(PolicyError::of(&rule.name, Some(Field::SpiffeId), what)
                .fix("let their `match` exclude each other, or give them different paths"));
        }
        match values {
            None => others.push(rule),
            Some(values) => values.into_iter().for_each(|value| of_value.entry(value).or_default().push(rule)),
        }
    }
    Ok(())
}

/// The attributes of which a caller has one value, where a rule wants certain ones.
fn values(rule: &Compiled) -> impl Iterator<Item = (&AttributeName, Vec<&str>)> {
    let conditions = rule.conditions.iter().filter(|condition| !condition.name.may_have_several_values());
    conditions.filter_map(|condition| Some((&condition.name, condition.literals()?)))
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
