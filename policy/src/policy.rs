//! Rules, compiled.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use signet_identity::{SpiffeIdPattern, TrustDomain};
use time::OffsetDateTime;

use crate::attributes::{AttributeName, Attributes, Family};
use crate::collision;
use crate::decision::{Grant, Outcome, outcome_of};
use crate::index::Index;
use crate::pattern::Pattern;
use crate::rule::{Field, Rule, RuleName};
use crate::template::{DNS, PATH, Template};

/// All rules of one revision. Immutable; a decision reads it and nothing else.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Compiled>,
    index: Index,
}

/// A rule whose values are all good.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    pub(crate) name: RuleName,
    /// Not empty; of one family.
    pub(crate) conditions: Vec<Condition>,
    pub(crate) trust_domain: TrustDomain,
    /// Of the path, without its first slash.
    pub(crate) path: Template,
    pub(crate) dns_names: Vec<Template>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) profile: Option<String>,
    pub(crate) use_as: Use,
    pub(crate) hint: Option<String>,
    pub(crate) federates_with: Vec<TrustDomain>,
    pub(crate) expires: Option<OffsetDateTime>,
}

/// What a profile's certificates are for. A caller may have several certificates of one name, each for another use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Use {
    /// To be somebody: whatever the profile, there is one for a name.
    Identity,
    /// What the profile says.
    Of(String),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Condition {
    pub(crate) name: AttributeName,
    /// One of them matches.
    pub(crate) patterns: Vec<Pattern>,
}

impl Condition {
    /// The only values that it holds for, if there are such.
    pub(crate) fn literals(&self) -> Option<Vec<&str>> {
        self.patterns.iter().map(Pattern::literal).collect()
    }
}

/// What rules are compiled against.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub trust_domain: TrustDomain,
    /// Names that no rule may give: an administrator's.
    pub protected: Vec<SpiffeIdPattern>,
    /// The profiles that there are, [`DEFAULT_PROFILE`] among them.
    pub profiles: Vec<ProfileTerms>,
}

/// What rules have to know of a profile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProfileTerms {
    pub name: String,
    /// The longest that its certificates may live.
    pub max_ttl: Duration,
    /// Whether its certificates prove to an issuer who their holder is.
    pub is_identity: bool,
    /// Whether the name stands in its certificates' common name, without the scheme, and so has to be short.
    pub has_common_name: bool,
}

/// Of a common name, in characters (RFC 5280, appendix A.1: ub-common-name).
pub const MAX_COMMON_NAME: usize = 64;

/// Of rules that name none.
pub const DEFAULT_PROFILE: &str = "workload";

