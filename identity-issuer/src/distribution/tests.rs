#![allow(clippy::unwrap_used)]
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

fn distribution(max_clients: usize, max_per_identity: usize) -> Distribution {
    Distribution::new((Bundles::new(BundleSet::default()), Publication::new()), max_clients, max_per_identity)
}

/// At this second, when so many certificates were on record.
fn ask(distribution: &Distribution, id: Option<WorkloadId>, within: u64, now: OffsetDateTime) -> usize {
    let (at, within, position) = (now, Duration::from_secs(within), now.unix_timestamp());
    let whose = id.map_or(Whose::Everybody, Whose::Id);
    distribution.request_renewal(&RenewalRequest { whose, at, within, position })
}

fn id(path: &str) -> WorkloadId {
    format!("spiffe://example.org{path}").parse().unwrap()
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

fn next_number() -> i64 {
    static NEXT: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(1000);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn watcher(id: WorkloadId, number: i64) -> Watcher {
    Watcher {
        attested: id.clone(),
        id,
        attestation: AttestationNumber(number),
        position: 0,
        serial: SerialNumber::from_be_bytes(&number.to_be_bytes()).unwrap(),
        authority: b"one".to_vec(),
    }
}

fn subscribe(distribution: &Distribution, id: WorkloadId) -> Result<Subscription, TooManyClients> {
    distribution.subscribe(watcher(id, next_number()), OffsetDateTime::UNIX_EPOCH)
}

fn next_now(subscription: &mut Subscription) -> Option<Event> {
    match pin!(subscription.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(event) => event,
        Poll::Pending => None,
    }
}

#[test]
fn the_first_event_is_the_full_state_and_then_there_is_silence() {
    let distribution = distribution(10, 10);
    let mut client = subscribe(&distribution, id("/a")).unwrap();
    assert!(matches!(next_now(&mut client), Some(Event::Bundles)));
    assert!(next_now(&mut client).is_none());
}

#[test]
fn only_holders_of_the_identity_are_asked_to_renew() {
    let distribution = distribution(10, 10);
    let mut clients = ["/a", "/a", "/b"].map(|path| subscribe(&distribution, id(path)).unwrap());
    clients.iter_mut().for_each(|client| assert!(next_now(client).is_some()));
    assert_eq!(ask(&distribution, Some(id("/a")), 5, at(1)), 2);
    assert!(
        matches!(next_now(&mut clients[1]), Some(Event::RenewNow(RenewNow { within, .. })) if within.as_secs() == 5)
    );
    assert!(next_now(&mut clients[2]).is_none());
    assert_eq!(ask(&distribution, None, 0, at(2)), 3);
    assert_eq!(ask(&distribution, Some(id("/c")), 0, at(3)), 0);
}

#[test]
fn a_slow_client_gets_the_latest_and_no_queue() {
    let distribution = distribution(10, 10);
    let mut client = subscribe(&distribution, id("/a")).unwrap();
    next_now(&mut client);
    for seconds in 0..1000 {
        ask(&distribution, None, seconds as u64, at(seconds));
    }
    assert!(matches!(next_now(&mut client), Some(Event::RenewNow(RenewNow { within, .. })) if within.as_secs() == 999));
    assert!(next_now(&mut client).is_none());
}

#[test]
fn whoever_was_asked_or_has_renewed_since_is_not_asked_again() {
    let distribution = distribution(10, 10);
    let subscribe = |position| {
        let watcher = Watcher { position, ..watcher(id("/a"), next_number()) };
        distribution.subscribe(watcher, at(100)).unwrap()
    };
    let mut clients = [subscribe(10), subscribe(30)];
    clients.iter_mut().for_each(|client| assert!(matches!(next_now(client), Some(Event::Bundles))));
    assert_eq!(ask(&distribution, None, 0, at(20)), 1);
    assert!(next_now(&mut clients[0]).is_some() && next_now(&mut clients[1]).is_none());
    // As another issuer reads it from the record, again and again.
    for _ in 0..2 {
        assert_eq!(ask(&distribution, None, 0, at(20)), 0);
        assert!(clients.iter_mut().all(|client| next_now(client).is_none()));
    }
    // One who came behind an older wish than another is asked by the later one.
    ask(&distribution, Some(id("/a")), 7, at(15));
    let mut late = subscribe(12);
    next_now(&mut late);
    assert!(matches!(next_now(&mut late), Some(Event::RenewNow(RenewNow { within, .. })) if within.is_zero()));
}

#[test]
fn the_streams_of_whoever_is_ended_end_and_no_others() {
    let distribution = distribution(10, 10);
    let subscribe = |path, number| {
        let watcher = Watcher { attested: id("/agent"), ..watcher(id(path), number) };
        distribution.subscribe(watcher, OffsetDateTime::UNIX_EPOCH).unwrap()
    };
    let mut clients = [subscribe("/a", 1), subscribe("/a", 2), subscribe("/b", 3)];
    let live = |clients: &mut [Subscription]| {
        let open = |client: &mut Subscription| pin!(client.next()).poll(&mut Context::from_waker(Waker::noop()));
        clients.iter_mut().map(|client| !matches!(open(client), Poll::Ready(None))).collect::<Vec<_>>()
    };
    distribution.end(&Holder::Attestation(AttestationNumber(2)));
    assert_eq!(live(&mut clients), [true, false, true]);
    distribution.end(&Holder::Id(id("/a")));
    assert_eq!(live(&mut clients), [false, false, true]);
    assert_eq!(distribution.connected().len(), 3);
    distribution.end(&Holder::Id(id("/agent")));
    assert_eq!(live(&mut clients), [false, false, false]);
}

#[test]
fn few_do_at_once_what_they_are_told_and_many_over_some_seconds() {
    let distribution = distribution(10_000, 10_000);
    let mut clients = vec![distribution.subscribe(watcher(id("/a"), 1), at(1)).unwrap()];
    assert!(clients[0].spread().is_zero());
    clients.extend((2..=501).map(|number| distribution.subscribe(watcher(id("/a"), number), at(1)).unwrap()));
    assert_eq!(clients[0].spread(), Duration::from_secs(1));
    clients.extend((502..=6_000).map(|number| distribution.subscribe(watcher(id("/a"), number), at(1)).unwrap()));
    assert_eq!(clients[0].spread(), Duration::from_secs(10));
}

#[test]
fn one_stream_that_is_current_does_not_hide_another_that_is_not() {
    let distribution = distribution(10, 10).shared();
    let subscribe = || distribution.subscribe(watcher(id("/a"), 7), at(1)).unwrap();
    let (behind, current) = (subscribe(), subscribe());
    behind.sent(Resource::Bundles, Version::of(b"x"), at(2));
    current.held_against(3);
    let of = |progress: &HashMap<AttestationNumber, Progress>| progress[&AttestationNumber(7)].is_current();
    assert!(!of(&distribution.connected()));
    assert!(!distribution.changed()[0].1.as_ref().unwrap().is_current());
    behind.applied(Resource::Bundles, Version::of(b"x"), String::new(), at(3));
    assert!(of(&distribution.connected()));
    drop((behind, current));
    assert!(matches!(distribution.changed()[..], [(AttestationNumber(7), None)]));
    assert!(distribution.changed().is_empty());
}

#[test]
fn places_are_bounded_and_given_up_with_the_subscription() {
    let distribution = distribution(1, 1);
    let first = subscribe(&distribution, id("/a")).unwrap();
    assert_eq!(subscribe(&distribution, id("/a")).unwrap_err(), TooManyClients::InAll { max: 1 });
    drop(first);
    assert_eq!(distribution.client_count(), 0);
    subscribe(&distribution, id("/a")).unwrap();
}

#[test]
fn one_identity_leaves_places_to_others() {
    let distribution = distribution(10, 2);
    let taken = [(); 2].map(|()| subscribe(&distribution, id("/a")).unwrap());
    let refused = subscribe(&distribution, id("/a")).unwrap_err();
    assert_eq!(refused, TooManyClients::OfIdentity { id: id("/a"), max: 2 });
    let _other = subscribe(&distribution, id("/b")).unwrap();
    drop(taken);
    subscribe(&distribution, id("/a")).unwrap();
    assert_eq!(lock(&distribution.clients).per_identity.len(), 1);
}

#[test]
fn one_client_leaves_places_to_others_of_its_identity() {
    let distribution = distribution(100, 100);
    let watch = |number| distribution.subscribe(watcher(id("/a"), number), OffsetDateTime::UNIX_EPOCH);
    let taken: Vec<_> = (0..MOST_OF_ATTESTATION).map(|_| watch(1).unwrap()).collect();
    assert_eq!(watch(1).unwrap_err(), TooManyClients::OfAttestation);
    watch(2).unwrap();
    drop(taken);
    watch(1).unwrap();
    assert!(lock(&distribution.clients).per_attestation.is_empty());
}

#[test]
fn whoever_was_not_there_when_it_was_asked_is_asked_when_it_comes() {
    let distribution = distribution(100, 100);
    ask(&distribution, Some(id("/a")), 5, at(100));
    let asked = |path: &str, position| {
        let watcher = Watcher { position, ..watcher(id(path), next_number()) };
        let mut client = distribution.subscribe(watcher, at(200)).unwrap();
        assert!(matches!(next_now(&mut client), Some(Event::Bundles)));
        matches!(next_now(&mut client), Some(Event::RenewNow(_)))
    };
    assert!(asked("/a", 99) && !asked("/a", 101) && !asked("/b", 99));
    ask(&distribution, None, 0, at(150));
    assert!(asked("/a", 101) && asked("/b", 149) && !asked("/b", 151));
    for number in 0..2 * wishes::MOST {
        ask(&distribution, Some(id(&format!("/{number}"))), 0, at(number as i64));
    }
    assert_eq!(lock(&distribution.clients).wishes.of.len(), wishes::MOST);
}
