//! What a caller's connection over HTTP/1.1 does around its requests.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Channel};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc};

use crate::harness::*;
use crate::upstream_down::{by_hand, read_head};

#[tokio::test]
async fn empty_lines_before_a_request_are_ignored() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let bytes = "\r\nGET /first HTTP/1.1\r\nhost: a\r\n\r\n\r\n\r\nGET /second HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let (answer, ended) = request(&gateway, &pki, bytes).await;
    assert!(answer.contains("GET /first\n") && answer.contains("GET /second\n"), "{answer}");
    assert_eq!(ended, Ended::Closed);
}

#[tokio::test]
async fn a_caller_of_http_1_0_is_not_told_to_continue() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let post = |version: &str| {
        format!("POST / HTTP/{version}\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\nbody")
    };
    for (version, told) in [("1.0", false), ("1.1", true)] {
        let (answer, _) = request(&gateway, &pki, &post(version)).await;
        assert!(answer.contains("HTTP/1.1 200") && answer.contains("\n\nbody"), "{answer}");
        assert_eq!(answer.starts_with("HTTP/1.1 100"), told, "{answer}");
    }
}

#[tokio::test]
async fn a_request_is_given_up_when_its_caller_hangs_up() {
    let pki = Pki::new();
    let (tell, mut told) = mpsc::unbounded_channel();
    let (address, _) = by_hand(move |_, mut stream| {
        let tell = tell.clone();
        async move {
            tell.send(!read_head(&mut stream).await.is_empty()).unwrap();
            tell.send(stream.read(&mut [0]).await.unwrap_or(0) > 0).unwrap();
        }
    })
    .await;
    let config = inbound_config(address, "").replace("response_timeout: 1s", "response_timeout: 60s");
    let gateway = gateway(&pki, &pki.issuing.leaf("spiffe://example.org/gateway/inbound").issue(), &config).await;
    let mut caller = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    caller.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(within("the request", told.recv()).await, Some(true));
    // Without a farewell `read` would fail instead; both count as gone.
    caller.shutdown().await.unwrap();
    assert_eq!(within("the end of the upstream's connection", told.recv()).await, Some(false));
}

