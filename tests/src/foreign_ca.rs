//! CAs that are not ours, and what they certify: made by OpenSSL, as files in a folder.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use signet_proto::identity::v1::X509Possession;
use signet_proto::identity::v1::attest_request::Proof;

use crate::program;

/// Words of `openssl req`.
pub const RSA: &[&str] = &["-newkey", "rsa:2048"];
pub const EC: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// `openssl WORDS` in a folder, which has to succeed; returns its standard output.
///
/// # Panics
/// With what it said, if it fails.
#[track_caller]
pub fn openssl_in(folder: &Path, words: &[&str]) -> Vec<u8> {
    let mut command = Command::new(program::third_party("openssl"));
    let output = command.args(words).current_dir(folder).stdin(Stdio::null()).output().expect("openssl");
    assert!(output.status.success(), "openssl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// `FILE.pem` and `FILE.key` of a self-signed CA of this name.
pub fn make_ca(folder: &Path, file: &str, name: &str) {
    let (certificate, key, subject) = (format!("{file}.pem"), format!("{file}.key"), format!("/CN={name}"));
    let words = ["req", "-x509", "-nodes", "-days", "2", "-subj", &subject, "-keyout", &key, "-out", &certificate];
    openssl_in(folder, &[&words, EC].concat());
}

/// `NAME.pem` and `NAME.key`, with the common name NAME, certified by the CA in the file `ca`.
pub fn make_leaf(folder: &Path, ca: &str, name: &str, key: &[&str], extensions: &str) {
    let file = |suffix: &str| format!("{name}.{suffix}");
    let (subject, key_file, request, written) = (format!("/CN={name}"), file("key"), file("csr"), file("ext"));
    let words = ["req", "-new", "-nodes", "-subj", &subject, "-keyout", &key_file, "-out", &request];
    openssl_in(folder, &[&words, key].concat());
    fs::write(folder.join(&written), extensions).expect("a file");
    let (ca, ca_key, leaf) = (format!("{ca}.pem"), format!("{ca}.key"), file("pem"));
    let words = ["x509", "-req", "-days", "2", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"];
    openssl_in(folder, &[&words[..], &["-extfile", &written, "-out", &leaf]].concat());
}

/// Proof that one holds the P-256 key in `key.key` beside the certificate in `certificate.pem`, for one challenge and one request: as
/// `X509Possession` of the wire contract says, by none of our code.
pub fn possession(folder: &Path, certificate: &str, key: &str, challenge: &[u8], csr: &[u8]) -> Proof {
    const ECDSA_SECP256R1_SHA256: u32 = 0x0403;
    let chain = CertificateDer::from_pem_file(folder.join(format!("{certificate}.pem"))).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from_pem_file(folder.join(format!("{key}.key"))).expect("a key in PKCS#8");
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_pkcs8_der()).expect("a P-256 key");
    let mut signed = [&[0x20; 64][..], b"signet x509_pop v1\0"].concat();
    signed.extend_from_slice(digest(&SHA256, challenge).as_ref());
    signed.extend_from_slice(digest(&SHA256, csr).as_ref());
    let signature = key.sign(&SystemRandom::new(), &signed).expect("a signature").as_ref().to_vec();
    let (chain, challenge) = (vec![chain.to_vec()], challenge.to_vec());
    Proof::X509Pop(X509Possession { chain, challenge, scheme: ECDSA_SECP256R1_SHA256, signature })
}
