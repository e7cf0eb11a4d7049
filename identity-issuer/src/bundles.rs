//! What the issuer's clients are to trust, and how that changes while it runs.
//!
//! ```text
//! files of the configuration ──► own ──┐
//!                                      ├─ union ──► Watch streams, answers, the issuer's own SVID
//! statements of the other issuers ─────┘
//! ```
//! Trust domains are never pooled: the union is one for each. A change that makes no good one leaves what is in force.

mod follow;
mod roots;
mod shared;
mod statement;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls_pki_types::CertificateDer;
use signet_identity::{BundleSet, TrustBundle, TrustDomain};
use tokio::sync::watch;

use crate::jwt::{JwtBundles, JwtTrust, RevokedKeys};

pub(crate) use follow::Follower;
pub(crate) use roots::{Roots, fingerprint};
pub(crate) use shared::{ForgetError, Shared};

/// A bundle that the configuration names, and what it was at first.
#[derive(Clone, Debug)]
pub struct BundleFile {
    pub path: PathBuf,
    pub bundle: TrustBundle,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Bundles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sources: Mutex<Sources>,
    own: watch::Sender<BundleSet>,
    in_force: watch::Sender<BundleSet>,
    /// The keys of JWT-SVIDs.
    own_jwt: watch::Sender<JwtTrust>,
    jwt_in_force: watch::Sender<JwtBundles>,
    /// Those of them that any issuer has revoked.
    jwt_revoked: watch::Sender<RevokedKeys>,
}

#[derive(Debug)]
struct Sources {
    own: BundleSet,
    /// Of the other issuers; several of one trust domain.
    others: Vec<TrustBundle>,
    other_jwt: Vec<JwtTrust>,
}

/// Why what there is to be trusted is no good.
#[derive(Debug, thiserror::Error)]
#[error("what all issuers say of {trust_domain} makes no bundle: {what}")]
pub(crate) struct UnionError {
    trust_domain: TrustDomain,
    what: String,
}

impl Bundles {
    pub(crate) fn new(own: BundleSet) -> Self {
        let sources = Mutex::new(Sources { own: own.clone(), others: Vec::new(), other_jwt: Vec::new() });
        Self(Arc::new(Inner {
            sources,
            own: watch::Sender::new(own.clone()),
            in_force: watch::Sender::new(own),
            own_jwt: watch::Sender::default(),
            jwt_in_force: watch::Sender::default(),
            jwt_revoked: watch::Sender::default(),
        }))
    }

    /// The union, as it changes.
    pub(crate) fn in_force(&self) -> watch::Receiver<BundleSet> {
        self.0.in_force.subscribe()
    }

    /// What this issuer's files say, as it changes.
    pub(crate) fn own(&self) -> watch::Receiver<BundleSet> {
        self.0.own.subscribe()
    }

    /// The keys of JWT-SVIDs, as they change.
    pub(crate) fn jwt_in_force(&self) -> watch::Receiver<JwtBundles> {
        self.0.jwt_in_force.subscribe()
    }

    /// Those that are revoked, by whichever issuer.
    pub(crate) fn jwt_revoked(&self) -> watch::Receiver<RevokedKeys> {
        self.0.jwt_revoked.subscribe()
    }

    /// Those of this issuer, and what it has of other trust domains.
    pub(crate) fn own_jwt(&self) -> watch::Receiver<JwtTrust> {
        self.0.own_jwt.subscribe()
    }

    pub(crate) fn change_own_jwt(&self, change: impl FnOnce(&mut JwtTrust)) {
        let sources = self.sources();
        let mut own = self.0.own_jwt.borrow().clone();
        change(&mut own);
        replace(&self.0.own_jwt, own);
        self.put_jwt_in_force(&sources);
    }

    pub(crate) fn set_other_jwt(&self, others: Vec<JwtTrust>) {
        let mut sources = self.sources();
        sources.other_jwt = others;
        self.put_jwt_in_force(&sources);
    }

