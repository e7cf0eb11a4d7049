use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::*;
use crate::outbound::{outbound_identity, outbound_with};

/// Each on a connection of its own; what follows must never be served.
const FOLLOWING: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn heads_with_ambiguous_framing_are_answered_4xx_and_closed() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    for (request_line, lines) in [
        ("POST / HTTP/1.1\r\n", "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "content-length: 0\r\ncontent-length: 0\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "content-length: 0\r\ncontent-length: 5\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "content-length: 0, 0\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "content-length: +0\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "transfer-encoding: identity\r\n\r\n"),
        ("POST / HTTP/1.1\r\n", "transfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("POST / HTTP/1.0\r\n", "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("GET / HTTP/1.1\r\n", "a: b\r\n c\r\n\r\n"),
        ("GET / HTTP/1.1\r\n", "a: b\r\n\tc\r\n\r\n"),
        ("GET / HTTP/1.1\r\n", "a: b\rc: d\r\n\r\n"),
        ("GET / HTTP/1.1\r\n", "a: b\nc: d\r\n\r\n"),
        ("GET / HTTP/1.1\n", "\n"),
        ("GET / HTTP/1.1\r\n", "a: b\0c\r\n\r\n"),
        ("GET / HTTP/1.1\r\n", "a b: c\r\n\r\n"),
        ("GET / HTTP/1.1\r\n", ": c\r\n\r\n"),
        ("GET  / HTTP/1.1\r\n", "\r\n"),
        ("GET / HTTP/1.1 x\r\n", "\r\n"),
        ("GET / HTTP/2.0\r\n", "\r\n"),
        ("GET /\r\n", "\r\n"),
        ("G(T / HTTP/1.1\r\n", "\r\n"),
    ] {
        let bytes = format!("{request_line}host: a\r\n{lines}{FOLLOWING}");
        let (answer, ended) = request(&gateway, &pki, &bytes).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{bytes:?}: {answer}");
        assert!(!answer.contains("200 OK") && !answer.contains("smuggled"), "{bytes:?}: {answer}");
        assert_eq!(ended, Ended::Closed, "{bytes:?}");
    }
    gateway
        .counts("signet_gateway_malformed_requests_total{listener=\"inbound\",reason=\"length_and_encoding\"} 2")
        .await;
}

#[tokio::test]
async fn requests_without_one_host_are_answered_400_and_closed() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    for head in ["\r\n", "host: a\r\nhost: b\r\n\r\n", "host: a/b\r\n\r\n"] {
        let (answer, ended) = request(&gateway, &pki, &format!("GET / HTTP/1.1\r\n{head}{FOLLOWING}")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer}");
        assert!(!answer.contains("smuggled"), "{head:?}: {answer}");
        assert_eq!(ended, Ended::Closed, "{head:?}");
    }
}

#[tokio::test]
async fn bad_chunks_are_answered_400_and_closed() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    for body in ["x\r\n", "5\r\nhelloX", "5 \r\nhello\r\n", "5\nhello\r\n", "fffffffffffffffff\r\n", "0\r\n x\r\n\r\n"]
    {
        let bytes =
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}0\r\n\r\n{FOLLOWING}");
        let (answer, ended) = request(&gateway, &pki, &bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{body:?}: {answer}");
        assert!(!answer.contains("smuggled"), "{body:?}: {answer}");
        assert_eq!(ended, Ended::Closed, "{body:?}");
    }
}

