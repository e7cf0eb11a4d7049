//! CA keys in a device that speaks PKCS#11: made inside, never exportable, and used by sessions that are pooled.
//!
//! ```text
//! Device ── Token ── sessions, logged in; lost ones are replaced
//!             └───── Module ── the library, once in a process; begun anew when the token was away
//! ```
//! A key is an object of the token, private and public half with the same CKA_ID: the key's name, 20 bytes.

mod error;
mod module;
mod signature;
mod token;

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

pub use error::TokenError;
use token::Token;

use super::{CaKey, Custody, CustodyError, KeyName, Pace, SignError, Signs, statement};

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

/// The CA keys of one token.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    token: Arc<Token>,
}

/// The private half of one key.
#[derive(Debug)]
struct DeviceKey {
    token: Arc<Token>,
    name: KeyName,
    point: Vec<u8>,
}

/// Object identifier of P-256, DER (RFC 5480 §2.1.1.1).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

impl Device {
    /// Reaches the token once, so that a wrong name or PIN is told at once.
    pub(crate) fn open(place: TokenPlace) -> Result<Self, TokenError> {
        let token = Token::new(place)?;
        token.attempt(|_| Ok(()))?;
        Ok(Self { token: Arc::new(token) })
    }

    fn key(&self, point: Vec<u8>) -> Result<CaKey, TokenError> {
        let name = KeyName::of(&spki(&point));
        let key = DeviceKey { token: Arc::clone(&self.token), name: name.clone(), point: point.clone() };
        // Whether the two halves belong together.
        key.sign_message(&statement("signet key check v1", &[]))?;
        Ok(CaKey::new(point, key))
    }
}

impl Custody for Device {
    fn make(&self) -> Result<CaKey, CustodyError> {
        let point = self.token.attempt_writing(|session| {
            let (public, private) = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public(), &private())?;
            let named = confirm_inside(session, private).and_then(|()| name(session, public, private));
            if named.is_err() {
                // Of what is not kept, nothing is left behind; the error is what counts.
                let _ = session.destroy_object(private);
                let _ = session.destroy_object(public);
            }
            named
        })?;
        Ok(self.key(point)?)
    }

    fn open(&self, name: &KeyName) -> Result<CaKey, CustodyError> {
        let point = self.token.attempt(|logged_in| {
            let session = &logged_in.session;
            let (Some(private), Some(public)) =
                (find(session, ObjectClass::PRIVATE_KEY, name)?, find(session, ObjectClass::PUBLIC_KEY, name)?)
            else {
                return Err(TokenError::NoKey { name: name.clone() });
            };
            confirm_inside(session, private)?;
            point_of(session, public)
        });
        let point = match point {
            Err(TokenError::NoKey { name }) => return Err(CustodyError::Gone { name }),
            point => point?,
        };
        match KeyName::of(&spki(&point)) == *name {
            true => Ok(self.key(point)?),
            false => Err(TokenError::OtherKey { name: name.clone() }.into()),
        }
    }

    fn destroy(&self, name: &KeyName) -> Result<(), CustodyError> {
        self.token.attempt_writing(|session| {
            for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
                if let Some(object) = find(session, class, name)? {
                    session.destroy_object(object)?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    fn check(&self) -> Result<(), CustodyError> {
        Ok(self.token.look()?)
    }
}

impl DeviceKey {
    fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let hash = digest(&SHA256, message);
        let raw = self.token.attempt(|logged_in| {
            let key = logged_in.key(&self.name, |session| {
                let found = find(session, ObjectClass::PRIVATE_KEY, &self.name)?;
                found.ok_or_else(|| TokenError::NoKey { name: self.name.clone() })
            })?;
            Ok(logged_in.session.sign(&Mechanism::Ecdsa, key, hash.as_ref())?)
        })?;
        let signature = signature::in_der(&raw).ok_or(TokenError::BadSignature)?;
        // A device that is faulty, or in other hands: what it made is not given on.
        match signature::is_by(&self.point, message, &signature) {
            true => Ok(signature),
            false => Err(TokenError::BadSignature),
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

fn public() -> [Attribute; 5] {
    [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(P256.to_vec()),
        Attribute::Label(UNNAMED.to_vec()),
    ]
}

fn private() -> [Attribute; 7] {
    [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Derive(false),
        Attribute::Label(UNNAMED.to_vec()),
    ]
}

/// Until its name is known, which follows from the key.
const UNNAMED: &[u8] = b"signet (being made)";

/// A token may take a template for a wish. A key that could leave it, or that came from outside, is none for a CA.
fn confirm_inside(session: &Session, private: ObjectHandle) -> Result<(), TokenError> {
    let asked = [
        AttributeType::Sensitive,
        AttributeType::Extractable,
        AttributeType::AlwaysSensitive,
        AttributeType::NeverExtractable,
        AttributeType::Local,
    ];
    let told = session.get_attributes(private, &asked)?;
    let wanted = [
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::AlwaysSensitive(true),
        Attribute::NeverExtractable(true),
        Attribute::Local(true),
    ];
    match wanted.iter().all(|wanted| told.contains(wanted)) {
        true => Ok(()),
        false => Err(TokenError::Exportable),
    }
}

/// Gives a new key the name by which it is found; returns its point.
fn name(session: &Session, public: ObjectHandle, private: ObjectHandle) -> Result<Vec<u8>, TokenError> {
    let point = point_of(session, public)?;
    let name = KeyName::of(&spki(&point));
    let label = format!("signet {name}").into_bytes();
    for object in [private, public] {
        session.update_attributes(object, &[Attribute::Id(id_of(&name)), Attribute::Label(label.clone())])?;
    }
    Ok(point)
}

fn find(session: &Session, class: ObjectClass, name: &KeyName) -> Result<Option<ObjectHandle>, TokenError> {
    let wanted = [Attribute::Class(class), Attribute::KeyType(KeyType::EC), Attribute::Id(id_of(name))];
    match session.find_objects(&wanted)?[..] {
        [] => Ok(None),
        [object] => Ok(Some(object)),
        _ => Err(TokenError::SameId { name: name.clone() }),
    }
}

fn id_of(name: &KeyName) -> Vec<u8> {
    // Forty hexadecimal digits, always.
    hex::decode(name.as_str()).unwrap_or_default()
}

/// CKA_EC_POINT is an OCTET STRING around the point; some modules leave the string away.
fn point_of(session: &Session, public: ObjectHandle) -> Result<Vec<u8>, TokenError> {
    let told = session.get_attributes(public, &[AttributeType::EcPoint])?;
    let Some(Attribute::EcPoint(value)) = told.into_iter().next() else { return Err(TokenError::NotP256) };
    let point = match &value[..] {
        [0x04, 0x41, point @ ..] if point.len() == 65 => point,
        point => point,
    };
    match (point.len(), point.first()) {
        (65, Some(4)) => Ok(point.to_vec()),
        _ => Err(TokenError::NotP256),
    }
}

/// SubjectPublicKeyInfo, DER, of a point on P-256.
fn spki(point: &[u8]) -> Vec<u8> {
    use rcgen::PublicKeyData;
    struct Point<'a>(&'a [u8]);
    impl PublicKeyData for Point<'_> {
        fn der_bytes(&self) -> &[u8] {
            self.0
        }

        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &rcgen::PKCS_ECDSA_P256_SHA256
        }
    }
    Point(point).subject_public_key_info()
}
