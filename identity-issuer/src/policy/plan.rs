//! What is different between two policies.

use std::collections::HashMap;

use signet_identity::BundleSet;
use signet_policy::{DEFAULT_PROFILE, Field, PolicyError, Rule, RuleName};

/// The next rules, and what they change.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rules: Vec<Rule>,
    /// In the order of the rules; removals come last.
    pub(crate) changes: Vec<RuleChange>,
    /// Of those that whoever wishes it may see.
    pub(crate) unchanged: usize,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RuleChange {
    /// None for one that is new.
    pub(crate) before: Option<Rule>,
    /// None for one that goes.
    pub(crate) after: Option<Rule>,
}

impl Plan {
    /// `wanted` replaces rules of the same name and is added otherwise. What is not wanted stays, unless it is pruned.
    pub(crate) fn new(present: &[Rule], wanted: Vec<Rule>, prune: impl Fn(&Rule) -> bool) -> Self {
        let mut wanted_by_name: HashMap<RuleName, Rule> =
            wanted.iter().map(|rule| (rule.name.clone(), rule.clone())).collect();
        let mut plan = Self { rules: Vec::with_capacity(present.len()), changes: Vec::new(), unchanged: 0 };
        let mut removed = Vec::new();
        for rule in present {
            match wanted_by_name.remove(&rule.name) {
                Some(next) if next == *rule => {
                    plan.unchanged += 1;
                    plan.rules.push(next);
                }
                Some(next) => {
                    plan.changes.push(RuleChange::between(Some(rule), Some(&next)));
                    plan.rules.push(next);
                }
                None if prune(rule) => {
                    removed.push(RuleChange::between(Some(rule), None));
                }
                None => {
                    plan.unchanged += 1;
                    plan.rules.push(rule.clone());
                }
            }
        }
        for rule in wanted {
            if wanted_by_name.remove(&rule.name).is_some() {
                plan.changes.push(RuleChange::between(None, Some(&rule)));
                plan.rules.push(rule);
            }
        }
        plan.changes.append(&mut removed);
        plan
    }

    /// Nobody can be given the bundle of a trust domain that has none here. Rules that stay as they are may have lost theirs.
    pub(crate) fn check_bundles(&self, known: &BundleSet) -> Result<(), PolicyError> {
        let is_known = |name: &str| known.iter().any(|bundle| bundle.trust_domain().as_str() == name);
        for rule in self.changes.iter().filter_map(|change| change.after.as_ref()) {
            let unknown = rule.settings.federates_with.iter().enumerate().find(|(_, name)| !is_known(name));
            if let Some((number, name)) = unknown {
                return Err(PolicyError {
                    rule: rule.name.clone(),
                    field: Some(Field::FederatesWith(number)),
                    what: format!("the issuer has no bundle of {name}"),
                    fix: Some(
                        "put it under `federation` in the issuer's configuration, or run `signet federate add`"
                            .to_owned(),
                    ),
                });
            }
        }
        Ok(())
    }
}

impl RuleChange {
    fn between(before: Option<&Rule>, after: Option<&Rule>) -> Self {
        Self { before: before.cloned(), after: after.cloned() }
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.before.iter().chain(&self.after)
    }

    /// The rule, where callers could match it now that did not.
    pub(crate) fn matches_others(&self) -> Option<&RuleName> {
        let after = self.after.as_ref()?;
        let is_other = self.before.as_ref().is_none_or(|before| before.matches != after.matches);
        is_other.then_some(&after.name)
    }

    /// Whether it changes what is given for another use than to be a workload, other than by taking it away. What else an authority
    /// signs for is for those to say who answer for all of it: to whom, under which name and for how long.
    pub(crate) fn touches_a_profile(&self) -> bool {
        let is_other = |rule: &Rule| rule.settings.profile.as_ref().is_some_and(|profile| profile != DEFAULT_PROFILE);
        self.after.is_some() && self.rules().any(is_other)
    }

    /// Whom it gives something beside their identity: patterns of SPIFFE IDs.
    pub(crate) fn gives_to(&self) -> impl Iterator<Item = &str> {
        let patterns = self.after.iter().filter_map(|after| after.matches.get("svid.spiffe_id"));
        patterns.flatten().map(String::as_str)
    }

    /// Whether what the rule gives beside a name, or whom it gives it to, is not what it was.
    pub(crate) fn gives_other_dns_names(&self) -> bool {
        let Some(after) = self.after.as_ref().filter(|after| !after.settings.dns_names.is_empty()) else {
            return false;
        };
        let given = |rule: &Rule| (rule.matches.clone(), rule.settings.dns_names.clone());
        self.before.as_ref().is_none_or(|before| given(before) != given(after))
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

    fn told(plan: &Plan) -> Vec<(RuleName, bool, bool)> {
        let kinds = plan.changes.iter();
        let name = |change: &'_ RuleChange| change.rules().next().unwrap().name.clone();
        kinds.map(|change| (name(change), change.before.is_some(), change.after.is_some())).collect()
    }

    #[test]
    fn what_is_in_no_file_stays_unless_it_is_pruned() {
        let name = |name: &str| name.parse::<RuleName>().unwrap();
        let present = rules(&[("a", "1h"), ("b", "1h"), ("c", "1h")]);
        let wanted = rules(&[("d", "1h"), ("b", "2h"), ("a", "1h")]);
        let plan = Plan::new(&present, wanted.clone(), |_| false);
        assert_eq!(told(&plan), [(name("b"), true, true), (name("d"), false, true)]);
        assert_eq!(plan.unchanged, 2);
        assert_eq!(plan.rules, [&present[..1], &wanted[1..2], &present[2..], &wanted[..1]].concat());
        let plan = Plan::new(&present, wanted, |_| true);
        assert_eq!(told(&plan), [(name("b"), true, true), (name("d"), false, true), (name("c"), true, false)]);
        assert_eq!(plan.rules.len(), 3);
        let nothing = Plan::new(&present, present.clone(), |_| true);
        assert!(nothing.changes.is_empty() && nothing.unchanged == 3);
    }
}
