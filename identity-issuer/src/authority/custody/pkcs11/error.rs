//! Why a token does not do what it is asked.

use std::path::PathBuf;

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};

use super::super::KeyName;

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the PKCS#11 module {} cannot be loaded\ninstall the module of the HSM's vendor, and name its library", path.display())]
    Module { path: PathBuf, source: Error },
    #[error("the PKCS#11 module {} does not start", path.display())]
    Start { path: PathBuf, source: Error },
    #[error("there is no token {token} in the PKCS#11 module {}\nput the token back, or name one that is there", module.display())]
    NoToken { token: String, module: PathBuf },
    #[error("several tokens of the PKCS#11 module {} are {token}\nname the one by its serial number", module.display())]
    Ambiguous { token: String, module: PathBuf },
    #[error("the PIN file {} cannot be read", path.display())]
    PinFile { path: PathBuf, source: std::io::Error },
    #[error("the PIN file {} is empty\nput the PIN of the token's user on its first line", path.display())]
    NoPin { path: PathBuf },
    #[error(
        "the token takes no PIN of {}: {reason}\n\
         put the right one into the file; it is not tried again until the file has another, for tokens lock themselves after a few attempts",
        path.display()
    )]
    Pin { path: PathBuf, reason: String },
    #[error("the token answers no more requests at once, or none at all")]
    Busy,
    #[error("the token does not answer as it should")]
    Call(#[source] Error),
    #[error("the token holds no key {name}")]
    NoKey { name: KeyName },
    #[error("the token holds several keys with the CKA_ID {name}\nremove those that are not the issuer's")]
    SameId { name: KeyName },
    #[error("the key with the CKA_ID {name} is another one\nrestore the token from a backup")]
    OtherKey { name: KeyName },
    #[error(
        "the token would give its keys away, or had them from elsewhere (CKA_SENSITIVE, CKA_EXTRACTABLE, CKA_LOCAL)\nset the token up so that keys are made in it and stay there"
    )]
    Exportable,
    #[error("the key is none on P-256")]
    NotP256,
    #[error("the key is none of RSA with 2,048 bits")]
    NotRsa,
    #[error("the key is none of Ed25519")]
    NotEd25519,
    #[error(
        "the token makes no keys of Ed25519, as a log's is, or does not sign with them (CKM_EC_EDWARDS_KEY_PAIR_GEN, CKM_EDDSA)\n\
         name a file by `audit.passphrase_file`: the log's key then rests in the state folder, sealed"
    )]
    NoEd25519 { source: Error },
    #[error("the token made a signature that is none by its key\nhave the HSM examined before you use it again")]
    BadSignature,
}

impl From<Error> for TokenError {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

/// What helps against an error.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Remedy {
    None,
    /// Another session, logged in again; where that does not help, the module begun anew.
    Again,
}

impl TokenError {
    /// Of a call that is about Ed25519, which many tokens do not know.
    pub(super) fn of_ed25519(error: Error) -> Self {
        use RvError as Rv;
        match error {
            Error::Pkcs11(
                Rv::MechanismInvalid
                | Rv::CurveNotSupported
                | Rv::DomainParamsInvalid
                | Rv::AttributeValueInvalid
                | Rv::TemplateInconsistent,
                _,
            ) => Self::NoEd25519 { source: error },
            error => error.into(),
        }
    }

    pub(super) fn remedy(&self) -> Remedy {
        match self {
            // A token that was put back is seen, and its keys are found, only by a module that begins anew.
            Self::NoToken { .. } | Self::NoKey { .. } | Self::Start { .. } => Remedy::Again,
            Self::Call(error) => remedy_of(error),
            Self::Module { .. }
            | Self::Ambiguous { .. }
            | Self::PinFile { .. }
            | Self::NoPin { .. }
            | Self::Pin { .. }
            | Self::Busy
            | Self::SameId { .. }
            | Self::OtherKey { .. }
            | Self::Exportable
            | Self::NotP256
            | Self::NotRsa
            | Self::NotEd25519
            | Self::NoEd25519 { .. }
            | Self::BadSignature => Remedy::None,
        }
    }
}

fn remedy_of(error: &Error) -> Remedy {
    use RvError as Rv;
    match error {
        // These say that the request is wrong, and would be so again.
        Error::Pkcs11(
            Rv::ArgumentsBad
            | Rv::AttributeReadOnly
            | Rv::AttributeSensitive
            | Rv::AttributeTypeInvalid
            | Rv::AttributeValueInvalid
            | Rv::ActionProhibited
            | Rv::CurveNotSupported
            | Rv::DataInvalid
            | Rv::DataLenRange
            | Rv::DeviceMemory
            | Rv::FunctionNotSupported
            | Rv::KeyFunctionNotPermitted
            | Rv::KeyTypeInconsistent
            | Rv::MechanismInvalid
            | Rv::MechanismParamInvalid
            | Rv::TemplateIncomplete
            | Rv::TemplateInconsistent
            | Rv::TokenWriteProtected,
            _,
        ) => Remedy::None,
        Error::Pkcs11(..) => Remedy::Again,
        Error::LibraryLoading(_)
        | Error::NotSupported
        | Error::TryFromInt(_)
        | Error::TryFromSlice(_)
        | Error::ParseInt(_)
        | Error::Utf8(_)
        | Error::NulError(_)
        | Error::NullFunctionPointer
        | Error::MissingSymbol(_)
        | Error::InvalidValue
        | Error::PinNotSet => Remedy::None,
    }
}

/// Whether the PIN is what is wrong, and how.
pub(super) fn pin_fault(error: &Error) -> Option<&'static str> {
    match error {
        Error::Pkcs11(RvError::PinIncorrect, Function::Login) => Some("it is not the PIN"),
        Error::Pkcs11(RvError::PinInvalid | RvError::PinLenRange, Function::Login) => Some("it cannot be a PIN"),
        Error::Pkcs11(RvError::PinExpired, Function::Login) => Some("it has expired"),
        Error::Pkcs11(RvError::PinLocked, Function::Login) => Some("the token is locked after too many wrong ones"),
        _ => None,
    }
}
