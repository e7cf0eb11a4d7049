#![allow(clippy::unwrap_used)]
use std::time::Duration;

use signet_identity::ManualClock;
use tempfile::TempDir;

use super::super::custody::Memory;
use super::super::testing::Root;
use super::*;

fn place_in(folder: &TempDir, custody: &Arc<Memory>) -> Place {
    Place {
        trust_domain: "example.org".parse().unwrap(),
        custody: Arc::clone(custody) as Arc<dyn Custody>,
        journal: folder.path().join("authorities.json"),
        request: folder.path().join("authority.csr"),
        path_length: 0,
        outbox: Outbox::default(),
    }
}

#[test]
fn a_key_is_destroyed_once_its_certificate_has_expired_after_a_restart_too() {
    let folder = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let (clock, root) = (ManualClock::new(now), Root::new("example.org", now));
    let custody = Arc::new(Memory::default());
    let open = || {
        let place = place_in(&folder, &custody);
        Authorities::open(place, Some(&root.bundle()), clock.shared()).unwrap()
    };
    let authorities = open();
    authorities.request(2).unwrap();
    let keys: Vec<_> = authorities.all().into_iter().map(|member| member.key).collect();
    let day = Duration::from_secs(86_400);
    authorities.import(root.sign(&keys[0], now, day).as_bytes(), &root.bundle()).unwrap();
    authorities.import(root.sign(&keys[1], now, 10 * day).as_bytes(), &root.bundle()).unwrap();
    authorities.change(|kept, now| kept.activate(&keys[1].name(), now)).unwrap();
    authorities.sweep().unwrap();
    assert_eq!(authorities.all().len(), 2, "it is good until it expires");
    drop(authorities);

    // Nor at once: a clock may be ahead for a moment.
    clock.set(now + 2 * day);
    let authorities = open();
    authorities.sweep().unwrap();
    assert_eq!(authorities.all().len(), 2);
    drop(authorities);

    clock.set(now + 9 * day);
    let authorities = open();
    authorities.sweep().unwrap();
    assert_eq!(authorities.name(), Some(keys[1].name()));
    assert_eq!(authorities.all().len(), 1);
    assert!(matches!(custody.open(&keys[0].name()), Err(CustodyError::Gone { .. })));
    custody.open(&keys[1].name()).unwrap();
}

#[test]
fn whoever_looks_waits_for_no_change_that_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let place = place_in(&folder, &Arc::default());
    let authorities = Authorities::open(place, None, ManualClock::new(now).shared()).unwrap();
    let seen = authorities.change(|_, _| {
        let (looking, (tell, told)) = (authorities.clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || tell.send(looking.all().len()));
        Ok::<_, AuthorityError>(told.recv_timeout(Duration::from_secs(10)))
    });
    assert_eq!(seen.unwrap(), Ok(1));
}

#[test]
fn an_issuer_that_stopped_between_a_keys_end_and_the_journal_starts_and_one_whose_key_is_lost_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let (clock, root) = (ManualClock::new(now), Root::new("example.org", now));
    let custody = Arc::new(Memory::default());
    let open = || {
        let place = place_in(&folder, &custody);
        Authorities::open(place, Some(&root.bundle()), clock.shared())
    };
    let authorities = open().unwrap();
    authorities.request(2).unwrap();
    let keys: Vec<_> = authorities.all().into_iter().map(|member| member.key).collect();
    let day = Duration::from_secs(86_400);
    for key in &keys {
        authorities.import(root.sign(key, now, day).as_bytes(), &root.bundle()).unwrap();
    }
    authorities.change(|kept, now| kept.activate(&keys[1].name(), now)).unwrap();
    drop(authorities);
    custody.destroy(&keys[0].name(), Purpose::Authority).unwrap();
    let gone = |opened: Result<Authorities, AuthorityError>| {
        matches!(opened, Err(AuthorityError::Custody(CustodyError::Gone { .. })))
    };
    assert!(gone(open()), "it still signs its lists");
    clock.set(now + 9 * day);
    assert_eq!(open().unwrap().all().len(), 1);
    custody.destroy(&keys[1].name(), Purpose::Authority).unwrap();
    assert!(gone(open()), "it is the one that signs");
}

