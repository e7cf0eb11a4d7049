#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use signet_identity::SystemClock;
use signet_policy::Document;
use signet_process::admin::Readiness;

use super::*;
use crate::store::{AuditLog, STORE};

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn profiles() -> Profiles {
    Profiles::new((Duration::from_secs(3600), Duration::ZERO), [])
}

async fn store(folder: &Path) -> Store {
    let domain = domain();
    let path = folder.join("issuer.db");
    let readiness = Readiness::awaiting([STORE]);
    Store::open(
        &crate::store::Location::File(path),
        &domain,
        AuditLog::unpublished(),
        16,
        Arc::new(SystemClock),
        readiness,
    )
    .await
    .unwrap()
    .0
}

/// With a bundle of this trust domain, and one of partner.example.
async fn policies(folder: &Path, store: Store) -> Policies {
    let bundle = |name: &str| {
        let root = signet_test_pki::Authority::root(name).certificate().clone();
        signet_identity::TrustBundle::new(name.parse().unwrap(), vec![root]).unwrap()
    };
    let bundles = ["example.org", "partner.example"].map(bundle).into_iter().collect();
    let parts = Parts {
        trust_domain: domain(),
        protected: Vec::new(),
        profiles: profiles(),
        bundles: watch::channel(bundles).1,
        kept: KeptPolicy::at(folder.join("policy.json")),
        most_lost_percent: 10,
        store,
        clock: Arc::new(SystemClock),
    };
    Policies::load(parts).await.unwrap().0
}

fn wish(name: &str, expected: Option<u64>) -> Wish {
    let mut document = Document::default();
    let rule = format!("rules: [{{name: {name}, match: {{k8s.pod: a}}, spiffe_id: 'spiffe://example.org/{name}'}}]");
    document.add("p".as_ref(), &rule).unwrap();
    let permissions = crate::administration::Administrators::new(&[], 7).user(7).unwrap();
    Wish { rules: document.rules, prune: Prune::Nothing, dry_run: false, permissions, comment: String::new(), expected }
}

