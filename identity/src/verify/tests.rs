#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rcgen::{BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use signet_test_pki::{Authority, Issued};
use time::Duration;

use super::*;
use crate::{AuthorityError, SpiffeIdError};

const CART: &str = "spiffe://example.org/shop/cart";

mod attacks;
mod epochs;
mod revoked;

/// A trust domain with a root in the bundle and an intermediate that issues.
struct Domain {
    root: Authority,
    issuing: Authority,
}

impl Domain {
    fn new(name: &str) -> Self {
        let root = Authority::root(name);
        Self { issuing: root.intermediate(), root }
    }

    fn bundle(&self) -> TrustBundle {
        bundle(&self.root)
    }
}

fn bundle(root: &Authority) -> TrustBundle {
    TrustBundle::new(root.trust_domain().parse().unwrap(), vec![root.root_certificate().clone()]).unwrap()
}

fn trust(bundles: impl IntoIterator<Item = TrustBundle>) -> Trust {
    Trust::new(TrustEpoch::FIRST, bundles.into_iter().collect(), RevocationSet::default())
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn judge(trust: &Trust, chain: &[CertificateDer<'_>], at: OffsetDateTime) -> Result<Arc<PeerIdentity>, PeerError> {
    trust.judge(Role::Client, &chain[0], &chain[1..], at)
}

/// What a verifier that trusts `domain` says to the chain now.
fn refusal(domain: &Domain, issued: &Issued) -> PeerError {
    judge(&trust([domain.bundle()]), &issued.chain, now()).expect_err("a refusal")
}

#[test]
fn a_well_formed_chain_yields_the_identity_of_its_leaf() {
    let domain = Domain::new("example.org");
    let issued = domain.issuing.leaf(CART).dns("cart.internal").issue();
    for role in [Role::Client, Role::Server] {
        let trust = trust([domain.bundle()]);
        let peer = trust.judge(role, &issued.chain[0], &issued.chain[1..], now()).unwrap();
        assert_eq!(peer.id().as_str(), CART);
        assert_eq!(peer.chain(), issued.chain);
        assert_eq!(peer.leaf_sha256(), digest(&SHA256, &issued.chain[0]).as_ref());
        assert_eq!(peer.expires_at(), peer.not_after());
        assert_eq!(peer.serial().as_bytes().len(), 16);
    }
}

#[test]
fn a_leaf_right_below_the_root_is_accepted() {
    let domain = Domain::new("example.org");
    let issued = domain.root.leaf(CART).issue();
    assert!(judge(&trust([domain.bundle()]), &issued.chain, now()).is_ok());
}

#[test]
fn leaves_that_break_the_profile_are_refused() {
    let domain = Domain::new("example.org");
    let leaf = || domain.issuing.leaf(CART);
    let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
    for (issued, error) in [
        (leaf().without_names().issue(), LeafError::NoSpiffeId),
        (leaf().without_names().dns("cart.internal").issue(), LeafError::NoSpiffeId),
        (leaf().uri("spiffe://example.org/other").issue(), LeafError::SeveralUris { count: 2 }),
        (leaf().uri("https://example.org/").issue(), LeafError::SeveralUris { count: 2 }),
        (
            leaf().with(|params| params.subject_alt_names = vec![uri("spiffe://example.org")]).issue(),
            LeafError::RootPath,
        ),
        (
            leaf().with(|params| params.subject_alt_names = vec![uri("https://example.org/a")]).issue(),
            LeafError::NotSpiffe { uri: "https://example.org/a".into(), source: SpiffeIdError::Scheme },
        ),
        (leaf().with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).issue(), LeafError::CaAsLeaf),
        (leaf().with(|params| params.key_usages.clear()).issue(), LeafError::KeyUsage),
        (leaf().with(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]).issue(), LeafError::KeyUsage),
        (leaf().with(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)).issue(), LeafError::KeyUsage),
        (leaf().with(|params| params.key_usages.push(KeyUsagePurpose::CrlSign)).issue(), LeafError::KeyUsage),
        (
            leaf().with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]).issue(),
            LeafError::ExtendedKeyUsage,
        ),
        (
            leaf().with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]).issue(),
            LeafError::ExtendedKeyUsage,
        ),
    ] {
        assert_eq!(refusal(&domain, &issued), PeerError::Leaf(error));
    }
}

