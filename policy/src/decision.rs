//! What one rule says of one caller.

use std::time::Duration;

use signet_identity::{TrustDomain, WorkloadId};
use time::OffsetDateTime;

use crate::attributes::{AttributeName, Attributes};
use crate::policy::Compiled;
use crate::rule::RuleName;
use crate::template::RenderError;

/// An identity that a caller may have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    pub rule: RuleName,
    pub id: WorkloadId,
    pub dns_names: Vec<String>,
    pub ttl: Option<Duration>,
    pub profile: Option<String>,
    pub hint: Option<String>,
    pub federates_with: Vec<TrustDomain>,
    /// The identity ends then at the latest.
    pub expires: Option<OffsetDateTime>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    Granted(Box<Grant>),
    Expired {
        at: OffsetDateTime,
    },
    /// The first condition that does not hold.
    NoMatch {
        attribute: AttributeName,
        /// One of these would do.
        wanted: Vec<String>,
        found: Vec<String>,
    },
    /// It matches, but the attributes make no name.
    Unrenderable(Unrenderable),
}

/// Why attributes make no identity.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unrenderable {
    #[error("spiffe_id: {0}")]
    Id(RenderError),
    #[error("dns_names[{number}]: {cause}")]
    DnsName { number: usize, cause: RenderError },
    /// All of it fits, the whole does not.
    #[error("spiffe_id: {0}")]
    Whole(signet_identity::SpiffeIdError),
}

impl Outcome {
    pub fn granted(self) -> Option<Grant> {
        match self {
            Self::Granted(grant) => Some(*grant),
            _ => None,
        }
    }
}

pub(crate) fn outcome_of(rule: &Compiled, attributes: &Attributes, now: OffsetDateTime) -> Outcome {
    for condition in &rule.conditions {
        let holds = |value: &str| condition.patterns.iter().any(|pattern| pattern.matches(value));
        if !attributes.values(&condition.name).any(holds) {
            return Outcome::NoMatch {
                attribute: condition.name.clone(),
                wanted: condition.patterns.iter().map(ToString::to_string).collect(),
                found: attributes.values(&condition.name).map(str::to_owned).collect(),
            };
        }
    }
    if let Some(at) = rule.expires
        && at <= now
    {
        return Outcome::Expired { at };
    }
    match grant(rule, attributes) {
        Ok(grant) => Outcome::Granted(Box::new(grant)),
        Err(cause) => Outcome::Unrenderable(cause),
    }
}

fn grant(rule: &Compiled, attributes: &Attributes) -> Result<Grant, Unrenderable> {
    let path = rule.path.render(attributes).map_err(Unrenderable::Id)?;
    let id = format!("spiffe://{}/{path}", rule.trust_domain).parse().map_err(Unrenderable::Whole)?;
    let dns_names = rule
        .dns_names
        .iter()
        .enumerate()
        .map(|(number, name)| name.render(attributes).map_err(|cause| Unrenderable::DnsName { number, cause }));
    Ok(Grant {
        rule: rule.name.clone(),
        id,
        dns_names: dns_names.collect::<Result<_, _>>()?,
        ttl: rule.ttl,
        profile: rule.profile.clone(),
        hint: rule.hint.clone(),
        federates_with: rule.federates_with.clone(),
        expires: rule.expires,
    })
}
