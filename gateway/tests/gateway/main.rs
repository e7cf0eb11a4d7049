//! A gateway in this process, over loopback, with real TLS: what it lets through, what it refuses, and when it hangs up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bodies;
mod crowds;
mod grpc;
mod harness;
mod http1;
mod identity;
mod issuer;
mod lifetime;
mod malformed;
mod outbound;
mod own_identity;
mod revocations;
mod trailers;
mod translation;
mod upstream_connections;
mod upstream_down;
