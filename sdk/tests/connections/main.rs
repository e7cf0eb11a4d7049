//! Connections between workloads: who is let in, which identity they use, and when they end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod grpc;
mod http;
mod mesh;
mod revoked;

use std::{io, net::SocketAddr, time::Duration};

use signet_identity::PeerError;
use signet_sdk::{MtlsStream, hyper::ConnectError, lifetime::Ended, server::MtlsListener};
use signet_test_pki::Authority;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::mesh::{CLIENT, LONG, SERVER, Workload, material};

const SOON: Duration = Duration::from_secs(5);

/// Answers each connection with the ID and serial of its peer and echoes from then on.
fn echo(mut listener: MtlsListener) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let mut stream = listener.accept().await;
            tokio::spawn(async move {
                let peer = stream.peer().unwrap().clone();
                stream.write_all(format!("{} {}\n", peer.id(), peer.serial()).as_bytes()).await?;
                stream.flush().await?;
                let mut buffer = [0; 1024];
                loop {
                    let read = stream.read(&mut buffer).await?;
                    if read == 0 {
                        return io::Result::Ok(());
                    }
                    stream.write_all(&buffer[..read]).await?;
                }
            });
        }
    });
    address
}

async fn serve(workload: &Workload) -> SocketAddr {
    echo(workload.identity.listen("127.0.0.1:0", workload.server).await.unwrap())
}

async fn connect(workload: &Workload, address: SocketAddr) -> Result<MtlsStream, ConnectError> {
    let uri = format!("https://{address}").parse().unwrap();
    workload.identity.connector(workload.client).connect(&uri).await
}

async fn line(stream: &mut MtlsStream) -> io::Result<String> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(timeout(SOON, stream.read_u8()).await.expect("an answer in time")?);
    }
    Ok(String::from_utf8(line).unwrap().trim_end().to_owned())
}

/// How the connection ends that nobody uses.
async fn end_of(stream: &mut MtlsStream) -> io::Result<u8> {
    timeout(Duration::from_secs(8), stream.read_u8()).await.expect("an end in time")
}

fn ended(error: &io::Error) -> &Ended {
    error.get_ref().and_then(|error| error.downcast_ref()).unwrap_or_else(|| panic!("{error}"))
}

