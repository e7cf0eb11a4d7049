//! Several issuers: which is asked, and what comes of one that fails.

use super::*;

#[tokio::test]
async fn of_two_issuers_the_other_is_asked_when_one_goes() {
    let issuer = FakeIssuer::new(LONG);
    let (one, two) = (issuer.serve().await, issuer.serve().await);
    let addresses = [one.address, two.address].map(|address| address.to_string());
    let addresses = addresses.iter().map(String::as_str);
    let source = IssuerSource::at(addresses, issuer.bundle(), token("good-token")).unwrap();
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
        let addresses = [serving.address, address].map(|address| address.to_string());
        let addresses = addresses.iter().map(String::as_str);
        let source = IssuerSource::at(addresses, issuer.bundle(), token("good-token")).unwrap();
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
        let addresses = [serving.address, mute.local_addr().unwrap()].map(|address| address.to_string());
        let addresses = addresses.iter().map(String::as_str);
        let source = IssuerSource::at(addresses, issuer.bundle(), token("good-token")).unwrap();
        let (starting, _events) = begin_with(source, Arc::new(SystemClock));
        tokio::time::timeout(Duration::from_secs(2), starting.identity()).await.expect("in time").unwrap();
    }
}
