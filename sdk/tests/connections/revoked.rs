//! Whoever is revoked loses its live connections, those of the SDK's servers and those of its clients; others notice nothing.

use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{Request, Response, body::Bytes, service::service_fn};
use signet_identity::{
    Material, RevocationSet, RevocationStatement, RevokedSerials, SignedRevocations, Snapshot, TrustDomain,
};
use signet_sdk::{hyper::MtlsClient, server::serve};
use signet_test_pki::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::ParsedExtension;

use crate::{
    connect,
    mesh::{CLIENT, LONG, SERVER, Workload, material},
};

/// From when it is known to the end of a connection.
const SOON: Duration = Duration::from_secs(1);

/// What is known, and that this workload's certificate is revoked.
fn revoking(root: &Authority, knowing: &Snapshot, revoked: &Workload) -> RevocationSet {
    let trust_domain: TrustDomain = "example.org".parse().unwrap();
    let now = time::OffsetDateTime::now_utc();
    let signature = root.sign(&SignedRevocations::signed_bytes(&[]));
    let signed = SignedRevocations { statement: &[], signature: &signature, chain: root.chain() };
    let verified = signed.verify(&trust_domain, knowing.bundles(), knowing.revocations(), now).unwrap();
    let held = revoked.live().load_full();
    let (_, leaf) = x509_parser::parse_x509_certificate(held.svid().leaf()).unwrap();
    let authority_key_id = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    let serials = RevokedSerials {
        authority_key_id: authority_key_id.unwrap(),
        serials: vec![held.svid().serial().as_bytes().to_vec()],
        not_after: vec![i64::MAX],
    };
    let statement = RevocationStatement {
        trust_domain: trust_domain.to_string(),
        lineage: vec![1; 8],
        epoch: 1,
        latest: 1,
        serials: vec![serials],
        ..RevocationStatement::default()
    };
    knowing.revocations().with(verified, statement, now).unwrap()
}

impl Workload {
    /// Hears that another one is revoked.
    async fn hear(&self, root: &Authority, revoked: &Workload) {
        let held = self.live().load_full();
        let revocations = revoking(root, &held, revoked);
        let (svid, bundles) = (held.svid().clone(), held.bundles().clone());
        self.deliver(Material { svid, bundles, revocations }).await;
    }
}

/// Two callers of one server, the first of which is to be revoked.
struct Mesh {
    root: Authority,
    server: Workload,
    bad: Workload,
    good: Workload,
}

impl Mesh {
    async fn start() -> Self {
        let root = Authority::root("example.org");
        let server = Workload::start(&root, SERVER, LONG).await;
        let (bad, good) = (Workload::start(&root, CLIENT, LONG).await, Workload::start(&root, CLIENT, LONG).await);
        Self { root, server, bad, good }
    }
}

#[tokio::test]
async fn a_server_ends_the_live_connections_of_who_is_revoked_and_lets_it_in_no_more() {
    let Mesh { root, server, bad, good } = Mesh::start().await;
    let mut listener = server.identity.listen("127.0.0.1:0", server.server).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut ends = Vec::new();
    for caller in [&bad, &good] {
        let (connected, accepted) = tokio::join!(connect(caller, address), listener.accept());
        ends.push((connected.unwrap(), accepted));
    }
    // They wait for bytes that do not come.
    let [(mut of_bad, mut bad_accepted), (mut of_good, mut good_accepted)] = <[_; 2]>::try_from(ends).unwrap();
    let waiting = tokio::spawn(async move { (bad_accepted.read_u8().await.unwrap_err(), Instant::now()) });
    let heard = Instant::now();
    server.hear(&root, &bad).await;
    let (error, ended) = tokio::time::timeout(SOON, waiting).await.expect("an end in time").unwrap();
    assert!(error.to_string().contains("revoked") && ended - heard < SOON, "{error}");
    assert!(of_bad.read_u8().await.is_err());
    of_good.write_u8(7).await.unwrap();
    assert_eq!(good_accepted.read_u8().await.unwrap(), 7);

    // Nor does it come in again, while others do. Over TLS 1.3 it may hear of that with its first read.
    let refused = async {
        match connect(&bad, address).await {
            Ok(mut connected) => connected.read_u8().await.map_err(drop).map(drop),
            Err(_) => Err(()),
        }
    };
    let admitted = tokio::select! {
        refused = refused => { refused.unwrap_err(); None }
        accepted = listener.accept() => Some(accepted),
    };
    assert!(admitted.is_none(), "{admitted:?}");
    let (connected, accepted) = tokio::join!(connect(&good, address), listener.accept());
    assert_eq!(accepted.peer().unwrap().serial().to_string(), good.serial());
    drop(connected);
}

#[tokio::test]
async fn a_client_ends_its_connections_to_who_is_revoked_and_sends_it_nothing_more() {
    let Mesh { root, server, good, .. } = Mesh::start().await;
    let other = Workload::start_with(material(&root, SERVER, LONG, &[&root])).await;
    let listen = async |workload: &Workload| {
        let listener = workload.identity.listen("127.0.0.1:0", workload.server).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serial = workload.serial();
        let service = service_fn(move |_: Request<hyper::body::Incoming>| {
            let serial = serial.clone();
            async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(serial)))) }
        });
        tokio::spawn(serve(listener, service, CancellationToken::new(), Duration::ZERO));
        address
    };
    let (bad_address, good_address) = (listen(&server).await, listen(&other).await);
    let mut held = connect(&good, bad_address).await.unwrap();
    let client = MtlsClient::new(good.identity.connector(good.client));
    let get = |address: SocketAddr| Request::get(format!("https://{address}/")).body(Empty::<Bytes>::new()).unwrap();
    for address in [bad_address, good_address] {
        client.request(get(address)).await.unwrap().into_body().collect().await.unwrap();
    }
    good.hear(&root, &server).await;
    let error = tokio::time::timeout(SOON, held.read_u8()).await.expect("an end in time").unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
    client.request(get(bad_address)).await.unwrap_err();
    let answer = client.request(get(good_address)).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), other.serial());
}
