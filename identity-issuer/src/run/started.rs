//! What an issuer tells whoever runs it, and why it ends.

use std::net::SocketAddr;
use std::path::PathBuf;

use signet_identity::{BundleSet, TrustDomain};
use signet_process::admin::AdminError;
use tokio::sync::{broadcast, watch};

use super::web::{WebAddresses, WebError};
use crate::admin_socket::AdminSocketError;
use crate::audit::AuditError;
use crate::authority::{AuthorityError, AuthorityState, PassphraseError};
use crate::issuance::Issued;
use crate::jwt::JwtKeysError;
use crate::policy::PolicyLoadError;
use crate::store::{OpenError, StoreError};

/// What an issuer that has started tells whoever runs it.
#[derive(Debug)]
pub struct Started {
    /// gRPC; the port is real where the configuration said 0. Nobody listens there before [`Phase::Serving`].
    pub grpc: SocketAddr,
    /// Metrics and health.
    pub admin: SocketAddr,
    pub web: WebAddresses,
    pub admin_socket: PathBuf,
    /// The issuer's request for its intermediate, PEM.
    pub certificate_request: PathBuf,
    /// Where the signed intermediate is awaited.
    pub certificate: PathBuf,
    /// The requests for certificates that are awaited, PEM: empty where none is.
    pub requests: watch::Receiver<String>,
    /// What this issuer has its clients trust.
    pub trusted: watch::Receiver<BundleSet>,
    /// Whether that is there, and fits.
    pub authority: watch::Receiver<AuthorityState>,
    pub phase: watch::Receiver<Phase>,
    /// Each certificate, once it is on record. Whoever reads slowly misses some.
    pub issued: broadcast::Receiver<Issued>,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Phase {
    /// For somebody with the root to sign the request.
    AwaitingIntermediate,
    Serving,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the state folder {} cannot be used\nset `state` to a folder that the issuer may write", path.display())]
    State { path: PathBuf, source: std::io::Error },
    #[error("another issuer runs on the state folder {}\nend it, or set another `state`", path.display())]
    StateInUse { path: PathBuf },
    #[error("the address {address} is in use\nend the process that holds it, or set another `listen` address")]
    AddressInUse { address: SocketAddr },
    #[error("cannot listen on {address}\nset `listen` to an address of this machine and a port that is allowed")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    AdminSocket(#[from] AdminSocketError),
    #[error(transparent)]
    Web(#[from] WebError),
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Database(#[from] OpenError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(
        "{} was restored from a backup, and what the audit log published behind it is not known here\n\
         `signet audit new-log` begins another log that names this one; or restore with `--log`, the log as it was published last", state.display()
    )]
    Restored { state: PathBuf },
    #[error(
        "{} was restored from a backup, and no checkpoint can be read where `audit.export` puts the audit log: what was published behind the backup is not known\n\
         start it once that place can be read, or take a place that is new out of the configuration for the first start; or begin another log: `signet audit new-log`", state.display()
    )]
    RestoredBeforeExport { state: PathBuf },
    #[error(
        "{} was restored from a backup, and {answered} of {all} witnesses of the audit log say what they have seen of it: more than half of them have to\n\
         start it once they can be asked, or take those that are gone out of `audit.witnesses`; or begin another log: `signet audit new-log`", state.display()
    )]
    RestoredBeforeWitnesses { state: PathBuf, answered: usize, all: usize },
    #[error(
        "the witness {witness} has seen another audit log of {size} entries by this name and key\n\
         find out who has this log's key; then begin another log: `signet audit new-log`"
    )]
    OtherWitnessed { witness: String, size: u64 },
    #[error(
        "where `audit.export` puts the audit log is another history, signed by this log's key: another issuer has the same state, or it went back\n\
         end the other one; then begin another log: `signet audit new-log`"
    )]
    Forked(#[source] signet_audit::ProofError),
    #[error("{0}\nchange the configuration back, or ask for what changed in the release notes")]
    Policy(#[from] PolicyLoadError),
    #[error("what issuers tell each other cannot be read")]
    Records(#[source] StoreError),
    #[error("a metric is registered twice")]
    Metrics(#[from] prometheus::Error),
    #[error("the gRPC descriptors cannot be read")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("{trust_domain} is too long for the issuer's own name in it")]
    TrustDomain { trust_domain: TrustDomain },
    #[error("no random numbers")]
    Randomness,
    #[error(transparent)]
    JwtKeys(#[from] JwtKeysError),
    #[error("opening the issuer's key broke off")]
    KeyTask(#[from] tokio::task::JoinError),
}
