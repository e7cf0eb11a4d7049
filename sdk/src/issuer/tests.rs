#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use signet_identity::{ManualClock, SharedClock, SystemClock, X509Svid};
use time::OffsetDateTime;
use tokio::{sync::broadcast, time::Instant};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{
    fake::{FakeIssuer, Misdeed, Serving, WORKLOAD, bundle},
    holder::{Due, renewal_of},
    *,
};
use crate::{Event, IssuerLink, RotationResult, Running, Starting, State, begin};

const SOON: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(3600);

fn token(value: &str) -> JoinToken {
    JoinToken::Value(Zeroizing::new(value.to_owned()))
}

fn source(issuer: &FakeIssuer, address: SocketAddr, token: JoinToken) -> IssuerSource {
    IssuerSource::new(&address.to_string(), issuer.bundle(), token).unwrap()
}

fn begin_with(source: IssuerSource, clock: SharedClock) -> (Starting, broadcast::Receiver<Event>) {
    let starting = begin(source, TlsPolicies::new(clock), CancellationToken::new());
    let events = starting.monitor().events();
    (starting, events)
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The issuers at these addresses.
fn source_of<const N: usize>(issuer: &FakeIssuer, addresses: [SocketAddr; N]) -> IssuerSource {
    let addresses = addresses.map(|address| address.to_string());
    IssuerSource::at(addresses.iter().map(String::as_str), issuer.bundle(), token("good-token")).unwrap()
}

fn both_misbehave(one: &FakeIssuer, two: &FakeIssuer, misdeed: impl Into<Option<Misdeed>>) {
    let misdeed = misdeed.into();
    one.misbehave(misdeed);
    two.misbehave(misdeed);
}

/// Polls until it is so.
async fn so(is_so: impl Fn() -> bool) {
    let polling = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), polling).await.expect("so in time");
}

/// A workload that holds its first identity.
async fn joined(issuer: &FakeIssuer, serving: &Serving) -> (Running, broadcast::Receiver<Event>) {
    let (starting, mut events) =
        begin_with(source(issuer, serving.address, token("good-token")), Arc::new(SystemClock));
    let running = starting.identity().await.unwrap();
    assert!(matches!(next(&mut events).await, Event::Rotated { .. }));
    assert!(matches!(next(&mut events).await, Event::Connected));
    (running, events)
}

async fn next(events: &mut broadcast::Receiver<Event>) -> Event {
    tokio::time::timeout(SOON, events.recv()).await.expect("an event").unwrap()
}

/// The next event of a kind, others passed over.
async fn until<T>(events: &mut broadcast::Receiver<Event>, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = wanted(&events.recv().await.unwrap()) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(15), found).await.expect("the event in time")
}

fn rotated(event: &Event) -> Option<String> {
    match event {
        Event::Rotated { serial, .. } => Some(serial.to_string()),
        _ => None,
    }
}

fn failed(event: &Event) -> Option<Arc<str>> {
    match event {
        Event::RenewalFailed { cause } => Some(cause.clone()),
        _ => None,
    }
}

fn refused(event: &Event) -> Option<Arc<str>> {
    match event {
        Event::Refused { reason } => Some(reason.clone()),
        _ => None,
    }
}

fn disconnected(event: &Event) -> Option<()> {
    matches!(event, Event::Disconnected { .. }).then_some(())
}

