//! SPIFFE identities, how they become live, and how a peer is believed. Pure: no network, no runtime, no disk.
//!
//! The vocabulary: [`TrustDomain`], [`SpiffeId`], [`WorkloadId`], [`X509Svid`], [`TrustBundle`], [`BundleSet`],
//! [`RevocationSet`].
//! How an identity becomes live: a source delivers [`Material`]; [`Snapshot::build`] checks that it belongs together
//! and makes a rustls configuration for each of the [`TlsPolicies`]; [`IdentityPublisher::publish`] swaps it into the
//! [`LiveIdentity`] that every handshake loads.
//! How a peer is believed: its trust domain selects one bundle, rustls-webpki builds the path against that bundle
//! alone, the rules for leaves and authorities follow, nothing of the chain may be revoked, and the result is a
//! [`PeerIdentity`]. Chains that passed are remembered, and a resumed session takes the same check as a full handshake.

#![forbid(unsafe_code)]

// Names.
mod pattern;
mod spiffe_id;
mod trust_domain;

// What certificates must be.
mod authority;
mod certificate;
mod leaf;

// Our own identity, and whom to trust.
mod bundle;
mod renewal;
mod revocation;
mod svid;

// How an identity becomes live.
mod clock;
mod live;
mod policy;
mod snapshot;

// How a peer is believed.
mod chain_cache;
mod peer;
mod verify;

// What rustls is given.
mod session_store;
mod tls;

pub use authority::AuthorityError;
pub use bundle::{BundleError, BundleSet, TrustBundle};
pub use certificate::Serial;
pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use leaf::LeafError;
pub use live::{IdentityPublisher, LiveIdentity, StaleSnapshot, live};
pub use pattern::{PatternError, PatternSegment, SpiffeIdPattern, SpiffeIdPatterns};
pub use peer::{PeerError, PeerIdentity};
pub use policy::{
    ClientAuthentication, ClientCredentials, ClientKey, ClientPolicy, ServerKey, ServerPolicy, TlsPolicies,
};
pub use revocation::{
    KeySha256, RevocationCounts, RevocationError, RevocationSet, RevocationStatement, Revocations, Revoked, RevokedKey,
    RevokedSerials, SignedRevocations, VerifiedRevocations,
};
pub use snapshot::{Generation, Material, Snapshot, SnapshotError, TrustEpoch};
pub use spiffe_id::{SpiffeId, SpiffeIdError, WorkloadId};
pub use svid::{SvidError, X509Svid};
pub use tls::{bootstrap_client_config, provider};
pub use trust_domain::TrustDomain;
