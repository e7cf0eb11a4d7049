//! What Signet is measured with: a load generator that is leaner than what it measures, the certificates of a bench, and the
//! plain servers that stand beside the gateway. In reading order:
//!
//! - [`load`]: the generator behind `signet-load`;
//! - [`pki`]: one PKI for every bench, in memory or as files;
//! - [`memory`]: handshakes without a network, for the micro benchmarks;
//! - [`origin`]: the upstream behind every proxy;
//! - [`probe`]: how soon a server presents a new certificate;
//! - [`issuer`]: an issuer process, its callers, and the table of its figures;
//! - [`revoked`]: what is revoked, as a client gets it;
//! - [`listen`]: how the servers of a bench bind and accept.

#![forbid(unsafe_code)]

pub mod issuer;
pub mod listen;
pub mod load;
pub mod memory;
pub mod origin;
pub mod pki;
pub mod probe;
pub mod revoked;