/// Why rules do not compile.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("rule `{rule}`: {what}")]
pub struct PolicyError {
    pub rule: RuleName,
    /// None when the rule as a whole is meant.
    pub field: Option<Field>,
    pub what: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Policy {
    /// # Errors
    /// The first rule that is not good, or that is not beside another.
    pub fn compile(rules: &[Rule], surroundings: &Surroundings) -> Result<Self, PolicyError> {
        let mut names = HashSet::with_capacity(rules.len());
        let mut compiled = Vec::with_capacity(rules.len());
        for rule in rules {
            if !names.insert(&rule.name) {
                return Err(PolicyError::of(&rule.name, None, "there is another of this name").fix("give it another"));
            }
            compiled.push(Compiled::of(rule, surroundings)?);
        }
        collision::check(&compiled)?;
        let index = Index::over(&compiled);
        Ok(Self { rules: compiled, index })
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What a caller may be. In the rules' order.
    pub fn decide(&self, attributes: &Attributes, now: OffsetDateTime) -> Vec<Grant> {
        let candidates = self.index.candidates(attributes);
        let outcomes = candidates.into_iter().map(|rule| outcome_of(&self.rules[rule], attributes, now));
        outcomes.filter_map(Outcome::granted).collect()
    }

    /// What each of these rules says of a caller, by those of its attributes that the rule is about.
    pub fn explain(
        &self,
        attributes: &[Attributes],
        now: OffsetDateTime,
        of_these: impl Fn(&RuleName) -> bool,
    ) -> Vec<(&RuleName, Outcome)> {
        let none = Attributes::default();
        let these = self.rules.iter().filter(|rule| of_these(&rule.name));
        let outcome = |rule: &Compiled| {
            let of_family = attributes.iter().find(|attributes| attributes.family() == Some(rule.family()));
            // By others, it is told what is missing.
            outcome_of(rule, of_family.or(attributes.first()).unwrap_or(&none), now)
        };
        these.map(|rule| (&rule.name, outcome(rule))).collect()
    }

    /// The first of those called `mine` that one caller could match beside one of those called `theirs`.
    ///
    /// # Errors
    /// There are too many to compare.
    pub fn overlap(
        &self,
        mine: impl Fn(&RuleName) -> bool,
        theirs: impl Fn(&RuleName) -> bool,
    ) -> Result<Option<&RuleName>, PolicyError> {
        let named = |wanted: &dyn Fn(&RuleName) -> bool| self.rules.iter().filter(|rule| wanted(&rule.name)).collect();
        let (mine, theirs): (Vec<_>, Vec<_>) = (named(&mine), named(&theirs));
        Ok(collision::overlap(&mine, &theirs)?.map(|rule| &rule.name))
    }

    /// The rules that could give `path`, which begins with a slash, to somebody.
    pub fn rules_for<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a RuleName> {
        self.rules.iter().filter(move |rule| rule.could_give(path)).map(|rule| &rule.name)
    }
}

impl PolicyError {
    pub(crate) fn of(rule: &RuleName, field: Option<Field>, what: impl Into<String>) -> Self {
        Self { rule: rule.clone(), field, what: what.into(), fix: None }
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

impl Compiled {
    fn of(rule: &Rule, surroundings: &Surroundings) -> Result<Self, PolicyError> {
        let wrong = |field: Field, what: String| PolicyError::of(&rule.name, Some(field), what);
        let conditions = conditions(rule)?;
        let path = path(rule, surroundings)?;
        if rule.settings.dns_names.len() > MAX_DNS_NAMES {
            return Err(wrong(Field::DnsName(MAX_DNS_NAMES), format!("a rule gives {MAX_DNS_NAMES} names at most")));
        }
        let mut dns_names = Vec::with_capacity(rule.settings.dns_names.len());
        for (number, text) in rule.settings.dns_names.iter().enumerate() {
            let name = Template::parse(text, DNS).map_err(|error| wrong(Field::DnsName(number), error.to_string()))?;
            dns_names.push(name);
        }
        let profile = rule.settings.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
        let Some(terms) = surroundings.profiles.iter().find(|terms| terms.name == profile) else {
            let known: Vec<_> = surroundings.profiles.iter().map(|terms| terms.name.as_str()).collect();
            return Err(wrong(Field::Profile, format!("there is no profile `{}`", profile.escape_debug()))
                .fix(format!("known profiles: {}", known.join(", "))));
        };
        if terms.has_common_name && path.attributes().next().is_none() && !fits_common_name(&rule.spiffe_id) {
            return Err(wrong(Field::SpiffeId, format!("it is too long for the profile `{profile}`"))
                .fix(format!("without `{SCHEME}`, make it {MAX_COMMON_NAME} characters at most")));
        }
        let ttl = rule.settings.ttl.map(Duration::from_secs);
        if ttl.is_some_and(|ttl| ttl < MIN_TTL || ttl > terms.max_ttl) {
            let most = signet_process::config::Duration(terms.max_ttl);
            return Err(wrong(Field::Ttl, format!("it is not between {}s and {most}", MIN_TTL.as_secs())));
        }
        if rule.settings.hint.as_ref().is_some_and(|hint| hint.is_empty() || hint.len() > MAX_HINT) {
            return Err(wrong(Field::Hint, format!("it is empty or longer than {MAX_HINT} bytes")));
        }
        if rule.settings.hint.as_ref().is_some_and(|hint| hint.chars().any(char::is_control)) {
            return Err(wrong(Field::Hint, "it has a control character".to_owned()));
        }
        if rule.settings.federates_with.len() > MAX_FEDERATES_WITH {
            let what = format!("a rule federates with {MAX_FEDERATES_WITH} trust domains at most");
            return Err(wrong(Field::FederatesWith(MAX_FEDERATES_WITH), what));
        }
        let federates_with = rule.settings.federates_with.iter().enumerate().map(|(number, name)| {
            name.parse::<TrustDomain>().map_err(|error| wrong(Field::FederatesWith(number), error.to_string()))
        });
        let federates_with = federates_with.collect::<Result<_, _>>()?;
        let expires = rule.settings.expires.map(OffsetDateTime::from_unix_timestamp).transpose();
        let expires = expires.map_err(|_| wrong(Field::Expires, "it is no time".to_owned()))?;
        let compiled = Self {
            name: rule.name.clone(),
            conditions,
            trust_domain: surroundings.trust_domain.clone(),
            path,
            dns_names,
            ttl,
            profile: rule.settings.profile.clone(),
            use_as: if terms.is_identity { Use::Identity } else { Use::Of(terms.name.clone()) },
            hint: rule.settings.hint.clone(),
            federates_with,
            expires,
        };
        compiled.is_of_one_family()?;
        Ok(compiled)
    }

    /// A rule over the attributes of two attestors would never hold.
    fn is_of_one_family(&self) -> Result<(), PolicyError> {
        let family = self.family();
        let in_templates = [(Field::SpiffeId, &self.path)].into_iter();
        let dns = self.dns_names.iter().enumerate().map(|(number, name)| (Field::DnsName(number), name));
        let of_templates = in_templates.chain(dns).flat_map(|(field, template)| {
            template.attributes().map(move |name| (field.clone(), name)).collect::<Vec<_>>()
        });
        let of_conditions =
            self.conditions.iter().map(|condition| (Field::Match(condition.name.to_string()), &condition.name));
        for (field, name) in of_conditions.chain(of_templates) {
            if name.family() != family {
                let what = format!("`{name}` and `{}` are proved by two attestors", self.conditions[0].name);
                return Err(PolicyError::of(&self.name, Some(field), what)
                    .fix("a caller is attested by one: write a rule for each"));
            }
        }
        Ok(())
    }

    pub(crate) fn family(&self) -> Family {
        self.conditions[0].name.family()
    }

    fn could_give(&self, path: &str) -> bool {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let templates = self.path.segments();
        segments.len() == templates.len()
            && templates.iter().zip(segments).all(|(template, segment)| template.may_be(segment))
    }
}

fn conditions(rule: &Rule) -> Result<Vec<Condition>, PolicyError> {
    if rule.matches.is_empty() {
        return Err(PolicyError::of(&rule.name, None, "it matches everybody")
            .fix("say in `match` whom it is for: at least one attribute"));
    }
    let by_name: &BTreeMap<String, Vec<String>> = &rule.matches;
    let conditions = by_name.iter().map(|(name, patterns)| {
        let wrong = |what: String| PolicyError::of(&rule.name, Some(Field::Match(name.clone())), what);
        let attribute: AttributeName = name.parse().map_err(|error: crate::attributes::UnknownAttribute| {
            let suggestion = error.suggestion.map(|meant| format!("did you mean `{meant}`?"));
            let known = || format!("known attributes: {}", known_attributes());
            wrong(error.to_string()).fix(suggestion.unwrap_or_else(known))
        })?;
        if patterns.is_empty() || patterns.len() > MAX_PATTERNS {
            return Err(wrong(format!("it has no value, or more than {MAX_PATTERNS}")));
        }
        let patterns = patterns
            .iter()
            .map(|text| text.parse().map_err(|error: crate::pattern::PatternError| wrong(error.to_string())));
        Ok(Condition { name: attribute, patterns: patterns.collect::<Result<_, _>>()? })
    });
    conditions.collect()
}

fn fits_common_name(id: &str) -> bool {
    id.strip_prefix(SCHEME).unwrap_or(id).chars().count() <= MAX_COMMON_NAME
}

fn known_attributes() -> String {
    let names: Vec<&str> = AttributeName::known().map(|(name, _)| name).collect();
    format!("{}, oidc.claim.NAME", names.join(", "))
}

/// The identity's template, which can give nobody a name that is not the rule's to give.
fn path(rule: &Rule, surroundings: &Surroundings) -> Result<Template, PolicyError> {
    let wrong = |what: String| PolicyError::of(&rule.name, Some(Field::SpiffeId), what);
    let begin = format!("spiffe://{}/", surroundings.trust_domain);
    let Some(path) = rule.spiffe_id.strip_prefix(&begin) else {
        return Err(wrong("it is not an identity of this issuer's trust domain".to_owned())
            .fix(format!("begin it with `{begin}`")));
    };
    let path = Template::parse(path, PATH).map_err(|error| wrong(error.to_string()))?;
    match path.segments().first().and_then(|first| first.literal()) {
        None => {
            return Err(wrong(
                "its first path segment comes from an attribute, so that it could be anybody".to_owned(),
            )
            .fix(format!("begin it with a fixed segment, such as `{begin}ns/`")));
        }
        Some("signet") => {
            return Err(wrong("what is below `/signet` is the issuer's own".to_owned()).fix("choose another path"));
        }
        Some(_) => {}
    }
    let own = |pattern: &&SpiffeIdPattern| *pattern.trust_domain() == surroundings.trust_domain;
    if let Some(pattern) =
        surroundings.protected.iter().filter(own).find(|pattern| collision::could_give(&path, pattern))
    {
        return Err(wrong(format!("it could give an administrator's identity, `{pattern}`"))
            .fix("administrators are named in the issuer's configuration, and join with a token"));
    }
    Ok(path)
}

const SCHEME: &str = "spiffe://";
const MIN_TTL: Duration = Duration::from_secs(10);
/// In bytes (SPIFFE Workload API §5.2.1).
const MAX_HINT: usize = 1024;
const MAX_PATTERNS: usize = 256;
/// They stand in one certificate, which has 8 KiB at most.
const MAX_DNS_NAMES: usize = 32;
/// Their bundles, of 48 KiB each at most, travel in one message, of which a client takes 1 MiB.
const MAX_FEDERATES_WITH: usize = 15;

#[cfg(test)]
mod tests;
