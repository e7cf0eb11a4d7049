//! Issuers that have no time and say when to come again (gRPC A6).

use tonic::{Code, Status};

use super::{super::client::CallError, *};

#[tokio::test]
async fn an_issuer_that_has_no_time_is_left_alone_for_as_long_as_it_says() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let (_running, mut events) = joined(&issuer, &serving).await;
    issuer.misbehave(Misdeed::Busy);
    issuer.wish_renewal(1).await;
    until(&mut events, failed).await;
    let (asked, told) = (issuer.renewed.load(SeqCst), Instant::now());
    let again = async {
        while issuer.renewed.load(SeqCst) == asked {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, again).await.expect("once more");
    assert!(told.elapsed() >= Duration::from_millis(1400), "{:?}", told.elapsed());
    issuer.misbehave(None);
    until(&mut events, rotated).await;
}

#[tokio::test]
async fn a_stream_that_was_refused_is_not_asked_for_sooner_than_told() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    issuer.misbehave(Misdeed::BusyStreams);
    let (starting, mut events) =
        begin_with(source(&issuer, serving.address, token("good-token")), Arc::new(SystemClock));
    so(|| issuer.streams_refused.load(SeqCst) == 1).await;
    let told = Instant::now();
    so(|| issuer.streams_refused.load(SeqCst) == 2).await;
    assert!(told.elapsed() >= Duration::from_millis(1400), "{:?}", told.elapsed());
    assert!(starting.monitor().live().is_none(), "nobody is to be served before it is known what is revoked");
    issuer.misbehave(None);
    until(&mut events, connected).await;
}

#[tokio::test]
async fn of_two_that_have_no_time_each_is_asked_once_and_then_neither_before_the_time_that_was_told() {
    let one = FakeIssuer::new(LONG);
    let two = one.sibling();
    let serving = [one.serve().await, two.serve().await];
    let clock = ManualClock::new(OffsetDateTime::now_utc());
    let (starting, mut events) = begin_with(source_of(&one, [serving[0].address, serving[1].address]), clock.shared());
    let running = starting.identity().await.unwrap();
    until(&mut events, connected).await;
    both_misbehave(&one, &two, Misdeed::Busy);
    clock.advance(time::Duration::minutes(40));
    let asked = || one.renewed.load(SeqCst) + two.renewed.load(SeqCst);
    so(|| asked() >= 1).await;
    let told = Instant::now();
    so(|| asked() >= 2).await;
    assert_eq!((one.renewed.load(SeqCst), two.renewed.load(SeqCst)), (1, 1));
    so(|| asked() >= 3).await;
    assert!(told.elapsed() >= Duration::from_millis(1400), "{:?}", told.elapsed());
    both_misbehave(&one, &two, None);
    until(&mut events, rotated).await;
    assert!(matches!(running.monitor.state(), State::Live { .. }));
}

#[tokio::test]
async fn whoever_is_refused_for_a_minute_is_attested_by_another_at_once() {
    const PROGRAMS: usize = 6;
    let busy = FakeIssuer::new(LONG);
    let free = busy.sibling();
    let serving = [busy.serve().await, free.serve().await];
    busy.misbehave(Misdeed::Busy);
    busy.push_back("60000");
    for _ in 1..PROGRAMS {
        busy.add_token("good-token");
        free.add_token("good-token");
    }
    let starting = (0..PROGRAMS).map(async |_| {
        let source = source_of(&free, [serving[0].address, serving[1].address]);
        let (starting, _events) = begin_with(source, Arc::new(SystemClock));
        tokio::time::timeout(Duration::from_secs(15), starting.identity()).await.expect("in time").unwrap()
    });
    let _running = futures_util::future::join_all(starting).await;
    assert_eq!(free.attested.load(SeqCst), PROGRAMS);
}

/// The other issuer is away, so that there is nobody but the one that wants to be left alone for longer than the SVID lives.
#[tokio::test]
async fn a_pause_that_is_longer_than_the_certificate_lives_does_not_cost_the_identity() {
    let issuer = FakeIssuer::new(Duration::from_secs(8));
    let serving = issuer.serve().await;
    let (starting, mut events) = begin_with(source_of(&issuer, [serving.address, nobody()]), Arc::new(SystemClock));
    let running = starting.identity().await.unwrap();
    until(&mut events, rotated).await;
    let held = running.live.load_full();
    issuer.push_back("18446744073709551615");
    issuer.misbehave(Misdeed::Busy);
    so(|| issuer.renewed.load(SeqCst) >= 1).await;
    issuer.misbehave(None);
    until(&mut events, rotated).await;
    assert!(held.svid().is_valid_at(OffsetDateTime::now_utc()));
    assert_eq!(issuer.attested.load(SeqCst), 1);
}

#[test]
fn no_pause_is_longer_than_a_minute_and_what_is_no_pause_is_none() {
    let told = |value: &str| {
        let mut status = Status::new(Code::ResourceExhausted, "");
        status.metadata_mut().insert("grpc-retry-pushback-ms", value.parse().unwrap());
        CallError::Refused { address: String::new(), status: Box::new(status) }.come_again()
    };
    let cases = [
        ("0", Some(Duration::ZERO)),
        ("1500", Some(Duration::from_millis(1500))),
        ("60001", Some(Duration::from_secs(60))),
        ("18446744073709551615", Some(Duration::from_secs(60))),
        ("18446744073709551616", None),
        ("-1", None),
        ("", None),
        ("1.5", None),
        ("soon", None),
        ("NaN", None),
    ];
    for (value, pause) in cases {
        assert_eq!(told(value), pause, "{value}");
    }
}
