//! The gRPC contracts of Signet: `signet.identity.v1`, through which identities are fetched and kept alive, and
//! `signet.admin.v1`, through which an operator steers an issuer. Generated from `proto/`; no logic lives here.

#![forbid(unsafe_code)]
#![allow(missing_debug_implementations, unreachable_pub, unused_qualifications, clippy::all)]

mod codec;

pub mod identity {
    pub mod v1 {
        tonic::include_proto!("signet.identity.v1");
    }
}

pub mod admin {
    pub mod v1 {
        tonic::include_proto!("signet.admin.v1");
    }
}

/// The encoded `FileDescriptorSet` of all packages, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
