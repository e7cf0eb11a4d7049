//! Lives that are not given whole: a leaf lives a sixth of its authority's life at most, whatever a rule says, so that an authority
//! can be replaced before anything that it signed is cut off by its end.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use signet_policy::{DEFAULT_PROFILE, Rule, RuleName};
use signet_process::config;

use crate::authority::{Authorities, Authority, LEAF_LIVES};
use crate::metrics::Metrics;
use crate::policy::{Current, Policies};
use crate::profile::{Form, Profile, Profiles};

/// What asks for a life that an authority does not give.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TooLong {
    what: What,
    profile: Box<str>,
    wanted: Duration,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum What {
    /// Where no rule is asked: a join token's identity, and the issuer's own.
    Profile,
    Rule(RuleName),
}

/// All of them, the longest first, under one authority.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Cut {
    longest: Duration,
    too_long: Vec<TooLong>,
}

/// Named in one text.
const MOST_NAMED: usize = 4;

impl Cut {
    pub(crate) fn of(policy: &Current, authority: &Authority) -> Self {
        Self::under(authority.longest_leaf(), policy.profiles(), &policy.revision.rules)
    }

    fn under(longest: Duration, profiles: &Profiles, rules: &[Rule]) -> Self {
        let is_cut = |profile: &Profile, wanted| matches!(profile.form, Form::Leaf(_)) && wanted > longest;
        let of_rules = rules.iter().filter_map(|rule| {
            let name = rule.settings.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
            // Those of tokens have no certificate.
            let profile = profiles.get(name)?;
            let wanted = rule.settings.ttl.map_or(profile.ttl, Duration::from_secs);
            let (what, profile_name) = (What::Rule(rule.name.clone()), profile.name.clone());
            is_cut(profile, wanted).then_some(TooLong { what, profile: profile_name, wanted })
        });
        let workload = profiles.workload();
        let of_workload = is_cut(&workload, workload.ttl).then(|| {
            let (what, wanted) = (What::Profile, workload.ttl);
            TooLong { what, profile: workload.name.clone(), wanted }
        });
        let mut too_long: Vec<_> = of_workload.into_iter().chain(of_rules).collect();
        // Those that want the same stay in the order of the rules.
        too_long.sort_by_key(|one| Reverse(one.wanted));
        Self { longest, too_long }
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.too_long.len()
    }

    /// For whoever may see all rules. None where nothing is cut.
    pub(crate) fn warning(&self) -> Option<String> {
        let most = self.too_long.first()?.wanted;
        let named: Vec<_> = self.too_long.iter().take(MOST_NAMED).map(ToString::to_string).collect();
        let more = match self.count().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (longest, named, life) = (rounded(self.longest), named.join(", "), config::Duration(most * LEAF_LIVES));
        Some(format!(
            "a certificate of this authority lives {longest} at most, a sixth of the authority's life: {named}{more} would give longer ones. \
             Give shorter ones, or have an authority signed that lives {life} (`signet ca sign --life {life}`)"
        ))
    }
}

/// Tells of it in the log and by the metric, whenever it is something else. Until cancelled.
pub(crate) async fn watch(authorities: Authorities, policies: Policies, metrics: Metrics) {
    let (mut authority, mut policy) = (authorities.changes(), policies.changes());
    let mut told = None;
    loop {
        authority.borrow_and_update();
        policy.borrow_and_update();
        let cut = authorities.active().map(|authority| Cut::of(&policies.current(), &authority));
        if let Some(cut) = &cut {
            metrics.lives_cut(cut.count());
        }
        let warning = cut.and_then(|cut| cut.warning());
        if let Some(warning) = warning.as_ref().filter(|warning| told.as_ref() != Some(*warning)) {
            tracing::warn!(warning, "lives are cut short");
        }
        told = warning;
        let changed = tokio::select! {
            changed = authority.changed() => changed,
            changed = policy.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = config::Duration(self.wanted);
        match &self.what {
            What::Profile => write!(f, "the profile `{}` ({wanted})", self.profile),
            What::Rule(rule) => write!(f, "rule `{rule}` of the profile `{}` ({wanted})", self.profile),
        }
    }
}

/// Down to whole units, two of them at least.
fn rounded(life: Duration) -> config::Duration {
    let seconds = life.as_secs();
    let unit = [86_400, 3600, 60].into_iter().find(|unit| seconds >= 2 * unit).unwrap_or(1);
    config::Duration(Duration::from_secs(seconds - seconds % unit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use signet_policy::Document;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn cut(longest: Duration, rules: &str) -> Cut {
        let mut document = Document::default();
        document.add("p".as_ref(), rules).unwrap();
        Cut::under(longest, &Profiles::new((DAY / 24, Duration::ZERO), []), &document.rules)
    }

    const RULES: &str = "
rules:
  - { name: shop, match: { k8s.pod: a }, spiffe_id: 'spiffe://example.org/shop' }
  - { name: printer, match: { k8s.pod: b }, spiffe_id: 'spiffe://example.org/b', profile: device, ttl: 30d }
  - { name: meter, match: { k8s.pod: c }, spiffe_id: 'spiffe://example.org/c', profile: device }
  - { name: below, match: { k8s.pod: d }, spiffe_id: 'spiffe://example.org/d', profile: subordinate-ca, ttl: 90d }
";

    #[test]
    fn what_rules_give_is_held_against_a_sixth_of_the_authoritys_life() {
        assert_eq!(cut(30 * DAY, RULES).warning(), None);
        let warning = cut(15 * DAY + Duration::from_secs(50), RULES).warning().unwrap();
        assert!(warning.contains("lives 15d at most") && warning.contains("--life 180d"), "{warning}");
        assert!(warning.contains("rule `printer` of the profile `device` (30d) would"), "{warning}");
        // An authority below this one is no leaf.
        let all = cut(DAY / 48, RULES);
        assert_eq!(all.count(), 4);
        let warning = all.warning().unwrap();
        for named in ["the profile `workload` (1h)", "rule `shop` of", "rule `meter` of the profile `device` (7d)"] {
            assert!(warning.contains(named), "{warning}");
        }
    }

    #[test]
    fn of_many_some_are_named() {
        let rule = |number| {
            format!(
                "  - {{ name: r{number}, match: {{ k8s.pod: a }}, spiffe_id: 'spiffe://example.org/{number}', ttl: 2h }}\n"
            )
        };
        let rules: String = (0..100).map(rule).collect();
        let warning = cut(DAY / 24, &format!("rules:\n{rules}")).warning().unwrap();
        assert!(warning.contains("and 96 more") && !warning.contains("r4"), "{warning}");
    }
}
