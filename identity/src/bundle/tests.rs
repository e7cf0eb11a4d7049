#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use rcgen::{KeyUsagePurpose, SanType};
use signet_test_pki::Authority;
use time::Duration;

use super::*;

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn roots(count: usize) -> Vec<CertificateDer<'static>> {
    (0..count).map(|_| Authority::root("example.org").certificate().clone()).collect()
}

#[test]
fn only_authorities_of_the_trust_domain_are_taken() {
    let refused = |der: &CertificateDer<'static>| match TrustBundle::new(domain(), vec![der.clone()]) {
        Err(BundleError::Authority { position: 1, source }) => source,
        other => panic!("{other:?}"),
    };
    let root = Authority::root("example.org");
    assert_eq!(refused(&root.leaf("spiffe://example.org/a").issue().chain[0]), AuthorityError::NotACa);
    let no_signer = root.intermediate_with(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    assert_eq!(refused(no_signer.certificate()), AuthorityError::KeyUsage);
    let foreign = AuthorityError::Foreign { trust_domain: domain() };
    assert_eq!(refused(Authority::root("other.org").certificate()), foreign);
    let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
    let two = [uri("spiffe://example.org"), uri("spiffe://example.org")];
    let several = Authority::root_with("example.org", |params| params.subject_alt_names = two.to_vec());
    assert_eq!(refused(several.certificate()), AuthorityError::SeveralUris { count: 2 });
    assert_eq!(refused(&CertificateDer::from(&b"junk"[..])), AuthorityError::Malformed);

    let nameless = Authority::root_with("example.org", |params| params.subject_alt_names.clear());
    assert!(TrustBundle::new(domain(), vec![nameless.certificate().clone()]).is_ok());
}

#[test]
fn an_empty_bundle_is_legal_but_a_text_without_certificates_is_a_mistake() {
    for pem in ["", " \n"] {
        let bundle = TrustBundle::from_pem(domain(), pem.as_bytes()).unwrap();
        assert!(bundle.is_empty());
        assert_eq!(bundle.expires_at(), None);
        assert_eq!(bundle.to_pem(), "");
    }
    let key = signet_test_pki::pem("PRIVATE KEY", b"x");
    for pem in ["not PEM", &key] {
        assert!(matches!(TrustBundle::from_pem(domain(), pem.as_bytes()), Err(BundleError::NoCertificate)));
    }
    let pem = TrustBundle::new(domain(), roots(2)).unwrap().to_pem();
    let half = &pem[..pem.len() - 40];
    assert!(matches!(TrustBundle::from_pem(domain(), half.as_bytes()), Err(BundleError::Pem(_))));
}

#[test]
fn there_is_a_limit_of_64_different_authorities_and_of_1_mib() {
    let mut authorities = roots(64);
    authorities.extend_from_within(..);
    assert_eq!(TrustBundle::new(domain(), authorities.clone()).unwrap().authorities().len(), 64);
    authorities.extend(roots(1));
    assert!(matches!(TrustBundle::new(domain(), authorities), Err(BundleError::TooMany { count: 65 })));
    assert!(matches!(TrustBundle::from_pem(domain(), &vec![b' '; MAX_BYTES + 1]), Err(BundleError::TooLarge)));
}

#[test]
fn a_bundle_ends_with_its_last_authority() {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    let until = |days| Authority::root_until("example.org", now + Duration::days(days)).certificate().clone();
    let bundle = TrustBundle::new(domain(), vec![until(1), until(3), until(2)]).unwrap();
    assert_eq!(bundle.expires_at(), Some(now + Duration::days(3)));
}

#[test]
fn a_set_holds_one_bundle_for_each_trust_domain() {
    let ours = TrustBundle::new(domain(), roots(1)).unwrap();
    let newer = TrustBundle::new(domain(), roots(1)).unwrap();
    let other = TrustBundle::new("other.org".parse().unwrap(), Vec::new()).unwrap();
    let set: BundleSet = [ours.clone(), other.clone(), newer.clone()].into_iter().collect();
    assert_eq!(set.iter().collect::<Vec<_>>(), [&newer, &other]);
    assert_eq!(set.get(&domain()), Some(&newer));
    assert_eq!(set.get(&"third.org".parse().unwrap()), None);
    assert_ne!(set, [ours, other].into_iter().collect());
    assert!(BundleSet::default().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn order_and_repetition_carry_no_meaning(order in Just([0, 0, 1, 1, 2, 3]).prop_shuffle()) {
        let roots = roots(4);
        let shuffled = order.iter().map(|index| roots[*index].clone()).collect();
        let bundle = TrustBundle::new(domain(), roots.clone()).unwrap();
        prop_assert_eq!(&TrustBundle::new(domain(), shuffled).unwrap(), &bundle);
        prop_assert_ne!(&TrustBundle::new(domain(), roots[1..].to_vec()).unwrap(), &bundle);
        prop_assert_eq!(&TrustBundle::from_pem(domain(), bundle.to_pem().as_bytes()).unwrap(), &bundle);
    }

    #[test]
    fn random_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in "(-----(BEGIN|END) CERTIFICATE-----|[A-Za-z=\n]{0,20}){0,6}",
    ) {
        let _either_is_fine = TrustBundle::from_pem(domain(), &bytes);
        let _either_is_fine = TrustBundle::from_pem(domain(), text.as_bytes());
        let _either_is_fine = TrustBundle::new(domain(), vec![bytes.into()]);
    }

    #[test]
    fn a_changed_byte_never_panics_and_never_gives_the_same_bundle(position: prop::sample::Index, byte: u8) {
        let root = roots(1).remove(0);
        let mut changed = root.to_vec();
        let position = position.index(changed.len());
        changed[position] ^= byte;
        if let Ok(bundle) = TrustBundle::new(domain(), vec![changed.into()]) {
            let same = bundle == TrustBundle::new(domain(), vec![root]).unwrap();
            prop_assert_eq!(same, byte == 0);
        }
    }
}