    fn put_jwt_in_force(&self, sources: &Sources) {
        let JwtTrust { keys: mut union, mut revoked } = self.0.own_jwt.borrow().clone();
        for (trust_domain, keys) in sources.other_jwt.iter().flat_map(|other| &other.keys) {
            let known = union.entry(trust_domain.clone()).or_default();
            *known = known.united(keys);
        }
        for (kid, at) in sources.other_jwt.iter().flat_map(|other| &other.revoked) {
            // Named for as long as any of them does.
            let since = revoked.entry(kid.clone()).or_insert(*at);
            *since = (*since).max(*at);
        }
        // One issuer's word is enough, whoever else publishes the key.
        union.values_mut().for_each(|keys| *keys = keys.without(&revoked));
        union.retain(|_, keys| !keys.is_empty());
        replace(&self.0.jwt_in_force, union);
        replace(&self.0.jwt_revoked, revoked);
    }

    pub(crate) fn set_own(&self, own: BundleSet) -> Result<(), UnionError> {
        let mut sources = self.sources();
        sources.own = own.clone();
        let united = self.put_in_force(&sources);
        replace(&self.0.own, own);
        united
    }

    pub(crate) fn set_others(&self, others: Vec<TrustBundle>) -> Result<(), UnionError> {
        let mut sources = self.sources();
        sources.others = others;
        self.put_in_force(&sources)
    }

    /// A trust domain whose union is no good keeps what it has; the others do not.
    fn put_in_force(&self, sources: &Sources) -> Result<(), UnionError> {
        let present = self.0.in_force.borrow().clone();
        let (mut next, mut refused) = (Vec::new(), Ok(()));
        for (trust_domain, authorities) in by_trust_domain(sources.own.iter().chain(&sources.others)) {
            match bounded(trust_domain.clone(), authorities) {
                Ok(bundle) => next.push(bundle),
                Err(what) => {
                    let kept = present.get(trust_domain).or_else(|| sources.own.get(trust_domain));
                    next.extend(kept.cloned());
                    refused = Err(UnionError { trust_domain: trust_domain.clone(), what });
                }
            }
        }
        let union: BundleSet = next.into_iter().collect();
        self.0.in_force.send_if_modified(|present| {
            let is_other = *present != union;
            if is_other {
                tracing::info!(bundles = ?union, "trust bundles changed");
            }
            *present = union;
            is_other
        });
        refused
    }

    /// Nothing panics while it is held.
    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells those who look only if it is another.
fn replace<T: PartialEq>(of: &watch::Sender<T>, next: T) {
    of.send_if_modified(|present| {
        let is_other = *present != next;
        *present = next;
        is_other
    });
}

/// The certificates of each, and each once.
fn by_trust_domain<'a>(
    bundles: impl Iterator<Item = &'a TrustBundle>,
) -> BTreeMap<&'a TrustDomain, Vec<CertificateDer<'static>>> {
    let mut authorities: BTreeMap<_, Vec<CertificateDer<'static>>> = BTreeMap::new();
    for bundle in bundles {
        let known = authorities.entry(bundle.trust_domain()).or_default();
        let new: Vec<_> = bundle.authorities().iter().filter(|der| !known.contains(der)).cloned().collect();
        known.extend(new);
    }
    authorities
}

/// In bytes: what the SDK takes of one certificate, and so much that the bundles of all trust domains that a rule may federate with fit
/// into what it takes of all.
const MAX_CERTIFICATE: usize = 16 << 10;
const MAX_BUNDLE: usize = 48 << 10;

