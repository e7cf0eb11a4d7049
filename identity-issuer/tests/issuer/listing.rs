//! Certificate revocation lists, as whoever does not follow the issuer fetches them.

use std::time::Duration;

use signet_proto::admin::v1::revoke_request::Target;
use signet_proto::admin::v1::{RevocationReason, RevokeRequest, Serials};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use crate::harness::{ID, Identity, Issuer, Place, eventually};

const HEADERS: &str = "host: crl.example.org\r\nconnection: close\r\n";

/// Status, head and body of a path of the web address.
async fn fetch(issuer: &Issuer, method: &str, path: &str, more: &str) -> (u16, String, Vec<u8>) {
    let mut tcp = TcpStream::connect(issuer.started.web.plain).await.unwrap();
    tcp.write_all(format!("{method} {path} HTTP/1.1\r\n{HEADERS}{more}\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head[9..12].parse().unwrap(), head, answer[end + 4..].to_vec())
}

fn header(head: &str, name: &str) -> String {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .unwrap_or_else(|| panic!("no {name}: {head}"))
        .1
        .to_owned()
}

/// Where a leaf says that its list is.
fn points(leaf: &[u8]) -> Vec<String> {
    let (_, leaf) = X509Certificate::from_der(leaf).unwrap();
    let points = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::CRLDistributionPoints(points) => Some(points.points.clone()),
        _ => None,
    });
    let names = points.into_iter().flatten().filter_map(|point| point.distribution_point);
    let uris = names.flat_map(|name| match name {
        DistributionPointName::FullName(names) => names,
        DistributionPointName::NameRelativeToCRLIssuer(_) => panic!("a relative name"),
    });
    uris.map(|name| match name {
        GeneralName::URI(uri) => uri.to_owned(),
        other => panic!("{other:?}"),
    })
    .collect()
}

fn path_of(uri: &str) -> String {
    uri.strip_prefix("http://crl.example.org").unwrap().to_owned()
}

/// What a list says, with its signature verified.
pub struct Listed {
    /// Big endian.
    number: Vec<u8>,
    /// With the reason of each.
    pub serials: Vec<(Vec<u8>, u8)>,
    is_part: bool,
    pub next_update: i64,
}

fn read(der: &[u8], signer: &[u8]) -> Listed {
    let (rest, list) = CertificateRevocationList::from_der(der).unwrap();
    assert!(rest.is_empty());
    let (_, signer) = X509Certificate::from_der(signer).unwrap();
    list.verify_signature(signer.public_key()).unwrap();
    assert_eq!(list.issuer().as_raw(), signer.subject().as_raw());
    assert_eq!(list.version().unwrap().0, 1, "v2");
    let oids: Vec<_> = list.extensions().iter().map(|extension| extension.oid.to_id_string()).collect();
    assert!(oids.contains(&"2.5.29.35".to_owned()), "no authority key identifier: {oids:?}");
    let serials = list.iter_revoked_certificates().map(|revoked| {
        let (_, reason) = revoked.reason_code().expect("a reason");
        (revoked.raw_serial().to_vec(), reason.0)
    });
    Listed {
        number: list.crl_number().unwrap().to_bytes_be(),
        serials: serials.collect(),
        is_part: list
            .extensions()
            .iter()
            .any(|extension| extension.oid.to_id_string() == "2.5.29.28" && extension.critical),
        next_update: list.next_update().unwrap().timestamp(),
    }
}

/// The list of a leaf, once there is one.
pub async fn list_of(issuer: &Issuer, identity: &Identity) -> Listed {
    let chain = identity.svid.chain();
    let [uri] = &points(&chain[0])[..] else { panic!("not one distribution point") };
    let mut found = None;
    eventually("a list", async || {
        let (status, _, body) = fetch(issuer, "GET", &path_of(uri), "").await;
        found = (status == 200).then(|| read(&body, &chain[1]));
        found.is_some()
    })
    .await;
    found.unwrap()
}

