#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use signet_test_pki::{Authority, Issued};
use time::Duration;

use super::*;
use crate::{
    ClientCredentials, Clock, KeySha256, ManualClock, RevocationStatement, RevokedKey, SpiffeIdPatterns, TrustBundle,
    VerifiedRevocations,
};

const CART: &str = "spiffe://example.org/shop/cart";

struct Process {
    clock: ManualClock,
    policies: TlsPolicies,
    server: ServerKey,
    client: ClientKey,
}

impl Process {
    fn new() -> Self {
        let clock = ManualClock::new(OffsetDateTime::now_utc());
        let mut policies = TlsPolicies::new(clock.shared());
        let server = policies.server(ServerPolicy { alpn: Vec::new(), clients: ClientAuthentication::Required });
        let client = policies.client(ClientPolicy {
            alpn: Vec::new(),
            servers: SpiffeIdPatterns::from(&CART.parse().unwrap()),
            credentials: ClientCredentials::Svid,
        });
        Self { clock, policies, server, client }
    }

    fn build(&self, material: Material, previous: Option<&Snapshot>) -> Result<Snapshot, SnapshotError> {
        Snapshot::build(material, &self.policies, previous)
    }
}

fn svid(issued: &Issued) -> X509Svid {
    X509Svid::from_der(issued.chain.clone(), issued.key()).unwrap()
}

fn bundles(roots: &[&Authority]) -> BundleSet {
    let of = |root: &&Authority| {
        TrustBundle::new(root.trust_domain().parse().unwrap(), vec![root.root_certificate().clone()]).unwrap()
    };
    roots.iter().map(of).collect()
}

