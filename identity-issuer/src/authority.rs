//! The keys that sign, and the certificates that say what they may sign.

pub(crate) mod certificate;
pub(crate) mod custody;
pub(crate) mod hierarchy;
mod intermediate;
mod issuing;
#[cfg(test)]
pub(crate) mod testing;
mod waiting;

pub(crate) use certificate::CaCertificate;
pub use custody::{KeyFileError, Passphrase, PassphraseError, SealStrength};
pub(crate) use intermediate::{IntermediateError, check as check_intermediate, check_peer};
pub(crate) use issuing::{Authority, CertifyError, KeyId};
pub(crate) use waiting::{Authorities, AuthorityFiles, open_or_make_key};
pub use waiting::{AuthorityError, AuthorityState};
