#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use signet_test_pki::{Authority, Issued};
use time::Duration;

use super::*;
use crate::{AuthorityError, BundleSet, TrustBundle, certificate::parse};

mod attacks;

const LINEAGE: [u8; 8] = *b"lineage1";

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn bundles(roots: &[&Authority]) -> BundleSet {
    let of = |root: &&Authority| {
        TrustBundle::new(root.trust_domain().parse().unwrap(), vec![root.root_certificate().clone()]).unwrap()
    };
    roots.iter().map(of).collect()
}

fn statement(after: u64, epoch: u64, latest: u64) -> RevocationStatement {
    let trust_domain = "example.org".to_owned();
    RevocationStatement { trust_domain, lineage: LINEAGE.to_vec(), after, epoch, latest, ..Default::default() }
}

fn serials(authority_key_id: &[u8], serials: &[&[u8]]) -> RevokedSerials {
    let end = (now() + Duration::days(1)).unix_timestamp();
    RevokedSerials {
        authority_key_id: authority_key_id.to_vec(),
        serials: serials.iter().map(|serial| serial.to_vec()).collect(),
        not_after: vec![end; serials.len()],
    }
}

/// As if it was verified: these tests are about what follows.
fn with(known: &RevocationSet, statement: RevocationStatement) -> Result<RevocationSet, RevocationError> {
    let trust_domain = domain();
    known.with(VerifiedRevocations::of(&trust_domain), statement, now())
}

fn leaf_of(issued: &Issued) -> Revocable {
    Revocable::of(&parse(&issued.chain[0]).unwrap(), None)
}

fn key_of(certificate: &CertificateDer<'_>) -> KeySha256 {
    KeySha256::of(parse(certificate).unwrap().tbs_certificate.subject_pki.raw)
}

fn id_of(authority: &Authority) -> Vec<u8> {
    key_id(&parse(authority.certificate()).unwrap()).unwrap().to_vec()
}

#[test]
fn each_kind_of_entry_refuses_what_it_is_about_and_nothing_else() {
    let issuing = Authority::root("example.org").intermediate();
    let other = Authority::root("example.org").intermediate();
    let [one, two] = [(); 2].map(|()| issuing.leaf("spiffe://example.org/a").issue());
    let serial_of_one = leaf_of(&one).serial;
    let revoke = |change: &dyn Fn(&mut RevocationStatement)| {
        let mut statement = statement(0, 1, 1);
        change(&mut statement);
        with(&RevocationSet::default(), statement).unwrap().get(&domain()).unwrap().clone()
    };

    let by_serial =
        revoke(&|statement| statement.serials = vec![serials(&id_of(&issuing), &[serial_of_one.as_bytes()])]);
    assert_eq!(by_serial.check(&leaf_of(&one)), Err(Revoked::Certificate { serial: serial_of_one.clone() }));
    assert_eq!(by_serial.check(&leaf_of(&two)), Ok(()));
    // The same number of another authority is another certificate.
    let elsewhere = revoke(&|statement| statement.serials = vec![serials(&id_of(&other), &[serial_of_one.as_bytes()])]);
    assert_eq!(elsewhere.check(&leaf_of(&one)), Ok(()));

    let key = key_of(&one.chain[0]);
    let by_key = revoke(&|statement| statement.keys = vec![RevokedKey::new(key, now())]);
    assert_eq!(by_key.check(&leaf_of(&one)), Err(Revoked::Key { sha256: key }));
    assert_eq!(by_key.check(&leaf_of(&two)), Ok(()));

    let authority = key_of(issuing.certificate());
    let by_authority = revoke(&|statement| statement.authorities = vec![RevokedKey::new(authority, now())]);
    assert_eq!(by_authority.check_key(authority), Err(Revoked::Authority { sha256: authority }));
    assert_eq!(by_authority.check_key(key_of(other.certificate())), Ok(()));
    assert_eq!(by_authority.counts(), RevocationCounts { authorities: 1, ..Default::default() });
}

#[test]
fn a_certificate_that_names_no_authority_is_found_by_who_signed_it() {
    let issuing = Authority::root("example.org").intermediate();
    let issued = issuing
        .leaf("spiffe://example.org/a")
        .with(|params| params.use_authority_key_identifier_extension = false)
        .issue();
    let certificate = parse(&issued.chain[0]).unwrap();
    let id = id_of(&issuing);
    let mut revoked = statement(0, 1, 1);
    revoked.serials = vec![serials(&id, &[leaf_of(&issued).serial.as_bytes()])];
    let set = with(&RevocationSet::default(), revoked).unwrap();
    let known = set.get(&domain()).unwrap();
    assert!(known.check(&Revocable::of(&certificate, Some(&id))).is_err());
    assert_eq!(known.check(&Revocable::of(&certificate, Some(b"another"))), Ok(()));
}

