//! What is different between two policies.

use std::collections::HashMap;

use signet_policy::{Rule, RuleName, render};

use super::path_of;

/// The next rules, and what they change.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rules: Vec<Rule>,
    /// In the order of the rules; removals come last.
    pub(crate) changes: Vec<RuleChange>,
    pub(crate) unchanged: usize,
    /// Where the identities of each rule that changes were, and where they will be.
    pub(crate) touched: Vec<(RuleName, String)>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RuleChange {
    pub(crate) rule: RuleName,
    /// As YAML; none for one that is new.
    pub(crate) before: Option<String>,
    /// None for one that goes.
    pub(crate) after: Option<String>,
}

impl Plan {
    /// `wanted` replaces rules of the same name and is added otherwise. What is not wanted stays, unless it is pruned.
    pub(crate) fn new(present: &[Rule], wanted: Vec<Rule>, prune: impl Fn(&Rule) -> bool) -> Self {
        let touch = |rule: &Rule| (rule.name.clone(), path_of(rule).to_owned());
        let text = |rule: &Rule| Some(render(std::slice::from_ref(rule)));
        let mut wanted_by_name: HashMap<RuleName, Rule> =
            wanted.iter().map(|rule| (rule.name.clone(), rule.clone())).collect();
        let mut plan =
            Self { rules: Vec::with_capacity(present.len()), changes: Vec::new(), unchanged: 0, touched: Vec::new() };
        let mut removed = Vec::new();
        for rule in present {
            match wanted_by_name.remove(&rule.name) {
                Some(next) if next == *rule => {
                    plan.unchanged += 1;
                    plan.rules.push(next);
                }
                Some(next) => {
                    plan.touched.extend([touch(rule), touch(&next)]);
                    plan.changes.push(RuleChange { rule: rule.name.clone(), before: text(rule), after: text(&next) });
                    plan.rules.push(next);
                }
                None if prune(rule) => {
                    plan.touched.push(touch(rule));
                    removed.push(RuleChange { rule: rule.name.clone(), before: text(rule), after: None });
                }
                None => {
                    plan.unchanged += 1;
                    plan.rules.push(rule.clone());
                }
            }
        }
        for rule in wanted {
            if wanted_by_name.remove(&rule.name).is_some() {
                plan.touched.push(touch(&rule));
                plan.changes.push(RuleChange { rule: rule.name.clone(), before: None, after: text(&rule) });
                plan.rules.push(rule);
            }
        }
        plan.changes.append(&mut removed);
        plan
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use signet_policy::Document;

    use super::*;

    fn rules(named: &[(&str, &str)]) -> Vec<Rule> {
        let rules: Vec<String> = named
            .iter()
            .map(|(name, ttl)| {
                format!(
                    "- {{name: {name}, match: {{k8s.pod: a}}, spiffe_id: 'spiffe://example.org/{name}', ttl: {ttl}}}\n"
                )
            })
            .collect();
        let mut document = Document::default();
        document.add("p".as_ref(), &format!("rules:\n{}", rules.concat())).unwrap();
        document.rules
    }

    fn told(plan: &Plan) -> Vec<(&str, bool, bool)> {
        let kinds = plan.changes.iter();
        kinds.map(|change| (change.rule.as_str(), change.before.is_some(), change.after.is_some())).collect()
    }

    #[test]
    fn what_is_in_no_file_stays_unless_it_is_pruned() {
        let present = rules(&[("a", "1h"), ("b", "1h"), ("c", "1h")]);
        let wanted = rules(&[("d", "1h"), ("b", "2h"), ("a", "1h")]);
        let plan = Plan::new(&present, wanted.clone(), |_| false);
        assert_eq!(told(&plan), [("b", true, true), ("d", false, true)]);
        assert_eq!(plan.unchanged, 2);
        assert_eq!(plan.rules, [&present[..1], &wanted[1..2], &present[2..], &wanted[..1]].concat());
        let plan = Plan::new(&present, wanted, |_| true);
        assert_eq!(told(&plan), [("b", true, true), ("d", false, true), ("c", true, false)]);
        assert_eq!(plan.rules.len(), 3);
        let nothing = Plan::new(&present, present.clone(), |_| true);
        assert!(nothing.changes.is_empty() && nothing.unchanged == 3);
    }
}
