//! What a caller may be: the policy's word on what was attested, and that of a proof which names an identity itself.

use std::sync::Arc;
use std::time::Duration;

use signet_identity::{TrustDomain, WorkloadId};
use signet_policy::{Attributes, DEFAULT_PROFILE, Grant, RuleName};
use signet_process::config;
use time::OffsetDateTime;

use crate::attestation::Subject;
use crate::distribution::Version;
use crate::policy::Current;
use crate::profile::Profile;
use crate::store::Origin;

/// An identity that somebody is entitled to, and how it is to be made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entitlement {
    pub(crate) id: WorkloadId,
    pub(crate) dns_names: Vec<String>,
    /// The issuer's default where there is none.
    pub(crate) ttl: Option<Duration>,
    /// No certificate lives longer than this.
    pub(crate) expires: Option<OffsetDateTime>,
    pub(crate) profile: Arc<Profile>,
    /// For a workload with several identities.
    pub(crate) hint: Option<String>,
    /// Trust domains whose bundles its holder gets.
    pub(crate) federates_with: Vec<TrustDomain>,
    /// Which gives it.
    pub(crate) rule: Option<RuleName>,
}

/// A life that was asked for, and is not between these.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("not between {} and {}", config::Duration(SHORTEST), config::Duration(*.most))]
pub(crate) struct NotShorter {
    most: Duration,
}

const SHORTEST: Duration = Duration::from_secs(10);

/// What somebody asks for.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// The only one there is, where none is named.
    pub(crate) id: Option<&'a WorkloadId>,
    /// Any that makes an identity, where none is named.
    pub(crate) profile: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// To be somebody.
    pub(crate) fn identity(id: Option<&'a WorkloadId>) -> Self {
        Self { id, profile: None }
    }
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
    #[error("there is no profile `{name}`; there are {known}")]
    NoProfile { name: String, known: String },
}

/// What an entitlement is decided by.
#[derive(Clone, Debug)]
pub(crate) enum Grounds {
    /// What was attested.
    Attested(Subject),
    /// The same, and the identity that it was attested for, for something beside that.
    Beside { identity: WorkloadId, attributes: Option<Attributes> },
}

impl Grounds {
    /// Of whoever shows an SVID and wants its successor. What it was given beside the identity that it was attested for, it keeps by
    /// the same rules as it got it.
    pub(crate) fn to_keep(holder: &WorkloadId, origin: &Origin) -> Self {
        match &origin.attributes {
            _ if origin.attested != *holder => Self::beside(origin),
            Some(attributes) => Self::Attested(Subject::Proved(attributes.clone())),
            None => Self::Attested(Subject::Named(holder.clone())),
        }
    }

    pub(crate) fn beside(origin: &Origin) -> Self {
        Self::Beside { identity: origin.attested.clone(), attributes: origin.attributes.clone() }
    }
}

/// What is decided by beside what was attested: the name of the identity that was given for it.
const SVID_SPIFFE_ID: &str = "svid.spiffe_id";

/// The one certificate that is wanted, or the only one there is.
pub(crate) fn entitle(
    policy: &Current,
    grounds: &Grounds,
    wanted: Wanted<'_>,
    now: OffsetDateTime,
) -> Result<Entitlement, NotEntitled> {
    if let Some(name) = wanted.profile.filter(|name| policy.profiles().get(name).is_none()) {
        let known = policy.profiles().names().collect::<Vec<_>>().join(", ");
        return Err(NotEntitled::NoProfile { name: clipped(name), known: fitting(&known) });
    }
    match grounds {
        Grounds::Attested(Subject::Named(id)) if wanted.id.is_none_or(|wanted| wanted == id) => {
            Ok(Entitlement::plain(id.clone(), policy.profiles().workload()))
        }
        Grounds::Attested(Subject::Named(id)) => Err(NotEntitled::OtherThanNamed { named: id.clone() }),
        Grounds::Attested(Subject::Proved(attributes)) => choose(policy, std::slice::from_ref(attributes), wanted, now),
        Grounds::Beside { identity, attributes } => beside(policy, identity, attributes.as_ref(), wanted, now),
    }
}

