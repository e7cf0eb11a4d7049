//! What is revoked has no successor, and is numbered for ever.

use sqlx::Row as _;

use super::super::revocations::PAGE_OF_ISSUED;
use super::super::{NewRevocation, RevocationFilter, RevocationTarget, RevokedKind};
use super::*;
use crate::attestation::ShownCertificate;
use crate::revocation::{Reason, SerialNumber};

fn serial(number: u8) -> SerialNumber {
    SerialNumber::from_be_bytes(&[number; 16]).unwrap()
}

fn revocation(target: RevocationTarget, clock: &ManualClock) -> NewRevocation {
    let (reason, actor) = (Reason::KeyCompromise, Actor::user(7));
    NewRevocation { target, reason, actor, comment: "ticket".to_owned(), at: clock.now() }
}

/// Who shows the certificate `shown`.
fn successor_of(shown: u8, of: AttestationNumber) -> Attestation {
    Attestation::Renewal { serial: vec![shown; 16], of }
}

/// The serial numbers that are revoked, with their epochs.
async fn revoked(store: &Store, clock: &ManualClock) -> Vec<(u64, u8)> {
    let records = store.revoked_between((0, u64::MAX), clock.now(), 100).await.unwrap();
    let serials = records.iter().filter(|record| record.kind == RevokedKind::Serial);
    serials.map(|record| (record.epoch, record.value[0])).collect()
}

async fn a_revoked_certificate_has_no_successor_and_others_have(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 16).await;
    let agents = agents(&store, &clock);
    let until = clock.now() + Duration::from_secs(60);
    store.log(certificate(1, clock.now(), proof("a", until))).await.unwrap();
    let of = standing(&agents, 1).await.unwrap().number;
    store.log(certificate(2, clock.now(), successor_of(1, of))).await.unwrap();
    let done = store.revoke(revocation(RevocationTarget::Serials(vec![serial(1), serial(99)]), &clock)).await.unwrap();
    assert_eq!((done.epoch, done.certificates, done.agents), (1, 1, 0));
    assert!(matches!(standing(&agents, 1).await, Err(NoStanding::Revoked)));
    standing(&agents, 2).await.unwrap();
    // Asked for before, and recorded after.
    let beside = Attestation::Beside { serial: vec![1; 16], of };
    for late in [successor_of(1, of), beside] {
        assert!(matches!(store.log(certificate(3, clock.now(), late)).await, Err(LogError::Revoked)));
    }
    store.log(certificate(3, clock.now(), successor_of(2, of))).await.unwrap();
    // Another authority's certificate of that number is another certificate.
    let mut other = certificate(4, clock.now(), Attestation::Issuer);
    other.authority = KeyId::new(&[2; 20]);
    store.log(other).await.unwrap();
    assert_eq!(revoked(&store, &clock).await, [(1, 1)]);
    task.finish().await;
}

async fn a_revoked_key_or_authority_gets_and_signs_nothing_more(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 16).await;
    let agents = agents(&store, &clock);
    let until = clock.now() + Duration::from_secs(60);
    store.log(certificate(1, clock.now(), proof("a", until))).await.unwrap();
    let of = standing(&agents, 1).await.unwrap().number;
    for number in [1, 5] {
        let key = RevocationTarget::Key(KeyHash::of_spki(&[number]), until);
        store.revoke(revocation(key, &clock)).await.unwrap();
    }
    assert_eq!(revoked(&store, &clock).await, [(1, 1)]);
    assert!(matches!(store.log(certificate(5, clock.now(), proof("b", until))).await, Err(LogError::Revoked)));
    assert!(matches!(store.log(certificate(6, clock.now(), successor_of(1, of))).await, Err(LogError::Revoked)));
    // The proof was not used up for nothing.
    store.log(certificate(7, clock.now(), proof("b", until))).await.unwrap();
    let of = standing(&agents, 7).await.unwrap().number;

    let authority = RevocationTarget::Authority(KeyId::new(&[1; 20]), KeyHash::of_spki(&[200]), until);
    let done = store.revoke(revocation(authority, &clock)).await.unwrap();
    assert_eq!((done.epoch, done.certificates), (4, 0));
    assert!(matches!(standing(&agents, 7).await, Err(NoStanding::Revoked)));
    // Neither by it, nor for whoever shows one by it.
    assert!(matches!(store.log(certificate(8, clock.now(), proof("c", until))).await, Err(LogError::Revoked)));
    let mut by_another = certificate(8, clock.now(), successor_of(7, of));
    by_another.authority = KeyId::new(&[2; 20]);
    assert!(matches!(store.log(by_another).await, Err(LogError::Revoked)));
    let mut by_another = certificate(8, clock.now(), proof("c", until));
    by_another.authority = KeyId::new(&[2; 20]);
    store.log(by_another).await.unwrap();
    task.finish().await;
}

