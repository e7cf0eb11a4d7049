//! What is revoked comes into force, before anybody is served, and only where an authority of the trust domain says so.

use signet_identity::{RevocationCounts, Revocations};
use signet_proto::identity::v1::{Applied, Resource};
use signet_test_pki::Authority;

use super::*;

fn known(running: &Running) -> Revocations {
    running.live.load().revocations().get(&"example.org".parse().unwrap()).unwrap().clone()
}

fn numbers(serials: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    serials.map(|number| (number + 1).to_be_bytes().to_vec()).collect()
}

/// What clients said last of the revocations that they were sent.
fn said_last(issuer: &FakeIssuer) -> Option<Applied> {
    let said = issuer.said.lock().unwrap();
    said.iter().rev().find(|said| said.resource() == Resource::Revocations).cloned()
}

async fn in_force(running: &Running, epoch: u64) {
    so(|| known(running).epoch() == epoch && known(running).is_complete()).await;
}

#[tokio::test]
async fn the_first_identity_goes_live_with_all_that_is_revoked() {
    let issuer = FakeIssuer::new(LONG);
    {
        let mut record = issuer.record.lock().unwrap();
        (record.serials, record.most) = (numbers(0..2500), 1000);
    }
    let serving = issuer.serve().await;
    let (running, _events) = joined(&issuer, &serving).await;
    // At the first look.
    assert!(known(&running).is_complete());
    assert_eq!(known(&running).counts(), RevocationCounts { serials: 2500, ..RevocationCounts::default() });
    assert_eq!((known(&running).epoch(), known(&running).lineage()), (2500, *b"lineage1"));
    so(|| said_last(&issuer).is_some_and(|said| said.version == [&b"lineage1"[..], &2500_u64.to_be_bytes()].concat()))
        .await;
    assert!(issuer.said.lock().unwrap().iter().all(|said| said.refused.is_empty()));
}

#[tokio::test]
async fn nobody_is_served_before_it_is_known_what_is_revoked() {
    let issuer = FakeIssuer::new(LONG);
    {
        let mut record = issuer.record.lock().unwrap();
        (record.serials, record.most) = (numbers(0..30), 10);
    }
    let serving = issuer.serve().await;
    let timeouts = Timeouts { request: Duration::from_millis(300), ..Timeouts::default() };
    for misdeed in [Misdeed::NoRevocations, Misdeed::HalfOfRevocations] {
        issuer.misbehave(misdeed);
        issuer.add_token("good-token");
        let source = source(&issuer, serving.address, token("good-token")).timeouts(timeouts);
        let (starting, mut events) = begin_with(source, Arc::new(SystemClock));
        let cause = until(&mut events, |event| failed(event).filter(|cause| cause.contains("within 0.3 s"))).await;
        assert!(cause.contains("it is not known yet what is revoked"), "{cause}");
        // It is told once, and tried again.
        let streams = issuer.watched.load(SeqCst);
        so(|| issuer.watched.load(SeqCst) > streams).await;
        assert!(starting.monitor().live().is_none());
        assert!(matches!(starting.monitor().state(), State::Waiting { .. }));
        let attested = issuer.attested.load(SeqCst);
        issuer.misbehave(None);
        let running = tokio::time::timeout(SOON, starting.identity()).await.unwrap().unwrap();
        assert_eq!(known(&running).epoch(), 30);
        assert_eq!(issuer.attested.load(SeqCst), attested, "the proof is not used up again for that");
    }
}

#[tokio::test]
async fn whoever_is_revoked_is_refused_at_once_and_the_issuer_hears_that() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let (running, mut events) = joined(&issuer, &serving).await;
    let before = running.live.load_full();
    issuer.revoke(&[7]);
    until(&mut events, |event| matches!(event, Event::RevocationsChanged { .. }).then_some(())).await;
    let after = running.live.load_full();
    assert!(after.trust_epoch() > before.trust_epoch());
    assert_eq!(after.svid().serial(), before.svid().serial());
    assert_eq!((after.renewed_in(), known(&running).epoch()), (before.renewed_in(), 1));
    so(|| said_last(&issuer).is_some_and(|said| said.version.ends_with(&[1]) && said.refused.is_empty())).await;
    assert!(matches!(running.monitor.state(), State::Live { .. }));
}