fn refusal(built: Result<Snapshot, SnapshotError>) -> &'static str {
    match built {
        Err(SnapshotError::Identity(error)) => error.reason(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn material_that_does_not_belong_together_is_refused() {
    let process = Process::new();
    let (root, stranger) = (Authority::root("example.org"), Authority::root("example.org"));
    let other_domain = Authority::root("other.org");
    let issued = root.intermediate().leaf(CART).issue();
    let build =
        |bundles| process.build(Material { svid: svid(&issued), bundles, revocations: RevocationSet::default() }, None);
    assert_eq!(refusal(build(bundles(&[&stranger]))), "untrusted_authority");
    assert_eq!(refusal(build(bundles(&[&other_domain]))), "unknown_trust_domain");
    assert_eq!(refusal(build(BundleSet::default())), "unknown_trust_domain");
    let snapshot = build(bundles(&[&root, &other_domain])).unwrap();
    assert_eq!((snapshot.generation().get(), snapshot.trust_epoch().get()), (1, 1));
    assert_eq!(snapshot.expires_at(), snapshot.svid().not_after());
}

#[test]
fn material_that_is_not_valid_now_is_refused() {
    let process = Process::new();
    let root = Authority::root("example.org");
    let now = process.clock.now();
    let build = |from: i64, to: i64| {
        let issued = root.leaf(CART).valid(now + Duration::minutes(from), now + Duration::minutes(to)).issue();
        process.build(
            Material { svid: svid(&issued), bundles: bundles(&[&root]), revocations: RevocationSet::default() },
            None,
        )
    };
    assert_eq!(refusal(build(-9, -1)), "expired");
    assert_eq!(refusal(build(1, 9)), "not_yet_valid");
    assert!(build(-1, 1).is_ok());
}

#[test]
fn generations_count_up_and_the_trust_epoch_follows_the_bundles() {
    let process = Process::new();
    let (root, other) = (Authority::root("example.org"), Authority::root("other.org"));
    let next = |bundles, previous| {
        process
            .build(
                Material { svid: svid(&root.leaf(CART).issue()), bundles, revocations: RevocationSet::default() },
                previous,
            )
            .unwrap()
    };
    let numbers = |snapshot: &Snapshot| (snapshot.generation().get(), snapshot.trust_epoch().get());
    let first = next(bundles(&[&root]), None);
    let second = next(bundles(&[&root]), Some(&first));
    assert_eq!(numbers(&second), (2, 1));
    assert!(Arc::ptr_eq(&first.trust, &second.trust), "what was verified stays known");
    let third = next(bundles(&[&root, &other]), Some(&second));
    assert_eq!(numbers(&third), (3, 2));
    let back = next(bundles(&[&root]), Some(&third));
    assert_eq!(numbers(&back), (4, 3), "an epoch never comes back");
    assert!(!Arc::ptr_eq(&first.trust, &back.trust));
}

#[test]
fn a_peer_whose_authority_left_the_bundle_is_not_accepted_though_it_was_in_the_cache() {
    let process = Process::new();
    let (root, leaving) = (Authority::root("example.org"), Authority::root("other.org"));
    let peer_chain = leaving.intermediate().leaf("spiffe://other.org/peer").issue().chain;
    let own = svid(&root.leaf(CART).issue());
    let build = |bundles, previous| {
        process.build(Material { svid: own.clone(), bundles, revocations: RevocationSet::default() }, previous).unwrap()
    };
    let first = build(bundles(&[&root, &leaving]), None);
    let peer = first.peer_of_server_connection(process.server, Some(&peer_chain)).unwrap().unwrap();
    assert_eq!(first.still_accepts(&peer), Ok(()));

    let rotated = build(bundles(&[&root, &Authority::root("other.org")]), Some(&first));
    assert_eq!(rotated.still_accepts(&peer).unwrap_err().reason(), "untrusted_authority");
    let gone = build(bundles(&[&root]), Some(&first));
    assert_eq!(gone.still_accepts(&peer).unwrap_err().reason(), "unknown_trust_domain");
    let again = rotated.peer_of_server_connection(process.server, Some(&peer_chain));
    assert_eq!(again.unwrap_err().reason(), "untrusted_authority");
    assert_eq!(first.still_accepts(&peer), Ok(()), "the old snapshot does not change");

    process.clock.advance(Duration::hours(2));
    assert_eq!(first.still_accepts(&peer).unwrap_err().reason(), "expired");
}

#[test]
fn no_certificates_are_no_peer() {
    let process = Process::new();
    let root = Authority::root("example.org");
    let material = Material {
        svid: svid(&root.leaf(CART).issue()),
        bundles: bundles(&[&root]),
        revocations: RevocationSet::default(),
    };
    let snapshot = process.build(material, None).unwrap();
    for chain in [None, Some(&[][..])] {
        let client = snapshot.peer_of_server_connection(process.server, chain);
        assert_eq!(client.unwrap_err(), PeerError::NoCertificate);
        let server = snapshot.peer_of_client_connection(process.client, chain);
        assert_eq!(server.unwrap_err(), PeerError::NoCertificate);
    }
}

#[test]
fn a_snapshot_shows_no_key() {
    let process = Process::new();
    let root = Authority::root("example.org");
    let material = Material {
        svid: svid(&root.leaf(CART).issue()),
        bundles: bundles(&[&root]),
        revocations: RevocationSet::default(),
    };
    let snapshot = process.build(material, None).unwrap();
    assert!(!format!("{snapshot:?}").to_lowercase().contains("key"), "{snapshot:?}");
}

/// All certificates of this key are revoked.
fn revoking(known: &RevocationSet, epoch: u64, certificate: &CertificateDer<'_>) -> RevocationSet {
    let certificate = crate::certificate::parse(certificate).unwrap();
    let key = KeySha256::of(certificate.tbs_certificate.subject_pki.raw);
    let statement = RevocationStatement {
        trust_domain: "example.org".to_owned(),
        lineage: vec![1; 8],
        after: 0,
        epoch,
        latest: epoch,
        keys: vec![RevokedKey { sha256: key.as_bytes().to_vec(), not_after: i64::MAX }],
        ..RevocationStatement::default()
    };
    let trust_domain = "example.org".parse().unwrap();
    known.with(VerifiedRevocations::of(&trust_domain), statement, OffsetDateTime::now_utc()).unwrap()
}

#[test]
fn a_revocation_begins_a_trust_epoch_and_hearing_of_none_does_not() {
    let process = Process::new();
    let root = Authority::root("example.org");
    let peer = root.leaf("spiffe://example.org/peer").issue();
    let own = svid(&root.leaf(CART).issue());
    let build = |revocations, previous| {
        process.build(Material { svid: own.clone(), bundles: bundles(&[&root]), revocations }, previous).unwrap()
    };
    let first = build(RevocationSet::default(), None);
    let revoked = revoking(&RevocationSet::default(), 1, &peer.chain[0]);
    let second = build(revoked.clone(), Some(&first));
    assert_eq!((second.trust_epoch().get(), second.generation().get(), second.renewed_in().get()), (2, 2, 1));
    let refused = second.peer_of_server_connection(process.server, Some(&peer.chain)).unwrap_err();
    assert_eq!(refused.reason(), "revoked");
    // Nothing new, but that it is known how far all is.
    let third = build(revoking(&revoked, 7, &peer.chain[0]), Some(&second));
    assert_eq!(third.trust_epoch(), second.trust_epoch());
    assert!(Arc::ptr_eq(&third.trust, &second.trust));
    assert_eq!(third.revocations().get(&"example.org".parse().unwrap()).unwrap().epoch(), 7);
    assert_eq!(third.own_revoked(), None);
}

#[test]
fn that_we_are_revoked_ourselves_keeps_nothing_from_coming_into_force() {
    let process = Process::new();
    let root = Authority::root("example.org");
    let (issued, peer) = (root.leaf(CART).issue(), root.leaf("spiffe://example.org/peer").issue());
    let build = |revocations, previous| {
        process.build(Material { svid: svid(&issued), bundles: bundles(&[&root]), revocations }, previous).unwrap()
    };
    let first = build(RevocationSet::default(), None);
    first.peer_of_server_connection(process.server, Some(&issued.chain)).unwrap();
    let revoked = revoking(&revoking(&RevocationSet::default(), 1, &issued.chain[0]), 2, &peer.chain[0]);
    for snapshot in [build(revoked.clone(), Some(&first)), build(revoked, None)] {
        assert!(matches!(snapshot.own_revoked(), Some(Revoked::Key { .. })));
        assert_eq!(snapshot.expires_at(), snapshot.svid().not_after());
        // Judging ourselves has not made us known as somebody to believe.
        for chain in [&issued.chain, &peer.chain] {
            let refused = snapshot.peer_of_server_connection(process.server, Some(chain)).unwrap_err();
            assert_eq!(refused.reason(), "revoked");
        }
    }
}
