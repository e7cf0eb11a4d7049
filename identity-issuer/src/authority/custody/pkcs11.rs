//! Keys in a device that speaks PKCS#11: made inside, never exportable, and used by sessions that are pooled.
//!
//! ```text
//! Device ── Token ── sessions, logged in; lost ones are replaced
//!             └───── Module ── the library, once in a process; begun anew when the token was away
//! ```

mod error;
mod module;
mod objects;
mod signature;
mod token;

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};

pub use error::TokenError;
use objects::Public;
use token::Token;

use super::{
    Algorithm, CaKey, Custody, CustodyError, JwtKey, KeyName, LogKey, Pace, Purpose, SignError, Signs, statement,
};

/// Where a token is, and what opens it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenPlace {
    /// The vendor's library.
    pub module: PathBuf,
    pub token: TokenName,
    /// File whose first line is the PIN.
    pub pin_file: PathBuf,
    /// How many signatures are made at once at most.
    pub sessions: usize,
}

/// Slots are numbered anew by some modules at each start; tokens keep these.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TokenName {
    Label(String),
    Serial(String),
}

/// The keys of one token. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    token: Arc<Token>,
}

/// The private half of one key.
#[derive(Debug)]
struct DeviceKey {
    token: Arc<Token>,
    purpose: Purpose,
    name: KeyName,
    public: Public,
}

impl Device {
    /// Reaches the token once, so that a wrong name or PIN is told at once.
    pub(crate) fn open(place: TokenPlace) -> Result<Self, TokenError> {
        let token = Token::new(place)?;
        token.attempt(|_| Ok(()))?;
        Ok(Self { token: Arc::new(token) })
    }

    fn make_key(&self, purpose: Purpose) -> Result<DeviceKey, CustodyError> {
        let public = self.token.attempt_writing(|session| objects::make(session, purpose))?;
        let name = public.name();
        self.key(purpose, public).inspect_err(|_| {
            // One that does not sign is known to nobody, and would fill the token.
            if let Err(error) = self.destroy(&name, purpose) {
                let cause = signet_process::start::Report::of(&error).cause;
                tracing::error!(key = name.as_str(), cause, "a key that does not sign is not destroyed");
            }
        })
    }

    fn open_key(&self, purpose: Purpose, name: &KeyName) -> Result<DeviceKey, CustodyError> {
        let public = self.token.attempt(|logged_in| objects::open(&logged_in.session, purpose, name));
        let public = match public {
            Err(TokenError::NoKey { name }) => return Err(CustodyError::Gone { name }),
            public => public?,
        };
        match public.name() == *name {
            true => self.key(purpose, public),
            false => Err(TokenError::OtherKey { name: name.clone() }.into()),
        }
    }

    fn key(&self, purpose: Purpose, public: Public) -> Result<DeviceKey, CustodyError> {
        let key = DeviceKey { token: Arc::clone(&self.token), purpose, name: public.name(), public };
        // Whether the two halves belong together.
        key.sign_message(&statement("signet key check v1", &[]))?;
        Ok(key)
    }
}

impl Custody for Device {
    fn make(&self) -> Result<CaKey, CustodyError> {
        self.make_key(Purpose::Authority).map(CaKey::from)
    }

    fn open(&self, name: &KeyName) -> Result<CaKey, CustodyError> {
        self.open_key(Purpose::Authority, name).map(CaKey::from)
    }

    fn make_for_tokens(&self, algorithm: Algorithm) -> Result<JwtKey, CustodyError> {
        let key = self.make_key(Purpose::Tokens(algorithm))?;
        Ok(JwtKey::new(algorithm, key.public.spki(), key))
    }

    fn open_for_tokens(&self, name: &KeyName, algorithm: Algorithm) -> Result<JwtKey, CustodyError> {
        let key = self.open_key(Purpose::Tokens(algorithm), name)?;
        Ok(JwtKey::new(algorithm, key.public.spki(), key))
    }

    fn make_for_log(&self) -> Result<LogKey, CustodyError> {
        Ok(self.make_key(Purpose::Log)?.try_into()?)
    }

    fn open_for_log(&self, name: &KeyName) -> Result<LogKey, CustodyError> {
        Ok(self.open_key(Purpose::Log, name)?.try_into()?)
    }

    fn destroy(&self, name: &KeyName, purpose: Purpose) -> Result<(), CustodyError> {
        Ok(self.token.attempt_writing(|session| objects::destroy(session, purpose, name))?)
    }

    fn check(&self) -> Result<(), CustodyError> {
        Ok(self.token.look()?)
    }
}

impl DeviceKey {
    fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let raw = self.token.attempt(|logged_in| {
            let find = |session: &_| objects::private_half(session, self.purpose, &self.name);
            let key = logged_in.key(&self.name, find)?;
            let session = &logged_in.session;
            Ok(match &self.public {
                Public::Point(_) => session.sign(&Mechanism::Ecdsa, key, digest(&SHA256, message).as_ref())?,
                Public::Rsa(_) => session.sign(&Mechanism::Sha256RsaPkcs, key, message)?,
                Public::Ed25519(_) => {
                    let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
                    session.sign(&mechanism, key, message).map_err(TokenError::of_ed25519)?
                }
            })
        })?;
        // A device that is faulty, or in other hands: what it made is not given on.
        let (signature, is_ours) = match self.purpose {
            Purpose::Authority => {
                let signature = signature::in_der(&raw).ok_or(TokenError::BadSignature)?;
                let is_ours = self.public.has_signed_for_x509(message, &signature);
                (signature, is_ours)
            }
            Purpose::Tokens(_) => {
                let is_ours = self.public.has_signed_for_jws(message, &raw);
                (raw, is_ours)
            }
            Purpose::Log => {
                let is_ours = self.public.has_signed_for_log(message, &raw);
                (raw, is_ours)
            }
        };
        is_ours.then_some(signature).ok_or(TokenError::BadSignature)
    }
}

impl From<DeviceKey> for CaKey {
    fn from(key: DeviceKey) -> Self {
        use rcgen::PublicKeyData as _;
        Self::new(key.public.der_bytes().to_vec(), key)
    }
}

impl TryFrom<DeviceKey> for LogKey {
    type Error = TokenError;

    fn try_from(key: DeviceKey) -> Result<Self, TokenError> {
        match key.public {
            Public::Ed25519(public_key) => Ok(Self::new(public_key, key)),
            Public::Point(_) | Public::Rsa(_) => Err(TokenError::NotEd25519),
        }
    }
}

impl Signs for DeviceKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(self.sign_message(message)?)
    }

    fn pace(&self) -> Pace {
        Pace::Blocks
    }
}

#[cfg(test)]
mod tests;
