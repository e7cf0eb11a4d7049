//! Which rules can hold for a caller at all: those for one of its attributes' values, and those for no certain value.

use std::collections::HashMap;

use crate::attributes::{AttributeName, Attributes};
use crate::policy::Compiled;

#[derive(Debug, Default)]
pub(crate) struct Index {
    by_value: HashMap<AttributeName, HashMap<Box<str>, Vec<usize>>>,
    /// Rules whose conditions are all patterns.
    others: Vec<usize>,
}

impl Index {
    /// Each rule stands under the condition that fewest rules share.
    pub(crate) fn over(rules: &[Compiled]) -> Self {
        let mut shared: HashMap<(&AttributeName, &str), usize> = HashMap::new();
        for condition in rules.iter().flat_map(|rule| &rule.conditions) {
            for value in condition.literals().unwrap_or_default() {
                *shared.entry((&condition.name, value)).or_default() += 1;
            }
        }
        let cost = |name, values: &[&str]| values.iter().filter_map(|value| shared.get(&(name, *value))).sum::<usize>();
        let mut index = Self::default();
        for (number, rule) in rules.iter().enumerate() {
            let conditions =
                rule.conditions.iter().filter_map(|condition| Some((&condition.name, condition.literals()?)));
            match conditions.min_by_key(|(name, values)| cost(name, values)) {
                None => index.others.push(number),
                Some((name, values)) => {
                    let by_value = index.by_value.entry(name.clone()).or_default();
                    for value in values {
                        by_value.entry(value.into()).or_default().push(number);
                    }
                }
            }
        }
        index
    }

    /// In order, each once.
    pub(crate) fn candidates(&self, attributes: &Attributes) -> Vec<usize> {
        let mut found = self.others.clone();
        for (name, value) in attributes.iter() {
            if let Some(rules) = self.by_value.get(name).and_then(|by_value| by_value.get(value)) {
                found.extend(rules);
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}
