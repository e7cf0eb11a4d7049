//! Issuing over the wire: a renewal through gRPC and mTLS, with policy, signature and the record that is on disk before the
//! certificate leaves: in SQLite, and in a PostgreSQL on this machine, each waiting for the disk. The keys and requests are made
//! beforehand; client and issuer share the machine.

#![allow(clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use identity_issuer::{Config, Environment, Passphrase, SealStrength, Started, root};
use signet_identity::{ClientCredentials, ClientPolicy, SystemClock, TlsPolicies, TrustBundle, WorkloadId};
use signet_proto::admin::v1::CreateJoinTokenRequest;
use signet_proto::admin::v1::admin_service_client::AdminServiceClient;
use signet_proto::identity::v1::RenewRequest;
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_sdk::tonic::MtlsChannel;
use signet_sdk::{IssuerSource, JoinToken};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

const AT_ONCE: usize = 64;
const DAY: Duration = Duration::from_secs(86_400);

fn issuance(criterion: &mut Criterion) {
    let server = signet_test_postgres::Server::start(true);
    let postgres = format!("database: {{ url: \"{}\" }}\n", server.database());
    for (name, database) in [("SQLite", ""), ("PostgreSQL", &*postgres)] {
        measure(criterion, name, database);
    }
}

fn measure(criterion: &mut Criterion, name: &str, database: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let client = attested_client(folder.path(), database);
    let client = runtime.block_on(client).expect("an issuer and a client that it knows");

    let mut group = criterion.benchmark_group(format!("issuance, {name}"));
    group.throughput(Throughput::Elements(1));
    group.bench_function("renew, one at a time", |bencher| {
        bencher.iter_batched(request, |csr| runtime.block_on(renew(client.clone(), csr)), BatchSize::SmallInput);
    });
    group.throughput(Throughput::Elements(AT_ONCE as u64));
    group.bench_function("renew, 64 at once", |bencher| {
        bencher.iter_batched(
            || (0..AT_ONCE).map(|_| request()).collect::<Vec<_>>(),
            |requests| {
                runtime.block_on(async {
                    let mut renewing: JoinSet<_> = requests.into_iter().map(|csr| renew(client.clone(), csr)).collect();
                    while let Some(done) = renewing.join_next().await {
                        done.expect("a renewal");
                    }
                });
            },
            BatchSize::SmallInput,
        );
    });
}

async fn renew(mut client: IdentityServiceClient<MtlsChannel>, csr: Vec<u8>) {
    client.renew(RenewRequest { csr, ..RenewRequest::default() }).await.expect("a certificate");
}

/// A certificate request for a new key.
fn request() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("a key");
    let request = rcgen::CertificateParams::default().serialize_request(&key).expect("a request");
    request.der().to_vec()
}

/// Starts an issuer as `signet dev` does, and attests to it by a join token.
async fn attested_client(folder: &Path, database: &str) -> anyhow::Result<IdentityServiceClient<MtlsChannel>> {
    let trust_domain = "example.org".parse()?;
    let root_folder = folder.join("root");
    let passphrase = Passphrase::read(&b"bench"[..])?;
    let made = root::init(&root_folder, &trust_domain, &passphrase, SealStrength::MINIMAL, DAY, &SystemClock)?;
    std::fs::write(folder.join("passphrase"), "bench\n")?;
    let file = "trust_domain: example.org
state: state
trust_bundle: root/root.pem
listen: 127.0.0.1:0
admin: 127.0.0.1:0
web: { listen: 127.0.0.1:0 }
authority: { certificate: authority.pem, passphrase_file: passphrase }
limits: { renewals_per_minute: 60000000 }
";
    let config = Config::parse(&folder.join("issuer.yaml"), &format!("{file}{database}"))?;
    let (announce, announced) = tokio::sync::oneshot::channel();
    let environment = Environment { clock: Arc::new(SystemClock), log: None };
    let announce = move |started: Started| drop(announce.send(started));
    tokio::spawn(identity_issuer::run(config, environment, announce, CancellationToken::new()));
    let mut issuer = announced.await?;

    let csr = std::fs::read(&issuer.certificate_request)?;
    let signed = root::sign(&root_folder, &passphrase, &csr, 0, DAY, &SystemClock)?;
    std::fs::write(&issuer.certificate, signed.to_pem())?;
    issuer.phase.wait_for(|phase| *phase == identity_issuer::Phase::Serving).await?;

    let socket = issuer.admin_socket.clone();
    let endpoint = Endpoint::from_static("http://issuer.invalid");
    let channel = endpoint.connect_with_connector(tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    }));
    let asked = CreateJoinTokenRequest { spiffe_id: "spiffe://example.org/bench".to_owned(), ttl: None };
    let token = AdminServiceClient::new(channel.await?).create_join_token(asked).await?.into_inner().join_token;

    let issuer_id: WorkloadId = "spiffe://example.org/signet/issuer".parse()?;
    let mut policies = TlsPolicies::new(Arc::new(SystemClock));
    let to_issuer = policies.client(ClientPolicy {
        alpn: vec![b"h2".to_vec()],
        servers: [(&issuer_id).into()].into_iter().collect(),
        credentials: ClientCredentials::Svid,
    });
    let bundle = TrustBundle::new(trust_domain, vec![made.certificate])?;
    let source = IssuerSource::new(&issuer.grpc.to_string(), bundle, JoinToken::Value(token.into()))?;
    let identity = signet_sdk::start(source, policies, CancellationToken::new()).await?;
    let endpoint = Endpoint::from_shared(format!("https://{}", issuer.grpc))?;
    Ok(IdentityServiceClient::new(MtlsChannel::new(endpoint, identity.connector(to_issuer))))
}

criterion_group!(benches, issuance);
criterion_main!(benches);
