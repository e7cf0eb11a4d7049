//! How far a client has come with what it was sent.

use aws_lc_rs::digest::{SHA256, digest};
use time::OffsetDateTime;

/// What tells one state of a resource from another: a hash of it, so that it is the same at each issuer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Version([u8; 16]);

/// What a client is kept in step with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Resource {
    Bundles,
    Entitlement,
    Entitlements,
    Authorities,
    /// "Renew now": it is put in force by a certificate, whose holder has a stream of its own.
    Renewal,
    Revocations,
}

/// How far a client has come with what it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// What it has not put in force yet, by [`Resource`].
    outstanding: [Option<Outstanding>; 6],
    /// Of the authorities that it would believe; none where it is not told of any.
    authorities: Option<Acknowledged>,
    connected_at: OffsetDateTime,
    /// When it last put something in force, or came.
    applied_at: OffsetDateTime,
    /// Of the policy, the revision that it was last held against, and the latest of which it has all in force.
    held_against: u64,
    applied: u64,
    /// The epoch of revocations that it has in force, where it asks for them.
    revocations: Option<u64>,
    /// Of the keys of tokens, the version in the bundles that it was sent last, and in those that it has in force.
    sent_jwt: Option<Version>,
    jwt: Option<Version>,
}

/// The last of the authorities of which it says so; none yet at first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Acknowledged(pub(crate) Option<Version>);

#[derive(Clone, Debug)]
struct Outstanding {
    version: Version,
    since: OffsetDateTime,
    /// Why it refuses it. Empty when it does not.
    refused: String,
}

impl Progress {
    pub(super) fn new(now: OffsetDateTime) -> Self {
        Self {
            outstanding: [const { None }; 6],
            authorities: None,
            connected_at: now,
            applied_at: now,
            held_against: 0,
            applied: 0,
            revocations: None,
            sent_jwt: None,
            jwt: None,
        }
    }

    /// Something was sent.
    pub(super) fn sent(&mut self, resource: Resource, version: Version, now: OffsetDateTime) {
        let outstanding = Outstanding { version, since: now, refused: String::new() };
        self.outstanding[resource as usize] = Some(outstanding);
    }

    /// The client says of what it was sent whether it is in force. Of anything else it may say what it likes.
    pub(super) fn applied(&mut self, resource: Resource, version: Version, refused: String, now: OffsetDateTime) {
        let outstanding = &mut self.outstanding[resource as usize];
        let Some(sent) = outstanding.as_mut().filter(|sent| sent.version == version) else { return };
        if refused.is_empty() {
            *outstanding = None;
            match resource {
                Resource::Authorities => self.authorities = Some(Acknowledged(Some(version))),
                Resource::Bundles => self.jwt = self.sent_jwt,
                Resource::Entitlement | Resource::Entitlements | Resource::Renewal | Resource::Revocations => {}
            }
            self.applied_at = now;
            self.settle();
        } else {
            sent.refused = refused;
        }
    }

    /// All that this revision gives was sent, where the client did not have it.
    pub(super) fn held_against(&mut self, revision: u64) {
        self.held_against = revision;
        self.settle();
    }

    /// It wants to be told of authorities, and would believe these already.
    pub(super) fn asks_for_authorities(&mut self, known: Option<Version>) {
        self.authorities = Some(Acknowledged(known));
    }

    /// With the bundles that it was sent last, which it may have in force already.
    pub(super) fn sent_jwt(&mut self, version: Version) {
        self.sent_jwt = Some(version);
        if self.outstanding[Resource::Bundles as usize].is_none() {
            self.jwt = self.sent_jwt;
        }
    }

    /// The version of the keys of tokens that it has in force.
    pub(crate) fn jwt(&self) -> Option<Version> {
        self.jwt
    }

    /// None for one that is not told of authorities.
    pub(crate) fn authorities(&self) -> Option<Acknowledged> {
        self.authorities
    }

    /// It has all revocations up to this epoch in force, which it was sent, or came with.
    pub(super) fn has_revocations(&mut self, epoch: u64) {
        self.revocations = self.revocations.max(Some(epoch));
    }

    /// None where it does not ask for them.
    pub(crate) fn revocations(&self) -> Option<u64> {
        self.revocations
    }

    fn settle(&mut self) {
        if self.is_current() {
            self.applied = self.held_against;
        }
    }

    /// The latest revision of the policy of which it has all in force.
    pub(crate) fn revision(&self) -> u64 {
        self.applied
    }

    pub(crate) fn connected_at(&self) -> OffsetDateTime {
        self.connected_at
    }

    pub(crate) fn is_current(&self) -> bool {
        self.outstanding.iter().all(Option::is_none)
    }

    /// Since when it is behind, or when it last put something in force.
    pub(crate) fn since(&self) -> OffsetDateTime {
        self.outstanding.iter().flatten().map(|sent| sent.since).min().unwrap_or(self.applied_at)
    }

    /// Empty when it refuses nothing.
    pub(crate) fn refused(&self) -> String {
        let refused = self.outstanding.iter().flatten().map(|sent| &sent.refused);
        refused.filter(|refused| !refused.is_empty()).cloned().collect::<Vec<_>>().join("; ")
    }
}

impl Version {
    pub(crate) fn of(state: &[u8]) -> Self {
        let mut version = [0; 16];
        version.copy_from_slice(&digest(&SHA256, state).as_ref()[..16]);
        Self(version)
    }

    /// Of what says of itself what it is.
    pub(crate) fn of_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// None for what is no version of ours.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}
