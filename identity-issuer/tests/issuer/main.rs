//! The issuer as its clients and operators see it: real TLS over loopback, real SQLite in a temporary folder.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod harness;
mod raw;

mod administering;
mod attesting;
mod exchanging;
mod faults;
mod federating;
mod flooding;
mod issuing;
mod jwt_keys;
mod limits;
mod listing;
mod operating;
mod proving;
mod publishing;
mod renewing;
mod replicas;
mod revoking;
mod rotating;
mod standing;
mod starting;
mod tokens;
mod trusting;
mod watching;
