//! A key's two objects in a token: how they are made, found, and read.
//!
//! Both halves have the same CKA_ID, the key's name, 20 bytes, and a label that says what the key is for: one for tokens is never found
//! where an authority's is looked for, nor the other way.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use rcgen::{PublicKeyData, SignatureAlgorithm};

use super::super::{Algorithm, KeyName, Purpose};
use super::TokenError;

/// The public half of a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Public {
    /// On P-256, uncompressed (SEC 1 §2.3.3).
    Point(Vec<u8>),
    /// RSAPublicKey, DER (RFC 8017 §A.1.1).
    Rsa(Vec<u8>),
}

/// Object identifier of P-256, DER (RFC 5480 §2.1.1.1).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const RSA_BITS: u64 = 2048;
/// 65,537.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// Until its name is known, which follows from the key.
const UNNAMED: &[u8] = b"signet (being made)";

impl Public {
    pub(super) fn name(&self) -> KeyName {
        KeyName::of(&self.spki())
    }

    /// SubjectPublicKeyInfo, DER.
    pub(super) fn spki(&self) -> Vec<u8> {
        self.subject_public_key_info()
    }

    /// Whether this key signed this message, as X.509 has a signature.
    pub(super) fn has_signed_for_x509(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Point(point) => verifies(&ECDSA_P256_SHA256_ASN1, point, message, signature),
            Self::Rsa(_) => false,
        }
    }

    /// The same, as a JSON Web Signature has it.
    pub(super) fn has_signed_for_jws(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Point(point) => verifies(&ECDSA_P256_SHA256_FIXED, point, message, signature),
            Self::Rsa(key) => verifies(&RSA_PKCS1_2048_8192_SHA256, key, message, signature),
        }
    }
}

fn verifies(
    algorithm: &'static dyn aws_lc_rs::signature::VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}

impl PublicKeyData for Public {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::Point(point) => point,
            Self::Rsa(key) => key,
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            Self::Point(_) => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::Rsa(_) => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

/// A new key, made inside and named.
pub(super) fn make(session: &Session, purpose: Purpose) -> Result<Public, TokenError> {
    let (mechanism, particular) = match key_type(purpose) {
        KeyType::RSA => (
            Mechanism::RsaPkcsKeyPairGen,
            vec![Attribute::ModulusBits(RSA_BITS.into()), Attribute::PublicExponent(RSA_EXPONENT.to_vec())],
        ),
        _ => (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(P256.to_vec())]),
    };
    let mut public = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::Label(UNNAMED.to_vec()),
    ];
    public.extend(particular);
    let (public, private) = session.generate_key_pair(&mechanism, &public, &private())?;
    let named = confirm_inside(session, private).and_then(|()| name(session, purpose, public, private));
    if named.is_err() {
        // Of what is not kept, nothing is left behind; the error is what counts.
        let _ = session.destroy_object(private);
        let _ = session.destroy_object(public);
    }
    named
}

/// The public half of a key that rests there.
pub(super) fn open(session: &Session, purpose: Purpose, name: &KeyName) -> Result<Public, TokenError> {
    let (Some(private), Some(public)) = (
        find(session, ObjectClass::PRIVATE_KEY, purpose, name)?,
        find(session, ObjectClass::PUBLIC_KEY, purpose, name)?,
    ) else {
        return Err(TokenError::NoKey { name: name.clone() });
    };
    confirm_inside(session, private)?;
    read(session, purpose, public)
}

pub(super) fn private_half(session: &Session, purpose: Purpose, name: &KeyName) -> Result<ObjectHandle, TokenError> {
    let found = find(session, ObjectClass::PRIVATE_KEY, purpose, name)?;
    found.ok_or_else(|| TokenError::NoKey { name: name.clone() })
}

pub(super) fn destroy(session: &Session, purpose: Purpose, name: &KeyName) -> Result<(), TokenError> {
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        if let Some(object) = find(session, class, purpose, name)? {
            session.destroy_object(object)?;
        }
    }
    Ok(())
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

/// A token may take a template for a wish. A key that could leave it, or that came from outside, is none for an issuer.
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

/// Gives a new key the name by which it is found.
fn name(
    session: &Session,
    purpose: Purpose,
    public: ObjectHandle,
    private: ObjectHandle,
) -> Result<Public, TokenError> {
    let read = read(session, purpose, public)?;
    let name = read.name();
    for object in [private, public] {
        session.update_attributes(object, &[Attribute::Id(id_of(&name)), label(purpose, &name)])?;
    }
    Ok(read)
}

fn find(
    session: &Session,
    class: ObjectClass,
    purpose: Purpose,
    name: &KeyName,
) -> Result<Option<ObjectHandle>, TokenError> {
    let wanted = [
        Attribute::Class(class),
        Attribute::KeyType(key_type(purpose)),
        Attribute::Id(id_of(name)),
        label(purpose, name),
    ];
    match session.find_objects(&wanted)?[..] {
        [] => Ok(None),
        [object] => Ok(Some(object)),
        _ => Err(TokenError::SameId { name: name.clone() }),
    }
}

fn key_type(purpose: Purpose) -> KeyType {
    match purpose {
        Purpose::Authority | Purpose::Tokens(Algorithm::Es256) => KeyType::EC,
        Purpose::Tokens(Algorithm::Rs256) => KeyType::RSA,
    }
}

fn id_of(name: &KeyName) -> Vec<u8> {
    // Forty hexadecimal digits, always.
    hex::decode(name.as_str()).unwrap_or_default()
}

fn label(purpose: Purpose, name: &KeyName) -> Attribute {
    let label = match purpose {
        Purpose::Authority => format!("signet {name}"),
        Purpose::Tokens(_) => format!("signet jwt {name}"),
    };
    Attribute::Label(label.into_bytes())
}

fn read(session: &Session, purpose: Purpose, public: ObjectHandle) -> Result<Public, TokenError> {
    match key_type(purpose) {
        KeyType::RSA => rsa_of(session, public).map(Public::Rsa),
        _ => point_of(session, public).map(Public::Point),
    }
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

fn rsa_of(session: &Session, public: ObjectHandle) -> Result<Vec<u8>, TokenError> {
    let told = session.get_attributes(public, &[AttributeType::Modulus, AttributeType::PublicExponent])?;
    let mut numbers = (None, None);
    for attribute in told {
        match attribute {
            Attribute::Modulus(modulus) => numbers.0 = Some(modulus),
            Attribute::PublicExponent(exponent) => numbers.1 = Some(exponent),
            _ => {}
        }
    }
    let (Some(modulus), Some(exponent)) = numbers else { return Err(TokenError::NotRsa) };
    let significant = modulus.iter().skip_while(|byte| **byte == 0).count();
    if significant as u64 * 8 != RSA_BITS {
        return Err(TokenError::NotRsa);
    }
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_bigint_bytes(&modulus, true);
            writer.next().write_bigint_bytes(&exponent, true);
        });
    }))
}
