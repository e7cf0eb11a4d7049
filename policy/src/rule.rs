//! What an operator writes: one rule.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A rule as it is written, kept and shown. What is wrong with its values is found when it is compiled.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Rule {
    pub name: RuleName,
    /// What the caller must have been attested as: each attribute matches one of its patterns.
    #[serde(rename = "match")]
    pub matches: BTreeMap<String, Vec<String>>,
    /// A template.
    pub spiffe_id: String,
    #[serde(flatten)]
    pub settings: Settings,
}

/// What an identity is given with, beside its name.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
pub struct Settings {
    /// Templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Seconds; the issuer's default where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// The name of a certificate profile; `workload` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Tells a workload with several identities which is which (SPIFFE Workload API §5.2.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Trust domains whose bundles the identity is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub federates_with: Vec<String>,
    /// When the rule ends, in seconds of the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
}

/// 1 to 64 of `a-z`, `0-9`, `-`, `.`, `_`.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleName(Box<str>);

/// Where in a rule something is wrong.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub enum Field {
    Match(String),
    SpiffeId,
    DnsName(usize),
    Ttl,
    Profile,
    Hint,
    FederatesWith(usize),
    Expires,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a rule's name is 1 to {MAX_NAME} of a-z, 0-9, dash, dot and underscore")]
pub struct RuleNameError;

impl RuleName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RuleName {
    type Err = RuleNameError;

    fn from_str(text: &str) -> Result<Self, RuleNameError> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
        if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(allowed) {
            return Err(RuleNameError);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for RuleName {
    type Error = RuleNameError;

    fn try_from(text: String) -> Result<Self, RuleNameError> {
        text.parse()
    }
}

impl From<RuleName> for String {
    fn from(name: RuleName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Match(attribute) => write!(f, "match.{attribute}"),
            Self::SpiffeId => f.write_str("spiffe_id"),
            Self::DnsName(number) => write!(f, "dns_names[{number}]"),
            Self::Ttl => f.write_str("ttl"),
            Self::Profile => f.write_str("profile"),
            Self::Hint => f.write_str("hint"),
            Self::FederatesWith(number) => write!(f, "federates_with[{number}]"),
            Self::Expires => f.write_str("expires"),
        }
    }
}

const MAX_NAME: usize = 64;