async fn an_identity_is_revoked_with_all_that_was_given_for_it_and_evicted(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 16).await;
    let agents = agents(&store, &clock);
    let until = clock.now() + Duration::from_secs(60);
    store.log(certificate(1, clock.now(), proof("a", until))).await.unwrap();
    let of = standing(&agents, 1).await.unwrap().number;
    // Another name beside it, and somebody else.
    let named = |number, name: &str, attestation| {
        let mut certificate = certificate(number, clock.now(), attestation);
        certificate.id = name.parse().unwrap();
        certificate.rule = Some("servers".parse().unwrap());
        certificate
    };
    let beside = Attestation::Beside { serial: vec![1; 16], of };
    store.log(named(2, "spiffe://example.org/db", beside)).await.unwrap();
    store.log(named(3, "spiffe://example.org/other", proof("b", until))).await.unwrap();
    let target = RevocationTarget::Id(id());
    assert_eq!(store.concerned(&target, clock.now(), 10).await.unwrap().len(), 2);
    let done = store.revoke(revocation(target.clone(), &clock)).await.unwrap();
    assert_eq!((done.epoch, done.certificates, done.agents, done.is_partial), (2, 2, 1, false));
    assert_eq!(revoked(&store, &clock).await, [(1, 1), (2, 2)]);
    assert!(matches!(store.log(certificate(4, clock.now(), successor_of(1, of))).await, Err(LogError::Evicted)));
    assert!(store.concerned(&target, clock.now(), 10).await.unwrap().is_empty());
    // Once is enough.
    let again = store.revoke(revocation(target, &clock)).await.unwrap();
    assert_eq!((again.epoch, again.certificates, again.agents), (2, 0, 0));
    // By the rule, what of it is left.
    let rule = |name: &str| revocation(RevocationTarget::Rule(name.to_owned()), &clock);
    assert_eq!(store.revoke(rule("server")).await.unwrap().certificates, 0);
    assert_eq!(store.revoke(rule("servers")).await.unwrap().certificates, 1);
    assert_eq!(revoked(&store, &clock).await, [(1, 1), (2, 2), (3, 3)]);
    // It may attest itself again.
    store.log(certificate(5, clock.now(), proof("c", until))).await.unwrap();
    let of = agents.list(Some(&id()), AttestationNumber(0), 10).await.unwrap()[0].0.number;
    let done = store.revoke(revocation(RevocationTarget::Agent(of), &clock)).await.unwrap();
    assert_eq!((done.epoch, done.certificates, done.agents), (4, 1, 1));
    task.finish().await;
}

