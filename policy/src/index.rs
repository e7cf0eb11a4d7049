//! Which rules can hold for a caller at all: those for one of its attributes' values, or for how one begins, and those for any.

use std::collections::{BTreeSet, HashMap};

use crate::attributes::{AttributeName, Attributes};
use crate::pattern::Pattern;
use crate::policy::{Compiled, Condition};

#[derive(Debug, Default)]
pub(crate) struct Index {
    by_attribute: HashMap<AttributeName, Values>,
    /// Rules that no beginning of a value tells from others.
    others: Vec<usize>,
}

/// The rules that one attribute's value leads to.
#[derive(Debug, Default)]
struct Values {
    whole: HashMap<Box<str>, Vec<usize>>,
    beginnings: HashMap<Box<str>, Vec<usize>>,
    /// Of the beginnings, in bytes.
    lengths: BTreeSet<usize>,
}

/// What a value must be, or begin with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
enum Key<'a> {
    Whole(&'a str),
    Beginning(&'a str),
}

impl<'a> Key<'a> {
    /// None for a pattern that begins with `*`.
    fn of(pattern: &'a Pattern) -> Option<Self> {
        match pattern.literal() {
            Some(value) => Some(Self::Whole(value)),
            None => Some(pattern.beginning()).filter(|beginning| !beginning.is_empty()).map(Self::Beginning),
        }
    }

    /// One for each pattern, if all have one.
    fn of_condition(condition: &'a Condition) -> Option<Vec<Self>> {
        condition.patterns.iter().map(Self::of).collect()
    }
}

impl Index {
    /// Each rule stands under the condition that fewest rules share.
    pub(crate) fn over(rules: &[Compiled]) -> Self {
        let mut shared: HashMap<(&AttributeName, Key<'_>), usize> = HashMap::new();
        for condition in rules.iter().flat_map(|rule| &rule.conditions) {
            for key in Key::of_condition(condition).unwrap_or_default() {
                *shared.entry((&condition.name, key)).or_default() += 1;
            }
        }
        let cost = |name, keys: &[Key<'_>]| keys.iter().filter_map(|key| shared.get(&(name, *key))).sum::<usize>();
        let mut index = Self::default();
        for (number, rule) in rules.iter().enumerate() {
            let conditions = rule.conditions.iter();
            let conditions = conditions.filter_map(|condition| Some((&condition.name, Key::of_condition(condition)?)));
            match conditions.min_by_key(|(name, keys)| cost(name, keys)) {
                None => index.others.push(number),
                Some((name, keys)) => {
                    let values = index.by_attribute.entry(name.clone()).or_default();
                    keys.into_iter().for_each(|key| values.insert(key, number));
                }
            }
        }
        index
    }

    /// In order, each once.
    pub(crate) fn candidates(&self, attributes: &Attributes) -> Vec<usize> {
        let mut found = self.others.clone();
        for (name, value) in attributes.iter() {
            if let Some(values) = self.by_attribute.get(name) {
                values.find(value, &mut found);
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl Values {
    fn insert(&mut self, key: Key<'_>, rule: usize) {
        let rules = match key {
            Key::Whole(value) => self.whole.entry(value.into()),
            Key::Beginning(value) => {
                self.lengths.insert(value.len());
                self.beginnings.entry(value.into())
            }
        };
        rules.or_default().push(rule);
    }

    fn find(&self, value: &str, found: &mut Vec<usize>) {
        found.extend(self.whole.get(value).into_iter().flatten());
        for length in self.lengths.range(..=value.len()) {
            // None in the middle of a character, where no beginning ends.
            let beginning = value.get(..*length).and_then(|beginning| self.beginnings.get(beginning));
            found.extend(beginning.into_iter().flatten());
        }
    }
}