#[test]
fn a_serial_is_the_same_with_zeros_in_front_of_it() {
    let set = with(
        &RevocationSet::default(),
        RevocationStatement { serials: vec![serials(b"ca", &[&[0, 0, 7], &[0xff; 20]])], ..statement(0, 1, 1) },
    );
    let set = set.unwrap();
    let known = set.get(&domain()).unwrap();
    let revocable = |serial: &[u8]| Revocable {
        authority_key_id: Some(b"ca"[..].into()),
        serial: Serial::from_be_bytes(serial),
        key: KeySha256::of(b"key"),
    };
    for serial in [&[7][..], &[0, 7], &[0xff; 20], &[&[0][..], &[0xff; 20]].concat()] {
        assert!(known.check(&revocable(serial)).is_err(), "{serial:?}");
    }
    // Longer than one may be, it cannot have been revoked by its number; nor is it cut to one that was.
    for serial in [&[7, 0][..], &[0xff; 19], &[0xff; 21], &[&[1][..], &[0xff; 20]].concat()] {
        assert!(known.check(&revocable(serial)).is_ok(), "{serial:?}");
    }
}

#[test]
fn a_row_of_statements_is_taken_up_to_the_latest() {
    let first = with(&RevocationSet::default(), statement(0, 5, 9)).unwrap();
    assert!(!first.get(&domain()).unwrap().is_complete());
    let second = with(&first, statement(5, 9, 9)).unwrap();
    let known = second.get(&domain()).unwrap();
    assert_eq!((known.epoch(), known.lineage(), known.is_complete()), (9, LINEAGE, true));
    // Overlaps, and repetitions, are no harm.
    assert!(with(&second, statement(9, 9, 9)).is_ok());
    assert!(with(&second, statement(2, 12, 12)).is_ok());
    assert!(with(&second, statement(0, 9, 9)).is_ok());
    assert!(with(&RevocationSet::default(), statement(0, 0, 0)).unwrap().get(&domain()).unwrap().is_complete());
}

#[test]
fn what_goes_back_or_leaves_a_gap_is_refused() {
    let known = with(&RevocationSet::default(), statement(0, 9, 9)).unwrap();
    assert_eq!(with(&known, statement(0, 8, 8)).unwrap_err(), RevocationError::GoesBack { epoch: 8, known: 9 });
    assert_eq!(with(&known, statement(10, 12, 12)).unwrap_err(), RevocationError::WouldMiss { after: 10, known: 9 });
    let nothing = RevocationSet::default();
    assert_eq!(with(&nothing, statement(1, 1, 1)).unwrap_err(), RevocationError::WouldMiss { after: 1, known: 0 });
    for (after, epoch, latest) in [(2, 1, 9), (0, 9, 8), (u64::MAX, 0, 0), (0, 1, u64::MAX), (0, 1, 1 << 63)] {
        let malformed = RevocationError::Malformed { what: "row of numbers" };
        assert_eq!(with(&nothing, statement(after, epoch, latest)).unwrap_err(), malformed);
    }
}

#[test]
fn no_statement_uses_up_the_numbers_that_there_are() {
    let most = RevocationStatement::MAX_EPOCHS;
    let known = with(&RevocationSet::default(), statement(0, 9, 9)).unwrap();
    for last in [i64::MAX as u64, 10 + most] {
        let refused = with(&known, statement(9, last, last)).unwrap_err();
        assert_eq!(refused, RevocationError::Leaps { from: 9, epoch: last });
    }
    // Nor by another database.
    let other = RevocationStatement { lineage: b"lineage2".to_vec(), ..statement(0, most + 1, most + 1) };
    assert_eq!(with(&known, other).unwrap_err(), RevocationError::Leaps { from: 0, epoch: most + 1 });
    let refused = with(&known, statement(9, u64::MAX, u64::MAX)).unwrap_err();
    assert_eq!(refused, RevocationError::Malformed { what: "row of numbers" });
    // A long row of which most has expired is told in parts.
    let part = with(&known, statement(9, 9 + most, i64::MAX as u64)).unwrap();
    assert_eq!(
        with(&part, statement(9 + most, 10 + most, 10 + most)).unwrap().get(&domain()).unwrap().epoch(),
        10 + most
    );
}

#[test]
fn another_database_begins_at_its_beginning_and_nothing_is_forgotten_for_it() {
    let key = KeySha256::of(b"key");
    let keys = vec![RevokedKey::new(key, now() + Duration::days(1))];
    let known = with(&RevocationSet::default(), RevocationStatement { keys, ..statement(0, 900, 900) }).unwrap();
    let other = |after, epoch| RevocationStatement { lineage: b"lineage2".to_vec(), ..statement(after, epoch, epoch) };
    assert_eq!(with(&known, other(1, 2)).unwrap_err(), RevocationError::OtherLineage { after: 1 });
    assert_eq!(with(&known, other(900, 901)).unwrap_err(), RevocationError::OtherLineage { after: 900 });
    let moved = with(&known, other(0, 3)).unwrap();
    let moved = moved.get(&domain()).unwrap();
    assert_eq!((moved.epoch(), moved.lineage()), (3, *b"lineage2"));
    assert!(moved.check_key(key).is_err());
}