#[test]
fn what_the_profile_leaves_open_is_accepted() {
    let domain = Domain::new("example.org");
    let leaf = || domain.issuing.leaf(CART);
    for issued in [
        leaf().with(|params| params.is_ca = IsCa::NoCa).issue(),
        leaf().with(|params| params.extended_key_usages.clear()).issue(),
        leaf().with(|params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::EmailProtection)).issue(),
        leaf().with(|params| params.key_usages.push(KeyUsagePurpose::KeyEncipherment)).issue(),
    ] {
        assert!(judge(&trust([domain.bundle()]), &issued.chain, now()).is_ok());
    }
}

#[test]
fn a_ca_that_presents_itself_is_refused_as_a_ca() {
    let domain = Domain::new("example.org");
    let chain = [domain.issuing.certificate().clone()];
    let error = judge(&trust([domain.bundle()]), &chain, now()).unwrap_err();
    assert_eq!(error.reason(), "ca_as_leaf");
}

#[test]
fn the_trust_domain_selects_the_bundle_and_bundles_are_never_pooled() {
    let (ours, theirs) = (Domain::new("example.org"), Domain::new("other.org"));
    let both = trust([ours.bundle(), theirs.bundle()]);
    let impostor = theirs.issuing.leaf(CART).issue();
    assert_eq!(judge(&both, &impostor.chain, now()).unwrap_err().reason(), "untrusted_authority");
    let honest = theirs.issuing.leaf("spiffe://other.org/shop").issue();
    assert!(judge(&both, &honest.chain, now()).is_ok());
    let trust_domain = "other.org".parse().unwrap();
    assert_eq!(refusal(&ours, &honest), PeerError::UnknownTrustDomain { trust_domain });
}

#[test]
fn an_empty_bundle_trusts_nothing() {
    let domain = Domain::new("example.org");
    let issued = domain.issuing.leaf(CART).issue();
    let empty = TrustBundle::new("example.org".parse().unwrap(), Vec::new()).unwrap();
    assert_eq!(judge(&trust([empty]), &issued.chain, now()).unwrap_err().reason(), "untrusted_authority");
}

#[test]
fn another_authority_is_refused_even_under_the_same_name() {
    let domain = Domain::new("example.org");
    let stranger = Domain::new("example.org");
    assert_eq!(refusal(&domain, &stranger.issuing.leaf(CART).issue()).reason(), "untrusted_authority");

    let name = domain.root.certificate().clone();
    let parsed = parse(&name).unwrap();
    let common_name = parsed.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
    let forger = Authority::root_with("example.org", |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    });
    assert_eq!(refusal(&domain, &forger.leaf(CART).issue()).reason(), "untrusted_authority");
}

#[test]
fn an_intermediate_of_another_trust_domain_is_refused() {
    let domain = Domain::new("example.org");
    let change = |uri: &str| {
        let uri = SanType::URI(uri.try_into().unwrap());
        domain.root.intermediate_with(|params| params.subject_alt_names = vec![uri])
    };
    for foreign in ["spiffe://other.org", "spiffe://example.org/path", "https://example.org"] {
        let issued = change(foreign).leaf(CART).issue();
        let trust_domain = "example.org".parse().unwrap();
        assert_eq!(
            refusal(&domain, &issued),
            PeerError::Authority(AuthorityError::Foreign { trust_domain }),
            "{foreign}"
        );
    }
    let nameless = domain.root.intermediate_with(|params| params.subject_alt_names.clear());
    assert!(judge(&trust([domain.bundle()]), &nameless.leaf(CART).issue().chain, now()).is_ok());
}