#[tokio::test]
async fn an_identity_is_attested_once_and_renewed_with_a_new_key_each_time() {
    let issuer = FakeIssuer::new(Duration::from_secs(4));
    let serving = issuer.serve().await;
    let (running, mut events) = joined(&issuer, &serving).await;
    let mut keys = std::collections::HashSet::new();
    for _ in 0..3 {
        let snapshot = running.live.load_full();
        assert_eq!(snapshot.svid().id().as_str(), WORKLOAD);
        assert!(snapshot.svid().is_valid_at(OffsetDateTime::now_utc()));
        let (_, leaf) = x509_parser::parse_x509_certificate(snapshot.svid().leaf()).unwrap();
        assert!(keys.insert(leaf.public_key().raw.to_vec()), "a key was used twice");
        until(&mut events, rotated).await;
    }
    assert_eq!(issuer.attested.load(SeqCst), 1);
    assert!(running.monitor.rotations(RotationResult::Rotated) >= 4);
    assert_eq!((running.monitor.rotations(RotationResult::Failed), running.monitor.last_error()), (0, None));
    assert_eq!(running.monitor.rotations(RotationResult::Refused), 0);
    assert!(matches!(running.monitor.state(), State::Live { .. }));
    assert_eq!(running.monitor.issuer(), IssuerLink::Connected);
    // One stream for each certificate: that of an older one would end with it.
    assert!(issuer.watched.load(SeqCst) >= 3);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_refused_and_the_old_identity_stays() {
    use Misdeed::*;
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let (running, mut events) = joined(&issuer, &serving).await;
    for misdeed in [OtherIdentity, OtherAuthority, Expired, EmptyBundle, BundleOfOtherAuthority] {
        let held = running.live.load_full();
        issuer.misbehave(misdeed);
        let before = running.monitor.rotations(RotationResult::Refused);
        issuer.wish_renewal(running.monitor.rotations(RotationResult::Rotated)).await;
        let reason = until(&mut events, refused).await;
        assert_eq!(running.live.load().generation(), held.generation(), "{misdeed:?}: {reason}");
        assert!(running.monitor.rotations(RotationResult::Refused) > before);
        assert!(matches!(running.monitor.state(), State::Live { .. }));
        issuer.misbehave(None);
        let serial = until(&mut events, rotated).await;
        assert_ne!(serial, held.svid().serial().to_string());
        assert_eq!(running.monitor.last_error(), None);
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_fails_the_renewal_and_the_old_identity_stays() {
    use Misdeed::*;
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let (running, mut events) = joined(&issuer, &serving).await;
    let misdeeds = [
        (OtherKey, "unusable"),
        (OtherNameThanCertified, "says spiffe://example.org/admin"),
        (NoCertificate, "unusable"),
        (Garbage, "unusable"),
        (NoBundles, "lacks its trust bundles"),
        (BundleTwice, "two bundles of example.org"),
        (TooManyBundles, "65 trust bundles"),
        (Oversize, "too large"),
        (Unavailable, "no authority yet"),
    ];
    for (misdeed, told) in misdeeds {
        let generation = running.live.load().generation();
        issuer.misbehave(misdeed);
        issuer.wish_renewal(running.monitor.rotations(RotationResult::Rotated)).await;
        let cause = until(&mut events, failed).await;
        assert!(cause.contains(told), "{misdeed:?}: {cause}");
        assert_eq!(running.live.load().generation(), generation);
        issuer.misbehave(None);
        until(&mut events, rotated).await;
    }
}

#[tokio::test]
async fn a_first_answer_that_does_not_fit_is_no_identity() {
    for misdeed in [Misdeed::OtherKey, Misdeed::OtherAuthority, Misdeed::EmptyBundle, Misdeed::Oversize] {
        let issuer = FakeIssuer::new(LONG);
        let serving = issuer.serve().await;
        issuer.misbehave(misdeed);
        let (starting, mut events) =
            begin_with(source(&issuer, serving.address, token("good-token")), Arc::new(SystemClock));
        let why = until(&mut events, |event| refused(event).or_else(|| failed(event))).await;
        assert!(starting.monitor().live().is_none());
        assert_eq!(starting.monitor().state(), State::Waiting { reason: why });
    }
}

#[tokio::test]
async fn an_issuer_that_is_not_the_expected_one_gets_no_token() {
    let issuer = FakeIssuer::new(LONG);
    let any = "127.0.0.1:0".parse().unwrap();
    let impostor = issuer.serve_as("spiffe://example.org/shop/impostor", any).await;
    let (starting, mut events) =
        begin_with(source(&issuer, impostor.address, token("good-token")), Arc::new(SystemClock));
    let cause = until(&mut events, failed).await;
    assert!(cause.contains("impostor"), "{cause}");

    let foreign = FakeIssuer::new(LONG);
    let serving = foreign.serve().await;
    let (other, mut events) = begin_with(source(&issuer, serving.address, token("good-token")), Arc::new(SystemClock));
    until(&mut events, failed).await;

    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(issuer.attested.load(SeqCst) + foreign.attested.load(SeqCst), 0);
    assert!(starting.monitor().live().is_none() && other.monitor().live().is_none());
}

#[tokio::test]
async fn an_impostor_in_the_place_of_a_known_issuer_is_not_asked_for_a_renewal() {
    let issuer = FakeIssuer::new(Duration::from_secs(6));
    let serving = issuer.serve().await;
    let address = serving.address;
    let (running, mut events) = joined(&issuer, &serving).await;
    drop(serving);
    let impostor = issuer.serve_as("spiffe://example.org/shop/impostor", address).await;
    let cause = until(&mut events, failed).await;
    assert!(cause.contains("the peer is `spiffe://example.org/shop/impostor`"), "{cause}");
    assert_eq!(issuer.renewed.load(SeqCst), 0);
    drop(impostor);
    let _serving = issuer.serve_as(fake::ISSUER, address).await;
    until(&mut events, rotated).await;
    assert!(matches!(running.monitor.state(), State::Live { .. }));
}

#[tokio::test]
async fn start_waits_for_the_issuer_and_says_why() {
    let issuer = FakeIssuer::new(LONG);
    let address = nobody();
    let (starting, mut events) = begin_with(source(&issuer, address, token("good-token")), Arc::new(SystemClock));
    let cause = until(&mut events, failed).await;
    assert_eq!(*cause, *format!("issuer {address} cannot be reached: Connection refused (os error 111)"));
    assert_eq!(starting.monitor().last_error(), Some(cause));
    let _serving = issuer.serve_as(fake::ISSUER, address).await;
    tokio::time::timeout(SOON, starting.identity()).await.unwrap().unwrap();
}

#[tokio::test]
async fn start_ends_when_it_is_cancelled() {
    let issuer = FakeIssuer::new(LONG);
    let address = nobody();
    let shutdown = CancellationToken::new();
    let policies = TlsPolicies::new(Arc::new(SystemClock));
    let starting = begin(source(&issuer, address, token("good-token")), policies, shutdown.clone());
    until(&mut starting.monitor().events(), failed).await;
    shutdown.cancel();
    let error = tokio::time::timeout(SOON, starting.identity()).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_token_that_is_not_known_is_said_to_be_used_or_expired() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let (_starting, mut events) = begin_with(source(&issuer, serving.address, token("stale")), Arc::new(SystemClock));
    let cause = until(&mut events, failed).await;
    assert!(cause.contains("unknown, used or expired") && !cause.contains("stale"), "{cause}");
    assert!(cause.contains("signet token create"), "{cause}");
}

#[tokio::test]
async fn an_issuer_that_is_away_past_the_renewal_point_is_found_again() {
    let issuer = FakeIssuer::new(Duration::from_secs(6));
    let serving = issuer.serve().await;
    let address = serving.address;
    let (running, mut events) = joined(&issuer, &serving).await;
    let held = running.live.load().svid().serial().to_string();
    drop(serving);
    until(&mut events, disconnected).await;
    assert_eq!(running.monitor.issuer(), IssuerLink::Disconnected);
    let cause = until(&mut events, failed).await;
    assert!(cause.contains("cannot be reached"), "{cause}");
    assert_eq!(running.live.load().svid().serial().to_string(), held);
    assert!(matches!(running.monitor.state(), State::Live { .. }));
    let _serving = issuer.serve_as(fake::ISSUER, address).await;
    assert_ne!(until(&mut events, rotated).await, held);
    let connected = async {
        while running.monitor.issuer() != IssuerLink::Connected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, connected).await.unwrap();
    assert_eq!(issuer.attested.load(SeqCst), 1);
}

#[tokio::test]
async fn an_identity_that_expired_says_so_and_comes_back_with_a_new_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "good-token\n").unwrap();
    let issuer = FakeIssuer::new(Duration::from_secs(2));
    let serving = issuer.serve().await;
    let address = serving.address;
    let (starting, mut events) =
        begin_with(source(&issuer, address, JoinToken::File(path.clone())), Arc::new(SystemClock));
    let running = starting.identity().await.unwrap();
    drop(serving);
    let cause = until(&mut events, |event| failed(event).filter(|cause| cause.contains("is not valid now"))).await;
    assert!(cause.contains("signet token create") && cause.contains(path.to_str().unwrap()), "{cause}");
    assert!(matches!(running.monitor.state(), State::Expired { .. }));

    let _serving = issuer.serve_as(fake::ISSUER, address).await;
    issuer.set_ttl(LONG);
    let cause = until(&mut events, |event| failed(event).filter(|cause| cause.contains("used or expired"))).await;
    let advice = format!("make a new join token with `signet token create` and put it in {}", path.display());
    assert!(cause.contains("waiting does not help: ") && cause.contains(&advice), "{cause}");

    // Long enough that attempts have become rare.
    let attempts = async {
        let before = issuer.attested.load(SeqCst);
        while issuer.attested.load(SeqCst) < before + 7 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), attempts).await.unwrap();
    issuer.add_token("new-token");
    std::fs::write(&path, "new-token\n").unwrap();
    tokio::time::timeout(Duration::from_secs(2), until(&mut events, rotated)).await.expect("soon after it is there");
    assert!(matches!(running.monitor.state(), State::Live { .. }));
    assert_eq!(running.live.load().svid().id().as_str(), WORKLOAD);
}

