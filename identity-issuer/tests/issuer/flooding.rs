//! Strangers who take what they can get: none of them may keep others from their identities.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tower::{Service, ServiceExt};

use crate::harness::{ID, Identity, Issuer, Place, attest, csr, hello, new_key, renew};

/// Connections that say `opening` and then nothing, each opened again when the issuer ends it.
fn stalling(address: SocketAddr, count: usize, opening: &[u8]) -> JoinSet<()> {
    let mut attackers = JoinSet::new();
    for _ in 0..count {
        let opening = opening.to_vec();
        attackers.spawn(async move {
            loop {
                if let Ok(mut tcp) = TcpStream::connect(address).await
                    && tcp.write_all(&opening).await.is_ok()
                {
                    // Until it is ended. What is answered until then is of no interest.
                    let _ = tcp.read_to_end(&mut Vec::new()).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    attackers
}

/// What a client says first, as it goes over the wire.
fn client_hello(issuer: &Issuer) -> Vec<u8> {
    let name = rustls_pki_types::ServerName::IpAddress(issuer.started.grpc.ip().into());
    let mut hello = Vec::new();
    rustls::ClientConnection::new(issuer.stranger_config(), name).unwrap().write_tls(&mut hello).unwrap();
    hello
}

/// A renewal on a connection of its own, tried again as clients do, in a time that is short beside any limit.
async fn renews_soon(issuer: &Issuer, identity: &Identity) {
    let renewal = async {
        loop {
            if let Ok(mut client) = issuer.try_client(identity.svid.clone(), issuer.bundle.clone()).await
                && renew(&mut client, csr(&new_key())).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(4), renewal).await.expect("a renewal in time");
}

async fn renews_beside(limits: &str, opening: impl Fn(&Issuer) -> Vec<u8>) {
    let place = Place::with(limits);
    let issuer = place.serve().await;
    let joined = issuer.join(ID).await;
    let attackers = stalling(issuer.started.grpc, 100, &opening(&issuer));
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..3 {
        renews_soon(&issuer, &joined).await;
    }
    drop(attackers);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_keep_nobody_out() {
    renews_beside("limits: { handshakes: 4, silent_connections: 50 }", |_| Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_begin_to_speak_and_stall_keep_nobody_out() {
    renews_beside("limits: { handshakes: 4 }", |issuer| client_hello(issuer)[..1].to_vec()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_leave_room_for_others_of_their_address() {
    renews_beside("limits: { handshakes: 4, unfinished_per_address: 20 }", |_| Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_stall_in_the_middle_give_way() {
    let place = Place::with("limits: { handshakes: 50, handshake_timeout: 30s }");
    let issuer = place.serve().await;
    let joined = issuer.join(ID).await;
    let attackers = stalling(issuer.started.grpc, 60, &client_hello(&issuer));
    tokio::time::sleep(Duration::from_millis(300)).await;
    renews_soon(&issuer, &joined).await;
    drop(attackers);
    issuer.until_metric("signet_issuer_connections_refused_total{reason=\"gave_way\"}").await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_ended_soon() {
    let place = Place::with("limits: { first_byte_timeout: 300ms }");
    let issuer = place.serve().await;
    let mut silent = TcpStream::connect(issuer.started.grpc).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(4), silent.read(&mut [0; 1])).await;
    assert_eq!(ended.expect("an end in time").unwrap_or_default(), 0);
    issuer.until_metric("signet_issuer_connections_refused_total{reason=\"silent\"} 1").await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_do_nothing_do_not_keep_others_from_attesting() {
    let place = Place::with("limits: { anonymous_connections: 4 }");
    let issuer = place.serve().await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(issuer.stranger().await);
    }
    let joining = issuer.join(ID);
    tokio::time::timeout(Duration::from_secs(4), joining).await.expect("an identity in time");
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_never_end_their_request_do_not_keep_others_from_attesting() {
    let place = Place::with("limits: { anonymous_connections: 4 }");
    let issuer = place.serve().await;
    let mut stalled = JoinSet::new();
    for _ in 0..4 {
        let mut channel = issuer.channel_of_stranger().await;
        let request = http::Request::post("http://issuer/signet.identity.v1.IdentityService/Attest")
            .header("content-type", "application/grpc")
            .body(tonic::body::Body::new(NeverSent))
            .unwrap();
        stalled.spawn(async move { channel.ready().await.unwrap().call(request).await.map(drop) });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let joining = issuer.join(ID);
    tokio::time::timeout(Duration::from_secs(4), joining).await.expect("an identity in time");
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_workload_does_not_take_every_place_to_watch() {
    let place = Place::with("limits: { watchers: 20, watchers_per_identity: 16 }");
    let issuer = place.serve().await;
    let other = issuer.join("spiffe://example.org/shop/till").await;
    let mut streams = Vec::new();
    // As many as one client gets; then as many of another; then those of a third that the identity does not get.
    let mut refusals = Vec::new();
    for _ in 0..3 {
        let greedy = issuer.join(ID).await;
        refusals.push(loop {
            match issuer.client_of(&greedy).await.watch(hello()).await {
                Ok(stream) => streams.push(stream),
                Err(refused) => break refused,
            }
        });
    }
    let [first, _, refused] = &refusals[..] else { unreachable!() };
    assert_eq!(first.message(), "it watches 8 times already");
    assert_eq!((refused.code(), streams.len()), (tonic::Code::ResourceExhausted, 16));
    assert_eq!(refused.message(), format!("16 clients watch already as {ID}, and no identity may have more"));
    issuer.client_of(&other).await.watch(hello()).await.unwrap();
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_send_does_not_flood_the_log() {
    tracing::subscriber::set_global_default(Warnings).unwrap();
    let place = Place::new();
    let issuer = place.serve().await;
    let began = Instant::now();
    let mut strangers = JoinSet::new();
    let (address, csr) = (issuer.started.grpc, csr(&new_key()));
    for _ in 0..50 {
        let (mut client, csr) = (issuer.stranger().await, csr.clone());
        strangers.spawn(async move {
            for _ in 0..20 {
                let mut plain = TcpStream::connect(address).await.unwrap();
                plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
                // An alert, perhaps, and then the end.
                let _ = plain.read_to_end(&mut Vec::new()).await;
                attest(&mut client, "signet_join_guessed", csr.clone()).await.unwrap_err();
            }
        });
    }
    strangers.join_all().await;
    let seconds = began.elapsed().as_secs() as usize + 2;
    // Of two thousand: twenty a second of each kind, and a few of what other tests do meanwhile.
    let written = WARNINGS.load(Ordering::Relaxed);
    assert!(written > 0 && written < seconds * 40 + 100, "{written} lines in {seconds} s");
    issuer.stop().await;
}

static WARNINGS: AtomicUsize = AtomicUsize::new(0);

/// Counts the warnings of this process.
struct Warnings;

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN && metadata.target().starts_with("identity_issuer")
    }

    fn event(&self, _: &tracing::Event<'_>) {
        WARNINGS.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// The body of a request that does not come.
struct NeverSent;

impl hyper::body::Body for NeverSent {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        Poll::Pending
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_too_often_is_told_when_to_come_again_and_others_are_not_held_up() {
    let place = Place::with("limits: { renewals_per_minute: 3 }");
    let issuer = place.serve().await;
    let (greedy, other) = (issuer.join(ID).await, issuer.join(ID).await);
    let again_in = |refused: &tonic::Status| -> u64 {
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
        refused.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap()
    };
    let mut client = issuer.client_of(&greedy).await;
    for _ in 0..3 {
        renew(&mut client, csr(&new_key())).await.unwrap();
    }
    let after = again_in(&renew(&mut client, csr(&new_key())).await.unwrap_err());
    assert!((10_000..=20_000).contains(&after), "{after}");
    // Of the same SPIFFE ID, and another attestation.
    renew(&mut issuer.client_of(&other).await, csr(&new_key())).await.unwrap();
    issuer.until_metric("signet_issuer_shed_total{limit=\"certificate\"} 1").await;
    issuer.stop().await;
}

/// Each begins and is given up, in whatever state it is then.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_streams_that_are_opened_and_dropped_leave_nothing() {
    const CLIENTS: usize = 20;
    const STREAMS: usize = 5_000;
    let limits = "limits: { renewals_per_minute: 60000000, watchers: 1000, watchers_per_identity: 1000 }";
    let place = Place::with(limits);
    let issuer = place.serve().await;
    let mut opening = JoinSet::new();
    for number in 0..CLIENTS {
        let identity = issuer.join(&format!("{ID}-{number}")).await;
        let mut client = issuer.client_of(&identity).await;
        opening.spawn(async move {
            let mut served = 0;
            while served < STREAMS {
                let stream = client.watch(hello()).await;
                // A client whose last streams have not ended yet is refused another.
                let Ok(stream) = stream else { continue };
                served += 1;
                if served % 3 == 0 {
                    drop(stream.into_inner().message().await);
                }
            }
        });
    }
    while let Some(of_one) = opening.join_next().await {
        of_one.unwrap();
    }
    issuer.until_metric("signet_issuer_connected_clients 0").await;
    let joined = issuer.join(ID).await;
    let mut stream = issuer.client_of(&joined).await.watch(hello()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    issuer.stop().await;
}
