//! What measures an issuer: a process of its own, callers over gRPC and mTLS, and the table of what came out.

pub mod caller;
pub mod place;
pub mod renewals;
pub mod table;
pub mod tokens;
pub mod web;
pub mod work;
