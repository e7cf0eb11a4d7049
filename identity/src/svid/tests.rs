#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rcgen::{IsCa, KeyPair, KeyUsagePurpose};
use signet_test_pki::{Authority, Issued};
use time::Duration;

use super::*;

const CART: &str = "spiffe://example.org/shop/cart";

fn issuing() -> Authority {
    Authority::root("example.org").intermediate()
}

fn svid(issued: &Issued) -> Result<X509Svid, SvidError> {
    X509Svid::from_der(issued.chain.clone(), issued.key())
}

#[test]
fn a_chain_and_its_key_are_an_svid_in_der_and_in_pem() {
    let start = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    let (begin, end) = (start - Duration::minutes(1), start + Duration::hours(1));
    let issued = issuing().leaf(CART).valid(begin, end).issue();
    let pem = format!("a comment\n{}{}", issued.chain_pem(), issued.key_pem());
    for svid in [svid(&issued).unwrap(), X509Svid::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap()] {
        assert_eq!(svid.id().as_str(), CART);
        assert_eq!(svid.chain(), issued.chain);
        assert_eq!(svid.leaf(), &issued.chain[0]);
        assert_eq!((svid.not_before(), svid.not_after()), (begin, end));
        assert!(svid.is_valid_at(begin) && svid.is_valid_at(end));
        assert!(!svid.is_valid_at(begin - Duration::nanoseconds(1)));
        assert!(!svid.is_valid_at(end + Duration::nanoseconds(1)));
        let share = (svid.renew_at() - begin) / (end - begin);
        assert!((0.4..0.6).contains(&share), "{share}");
    }
}

#[test]
fn all_common_kinds_of_keys_are_understood() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let issued = issuing().leaf(CART).with_key(KeyPair::generate_for(algorithm).unwrap()).issue();
        assert!(svid(&issued).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn a_chain_ends_with_the_first_of_its_certificates_to_end() {
    let end = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() + Duration::minutes(10);
    let issuing = Authority::root("example.org").intermediate_with(|params| params.not_after = end);
    let svid = svid(&issuing.leaf(CART).issue()).unwrap();
    assert_eq!(svid.not_after(), end);
    assert!(svid.renew_at() < end);
}

#[test]
fn the_key_of_another_certificate_is_refused() {
    let issuing = issuing();
    let (one, other) = (issuing.leaf(CART).issue(), issuing.leaf(CART).issue());
    assert!(matches!(X509Svid::from_der(one.chain.clone(), other.key()), Err(SvidError::KeyMismatch)));
}

#[test]
fn our_own_leaf_must_be_what_the_strictest_peer_wants() {
    let issuing = issuing();
    let refused = |issued: &Issued| match svid(issued) {
        Err(SvidError::Leaf(error)) => error.reason(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&issuing.leaf(CART).with(|params| params.is_ca = IsCa::NoCa).issue()), "implicitly_no_ca");
    assert_eq!(refused(&issuing.leaf(CART).with(|params| params.key_usages.clear()).issue()), "key_usage");
    assert_eq!(refused(&issuing.leaf("spiffe://example.org").issue()), "root_path");
    assert_eq!(refused(&issuing.leaf("https://example.org/a").issue()), "not_spiffe");
    assert_eq!(refused(&issuing.leaf(CART).uri("spiffe://example.org/b").issue()), "several_uris");
}

#[test]
fn the_rest_of_the_chain_must_be_authorities_of_the_same_trust_domain() {
    let issued = issuing().leaf(CART).issue();
    let chain_with = |second: &CertificateDer<'static>| vec![issued.chain[0].clone(), second.clone()];
    let other_domain = Authority::root("other.org");
    let no_signer =
        Authority::root("example.org").intermediate_with(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    for second in [&issued.chain[0], other_domain.certificate(), no_signer.certificate()] {
        let refused = X509Svid::from_der(chain_with(second), issued.key());
        assert!(matches!(refused, Err(SvidError::Authority { position: 2, .. })), "{refused:?}");
    }
    assert!(matches!(X509Svid::from_der(Vec::new(), issued.key()), Err(SvidError::NoCertificate)));
    let five = vec![issued.chain[0].clone(); 5];
    assert!(matches!(X509Svid::from_der(five, issued.key()), Err(SvidError::TooManyCertificates)));
}

#[test]
fn damaged_files_are_refused() {
    let issued = issuing().leaf(CART).issue();
    let (chain, key) = (issued.chain_pem(), issued.key_pem());
    let parse = |chain: &str, key: &str| X509Svid::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
    assert!(matches!(parse("", &key), SvidError::NoCertificate));
    assert!(matches!(parse(&chain[..chain.len() / 3], &key), SvidError::ChainPem(_)));
    assert!(matches!(parse(&chain, ""), SvidError::NoKey));
    assert!(matches!(parse(&chain, &key[..key.len() / 2]), SvidError::KeyPem));
    assert!(matches!(parse(&chain, &format!("{key}{key}")), SvidError::SeveralKeys));
    assert!(matches!(parse(&chain, &signet_test_pki::pem("ENCRYPTED PRIVATE KEY", b"x")), SvidError::NoKey));
    assert!(matches!(parse(&chain, &signet_test_pki::pem("PRIVATE KEY", b"x")), SvidError::UnsupportedKey));
    assert!(matches!(parse(&" ".repeat(65 * 1024), &key), SvidError::TooLarge));
}

#[test]
fn debug_output_shows_no_key() {
    let issued = issuing().leaf(CART).issue();
    let shown = format!("{:?}", svid(&issued).unwrap());
    assert!(shown.starts_with("X509Svid { id: WorkloadId(spiffe://example.org/shop/cart), serial: Serial("), "{shown}");
    assert!(!shown.to_lowercase().contains("key"), "{shown}");
}
