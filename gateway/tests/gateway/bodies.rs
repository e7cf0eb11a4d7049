use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Channel, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::*;

const CHUNK: usize = 64 << 10;

/// A service that sends back what it gets, as it gets it.
async fn echo() -> std::net::SocketAddr {
    service(|request: Request<Incoming>| async move { Response::new(request.into_body().boxed()) }).await
}

/// Byte `at` of an endless text in which no stretch repeats soon.
fn byte(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

fn chunk(from: usize) -> Bytes {
    (from..from + CHUNK).map(byte).collect::<Vec<_>>().into()
}

/// Sends `chunks` through the gateway to [`echo`] and checks every byte that comes back.
async fn echoes(mut sender: hyper::client::conn::http2::SendRequest<Channel<Bytes>>, chunks: usize) {
    let (mut upload, body) = Channel::<Bytes>::new(2);
    let request = Request::post("https://shop/echo").body(body).unwrap();
    let sending = async move {
        for number in 0..chunks {
            upload.send_data(chunk(number * CHUNK)).await.unwrap();
        }
    };
    let receiving = async {
        let mut answer = sender.send_request(request).await.unwrap().into_body();
        let mut at = 0;
        while let Some(frame) = answer.frame().await {
            for found in frame.unwrap().into_data().unwrap() {
                assert_eq!(found, byte(at), "byte {at}");
                at += 1;
            }
        }
        assert_eq!(at, chunks * CHUNK);
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn large_bodies_flow_both_ways_at_once() {
    let pki = Pki::new();
    let gateway = inbound(&pki, echo().await).await;
    let stream = connect(gateway.address(), Some(&pki.client()), &[b"h2"]).await.unwrap();
    echoes(http2(stream).await, 256).await;
}

#[tokio::test]
async fn a_large_upload_over_http1_arrives_whole() {
    let pki = Pki::new();
    let gateway = inbound(&pki, echo().await).await;
    for framing in ["content-length", "chunked"] {
        let stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let length = 64 * CHUNK;
        let sending = async move {
            let head = match framing {
                "chunked" => "transfer-encoding: chunked".to_owned(),
                _ => format!("content-length: {length}"),
            };
            writer.write_all(format!("POST /echo HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n").as_bytes()).await.unwrap();
            for number in 0..64 {
                if framing == "chunked" {
                    writer.write_all(format!("{CHUNK:x}\r\n").as_bytes()).await.unwrap();
                }
                writer.write_all(&chunk(number * CHUNK)).await.unwrap();
                if framing == "chunked" {
                    writer.write_all(b"\r\n").await.unwrap();
                }
            }
            if framing == "chunked" {
                writer.write_all(b"0\r\n\r\n").await.unwrap();
            }
            // The next one on the same connection shows that the framing is still right.
            writer.write_all(b"GET /after HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
            writer.flush().await.unwrap();
            writer
        };
        let receiving = async move {
            let mut bytes = Vec::new();
            let _ = reader.read_to_end(&mut bytes).await;
            bytes
        };
        let (_writer, bytes) = tokio::join!(sending, receiving);
        assert!(bytes.starts_with(b"HTTP/1.1 200"));
        assert!(bytes.len() > length, "{framing}: {}", bytes.len());
        let text = String::from_utf8_lossy(&bytes[bytes.len() - 200..]).into_owned();
        assert!(text.contains("HTTP/1.1 200"), "{text}");
    }
}

#[tokio::test]
async fn a_caller_that_does_not_read_stops_the_service_from_sending() {
    let pki = Pki::new();
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = sent.clone();
    let address = service(move |_| {
        let counter = counter.clone();
        async move {
            let (mut body, channel) = Channel::<Bytes, hyper::Error>::new(1);
            tokio::spawn(async move {
                while body.send_data(chunk(0)).await.is_ok() {
                    counter.fetch_add(CHUNK, std::sync::atomic::Ordering::Relaxed);
                }
            });
            Response::new(channel.boxed())
        }
    })
    .await;
    let gateway = inbound(&pki, address).await;
    for alpn in [&b"http/1.1"[..], b"h2"] {
        sent.store(0, std::sync::atomic::Ordering::Relaxed);
        let stream = connect(gateway.address(), Some(&pki.client()), &[alpn]).await.unwrap();
        let _open: Box<dyn std::any::Any> = if alpn == b"h2" {
            let mut sender = http2::<Full<Bytes>>(stream).await;
            let answer = sender.send_request(Request::get("https://a/").body(Full::default()).unwrap()).await.unwrap();
            Box::new((sender, answer))
        } else {
            let mut stream = stream;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            Box::new(stream)
        };
        tokio::time::sleep(Duration::from_millis(800)).await;
        let before = sent.load(std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let after = sent.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(before, after, "still flowing");
        // What the kernel's buffers of three sockets hold, and ours.
        assert!((1..32 << 20).contains(&after), "{after}");
    }
}

#[tokio::test]
async fn trailers_reach_the_other_side_both_ways() {
    let pki = Pki::new();
    let address = service(|request: Request<Incoming>| async move {
        let trailers = request.into_body().collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let got = trailers.get("x-sum").cloned().unwrap_or(HeaderValue::from_static("none"));
        let mut back = HeaderMap::new();
        back.insert("x-back", got);
        let frames = [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(back))];
        let mut answer = Response::new(StreamBody::new(tokio_stream_of(frames)).boxed());
        answer.headers_mut().insert("trailer", HeaderValue::from_static("x-back"));
        answer
    })
    .await;
    let gateway = inbound(&pki, address).await;

    let stream = connect(gateway.address(), Some(&pki.client()), &[b"h2"]).await.unwrap();
    let mut sender = http2(stream).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let frames =
        [Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
    let request = Request::post("https://a/").header("te", "trailers").header("trailer", "x-sum");
    let request = request.body(StreamBody::new(tokio_stream_of(frames))).unwrap();
    let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.trailers().unwrap()["x-back"], "42");

    let text = "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
                4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n";
    let (answer, ended) = request_text(&gateway, &pki, text).await;
    assert!(answer.contains("0\r\nx-back: 42\r\n\r\n"), "{answer}");
    assert_eq!(ended, Ended::Open);
}

async fn request_text(gateway: &Running, pki: &Pki, text: &str) -> (String, Ended) {
    request(gateway, pki, text).await
}

fn tokio_stream_of<T>(items: impl IntoIterator<Item = T>) -> impl futures_util::Stream<Item = T> {
    futures_util::stream::iter(items.into_iter().collect::<Vec<_>>())
}

#[tokio::test]
async fn answers_without_a_body_stay_without() {
    let pki = Pki::new();
    let address = service(|request: Request<Incoming>| async move {
        let mut answer = Response::new(full(""));
        match request.uri().path() {
            "/204" => *answer.status_mut() = StatusCode::NO_CONTENT,
            "/304" => *answer.status_mut() = StatusCode::NOT_MODIFIED,
            _ => {
                answer.headers_mut().insert("content-length", HeaderValue::from_static("12345"));
            }
        }
        answer
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let text = "HEAD /head HTTP/1.1\r\nhost: a\r\n\r\nGET /204 HTTP/1.1\r\nhost: a\r\n\r\nGET /304 HTTP/1.1\r\nhost: a\r\n\r\n";
    let (answer, ended) = request(&gateway, &pki, text).await;
    let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 12345"), "{answer}");
    let (no_content, not_modified) = rest.split_once("\r\n\r\n").unwrap();
    assert!(no_content.starts_with("HTTP/1.1 204") && !no_content.contains("content-length"), "{answer}");
    assert!(not_modified.starts_with("HTTP/1.1 304"), "{answer}");
    assert!(not_modified.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(ended, Ended::Open);
}

#[tokio::test]
async fn a_get_with_a_body_keeps_it() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    for framing in ["content-length: 4\r\n\r\nbody", "transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"] {
        let (answer, ended) = request(&gateway, &pki, &format!("GET / HTTP/1.1\r\nhost: a\r\n{framing}")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\n\nbody"), "{answer}");
        assert_eq!(ended, Ended::Open);
    }
}

#[tokio::test]
async fn a_body_that_is_expected_is_asked_for_when_the_service_asks() {
    let pki = Pki::new();
    let address = service(|request: Request<Incoming>| async move {
        if request.uri().path() == "/no" {
            let mut answer = Response::new(full("not wanted"));
            *answer.status_mut() = StatusCode::FORBIDDEN;
            return answer;
        }
        Response::new(full(request.into_body().collect().await.unwrap().to_bytes()))
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let expecting =
        |path: &str| format!("POST {path} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");

    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    let (answer, _) = exchange(&mut stream, expecting("/yes").as_bytes()).await;
    assert_eq!(answer, "HTTP/1.1 100 Continue\r\n\r\n");
    let (answer, ended) = exchange(&mut stream, b"body").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("body"), "{answer}");
    assert_eq!(ended, Ended::Open);

    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    let (answer, _) = exchange(&mut stream, expecting("/no").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.ends_with("not wanted"), "{answer}");
}

#[tokio::test]
async fn an_interim_answer_of_the_service_does_not_confuse() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        stream
            .write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await
            .unwrap();
        let _ = stream.read(&mut buffer).await;
    });
    let gateway = inbound(&pki, address).await;
    let (answer, _) = request(&gateway, &pki, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
}

#[tokio::test]
async fn a_caller_that_still_sends_may_not_read_yet() {
    let pki = Pki::new();
    // Answers at once with more than buffers hold, and only then reads.
    let address = service(|request: Request<Incoming>| async move {
        let mut body = request.into_body();
        let (mut back, channel) = Channel::<Bytes, hyper::Error>::new(1);
        tokio::spawn(async move {
            let mut read = 0;
            while let Some(Ok(frame)) = body.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
            }
            back.send_data(Bytes::from(format!("{read} bytes"))).await.unwrap();
        });
        Response::new(channel.boxed())
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let mut stream = connect(gateway.address(), Some(&pki.client()), &[b"http/1.1"]).await.unwrap();
    let length = 128 * CHUNK;
    stream
        .write_all(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    // The head of the answer is there before the body is sent.
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    for number in 0..128 {
        stream.write_all(&chunk(number)).await.unwrap();
    }
    let (answer, _) = exchange(&mut stream, b"").await;
    assert!(answer.contains(&format!("{length} bytes")), "{answer}");
    assert!(Full::<Bytes>::default().is_end_stream());
}
