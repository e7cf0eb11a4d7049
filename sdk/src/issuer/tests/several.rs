//! Several issuers: which is asked, and what comes of one that fails.

use super::*;

#[tokio::test]
async fn of_two_issuers_the_other_is_asked_when_one_goes() {
    let issuer = FakeIssuer::new(LONG);
    let (one, two) = (issuer.serve().await, issuer.serve().await);
    let source = source_of(&issuer, [one.address, two.address]);
    let (starting, mut events) = begin_with(source, Arc::new(SystemClock));
    let running = starting.identity().await.unwrap();
    until(&mut events, connected).await;
    let in_time = Duration::from_secs(2);
    // It may be the one that is preferred, or not.
    let address = one.address;
    drop(one);
    if tokio::time::timeout(in_time, until(&mut events, disconnected)).await.is_ok() {
        tokio::time::timeout(in_time, until(&mut events, connected)).await.expect("the second");
    }
    let _one = issuer.serve_as(fake::ISSUER, address).await;
    // Now it is at this one for certain.
    drop(two);
    until(&mut events, disconnected).await;
    tokio::time::timeout(in_time, until(&mut events, connected)).await.expect("the first again");
    issuer.wish_renewal(1).await;
    until(&mut events, rotated).await;
    assert_eq!(running.monitor.rotations(RotationResult::Failed), 0);
}

#[tokio::test]
async fn one_that_failed_is_not_asked_again_for_a_while() {
    let broken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = broken.local_addr().unwrap();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = {
        let asked = asked.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = broken.accept().await {
                asked.fetch_add(1, SeqCst);
                drop(connection);
            }
        })
    };
    const PROGRAMS: usize = 6;
    // A program goes on, and asks others when its issuer is gone.
    let mut kept = Vec::new();
    for _ in 0..PROGRAMS {
        let issuer = FakeIssuer::new(LONG);
        let serving = issuer.serve().await;
        let source = source_of(&issuer, [serving.address, address]);
        let (starting, mut events) = begin_with(source, Arc::new(SystemClock));
        let _running = starting.identity().await.unwrap();
        until(&mut events, rotated).await;
        for stream in 1..=3 {
            // Once its stream is open.
            issuer.wish_renewal(stream).await;
            until(&mut events, rotated).await;
        }
        kept.push(serving);
    }
    counting.abort();
    assert!(asked.load(SeqCst) <= PROGRAMS, "{asked:?}");
}

#[tokio::test]
async fn an_issuer_that_takes_connections_and_says_nothing_is_left_for_another() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for _ in 0..4 {
        issuer.add_token("good-token");
        let source = source_of(&issuer, [serving.address, mute.local_addr().unwrap()]);
        let (starting, _events) = begin_with(source, Arc::new(SystemClock));
        tokio::time::timeout(Duration::from_secs(2), starting.identity()).await.expect("in time").unwrap();
    }
}

/// A place whose kernel drops what comes, as a dead host's network does.
async fn black_hole() -> (SocketAddr, Vec<impl Drop>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap().into_std().unwrap();
    let address = listener.local_addr().unwrap();
    let mut full: Vec<std::os::fd::OwnedFd> = vec![listener.into()];
    // Until its queue is full.
    while let Ok(Ok(queued)) =
        tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await
    {
        full.push(queued.into_std().unwrap().into());
    }
    (address, full)
}

#[tokio::test]
async fn of_three_issuers_one_that_is_stopped_and_one_that_is_unreachable_keep_nobody_waiting() {
    const PROGRAMS: usize = 8;
    let issuer = FakeIssuer::new(LONG);
    let (mut stopped, alive) = (issuer.serve().await, issuer.serve().await);
    stopped.stop();
    let (unreachable, _full) = black_hole().await;
    (1..PROGRAMS).for_each(|_| issuer.add_token("good-token"));
    let begun = Instant::now();
    let starting = (0..PROGRAMS).map(async |_| {
        let source = source_of(&issuer, [stopped.address, unreachable, alive.address]);
        let (starting, _events) = begin_with(source, Arc::new(SystemClock));
        let running = starting.identity().await.unwrap();
        assert_eq!(running.monitor.rotations(RotationResult::Failed), 0);
        begun.elapsed()
    });
    let took = futures_util::future::join_all(starting).await;
    println!("{took:?}");
    // Of eight there is one that asks the live one last: by turns that were twice the patience.
    assert!(begun.elapsed() < 2 * OF_SEVERAL, "{took:?}");
}

