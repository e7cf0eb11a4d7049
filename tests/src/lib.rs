//! What the end-to-end tests stand on: real processes of ours, real third-party programs, and a mesh in three lines.
//!
//! ```no_run
//! use signet_tests::{Mesh, Nginx, secs};
//!
//! let nginx = Nginx::start();
//! let mesh = Mesh::new().ttl(secs(10)).upstream(&nginx.url()).start();
//! mesh.curl("/hello").run().expect_status(200);
//! ```
//! The tests themselves are in `e2e/`, one file for each promise. When one fails, every process it started shows its log.

#![forbid(unsafe_code)]
// A harness fails by panicking: that is how a test says what is wrong.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod address;
pub mod auditor;
pub mod ceremony;
pub mod clock;
pub mod curl;
pub mod digest;
pub mod direct;
pub mod files;
pub mod foreign_ca;
pub mod gateway;
pub mod growing_log;
pub mod http2;
pub mod issuer;
pub mod load;
pub mod mesh;
pub mod metrics;
pub mod nginx;
pub mod open_files;
pub mod open_keys;
pub mod openssl;
pub mod pages;
pub mod process;
pub mod program;
pub mod raw_http;
pub mod rsyslog;
pub mod s3;
pub mod softhsm;
pub mod succession;
pub mod tap;
pub mod terminal;
pub mod tls;
pub mod tokens;
pub mod wait;
pub mod witness;
pub mod workload;

pub use curl::Curl;
pub use direct::Direct;
pub use files::{IdentityFiles, Pki};
pub use gateway::{Gateway, GatewayPlan};
pub use growing_log::GrowingLog;
pub use issuer::Issuer;
pub use load::Load;
pub use mesh::Mesh;
pub use metrics::Admin;
pub use nginx::Nginx;
pub use openssl::SClient;
pub use process::{Process, Recipe, Signal};
pub use rsyslog::Rsyslog;
pub use s3::S3;
pub use softhsm::SoftHsm;
pub use wait::{millis, secs};
pub use workload::Workload;