#[tokio::test]
async fn what_was_revoked_while_the_issuer_was_away_is_caught_up_with_and_kept_through_renewals() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let address = serving.address;
    let (running, mut events) = joined(&issuer, &serving).await;
    issuer.revoke(&[1]);
    in_force(&running, 1).await;
    drop(serving);
    until(&mut events, disconnected).await;
    issuer.record.lock().unwrap().serials.extend(numbers(10..20));
    let serving = issuer.serve_as(fake::ISSUER, address).await;
    in_force(&running, 11).await;
    // Another certificate does not forget it.
    let held = running.live.load().svid().serial().to_string();
    issuer.wish_renewal(2).await;
    assert_ne!(until(&mut events, rotated).await, held);
    assert_eq!((known(&running).epoch(), known(&running).counts().serials), (11, 11));
    drop(serving);
}

#[tokio::test]
async fn of_issuers_that_share_their_records_any_goes_on_where_another_was() {
    let one = FakeIssuer::new(LONG);
    let two = one.sibling();
    one.record.lock().unwrap().serials = numbers(0..5);
    let mut serving = vec![one.serve().await, two.serve().await];
    let addresses = [serving[0].address, serving[1].address];
    let (starting, mut events) = begin_with(source_of(&one, addresses), Arc::new(SystemClock));
    let running = starting.identity().await.unwrap();
    until(&mut events, connected).await;
    let first = usize::from(two.watched.load(SeqCst) == 1);
    let other = [&two, &one][first];
    drop(serving.remove(first));
    one.record.lock().unwrap().serials.extend(numbers(5..8));
    in_force(&running, 8).await;
    // It began with what was known.
    so(|| other.said.lock().unwrap().iter().any(|said| said.version.ends_with(&5_u64.to_be_bytes()))).await;
    assert_eq!(known(&running).counts().serials, 8);
}

#[tokio::test]
async fn a_statement_that_is_not_to_be_believed_is_refused_with_the_reason_and_what_was_known_stays() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let (running, mut events) = joined(&issuer, &serving).await;
    for number in 1..=3 {
        issuer.revoke(&[number]);
    }
    in_force(&running, 3).await;
    let record = issuer.record.lock().unwrap().clone();
    let next = || {
        let mut longer = record.clone();
        longer.serials.push(vec![9]);
        issuer.statement(&longer, 3, 4)
    };
    let stranger = Authority::root("example.org").intermediate();
    let mut altered = issuer.signed(&next());
    *altered.statement.last_mut().unwrap() ^= 1;
    let mut other_domain = next();
    other_domain.trust_domain = "other.org".to_owned();
    let mut gap = next();
    (gap.after, gap.epoch, gap.latest) = (5, 6, 6);
    let mut other_lineage = next();
    other_lineage.lineage = b"lineage2".to_vec();
    let mut garbage = issuer.signed(&next());
    garbage.signature.truncate(10);
    let mut many = next();
    (many.serials[0].serials, many.serials[0].not_after) = (vec![vec![1]; 16_385], vec![0; 16_385]);
    let cases = [
        (issuer.signed(&gap), "would be missed"),
        (altered, "signature is not that of its signer"),
        (fake::signed_by(&stranger, &next()), "no root of trust domain `example.org` vouches"),
        (garbage, "signature is not that of its signer"),
        (issuer.signed(&other_domain), "is of trust domain `other.org`"),
        (issuer.signed(&other_lineage), "of another database"),
        (issuer.signed(&many), "16385 entries"),
    ];
    for (statement, told) in cases {
        let (generation, streams) = (running.live.load().generation(), issuer.watched.load(SeqCst));
        issuer.tell(statement);
        let reason = until(&mut events, |event| refused(event).filter(|reason| reason.contains(told))).await;
        assert!(reason.contains("what issuer"), "{reason}");
        so(|| issuer.said.lock().unwrap().iter().any(|said| said.refused.contains(told))).await;
        assert_eq!((running.live.load().generation(), known(&running).epoch()), (generation, 3), "{told}");
        // The stream is opened anew, so that nothing is missed for it.
        so(|| issuer.watched.load(SeqCst) > streams && running.monitor.issuer() == IssuerLink::Connected).await;
    }
    issuer.revoke(&[4]);
    in_force(&running, 4).await;
}

