//! What the issuer's clients are to trust, and how that changes while it runs.
//!
//! ```text
//! files of the configuration ──► own ──┐
//!                                      ├─ union ──► Watch streams, answers, the issuer's own SVID
//! the record ──► those of the issuers ─┘
//!                that share it
//! ```
//! Trust domains are never pooled: the union is one for each. A change that makes no good union leaves what is in force.

mod follow;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls_pki_types::CertificateDer;
use signet_identity::{BundleError, BundleSet, TrustBundle, TrustDomain};
use tokio::sync::watch;

pub(crate) use follow::{Follower, ForgetError, Shared};

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
}

#[derive(Clone, Debug)]
struct Sources {
    own: BundleSet,
    /// Of the other issuers; several of one trust domain.
    others: Vec<TrustBundle>,
}

/// Why what there is to be trusted is no good.
#[derive(Debug, thiserror::Error)]
#[error("what all issuers say of {trust_domain} makes no bundle")]
pub(crate) struct UnionError {
    trust_domain: TrustDomain,
    source: BundleError,
}

impl Bundles {
    pub(crate) fn new(own: BundleSet) -> Self {
        let sources = Mutex::new(Sources { own: own.clone(), others: Vec::new() });
        Self(Arc::new(Inner { sources, own: watch::Sender::new(own.clone()), in_force: watch::Sender::new(own) }))
    }

    /// The union, as it changes.
    pub(crate) fn in_force(&self) -> watch::Receiver<BundleSet> {
        self.0.in_force.subscribe()
    }

    /// What this issuer's files say, as it changes.
    pub(crate) fn own(&self) -> watch::Receiver<BundleSet> {
        self.0.own.subscribe()
    }

    pub(crate) fn set_own(&self, own: BundleSet) -> Result<(), UnionError> {
        let mut sources = self.sources();
        self.put_in_force(&mut sources, |sources| sources.own = own.clone())?;
        self.0.own.send_if_modified(|present| {
            let is_other = *present != own;
            *present = own;
            is_other
        });
        Ok(())
    }

    pub(crate) fn set_others(&self, others: Vec<TrustBundle>) -> Result<(), UnionError> {
        self.put_in_force(&mut self.sources(), |sources| sources.others = others)
    }

    fn put_in_force(&self, present: &mut Sources, change: impl FnOnce(&mut Sources)) -> Result<(), UnionError> {
        let mut next = present.clone();
        change(&mut next);
        let union = union(next.own.iter().chain(&next.others))?;
        *present = next;
        self.0.in_force.send_if_modified(|present| {
            let is_other = *present != union;
            if is_other {
                tracing::info!(bundles = ?union, "trust bundles changed");
            }
            *present = union;
            is_other
        });
        Ok(())
    }

    /// Nothing panics while it is held.
    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn union<'a>(bundles: impl Iterator<Item = &'a TrustBundle>) -> Result<BundleSet, UnionError> {
    let mut authorities: BTreeMap<&TrustDomain, Vec<CertificateDer<'static>>> = BTreeMap::new();
    for bundle in bundles {
        authorities.entry(bundle.trust_domain()).or_default().extend_from_slice(bundle.authorities());
    }
    let bundle = |(trust_domain, authorities): (&TrustDomain, _)| {
        TrustBundle::new(trust_domain.clone(), authorities)
            .map_err(|source| UnionError { trust_domain: trust_domain.clone(), source })
    };
    authorities.into_iter().map(bundle).collect()
}

/// A file's text as the bundle of a trust domain, or what is wrong with it. One that trusts nothing is none: that is what a file is
/// which was written in part.
pub(crate) fn read(trust_domain: TrustDomain, pem: &[u8]) -> Result<TrustBundle, String> {
    match TrustBundle::from_pem(trust_domain, pem) {
        Ok(bundle) if bundle.is_empty() => Err("it holds no certificate".to_owned()),
        Ok(bundle) => Ok(bundle),
        Err(error) => Err(signet_process::start::Report::of(&error).cause),
    }
}

/// What somebody of `trust_domain` is told of: its own bundle, and those of the trust domains that it federates with.
pub(crate) fn told_to(bundles: &BundleSet, trust_domain: &TrustDomain, federates_with: &[TrustDomain]) -> BundleSet {
    let is_told =
        |bundle: &&TrustBundle| bundle.trust_domain() == trust_domain || federates_with.contains(bundle.trust_domain());
    bundles.iter().filter(is_told).cloned().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use signet_test_pki::Authority;

    use super::*;

    fn domain(name: &str) -> TrustDomain {
        name.parse().unwrap()
    }

    fn bundle(name: &str, count: usize) -> TrustBundle {
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
    fn what_makes_no_bundle_leaves_what_there_is() {
        let bundles = Bundles::new(BundleSet::from_iter([bundle("example.org", 1)]));
        bundles.set_others(vec![bundle("example.org", 1)]).unwrap();
        let (in_force, own) = (bundles.in_force(), bundles.own());
        let before = in_force.borrow().clone();
        let refused = bundles.set_others(vec![bundle("example.org", 64)]).unwrap_err();
        assert_eq!(refused.to_string(), "what all issuers say of example.org makes no bundle");
        bundles.set_own(BundleSet::from_iter([bundle("example.org", 64)])).unwrap_err();
        assert!(!in_force.has_changed().unwrap() && *in_force.borrow() == before);
        assert!(!own.has_changed().unwrap());
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
}
