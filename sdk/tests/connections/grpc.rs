//! gRPC: a channel and a server whose identities rotate under load.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use futures_util::{Stream, stream};
use signet_proto::identity::v1::{
    AttestRequest, AttestResponse, ChallengeRequest, ChallengeResponse, IssueJwtRequest, IssueJwtResponse,
    IssueRequest, IssueResponse, RenewRequest, RenewResponse, WatchRequest, WatchResponse, X509Svid,
    identity_service_client::IdentityServiceClient,
    identity_service_server::{IdentityService, IdentityServiceServer},
};
use signet_sdk::{
    server::{peer_identity, serve},
    tonic::MtlsChannel,
};
use signet_test_pki::Authority;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::mesh::{CLIENT, LONG, SERVER, Workload};

/// A service that says who calls: `Renew` answers with the caller's ID and the serial of its certificate.
#[derive(Clone)]
struct WhoAmI;

#[tonic::async_trait]
impl IdentityService for WhoAmI {
    async fn attest(&self, _: Request<AttestRequest>) -> Result<Response<AttestResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn challenge(&self, _: Request<ChallengeRequest>) -> Result<Response<ChallengeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let peer = peer_identity(request.extensions()).unwrap();
        let chain = vec![peer.serial().to_string().into_bytes()];
        let svid = X509Svid { spiffe_id: peer.id().to_string(), chain, ..X509Svid::default() };
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok(Response::new(RenewResponse { svid: Some(svid), bundles: None }))
    }

    async fn issue(&self, _: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn issue_jwt(&self, _: Request<IssueJwtRequest>) -> Result<Response<IssueJwtResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(Box::pin(stream::pending())))
    }
}

async fn tonic_server(workload: &Workload) -> SocketAddr {
    let listener = workload.identity.listen("127.0.0.1:0", workload.server).await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = IdentityServiceServer::new(WhoAmI);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(listener));
    address
}

async fn hyper_server(workload: &Workload, shutdown: CancellationToken) -> SocketAddr {
    let listener = workload.identity.listen("127.0.0.1:0", workload.server).await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = tonic::service::Routes::new(IdentityServiceServer::new(WhoAmI)).prepare();
    let service = hyper_util::service::TowerToHyperService::new(routes);
    tokio::spawn(serve(listener, service, shutdown, Duration::from_secs(2)));
    address
}

fn channel(workload: &Workload, address: SocketAddr) -> IdentityServiceClient<MtlsChannel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{address}")).unwrap();
    IdentityServiceClient::new(MtlsChannel::new(endpoint, workload.identity.connector(workload.client)))
}

async fn who_am_i(client: &mut IdentityServiceClient<MtlsChannel>) -> Result<(String, String), Status> {
    let svid = client.renew(RenewRequest::default()).await?.into_inner().svid.unwrap();
    Ok((svid.spiffe_id, String::from_utf8(svid.chain.concat()).unwrap()))
}

#[tokio::test]
async fn calls_are_made_with_the_newest_certificate() {
    let root = Authority::root("example.org");
    let (server, client) = (Workload::start(&root, SERVER, LONG).await, Workload::start(&root, CLIENT, LONG).await);
    let address = tonic_server(&server).await;
    let mut calls = channel(&client, address);
    let mut clone = calls.clone();
    for _ in 0..5 {
        let expected = (CLIENT.to_owned(), client.serial());
        assert_eq!(who_am_i(&mut calls).await.unwrap(), expected);
        assert_eq!(who_am_i(&mut clone).await.unwrap(), expected);
        client.rotate(&root, LONG).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_both_sides_live_three_seconds_and_rotate() {
    let root = Authority::root("example.org");
    // Certificates tell whole seconds: of three, more than two are left.
    let short = Duration::from_secs(3);
    let (server, client) = (Workload::start(&root, SERVER, short).await, Workload::start(&root, CLIENT, short).await);
    let enough = CancellationToken::new();
    // The server goes on until the last call is answered: it ends with the test.
    let calls = channel(&client, hyper_server(&server, CancellationToken::new()).await);
    let callers = call_until(&enough, &calls);
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        client.rotate(&root, short).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
        server.rotate(&root, short).await;
    }
    none_failed(enough, callers).await;
}

/// The server does not drain: whoever calls it has to know when its certificate ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_the_server_alone_lives_three_seconds_and_rotates() {
    let root = Authority::root("example.org");
    let short = Duration::from_secs(3);
    let (server, client) = (Workload::start(&root, SERVER, short).await, Workload::start(&root, CLIENT, LONG).await);
    let enough = CancellationToken::new();
    let calls = channel(&client, tonic_server(&server).await);
    let callers = call_until(&enough, &calls);
    for _ in 0..16 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.rotate(&root, short).await;
    }
    none_failed(enough, callers).await;
}

fn call_until(enough: &CancellationToken, calls: &IdentityServiceClient<MtlsChannel>) -> Vec<JoinHandle<usize>> {
    let call = |_| {
        let (mut calls, enough) = (calls.clone(), enough.clone());
        tokio::spawn(async move {
            let mut answered = 0;
            while !enough.is_cancelled() {
                who_am_i(&mut calls).await.unwrap();
                answered += 1;
            }
            answered
        })
    };
    (0..4).map(call).collect()
}

async fn none_failed(enough: CancellationToken, callers: Vec<JoinHandle<usize>>) {
    // They see it between two calls.
    enough.cancel();
    for caller in callers {
        assert!(caller.await.unwrap() > 100);
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_it_was_opened_with() {
    let root = Authority::root("example.org");
    let server = Workload::start(&root, SERVER, LONG).await;
    let client = Workload::start(&root, CLIENT, Duration::from_secs(2)).await;
    let address = tonic_server(&server).await;
    let mut calls = channel(&client, address);
    let mut stream = calls.watch(stream::pending()).await.unwrap().into_inner();
    client.rotate(&root, LONG).await;
    let end = tokio::time::timeout(Duration::from_secs(5), stream.message()).await.expect("an end in time");
    assert!(!matches!(end, Ok(Some(_))));
    who_am_i(&mut calls).await.unwrap();
}
