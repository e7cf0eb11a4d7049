//! Where CA keys rest: sealed by a passphrase in a file, opened only into memory.

mod passphrase;
mod sealed_file;

pub use passphrase::{Passphrase, PassphraseError};
pub use sealed_file::{KeyFileError, SealStrength};
pub(crate) use sealed_file::{open, seal_new};