#[test]
fn a_statement_is_taken_whole_or_not_at_all() {
    let good = serials(b"ca", &[&[1], &[2]]);
    let key = |bytes: usize| RevokedKey { sha256: vec![1; bytes], not_after: i64::MAX };
    let good_keys = vec![key(32)];
    let bad = [
        RevocationStatement { keys: vec![key(32), key(31)], ..statement(0, 1, 1) },
        RevocationStatement { keys: good_keys.clone(), authorities: vec![key(33)], ..statement(0, 1, 1) },
        RevocationStatement { serials: vec![good.clone(), serials(b"ca", &[&[]])], ..statement(0, 1, 1) },
        RevocationStatement { serials: vec![good.clone(), serials(b"ca", &[&[0, 0]])], ..statement(0, 1, 1) },
        RevocationStatement { serials: vec![good.clone(), serials(b"ca", &[&[1; 21]])], ..statement(0, 1, 1) },
        RevocationStatement { serials: vec![good.clone(), serials(b"", &[&[1]])], ..statement(0, 1, 1) },
        RevocationStatement { serials: vec![good.clone(), serials(&[1; 65], &[&[1]])], ..statement(0, 1, 1) },
        RevocationStatement {
            serials: vec![RevokedSerials { not_after: vec![i64::MAX], ..good.clone() }],
            ..statement(0, 1, 1)
        },
        RevocationStatement { lineage: vec![0; 7], serials: vec![good.clone()], ..statement(0, 1, 1) },
    ];
    let known = with(&RevocationSet::default(), statement(0, 0, 0)).unwrap();
    for statement in bad {
        let refused = with(&known, statement).unwrap_err();
        assert!(matches!(refused, RevocationError::Malformed { .. }), "{refused:?}");
        assert_eq!(known.get(&domain()).unwrap().counts(), RevocationCounts::default());
    }
    // By a clock that is far ahead something is left out that has not expired.
    let at = |ahead| now().unix_timestamp().saturating_add(ahead);
    for ahead in [at(7_260), i64::MAX] {
        let refused = with(&known, RevocationStatement { at: ahead, ..statement(0, 1, 1) }).unwrap_err();
        assert!(matches!(refused, RevocationError::FromTheFuture { .. }), "{refused:?}");
    }
    with(&known, RevocationStatement { at: at(7_100), ..statement(0, 1, 1) }).unwrap();
    let other = RevocationStatement { trust_domain: "other.org".into(), keys: good_keys, ..statement(0, 1, 1) };
    assert!(matches!(with(&known, other).unwrap_err(), RevocationError::OtherTrustDomain { .. }));
}

#[test]
fn a_statement_has_a_limit_and_so_has_a_trust_domain() {
    let many = |count: usize| RevocationStatement {
        serials: vec![serials(b"ca", &vec![&[1][..]; count - 1])],
        keys: vec![RevokedKey::new(KeySha256::of(b"key"), now())],
        ..statement(0, 1, 1)
    };
    assert!(with(&RevocationSet::default(), many(16_384)).is_ok());
    let refused = with(&RevocationSet::default(), many(16_385)).unwrap_err();
    assert_eq!(refused, RevocationError::TooMany { count: 16_385 });

    let authorities = |from: u32, to: u32| RevocationStatement {
        serials: (from..to).map(|number| serials(&number.to_be_bytes(), &[&[1]])).collect(),
        ..statement(0, 1, 1)
    };
    let full = with(&RevocationSet::default(), authorities(0, 4_096)).unwrap();
    assert_eq!(with(&full, authorities(4_096, 4_097)).unwrap_err(), RevocationError::Full { count: 4_097 });
    assert!(with(&full, authorities(0, 10)).is_ok());
}

#[test]
fn whether_the_same_is_revoked_does_not_depend_on_how_far_that_is_known() {
    let keys = vec![RevokedKey::new(KeySha256::of(b"key"), now() + Duration::days(1))];
    let nothing = RevocationSet::default();
    let told = with(&nothing, statement(0, 0, 0)).unwrap();
    let revoked = with(&told, RevocationStatement { keys: keys.clone(), ..statement(0, 1, 1) }).unwrap();
    let again = with(&revoked, RevocationStatement { keys, ..statement(0, 2, 2) }).unwrap();
    assert!(nothing.revokes_same(&told) && told.revokes_same(&nothing));
    assert!(revoked.revokes_same(&again) && again.revokes_same(&revoked));
    assert!(!revoked.revokes_same(&told) && !told.revokes_same(&revoked) && !nothing.revokes_same(&revoked));
}

#[test]
fn what_has_expired_is_forgotten() {
    let keys = vec![RevokedKey::new(KeySha256::of(b"key"), now() + Duration::hours(1))];
    let set = with(&RevocationSet::default(), RevocationStatement { keys, ..statement(0, 1, 1) }).unwrap();
    let later = set.clone().forgetting(now() + Duration::hours(2));
    assert!(set.revokes_same(&later));
    let much_later = set.clone().forgetting(now() + Duration::hours(4));
    let known = much_later.get(&domain()).unwrap();
    assert_eq!((known.counts().all(), known.epoch()), (0, 1));
}
