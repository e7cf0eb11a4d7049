//! A backup of an issuer: all files of its state, in one stream that is encrypted to a key and can be read by nobody else, and that the
//! issuer has signed, so that nobody else can have made it.
//!
//! ```text
//! Packer:  files, manifest, statement ──► tar ──► Sealer (HPKE, RFC 9180) ──► anywhere
//! unpack:  anywhere ──► Opener ──► tar ──► files in a folder, each compared with the manifest, which the log's key has signed
//! ```

#![forbid(unsafe_code)]

mod archive;
mod key;
mod sealed;

pub use archive::{Manifest, PackError, Packer, UnpackError, unpack};
pub use key::{BackupKey, BackupSecret, KeyError};
pub use sealed::{Opener, Sealer};
