//! Rules that are good by themselves, and not beside each other.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use signet_identity::{PatternSegment, SpiffeIdPattern};

use crate::attributes::{AttributeName, Family};
use crate::policy::{Compiled, PolicyError};
use crate::rule::Field;
use crate::template::Template;

/// No two rules may give one caller the same identity for the same use: which TTL would it have?
///
/// Each is compared with those alone that have the same first segment and number of segments, as far as [`ToldApart`] leaves any.
pub(crate) fn check(rules: &[Compiled]) -> Result<(), PolicyError> {
    let mut alike: HashMap<(Option<&str>, usize), Vec<&Compiled>> = HashMap::new();
    for rule in rules {
        let segments = rule.path.segments();
        let shape = (segments.first().and_then(|first| first.literal()), segments.len());
        alike.entry(shape).or_default().push(rule);
    }
    let budget = Budget::default();
    alike.values().try_for_each(|rules| check_alike(rules, &budget))
}

fn check_alike(rules: &[&Compiled], budget: &Budget) -> Result<(), PolicyError> {
    let mut before = ToldApart::over(rules);
    for rule in rules {
        let found = before.candidates(rule).find(|other| budget.is_spent() || collide(rule, other, budget));
        if budget.is_spent() {
            return Err(budget.refusal(rule));
        }
        if let Some(other) = found {
            let what = format!("a caller could get the same identity by rule `{}`", other.name);
            return Err(PolicyError::of(&rule.name, Some(Field::SpiffeId), what)
                .fix("let their `match` exclude each other, or give them different paths"));
        }
        before.insert(rule);
    }
    Ok(())
}

/// The first of `ones` that a caller could match beside one of `others`.
pub(crate) fn overlap<'a>(ones: &[&'a Compiled], others: &[&'a Compiled]) -> Result<Option<&'a Compiled>, PolicyError> {
    let (mut apart, budget) = (ToldApart::over(&[ones, others].concat()), Budget::default());
    others.iter().for_each(|other| apart.insert(other));
    for one in ones {
        let overlaps = |other: &Compiled| one.family() == other.family() && may_both_match(one, other, &budget);
        let found = apart.candidates(one).any(|other| budget.is_spent() || overlaps(other));
        if budget.is_spent() {
            return Err(budget.refusal(one));
        }
        if found {
            return Ok(Some(one));
        }
    }
    Ok(None)
}

/// How many more comparisons there may be. Rules that no value tells apart are each compared with each.
struct Budget(Cell<u64>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(MOST_COMPARISONS))
    }
}

impl Budget {
    fn spend(&self, comparisons: usize) {
        self.0.set(self.0.get().saturating_sub(comparisons as u64));
    }

    fn is_spent(&self) -> bool {
        self.0.get() == 0
    }

    fn refusal(&self, rule: &Compiled) -> PolicyError {
        PolicyError::of(&rule.name, None, "there are too many rules that no value of an attribute tells from this one")
            .fix("match one attribute by values without `*`, another in each rule")
    }
}

/// As many as ten thousand rules have when each is compared with each.
const MOST_COMPARISONS: u64 = 60_000_000;

/// Rules by the values of one attribute, the one that has most of them. By how many values, not of how many rules: all may want the
/// same cluster, and each a namespace of its own. So ten thousand namespaces are not compared with each other.
struct ToldApart<'a> {
    by: Option<&'a AttributeName>,
    of_value: HashMap<&'a str, Vec<&'a Compiled>>,
    /// Those that could go with any value.
    of_any: Vec<&'a Compiled>,
    all: Vec<&'a Compiled>,
}

impl<'a> ToldApart<'a> {
    /// For these; empty yet.
    fn over(rules: &[&'a Compiled]) -> Self {
        let mut told_apart: HashMap<&AttributeName, HashSet<&str>> = HashMap::new();
        for (name, values) in rules.iter().flat_map(|rule| values(rule)) {
            told_apart.entry(name).or_default().extend(values);
        }
        let by = told_apart.into_iter().max_by_key(|(name, values)| (values.len(), *name)).map(|(name, _)| name);
        Self { by, of_value: HashMap::new(), of_any: Vec::new(), all: Vec::new() }
    }

    fn values(&self, rule: &'a Compiled) -> Option<Vec<&'a str>> {
        let by = self.by?;
        values(rule).find(|(name, _)| *name == by).map(|(_, values)| values)
    }

    fn insert(&mut self, rule: &'a Compiled) {
        self.all.push(rule);
        match self.values(rule) {
            None => self.of_any.push(rule),
            Some(values) => values.into_iter().for_each(|value| self.of_value.entry(value).or_default().push(rule)),
        }
    }

    /// All that are there and could match beside it, and perhaps more.
    fn candidates(&self, rule: &'a Compiled) -> Box<dyn Iterator<Item = &'a Compiled> + '_> {
        match self.values(rule) {
            None => Box::new(self.all.iter().copied()),
            Some(values) => {
                let of_same = values.into_iter().filter_map(|value| self.of_value.get(value)).flatten();
                Box::new(of_same.chain(&self.of_any).copied())
            }
        }
    }
}

/// The attributes of which a caller has one value, where a rule wants certain ones.
fn values(rule: &Compiled) -> impl Iterator<Item = (&AttributeName, Vec<&str>)> {
    let conditions = rule.conditions.iter().filter(|condition| !condition.name.may_have_several_values());
    conditions.filter_map(|condition| Some((&condition.name, condition.literals()?)))
}

fn collide(one: &Compiled, two: &Compiled, budget: &Budget) -> bool {
    budget.spend(1);
    let of_one_caller = one.family() == two.family() || [one.family(), two.family()].contains(&Family::Svid);
    of_one_caller
        && one.use_as == two.use_as
        && one.path.segments().iter().zip(two.path.segments()).all(|(one, two)| one.may_equal(two))
        && may_both_match(one, two, budget)
}

/// Not so when one attribute would have to have two values. One that can have several values at once excludes nothing.
fn may_both_match(one: &Compiled, two: &Compiled, budget: &Budget) -> bool {
    one.conditions.iter().all(|condition| {
        let other = two.conditions.iter().find(|other| other.name == condition.name);
        other.is_none_or(|other| {
            budget.spend(condition.patterns.len() * other.patterns.len());
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
