//! One authority of an issuer, all of them together, and the steps of their lives.

use std::sync::Arc;

use signet_identity::TrustDomain;
use time::OffsetDateTime;

use super::certificate::CaCertificate;
use super::custody::{CaKey, KeyName};
use super::hierarchy::intermediate_request;
use super::intermediate::read_chain;
use super::journal::{Entry, Journal, Rotation, VERSION};
use super::stage::Stage;
use super::{Authority, AuthorityError, KeyId};
use crate::bundles::Roots;
use crate::pem_files;
use crate::utc::microseconds;

/// All that the journal remembers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) members: Vec<Member>,
    pub(super) taken: Option<String>,
    pub(crate) rotation: Option<Rotation>,
    pub(crate) roots: Roots,
}

/// One authority, whatever has become of it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) key: CaKey,
    /// For its certificate, PEM, as long as it has none.
    pub(super) request: String,
    pub(crate) stage: Stage,
    pub(crate) since: OffsetDateTime,
    /// Its certificate and those above it, PEM.
    pub(crate) chain: Option<String>,
    /// Where the chain leads to a root of the bundle now.
    pub(crate) authority: Option<Arc<Authority>>,
}

/// Why a step of an authority's life is not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error("there is no authority {name}")]
    Unknown { name: KeyName },
    #[error("authority {name} is {}, not {}", stage.label(), wanted.label())]
    Stage { name: KeyName, stage: Stage, wanted: Stage },
    #[error(
        "authority {name} signs, and the root is being rotated: have a key of its own signed by the next one (`signet ca csr`)"
    )]
    Rotating { name: KeyName },
    #[error(
        "authority {name} has a certificate with another subject key identifier, by which all that it has signed is known: have it \
         signed with the same one"
    )]
    OtherKeyId { name: KeyName },
    #[error(transparent)]
    Keep(#[from] AuthorityError),
}

impl Kept {
    pub(crate) fn get(&self, name: &KeyName) -> Option<&Member> {
        self.members.iter().find(|member| member.name() == *name)
    }

    pub(crate) fn active(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.stage == Stage::Active)
    }

    /// From now on it signs, and the one before it does not.
    pub(crate) fn activate(&mut self, name: &KeyName, now: OffsetDateTime) -> Result<(), StepError> {
        find_at(&mut self.members, name, Stage::Prepared)?;
        for member in &mut self.members {
            match member.stage {
                Stage::Active => member.advance(Stage::Retired, now),
                _ if member.name() == *name => member.advance(Stage::Active, now),
                _ => {}
            }
        }
        Ok(())
    }

    /// They are to follow no more.
    pub(crate) fn give_up(&mut self, names: &[KeyName], now: OffsetDateTime) {
        for member in self.members.iter_mut().filter(|member| names.contains(&member.name())) {
            member.advance(Stage::Tainted, now);
        }
    }

    pub(super) fn journal(&self) -> Journal {
        Journal {
            version: VERSION,
            authorities: self.members.iter().map(Member::entry).collect(),
            taken: self.taken.clone(),
            rotation: self.rotation.clone(),
            roots: self.roots.clone(),
        }
    }
}

impl Member {
    pub(crate) fn name(&self) -> KeyName {
        self.key.name()
    }

    /// For its certificate, PEM. Empty once it has one.
    pub(crate) fn request(&self) -> &str {
        if self.stage == Stage::Requested { &self.request } else { "" }
    }

    /// By the name of its key, or the subject key identifier of its certificate: they are one where `signet ca sign` has signed it.
    pub(crate) fn is_called(&self, key_id: &KeyId) -> bool {
        let certified = self.authority.as_ref().map(|authority| authority.key_id());
        certified == Some(key_id) || self.name().as_str() == key_id.to_string()
    }

    /// The subject key identifier of its certificate, where it has signed by it: whether that leads to a root or not.
    pub(super) fn signed_under(&self) -> Option<KeyId> {
        match self.stage {
            Stage::Requested | Stage::Prepared => None,
            Stage::Active | Stage::Retired | Stage::Tainted | Stage::Revoked => {
                self.chain.as_deref().and_then(own_certificate).and_then(|own| own.key_id)
            }
        }
    }

    /// Whether clients are told of it.
    pub(crate) fn is_offered(&self) -> bool {
        matches!(self.stage, Stage::Prepared | Stage::Active)
    }

    /// Whether its key has nothing to sign any more.
    pub(super) fn is_over(&self, now: OffsetDateTime) -> bool {
        is_over(self.stage, self.chain.as_deref(), now)
    }

    pub(super) fn advance(&mut self, stage: Stage, now: OffsetDateTime) {
        (self.stage, self.since) = (stage, now);
    }

    pub(super) fn entry(&self) -> Entry {
        Entry {
            key: self.name().as_str().to_owned(),
            stage: self.stage,
            since: microseconds(self.since),
            chain: self.chain.clone(),
        }
    }
}

pub(super) fn find<'m>(members: &'m mut [Member], name: &KeyName) -> Result<&'m mut Member, StepError> {
    let member = members.iter_mut().find(|member| member.name() == *name);
    member.ok_or_else(|| StepError::Unknown { name: name.clone() })
}

pub(super) fn find_at<'m>(
    members: &'m mut [Member],
    name: &KeyName,
    wanted: Stage,
) -> Result<&'m mut Member, StepError> {
    let member = find(members, name)?;
    match member.stage == wanted {
        true => Ok(member),
        false => Err(StepError::Stage { name: name.clone(), stage: member.stage, wanted }),
    }
}

pub(super) fn request_of(trust_domain: &TrustDomain, key: &CaKey, stage: Stage) -> Result<String, AuthorityError> {
    if stage != Stage::Requested {
        return Ok(String::new());
    }
    let request = intermediate_request(trust_domain, key).map_err(AuthorityError::MakeRequest)?;
    Ok(pem_files::encode(pem_files::REQUEST, &request))
}

impl Entry {
    /// As [`Member::is_over`].
    pub(super) fn is_over(&self, now: OffsetDateTime) -> bool {
        is_over(self.stage, self.chain.as_deref(), now)
    }
}

fn is_over(stage: Stage, chain: Option<&str>, now: OffsetDateTime) -> bool {
    let has_ended = |chain| ends_at(chain).is_some_and(|end| end + LINGERING < now);
    match stage {
        Stage::Prepared | Stage::Retired | Stage::Tainted => chain.is_some_and(has_ended),
        // One without a certificate signs nothing, and will not.
        Stage::Revoked => chain.is_none_or(has_ended),
        Stage::Requested | Stage::Active => false,
    }
}

fn ends_at(chain: &str) -> Option<OffsetDateTime> {
    own_certificate(chain).map(|own| own.not_after)
}

fn own_certificate(chain: &str) -> Option<CaCertificate> {
    let chain = read_chain(chain.as_bytes()).ok()?;
    CaCertificate::parse(chain.first()?.to_vec()).ok()
}

/// A clock that was ahead for a moment destroys no key: as long as records of certificates are kept that have expired.
const LINGERING: time::Duration = time::Duration::days(7);
