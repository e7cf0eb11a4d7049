//! HTTP by hyper: a pooled client and a server that drains.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{Request, Response, Version, body::Bytes, service::service_fn};
use signet_identity::{ClientKey, PeerIdentity};
use signet_sdk::{
    hyper::MtlsClient,
    server::{peer_identity, serve},
};
use signet_test_pki::Authority;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    SOON,
    mesh::{CLIENT, LONG, SERVER, Workload},
};

/// Answers with the serial of the caller's certificate, after `pause`.
async fn server(workload: &Workload, pause: Duration, shutdown: CancellationToken) -> (SocketAddr, JoinHandle<()>) {
    let listener = workload.identity.listen("127.0.0.1:0", workload.server).await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| async move {
        tokio::time::sleep(pause).await;
        let serial = peer_identity(request.extensions()).unwrap().serial().to_string();
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(serial))))
    });
    (address, tokio::spawn(serve(listener, service, shutdown, Duration::from_secs(3))))
}

fn get(address: SocketAddr, version: Version) -> Request<Empty<Bytes>> {
    Request::get(format!("https://{address}/")).version(version).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn requests_are_made_with_the_newest_certificate_and_know_their_server() {
    let root = Authority::root("example.org");
    let (workload, caller) = (Workload::start(&root, SERVER, LONG).await, Workload::start(&root, CLIENT, LONG).await);
    let (address, _) = server(&workload, Duration::ZERO, CancellationToken::new()).await;
    let client = MtlsClient::new(caller.identity.connector(caller.client));
    for _ in 0..5 {
        for _ in 0..3 {
            let response = client.request(get(address, Version::HTTP_11)).await.unwrap();
            assert_eq!(response.extensions().get::<Arc<PeerIdentity>>().unwrap().id().as_str(), SERVER);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, caller.serial());
        }
        caller.rotate(&root, LONG).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_http2_request_fails_while_both_sides_live_three_seconds_and_rotate() {
    no_request_fails_in_rotation(|caller| caller.client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_http1_request_fails_while_both_sides_live_three_seconds_and_rotate() {
    no_request_fails_in_rotation(|caller| caller.http1_client).await;
}

async fn no_request_fails_in_rotation(key: fn(&Workload) -> ClientKey) {
    let root = Authority::root("example.org");
    let short = Duration::from_secs(3);
    let (workload, caller) = (Workload::start(&root, SERVER, short).await, Workload::start(&root, CLIENT, short).await);
    let shutdown = CancellationToken::new();
    let (address, _) = server(&workload, Duration::from_millis(2), CancellationToken::new()).await;
    let client = MtlsClient::new(caller.identity.connector(key(&caller)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (client, shutdown) = (client.clone(), shutdown.clone());
            tokio::spawn(async move {
                let mut answered = 0;
                while !shutdown.is_cancelled() {
                    let response = client.request(get(address, Version::HTTP_11)).await.unwrap();
                    response.into_body().collect().await.unwrap();
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        caller.rotate(&root, short).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
        workload.rotate(&root, short).await;
    }
    shutdown.cancel();
    for caller in callers {
        assert!(caller.await.unwrap() > 100);
    }
}

#[tokio::test]
async fn a_connection_is_drained_once_another_authority_vouches_for_the_server() {
    let root = Authority::root("example.org");
    let (before, next) = (root.intermediate(), root.intermediate());
    let (workload, caller) = (Workload::start(&before, SERVER, LONG).await, Workload::start(&root, CLIENT, LONG).await);
    let (begun, mut begins) = mpsc::channel(1);
    let go = Arc::new(Notify::new());
    let listener = workload.identity.listen("127.0.0.1:0", workload.server).await.unwrap();
    let address = listener.local_addr().unwrap();
    let held = go.clone();
    let service = service_fn(move |_: Request<hyper::body::Incoming>| {
        let (begun, held) = (begun.clone(), held.clone());
        async move {
            begun.send(()).await.unwrap();
            held.notified().await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"whole"))))
        }
    });
    tokio::spawn(serve(listener, service, CancellationToken::new(), Duration::from_secs(3)));
    let connector = caller.identity.connector(caller.http1_client);
    let mut stream = connector.connect(&format!("https://{address}/").parse().unwrap()).await.unwrap();
    let mut answers = String::new();
    for authority in [&before, &next] {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        begins.recv().await.unwrap();
        // Another certificate of the same authority ends nothing.
        workload.rotate(authority, LONG).await;
        go.notify_one();
        let mut read = 1;
        while read > 0 && answers.matches("whole").count() < 1 {
            let mut buffer = [0; 1024];
            read = timeout(SOON, stream.read(&mut buffer)).await.expect("an answer in time").unwrap();
            answers += &String::from_utf8_lossy(&buffer[..read]);
        }
        assert!(answers.starts_with("HTTP/1.1 200") && answers.ends_with("whole"), "{answers}");
        if std::ptr::eq(authority, &before) {
            answers.clear();
        }
    }
    let end = timeout(SOON, stream.read(&mut [0; 1])).await.expect("an end in time");
    assert_eq!(end.unwrap_or(0), 0);
}

#[tokio::test]
async fn shutdown_answers_what_is_under_way_and_takes_nothing_new() {
    let root = Authority::root("example.org");
    let (workload, caller) = (Workload::start(&root, SERVER, LONG).await, Workload::start(&root, CLIENT, LONG).await);
    let shutdown = CancellationToken::new();
    let (address, serving) = server(&workload, Duration::from_millis(400), shutdown.clone()).await;
    let client = MtlsClient::new(caller.identity.connector(caller.client));
    let under_way = tokio::spawn({
        let client = client.clone();
        async move { client.request(get(address, Version::HTTP_11)).await }
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    shutdown.cancel();
    assert!(under_way.await.unwrap().unwrap().status().is_success());
    timeout(Duration::from_secs(2), serving).await.expect("an end in time").unwrap();
    assert!(client.request(get(address, Version::HTTP_11)).await.is_err());
}
