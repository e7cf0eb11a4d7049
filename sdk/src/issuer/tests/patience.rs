//! What becomes of whoever holds an SVID when what is trusted, or how quick issuers are, is not as it was.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn other_roots(roots: &[&signet_test_pki::Authority]) -> signet_proto::identity::v1::TrustBundles {
    let roots: Vec<_> = roots.iter().map(|root| root.root_certificate()).collect();
    signet_proto::identity::v1::TrustBundles { bundles: vec![bundle("example.org", &roots)], version: vec![1] }
}

#[tokio::test]
async fn whoever_does_not_go_with_what_is_to_be_trusted_renews_soon() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let (running, mut events) = joined(&issuer, &serving).await;
    let other = signet_test_pki::Authority::root("example.org");
    issuer.wish_bundles(other_roots(&[&other]));
    until(&mut events, refused).await;
    // Half an hour before it would by itself.
    so(|| issuer.renewed.load(SeqCst) == 1).await;
    assert_eq!(issuer.renewed.load(SeqCst), 1);
    assert_eq!(running.monitor.rotations(RotationResult::Failed), 0);
}

#[tokio::test]
async fn an_issuer_under_a_root_that_came_by_the_stream_is_believed_when_attesting_again() {
    let (before, after) = (FakeIssuer::new(10 * MINUTE), FakeIssuer::new(LONG));
    let serving = before.serve().await;
    let address = serving.address;
    let clock = ManualClock::new(OffsetDateTime::now_utc());
    let (starting, mut events) = begin_with(source(&before, address, token("good-token")), clock.shared());
    let running = starting.identity().await.unwrap();
    until(&mut events, connected).await;
    before.wish_bundles(other_roots(&[&before.root, &after.root]));
    until(&mut events, |event| matches!(event, Event::BundlesChanged { .. }).then_some(())).await;
    drop(serving);
    // The program was told of the first root alone.
    clock.advance(time::Duration::minutes(15));
    let _serving = after.serve_as(fake::ISSUER, address).await;
    until(&mut events, rotated).await;
    assert_eq!(after.attested.load(SeqCst), 1);
    assert_eq!(
        running.live.load().bundles().iter().next().unwrap().authorities(),
        [after.root.root_certificate().clone()]
    );
}

#[test]
fn issuers_that_are_all_slow_are_given_more_time_in_each_round() {
    let issuer = FakeIssuer::new(LONG);
    let endpoint =
        |addresses: &[&str]| IssuerSource::at(addresses.iter().copied(), issuer.bundle(), token("t")).unwrap().endpoint;
    let several = endpoint(&["127.0.0.1:1", "127.0.0.1:2"]).in_time_for(LONG);
    let rounds = [0, 1, 2, 3, 40].map(|rounds| several.patience(rounds).as_millis());
    assert_eq!(rounds, [1_500, 3_000, 6_000, 10_000, 10_000]);
    // No longer than leaves time for others.
    let short = endpoint(&["127.0.0.1:1", "127.0.0.1:2"]).in_time_for(Duration::from_secs(16));
    assert_eq!([0, 1, 9].map(|rounds| short.patience(rounds).as_millis()), [1_500, 2_000, 2_000]);
    let only = endpoint(&["127.0.0.1:1"]).in_time_for(LONG);
    assert_eq!([0, 5].map(|rounds| only.patience(rounds).as_secs()), [10, 10]);
}