#[tokio::test]
async fn whoever_knows_more_than_its_issuer_says_so_and_goes_on() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let (running, mut events) = joined(&issuer, &serving).await;
    for number in 1..=3 {
        issuer.revoke(&[number]);
    }
    in_force(&running, 3).await;
    let record = issuer.record.lock().unwrap().clone();
    let (generation, streams) = (running.live.load().generation(), issuer.watched.load(SeqCst));
    let refusals = running.monitor.rotations(RotationResult::Refused);
    let back = issuer.signed(&issuer.statement(&record, 2, 2));
    issuer.tell(back.clone());
    issuer.tell(back);
    let told = "goes back to 2; 3 is known";
    until(&mut events, |event| refused(event).filter(|reason| reason.contains(told))).await;
    so(|| issuer.said.lock().unwrap().iter().filter(|said| said.refused.contains(told)).count() == 2).await;
    so(|| running.monitor.rotations(RotationResult::Refused) == refusals + 2).await;
    assert_eq!((running.live.load().generation(), known(&running).epoch()), (generation, 3));
    // Nothing is missed for it, so that the stream goes on.
    issuer.revoke(&[4]);
    in_force(&running, 4).await;
    assert_eq!(issuer.watched.load(SeqCst), streams);
    assert!(events.try_recv().is_ok_and(|event| matches!(event, Event::RevocationsChanged { .. })), "told once");
}

#[tokio::test]
async fn another_database_is_gone_on_with_and_nothing_is_forgotten() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let address = serving.address;
    issuer.record.lock().unwrap().serials = numbers(0..9);
    let (running, mut events) = joined(&issuer, &serving).await;
    drop(serving);
    until(&mut events, disconnected).await;
    {
        let mut record = issuer.record.lock().unwrap();
        (record.lineage, record.serials) = (*b"lineage2", numbers(20..22));
    }
    let _serving = issuer.serve_as(fake::ISSUER, address).await;
    so(|| known(&running).lineage() == *b"lineage2").await;
    assert_eq!((known(&running).epoch(), known(&running).counts().serials), (2, 11));
}

#[tokio::test]
async fn whoever_is_revoked_itself_is_attested_anew_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "good-token\n").unwrap();
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let source = source(&issuer, serving.address, JoinToken::File(path.clone()));
    let (starting, mut events) = begin_with(source, Arc::new(SystemClock));
    let running = starting.identity().await.unwrap();
    let held = running.live.load_full();
    issuer.add_token("new-token");
    std::fs::write(&path, "new-token\n").unwrap();
    issuer.misbehave(Misdeed::Evicted);
    so(|| running.monitor.issuer() == IssuerLink::Connected).await;
    issuer.revoke(held.svid().serial().as_bytes());
    let revoked = Instant::now();
    until(&mut events, |event| rotated(event).filter(|serial| *serial != held.svid().serial().to_string())).await;
    assert!(revoked.elapsed() < Duration::from_secs(3), "{:?}", revoked.elapsed());
    assert_eq!((issuer.renewed.load(SeqCst), issuer.attested.load(SeqCst)), (1, 2));
    let now_held = running.live.load_full();
    assert_eq!(now_held.own_revoked(), None);
    // What was revoked stays so.
    assert_eq!(known(&running).epoch(), 1);
}

#[tokio::test]
async fn an_issuer_whose_certificate_is_revoked_is_not_asked_any_more() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let address = serving.address;
    let clock = ManualClock::new(OffsetDateTime::now_utc());
    let (starting, mut events) = begin_with(source(&issuer, address, token("good-token")), clock.shared());
    let running = starting.identity().await.unwrap();
    issuer.revoke(&serving.serial);
    until(&mut events, disconnected).await;
    in_force(&running, 1).await;
    let streams = issuer.watched.load(SeqCst);
    // A renewal is tried, and the handshake finds it out.
    clock.advance(time::Duration::minutes(40));
    let cause = until(&mut events, failed).await;
    assert!(cause.contains("the peer's chain is revoked"), "{cause}");
    assert_eq!((issuer.watched.load(SeqCst), issuer.renewed.load(SeqCst)), (streams, 0));
    drop(serving);
    let _successor = issuer.serve_as(fake::ISSUER, address).await;
    until(&mut events, connected).await;
}
