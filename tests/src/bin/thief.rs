//! Somebody who has the PIN of a token and wants its private keys: `signet-test-thief MODULE LABEL PIN`.
//!
//! Says on standard output what each way to get one out came to, and how many keys there are. A key of its own that may leave the token,
//! it has to get: else it is no thief.

#![forbid(unsafe_code)]
// It ends by panicking where the token does not even let it try.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [module, label, pin] = &arguments[..] else { panic!("MODULE LABEL PIN") };
    let library = Pkcs11::new(module).expect("the module");
    library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("the module");
    let slots = library.get_slots_with_token().expect("slots");
    let is_it = |slot: &cryptoki::slot::Slot| {
        library.get_token_info(*slot).is_ok_and(|token| token.label().trim_end() == label)
    };
    let session = library.open_rw_session(slots.into_iter().find(is_it).expect("the token")).expect("a session");
    session.login(UserType::User, Some(&AuthPin::new(pin.as_str().into()))).expect("the PIN");

    let keys = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).expect("a search");
    let own = exportable(&session);
    assert!(steals(&session, own).contains(&"value"), "a thief who cannot even take a key that may be taken");
    println!("keys {}", keys.len());
    for key in keys {
        for way in steals(&session, key) {
            println!("stolen by {way}");
        }
    }
}

fn exportable(session: &Session) -> ObjectHandle {
    let public = [Attribute::EcParams(P256.to_vec()), Attribute::Verify(true)];
    let private = [Attribute::Sensitive(false), Attribute::Extractable(true), Attribute::Sign(true)];
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).expect("a key of its own").1
}

/// The ways by which the key's value was had, or could be had from now on.
fn steals(session: &Session, key: ObjectHandle) -> Vec<&'static str> {
    let has_value = |key| {
        // Of an elliptic curve's key, and of an RSA key.
        [AttributeType::Value, AttributeType::PrivateExponent].into_iter().any(|secret| {
            let told = session.get_attributes(key, &[secret]).unwrap_or_default();
            told.iter().any(|attribute| match attribute {
                Attribute::Value(value) | Attribute::PrivateExponent(value) => !value.is_empty(),
                _ => false,
            })
        })
    };
    let mut ways = Vec::new();
    if has_value(key) {
        ways.push("value");
    }
    let open = [Attribute::Extractable(true), Attribute::Sensitive(false)];
    if open.iter().any(|attribute| session.update_attributes(key, std::slice::from_ref(attribute)).is_ok()) {
        ways.push("another attribute");
    }
    if session.copy_object(key, &open).is_ok_and(has_value) {
        ways.push("copy");
    }
    let wrapping = [Attribute::Wrap(true), Attribute::Token(false), Attribute::ValueLen(32.into())];
    let wrapping = session.generate_key(&Mechanism::AesKeyGen, &wrapping).expect("a wrapping key");
    if session.wrap_key(&Mechanism::AesKeyWrapPad, wrapping, key).is_ok() {
        ways.push("wrapping");
    }
    ways
}
