use std::time::Duration;

use signet_proto::admin::v1::RequestRenewalRequest;
use signet_proto::identity::v1::watch_response::Event;
use signet_proto::identity::v1::{WatchRequest, WatchResponse};
use tonic::{Code, Streaming};

use crate::harness::{ID, Identity, Issuer, Place, csr, eventually, new_key, renew};

async fn watch(issuer: &Issuer, identity: &Identity) -> Streaming<WatchResponse> {
    issuer.client_of(identity).await.watch(WatchRequest {}).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchResponse>) -> Event {
    let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
    message.expect("an event in time").unwrap().unwrap().event.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_gets_the_bundles_at_once_and_is_asked_to_renew() {
    let place = Place::new();
    let issuer = place.serve().await;
    let (cart, till) = (issuer.join(ID).await, issuer.join("spiffe://example.org/shop/till").await);
    let (mut cart, mut till) = (watch(&issuer, &cart).await, watch(&issuer, &till).await);
    for stream in [&mut cart, &mut till] {
        let Event::Bundles(bundles) = next(stream).await else { panic!("bundles first") };
        assert_eq!(bundles.bundles[0].x509_authorities, [issuer.bundle.authorities()[0].to_vec()]);
    }
    assert!(issuer.has_metric("signet_issuer_connected_clients 2").await);
    let mut admin = issuer.admin().await;
    let mut ask = async |id: &str, seconds| {
        let within = Some(prost_types::Duration { seconds, nanos: 0 });
        let request = RequestRenewalRequest { spiffe_id: id.to_owned(), within };
        admin.request_renewal(request).await.unwrap().into_inner().clients
    };
    assert_eq!(ask(ID, 7).await, 1);
    assert_eq!(ask("", 9).await, 2);
    let Event::RenewNow(renew_now) = next(&mut till).await else { panic!("renew now") };
    assert_eq!(renew_now.within.unwrap().seconds, 9, "not what was meant for another");
    drop((cart, till));
    issuer.until_metric("signet_issuer_connected_clients 0").await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_watches_without_a_certificate_and_places_are_bounded() {
    let place = Place::with("limits: { watchers: 1 }");
    let issuer = place.serve().await;
    let refused = issuer.stranger().await.watch(WatchRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let joined = issuer.join(ID).await;
    let _first = watch(&issuer, &joined).await;
    let refused = issuer.client_of(&joined).await.watch(WatchRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_and_its_stream_end_when_their_certificate_expires() {
    let place = Place::with("svid: { ttl: 5s }");
    let issuer = place.serve().await;
    let joined = issuer.join(ID).await;
    let mut client = issuer.client_of(&joined).await;
    let mut stream = client.watch(WatchRequest {}).await.unwrap().into_inner();
    next(&mut stream).await;
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
    assert_eq!(ended.expect("an end in time").unwrap_err().code(), Code::Unavailable);
    let late = time::OffsetDateTime::now_utc() - joined.svid.not_after();
    assert!(late >= time::Duration::ZERO && late < time::Duration::seconds(1), "{late}");
    renew(&mut client, csr(&new_key())).await.unwrap_err();
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuers_own_svid_is_renewed_by_itself_and_on_record() {
    let place = Place::with("svid: { ttl: 5s }");
    let issuer = place.serve().await;
    let own =
        "SELECT count(*) FROM issued WHERE attestation = 'issuer' AND spiffe_id = 'spiffe://example.org/signet/issuer'";
    eventually("a renewed SVID of the issuer", async || place.count(own).await >= 3).await;
    issuer.until_metric("signet_svid_rotations_total{result=\"rotated\"} 3").await;
    issuer.join(ID).await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams_do_not_hold_up_a_shutdown() {
    let place = Place::with("shutdown: { drain: 10s }");
    let issuer = place.serve().await;
    let joined = issuer.join(ID).await;
    let mut stream = watch(&issuer, &joined).await;
    next(&mut stream).await;
    let began = std::time::Instant::now();
    issuer.stop().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
}