fn peer_error(error: &ConnectError) -> &PeerError {
    match error {
        ConnectError::Peer { source, .. } => source,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn each_side_knows_the_other() {
    let root = Authority::root("example.org");
    let (server, client) = (Workload::start(&root, SERVER, LONG).await, Workload::start(&root, CLIENT, LONG).await);
    let address = serve(&server).await;
    let mut stream = connect(&client, address).await.unwrap();
    assert_eq!(stream.peer().unwrap().id().as_str(), SERVER);
    assert_eq!(line(&mut stream).await.unwrap(), format!("{CLIENT} {}", client.serial()));
    assert_eq!(stream.alpn(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn a_rotated_certificate_is_used_by_the_next_handshake_and_resumption_does_not_hide_it() {
    let root = Authority::root("example.org");
    let (server, client) = (Workload::start(&root, SERVER, LONG).await, Workload::start(&root, CLIENT, LONG).await);
    let address = serve(&server).await;
    for _ in 0..10 {
        client.rotate(&root, LONG).await;
        server.rotate(&root, LONG).await;
        let mut stream = connect(&client, address).await.unwrap();
        assert_eq!(line(&mut stream).await.unwrap(), format!("{CLIENT} {}", client.serial()));
    }
}

#[tokio::test]
async fn a_server_that_is_not_the_expected_one_is_refused_within_the_handshake() {
    let (root, foreign) = (Authority::root("example.org"), Authority::root("example.org"));
    let client = Workload::start(&root, CLIENT, LONG).await;
    let other_name = Workload::start(&root, "spiffe://example.org/shop/till", LONG).await;
    let error = connect(&client, serve(&other_name).await).await.unwrap_err();
    assert_eq!(peer_error(&error).reason(), "unexpected_id");
    let other_authority = Workload::start(&foreign, SERVER, LONG).await;
    let error = connect(&client, serve(&other_authority).await).await.unwrap_err();
    assert_eq!(peer_error(&error).reason(), "untrusted_authority");
}

#[tokio::test]
async fn whoever_is_not_let_in_leaves_the_listener_working() {
    let root = Authority::root("example.org");
    let (server, client) = (Workload::start(&root, SERVER, LONG).await, Workload::start(&root, CLIENT, LONG).await);
    let address = serve(&server).await;

    // Another authority of the same name, which itself trusts the server.
    let foreign = Authority::root("example.org");
    let stranger = Workload::start_with(material(&foreign, CLIENT, LONG, &[&root, &foreign])).await;
    let mut refused = connect(&stranger, address).await.unwrap();
    assert!(line(&mut refused).await.is_err(), "TLS 1.3 tells a client of its refusal when it reads");

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = timeout(SOON, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"));

    drop(TcpStream::connect(address).await.unwrap());
    line(&mut connect(&client, address).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn silent_connections_delay_others_no_longer_than_the_handshake_timeout() {
    let root = Authority::root("example.org");
    let (server, client) = (Workload::start(&root, SERVER, LONG).await, Workload::start(&root, CLIENT, LONG).await);
    let listener = server.identity.listen("127.0.0.1:0", server.server).await.unwrap();
    let address = echo(listener.handshake_timeout(Duration::from_millis(200)).concurrent_handshakes(2));
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let began = Instant::now();
    line(&mut connect(&client, address).await.unwrap()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(400), "three rounds of two were waited for");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_connection_ends_when_a_certificate_of_it_expires_on_either_side() {
    let root = Authority::root("example.org");
    let short = Duration::from_secs(2);
    let server = Workload::start(&root, SERVER, LONG).await;
    let client = Workload::start(&root, CLIENT, short).await;
    let address = serve(&server).await;
    let mut stream = connect(&client, address).await.unwrap();
    line(&mut stream).await.unwrap();
    let not_after = client.live().load().svid().not_after();
    // A renewal does not prolong what was made before.
    client.rotate(&root, LONG).await;
    let error = end_of(&mut stream).await.unwrap_err();
    let late = time::OffsetDateTime::now_utc() - not_after;
    assert!(late < time::Duration::seconds(1) && late >= time::Duration::ZERO, "{late}");
    // Either side may be the first.
    if error.kind() == io::ErrorKind::ConnectionAborted {
        assert!(matches!(ended(&error), Ended::OwnExpired { .. }));
    }
    assert!(stream.write_all(b"more").await.is_err());

    let server = Workload::start(&root, SERVER, short).await;
    let mut stream = connect(&client, serve(&server).await).await.unwrap();
    line(&mut stream).await.unwrap();
    server.rotate(&root, LONG).await;
    end_of(&mut stream).await.unwrap_err();
}

#[tokio::test]
async fn a_connection_ends_when_its_peer_is_trusted_no_more_and_no_other_does() {
    let (root, leaving) = (Authority::root("example.org"), Authority::root("example.org"));
    let both = [&root, &leaving];
    let server = Workload::start_with(material(&root, SERVER, LONG, &both)).await;
    let address = serve(&server).await;
    let stays = Workload::start_with(material(&root, CLIENT, LONG, &both)).await;
    let goes = Workload::start_with(material(&leaving, CLIENT, LONG, &both)).await;
    let (mut stays, mut goes) = (connect(&stays, address).await.unwrap(), connect(&goes, address).await.unwrap());
    line(&mut stays).await.unwrap();
    line(&mut goes).await.unwrap();

    let began = Instant::now();
    server.deliver(material(&root, SERVER, LONG, &[&root])).await;
    end_of(&mut goes).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(1));
    stays.write_all(b"still here\n").await.unwrap();
    assert_eq!(line(&mut stays).await.unwrap(), "still here");
}

#[tokio::test]
async fn with_an_expired_identity_nothing_is_accepted_and_nothing_dialled() {
    let root = Authority::root("example.org");
    let short = Duration::from_secs(2);
    let (server, client) = (Workload::start(&root, SERVER, short).await, Workload::start(&root, CLIENT, short).await);
    let address = serve(&server).await;
    let fresh = Workload::start(&root, CLIENT, LONG).await;
    tokio::time::sleep(short).await;
    let error = connect(&client, address).await.unwrap_err();
    assert!(matches!(error, ConnectError::OwnIdentity { .. }), "{error}");
    assert!(connect(&fresh, address).await.is_err());
    // With a new one the same listener goes on.
    server.rotate(&root, LONG).await;
    line(&mut connect(&fresh, address).await.unwrap()).await.unwrap();
}
