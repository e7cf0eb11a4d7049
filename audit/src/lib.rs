//! The audit log of an issuer: append-only, and such that whoever has its files and its public key can verify it, and trusts nobody.
//!
//! ```text
//! Entry ──► Edge ──► files (Resource): tile/entries/…, tile/L/…  ◄── Source ──► verify, prove
//!            └─────► Checkpoint, signed ──► checkpoint
//! ```
//! The tree is that of RFC 6962 §2.1, the files are those of C2SP tlog-tiles, a checkpoint is that of C2SP tlog-checkpoint. Whoever writes
//! holds an [`Edge`]; whoever reads has a [`Source`]. No key is here, and no network.

#![forbid(unsafe_code)]

// What is written.
mod bundle;
mod edge;
mod entry;
mod resource;

// How it is signed, and by whom.
mod checkpoint;
mod digest;
mod quorum;
mod statement;
mod verifier_key;
mod witness;

// How it is read.
mod proof;
mod source;
mod verify;

// What is made of it.
pub mod report;

pub use bundle::{Bundle, BundleError, MAX_ENTRY, push_entry};
pub use checkpoint::{Checkpoint, CheckpointError, Origin, OriginError, SignedCheckpoint, sign};
pub use digest::{Digest, DigestFault, Digests, Hour, Link, digests_behind, latest as latest_digest, verify_digests};
pub use edge::{AppendError, Edge, RestoreError, resources};
pub use entry::{Act, Entry, EntryError, Jwt, Previous, Revocation, Text, X509};
pub use proof::{InclusionProof, ProofError, consistency, inclusion, proof_of_growth};
pub use quorum::{LineError, Quorum, QuorumError, Witnessed};
pub use resource::{Resource, Width};
pub use source::{Folder, MAX_CHECKPOINT, OfSize, ReadError, Source};
pub use statement::{About, MAX_STATEMENT, Statement, StatementError};
pub use tlog_tiles::Hash;
pub use verifier_key::{VerifierKey, VerifierKeyError};
pub use verify::{Fault, Progress, Unread, Verified, read_in_order, read_in_order_from, verify};
pub use witness::{Cosignature, CosignatureError, ML_DSA_44_KEY, WitnessKey, WitnessKeyError};

/// SHA-256, as entries have it of certificates and keys.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    hash
}

/// How many hashes a whole tile has, and how many entries a whole bundle (C2SP tlog-tiles).
pub const TILE: u64 = 256;
/// No tree is larger: far beyond what is ever written, and small enough that no position overflows.
pub const MOST_ENTRIES: u64 = (1 << 48) - 1;