#[tokio::test]
async fn whoever_was_evicted_proves_itself_again_before_its_certificate_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "good-token\n").unwrap();
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let source = source(&issuer, serving.address, JoinToken::File(path.clone()));
    let (starting, mut events) = begin_with(source, Arc::new(SystemClock));
    let running = starting.identity().await.unwrap();
    let held = running.live.load_full();
    issuer.misbehave(Misdeed::Evicted);
    issuer.wish_renewal(1).await;
    let cause = until(&mut events, failed).await;
    assert!(cause.contains("it was evicted") && cause.contains("nor does attesting again help"), "{cause}");
    assert_eq!(running.live.load().generation(), held.generation());

    issuer.add_token("new-token");
    std::fs::write(&path, "new-token\n").unwrap();
    let serial = until(&mut events, rotated).await;
    assert_ne!(serial, held.svid().serial().to_string());
    assert!(held.svid().is_valid_at(OffsetDateTime::now_utc()));
    assert!(matches!(running.monitor.state(), State::Live { .. }));
}

fn connected(event: &Event) -> Option<()> {
    matches!(event, Event::Connected).then_some(())
}

#[tokio::test]
async fn bundles_of_the_stream_become_live_with_the_same_certificate() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let (running, mut events) = joined(&issuer, &serving).await;
    let first = running.live.load_full();
    let other = signet_test_pki::Authority::root("other.org");
    let mut bundles = issuer.good_bundles();
    bundles.bundles.push(bundle("other.org", &[other.root_certificate()]));
    issuer.wish_bundles(bundles.clone());
    let changed = until(&mut events, |event| match event {
        Event::BundlesChanged { trust_epoch, .. } => Some(*trust_epoch),
        _ => None,
    });
    assert!(changed.await > first.trust_epoch());
    assert_eq!(running.live.load().svid().serial(), first.svid().serial());
    assert!(running.live.load().bundles().get(&"other.org".parse().unwrap()).is_some());

    // The same again is nothing new; a set that does not vouch for us is refused.
    let second = running.live.load().generation();
    issuer.wish_bundles(bundles);
    issuer.wish_bundles(signet_proto::identity::v1::TrustBundles {
        bundles: vec![bundle("example.org", &[])],
        version: vec![1],
    });
    until(&mut events, refused).await;
    assert_eq!(running.live.load().generation(), second);
    issuer.wish_bundles(signet_proto::identity::v1::TrustBundles {
        bundles: vec![bundle("example.org", &[]), bundle("example.org", &[])],
        version: vec![2],
    });
    let reason = until(&mut events, refused).await;
    assert!(reason.contains("two bundles"), "{reason}");
    // The stream was given up for that, and is opened again.
    until(&mut events, |event| matches!(event, Event::Connected).then_some(())).await;
}