pub(crate) fn bounded(
    trust_domain: TrustDomain,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<TrustBundle, String> {
    if let Some(too_large) = authorities.iter().position(|der| der.len() > MAX_CERTIFICATE) {
        return Err(format!("certificate {} is larger than {} KiB", too_large + 1, MAX_CERTIFICATE >> 10));
    }
    if authorities.iter().map(|der| der.len()).sum::<usize>() > MAX_BUNDLE {
        return Err(format!("it is larger than {} KiB", MAX_BUNDLE >> 10));
    }
    TrustBundle::new(trust_domain, authorities).map_err(|error| signet_process::start::Report::of(&error).cause)
}

/// A file's text as the bundle of a trust domain, or what is wrong with it. One that trusts nothing is none: that is what a file is
/// which was written in part.
pub(crate) fn read(trust_domain: TrustDomain, pem: &[u8]) -> Result<TrustBundle, String> {
    match TrustBundle::from_pem(trust_domain.clone(), pem) {
        Ok(bundle) if bundle.is_empty() => Err("it holds no certificate".to_owned()),
        Ok(bundle) => bounded(trust_domain, bundle.authorities().to_vec()),
        Err(error) => Err(signet_process::start::Report::of(&error).cause),
    }
}

/// What somebody of `trust_domain` is told of: its own bundle, and those of the trust domains that it federates with.
pub(crate) fn told_to(bundles: &BundleSet, trust_domain: &TrustDomain, federates_with: &[TrustDomain]) -> BundleSet {
    let is_told =
        |bundle: &&TrustBundle| bundle.trust_domain() == trust_domain || federates_with.contains(bundle.trust_domain());
    bundles.iter().filter(is_told).cloned().collect()
}

/// The same of the keys of JWT-SVIDs.
pub(crate) fn jwt_told_to(
    bundles: &JwtBundles,
    trust_domain: &TrustDomain,
    federates_with: &[TrustDomain],
) -> JwtBundles {
    let is_told = |of: &TrustDomain| of == trust_domain || federates_with.contains(of);
    bundles.iter().filter(|(of, _)| is_told(of)).map(|(of, keys)| (of.clone(), keys.clone())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use signet_test_pki::Authority;

    use std::collections::BTreeSet;

    use super::*;
    use crate::authority::KeyName;

    pub(super) fn domain(name: &str) -> TrustDomain {
        name.parse().unwrap()
    }

    pub(super) fn bundle(name: &str, count: usize) -> TrustBundle {
        let roots = (0..count).map(|_| Authority::root(name).certificate().clone());
        TrustBundle::new(domain(name), roots.collect()).unwrap()
    }

    fn count(bundles: &BundleSet, name: &str) -> usize {
        bundles.get(&domain(name)).map_or(0, |bundle| bundle.authorities().len())
    }

    #[test]
    fn the_union_is_one_for_each_trust_domain_and_says_when_it_is_another() {
        let (own, other) = (bundle("example.org", 1), bundle("example.org", 2));
        let bundles = Bundles::new(BundleSet::from_iter([own.clone()]));
        let mut in_force = bundles.in_force();
        bundles.set_others(vec![own.clone()]).unwrap();
        assert!(!in_force.has_changed().unwrap());
        bundles.set_others(vec![own.clone(), other, bundle("partner.example", 1)]).unwrap();
        assert!(in_force.has_changed().unwrap());
        let union = in_force.borrow_and_update().clone();
        assert_eq!((count(&union, "example.org"), count(&union, "partner.example")), (3, 1));
        bundles.set_own(BundleSet::from_iter([bundle("example.org", 1)])).unwrap();
        assert_eq!(count(&in_force.borrow_and_update(), "example.org"), 4);
        bundles.set_others(Vec::new()).unwrap();
        assert_eq!(count(&in_force.borrow_and_update(), "example.org"), 1);
    }

    #[test]
    fn a_key_of_tokens_that_one_issuer_has_revoked_is_in_no_union_whoever_publishes_it() {
        // RFC 7517, Appendix A.1.
        let key = |kid: &KeyName| {
            serde_json::json!({
                "kty": "EC", "crv": "P-256", "kid": kid.as_str(), "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
            })
        };
        let [one, two] = ["one", "two"].map(|name| KeyName::of(name.as_bytes()));
        let keys = crate::jwt::JwtAuthorities::read([key(&one), key(&two)]).unwrap();
        let trust = |revoked: &[&KeyName]| JwtTrust {
            keys: JwtBundles::from([(domain("example.org"), keys.clone())]),
            revoked: revoked.iter().map(|kid| ((*kid).clone(), 1)).collect(),
        };
        let bundles = Bundles::new(BundleSet::default());
        let in_force = || {
            let all = bundles.jwt_in_force().borrow().clone();
            all.values().flat_map(|keys| keys.named().map(|(kid, _)| kid).collect::<Vec<_>>()).collect::<BTreeSet<_>>()
        };
        bundles.change_own_jwt(|own| *own = trust(&[]));
        assert_eq!(in_force(), BTreeSet::from([one.clone(), two.clone()]));
        bundles.set_other_jwt(vec![trust(&[&one]), trust(&[])]);
        assert_eq!(in_force(), BTreeSet::from([two.clone()]));
        assert_eq!(*bundles.jwt_revoked().borrow(), RevokedKeys::from([(one.clone(), 1)]));
        bundles.change_own_jwt(|own| *own = trust(&[&two]));
        assert_eq!(in_force(), BTreeSet::new());
    }

    #[test]
    fn a_trust_domain_whose_union_is_no_good_keeps_what_it_has_and_the_others_do_not() {
        let own = bundle("example.org", 1);
        let bundles = Bundles::new(BundleSet::from_iter([own.clone()]));
        bundles.set_others(vec![bundle("example.org", 1)]).unwrap();
        let before = bundles.in_force().borrow().get(&domain("example.org")).cloned();
        let refused = bundles.set_others(vec![bundle("example.org", 64), bundle("partner.example", 1)]).unwrap_err();
        let told = "what all issuers say of example.org makes no bundle: the bundle has 65 different certificates; the limit is 64";
        assert_eq!(refused.to_string(), told);
        let now = bundles.in_force().borrow().clone();
        assert_eq!((now.get(&domain("example.org")).cloned(), count(&now, "partner.example")), (before, 1));
        // What this issuer's file says is told to the others all the same: it may be what mends it.
        let next = BundleSet::from_iter([bundle("example.org", 2)]);
        bundles.set_own(next.clone()).unwrap_err();
        assert_eq!(*bundles.own().borrow(), next);
        bundles.set_others(vec![own]).unwrap();
        assert_eq!(count(&bundles.in_force().borrow(), "example.org"), 3);
    }

    #[test]
    fn what_several_issuers_say_counts_once() {
        let whole = bundle("example.org", 40);
        let bundles = Bundles::new(BundleSet::from_iter([whole.clone()]));
        bundles.set_others(vec![whole; 10]).unwrap();
        assert_eq!(count(&bundles.in_force().borrow(), "example.org"), 40);
    }

    #[test]
    fn nobody_is_told_of_a_trust_domain_that_it_does_not_federate_with() {
        let all = BundleSet::from_iter(["example.org", "a.example", "b.example"].map(|name| bundle(name, 1)));
        let told = |federates_with: &[TrustDomain]| {
            let told = told_to(&all, &domain("example.org"), federates_with);
            told.iter().map(|bundle| bundle.trust_domain().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(told(&[]), ["example.org"]);
        assert_eq!(told(&[domain("b.example"), domain("unknown.example")]), ["b.example", "example.org"]);
    }

    #[test]
    fn a_file_with_nothing_in_it_is_no_bundle() {
        assert_eq!(read(domain("example.org"), b" \n").unwrap_err(), "it holds no certificate");
        read(domain("example.org"), b"-----BEGIN CERTIFICATE-----\nMIIB").unwrap_err();
        let foreign = bundle("other.org", 1).to_pem();
        read(domain("example.org"), foreign.as_bytes()).unwrap_err();
    }

    #[test]
    fn no_bundle_is_larger_than_what_clients_take() {
        let with_comment = |length: usize| {
            Authority::root_with("example.org", |params| {
                let text = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![0; length]);
                params.custom_extensions.push(text);
            })
        };
        let pem = |roots: &[Authority]| {
            let block = |root: &Authority| signet_test_pki::pem("CERTIFICATE", root.certificate());
            roots.iter().map(block).collect::<String>()
        };
        let large = read(domain("example.org"), pem(&[with_comment(17 << 10)]).as_bytes()).unwrap_err();
        assert_eq!(large, "certificate 1 is larger than 16 KiB");
        let many: Vec<_> = (0..4).map(|_| with_comment(13 << 10)).collect();
        assert_eq!(read(domain("example.org"), pem(&many).as_bytes()).unwrap_err(), "it is larger than 48 KiB");
        read(domain("example.org"), pem(&many[..3]).as_bytes()).unwrap();
    }
}
