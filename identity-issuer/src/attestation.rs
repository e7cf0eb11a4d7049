//! Who is asking, and how that is known.
//!
//! ```text
//! proof ──► Attestor ──► Attested: names an identity, or proves attributes ──► entitlement (the policy) ──► issuance
//! ```
//! Each [`Attestor`] has a file. What its proof says is believed only as far as it was signed, or looked up; a proof that is
//! good once is used up by the transaction that records the certificate made for it.

mod challenge;
#[cfg(fuzzing)]
pub mod fuzzing;
mod join_token;
mod jwks;
mod jwt;
mod k8s_sa_token;
mod oidc;
mod x509_pop;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use signet_identity::WorkloadId;
use signet_policy::{AttributeName, Attributes, AttributesError};
use time::OffsetDateTime;

pub(crate) use challenge::Challenges;
pub(crate) use join_token::{JoinTokenError, JoinTokenHash, JoinTokens, NewJoinToken};
pub use jwks::JwksError;
pub(crate) use jwks::{Follower, Jwks, KeySet, Published, Remote};
pub(crate) use jwt::{TokenError, TokenVerifier};
pub(crate) use k8s_sa_token::{Cluster, Clusters};
pub(crate) use oidc::{Provider, Providers};
pub(crate) use x509_pop::{PossessionError, RegisteredAuthorities, X509Anchor, X509Authority};

use crate::csr::KeyHash;
use crate::store::StoreError;

/// One way to prove who one is.
pub(crate) trait Attestor {
    type Proof: ?Sized;

    /// Believes a proof or refuses it. `csr` is what the caller wants certified; a proof may be bound to it.
    fn attest(&self, proof: &Self::Proof, csr: &[u8]) -> impl Future<Output = Result<Attested, NotAttested>> + Send;
}

/// What a caller has proved, and by what.
#[derive(Clone, Debug)]
pub(crate) struct Attested {
    pub(crate) subject: Subject,
    pub(crate) evidence: Evidence,
    /// Of a certificate that was shown: none of it may be revoked.
    pub(crate) shown: Option<ShownCertificate>,
}

/// What may be revoked of a certificate that proves who somebody is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ShownCertificate {
    /// Its authority key identifier; empty where it has none.
    pub(crate) authority: Vec<u8>,
    pub(crate) serial: Vec<u8>,
    /// Its own, and those of the CAs that were shown with it.
    pub(crate) keys: Vec<KeyHash>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Subject {
    /// This very identity.
    Named(WorkloadId),
    /// The policy says what they may be.
    Proved(Attributes),
}

