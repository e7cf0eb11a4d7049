//! A key's two objects in a token: how they are made, found, and read.
//!
//! Both halves have the same CKA_ID, the key's name, 20 bytes, and a label that says what the key is for: one for tokens is never found
//! where an authority's or a log's is looked for, nor the other way.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
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
    /// RFC 8032 §5.1.5.
    Ed25519([u8; 32]),
}

/// What a key is one of.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Form {
    P256,
    Rsa,
    Ed25519,
}

/// Object identifier of P-256, DER (RFC 5480 §2.1.1.1).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// The two ways to say Ed25519 in CKA_EC_PARAMS (PKCS#11 v3.0, §2.3), DER: the object identifier of RFC 8410, and the curve's name. Some
/// tokens know one of them alone.
const ED25519_WAYS: [&[u8]; 2] = [&[0x06, 0x03, 0x2b, 0x65, 0x70], b"\x13\x0cedwards25519"];
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
            Self::Rsa(_) | Self::Ed25519(_) => false,
        }
    }

    /// The same, as a JSON Web Signature has it.
    pub(super) fn has_signed_for_jws(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Point(point) => verifies(&ECDSA_P256_SHA256_FIXED, point, message, signature),
            Self::Rsa(key) => verifies(&RSA_PKCS1_2048_8192_SHA256, key, message, signature),
            Self::Ed25519(_) => false,
        }
    }

    /// The same, as RFC 8032 has it.
    pub(super) fn has_signed_for_log(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => verifies(&ED25519, key, message, signature),
            Self::Point(_) | Self::Rsa(_) => false,
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
            Self::Ed25519(key) => key,
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            Self::Point(_) => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::Rsa(_) => &rcgen::PKCS_RSA_SHA256,
            Self::Ed25519(_) => &rcgen::PKCS_ED25519,
        }
    }
}

impl Form {
    fn of(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Authority | Purpose::Tokens(Algorithm::Es256) => Self::P256,
            Purpose::Tokens(Algorithm::Rs256) => Self::Rsa,
            Purpose::Log => Self::Ed25519,
        }
    }

    fn key_type(self) -> KeyType {
        match self {
            Self::P256 => KeyType::EC,
            Self::Rsa => KeyType::RSA,
            Self::Ed25519 => KeyType::EC_EDWARDS,
        }
    }
}

/// A new key, made inside and named.
pub(super) fn make(session: &Session, purpose: Purpose) -> Result<Public, TokenError> {
    let (public, private) = match Form::of(purpose) {
        Form::P256 => generate(session, &Mechanism::EccKeyPairGen, [Attribute::EcParams(P256.to_vec())])?,
        Form::Rsa => {
            let particular =
                [Attribute::ModulusBits(RSA_BITS.into()), Attribute::PublicExponent(RSA_EXPONENT.to_vec())];
            generate(session, &Mechanism::RsaPkcsKeyPairGen, particular)?
        }
        Form::Ed25519 => {
            let [first, second] = ED25519_WAYS.map(|way| Attribute::EcParams(way.to_vec()));
            let generate = |way| generate(session, &Mechanism::EccEdwardsKeyPairGen, [way]);
            // Tokens refuse a way that they do not know by all sorts of errors.
            generate(first).or_else(|refused| generate(second).map_err(|_| refused)).map_err(TokenError::of_ed25519)?
        }
    };
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

/// The public half, and the private one.
fn generate(
    session: &Session,
    mechanism: &Mechanism<'_>,
    particular: impl IntoIterator<Item = Attribute>,
) -> Result<(ObjectHandle, ObjectHandle), cryptoki::error::Error> {
    let mut public = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::Label(UNNAMED.to_vec()),
    ];
    public.extend(particular);
    session.generate_key_pair(mechanism, &public, &private())
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
        Attribute::KeyType(Form::of(purpose).key_type()),
        Attribute::Id(id_of(name)),
        label(purpose, name),
    ];
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

fn label(purpose: Purpose, name: &KeyName) -> Attribute {
    let label = match purpose {
        Purpose::Authority => format!("signet {name}"),
        Purpose::Tokens(_) => format!("signet jwt {name}"),
        Purpose::Log => format!("signet log {name}"),
    };
    Attribute::Label(label.into_bytes())
}

fn read(session: &Session, purpose: Purpose, public: ObjectHandle) -> Result<Public, TokenError> {
    match Form::of(purpose) {
        Form::P256 => {
            let point = ec_point(session, public)?.as_deref().and_then(p256_point);
            point.map(Public::Point).ok_or(TokenError::NotP256)
        }
        Form::Rsa => rsa_of(session, public).map(Public::Rsa),
        Form::Ed25519 => {
            let point = ec_point(session, public)?.as_deref().and_then(ed25519_point);
            point.map(Public::Ed25519).ok_or(TokenError::NotEd25519)
        }
    }
}

fn ec_point(session: &Session, public: ObjectHandle) -> Result<Option<Vec<u8>>, TokenError> {
    let told = session.get_attributes(public, &[AttributeType::EcPoint])?;
    Ok(told.into_iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(value) => Some(value),
        _ => None,
    }))
}

/// CKA_EC_POINT is an OCTET STRING around the point; some modules leave the string away.
fn p256_point(value: &[u8]) -> Option<Vec<u8>> {
    let point = match value {
        [0x04, 0x41, point @ ..] if point.len() == 65 => point,
        point => point,
    };
    (point.len() == 65 && point.first() == Some(&4)).then(|| point.to_vec())
}

/// Of these keys it is the bare 32 bytes, or an OCTET STRING around them too.
fn ed25519_point(value: &[u8]) -> Option<[u8; 32]> {
    match value {
        [0x04, 0x20, point @ ..] if point.len() == 32 => point.try_into().ok(),
        point => point.try_into().ok(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_taken_with_and_without_the_string_around_it() {
        // Which begin as such a string would.
        let ed25519 = [&[0x04, 0x20][..], &[7; 30]].concat();
        let p256 = [&[0x04, 0x41][..], &[7; 63]].concat();
        let around = |point: &[u8], length: u8| [&[0x04, length], point].concat();
        for value in [ed25519.clone(), around(&ed25519, 32)] {
            assert_eq!(ed25519_point(&value).as_ref().map(<[u8; 32]>::as_slice), Some(&ed25519[..]));
        }
        for value in [p256.clone(), around(&p256, 65)] {
            assert_eq!(p256_point(&value), Some(p256.clone()));
        }
        for wrong in [vec![], vec![7; 31], vec![7; 33], vec![7; 34], vec![7; 65], around(&[7; 32], 31), p256] {
            assert_eq!(ed25519_point(&wrong), None, "{wrong:?}");
        }
        assert_eq!((p256_point(&ed25519), p256_point(&[7; 65])), (None, None));
    }
}