async fn what_is_over_is_forgotten_and_its_number_is_not_given_again(which: Which) {
    let Opened { store, task, clock, location, _folder, .. } = opened(which, 16).await;
    for number in 1..4 {
        store.log(certificate(number, clock.now(), Attestation::Issuer)).await.unwrap();
    }
    let serials = |numbers: &[u8]| RevocationTarget::Serials(numbers.iter().map(|number| serial(*number)).collect());
    store.revoke(revocation(serials(&[1, 2]), &clock)).await.unwrap();
    let lineage = store.revocation_epoch().await.unwrap();
    assert_eq!(lineage.1, 2);
    let since = OffsetDateTime::UNIX_EPOCH;
    let before = clock.now() + Duration::from_secs(1);
    let filter = RevocationFilter { after: 0, limit: 1, reason: Some(Reason::KeyCompromise), since, before };
    let told = store.revocations(&filter, clock.now()).await.unwrap();
    let told: Vec<_> =
        told.iter().map(|one| (one.revoked.epoch, one.id.clone(), one.actor.as_str(), &*one.by)).collect();
    assert_eq!(told, [(1, Some(id()), "uid:7", "2 serial numbers")]);
    for none in [
        RevocationFilter { after: 2, ..filter },
        RevocationFilter { reason: Some(Reason::Superseded), ..filter },
        RevocationFilter { before: clock.now(), ..filter },
        RevocationFilter { since: before, ..filter },
    ] {
        assert!(store.revocations(&none, clock.now()).await.unwrap().is_empty(), "{none:?}");
    }

    clock.advance(time::Duration::seconds(101));
    assert!(revoked(&store, &clock).await.is_empty(), "expired by themselves");
    store.sweep(KEEP).await.unwrap();
    store.log(certificate(4, clock.now(), Attestation::Issuer)).await.unwrap();
    let early = clock.now() - time::Duration::seconds(100);
    assert_eq!(store.revoked_between((0, 9), early, 10).await.unwrap().len(), 2, "a clock may be set back");
    clock.advance(time::Duration::days(8));
    store.sweep(KEEP).await.unwrap();
    store.log(certificate(5, clock.now(), Attestation::Issuer)).await.unwrap();
    assert!(store.revoked_between((0, 9), since, 10).await.unwrap().is_empty());
    task.finish().await;

    let (readiness, trust_domain) = (Readiness::awaiting([STORE]), "example.org".parse().unwrap());
    let (store, task) =
        Store::open(&location, &trust_domain, AuditLog::unpublished(), 10, clock.shared(), readiness).await.unwrap();
    assert_eq!(store.revocation_epoch().await.unwrap(), lineage, "as it was before");
    assert_eq!(store.revoke(revocation(serials(&[5]), &clock)).await.unwrap().epoch, 3);
    task.finish().await;
}

async fn what_is_revoked_proves_nobodys_identity(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 16).await;
    let until = clock.now() + Duration::from_secs(60);
    store.log(certificate(1, clock.now(), Attestation::Issuer)).await.unwrap();
    let [good, leaf, above] = [200_u8, 201, 202].map(|number| KeyHash::of_spki(&[number]));
    store.revoke(revocation(RevocationTarget::Serials(vec![serial(1)]), &clock)).await.unwrap();
    store.revoke(revocation(RevocationTarget::Key(leaf, until), &clock)).await.unwrap();
    let authority = RevocationTarget::Authority(KeyId::new(&[9; 20]), above, until);
    store.revoke(revocation(authority, &clock)).await.unwrap();
    let shows = |authority: u8, serial: u8, keys: &[KeyHash]| {
        let Attestation::First(attested) = proof("a", until) else { unreachable!() };
        let (authority, serial, keys) = (vec![authority; 20], vec![serial; 16], keys.to_vec());
        Attestation::First(Attested { shown: Some(ShownCertificate { authority, serial, keys }), ..attested })
    };
    for revoked in [shows(1, 1, &[good]), shows(1, 2, &[leaf]), shows(1, 2, &[good, above])] {
        assert!(matches!(store.log(certificate(2, clock.now(), revoked)).await, Err(LogError::Revoked)));
    }
    // Neither the proof nor the key was used up; and another CA's certificate of that number is another one.
    store.log(certificate(2, clock.now(), shows(2, 1, &[good]))).await.unwrap();
    task.finish().await;
}