/// What was presented, in a form that gives nothing away.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Evidence {
    /// A token that was good when looked up.
    JoinToken(JoinTokenHash),
    Proof {
        method: Method,
        hash: ProofHash,
        /// Of a proof that is good once: when it is good no more anyway.
        once_until: Option<OffsetDateTime>,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Method {
    JoinToken,
    KubernetesToken,
    Oidc,
    X509Possession,
}

/// SHA-256 of a proof.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) struct ProofHash([u8; 32]);

/// Those that are believed: clusters, providers of tokens, CAs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources(Arc<[(AttributeName, Vec<String>)]>);

/// Why a certificate is issued.
#[derive(Clone, Debug)]
pub(crate) enum Attestation {
    /// The caller has proved who it is.
    First(Attested),
    /// It shows its current SVID, by the serial number, for its successor.
    Renewal { serial: Vec<u8>, of: AttestationNumber },
    /// The same, for something beside it.
    Beside { serial: Vec<u8>, of: AttestationNumber },
    /// The issuer asks itself for its own SVID.
    Issuer,
}

/// Numbers what was attested, from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub(crate) struct AttestationNumber(pub(crate) i64);

/// Why a caller is nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAttested {
    #[error("nothing is configured for it at this issuer")]
    NotConfigured,
    /// `what` is a cluster or a provider.
    #[error("there is no {what} `{}` at this issuer", shown(.name))]
    UnknownSource { what: &'static str, name: String },
    #[error("its {what} is not named, and this issuer knows several")]
    UnnamedSource { what: &'static str },
    #[error(transparent)]
    JoinToken(#[from] JoinTokenError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Possession(#[from] PossessionError),
    #[error(transparent)]
    Attributes(#[from] AttributesError),
    #[error("the proof cannot be looked up")]
    Store(#[from] StoreError),
}

impl NotAttested {
    /// For metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::UnknownSource { .. } | Self::UnnamedSource { .. } => "unknown",
            Self::JoinToken(error) => error.reason(),
            Self::Token(error) => error.reason(),
            Self::Possession(error) => error.reason(),
            Self::Attributes(_) => "attributes",
            Self::Store(_) => "store",
        }
    }

    /// What of the proof is meant, behind the proof's own name; nothing where it is all of it.
    pub(crate) fn field(&self) -> &'static str {
        match self {
            Self::Possession(error) => error.field(),
            Self::NotConfigured
            | Self::UnknownSource { .. }
            | Self::UnnamedSource { .. }
            | Self::JoinToken(_)
            | Self::Token(_)
            | Self::Attributes(_)
            | Self::Store(_) => "",
        }
    }
}

impl Method {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::JoinToken => "join_token",
            Self::KubernetesToken => "k8s_sa_token",
            Self::Oidc => "oidc",
            Self::X509Possession => "x509_pop",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Attestation {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::First(attested) => attested.evidence.method().as_str(),
            Self::Renewal { .. } => "x509_svid",
            Self::Beside { .. } => "x509_svid_beside",
            Self::Issuer => "issuer",
        }
    }

    pub(crate) fn evidence(&self) -> Option<&[u8]> {
        match self {
            Self::First(attested) => Some(attested.evidence.hash()),
            Self::Renewal { serial, .. } | Self::Beside { serial, .. } => Some(serial),
            Self::Issuer => None,
        }
    }
}

impl Evidence {
    pub(crate) fn method(&self) -> Method {
        match self {
            Self::JoinToken(_) => Method::JoinToken,
            Self::Proof { method, .. } => *method,
        }
    }

    pub(crate) fn hash(&self) -> &[u8] {
        match self {
            Self::JoinToken(hash) => hash.as_bytes(),
            Self::Proof { hash, .. } => hash.as_bytes(),
        }
    }
}

impl ProofHash {
    pub(crate) fn of(proof: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, proof).as_ref());
        Self(hash)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ProofHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Sources {
    /// By the attribute that each kind of source puts its name into.
    pub(crate) fn new(named: impl IntoIterator<Item = (&'static str, Vec<String>)>) -> Self {
        Self(named.into_iter().filter_map(|(name, values)| Some((name.parse().ok()?, values))).collect())
    }

    /// The source that these attributes were proved by, where it is believed no more.
    pub(crate) fn no_more<'a>(&self, attributes: &'a Attributes) -> Option<&'a str> {
        self.0
            .iter()
            .find_map(|(name, values)| attributes.values(name).find(|value| !values.iter().any(|known| known == value)))
    }
}

/// What a caller wrote, as an answer or a log line may repeat it.
fn shown(text: &str) -> String {
    const MOST: usize = 128;
    let mut shown: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

/// The one of several that a caller names; the only one, where it names none.
fn named<'a, T>(
    sources: &'a [T],
    name_of: impl Fn(&T) -> &str,
    name: &str,
    what: &'static str,
) -> Result<&'a T, NotAttested> {
    match (sources, name) {
        ([], _) => Err(NotAttested::NotConfigured),
        ([only], "") => Ok(only),
        (_, "") => Err(NotAttested::UnnamedSource { what }),
        (sources, name) => sources
            .iter()
            .find(|source| name_of(source) == name)
            .ok_or_else(|| NotAttested::UnknownSource { what, name: name.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_only_source_needs_no_name() {
        let named = |sources: &'static [&'static str], name| named(sources, |source| source, name, "cluster").copied();
        assert_eq!(named(&["a"], "").unwrap(), "a");
        assert_eq!(named(&["a", "b"], "b").unwrap(), "b");
        assert!(matches!(named(&[], "a"), Err(NotAttested::NotConfigured)));
        assert!(matches!(named(&["a"], "b"), Err(NotAttested::UnknownSource { .. })));
        assert!(matches!(named(&["a", "b"], ""), Err(NotAttested::UnnamedSource { .. })));
    }

    #[test]
    fn what_a_caller_wrote_is_shown_short_and_on_one_line() {
        assert_eq!(shown("a\nb\u{202e}"), "a\\nb\\u{202e}");
        let long = shown(&"é".repeat(1000));
        assert_eq!(long.chars().count(), 129);
    }
}