#[tokio::test]
async fn an_issuer_that_says_nothing_is_given_up_in_time() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    issuer.misbehave(Misdeed::Silence);
    let timeouts = Timeouts { request: Duration::from_millis(200), ..Timeouts::default() };
    let source = source(&issuer, serving.address, token("good-token")).timeouts(timeouts);
    let (_starting, mut events) = begin_with(source, Arc::new(SystemClock));
    let cause = until(&mut events, failed).await;
    assert!(cause.contains("did not answer within 0.2 s"), "{cause}");
}

#[test]
fn a_certificate_that_was_backdated_far_is_not_renewed_without_a_pause() {
    let root = signet_test_pki::Authority::root("example.org");
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    let renewal = |backdate: i64| {
        let (from, to) = (now - time::Duration::seconds(backdate), now + time::Duration::seconds(10));
        let issued = root.leaf(WORKLOAD).valid(from, to).issue();
        let svid = X509Svid::from_der(issued.chain.clone(), issued.key()).unwrap();
        (renewal_of(&svid, now), svid.renew_at())
    };
    let (renewal_point, drawn) = renewal(1);
    assert_eq!(renewal_point, drawn);
    let (renewal_point, drawn) = renewal(60);
    assert!(drawn < now);
    assert_eq!(renewal_point, now + time::Duration::seconds(2));
}