/// Something beside an identity, for as long as that is given.
fn beside(
    policy: &Current,
    identity: &WorkloadId,
    attributes: Option<&Attributes>,
    wanted: Wanted<'_>,
    now: OffsetDateTime,
) -> Result<Entitlement, NotEntitled> {
    let itself = attributes
        .map(|attributes| choose(policy, std::slice::from_ref(attributes), Wanted::identity(Some(identity)), now));
    let until = itself.transpose()?.and_then(|itself| itself.expires);
    let proved: Vec<_> = attributes.cloned().into_iter().chain(by_name(identity)).collect();
    let mut entitlement = choose(policy, &proved, wanted, now)?;
    entitlement.expires = [entitlement.expires, until].into_iter().flatten().min();
    Ok(entitlement)
}

/// What an identity proves by itself. A name that is longer than an attribute may be proves nothing.
pub(crate) fn by_name(identity: &WorkloadId) -> Option<Attributes> {
    Attributes::new([(SVID_SPIFFE_ID.parse().ok()?, identity.to_string())]).ok()
}

/// All that whoever was attested may have: its own identity, and what [`beside`] gives. Nothing where that is not given any more, or
/// where the certificate is one beside the identity.
pub(crate) fn all(policy: &Current, identity: &WorkloadId, grounds: &Grounds, now: OffsetDateTime) -> Vec<Entitlement> {
    let Grounds::Attested(subject) = grounds else { return Vec::new() };
    let Ok(own) = entitle(policy, grounds, Wanted::identity(Some(identity)), now) else { return Vec::new() };
    let attributes = match subject {
        Subject::Proved(attributes) => Some(attributes.clone()),
        Subject::Named(_) => None,
    };
    let is_named = attributes.is_none();
    let until = own.expires;
    let proved = attributes.into_iter().chain(by_name(identity));
    let granted = proved.flat_map(|attributes| policy.decide(&attributes, now)).filter_map(|grant| {
        let profile = policy.profiles().get(grant.profile.as_deref().unwrap_or(DEFAULT_PROFILE))?;
        Some(Entitlement::of(grant, Arc::clone(profile)))
    });
    let mut all: Vec<_> = is_named.then_some(own).into_iter().chain(granted).collect();
    for entitlement in &mut all {
        entitlement.expires = [entitlement.expires, until].into_iter().flatten().min();
    }
    all.sort_by(|one, other| (&one.id, &one.profile.name).cmp(&(&other.id, &other.profile.name)));
    all
}

/// A token that somebody may have beside an identity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct TokenGrant {
    /// In whose name.
    pub(crate) id: WorkloadId,
    /// Of a token's profile.
    pub(crate) profile: String,
    pub(crate) ttl: Option<Duration>,
    /// No token lives longer than this.
    pub(crate) until: Option<OffsetDateTime>,
}

/// All tokens that the policy gives to whoever was attested, as long as its identity is given; none of profiles of certificates.
pub(crate) fn tokens(policy: &Current, origin: &Origin, now: OffsetDateTime) -> Result<Vec<TokenGrant>, NotEntitled> {
    let (identity, attributes) = (&origin.attested, origin.attributes.as_ref());
    let itself = attributes
        .map(|attributes| choose(policy, std::slice::from_ref(attributes), Wanted::identity(Some(identity)), now));
    let identity_until = itself.transpose()?.and_then(|itself| itself.expires);
    let proved = attributes.cloned().into_iter().chain(by_name(identity));
    let grants = proved.flat_map(|attributes| policy.decide(&attributes, now)).filter_map(|grant| {
        let profile = grant.profile.filter(|name| policy.profiles().get(name).is_none())?;
        let until = [grant.expires, identity_until].into_iter().flatten().min();
        Some(TokenGrant { id: grant.id, profile, ttl: grant.ttl, until })
    });
    Ok(grants.collect())
}

