//! Malformed, oversize and slow HTTP, and the shapes that smuggle one request within another: an answer of 4xx, the connection
//! closed, nothing smuggled to the upstream, and the listener goes on. Each on the plain side and over mTLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};

use signet_tests::http2;
use signet_tests::raw_http::{self, End, RawAnswer};
use signet_tests::tls::TlsClient;
use signet_tests::{Curl, Gateway, GatewayPlan, IdentityFiles, Nginx, Pki, secs};
use tempfile::TempDir;

/// What each of these requests tries to carry past the gateway.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n";

#[test]
fn a_request_whose_end_is_disputable_is_refused_and_nothing_is_smuggled() {
    let pair = Pair::start("");
    for (shape, head, body) in [
        ("Content-Length and Transfer-Encoding", "content-length: 4\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
        ("Transfer-Encoding and Content-Length", "transfer-encoding: chunked\r\ncontent-length: 44", "0\r\n\r\n"),
        ("two lengths", "content-length: 0\r\ncontent-length: 40", ""),
        ("two lengths in one line", "content-length: 0, 40", ""),
        ("the same length twice", "content-length: 0\r\ncontent-length: 0", ""),
        ("a signed length", "content-length: +0", ""),
        ("a negative length", "content-length: -1", ""),
        ("a hexadecimal length", "content-length: 0x0", ""),
        ("an empty length", "content-length:", ""),
        ("a length beyond 64 bits", "content-length: 18446744073709551616", ""),
        ("a space before the colon", "content-length : 0", ""),
        ("a coding before chunked", "transfer-encoding: gzip, chunked", "0\r\n\r\n"),
        ("chunked before another coding", "transfer-encoding: chunked, identity", "0\r\n\r\n"),
        ("chunked twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked", "0\r\n\r\n"),
        ("a coding that begins like chunked", "transfer-encoding: chunkedx", "0\r\n\r\n"),
        ("a quoted coding", "transfer-encoding: \"chunked\"", "0\r\n\r\n"),
        ("a vertical tab before the coding", "transfer-encoding: \x0bchunked", "0\r\n\r\n"),
        ("a folded header", "x-folded: a\r\n b\r\ncontent-length: 0", ""),
        ("a folded coding", "transfer-encoding:\r\n chunked", "0\r\n\r\n"),
        ("a bare CR in a header", "x-a: b\rcontent-length: 40", ""),
        ("a NUL in a header", "x-a: b\0c\r\ncontent-length: 0", ""),
        ("a header without a colon", "x-a\r\ncontent-length: 0", ""),
        ("a header without a name", ": x\r\ncontent-length: 0", ""),
        ("two hosts", "host: other\r\ncontent-length: 0", ""),
    ] {
        let request = format!("POST /visible HTTP/1.1\r\nhost: test\r\n{head}\r\n\r\n{body}{SMUGGLED}");
        pair.refuses(shape, request.as_bytes());
    }
}

#[test]
fn a_chunk_that_is_none_ends_the_request_and_nothing_is_smuggled() {
    let pair = Pair::start("");
    for (shape, body) in [
        ("no number", "zz\r\n\r\n0\r\n\r\n"),
        ("an empty size", "\r\n\r\n0\r\n\r\n"),
        ("a signed size", "+1\r\na\r\n0\r\n\r\n"),
        ("a prefixed size", "0x1\r\na\r\n0\r\n\r\n"),
        ("a size beyond 64 bits", "10000000000000001\r\na\r\n0\r\n\r\n"),
        ("data longer than its size", "1\r\nabc\r\n0\r\n\r\n"),
        ("a size line without CR", "1\na\r\n0\r\n\r\n"),
        ("data without CRLF", "1\r\na0\r\n\r\n"),
        ("a bare LF within an extension", "1;x\n\r\na\r\n0\r\n\r\n"),
    ] {
        let request =
            format!("POST /visible HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n{body}{SMUGGLED}");
        pair.refuses(shape, request.as_bytes());
    }
}

#[test]
fn what_is_no_http_is_refused() {
    let pair = Pair::start("");
    for (shape, request) in [
        ("noise", "\x01\x02\x03\x04\r\n\r\n"),
        ("no version", "GET /smuggled\r\n\r\n"),
        ("an unknown version", "GET /smuggled HTTP/7.3\r\nhost: test\r\n\r\n"),
        ("a method with a control character", "G\x07T /smuggled HTTP/1.1\r\nhost: test\r\n\r\n"),
        ("a space in the target", "GET /smuggled /x HTTP/1.1\r\nhost: test\r\n\r\n"),
        ("no host", "GET /smuggled HTTP/1.1\r\n\r\n"),
        ("a chunked body in HTTP/1.0", "POST /smuggled HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ] {
        pair.refuses(shape, request.as_bytes());
    }
}

#[test]
fn headers_over_64_kib_are_refused() {
    let pair = Pair::start("");
    let one_large = format!("GET /smuggled HTTP/1.1\r\nhost: test\r\nx-large: {}\r\n\r\n", "a".repeat(66 * 1024));
    pair.refuses("one header of 66 KiB", one_large.as_bytes());
    let target = format!("GET /smuggled{} HTTP/1.1\r\nhost: test\r\n\r\n", "a".repeat(66 * 1024));
    pair.refuses("a target of 66 KiB", target.as_bytes());
    let many: String = (0..70).map(|number| format!("x-{number}: {}\r\n", "a".repeat(1000))).collect();
    pair.refuses("70 headers of 1 KB", format!("GET /smuggled HTTP/1.1\r\nhost: test\r\n{many}\r\n").as_bytes());

    // curl itself sends no such headers over HTTP/2.
    let large = "a".repeat(66 * 1024);
    let plain = http2::get_plain(pair.outbound.listener("outbound"), "/smuggled", ("x-large", &large));
    assert_eq!(plain.unwrap(), 431);
    let mtls = http2::get_mtls(pair.inbound.listener("inbound"), &pair.client, "/smuggled", ("x-large", &large));
    assert_eq!(mtls.unwrap(), 431);
    pair.nothing_smuggled();
    pair.still_serve();
}

#[test]
fn headers_of_32_kib_pass() {
    let pair = Pair::start("");
    // As much as nginx's four buffers of 8 KiB take.
    let headers: Vec<_> = (0..3).map(|number| format!("x-{number}: {}", "a".repeat(7000))).collect();
    for curl in [
        pair.curl_plain("/hello").http1(),
        pair.curl_plain("/hello").http2_by_preface(),
        pair.curl_mtls("/hello").http1(),
        pair.curl_mtls("/hello").http2(),
    ] {
        headers.iter().fold(curl, |curl, header| curl.header(header)).run().expect_status(200);
    }
}

#[test]
fn headers_that_never_end_are_cut_off() {
    let pair = Pair::start("limits: { header_timeout: 1s }\n");
    for (side, mut stream) in pair.connections() {
        let answer = raw_http::exchange(&mut stream, b"GET /smuggled HTTP/1.1\r\nhost: test\r\nx-slow: ");
        assert_eq!(answer.end, End::Closed, "{side}: {answer:?}");
        assert!(answer.took < secs(5), "{side}: {answer:?}");
        assert!(answer.statuses.iter().all(|status| (400..500).contains(status)), "{side}: {answer:?}");
    }
    pair.nothing_smuggled();
    pair.still_serve();
}

#[test]
fn headers_that_drip_do_not_live_longer() {
    let pair = Pair::start("limits: { header_timeout: 1s }\n");
    for (side, mut stream) in pair.connections() {
        let begin = std::time::Instant::now();
        let dripped = b"GET /smuggled HTTP/1.1\r\nhost: test\r\n".iter().chain(b"x-slow: 1\r\n".iter().cycle());
        for byte in dripped {
            if stream.write_all(&[*byte]).and_then(|()| stream.flush()).is_err() {
                break;
            }
            assert!(begin.elapsed() < secs(6), "{side}: still reads a head after {:?}", begin.elapsed());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    pair.nothing_smuggled();
    pair.still_serve();
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let pair = Pair::start("");
    for (side, mut stream) in pair.connections() {
        let requests = "GET /hello HTTP/1.1\r\nhost: test\r\n\r\nGET /missing HTTP/1.1\r\nhost: test\r\n\r\n\
                        GET /no-content HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        let answer = raw_http::exchange(&mut stream, requests.as_bytes());
        assert_eq!((answer.statuses, answer.end), (vec![200, 404, 204], End::Closed), "{side}");
    }
}

/// An outbound and an inbound gateway, and nginx behind them.
struct Pair {
    nginx: Nginx,
    inbound: Gateway,
    outbound: Gateway,
    client: IdentityFiles,
    _folder: TempDir,
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Pair {
    fn start(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path(), "example.org");
        let nginx = Nginx::start();
        let client = pki.identity("client", "/client");
        let inbound = GatewayPlan::new("inbound")
            .identity_from_files(&pki.identity("server", "/gateway/inbound"), &pki.bundle)
            .inbound(&["spiffe://example.org/**"], &nginx.url())
            .configure(configuration)
            .start();
        let outbound = GatewayPlan::new("outbound")
            .identity_from_files(&client, &pki.bundle)
            .outbound(inbound.listener("inbound"), &["spiffe://example.org/gateway/inbound"])
            .configure(configuration)
            .start();
        Self { nginx, inbound, outbound, client, _folder: folder }
    }

    /// A new connection to each of the two listeners.
    fn connections(&self) -> [(&'static str, Box<dyn Stream>); 2] {
        let mtls = TlsClient::connect(self.inbound.listener("inbound"), &self.client, &["http/1.1"]).unwrap();
        [("plain", Box::new(raw_http::plain(self.outbound.listener("outbound")))), ("mTLS", Box::new(mtls))]
    }

    fn curl_plain(&self, path: &str) -> Curl {
        Curl::get(self.outbound.outbound_url(path))
    }

    fn curl_mtls(&self, path: &str) -> Curl {
        Curl::get(self.inbound.inbound_url(path)).identity(&self.client)
    }

    /// One answer of 4xx and the end of the connection, on both sides.
    #[track_caller]
    fn refuses(&self, shape: &str, request: &[u8]) {
        for (side, mut stream) in self.connections() {
            let answer: RawAnswer = raw_http::exchange(&mut stream, request);
            let [status] = answer.statuses[..] else { panic!("{shape} ({side}): not one answer: {answer:?}") };
            assert!((400..500).contains(&status), "{shape} ({side}): {answer:?}");
            assert_eq!(answer.end, End::Closed, "{shape} ({side}): {answer:?}");
        }
        self.nothing_smuggled();
        self.still_serve();
    }

    #[track_caller]
    fn nothing_smuggled(&self) {
        let smuggled: Vec<_> =
            self.nginx.accesses().into_iter().filter(|access| access.target.contains("smuggled")).collect();
        assert_eq!(smuggled, []);
    }

    #[track_caller]
    fn still_serve(&self) {
        self.curl_plain("/hello").run().expect_status(200);
        self.curl_mtls("/hello").run().expect_status(200);
    }
}
