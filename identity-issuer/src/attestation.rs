//! Who is asking, and how that is known.

mod join_token;

use signet_identity::WorkloadId;

pub(crate) use join_token::{JoinTokenHash, JoinTokens, NewJoinToken, NotAttested};

/// An identity that a caller has proved to be entitled to.
#[derive(Clone, Debug)]
pub(crate) struct Attested {
    pub(crate) id: WorkloadId,
    pub(crate) attestation: Attestation,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Attestation {
    /// A join token that was good when looked up; it is used up by the transaction that records the certificate.
    JoinToken(JoinTokenHash),
    /// The current SVID of the same identity, by its serial number.
    Svid(Vec<u8>),
    /// The issuer asks itself for its own SVID.
    Issuer,
}

impl Attestation {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::JoinToken(_) => "join_token",
            Self::Svid(_) => "x509_svid",
            Self::Issuer => "issuer",
        }
    }

    /// What was presented, in a form that gives nothing away.
    pub(crate) fn evidence(&self) -> Option<&[u8]> {
        match self {
            Self::JoinToken(hash) => Some(hash.as_bytes()),
            Self::Svid(serial) => Some(serial),
            Self::Issuer => None,
        }
    }
}
