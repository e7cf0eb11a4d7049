//! The straight path: curl → outbound gateway → mTLS → inbound gateway → nginx, and back.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use rustls::{NamedGroup, ProtocolVersion};
use signet_tests::digest::sha256_of;
use signet_tests::tap::ServerHello;
use signet_tests::tls::TlsClient;
use signet_tests::{Curl, IdentityFiles, Mesh, Nginx};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Lengths around what a buffer, a frame and a window hold.
const LENGTHS: [u64; 5] = [0, 1, 64 * KIB, MIB, GIB];

#[test]
fn bodies_of_every_length_arrive_whole_both_ways_over_http_1_1() {
    bodies_arrive_whole(Curl::http1, "1.1");
}

#[test]
fn bodies_of_every_length_arrive_whole_both_ways_over_http_2() {
    bodies_arrive_whole(Curl::http2_by_preface, "2");
}

fn bodies_arrive_whole(protocol: fn(Curl) -> Curl, version: &str) {
    let nginx = Nginx::start();
    let mesh = Mesh::new().upstream(&nginx.url()).start();
    for length in LENGTHS {
        let name = format!("body-{length}");
        let sent = nginx.serve_random(&name, length);

        let answer = protocol(mesh.curl(&format!("/{name}"))).run().expect_status(200);
        assert_eq!((answer.http_version.as_str(), answer.sha256()), (version, sent.clone()), "{length} bytes down");

        let upload = Curl::put(mesh.outbound.outbound_url(&format!("/stored/{name}")), &nginx.file(&name));
        protocol(upload).run().expect_status(201);
        assert_eq!(sha256_of(&nginx.stored(&name)), sent, "{length} bytes up");
        nginx.forget(&name);
    }
}

#[test]
fn a_client_with_its_own_identity_reaches_the_inbound_gateway_by_either_protocol() {
    let nginx = Nginx::start();
    let mesh = Mesh::new().upstream(&nginx.url()).start();
    let identity = mesh.client("curl").svid().write(&mesh.folder(), "curl");
    for (protocol, version) in [(Curl::http1 as fn(Curl) -> Curl, "1.1"), (Curl::http2, "2")] {
        let direct = |path: &str| Curl::get(mesh.inbound.inbound_url(path)).identity(&identity);
        let sent = nginx.serve_random("down", MIB);
        let answer = protocol(direct("/down")).run().expect_status(200);
        assert_eq!((answer.http_version.as_str(), answer.sha256()), (version, sent.clone()));

        protocol(direct("/stored/up").arg("--upload-file").arg(nginx.file("down"))).run();
        assert_eq!(sha256_of(&nginx.stored("up")), sent);
        nginx.forget("up");
    }
}

#[test]
fn an_upload_of_unknown_length_arrives_whole() {
    let nginx = Nginx::start();
    let mesh = Mesh::new().upstream(&nginx.url()).start();
    let sent = nginx.serve_random("chunked", 3 * MIB + 1);
    let upload = Curl::put(mesh.outbound.outbound_url("/stored/chunked"), &nginx.file("chunked"));
    upload.http1().header("transfer-encoding: chunked").run().expect_status(201);
    assert_eq!(sha256_of(&nginx.stored("chunked")), sent);
}

#[test]
fn answers_without_a_body_end_without_one() {
    let nginx = Nginx::start();
    let mesh = Mesh::new().upstream(&nginx.url()).start();
    for protocol in [Curl::http1, Curl::http2_by_preface] {
        protocol(mesh.curl("/no-content")).run().expect_status(204);
        protocol(mesh.curl("/not-modified")).run().expect_status(304);
        let head = protocol(mesh.curl("/hello").arg("--head")).run().expect_status(200);
        assert_eq!(head.header("content-length"), Some("17"));
        protocol(mesh.curl("/missing")).run().expect_status(404);
    }
}

#[test]
fn the_gateways_speak_tls_1_3_with_a_post_quantum_key_exchange() {
    let nginx = Nginx::start();
    let mesh = Mesh::new().upstream(&nginx.url()).tapped().start();
    mesh.curl("/hello").run().expect_status(200);

    let connections = mesh.tap.as_ref().unwrap().connections();
    assert!(!connections.is_empty(), "the request took another way");
    for connection in connections {
        let hello = ServerHello { version: ServerHello::TLS13, group: ServerHello::X25519_MLKEM768 };
        assert_eq!(connection.server_hello(), Some(hello));
    }
}

#[test]
fn a_rustls_client_negotiates_the_same_and_either_http() {
    let nginx = Nginx::start();
    let mesh = Mesh::new().upstream(&nginx.url()).start();
    let identity = mesh.client("rustls").svid().write(&mesh.folder(), "rustls");
    for alpn in ["h2", "http/1.1"] {
        let client = TlsClient::connect(mesh.inbound_address(), &identity, &[alpn]).unwrap();
        assert_eq!(client.version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(client.group(), Some(NamedGroup::X25519MLKEM768));
        assert_eq!(client.alpn().as_deref(), Some(alpn));
        assert_eq!(client.server_chain().len(), 2, "the leaf and the intermediate, not the root");
    }
}

#[test]
fn the_upstream_learns_who_called_from_the_gateway_alone() {
    let nginx = Nginx::start();
    let mesh = Mesh::new().upstream(&nginx.url()).start();
    let forged = "x-forwarded-client-cert: URI=spiffe://example.org/admin";

    let by_gateway = mesh.curl("/client-certificate").header(forged).run().expect_status(200).text();
    assert!(by_gateway.contains("spiffe://example.org/gateway/outbound"), "{by_gateway}");
    assert!(!by_gateway.contains("spiffe://example.org/admin"), "{by_gateway}");

    let identity: IdentityFiles = mesh.client("curl").svid().write(&mesh.folder(), "curl");
    for protocol in [Curl::http1, Curl::http2] {
        let direct = Curl::get(mesh.inbound.inbound_url("/client-certificate")).identity(&identity).header(forged);
        let told = protocol(direct).run().expect_status(200).text();
        assert!(told.contains("spiffe://example.org/client/curl"), "{told}");
        assert!(!told.contains("spiffe://example.org/admin"), "{told}");
    }
}