#[test]
fn what_an_authority_has_signed_stays_known_by_the_identifier_it_was_signed_under() {
    let folder = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let root = Root::new("example.org", now);
    let place = place_in(&folder, &Arc::default());
    let authorities = Authorities::open(place, Some(&root.bundle()), ManualClock::new(now).shared()).unwrap();
    authorities.request(2).unwrap();
    let keys: Vec<_> = authorities.all().into_iter().map(|member| member.key).collect();
    let day = Duration::from_secs(86_400);
    let import = |pem: &str| authorities.import(pem.as_bytes(), &root.bundle());
    for key in &keys {
        import(&root.sign(key, now, 10 * day)).unwrap();
    }
    // One that has signed nothing yet may have another.
    import(&root.sign_as([7; 20], &keys[1], now, 10 * day)).unwrap();
    import(&root.sign(&keys[1], now, 10 * day)).unwrap();
    authorities.change(|kept, now| kept.activate(&keys[1].name(), now)).unwrap();
    let before = |number: usize| authorities.all()[number].authority.clone().unwrap().certificate().unwrap().to_vec();
    for (number, key) in keys.iter().enumerate() {
        let known = before(number);
        let refused = import(&root.sign_as([7; 20], key, now, 20 * day)).unwrap_err();
        assert!(matches!(refused, ImportError::Step(StepError::OtherKeyId { .. })), "{refused}");
        assert_eq!(before(number), known);
        import(&root.sign(key, now, 20 * day)).unwrap();
        assert_ne!(before(number), known);
    }
}

#[test]
fn one_that_was_prepared_and_never_signed_makes_room_once_it_has_expired() {
    let folder = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let (clock, root) = (ManualClock::new(now), Root::new("example.org", now));
    let place = place_in(&folder, &Arc::default());
    let authorities = Authorities::open(place, Some(&root.bundle()), clock.shared()).unwrap();
    authorities.request(MOST).unwrap();
    let day = Duration::from_secs(86_400);
    for (number, member) in authorities.all().into_iter().enumerate() {
        let life = if number == 0 { 60 * day } else { day };
        authorities.import(root.sign(&member.key, now, life).as_bytes(), &root.bundle()).unwrap();
    }
    assert!(matches!(authorities.request(1), Err(AuthorityError::TooMany)));
    clock.set(now + 9 * day);
    authorities.sweep().unwrap();
    assert_eq!(authorities.all().len(), 1);
    authorities.request(1).unwrap();
}

#[test]
fn one_that_was_revoked_is_no_request_that_could_be_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let root = Root::new("example.org", now);
    let place = Place {
        trust_domain: "example.org".parse().unwrap(),
        custody: Arc::new(Memory::default()),
        journal: folder.path().join("authorities.json"),
        request: folder.path().join("authority.csr"),
        path_length: 0,
        outbox: Outbox::default(),
    };
    let authorities = Authorities::open(place, Some(&root.bundle()), ManualClock::new(now).shared()).unwrap();
    authorities.request(4).unwrap();
    let keys: Vec<_> = authorities.all().into_iter().map(|member| member.key).collect();
    let day = Duration::from_secs(86_400);
    for key in &keys[..2] {
        authorities.import(root.sign(key, now, day).as_bytes(), &root.bundle()).unwrap();
    }
    authorities.revoke(&keys[1].name()).unwrap();
    authorities.discard(&[keys[2].name()]).unwrap();
    authorities.discard(&[keys[2].name()]).unwrap();

    // All of them or none.
    let refused = authorities.discard(&[keys[3].name(), keys[1].name()]).unwrap_err();
    assert!(matches!(&refused, StepError::Stage { name, .. } if *name == keys[1].name()), "{refused}");
    let stages: Vec<_> = authorities.all().iter().map(|member| member.stage).collect();
    assert_eq!(stages, [Stage::Active, Stage::Revoked, Stage::Revoked, Stage::Requested]);
}
