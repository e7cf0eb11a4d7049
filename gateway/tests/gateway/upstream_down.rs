use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::*;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A service that handles each connection by hand; it is given the connection's number.
pub(crate) async fn by_hand<F>(serve: impl Fn(usize, TcpStream) -> F + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(count.fetch_add(1, Ordering::SeqCst), stream));
        }
    });
    (address, accepted)
}

pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(read @ 1..) => text += &String::from_utf8_lossy(&buffer[..read]),
            _ => break,
        }
    }
    text
}

#[tokio::test]
async fn an_upstream_that_is_down_is_answered_503_at_once_with_its_reason() {
    let pki = Pki::new();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gateway = inbound(&pki, gone).await;
    let begun = Instant::now();
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    for _ in 0..2 {
        let (answer, ended) = exchange(&mut stream, GET.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("x-signet-reason: upstream_unreachable\r\n"), "{answer}");
        assert_eq!(ended, Ended::Open);
    }
    assert!(begun.elapsed() < Duration::from_secs(3));
    gateway.counts("signet_gateway_upstream_failures_total{reason=\"upstream_unreachable\",upstream=\"app\"} 2").await;
    gateway.counts("signet_gateway_upstream_connects_total{result=\"unreachable\",upstream=\"app\"} 2").await;
    gateway.counts("signet_gateway_requests_total{code=\"503\",listener=\"inbound\"} 2").await;
}

#[tokio::test]
async fn an_upstream_that_is_silent_is_answered_504() {
    let pki = Pki::new();
    let (address, _) = by_hand(|_, mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    let begun = Instant::now();
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 504");
    assert!((1_000..10_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_502_and_one_that_never_comes_503() {
    let pki = Pki::new();
    let (address, _) = by_hand(|number, mut stream| async move {
        read_head(&mut stream).await;
        if number == 0 {
            stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let (answer, _) = request(&gateway, &pki, GET).await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("upstream_malformed_answer"), "{answer}");
    let (answer, _) = request(&gateway, &pki, GET).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("upstream_closed"), "{answer}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_off_as_whole() {
    let pki = Pki::new();
    let (address, _) = by_hand(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let (answer, ended) = request(&gateway, &pki, GET).await;
    assert!(!answer.contains("\r\n0\r\n"), "{answer}");
    assert_eq!(ended, Ended::Closed);
}

#[tokio::test]
async fn connections_are_reused() {
    let pki = Pki::new();
    let (address, accepted) = by_hand(|_, mut stream| async move {
        while !read_head(&mut stream).await.is_empty() {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    for _ in 0..3 {
        let (answer, _) = exchange(&mut stream, GET.as_bytes()).await;
        assert!(answer.ends_with("ok"), "{answer}");
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_request_that_meets_a_kept_connection_as_it_closes_is_sent_again() {
    let pki = Pki::new();
    // Hangs up on the second request of each connection, unanswered.
    let (address, accepted) = by_hand(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        read_head(&mut stream).await;
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    for _ in 0..3 {
        let (answer, _) = exchange(&mut stream, GET.as_bytes()).await;
        assert!(answer.ends_with("ok"), "{answer}");
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 3);
    gateway.counts("signet_gateway_upstream_retries_total{upstream=\"app\"} 2").await;
    // A method that must not be repeated is not.
    let (answer, _) = exchange(&mut stream, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("upstream_closed"), "{answer}");
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_meanwhile_is_not_used() {
    let pki = Pki::new();
    let (address, accepted) = by_hand(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    for _ in 0..2 {
        // Also one that must not be repeated: nothing of it was sent.
        let (answer, _) = exchange(&mut stream, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        assert!(answer.ends_with("ok"), "{answer}");
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
}
