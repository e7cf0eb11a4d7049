//! What is revoked closes paths: of newcomers, of cached chains, of live peers; and no other.

use super::*;
use crate::{
    RevocationStatement, RevokedKey, RevokedSerials, VerifiedRevocations,
    revocation::{KeySha256, key_id},
};

/// A certificate's key, and its authority's key identifier with its serial number.
fn key_of(der: &CertificateDer<'_>) -> KeySha256 {
    KeySha256::of(parse(der).unwrap().tbs_certificate.subject_pki.raw)
}

fn serial_of(der: &CertificateDer<'_>, authority: &Authority) -> RevokedSerials {
    let authority_key_id = key_id(&parse(authority.certificate()).unwrap()).unwrap().to_vec();
    let serials = vec![parse(der).unwrap().raw_serial().to_vec()];
    RevokedSerials { authority_key_id, serials, not_after: vec![i64::MAX] }
}

fn revoke(statement: RevocationStatement) -> RevocationSet {
    let trust_domain = "example.org".parse().unwrap();
    let (epoch, latest) = (1, 1);
    let (lineage, trust_domain_said) = (vec![1; 8], "example.org".to_owned());
    let statement = RevocationStatement { trust_domain: trust_domain_said, lineage, epoch, latest, ..statement };
    RevocationSet::default().with(VerifiedRevocations::of(&trust_domain), statement, now()).unwrap()
}

fn keys(key: KeySha256) -> Vec<RevokedKey> {
    vec![RevokedKey { sha256: key.as_bytes().to_vec(), not_after: i64::MAX }]
}

impl Trust {
    fn then_revoked(&self, revocations: &RevocationSet) -> Self {
        self.next(self.bundles().clone(), revocations.clone(), now())
    }
}

#[test]
fn whoever_is_revoked_is_refused_in_full_handshakes_and_in_cached_ones_and_nobody_else() {
    let domain = Domain::new("example.org");
    let elsewhere = domain.root.intermediate();
    let (bad, good, other) =
        (domain.issuing.leaf(CART).issue(), domain.issuing.leaf(CART).issue(), elsewhere.leaf(CART).issue());
    let (leaf_key, issuing_key, root_key) =
        (key_of(&bad.chain[0]), key_of(domain.issuing.certificate()), key_of(domain.root.certificate()));
    let by_serial = |serials| RevocationStatement { serials: vec![serials], ..RevocationStatement::default() };
    let by_key = |key| RevocationStatement { keys: keys(key), ..RevocationStatement::default() };
    let by_authority = |key| RevocationStatement { authorities: keys(key), ..RevocationStatement::default() };
    // What is revoked, and whether the two others go on.
    for (statement, [good_goes_on, other_goes_on]) in [
        (by_serial(serial_of(&bad.chain[0], &domain.issuing)), [true, true]),
        (by_key(leaf_key), [true, true]),
        (by_serial(serial_of(domain.issuing.certificate(), &domain.root)), [false, true]),
        (by_key(issuing_key), [false, true]),
        (by_authority(issuing_key), [false, true]),
        (by_key(root_key), [false, false]),
        (by_authority(root_key), [false, false]),
    ] {
        let set = revoke(statement);
        let before = trust([domain.bundle()]);
        let peers = [&bad, &good, &other].map(|issued| judge(&before, &issued.chain, now()).unwrap());
        let after = before.then_revoked(&set);
        let fresh = Trust::new(TrustEpoch::FIRST, [domain.bundle()].into_iter().collect(), set.clone());
        let others = u32::from(good_goes_on) + u32::from(other_goes_on);
        assert_eq!(after.cache(Role::Client).len(), others as usize);
        let goes_on = [false, good_goes_on, other_goes_on];
        for ((issued, peer), goes_on) in [&bad, &good, &other].into_iter().zip(&peers).zip(goes_on) {
            for trust in [&after, &fresh] {
                let judged = judge(trust, &issued.chain, now()).map(drop);
                let still = trust.still_accepts(peer, now());
                for verdict in [judged, still] {
                    assert_eq!(verdict.as_ref().is_ok(), goes_on, "{set:?}: {verdict:?}");
                    assert!(goes_on || verdict.unwrap_err().reason() == "revoked");
                }
            }
            assert_eq!(before.still_accepts(peer, now()), Ok(()), "the old epoch does not change");
        }
        if good_goes_on {
            assert!(Arc::ptr_eq(&judge(&after, &good.chain, now()).unwrap(), &peers[1]), "verified again for nothing");
        }
    }
}

#[test]
fn another_trust_domain_revokes_nobody_here() {
    let (ours, theirs) = (Domain::new("example.org"), Domain::new("other.org"));
    let issued = theirs.issuing.leaf("spiffe://other.org/peer").issue();
    let set = revoke(RevocationStatement {
        serials: vec![serial_of(&issued.chain[0], &theirs.issuing)],
        keys: keys(key_of(&issued.chain[0])),
        authorities: keys(key_of(theirs.root.certificate())),
        ..RevocationStatement::default()
    });
    let trust = trust([ours.bundle(), theirs.bundle()]).then_revoked(&set);
    assert!(judge(&trust, &issued.chain, now()).is_ok());
}

#[test]
fn a_path_past_a_revoked_authority_is_found() {
    let domain = Domain::new("example.org");
    let (gone, kept) = (Domain::new("example.org"), Domain::new("example.org"));
    let cross = |above: &Domain| above.root.cross_signed(&domain.issuing);
    let (by_gone, by_kept) = (cross(&gone), cross(&kept));
    let issued = domain.issuing.leaf(CART).issue();
    let chain = [issued.chain[0].clone(), by_gone, by_kept];
    let both: Vec<_> = [&gone, &kept].map(|domain| domain.root.certificate().clone()).into();
    let bundle = TrustBundle::new("example.org".parse().unwrap(), both).unwrap();
    let before = trust([bundle]);
    let peer = judge(&before, &chain, now()).unwrap();
    for root in [&gone, &kept] {
        let authorities = keys(key_of(root.root.certificate()));
        let after = before.then_revoked(&revoke(RevocationStatement { authorities, ..Default::default() }));
        assert_eq!(after.still_accepts(&peer, now()), Ok(()));
        assert!(judge(&after, &chain, now()).is_ok());
    }
    let authorities = [&gone, &kept].map(|domain| keys(key_of(domain.root.certificate()))).concat();
    let neither = before.then_revoked(&revoke(RevocationStatement { authorities, ..Default::default() }));
    assert_eq!(neither.still_accepts(&peer, now()).unwrap_err().reason(), "revoked");
    assert_eq!(judge(&neither, &chain, now()).unwrap_err().reason(), "revoked");
}

#[test]
fn what_has_expired_is_told_as_expired() {
    let domain = Domain::new("example.org");
    let issued = domain.issuing.leaf(CART).issue();
    let set = revoke(RevocationStatement { keys: keys(key_of(&issued.chain[0])), ..Default::default() });
    let trust = trust([domain.bundle()]).then_revoked(&set);
    assert_eq!(judge(&trust, &issued.chain, now() + Duration::hours(2)).unwrap_err().reason(), "expired");
}
