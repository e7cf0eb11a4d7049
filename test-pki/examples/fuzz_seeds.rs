//! Writes the seeds of the fuzz targets: `fuzz_seeds FOLDER` fills `FOLDER/TARGET/seed-N`, and `FOLDER/pki` with what the
//! target `chain` trusts.
#![allow(clippy::expect_used)]

use std::{env, fs, path::Path};

use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use signet_test_pki::{Authority, Issued, Leaf, pem};
use time::{Duration, OffsetDateTime};

fn main() {
    let folder = env::args_os().nth(1).expect("usage: fuzz_seeds FOLDER");
    let folder = Path::new(&folder);
    let root = Authority::root("example.org");
    let issuing = root.intermediate();
    let issued = leaves(&root, &issuing);
    let own = long(issuing.leaf("spiffe://example.org/own")).issue();

    let chains: Vec<_> = issued.iter().chain([&own]).map(|issued| framed(&issued.chain)).collect();
    seeds(folder, "chain", &chains);
    let ids = [
        "example.org",
        "spiffe://example.org",
        "spiffe://example.org/shop/Cart-1_x.y",
        "spiffe://example.org/shop/*",
        "spiffe://example.org/*/cart/**",
        "spiffe://example.org/a%2fb/./../",
    ];
    seeds(folder, "spiffe_id", &ids.map(|id| id.as_bytes().to_vec()));
    let root_pem = pem("CERTIFICATE", root.certificate());
    let two = format!("{root_pem}{}", pem("CERTIFICATE", Authority::root("example.org").certificate()));
    seeds(folder, "bundle", &[root_pem.clone().into(), two.into(), root.certificate().to_vec()]);
    let files: Vec<_> =
        issued.iter().map(|issued| format!("{}{}", issued.chain_pem(), issued.key_pem()).into()).collect();
    seeds(folder, "svid_pem", &files);
    // The first byte is the size of the pieces that they come in.
    seeds(folder, "http1", &HTTP1.map(|message| [&[100], message.as_bytes()].concat()));

    let statement = statement();
    // The context stands before what is signed.
    let signature = issuing.sign(&[&[0x20; 64], &b"signet revocations v1\0"[..], &statement].concat());
    let signed = [&statement, &signature].map(|bytes| CertificateDer::from(bytes.clone()));
    seeds(folder, "revocations", &[framed(&[&signed, issuing.chain()].concat())]);

    let pki = folder.join("pki");
    fs::create_dir_all(&pki).expect("the folder of the PKI");
    let signed: Vec<_> = issued.iter().chain([&own]).map(|issued| issued.chain[0].clone()).collect();
    for (name, content) in [
        ("root.pem", root_pem.into_bytes()),
        ("statement", statement),
        ("own.pem", own.chain_pem().into()),
        ("own.key", own.key_pem().into()),
        ("signed", framed(&signed)),
    ] {
        fs::write(pki.join(name), content).expect("a file of the PKI");
    }
}

/// Conversations of callers, answers of upstreams, and bodies.
const HTTP1: [&str; 9] = [
    "GET /a?b HTTP/1.1\r\nhost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n",
    "\r\nPOST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\na: b\r\n\r\nGET",
    "GET http://a:1/?b HTTP/1.1\r\nhost: a:1\r\nte: trailers\r\nconnection: te, close\r\ncookie: a\r\nexpect: 100-continue\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nhttp2-settings: a\r\ntrailer: x\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\nset-cookie: a\r\nset-cookie: b\r\n\r\nhello",
    "HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.0 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
    "0A;name\r\n0123456789\r\nb\r\nhello world\r\n000\r\na: b\r\nc:\r\n\r\n",
];

/// What is revoked: two serial numbers, a key and an authority. In the encoding of protocol buffers, as identity.proto has it.
fn statement() -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let number = |number: u8, value: u8| vec![number << 3, value];
    // In the year 2106.
    let late = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let serials =
        [field(1, &[7; 20]), field(2, &[1; 16]), field(2, &[2; 16]), field(3, &[late, late].concat())].concat();
    let key = [field(1, &[3; 32]), vec![2 << 3], late.to_vec()].concat();
    [
        field(1, b"example.org"),
        field(2, b"lineage1"),
        number(4, 2),
        number(5, 2),
        field(7, &serials),
        field(8, &key),
        field(9, &key),
    ]
    .concat()
}

/// Good leaves, and some that break one rule each.
fn leaves(root: &Authority, issuing: &Authority) -> Vec<Issued> {
    let leaf = || long(issuing.leaf("spiffe://example.org/shop/cart"));
    vec![
        leaf().issue(),
        leaf().dns("cart.internal").issue(),
        leaf().uri("spiffe://example.org/other").issue(),
        leaf().without_names().issue(),
        leaf().with(|params| params.is_ca = IsCa::NoCa).issue(),
        leaf().with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).issue(),
        leaf().with(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)).issue(),
        leaf().with(|params| params.extended_key_usages.truncate(1)).issue(),
        long(root.leaf("spiffe://example.org/below/the/root")).issue(),
        long(issuing.leaf("spiffe://other.org/a")).issue(),
    ]
}

/// Valid as long as anyone fuzzes.
fn long(leaf: Leaf<'_>) -> Leaf<'_> {
    let now = OffsetDateTime::now_utc();
    leaf.valid(now - Duration::hours(1), now + Duration::days(300))
}

/// Each certificate preceded by its length in two bytes.
fn framed(chain: &[CertificateDer<'_>]) -> Vec<u8> {
    let mut framed = Vec::new();
    for der in chain {
        framed.extend(u16::try_from(der.len()).expect("a short certificate").to_be_bytes());
        framed.extend_from_slice(der);
    }
    framed
}

fn seeds(folder: &Path, target: &str, contents: &[Vec<u8>]) {
    let folder = folder.join(target);
    fs::create_dir_all(&folder).expect("the folder of the seeds");
    for (number, content) in contents.iter().enumerate() {
        fs::write(folder.join(format!("seed-{number}")), content).expect("a seed");
    }
}
