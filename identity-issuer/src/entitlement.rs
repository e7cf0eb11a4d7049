//! What a caller may be: the policy's word on what was attested, and that of a proof which names an identity itself.

use std::time::Duration;

use signet_identity::WorkloadId;
use signet_policy::{Attributes, Grant};
use time::OffsetDateTime;

use crate::attestation::Subject;
use crate::distribution::Version;
use crate::policy::Current;

/// An identity that somebody is entitled to, and how it is to be made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entitlement {
    pub(crate) id: WorkloadId,
    pub(crate) dns_names: Vec<String>,
    /// The issuer's default where there is none.
    pub(crate) ttl: Option<Duration>,
    /// No certificate lives longer than this.
    pub(crate) expires: Option<OffsetDateTime>,
}

/// Its texts stay below 4 KiB.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotEntitled {
    #[error("the policy (revision {revision}) has no rule for {attributes}; `signet explain` tells why")]
    NoRule { revision: u64, attributes: String },
    #[error("the policy (revision {revision}) does not give it to {attributes}, only {given}")]
    NotGiven { revision: u64, attributes: String, given: String },
    #[error("the policy gives several identities, and the request names none of them: {given}")]
    Several { given: String },
    #[error("the proof is for {named}")]
    OtherThanNamed { named: WorkloadId },
}

/// The one identity of a subject: the one it wants, or the only one there is.
pub(crate) fn entitle(
    policy: &Current,
    subject: &Subject,
    wanted: Option<&WorkloadId>,
    now: OffsetDateTime,
) -> Result<Entitlement, NotEntitled> {
    let attributes = match subject {
        Subject::Named(id) if wanted.is_none_or(|wanted| wanted == id) => return Ok(Entitlement::plain(id.clone())),
        Subject::Named(id) => return Err(NotEntitled::OtherThanNamed { named: id.clone() }),
        Subject::Proved(attributes) => attributes,
    };
    let revision = policy.revision.head.number;
    let mut grants = policy.decide(attributes, now);
    if grants.is_empty() {
        return Err(NotEntitled::NoRule { revision, attributes: written(attributes) });
    }
    let chosen =
        match wanted {
            None if grants.len() == 1 => 0,
            None => return Err(NotEntitled::Several { given: ids(&grants) }),
            Some(wanted) => grants.iter().position(|grant| grant.id == *wanted).ok_or_else(|| {
                NotEntitled::NotGiven { revision, attributes: written(attributes), given: ids(&grants) }
            })?,
        };
    Ok(Entitlement::of(grants.swap_remove(chosen)))
}

impl Entitlement {
    /// With nothing but a name.
    pub(crate) fn plain(id: WorkloadId) -> Self {
        Self { id, dns_names: Vec::new(), ttl: None, expires: None }
    }

    /// Tells it from others: certificates by entitlements of one version differ in nothing that the policy says.
    pub(crate) fn version(&self) -> Version {
        let Self { id, dns_names, ttl, expires } = self;
        let expires = expires.map(OffsetDateTime::unix_timestamp);
        // No DNS name and no SPIFFE ID has a space, and none is empty.
        let ttl = ttl.map(|ttl| ttl.as_secs());
        let time = |time: Option<u64>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
        let expires = time(expires.map(i64::cast_unsigned));
        Version::of(format!("1 {id} {} {expires} {}", time(ttl), dns_names.join(" ")).as_bytes())
    }

    fn of(grant: Grant) -> Self {
        let Grant { id, dns_names, ttl, expires, .. } = grant;
        Self { id, dns_names, ttl, expires }
    }
}

/// A status has to fit into a header.
fn ids(grants: &[Grant]) -> String {
    const MOST: usize = 4;
    let named: Vec<_> = grants.iter().take(MOST).map(|grant| grant.id.to_string()).collect();
    match grants.len().saturating_sub(MOST) {
        0 => fitting(&named.join(", ")),
        more => fitting(&format!("{} and {more} more", named.join(", "))),
    }
}

/// For a caller, who knows them, and for the log: short, and on one line.
pub(crate) fn written(attributes: &Attributes) -> String {
    const MOST: usize = 16;
    let mut shown: Vec<_> =
        attributes.iter().take(MOST).map(|(name, value)| format!("{name}={}", clipped(value))).collect();
    if attributes.iter().nth(MOST).is_some() {
        shown.push("…".to_owned());
    }
    fitting(&shown.join(" "))
}

/// So much that the status fits also where each byte is written as three (gRPC over HTTP/2, Percent-Encoded).
fn fitting(text: &str) -> String {
    const MOST: usize = 1024;
    match text.len() <= MOST {
        true => text.to_owned(),
        false => format!("{}…", &text[..text.floor_char_boundary(MOST)]),
    }
}

fn clipped(value: &str) -> String {
    value.chars().take(96).flat_map(char::escape_debug).collect()
}