#[test]
fn intermediates_must_be_authorities() {
    let domain = Domain::new("example.org");
    let cannot_sign = domain.root.intermediate_with(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let error = refusal(&domain, &cannot_sign.leaf(CART).issue());
    assert_eq!(error, PeerError::Authority(AuthorityError::KeyUsage));

    let no_ca = domain.root.intermediate_with(|params| params.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(refusal(&domain, &no_ca.leaf(CART).issue()).reason(), "path");

    let below = domain.issuing.intermediate();
    assert_eq!(refusal(&domain, &below.leaf(CART).issue()).reason(), "path", "pathLen 0 allows no further CA");
}

#[test]
fn the_roots_own_path_length_is_kept() {
    let root = Authority::root_with("example.org", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let trust = trust([bundle(&root)]);
    assert!(judge(&trust, &root.leaf(CART).issue().chain, now()).is_ok());
    let error = judge(&trust, &root.intermediate().leaf(CART).issue().chain, now()).unwrap_err();
    assert_eq!(error, PeerError::Path(webpki::Error::PathLenConstraintViolated));
}

#[test]
fn a_path_ends_with_whichever_of_its_certificates_ends_first() {
    let start = now().replace_nanosecond(0).unwrap();
    let until = |days: i64| start + Duration::days(days);
    // Days that leaf, intermediate and root live.
    for lives in [[1, 2, 3], [2, 1, 3], [2, 3, 1]] {
        let root = Authority::root_until("example.org", until(lives[2]));
        let issuing = root.intermediate_with(|params| params.not_after = until(lives[1]));
        let issued = issuing.leaf(CART).valid(start, until(lives[0])).issue();
        let trust = trust([bundle(&root)]);
        assert_eq!(judge(&trust, &issued.chain, start).unwrap().expires_at(), until(1));
        assert!(judge(&trust, &issued.chain, until(1)).is_ok(), "the last second belongs to it");
        let late = until(1) + Duration::milliseconds(1);
        let error = judge(&trust, &issued.chain, late).unwrap_err();
        assert_eq!(error, PeerError::Expired { not_after: until(1) }, "{lives:?}, from the cache or not");
        assert_eq!(error.reason(), "expired");
    }
}

#[test]
fn no_certificate_of_a_path_is_good_before_its_time() {
    let start = now().replace_nanosecond(0).unwrap();
    let after = |days: i64| start + Duration::days(days);
    for begins in [[2, 0, 0], [0, 2, 0], [0, 0, 2]] {
        let root = Authority::root_with("example.org", |params| params.not_before = after(begins[2]));
        let issuing = root.intermediate_with(|params| params.not_before = after(begins[1]));
        let issued = issuing.leaf(CART).valid(after(begins[0]), after(9)).issue();
        let trust = trust([bundle(&root)]);
        assert!(judge(&trust, &issued.chain, after(2)).is_ok());
        let early = after(2) - Duration::milliseconds(1);
        let error = judge(&trust, &issued.chain, early).unwrap_err();
        assert_eq!(error, PeerError::NotYetValid { not_before: after(2) }, "{begins:?}, in the cache since");
        assert_eq!(error.reason(), "not_yet_valid");
    }
}

#[test]
fn of_two_certificates_for_one_root_key_the_longer_lived_ends_the_path() {
    let start = now().replace_nanosecond(0).unwrap();
    let root = Authority::root_until("example.org", start + Duration::hours(1));
    let renewed = root.reissued_with(|params| params.not_after = start + Duration::days(1000));
    let old = root.root_certificate().clone();
    let issued = root.leaf(CART).valid(start, start + Duration::days(1)).issue();
    for authorities in [vec![old.clone(), renewed.clone()], vec![renewed.clone(), old.clone()]] {
        let trust = trust([TrustBundle::new("example.org".parse().unwrap(), authorities).unwrap()]);
        let peer = judge(&trust, &issued.chain, start).unwrap();
        assert_eq!(peer.expires_at(), start + Duration::days(1));
    }
    let not_yet = root.reissued_with(|params| {
        params.not_before = start + Duration::minutes(30);
        params.not_after = start + Duration::days(1000);
    });
    let trust = trust([TrustBundle::new("example.org".parse().unwrap(), vec![not_yet, old]).unwrap()]);
    assert!(judge(&trust, &issued.chain, start).is_ok(), "the one that is valid now counts");
}

#[test]
fn oversized_chains_are_refused_before_they_are_looked_at() {
    let domain = Domain::new("example.org");
    let issued = domain.issuing.leaf(CART).issue();
    let trust = trust([domain.bundle()]);
    let mut five = issued.chain.clone();
    five.resize(5, domain.root.certificate().clone());
    assert_eq!(judge(&trust, &five, now()).unwrap_err(), PeerError::TooManyCertificates);
    let junk = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![4; 9000]);
    let large = domain.issuing.leaf(CART).extension(junk).issue();
    assert_eq!(judge(&trust, &large.chain, now()).unwrap_err(), PeerError::TooLarge);
}

#[test]
fn no_change_of_a_byte_is_accepted_though_the_chain_is_in_the_cache() {
    let domain = Domain::new("example.org");
    let issued = domain.issuing.leaf(CART).issue();
    let trust = trust([domain.bundle()]);
    judge(&trust, &issued.chain, now()).unwrap();
    for certificate in 0..issued.chain.len() {
        for byte in 0..issued.chain[certificate].len() {
            let mut changed = issued.chain[certificate].to_vec();
            changed[byte] ^= 1;
            let mut chain = issued.chain.clone();
            chain[certificate] = changed.into();
            assert!(judge(&trust, &chain, now()).is_err(), "byte {byte} of certificate {certificate}");
        }
    }
    assert_eq!(trust.cache(Role::Client).len(), 1);
}

#[test]
fn truncated_and_random_certificates_are_malformed() {
    let domain = Domain::new("example.org");
    let leaf = &domain.issuing.leaf(CART).issue().chain[0];
    let trust = trust([domain.bundle()]);
    let trailing = [leaf, &[0][..]].concat();
    for der in [&leaf[..leaf.len() - 1], &leaf[..10], &[], b"junk", &trailing] {
        let error = judge(&trust, &[CertificateDer::from(der)], now()).unwrap_err();
        assert_eq!(error, PeerError::Leaf(LeafError::Malformed));
    }
}

#[test]
fn padded_and_reordered_chains_are_accepted_but_not_remembered() {
    let root = Authority::root("example.org");
    let upper = root.intermediate_with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let issued = upper.intermediate().leaf(CART).issue();
    let trust = trust([bundle(&root)]);
    let [leaf, lower, upper] = &issued.chain[..] else { panic!("three certificates") };
    let root = root.certificate();
    for chain in [[leaf, lower, upper, root], [leaf, lower, upper, upper], [leaf, root, lower, upper]] {
        let chain = chain.map(Clone::clone);
        assert!(judge(&trust, &chain, now()).is_ok());
        assert_eq!(trust.cache(Role::Client).len(), 0);
    }
    assert!(judge(&trust, &[leaf.clone(), upper.clone(), lower.clone()], now()).is_ok());
    assert_eq!(trust.cache(Role::Client).len(), 0);
    assert!(judge(&trust, &issued.chain, now()).is_ok());
    assert_eq!(trust.cache(Role::Client).len(), 1);
}

#[test]
fn the_cache_is_bounded_and_keeps_roles_apart() {
    let domain = Domain::new("example.org");
    let trust = trust([domain.bundle()]);
    let issued = domain.issuing.leaf(CART).issue();
    let client = judge(&trust, &issued.chain, now()).unwrap();
    let server = trust.judge(Role::Server, &issued.chain[0], &issued.chain[1..], now()).unwrap();
    assert!(!Arc::ptr_eq(&client, &server));

    let cache = ChainCache::new();
    for number in 0..20_000_u32 {
        let certificate = CertificateDer::from(number.to_be_bytes().to_vec());
        cache.insert(ChainKey::new(std::iter::once(&certificate)), &client, now());
    }
    assert!((3000..=4096).contains(&cache.len()), "{} entries", cache.len());
}

#[test]
fn expired_entries_make_room_for_living_ones() {
    let domain = Domain::new("example.org");
    let trust = trust([domain.bundle()]);
    let peer = |seconds| {
        let issued = domain.issuing.leaf(CART).ttl(std::time::Duration::from_secs(seconds)).issue();
        judge(&trust, &issued.chain, now()).unwrap()
    };
    let (short, long) = (peer(10), peer(1000));
    let key = |number: u32| ChainKey::new(std::iter::once(&CertificateDer::from(number.to_be_bytes().to_vec())));
    let cache = ChainCache::new();
    for number in 0..20_000 {
        cache.insert(key(number), &short, now());
    }
    let later = now() + Duration::minutes(1);
    for number in 20_000..20_100 {
        cache.insert(key(number), &long, later);
    }
    assert!((20_000..20_100).all(|number| cache.get(&key(number), later).is_some()));
    assert!((0..20_000).all(|number| cache.get(&key(number), later).is_none()));
}

#[test]
fn the_framing_of_the_key_tells_chains_apart_that_concatenate_alike() {
    let key = |parts: &[&[u8]]| {
        let chain: Vec<_> = parts.iter().map(|part| CertificateDer::from(*part)).collect();
        ChainKey::new(chain.iter())
    };
    assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    assert_ne!(key(&[b"ab"]), key(&[b"ab", b""]));
}