#[tokio::test]
async fn what_follows_a_body_that_nobody_read_is_no_request() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let stranger = pki.issuing.leaf("spiffe://example.org/bank/teller").issue();
    let following = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for framing in
        ["content-length: 1000", "transfer-encoding: chunked", "content-length: 1000\r\nexpect: 100-continue"]
    {
        let mut stream = connect(gateway.address(), Some(&stranger), &[b"http/1.1"]).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = within("the answer", stream.read(&mut answer)).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 403"), "{framing}: {}", answer[..read].escape_ascii());
        // Too late where the connection is closed by now.
        let (more, ended) = exchange(&mut stream, following).await;
        assert!(!more.contains("HTTP/1.1"), "{framing}: {more}");
        assert_eq!(ended, Ended::Closed, "{framing}");
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_ends_the_connection_of_an_http_1_0_caller() {
    let pki = Pki::new();
    let address = service(|_| async {
        let (mut body, channel) = Channel::<Bytes, hyper::Error>::new(1);
        tokio::spawn(async move { drop(body.send_data(Bytes::from_static(b"tick")).await) });
        Response::new(channel.boxed())
    })
    .await;
    let gateway = inbound(&pki, address).await;
    for (version, end) in [("1.0", Ended::Closed), ("1.1", Ended::Open)] {
        let head = format!("GET / HTTP/{version}\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
        let (answer, ended) = request(&gateway, &pki, &head).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("tick"), "{answer}");
        assert_eq!((answer.contains("connection: close"), ended), (end == Ended::Closed, end), "{answer}");
    }
}

#[tokio::test]
async fn nothing_behind_a_refused_head_reaches_the_service() {
    let pki = Pki::new();
    let (address, accepted) = by_hand(|_, mut stream| async move { drop(read_head(&mut stream).await) }).await;
    let gateway = inbound(&pki, address).await;
    for refused in ["GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n", "GET / HTTP/1.1\nhost: a\n\n"] {
        let following = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
        let (answer, ended) = request(&gateway, &pki, &format!("{refused}{following}")).await;
        assert!(answer.starts_with("HTTP/1.1 400") && ended == Ended::Closed, "{answer}");
    }
    // Each of them is done by now, and so is what it may have begun.
    gateway.counts("signet_gateway_connections_closed_total{reason=\"done\"} 2").await;
    assert_eq!(accepted.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_bad_chunk_is_counted_though_nobody_reads_the_body() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let stranger = pki.issuing.leaf("spiffe://example.org/bank/teller").issue();
    let mut stream = connect(gateway.address(), Some(&stranger), &[b"http/1.1"]).await.unwrap();
    let post = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nx\r\n";
    let (answer, ended) = exchange(&mut stream, post).await;
    assert!(answer.starts_with("HTTP/1.1 403") && ended == Ended::Closed, "{answer}");
    gateway.counts("signet_gateway_malformed_requests_total{listener=\"inbound\",reason=\"chunk\"} 1").await;
}

#[tokio::test]
async fn half_a_head_is_a_caller_that_broke_off() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    for bytes in [&b""[..], b"GET / HT"] {
        let mut caller = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
        caller.write_all(bytes).await.unwrap();
        caller.shutdown().await.unwrap();
        ends(&mut caller).await;
    }
    for reason in ["done", "broken"] {
        gateway.counts(&format!("signet_gateway_connections_closed_total{{reason=\"{reason}\"}} 1")).await;
    }
}

#[tokio::test]
async fn a_body_that_is_still_read_after_the_answer_comes_whole() {
    let pki = Pki::new();
    let (tell, mut told) = mpsc::unbounded_channel();
    let (address, _) = by_hand(move |_, mut stream| {
        let tell = tell.clone();
        async move {
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"half") {
                assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            let mut rest = [0; 4];
            tell.send(stream.read_exact(&mut rest).await.is_ok() && rest == *b"more").unwrap();
        }
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let mut caller = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    // And the connection serves on.
    for _ in 0..2 {
        caller.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nhalf").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok") {
            let come = within("the answer", caller.read_buf(&mut answer)).await.unwrap();
            assert_ne!(come, 0, "{}", answer.escape_ascii());
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
        caller.write_all(b"more").await.unwrap();
        assert_eq!(within("the rest of the body", told.recv()).await, Some(true));
    }
}

#[tokio::test]
async fn what_follows_a_body_that_was_not_asked_for_is_not_taken_for_it() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let stranger = pki.issuing.leaf("spiffe://example.org/bank/teller").issue();
    let following = "GET /next HTTP/1.1\r\nhost: a\r\n\r\n";
    let length = following.len();
    let post =
        format!("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n{following}");
    let mut stream = connect(gateway.address(), Some(&stranger), &[b"http/1.1"]).await.unwrap();
    // Whether that is the body or the next request nobody knows.
    let (answer, ended) = exchange(&mut stream, post.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
    assert_eq!(ended, Ended::Closed);
}

#[tokio::test]
async fn half_a_body_is_not_passed_on_as_a_whole_one() {
    let pki = Pki::new();
    let (tell, mut told) = mpsc::unbounded_channel();
    let (address, _) = by_hand(move |_, mut stream| {
        let tell = tell.clone();
        async move {
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"half\r\n") {
                assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
            }
            tell.send(Vec::new()).unwrap();
            let mut rest = Vec::new();
            // An error is as much of an end.
            let _ = stream.read_to_end(&mut rest).await;
            tell.send(rest).unwrap();
        }
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let mut caller = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    let half = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    caller.write_all(half).await.unwrap();
    within("half a body", told.recv()).await.unwrap();
    caller.shutdown().await.unwrap();
    let rest = within("the end of the upstream's connection", told.recv()).await.unwrap();
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_end_like_a_whole_one() {
    let pki = Pki::new();
    let read = Arc::new(Semaphore::new(0));
    let awaited = read.clone();
    let (address, _) = by_hand(move |number, mut stream| {
        let awaited = awaited.clone();
        async move {
            drop(read_head(&mut stream).await);
            let begin = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ntick\r\n";
            stream.write_all(begin).await.unwrap();
            awaited.acquire().await.unwrap().forget();
            if number == 0 {
                stream.write_all(b"0\r\n\r\n").await.unwrap();
            }
        }
    })
    .await;
    let gateway = inbound(&pki, address).await;
    for whole in [true, false] {
        // It knows the end of the body by that of the connection alone.
        let mut caller = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
        caller.write_all(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"tick") {
            let come = within("the answer", caller.read_buf(&mut answer)).await.unwrap();
            assert_ne!(come, 0, "{}", answer.escape_ascii());
        }
        read.add_permits(1);
        let end = within("the end", caller.read(&mut [0])).await;
        assert_eq!(end.is_ok(), whole, "{end:?}");
    }
}
