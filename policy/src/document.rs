//! Rules as files hold them, with the place of each value for the errors that come later.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use signet_process::config::{self, ConfigError, Located, Parsed};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::policy::PolicyError;
use crate::rule::{Field, Rule, RuleName, Settings};
use crate::size::Size;

/// The rules of some files, and where they stand.
#[derive(Debug, Default)]
pub struct Document {
    pub rules: Vec<Rule>,
    places: HashMap<RuleName, Place>,
    size: Size,
}

#[derive(Debug)]
struct Place {
    file: Arc<Path>,
    rule: (u32, u32),
    fields: HashMap<Field, (u32, u32)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rules: Vec<RuleInFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleInFile {
    name: Located<Parsed<RuleName>>,
    #[serde(rename = "match")]
    matches: BTreeMap<String, Located<OneOrMore>>,
    spiffe_id: Located<String>,
    #[serde(default)]
    dns_names: Vec<Located<String>>,
    ttl: Option<Located<config::Duration>>,
    profile: Option<Located<String>>,
    hint: Option<Located<String>>,
    #[serde(default)]
    federates_with: Vec<Located<String>>,
    expires: Option<Located<Parsed<Time>>>,
}

/// A text, or a list of some.
struct OneOrMore(Vec<String>);

/// RFC 3339.
struct Time(OffsetDateTime);

impl Document {
    /// Adds the rules of one file; `name` is what errors call it.
    ///
    /// # Errors
    /// No YAML of this shape, a rule whose name another has, or more than a policy may hold with what was added before.
    pub fn add(&mut self, name: &Path, text: &str) -> Result<(), ConfigError> {
        let file: File = config::parse_within(name, text, &self.size.left())?;
        let shared = Arc::from(name);
        for rule in file.rules {
            let at = (rule.name.line, rule.name.column);
            if let Some(other) = self.places.get(&rule.name.value.0) {
                let (line, column) = other.rule;
                let what =
                    format!("there is another rule `{}`: {}:{line}:{column}", *rule.name.value, other.file.display());
                return Err(ConfigError::new(name, what).at(at.0, at.1).with_fix("give one of them another name"));
            }
            let place = Place { file: Arc::clone(&shared), rule: at, fields: rule.places() };
            let rule = rule.into_rule();
            self.size += Size::of([&rule]);
            self.size.check().map_err(|large| ConfigError::new(name, large.to_string()).at(at.0, at.1))?;
            self.places.insert(rule.name.clone(), place);
            self.rules.push(rule);
        }
        Ok(())
    }

    /// The same error with its file, line and column, when the rule is of these files.
    pub fn locate(&self, error: &PolicyError) -> Option<ConfigError> {
        let place = self.places.get(&error.rule)?;
        let at = error.field.as_ref().and_then(|field| place.fields.get(field)).unwrap_or(&place.rule);
        let what = match &error.field {
            Some(field) => format!("{field}: {}", error.what),
            None => format!("rule `{}`: {}", error.rule, error.what),
        };
        let located = ConfigError::new(&place.file, what).at(at.0, at.1);
        Some(match &error.fix {
            Some(fix) => located.with_fix(fix),
            None => located,
        })
    }
}

/// The same rules as YAML that [`Document::add`] reads.
pub fn render(rules: &[Rule]) -> String {
    let rules = rules.iter().map(RuleOut::of).collect();
    serde_saphyr::to_string(&FileOut { rules }).unwrap_or_default()
}

impl RuleInFile {
    fn places(&self) -> HashMap<Field, (u32, u32)> {
        fn at<T>(located: &Located<T>) -> (u32, u32) {
            (located.line, located.column)
        }
        let mut places = HashMap::new();
        places.extend(self.matches.iter().map(|(name, value)| (Field::Match(name.clone()), at(value))));
        places.insert(Field::SpiffeId, at(&self.spiffe_id));
        places.extend(self.dns_names.iter().enumerate().map(|(number, name)| (Field::DnsName(number), at(name))));
        places.extend(self.ttl.as_ref().map(|ttl| (Field::Ttl, at(ttl))));
        places.extend(self.profile.as_ref().map(|profile| (Field::Profile, at(profile))));
        places.extend(self.hint.as_ref().map(|hint| (Field::Hint, at(hint))));
        let domains = self.federates_with.iter().enumerate();
        places.extend(domains.map(|(number, name)| (Field::FederatesWith(number), at(name))));
        places.extend(self.expires.as_ref().map(|expires| (Field::Expires, at(expires))));
        places
    }

    fn into_rule(self) -> Rule {
        let texts = |located: Vec<Located<String>>| located.into_iter().map(|text| text.value).collect();
        Rule {
            name: self.name.value.0,
            matches: self.matches.into_iter().map(|(name, values)| (name, values.value.0)).collect(),
            spiffe_id: self.spiffe_id.value,
            settings: Settings {
                dns_names: texts(self.dns_names),
                ttl: self.ttl.map(|ttl| ttl.value.0.as_secs()),
                profile: self.profile.map(|profile| profile.value),
                hint: self.hint.map(|hint| hint.value),
                federates_with: texts(self.federates_with),
                expires: self.expires.map(|expires| expires.value.0.0.unix_timestamp()),
            },
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, or a list of texts")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<OneOrMore, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMore(texts))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

impl std::str::FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        OffsetDateTime::parse(text, &Rfc3339).map(Self).map_err(|_| "no time\nwrite it as `2027-01-31T12:00:00Z`")
    }
}

#[derive(Serialize)]
struct FileOut<'a> {
    rules: Vec<RuleOut<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OneOrMoreOut<'a> {
    One(&'a str),
    More(&'a [String]),
}

impl<'a> OneOrMoreOut<'a> {
    fn of(values: &'a [String]) -> Self {
        match values {
            [one] => Self::One(one),
            more => Self::More(more),
        }
    }
}

#[derive(Serialize)]
struct RuleOut<'a> {
    name: &'a str,
    #[serde(rename = "match")]
    matches: BTreeMap<&'a str, OneOrMoreOut<'a>>,
    spiffe_id: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    dns_names: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    federates_with: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

impl<'a> RuleOut<'a> {
    fn of(rule: &'a Rule) -> Self {
        let settings = &rule.settings;
        let time = |seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok();
        let span = |seconds| config::Duration(std::time::Duration::from_secs(seconds)).to_string();
        Self {
            name: rule.name.as_str(),
            matches: rule.matches.iter().map(|(name, values)| (name.as_str(), OneOrMoreOut::of(values))).collect(),
            spiffe_id: &rule.spiffe_id,
            dns_names: &settings.dns_names,
            ttl: settings.ttl.map(span),
            profile: settings.profile.as_deref(),
            hint: settings.hint.as_deref(),
            federates_with: &settings.federates_with,
            expires: settings.expires.and_then(time),
        }
    }
}