#[tokio::test]
async fn a_400_carries_the_reasons_that_the_manual_lists_and_an_unreadable_head_none() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let mut seen = Vec::new();
    for (lines, has_reason) in [
        ("host: a\r\nhost: b\r\n\r\n", true),
        ("host: a\r\nconnection: content-length\r\n\r\n", true),
        ("host: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloX", true),
        ("host: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", false),
        ("host: a\r\n b: c\r\n\r\n", false),
        ("host: a\n\n", false),
    ] {
        let (answer, _) = request(&gateway, &pki, &format!("POST / HTTP/1.1\r\n{lines}")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{lines:?}: {answer}");
        let reason = answer.lines().find_map(|line| line.strip_prefix("x-signet-reason: "));
        assert_eq!(reason.is_some(), has_reason, "{lines:?}: {answer}");
        seen.extend(reason.map(str::to_owned));
    }
    let manual = include_str!("../../../docs/gateway.md");
    let row = manual.lines().find(|line| line.starts_with("| 400 |")).unwrap();
    let listed: Vec<_> = row.split('`').skip(1).step_by(2).collect();
    assert_eq!(listed, seen);
}

#[tokio::test]
async fn a_refused_request_does_not_harm_the_one_before_it() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let bytes = "GET /first HTTP/1.1\r\nhost: a\r\n\r\nGET /second HTTP/1.1\r\nhost: a\r\n b\r\n\r\n";
    let (answer, ended) = request(&gateway, &pki, bytes).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("GET /first\n"), "{answer}");
    assert!(answer.contains("HTTP/1.1 400") && !answer.contains("/second"), "{answer}");
    assert_eq!(ended, Ended::Closed);
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(64 << 10));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200));
    let path = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(70 << 10));
    for (bytes, status) in [(large, "HTTP/1.1 431"), (many, "HTTP/1.1 431"), (path, "HTTP/1.1 4")] {
        let (answer, ended) = request(&gateway, &pki, &bytes).await;
        assert!(answer.starts_with(status), "{}: {}", &bytes[..40], &answer[..answer.len().min(100)]);
        assert!(!answer.contains("x-signet-reason"), "{answer}");
        assert_eq!(ended, Ended::Closed);
    }
    let fits = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(40 << 10));
    let (answer, _) = request(&gateway, &pki, &fits).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{}", &answer[..answer.len().min(200)]);
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_is_answered_408() {
    let pki = Pki::new();
    let gateway = inbound_with(&pki, mirror().await, "limits: { header_timeout: 1s }").await;
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    // A request that was in time first: the timeout is not that of the connection.
    let (answer, ended) = exchange(&mut stream, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && ended == Ended::Open, "{answer}");
    let begun = Instant::now();
    let mut answer = String::new();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let reading = async {
        // A byte from time to time does not help.
        loop {
            let mut buffer = [0; 1024];
            match tokio::time::timeout(Duration::from_millis(200), stream.read(&mut buffer)).await {
                Err(_) => drop(stream.write_all(b"x").await),
                Ok(Ok(read @ 1..)) => answer += &String::from_utf8_lossy(&buffer[..read]),
                Ok(_) => return,
            }
        }
    };
    within("the answer and its end", reading).await;
    assert!(answer.starts_with("HTTP/1.1 408") && !answer.contains("x-signet-reason"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    gateway.counts("signet_gateway_connections_closed_total{reason=\"header_timeout\"} 1").await;
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET http://a/`, each field by the static table of HPACK but the last.
const GET_BLOCK: &[u8] = b"\x82\x86\x84\x41\x01a";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
}

fn http2_begins(then: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, b""), then].concat()
}

/// Waits for the gateway to close a connection on which `bytes` came, and `more` again and again. How long that took.
async fn held(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8], more: &[u8]) -> Duration {
    let begun = Instant::now();
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    loop {
        let mut buffer = [0; 1024];
        match tokio::time::timeout(Duration::from_millis(200), stream.read(&mut buffer)).await {
            Err(_) => {
                drop(stream.write_all(more).await);
                drop(stream.flush().await);
            }
            Ok(Ok(1..)) => {}
            Ok(_) => return begun.elapsed(),
        }
    }
}

