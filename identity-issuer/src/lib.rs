//! Mints short-lived workload certificates from an intermediate CA.
//!
//! A certificate is issued on one path: `attestation` says who asks, `entitlement` by the `policy` what they may be; then, in
//! `issuance`, `certificate` approves it, `authority` signs what its `profile` says, the `store` commits the record, and only then the certificate
//! leaves. `bundles` is what clients are to trust; `distribution`
//! tells those that are connected of that, and when to renew. What is revoked before its time is `revocation`, for them, and `crl`, for
//! everybody else. `api` is the gRPC in front of
//! it, served by `server` over mTLS with the issuer's `own_identity`; `web` is what it publishes for others. [`run()`] puts them together.
//!
//! The offline [`root`] is here too, for the `signet ca` command: an issuer never opens one.

#![forbid(unsafe_code)]

mod admin_socket;
mod administration;
mod admission;
mod agents;
mod api;
mod attestation;
mod audit;
mod authority;
mod backup;
mod bundles;
mod certificate;
mod complaint;
mod crl;
mod csr;
mod distribution;
mod entitlement;
mod federation;
mod https;
mod issuance;
mod jwt;
mod key;
mod key_type;
mod lives;
mod metrics;
mod own_identity;
mod pem_files;
mod policy;
mod profile;
mod replicas;
mod revocation;
mod rotation;
mod run;
mod secret_file;
mod serial;
mod server;
mod sharing;
mod slow_reader;
mod store;
mod target;
mod utc;
mod web;

pub mod config;
pub mod root;

pub use attestation::JwksError;
#[cfg(fuzzing)]
pub use attestation::fuzzing;
pub use audit::{AuditError, LEAVES_UNPUBLISHED, PREVIOUS, RESTORED};
pub use authority::{
    AuthorityError, AuthorityState, CustodyError, KeyFileError, LEAF_LIVES, Passphrase, PassphraseError, SealStrength,
    SignError, TokenError, TokenName, TokenPlace,
};
pub use bundles::BundleFile;
pub use config::{Config, Environment};
pub use csr::CsrError;
pub use issuance::Issued;
pub use jwt::JwtKeysError;
pub use own_identity::OwnIdentityError;
pub use policy::PolicyLoadError;
pub use run::{Phase, RunError, Started, WebAddresses, WebError, run};
pub use store::entries_on_record;
pub use web::CertificateFilesError;