#[tokio::test]
async fn a_renewal_that_hangs_leaves_time_for_another_before_the_end() {
    let issuer = FakeIssuer::new(Duration::from_secs(7));
    let serving = issuer.serve().await;
    let (running, mut events) = joined(&issuer, &serving).await;
    issuer.misbehave(Misdeed::Silence);
    let cause = until(&mut events, failed).await;
    assert!(cause.contains("did not answer within 1 s"), "{cause}");
    issuer.misbehave(None);
    until(&mut events, rotated).await;
    assert_eq!(issuer.attested.load(SeqCst), 1);
    drop(running);
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_past_the_renewal_point_renews_at_once() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let clock = ManualClock::new(OffsetDateTime::now_utc());
    let (starting, mut events) = begin_with(source(&issuer, serving.address, token("good-token")), clock.shared());
    let running = starting.identity().await.unwrap();
    until(&mut events, |event| matches!(event, Event::Connected).then_some(())).await;
    assert_eq!(issuer.renewed.load(SeqCst), 0);
    clock.advance(time::Duration::minutes(40));
    let jumped = Instant::now();
    until(&mut events, rotated).await;
    assert!(jumped.elapsed() < Duration::from_secs(2));
    drop(running);
}

#[test]
fn a_wish_to_renew_is_spread_over_the_time_that_it_grants() {
    let clock = ManualClock::new(OffsetDateTime::UNIX_EPOCH);
    let planned = Due::At(OffsetDateTime::UNIX_EPOCH + LONG);
    let now = Instant::now();
    let drawn: Vec<_> = (0..200)
        .map(|_| match planned.no_later_than(Duration::from_secs(60), now, &clock) {
            Due::In(instant) => instant - now,
            Due::At(_) => panic!("the plan is later than the wish"),
        })
        .collect();
    assert!(drawn.iter().all(|wait| *wait < Duration::from_secs(61)));
    assert!(drawn.iter().any(|wait| *wait < Duration::from_secs(15)));
    assert!(drawn.iter().any(|wait| *wait > Duration::from_secs(45)));
    // What comes first anyway stays, and an issuer in a hurry is not asked without a pause.
    assert!(matches!(Due::At(OffsetDateTime::UNIX_EPOCH).no_later_than(LONG, now, &clock), Due::At(_)));
    let sooner = now + Duration::from_millis(300);
    assert!(matches!(planned.no_later_than(Duration::ZERO, sooner, &clock), Due::In(at) if at == sooner));
}

#[test]
fn an_address_is_a_host_and_a_port() {
    let bundle = FakeIssuer::new(LONG).bundle();
    for good in ["127.0.0.1:8081", "issuer.example:443", "[::1]:8081"] {
        IssuerSource::new(good, bundle.clone(), token("t")).unwrap();
    }
    for bad in ["", "issuer", ":8081", "http://issuer:8081", "user@issuer:8081", "issuer:99999", "issuer:8081/x"] {
        assert!(IssuerSource::new(bad, bundle.clone(), token("t")).is_err(), "{bad}");
    }
}

mod authorities;
mod patience;
mod pushback;
mod revocations;
mod several;
