//! A gRPC server and its client, over mTLS, with one identity from files. They are read again when they change:
//! `svid.pem` (leaf first), `svid.key` and `bundle.pem` in the folder that is given, as an agent, cert-manager or
//! another program leaves them there.
//!
//! ```text
//! cargo run -p signet-sdk --example grpc -- FOLDER
//! ```

use std::sync::Arc;

use anyhow::Context as _;
use signet_identity::{
    ClientAuthentication, ClientCredentials, ClientPolicy, ServerPolicy, SystemClock, TlsPolicies, WorkloadId,
};
use signet_sdk::{FilePaths, FilesSource, server::peer_identity, tonic::MtlsChannel};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    transport::{Endpoint, Server},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init();
    let folder = std::env::args().nth(1).context("usage: grpc FOLDER [SERVER-ID]")?;
    let server_id = std::env::args().nth(2).unwrap_or_else(|| "spiffe://example.org/**".to_owned());

    let mut policies = TlsPolicies::new(Arc::new(SystemClock));
    let alpn = vec![b"h2".to_vec()];
    let inbound = policies.server(ServerPolicy { alpn: alpn.clone(), clients: ClientAuthentication::Required });
    let servers = [server_id.parse()?].into_iter().collect();
    let outbound = policies.client(ClientPolicy { alpn, servers, credentials: ClientCredentials::Svid });

    let source = FilesSource::new(FilePaths::within(folder.as_ref()));
    let identity = signet_sdk::start(source, policies, CancellationToken::new()).await?;

    let listener = identity.listen("127.0.0.1:0", inbound).await?;
    let address = listener.local_addr()?;
    let (_, health) = tonic_health::server::health_reporter();
    let health = tonic::service::interceptor::InterceptedService::new(health, log_caller);
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(listener));

    let channel = MtlsChannel::new(Endpoint::from_shared(format!("https://{address}"))?, identity.connector(outbound));
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
    println!("{:?}", answer.into_inner().status());
    Ok(())
}

fn log_caller(request: Request<()>) -> Result<Request<()>, Status> {
    let caller: Option<&WorkloadId> = peer_identity(request.extensions()).map(|peer| peer.id());
    tracing::info!(?caller, "asked for its health");
    Ok(request)
}
