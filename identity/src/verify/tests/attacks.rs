//! What an attacker tries with chains that others have made known.

use proptest::prelude::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair, SerialNumber};

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_chain_with_a_byte_changed_is_never_that_of_a_known_peer(
        certificate in 0..2_usize,
        byte in any::<prop::sample::Index>(),
        change in 1..=u8::MAX,
    ) {
        KNOWN.with(|(trust, chain)| {
            let mut chain = chain.clone();
            let mut der = chain[certificate].to_vec();
            let byte = byte.index(der.len());
            der[byte] ^= change;
            chain[certificate] = der.into();
            prop_assert!(judge(trust, &chain, now()).is_err());
            prop_assert_eq!(trust.cache(Role::Client).len(), 1);
            Ok(())
        })?;
    }
}

thread_local! {
    static KNOWN: (Trust, Vec<CertificateDer<'static>>) = {
        let domain = Domain::new("example.org");
        let chain = domain.issuing.leaf(CART).issue().chain;
        let trust = trust([domain.bundle()]);
        judge(&trust, &chain, now()).unwrap();
        (trust, chain)
    };
}

#[test]
fn a_known_leaf_below_another_intermediate_is_not_known() {
    let start = now().replace_nanosecond(0).unwrap();
    let root = Authority::root("example.org");
    let (key, [long, short]) = intermediate_with_two_certificates(&root, start);
    let leaf = issued_by(&key, &long.0);
    let (long, short) = (long.1, short.1);
    let trust = trust([bundle(&root)]);
    let chain = |intermediate: &CertificateDer<'static>| [leaf.clone(), intermediate.clone()];
    let known = judge(&trust, &chain(&long), start).unwrap();
    let other = judge(&trust, &chain(&short), start).unwrap();
    assert!(!Arc::ptr_eq(&known, &other));
    assert_eq!(other.expires_at(), start + Duration::minutes(5), "it ends with the intermediate that was presented");
    let later = start + Duration::minutes(6);
    assert!(judge(&trust, &chain(&long), later).is_ok());
    assert_eq!(judge(&trust, &chain(&short), later).unwrap_err().reason(), "expired");

    let unrelated = root.intermediate().certificate().clone();
    assert_eq!(judge(&trust, &chain(&unrelated), start).unwrap_err().reason(), "untrusted_authority");
    let alone = judge(&trust, std::slice::from_ref(&leaf), start).unwrap_err();
    assert_eq!(alone.reason(), "untrusted_authority");
}

/// The key of an intermediate, and its certificates for an hour and for five minutes.
fn intermediate_with_two_certificates(
    root: &Authority,
    start: OffsetDateTime,
) -> (KeyPair, [(CertificateParams, CertificateDer<'static>); 2]) {
    let key = KeyPair::generate().unwrap();
    let certificates = [60, 5].map(|minutes| {
        let mut kept = None;
        let certificate = root
            .leaf("spiffe://example.org")
            .valid(start - Duration::minutes(1), start + Duration::minutes(minutes))
            .with(|params| {
                params.distinguished_name = DistinguishedName::new();
                params.distinguished_name.push(DnType::CommonName, "twice certified");
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
                params.extended_key_usages.clear();
                kept = Some(params.clone());
            })
            .issue_for(&key);
        (kept.unwrap(), certificate[0].clone())
    });
    (key, certificates)
}

fn issued_by(key: &KeyPair, authority: &CertificateParams) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(CART.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(SerialNumber::from(7));
    params.not_before = now() - Duration::minutes(1);
    params.not_after = now() + Duration::hours(2);
    let issuer = Issuer::from_params(authority, key);
    params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone()
}

#[test]
fn a_million_forged_chains_leave_the_cache_as_it_was() {
    let domain = Domain::new("example.org");
    let trust = trust([domain.bundle()]);
    let honest: Vec<_> = (0..20).map(|_| domain.issuing.leaf(CART).issue().chain).collect();
    let known: Vec<_> = honest.iter().map(|chain| judge(&trust, chain, now()).unwrap()).collect();
    let end = honest[0][0].len();
    let mut forged = honest[0].clone();
    for attempt in 0..1_000_000_u32 {
        let mut leaf = honest[0][0].to_vec();
        if attempt % 500 == 0 {
            // Another signature, which has to be verified to be found wrong.
            leaf[end - 4..].copy_from_slice(&attempt.to_be_bytes());
        } else {
            // No certificate at all, which costs the test less.
            leaf[..4].copy_from_slice(&attempt.to_be_bytes());
        }
        forged[0] = leaf.into();
        assert!(judge(&trust, &forged, now()).is_err());
    }
    assert_eq!(trust.cache(Role::Client).len(), honest.len());
    for (chain, known) in honest.iter().zip(&known) {
        assert!(Arc::ptr_eq(&judge(&trust, chain, now()).unwrap(), known));
    }
}

/// Renewals, or an issuer that signs whatever it is asked to: all of one identity, all valid.
#[test]
fn an_identity_with_any_number_of_certificates_pushes_out_few_others() {
    let domain = Domain::new("example.org");
    let peer = |path: &str| {
        let chain = domain.issuing.leaf(&format!("spiffe://example.org/{path}")).issue().chain;
        judge(&trust([domain.bundle()]), &chain, now()).unwrap()
    };
    let key = |kind: &str, number: u32| {
        let certificate = CertificateDer::from(format!("{kind} {number}").into_bytes());
        ChainKey::new(std::iter::once(&certificate))
    };
    // The cache does not look into a chain: a thousand honest identities, and one that has a hundred thousand of them.
    let honest: Vec<_> = (0..1000).map(|number| (key("honest", number), peer(&format!("honest/{number}")))).collect();
    let attacker = peer("attacker");
    let cache = ChainCache::new();
    let known = || honest.iter().filter(|(key, _)| cache.get(key, now()).is_some()).count();
    honest.iter().for_each(|(key, peer)| cache.insert(*key, peer, now()));
    let before = known();
    assert!(before >= 990, "{before} of 1000");
    for number in 0..100_000 {
        cache.insert(key("attacker", number), &attacker, now());
    }
    assert_eq!(cache.len(), 4096, "every place is taken, and there are no more");
    assert!(known() >= before - 30, "{} of {before} are left", known());
    // Nor does it keep others from coming in.
    honest.iter().for_each(|(key, peer)| cache.insert(*key, peer, now()));
    assert!(known() >= before - 30, "{} of {before} have come again", known());
}
