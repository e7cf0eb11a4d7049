//! Private keys that lie open in files, whatever the files call them.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// How the DER of a private key begins, behind its outermost header, in each form that programs write; `..` is any octet.
const BEGINNINGS: [(&str, &str); 6] = [
    // RFC 5958, of version 0 or 1.
    ("PKCS#8, elliptic curve", "02 01 .. 30 .. 06 07 2a 86 48 ce 3d 02 01"),
    ("PKCS#8, RSA", "02 01 .. 30 .. 06 09 2a 86 48 86 f7 0d 01 01"),
    ("PKCS#8, Ed25519", "02 01 .. 30 05 06 03 2b 65 70"),
    // RFC 5915.
    ("SEC 1, P-256", "02 01 01 04 20"),
    ("SEC 1, P-384", "02 01 01 04 30"),
    // RFC 8017.
    ("PKCS#1", "02 01 00 02 82 .. .. 00"),
];
/// A text that is shorter than this encodes no key.
const LEAST_TEXT: usize = 40;
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Where in the files of this folder, and of those in it, an open private key is, and of what form: as DER, or in base64 or hexadecimal.
pub fn find(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in files(folder) {
        // A file may be replaced or removed meanwhile.
        let bytes = fs::read(&path).unwrap_or_default();
        found.extend(in_bytes(&bytes).into_iter().map(|form| format!("{}: {form}", path.display())));
    }
    found
}

/// All files of a folder, and of those in it.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let of = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.filter(|path| path.is_dir() || path.is_file()).flat_map(of).collect()
}

/// The forms in which private keys are in it.
pub fn in_bytes(bytes: &[u8]) -> Vec<&'static str> {
    let texts = texts(bytes);
    let decoded = texts.iter().flat_map(|text| {
        // Wherever in a longer text it begins.
        let base64 = (0..4).map(|skip| decode_base64(&text[skip..]));
        base64.chain((0..2).map(|skip| decode_hex(&text[skip..])))
    });
    let views: Vec<_> = [bytes.to_vec()].into_iter().chain(decoded).collect();
    let is_in = |beginning: &str| {
        let octets: Vec<_> = beginning.split(' ').map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
        views.iter().any(|view| contains(view, &octets))
    };
    BEGINNINGS.iter().filter(|(_, beginning)| is_in(beginning)).map(|(form, _)| *form).collect()
}

/// Runs of characters that could encode something, without the ends of lines and what JSON writes for them.
fn texts(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes).replace("\\n", "").replace(['\r', '\n'], "");
    let text = text.replace('-', "+").replace('_', "/");
    let runs = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '+' || c == '/'));
    runs.filter(|run| run.len() >= LEAST_TEXT).map(str::to_owned).collect()
}

fn decode_base64(text: &str) -> Vec<u8> {
    // One character alone is no octet.
    let whole = text.len() - usize::from(text.len() % 4 == 1);
    LENIENT.decode(&text[..whole]).unwrap_or_default()
}

fn decode_hex(text: &str) -> Vec<u8> {
    let digits = text.bytes().map_while(|digit| char::from(digit).to_digit(16)).collect::<Vec<_>>();
    digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn contains(bytes: &[u8], beginning: &[Option<u8>]) -> bool {
    let fits =
        |window: &[u8]| window.iter().zip(beginning).all(|(found, wanted)| wanted.is_none_or(|one| one == *found));
    bytes.windows(beginning.len()).any(fits)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use rcgen::{KeyPair, PublicKeyData as _};

    use super::*;

    #[test]
    fn a_key_is_found_in_whatever_form_it_lies_open_and_a_certificate_is_none() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let der = key.serialize_der();
        let sec1 = [&[0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20][..], &[7; 32]].concat();
        let sealed_by_name = signet_test_pki::pem("SIGNET SEALED KEY", &[&[1; 41][..], &der].concat());
        for open in [
            der.clone(),
            sec1.clone(),
            [&b"SQLite format 3\0"[..], &der, b"more"].concat(),
            signet_test_pki::pem("PRIVATE KEY", &der).into_bytes(),
            sealed_by_name.clone().into_bytes(),
            serde_json::json!({"key": sealed_by_name}).to_string().into_bytes(),
            format!("key={}", STANDARD.encode(&sec1)).into_bytes(),
            URL_SAFE_NO_PAD.encode(&der).into_bytes(),
            hex::encode(&der).into_bytes(),
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_der(),
            KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_der(),
        ] {
            assert!(!in_bytes(&open).is_empty(), "{}", String::from_utf8_lossy(&open));
        }
        let root = signet_test_pki::Authority::root("example.org");
        let pem = signet_test_pki::pem("CERTIFICATE", root.certificate());
        for closed in [root.certificate().to_vec(), pem.into_bytes(), key.subject_public_key_info()] {
            assert_eq!(in_bytes(&closed), Vec::<&str>::new());
        }
    }
}