#[tokio::test]
async fn a_change_that_nobody_waits_for_is_in_force_once_it_is_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let policies = policies(folder.path(), store(folder.path()).await).await;
    let mut given_up = Box::pin(policies.change(wish("a", None)));
    assert!(given_up.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(given_up);
    // It waits its turn behind the other, and finds what that has made.
    let (number, plan) = policies.change(wish("b", None)).await.unwrap();
    assert_eq!((number, plan.rules.len()), (2, 2));
    assert_eq!(policies.current().revision.head.number, 2);
    assert_eq!(policies.history(None, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn of_two_who_saw_the_same_revision_one_changes_it() {
    let folder = tempfile::tempdir().unwrap();
    let policies = policies(folder.path(), store(folder.path()).await).await;
    let (one, two) = tokio::join!(policies.change(wish("a", Some(0))), policies.change(wish("b", Some(0))));
    let overtaken =
        |outcome: &Result<_, ChangeError>| matches!(outcome, Err(ChangeError::Overtaken { expected: 0, found: 1 }));
    assert!(one.is_ok() && overtaken(&two) || two.is_ok() && overtaken(&one));
    assert_eq!(policies.current().revision.head.number, 1);
}

#[tokio::test]
async fn what_is_not_good_or_only_tried_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let policies = policies(folder.path(), store.clone()).await;
    let mut bad = wish("a", None);
    bad.rules[0].spiffe_id = "spiffe://example.org/signet/issuer".to_owned();
    assert!(matches!(policies.change(bad).await, Err(ChangeError::Policy(_))));
    let tried = Wish { dry_run: true, ..wish("a", None) };
    assert_eq!(policies.change(tried).await.unwrap().0, 0);
    let mut many = wish("a", None);
    many.rules =
        (0..=signet_policy::MAX_RULES).map(|number| wish(&format!("r{number}"), None).rules.remove(0)).collect();
    let refused = policies.change(many).await.unwrap_err();
    assert_eq!(refused.to_string(), "files: with the rules that stay, more than 20000 rules in one policy");
    assert!(policies.current().revision.rules.is_empty());
    assert!(store.revision(None).await.unwrap().is_none());
}

#[tokio::test]
async fn another_writer_of_the_same_store_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let load = || policies(folder.path(), store.clone());
    let (one, two) = (load().await, load().await);
    one.change(wish("a", None)).await.unwrap();
    assert!(matches!(two.change(wish("b", None)).await, Err(ChangeError::Overtaken { .. })));
    assert!(two.current().revision.rules.is_empty());
    assert_eq!(load().await.current().revision.head.number, 1);
}

fn rules_of(yaml: &str) -> Vec<Rule> {
    let mut document = Document::default();
    document.add("p".as_ref(), &format!("rules:\n{yaml}")).unwrap();
    document.rules
}

fn by_operator_of(scope: &str, yaml: &str) -> Wish {
    let binding = crate::administration::Binding {
        role: Role::Operator,
        scope: crate::administration::Scope::parse(scope).unwrap(),
        users: vec![8],
        identities: Vec::new(),
    };
    let permissions = crate::administration::Administrators::new(&[binding], 7).user(8).unwrap();
    Wish { rules: rules_of(yaml), permissions, ..wish("a", None) }
}

#[tokio::test]
async fn an_operator_of_a_part_gives_others_callers_nothing_and_its_own_no_dns_name() {
    let folder = tempfile::tempdir().unwrap();
    let policies = policies(folder.path(), store(folder.path()).await).await;
    let everything = by_operator_of(
        "/",
        "- {name: billing, match: {k8s.cluster: prod, k8s.namespace: billing}, spiffe_id: 'spiffe://example.org/billing/{k8s.pod}'}
- {name: ci, match: {oidc.claim.repository: x}, spiffe_id: 'spiffe://example.org/ci/x'}
- {name: release, match: {k8s.namespace: release}, spiffe_id: 'spiffe://example.org/shop/release', profile: code-signing, ttl: 10m}
- {name: named, match: {k8s.namespace: named}, spiffe_id: 'spiffe://example.org/shop/named', dns_names: [named.example.org]}\n",
    );
    policies.change(everything).await.unwrap();
    for (matches, more) in [
        ("k8s.cluster: prod", ""),
        ("k8s.namespace: 'b*'", ""),
        ("k8s.namespace: [shop, billing]", ""),
        ("k8s.pod: cart", ""),
        // Of one claim a caller may have many values.
        ("oidc.claim.repository: shop", ""),
        ("k8s.namespace: shop", ", dns_names: [billing.example.org]"),
        // What an authority signs beside identities is for those to give who answer for all of it.
        ("k8s.namespace: shop", ", profile: code-signing"),
        ("svid.spiffe_id: spiffe://example.org/shop/x", ", profile: subordinate-ca"),
        ("k8s.namespace: shop", ", profile: device"),
        // Names of others, whatever they are given.
        ("svid.spiffe_id: '*'", ""),
        ("svid.spiffe_id: 'spiffe://example.org/*'", ""),
        ("svid.spiffe_id: 'spiffe://example.org/shop*'", ""),
        ("svid.spiffe_id: 'spiffe://*/shop/x'", ""),
        ("svid.spiffe_id: [spiffe://example.org/shop/x, spiffe://example.org/billing/x]", ""),
    ] {
        let rule = format!("- {{name: new, match: {{{matches}}}, spiffe_id: 'spiffe://example.org/shop/a'{more}}}\n");
        let refused = policies.change(by_operator_of("/shop", &rule)).await;
        assert!(matches!(refused, Err(ChangeError::BeyondScope { .. })), "{rule}: {refused:?}");
    }
    for (matches, more) in [
        ("k8s.namespace: shop", ""),
        ("k8s.cluster: test", ""),
        ("x509.authority: dc-1", ""),
        ("svid.spiffe_id: 'spiffe://example.org/shop/*'", ""),
        ("k8s.namespace: named", ", ttl: 30m"),
    ] {
        let name = if matches.ends_with("named") { "named" } else { "new" };
        let rule =
            format!("- {{name: {name}, match: {{{matches}}}, spiffe_id: 'spiffe://example.org/shop/{name}'{more}}}\n");
        policies.change(by_operator_of("/shop", &rule)).await.unwrap();
    }
    // What it may not give it may not change either, but it may take it away.
    for changed in ["profile: code-signing, ttl: 10h", "profile: code-signing", "ttl: 10m", "profile: device, ttl: 10m"]
    {
        let rule = format!(
            "- {{name: release, match: {{k8s.namespace: release}}, spiffe_id: 'spiffe://example.org/shop/release', {changed}}}\n"
        );
        let refused = policies.change(by_operator_of("/shop", &rule)).await;
        assert!(matches!(refused, Err(ChangeError::BeyondScope { .. })), "{rule}: {refused:?}");
    }
    let mut without =
        by_operator_of("/shop", "- {name: x, match: {k8s.pod: x}, spiffe_id: spiffe://example.org/shop/x}");
    without.rules.clear();
    (without.prune, without.dry_run) = (Prune::Own, true);
    assert!(policies.change(without).await.unwrap().1.changes.len() > 1);
    let told = "- {name: named, match: {k8s.namespace: [named, n2]}, spiffe_id: 'spiffe://example.org/shop/named', dns_names: [named.example.org]}\n";
    let refused = policies.change(by_operator_of("/shop", told)).await;
    assert!(matches!(refused, Err(ChangeError::BeyondScope { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_rule_gives_no_bundle_that_there_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let policies = policies(folder.path(), store(folder.path()).await).await;
    let federating = |with: &str| {
        let mut wish = wish("a", None);
        wish.rules[0].settings.federates_with = vec!["partner.example".to_owned(), with.to_owned()];
        wish
    };
    let refused = policies.change(federating("other.example")).await.unwrap_err();
    assert_eq!(refused.to_string(), "rule `a`: the issuer has no bundle of other.example");
    let field = |error: ChangeError| if let ChangeError::Policy(error) = error { error.field } else { None };
    assert_eq!(field(refused), Some(signet_policy::Field::FederatesWith(1)));
    policies.change(federating("example.org")).await.unwrap();
}
