#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use signet_identity::{
    ClientAuthentication, ClientCredentials, ClientKey, ClientPolicy, Material, RevocationSet, ServerKey, ServerPolicy,
    Snapshot, SystemClock, TlsPolicies, TrustBundle, X509Svid,
};
use signet_test_pki::Authority;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;

/// One identity at both ends.
pub(super) struct Ends {
    pub(super) snapshot: Snapshot,
    pub(super) server: ServerKey,
    pub(super) client: ClientKey,
}

impl Ends {
    pub(super) fn new() -> Self {
        let mut policies = TlsPolicies::new(Arc::new(SystemClock));
        policies.enable_secret_extraction();
        Self::with(policies)
    }

    fn with(mut policies: TlsPolicies) -> Self {
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
        let material =
            Material { svid, bundles: [bundle].into_iter().collect(), revocations: RevocationSet::default() };
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

pub(super) async fn sockets() -> (TcpStream, TcpStream) {
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

async fn exchange(ours: &mut TlsStream, theirs: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
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

#[tokio::test]
async fn keys_change_when_the_peer_wants_it_and_both_sides_go_on() {
    let ends = Ends::new();
    let (mut served, mut client) = ends.serving().await;
    let (mut calling, mut server) = ends.calling().await;
    for _ in 0..3 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        echo(&mut served, &mut client).await;
        server.get_mut().1.refresh_traffic_keys().unwrap();
        echo(&mut calling, &mut server).await;
    }
}

async fn echo(ours: &mut TlsStream, theirs: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let mut read = [0; 4];
    theirs.write_all(b"ping").await.unwrap();
    ours.read_exact(&mut read).await.unwrap();
    ours.write_all(b"pong").await.unwrap();
    theirs.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"pong");
}

#[tokio::test]
async fn a_client_of_ours_resumes_with_the_ticket_that_came_after_its_handshake() {
    let ends = Ends::new();
    for expected in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
        let (ours, theirs) = sockets().await;
        let config = ends.snapshot.client(ends.client).clone();
        let theirs = TlsAcceptor::from(ends.snapshot.server(ends.server).clone()).accept(theirs);
        let (ours, theirs) = tokio::join!(connect(config, "localhost".try_into().unwrap(), ours), theirs);
        let (ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
        assert_eq!(ours.handshake_kind(), Some(expected));
        echo(&mut ours.into_stream().unwrap(), &mut theirs).await;
    }
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error_and_one_with_it_is_not() {
    let ends = Ends::new();
    let (mut ours, mut theirs) = ends.serving().await;
    theirs.write_all(b"last").await.unwrap();
    theirs.get_mut().0.shutdown().await.unwrap();
    let mut read = Vec::new();
    let cause = ours.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(read, b"last");
    assert_eq!(cause.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(cause.to_string(), "the peer closed the connection without TLS close_notify");
    assert!(ours.read(&mut [0]).await.is_err(), "an error is no end");

    let (mut ours, mut theirs) = ends.serving().await;
    theirs.write_all(b"last").await.unwrap();
    theirs.shutdown().await.unwrap();
    assert_eq!(ours.read_to_end(&mut Vec::new()).await.unwrap(), 4);
    // The other direction goes on (RFC 8446 §6.1).
    ours.write_all(b"more").await.unwrap();
    ours.shutdown().await.unwrap();
    let mut read = Vec::new();
    theirs.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"more");
}

#[tokio::test]
async fn a_record_that_somebody_changed_ends_the_connection_and_the_peer_is_told() {
    let ends = Ends::new();
    let (mut ours, mut theirs) = ends.serving().await;
    let forged = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
    theirs.get_mut().0.write_all(&forged).await.unwrap();
    theirs.write_all(b"genuine").await.unwrap();
    let cause = ours.read(&mut [0; 16]).await.unwrap_err();
    assert!(cause.to_string().contains("not sealed with the key"), "{cause}");
    let told = theirs.read(&mut [0; 16]).await.unwrap_err();
    assert!(told.to_string().contains("BadRecordMac"), "{told}");
    // What is genuine does not count any more, and nothing is said behind the alert.
    assert!(ours.read(&mut [0; 16]).await.is_err());
    assert_eq!(ours.write(b"x").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    ours.shutdown().await.unwrap();
    assert_eq!(theirs.get_mut().0.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test]
async fn nothing_is_written_to_a_peer_that_has_broken_off() {
    let ends = Ends::new();
    let (mut ours, mut theirs) = ends.serving().await;
    let forged = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
    ours.tcp().try_write(&forged).unwrap();
    theirs.read(&mut [0; 16]).await.unwrap_err();
    let cause = ours.read(&mut [0; 16]).await.unwrap_err();
    assert!(cause.to_string().contains("broken off: BadRecordMac"), "{cause}");
    assert!(ours.write(b"x").await.is_err());
}

#[tokio::test]
async fn what_is_told_of_a_connection_holds_nothing_that_was_said_on_it() {
    let ends = Ends::new();
    let (mut ours, mut theirs) = ends.serving().await;
    theirs.write_all(b"topsecret").await.unwrap();
    ours.read_exact(&mut [0; 1]).await.unwrap();
    let told = format!("{ours:?}");
    assert!(told.contains("TlsStream") && !told.contains("opsecret"), "{told}");
}

#[tokio::test]
async fn a_handshake_message_that_does_not_end_is_not_waited_for() {
    let ends = Ends::new();
    let (ours, mut theirs) = sockets().await;
    let accepting = accept(ends.snapshot.server(ends.server).clone(), ours);
    // A ClientHello of 40,000 bytes, each of them in a record of its own: six times that on the wire, which is never whole.
    let flooding = async {
        let hello = [&[1, 0, 0x9c, 0x40][..], &[0; 39_000]].concat();
        let records: Vec<u8> = hello.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
        let _refused = theirs.write_all(&records).await;
        theirs
    };
    let within = tokio::time::timeout(std::time::Duration::from_secs(30), async { tokio::join!(accepting, flooding) });
    let (accepted, _theirs) = within.await.expect("it waits for more");
    assert_eq!(accepted.err().unwrap().kind(), std::io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_caller_who_is_refused_is_told_why() {
    let ends = Ends::new();
    let (ours, mut theirs) = sockets().await;
    let accepting = accept(ends.snapshot.server(ends.server).clone(), ours);
    let calling = async {
        theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut heard = [0; 7];
        theirs.read_exact(&mut heard).await.unwrap();
        heard
    };
    let (accepted, heard) = tokio::join!(accepting, calling);
    assert_eq!(accepted.err().unwrap().kind(), std::io::ErrorKind::InvalidData);
    assert!(matches!(heard, [21, 3, _, 0, 2, 2, _]), "{heard:?}");
}

#[tokio::test]
async fn secrets_are_given_out_only_where_that_was_asked_for() {
    let ends = Ends::with(TlsPolicies::new(Arc::new(SystemClock)));
    let (ours, theirs) = sockets().await;
    let connector = TlsConnector::from(ends.snapshot.client(ends.client).clone());
    let theirs = connector.connect("localhost".try_into().unwrap(), theirs);
    let (ours, theirs) = tokio::join!(accept(ends.snapshot.server(ends.server).clone(), ours), theirs);
    theirs.unwrap();
    assert!(ours.unwrap().into_stream().is_err());
}

#[tokio::test]
async fn a_peer_that_does_not_read_stops_the_writing() {
    let ends = Ends::new();
    let (mut ours, theirs) = ends.serving().await;
    let piece = vec![7; 1 << 20];
    let mut written = 0;
    let stuck = std::future::poll_fn(|cx| {
        loop {
            match std::pin::Pin::new(&mut ours).poll_write(cx, &piece) {
                std::task::Poll::Ready(taken) => written += taken.unwrap(),
                std::task::Poll::Pending => return std::task::Poll::Ready(()),
            }
            assert!(written < 64 << 20, "nobody reads that");
        }
    });
    stuck.await;
    drop(theirs);
}