#[tokio::test]
async fn an_http2_head_that_does_not_end_in_time_ends_its_connection() {
    let pki = Pki::new();
    let limits = "limits: { header_timeout: 1s }";
    let silent = Held::start().await;
    let upstreams = "upstreams:\n  - { name: app, address: \"http://ADDRESS\", response_timeout: 60s }\n";
    let rest = format!("{}{limits}", upstreams.replace("ADDRESS", &silent.address.to_string()));
    let listeners = "listeners:\n  - { name: inbound, mode: inbound, listen: \"127.0.0.1:0\", \
                     allow: [\"spiffe://example.org/shop/*\"], upstream: app }\n";
    let inbound = gateway(&pki, &outbound_identity(&pki), &format!("workers: 1\n{listeners}{rest}")).await;
    let outbound =
        outbound_with(&pki, &outbound_identity(&pki), inbound.address(), "spiffe://example.org/**", limits).await;

    let open = frame(HEADERS, END_STREAM, 1, GET_BLOCK);
    let more = frame(CONTINUATION, 0, 1, b"\x40\x01b\x01c");
    let whole = frame(HEADERS, END_STREAM | END_HEADERS, 1, GET_BLOCK);
    let upload = frame(HEADERS, END_HEADERS, 1, GET_BLOCK);
    let another = frame(HEADERS, END_STREAM, 3, GET_BLOCK);
    let data = frame(DATA, 0, 1, &[b'x'; 100]);
    let trailers = frame(HEADERS, END_STREAM, 1, b"\x40\x01b\x01c");
    let rows = [
        ("half a preface", PREFACE[..10].to_vec(), &b""[..], true),
        ("no end of the head", http2_begins(&open), b"", true),
        ("a head that goes on and on", http2_begins(&open), &more, true),
        ("a frame that stays behind its length", http2_begins(&whole[..12]), b"", true),
        ("a frame's header alone", http2_begins(&whole[..9]), b"", true),
        ("beside a request under way", http2_begins(&[&whole[..], &another].concat()), b"", true),
        ("trailers", http2_begins(&[&upload[..], &data, &trailers].concat()), b"", true),
        ("a body that pauses", http2_begins(&[&upload[..], &data[..50]].concat()), b"", false),
        ("a request under way", http2_begins(&whole), b"", false),
        ("no request yet", http2_begins(b""), b"", false),
    ];
    let (mut ending, mut staying) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
    for (what, bytes, more, ends) in rows {
        let more = more.to_vec();
        let tcp = TcpStream::connect(outbound.address()).await.unwrap();
        let tls = connect(inbound.address(), Some(&pki.client()), &[b"h2"]).await.unwrap();
        if ends {
            ending.spawn(async move {
                let both = async { tokio::join!(held(tcp, &bytes, &more), held(tls, &bytes, &more)) };
                let (plain, secured) = within(what, both).await;
                for (side, held) in [("plain", plain), ("mtls", secured)] {
                    assert!(held >= Duration::from_millis(900), "{what}, {side}: {held:?}");
                }
            });
        } else {
            staying.spawn(async move {
                let first = tokio::select! {
                    _ = held(tcp, &bytes, &more) => "plain",
                    _ = held(tls, &bytes, &more) => "mtls",
                };
                panic!("{what}, {first}: it was closed");
            });
        }
    }
    ending.join_all().await;
    // Were they to end for a head too, they would by the time that one more has ended.
    let one_more = TcpStream::connect(outbound.address()).await.unwrap();
    within("one more", held(one_more, &http2_begins(&open), b"")).await;
    assert!(staying.try_join_next().is_none());
    for (gateway, closed) in [(&outbound, 8), (&inbound, 7)] {
        gateway.counts(&format!("signet_gateway_connections_closed_total{{reason=\"header_timeout\"}} {closed}")).await;
    }
}

#[tokio::test]
async fn upgrades_are_refused_and_an_offer_of_h2c_is_ignored() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let websocket = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let (answer, _) = request(&gateway, &pki, websocket).await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    let (answer, _) = request(&gateway, &pki, "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    let h2c =
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n\r\n";
    let (answer, _) = request(&gateway, &pki, h2c).await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("http2-settings"), "{answer}");
}