fn choose(
    policy: &Current,
    proved: &[Attributes],
    wanted: Wanted<'_>,
    now: OffsetDateTime,
) -> Result<Entitlement, NotEntitled> {
    let revision = policy.revision.head.number;
    let attributes = || proved.iter().map(written).collect::<Vec<_>>().join(" ");
    let grants = proved.iter().flat_map(|attributes| policy.decide(attributes, now));
    let mut grants: Vec<_> = grants
        .filter_map(|grant| {
            let profile = policy.profiles().get(grant.profile.as_deref().unwrap_or(DEFAULT_PROFILE))?;
            let is_it = wanted.profile.map_or_else(|| profile.is_identity(), |name| *profile.name == *name);
            is_it.then(|| (grant, Arc::clone(profile)))
        })
        .collect();
    if grants.is_empty() {
        return Err(NotEntitled::NoRule { revision, attributes: fitting(&attributes()) });
    }
    let chosen = match wanted.id {
        None if grants.len() == 1 => 0,
        None => return Err(NotEntitled::Several { given: ids(&grants) }),
        Some(wanted) => grants.iter().position(|(grant, _)| grant.id == *wanted).ok_or_else(|| {
            NotEntitled::NotGiven { revision, attributes: fitting(&attributes()), given: ids(&grants) }
        })?,
    };
    let (grant, profile) = grants.swap_remove(chosen);
    Ok(Entitlement::of(grant, profile))
}

impl Entitlement {
    /// With nothing but a name.
    pub(crate) fn plain(id: WorkloadId, profile: Arc<Profile>) -> Self {
        let (dns_names, federates_with) = (Vec::new(), Vec::new());
        Self { id, dns_names, ttl: None, expires: None, profile, hint: None, federates_with, rule: None }
    }

    /// Makes it shorter than it was.
    ///
    /// # Errors
    /// It would be longer, or too short for anything.
    pub(crate) fn shorten(&mut self, ttl: Duration) -> Result<(), NotShorter> {
        let most = self.ttl.unwrap_or(self.profile.ttl).min(self.profile.max_ttl);
        if !(SHORTEST..=most).contains(&ttl) {
            return Err(NotShorter { most });
        }
        self.ttl = Some(ttl);
        Ok(())
    }

    /// Tells it from others: certificates by entitlements of one version, and what is told with them, differ in nothing that the policy
    /// says.
    pub(crate) fn version(&self) -> Version {
        // Bundles have a version of their own, and which rule says the same is nothing to its holder.
        let Self { id, dns_names, ttl, expires, profile, hint, federates_with: _, rule: _ } = self;
        let expires = expires.map(OffsetDateTime::unix_timestamp);
        // No DNS name and no SPIFFE ID has a space, and none is empty.
        let ttl = ttl.map(|ttl| ttl.as_secs());
        let time = |time: Option<u64>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
        let expires = time(expires.map(i64::cast_unsigned));
        let mut text = format!("1 {id} {} {expires} {}", time(ttl), dns_names.join(" "));
        if !profile.is_default() {
            text += &format!("\n{} {}", profile.name, hex::encode(profile.version().to_vec()));
        }
        if let Some(hint) = hint {
            text += &format!("\nhint {hint}");
        }
        Version::of(text.as_bytes())
    }

    fn of(grant: Grant, profile: Arc<Profile>) -> Self {
        let Grant { id, dns_names, ttl, expires, hint, federates_with, profile: _, rule } = grant;
        Self { id, dns_names, ttl, expires, profile, hint, federates_with, rule: Some(rule) }
    }
}

/// A status has to fit into a header.
fn ids(grants: &[(Grant, Arc<Profile>)]) -> String {
    const MOST: usize = 4;
    let named: Vec<_> = grants.iter().take(MOST).map(|(grant, _)| grant.id.to_string()).collect();
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
