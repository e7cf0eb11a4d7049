//! The keys that sign, and the certificates that say what they may sign.

mod acts;
pub(crate) mod certificate;
pub(crate) mod custody;
pub(crate) mod hierarchy;
mod intake;
mod intermediate;
mod issuing;
mod journal;
mod member;
mod publication;
mod reach;
mod set;
mod stage;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use certificate::CaCertificate;
pub(crate) use custody::{CaKey, KeyName};
pub use custody::{
    CustodyError, KeyFileError, Passphrase, PassphraseError, SealStrength, SignError, TokenError, TokenName, TokenPlace,
};
pub(crate) use intake::Intake;
pub(crate) use intermediate::{IntermediateError, check_is_under, check_peer, read_chain};
pub use issuing::LEAF_LIVES;
pub(crate) use issuing::{Authority, CertifyError, KeyId, Unsigned, sign_with, tbs_of_list};
pub(crate) use journal::{RootChange, Rotation};
pub(crate) use member::{Kept, Member, StepError};
pub(crate) use publication::{Publication, Published};
pub(crate) use reach::Reach;
pub(crate) use set::{Authorities, ImportError, MOST as MOST_AUTHORITIES, Place};
pub use set::{AuthorityError, AuthorityState};
pub(crate) use stage::Stage;