async fn what_an_authority_has_signed_is_read_whole_part_by_part(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 200).await;
    let now = clock.now();
    let (own, other) = (KeyId::new(&[1; 20]), KeyId::new(&[2; 20]));
    for number in 1..=40 {
        let mut one = certificate(number, now, Attestation::Issuer);
        // Some end at the same time, as where a rule ends then; some are another's, and some are over.
        let life = Duration::from_secs(match number % 4 {
            0 => 0,
            1 | 2 => 50,
            _ => u64::from(number),
        });
        one.validity.not_after = now + life;
        one.validity.not_before = now - Duration::from_secs(u64::from(number % 5));
        one.authority = if number.is_multiple_of(3) { other.clone() } else { own.clone() };
        store.log(one).await.unwrap();
    }
    clock.advance(time::Duration::seconds(5));
    let is_live = |number: u8| match number % 4 {
        0 => false,
        3 => number >= 5,
        _ => true,
    };
    let expected: Vec<u8> = (1..=40_u8).filter(|number| !number.is_multiple_of(3) && is_live(*number)).collect();
    for page in [1, 2, 7, 1_000] {
        let read = store.signed_by_in_pages(&own, clock.now(), expected.len(), page).await.unwrap().unwrap();
        let mut numbers: Vec<u8> = read.iter().map(|(serial, _)| serial.as_bytes()[0]).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, expected, "in pages of {page}");
        let fewer = store.signed_by_in_pages(&own, clock.now(), expected.len() - 1, page).await.unwrap();
        assert!(fewer.is_none(), "some, as if it were all, in pages of {page}");
    }
    task.finish().await;
}

async fn a_page_of_what_was_issued_is_read_by_an_index(which: Which) {
    let Opened { task, clock, location, _folder, .. } = opened(which, 16).await;
    let now = clock.now().unix_timestamp();
    let (explain, number) = match which {
        Which::Sqlite => ("EXPLAIN QUERY PLAN", "CAST(number AS BLOB)"),
        Which::Postgres => ("EXPLAIN", "int4send(number)"),
    };
    // Half of it ends at the same time.
    let fill = format!(
        "WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 20000) \
         INSERT INTO issued (serial, spiffe_id, key_sha256, not_before, not_after, issued_at, attestation, authority_key_id, certificate_sha256) \
         SELECT {number}, '', {number}, {now} + number / 10, \
         {now} + CASE WHEN number > 10000 THEN 5000 ELSE 3000 + number / 10 END, 0, '', {number}, {number} FROM numbers; ANALYZE issued"
    );
    let url = match &location {
        Location::File(path) => format!("sqlite://{}", path.display()),
        Location::Postgres(url) => url.to_string(),
    };
    let mut connection = AnyConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut connection).await.unwrap();
    for (not_after, not_before, position) in [(0, i64::MIN, i64::MIN), (3500, 500, 5_005), (5000, 1200, 12_005)] {
        let sql = sqlx::AssertSqlSafe(format!("{explain} {PAGE_OF_ISSUED}"));
        let query = sqlx::query(sql).bind(now + not_after).bind(now.saturating_add(not_before));
        let rows = query.bind(position).bind(100_i64).fetch_all(&mut connection).await.unwrap();
        // SQLite's plan stands in the last column, PostgreSQL's in its only one.
        let plan: Vec<String> = rows.iter().map(|row| row.get(row.len() - 1)).collect();
        let is_read = |step: &&String| {
            step.contains("issued") && ["Scan", "SCAN", "SEARCH"].iter().any(|word| step.contains(word))
        };
        let is_walked = |step: &&String| {
            step.contains("Index Scan using issued_by_expiry")
                || step.contains("SEARCH issued USING INDEX issued_by_expiry")
        };
        let (read, walked) = (plan.iter().filter(is_read).count(), plan.iter().filter(is_walked).count());
        assert_eq!((read, walked), (3, 3), "{}", plan.join("\n"));
    }
    connection.close().await.unwrap();
    task.finish().await;
}

on_both! {
    a_page_of_what_was_issued_is_read_by_an_index,
    what_an_authority_has_signed_is_read_whole_part_by_part,
    what_is_revoked_proves_nobodys_identity,
    a_revoked_certificate_has_no_successor_and_others_have,
    a_revoked_key_or_authority_gets_and_signs_nothing_more,
    an_identity_is_revoked_with_all_that_was_given_for_it_and_evicted,
    what_is_over_is_forgotten_and_its_number_is_not_given_again,
}
