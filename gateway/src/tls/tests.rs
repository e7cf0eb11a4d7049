#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use signet_identity::{
    ClientAuthentication, ClientCredentials, ClientKey, ClientPolicy, Material, ServerKey, ServerPolicy, Snapshot,
    SystemClock, TlsPolicies, TrustBundle, X509Svid,
};
use signet_test_pki::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;

/// One identity at both ends, whose configurations are rustls' at the one and ours at the other.
struct Ends {
    snapshot: Snapshot,
    server: ServerKey,
    client: ClientKey,
}

impl Ends {
    fn new() -> Self {
        let mut policies = TlsPolicies::new(Arc::new(SystemClock));
        policies.enable_secret_extraction();
        let alpn = vec![b"h2".to_vec()];
        let server = policies.server(ServerPolicy { alpn: alpn.clone(), clients: ClientAuthentication::Required });
        let servers = "spiffe://example.org/gateway".parse().unwrap();
        let servers = [servers].into_iter().collect();
        let client = policies.client(ClientPolicy { alpn, servers, credentials: ClientCredentials::Svid });
        let authority = Authority::root("example.org");
        let issued = authority.leaf("spiffe://example.org/gateway").issue();
        let svid = X509Svid::from_der(issued.chain.clone(), issued.key()).unwrap();
        let roots = vec![authority.root_certificate().clone()];
        let bundle = TrustBundle::new("example.org".parse().unwrap(), roots).unwrap();
        let material = Material { svid, bundles: [bundle].into_iter().collect() };
        let snapshot = Snapshot::build(material, &policies, None).unwrap();
        Self { snapshot, server, client }
    }

    /// Our server and rustls' client.
    async fn serving(&self) -> (TlsStream, client::TlsStream<TcpStream>) {
        let (ours, theirs) = sockets().await;
        let connector = TlsConnector::from(self.snapshot.client(self.client).clone());
        let theirs = connector.connect("localhost".try_into().unwrap(), theirs);
        let (ours, theirs) = tokio::join!(accept(self.snapshot.server(self.server).clone(), ours), theirs);
        (ours.unwrap().into_stream().unwrap(), theirs.unwrap())
    }

    /// Our client and rustls' server.
    async fn calling(&self) -> (TlsStream, server::TlsStream<TcpStream>) {
        let (ours, theirs) = sockets().await;
        let config = self.snapshot.client(self.client).clone();
        let ours = connect(config, "localhost".try_into().unwrap(), ours);
        let theirs = TlsAcceptor::from(self.snapshot.server(self.server).clone()).accept(theirs);
        let (ours, theirs) = tokio::join!(ours, theirs);
        (ours.unwrap().into_stream().unwrap(), theirs.unwrap())
    }
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (one.unwrap(), other.unwrap().0)
}

#[tokio::test]
async fn what_comes_with_the_handshake_is_not_lost() {
    let ends = Ends::new();
    let (ours, theirs) = sockets().await;
    let connector = TlsConnector::from(ends.snapshot.client(ends.client).clone());
    let calling = async {
        let mut theirs = connector.connect("localhost".try_into().unwrap(), theirs).await.unwrap();
        theirs.write_all(b"at once").await.unwrap();
        theirs
    };
    // Nothing of ours runs before the caller has written all of it.
    let config = ends.snapshot.server(ends.server).clone();
    let (shaken, mut theirs) = tokio::join!(accept(config, ours), calling);
    let mut ours = shaken.unwrap().into_stream().unwrap();
    let mut read = [0; 7];
    ours.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"at once");
    ours.write_all(b"so am I").await.unwrap();
    theirs.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"so am I");
}

#[tokio::test]
async fn every_byte_comes_once_and_in_order_both_ways() {
    let ends = Ends::new();
    let (mut served, mut client) = ends.serving().await;
    exchange(&mut served, &mut client).await;
    let (mut calling, mut server) = ends.calling().await;
    exchange(&mut calling, &mut server).await;
}

async fn exchange(ours: &mut TlsStream, theirs: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) {
    let sizes = [1, 16_384, 100_000, 3, 300_000, 4_095, 16_385, 70_000];
    let sent: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|at| ((at * 31) >> 5) as u8).collect();
    let (mut our_end, mut our_start) = tokio::io::split(ours);
    let (mut their_end, mut their_start) = tokio::io::split(theirs);
    let sending = async {
        let mut from = 0;
        for size in sizes {
            our_start.write_all(&sent[from..from + size]).await.unwrap();
            from += size;
        }
        our_start.shutdown().await.unwrap();
    };
    let answering = async {
        let mut from = 0;
        for size in sizes {
            their_start.write_all(&sent[from..from + size]).await.unwrap();
            from += size;
        }
        their_start.shutdown().await.unwrap();
    };
    let (mut there, mut back) = (Vec::new(), Vec::new());
    let (_, _, read, answered) =
        tokio::join!(sending, answering, their_end.read_to_end(&mut there), our_end.read_to_end(&mut back));
    read.unwrap();
    answered.unwrap();
    assert!(there == sent);
    assert!(back == sent);
}
