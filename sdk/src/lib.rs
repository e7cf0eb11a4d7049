//! Live workload identities for Rust programs. A [`Source`] delivers certificates, keys and trust bundles; [`start`]
//! makes them live and keeps them so; [`server`], [`tonic`] and [`hyper`] put the result on connections.
//!
//! ```text
//! IssuerSource ┐  Material   ┌────────┐  Snapshot   ┌──────────────┐ load() at each handshake
//! FilesSource  ┴────────────►│ driver ├────────────►│ LiveIdentity ├──► MtlsListener, MtlsConnector, MtlsChannel
//!                            └───┬────┘             └──────────────┘
//!                                └──► Monitor: events, counters, state
//! ```
//!
//! A program says which TLS policies it has, starts, and uses the keys it got:
//!
//! ```no_run
//! # use signet_identity::{ServerPolicy, SystemClock, TlsPolicies};
//! # use signet_sdk::{FilePaths, FilesSource};
//! # async fn workload(policy: ServerPolicy, shutdown: tokio_util::sync::CancellationToken)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let mut policies = TlsPolicies::new(std::sync::Arc::new(SystemClock));
//! let inbound = policies.server(policy);
//! let source = FilesSource::new(FilePaths::within("/run/signet/identity".as_ref()));
//!
//! let identity = signet_sdk::start(source, policies, shutdown).await?;
//! let mut listener = identity.listen("127.0.0.1:8443", inbound).await?;
//! let connection = listener.accept().await;
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

// How an identity becomes live.
mod driver;
mod monitor;
mod source;

// Where it comes from.
mod files;
mod issuer;

// What it is good for.
pub mod hyper;
pub mod lifetime;
pub mod server;
mod stream;
pub mod tonic;

mod backoff;
mod cause;
mod renewed;
mod wall_clock;

#[cfg(fuzzing)]
pub use issuer::decoded_revocations;

pub use driver::{Delivery, Refused, Running, StartError, Starting, begin, start};
pub use files::{FilePaths, FilesSource};
pub use issuer::{Credential, IssuerSource, JoinToken, LogKey, Timeouts};
pub use monitor::{Event, IssuerLink, Monitor, RotationResult, State};
pub use source::Source;
pub use stream::MtlsStream;