#[tokio::test]
async fn an_issuer_that_is_stopped_while_it_attests_is_found_out_and_another_asked() {
    let one = FakeIssuer::new(LONG);
    let two = one.sibling();
    let mut serving = [one.serve().await, two.serve().await];
    both_misbehave(&one, &two, Misdeed::Silence);
    // Not the call's own limit is what helps.
    let timeouts = Timeouts { request: Duration::from_secs(120), ..Timeouts::default() };
    let source = source_of(&one, [serving[0].address, serving[1].address]).timeouts(timeouts);
    let (starting, mut events) = begin_with(source, Arc::new(SystemClock));
    so(|| one.attested.load(SeqCst) + two.attested.load(SeqCst) == 1).await;
    let first = usize::from(two.attested.load(SeqCst) == 1);
    let other = [&two, &one][first];
    other.misbehave(None);
    serving[first].stop();
    let stopped = Instant::now();
    let cause = until(&mut events, failed).await;
    tokio::time::timeout(Duration::from_secs(15), starting.identity()).await.expect("in time").unwrap();
    println!("attested {:?} after the stop: {cause}", stopped.elapsed());
    assert_eq!(other.attested.load(SeqCst), 1);
}

#[tokio::test]
async fn a_renewal_that_a_stopped_issuer_does_not_answer_is_another_ones() {
    let one = FakeIssuer::new(LONG);
    let two = one.sibling();
    let mut serving = [one.serve().await, two.serve().await];
    let clock = ManualClock::new(OffsetDateTime::now_utc());
    let (starting, mut events) = begin_with(source_of(&one, [serving[0].address, serving[1].address]), clock.shared());
    let running = starting.identity().await.unwrap();
    until(&mut events, connected).await;
    let first = usize::from(two.watched.load(SeqCst) == 1);
    let other = [&two, &one][first];
    serving[first].stop();
    clock.advance(time::Duration::minutes(40));
    let due = Instant::now();
    until(&mut events, rotated).await;
    println!("renewed {:?} after it was due", due.elapsed());
    assert_eq!(other.renewed.load(SeqCst), 1);
    // Nobody waited for as long as the only issuer may take.
    assert!(due.elapsed() < Timeouts::default().connect, "{:?}", due.elapsed());
    assert!(running.monitor.rotations(RotationResult::Failed) <= 1);
}

#[tokio::test]
async fn a_stream_of_one_of_two_that_stop_is_opened_at_the_third() {
    let one = FakeIssuer::new(LONG);
    let issuers = [one.sibling(), one.sibling(), one];
    let mut serving = [issuers[0].serve().await, issuers[1].serve().await, issuers[2].serve().await];
    let addresses = [0, 1, 2].map(|place| serving[place].address);
    let (starting, mut events) = begin_with(source_of(&issuers[0], addresses), Arc::new(SystemClock));
    let _running = starting.identity().await.unwrap();
    until(&mut events, connected).await;
    let first = issuers.iter().position(|issuer| issuer.watched.load(SeqCst) == 1).unwrap();
    let (also, third) = ((first + 1) % 3, (first + 2) % 3);
    serving[first].stop();
    serving[also].stop();
    let stopped = Instant::now();
    until(&mut events, connected).await;
    println!("connected elsewhere {:?} after the stop", stopped.elapsed());
    assert_eq!(issuers[third].watched.load(SeqCst), 1);
}

#[tokio::test]
async fn an_issuer_that_refuses_streams_does_not_keep_its_clients() {
    let one = FakeIssuer::new(LONG);
    let two = one.sibling();
    let serving = [one.serve().await, two.serve().await];
    both_misbehave(&one, &two, Misdeed::NoStreams);
    let (starting, mut events) =
        begin_with(source_of(&one, [serving[0].address, serving[1].address]), Arc::new(SystemClock));
    so(|| one.streams_refused.load(SeqCst) + two.streams_refused.load(SeqCst) > 0).await;
    let attested_by_second = two.attested.load(SeqCst) == 1;
    let (first, other) = if attested_by_second { (&two, &one) } else { (&one, &two) };
    so(|| first.streams_refused.load(SeqCst) > 0).await;
    other.misbehave(None);
    until(&mut events, connected).await;
    // The renewals are where the stream is.
    other.wish_renewal(1).await;
    until(&mut events, |event| rotated(event).filter(|_| other.renewed.load(SeqCst) > 0)).await;
    assert_eq!((first.renewed.load(SeqCst), first.watched.load(SeqCst)), (0, 0));
    assert_eq!(starting.monitor().rotations(RotationResult::Refused), 0);
}