async fn revoke(issuer: &Issuer, identity: &Identity) {
    let serials = vec![identity.svid.serial().as_bytes().to_vec()];
    let request = RevokeRequest {
        target: Some(Target::Serials(Serials { serials })),
        reason: RevocationReason::KeyCompromise.into(),
        ..RevokeRequest::default()
    };
    issuer.admin().await.revoke(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_names_what_is_revoked_within_a_second_and_each_has_a_larger_number() {
    let place = Place::with("crl: { url: 'http://crl.example.org/crl' }");
    let issuer = place.serve().await;
    let (cart, till) = (issuer.join(ID).await, issuer.join("spiffe://example.org/shop/till").await);
    let first = list_of(&issuer, &cart).await;
    assert!(first.serials.is_empty() && !first.is_part);
    let serial = |identity: &Identity| identity.svid.serial().as_bytes().to_vec();
    let mut before = first;
    for (identity, count) in [(&cart, 1), (&till, 2)] {
        let began = std::time::Instant::now();
        revoke(&issuer, identity).await;
        let mut listed = list_of(&issuer, identity).await;
        while listed.serials.len() < count {
            assert!(began.elapsed() < Duration::from_secs(5), "not listed");
            listed = list_of(&issuer, identity).await;
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(listed.serials.contains(&(serial(identity), 1)));
        assert!((listed.number.len(), &listed.number) > (before.number.len(), &before.number));
        before = listed;
    }
    let day = before.next_update - time::OffsetDateTime::now_utc().unix_timestamp();
    // The authority of this test lives for twelve hours: no list outlives it.
    assert!((42_000..=43_200).contains(&day), "{day}");
    issuer.until_metric("signet_issuer_crl_next_update_timestamp_seconds{authority=").await;
    issuer.until_metric("signet_issuer_crl_failures_total{step=\"sign\"} 0").await;
    issuer.stop().await;

    // A new process has the same, with a number that is no smaller.
    let issuer = place.serve().await;
    let again = list_of(&issuer, &cart).await;
    assert_eq!(again.serials.len(), 2);
    assert!((again.number.len(), &again.number) >= (before.number.len(), &before.number));
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_leaf_names_the_part_that_it_would_stand_in() {
    let place = Place::with("crl: { url: 'http://crl.example.org/crl/', shards: 3 }");
    let issuer = place.serve().await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let identity = issuer.join(ID).await;
        let serial = identity.svid.serial().as_bytes().to_vec();
        revoke(&issuer, &identity).await;
        let [uri] = &points(&identity.svid.chain()[0])[..] else { panic!("not one distribution point") };
        let shard: u32 = uri.rsplit('/').next().unwrap().strip_suffix(".crl").unwrap().parse().unwrap();
        let rest = serial.iter().fold(0_u32, |rest, byte| (rest * 256 + u32::from(*byte)) % 3);
        assert_eq!(shard, rest);
        let listed = async || list_of(&issuer, &identity).await;
        eventually("it is listed there", async || listed().await.serials.iter().any(|(one, _)| *one == serial)).await;
        assert!(listed().await.is_part);
        seen.insert(shard);
    }
    let path = |shard| format!("/crl/{}/{shard}.crl", "00".repeat(20));
    assert_eq!(fetch(&issuer, "GET", &path(0), "").await.0, 404);
    assert!(seen.len() > 1, "{seen:?}");
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_served_as_caches_like_it_and_leaves_name_none_where_none_is_configured() {
    let place = Place::new();
    let issuer = place.serve().await;
    let cart = issuer.join(ID).await;
    assert!(points(&cart.svid.chain()[0]).is_empty());
    let (_, signer) = X509Certificate::from_der(&cart.svid.chain()[1]).unwrap();
    let key_id = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, signer.public_key().raw);
    let path = format!("/crl/{}/0.crl", hex(&key_id.as_ref()[..20]));
    eventually("a list", async || fetch(&issuer, "GET", &path, "").await.0 == 200).await;
    let (_, head, body) = fetch(&issuer, "GET", &path, "").await;
    read(&body, &cart.svid.chain()[1]);
    assert_eq!(header(&head, "content-type"), "application/pkix-crl");
    assert_eq!(header(&head, "cache-control"), "public, max-age=300, must-revalidate");
    assert!(header(&head, "last-modified").ends_with(" GMT"));
    let etag = header(&head, "etag");
    let (status, _, body) = fetch(&issuer, "GET", &path, &format!("if-none-match: {etag}\r\n")).await;
    assert_eq!((status, body.len()), (304, 0));
    let (status, head, body) = fetch(&issuer, "HEAD", &path, "").await;
    assert_eq!((status, body.len()), (200, 0));
    assert_ne!(header(&head, "content-length"), "0");
    assert_eq!(fetch(&issuer, "POST", &path, "content-length: 0\r\n").await.0, 405);
    for wrong in ["/crl/", "/crl/x/0.crl", "/crl/../bundle.json"] {
        assert_eq!(fetch(&issuer, "GET", wrong, "").await.0, 404, "{wrong}");
    }
    issuer.stop().await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
