#![allow(clippy::unwrap_used)]

use prometheus::TextEncoder;
use time::Duration;

use super::*;
use crate::test_identity::TestIdentity;

fn scrape(registry: &Registry) -> String {
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
}

/// The value of the series that begins with `name`, which may include labels.
fn value(registry: &Registry, name: &str) -> f64 {
    let text = scrape(registry);
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic_no_series(name, &text));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[allow(clippy::panic)]
fn panic_no_series(name: &str, text: &str) -> ! {
    panic!("no {name} in\n{text}")
}

#[test]
fn before_there_is_an_identity_only_the_counters_are_there() {
    let identity = TestIdentity::new();
    let registry = Registry::new();
    IdentityMetrics::register(&registry, identity.slot).unwrap();
    let text = scrape(&registry);
    assert!(text.contains("signet_svid_rotations_total{result=\"rotated\"} 0"), "{text}");
    assert!(!text.contains("expiration"), "{text}");
    assert!(!text.contains("signet_issuer_connected"), "{text}");
}

#[test]
fn the_age_is_that_of_the_scrape_and_not_of_the_last_rotation() {
    let identity = TestIdentity::new();
    let registry = Registry::new();
    IdentityMetrics::register(&registry, identity.slot.clone()).unwrap();
    let (mut publisher, live) = identity.go_live();

    assert_eq!(value(&registry, "signet_svid_renewal_age_ratio"), 0.0);
    identity.clock.set(identity.start + Duration::seconds(70));
    assert_eq!(value(&registry, "signet_svid_renewal_age_ratio"), 0.7);
    let expiry = (identity.start + Duration::seconds(100)).unix_timestamp() as f64;
    let series = "signet_svid_expiration_timestamp_seconds{spiffe_id=\"spiffe://example.org/shop/cart\"}";
    assert_eq!(value(&registry, series), expiry);
    assert_eq!(value(&registry, "signet_svid_issued_timestamp_seconds"), identity.start.unix_timestamp() as f64);
    assert!(value(&registry, "signet_bundle_expiration_timestamp_seconds{trust_domain=\"example.org\"}") > expiry);

    let next = identity.snapshot(identity.start + Duration::seconds(60), Some(&live.load_full()));
    publisher.publish(next).unwrap();
    assert_eq!(value(&registry, "signet_svid_renewal_age_ratio"), 0.1);
    assert_eq!(value(&registry, series), expiry + 60.0);
    identity.clock.set(identity.start + Duration::seconds(1_000));
    assert!(value(&registry, "signet_svid_renewal_age_ratio") > 1.0, "an expired identity is not younger");
}

#[test]
fn what_is_revoked_is_counted_by_trust_domain_and_kind() {
    let identity = TestIdentity::new();
    let registry = Registry::new();
    IdentityMetrics::register(&registry, identity.slot.clone()).unwrap();
    let (mut publisher, live) = identity.go_live();
    assert!(!scrape(&registry).contains("signet_revocation"), "of whoever has told nothing, nothing is known");
    publisher.publish(identity.revoked(&live.load_full())).unwrap();
    assert_eq!(value(&registry, "signet_revocation_epoch{trust_domain=\"example.org\"}"), 7.0);
    for (kind, count) in [("serial", 2.0), ("key", 0.0), ("authority", 1.0)] {
        let series = format!("signet_revocations{{kind=\"{kind}\",trust_domain=\"example.org\"}}");
        assert_eq!(value(&registry, &series), count);
    }
}

#[test]
fn rotations_are_counted_by_how_they_ended() {
    let identity = TestIdentity::new();
    let registry = Registry::new();
    let metrics = IdentityMetrics::register(&registry, identity.slot).unwrap();
    metrics.rotation(Rotation::Rotated);
    metrics.rotation(Rotation::Rotated);
    metrics.clone().rotation(Rotation::Refused);
    assert_eq!(value(&registry, "signet_svid_rotations_total{result=\"rotated\"}"), 2.0);
    assert_eq!(value(&registry, "signet_svid_rotations_total{result=\"refused\"}"), 1.0);
    assert_eq!(value(&registry, "signet_svid_rotations_total{result=\"failed\"}"), 0.0);
}

#[test]
fn an_issuer_is_shown_as_away_only_where_there_is_one() {
    let identity = TestIdentity::new();
    let registry = Registry::new();
    let metrics = IdentityMetrics::register(&registry, identity.slot).unwrap();
    assert!(!scrape(&registry).contains("signet_issuer_connected"));
    metrics.issuer_connected(false);
    assert_eq!(value(&registry, "signet_issuer_connected"), 0.0);
    metrics.issuer_connected(true);
    assert_eq!(value(&registry, "signet_issuer_connected"), 1.0);
}

#[test]
fn one_registry_takes_the_metrics_of_one_identity() {
    let identity = TestIdentity::new();
    let registry = Registry::new();
    IdentityMetrics::register(&registry, identity.slot.clone()).unwrap();
    assert!(IdentityMetrics::register(&registry, identity.slot).is_err());
}
