//! The gateway: it takes the callers of a service in over mTLS, decides by their SPIFFE ID who may call, and takes programs'
//! calls out under its own identity.
//!
//! In reading order: [`config`] is what it is told to do; `run` starts it; each `worker` has a `listener`'s share of the
//! connections; a connection goes through `handshake` (who is it), `connection` (its requests, until its `lifetime` is up),
//! and each request through `http` and `authorization` to its `upstream`.
//!
//! Absent: where identities come from (signet-sdk), how peers are verified (signet-identity), the TLS handshake (rustls), HTTP/2
//! itself (hyper).

#![forbid(unsafe_code)]

pub mod config;
mod run;

mod ports;
mod renewal;
mod worker;

mod authorization;
mod beginnings;
mod connection;
mod handshake;
mod http;
mod http1;
mod lifetime;
mod listener;
mod upstream;

mod deadlines;
mod metrics;
mod presented;
mod stream;
mod tls;

#[cfg(any(fuzzing, test))]
pub mod fuzzing;

pub use ports::PortError;
pub use run::{RunError, Started, run};
