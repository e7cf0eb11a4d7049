//! Looking through what was issued, and what leaves it.

use sqlx::Row as _;

use super::*;
use crate::revocation::{Reason, SerialNumber};

fn serial(number: u8) -> SerialNumber {
    SerialNumber::from_be_bytes(&[number; 16]).unwrap()
}

fn pattern(text: &str) -> SvidFilter {
    SvidFilter { ids: Some(text.parse().unwrap()), ..SvidFilter::default() }
}

fn all() -> SvidFilter {
    SvidFilter { selection: Selection::All, ..SvidFilter::default() }
}

fn revoked() -> SvidFilter {
    SvidFilter { selection: Selection::Revoked, ..SvidFilter::default() }
}

async fn revoke(store: &Store, clock: &ManualClock, target: RevocationTarget) {
    let (reason, actor) = (Reason::KeyCompromise, Actor::user(7));
    let revocation = NewRevocation { target, reason, actor, comment: "ticket".to_owned(), at: clock.now() };
    store.revoke(revocation).await.unwrap();
}

/// 40 certificates: of four identities, two rules, two profiles and two authorities, with ends that many share. A quarter is over.
async fn filled(store: &Store, clock: &ManualClock) {
    let now = clock.now();
    for number in 1..=40_u8 {
        let mut one = certificate(number, now, Attestation::Issuer);
        let name = ["shop/cart", "shop/cart-2", "shop", "ship/a"][usize::from(number % 4)];
        one.id = format!("spiffe://example.org/{name}").parse().unwrap();
        one.validity.not_after = now + Duration::from_secs([10, 50, 50, 100][usize::from(number / 11)]);
        one.rule = number.is_multiple_of(5).then(|| "fifth".parse().unwrap());
        one.authority = KeyId::new(&[1 + number % 2; 20]);
        store.log(one).await.unwrap();
    }
    clock.advance(time::Duration::seconds(20));
}

/// The numbers of all that are found, over pages of `limit`.
async fn found(store: &Store, clock: &ManualClock, filter: &SvidFilter, first: PageStart, limit: usize) -> Vec<u8> {
    let (mut start, mut numbers) = (first, Vec::new());
    loop {
        let page = store.svids(filter, start, limit, clock.now(), |_| true).await.unwrap();
        assert!(page.svids.len() <= limit);
        numbers.extend(page.svids.iter().map(|svid| svid.serial[0]));
        let Some(next) = page.next else { return numbers };
        start = PageStart::Behind(next.to_string().parse().unwrap());
    }
}

/// Whether the certificate of this number is.
type Wanted = Box<dyn Fn(u8) -> bool>;

async fn pages_together_are_what_the_filters_ask_for_in_every_order(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 200).await;
    filled(&store, &clock).await;
    revoke(&store, &clock, RevocationTarget::Serials(vec![serial(14), serial(25), serial(26)])).await;
    let is_live = |number: u8| number > 10;
    let cases: Vec<(SvidFilter, Wanted)> = vec![
        (SvidFilter::default(), Box::new(is_live)),
        (all(), Box::new(|_| true)),
        (SvidFilter { selection: Selection::Expired, ..all() }, Box::new(move |number| !is_live(number))),
        (revoked(), Box::new(|number| [14, 25, 26].contains(&number))),
        (
            SvidFilter { expiring_until: Some(clock.now() + Duration::from_secs(40)), ..all() },
            Box::new(|number| (11..33).contains(&number)),
        ),
        (SvidFilter { rule: Some("fifth".to_owned()), ..all() }, Box::new(|number| number.is_multiple_of(5))),
        (SvidFilter { profile: Some("workload".to_owned()), ..all() }, Box::new(|_| true)),
        (SvidFilter { profile: Some("device".to_owned()), ..all() }, Box::new(|_| false)),
        (
            SvidFilter { authority: Some(vec![1; 20]), ..SvidFilter::default() },
            Box::new(move |number| is_live(number) && number % 2 == 0),
        ),
        (pattern("spiffe://example.org/shop/**"), Box::new(move |number| is_live(number) && number % 4 < 2)),
        (pattern("spiffe://example.org/shop/cart"), Box::new(move |number| is_live(number) && number % 4 == 0)),
        (pattern("spiffe://example.org/sh*p*"), Box::new(is_live)),
        (pattern("*/cart"), Box::new(move |number| is_live(number) && number % 4 == 0)),
        (pattern("spiffe://other.org/**"), Box::new(|_| false)),
        (
            SvidFilter { selection: Selection::Revoked, rule: Some("fifth".to_owned()), ..all() },
            Box::new(|number| number == 25),
        ),
    ];
    for (filter, wanted) in &cases {
        let expected: Vec<u8> = (1..=40).filter(|number| wanted(*number)).collect();
        for order in [None, Some(Order::Issued), Some(Order::Expiry), Some(Order::Id)] {
            for limit in [1, 3, 1000] {
                let up = found(&store, &clock, filter, PageStart::First(order, Direction::Up), limit).await;
                let mut down = found(&store, &clock, filter, PageStart::First(order, Direction::Down), limit).await;
                down.reverse();
                assert_eq!(up, down, "{filter:?} {order:?} by {limit}");
                match order {
                    Some(Order::Issued) => assert_eq!(up, expected, "{filter:?} by {limit}"),
                    Some(Order::Id) => {
                        let name =
                            |number: &u8| ["shop/cart", "shop/cart-2", "shop", "ship/a"][usize::from(number % 4)];
                        assert!(up.is_sorted_by_key(name), "{up:?}");
                    }
                    Some(Order::Expiry) => {
                        assert!(up.is_sorted_by_key(|number| [10, 50, 50, 100][usize::from(number / 11)]))
                    }
                    None => {}
                }
                let mut sorted = up;
                sorted.sort_unstable();
                assert_eq!(sorted, expected, "{filter:?} {order:?} by {limit}");
            }
        }
    }
    // With its authority, a certificate is revoked too.
    let key = KeyHash::of_spki(&[200]);
    revoke(
        &store,
        &clock,
        RevocationTarget::Authority(KeyId::new(&[2; 20]), key, clock.now() + Duration::from_secs(900)),
    )
    .await;
    let start = PageStart::First(None, Direction::Up);
    let expected: Vec<u8> = (1..=40).filter(|number| number % 2 == 1 || [14, 26].contains(number)).collect();
    assert_eq!(found(&store, &clock, &revoked(), start, 7).await, expected);
    task.finish().await;
}

async fn nobody_is_told_of_identities_that_they_do_not_see(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 200).await;
    filled(&store, &clock).await;
    let mut start = PageStart::First(Some(Order::Id), Direction::Up);
    let mut seen = Vec::new();
    loop {
        let page = store.svids(&all(), start, 3, clock.now(), |id| id.path().starts_with("/shop/")).await.unwrap();
        seen.extend(page.svids.iter().map(|svid| svid.id.path().to_owned()));
        let Some(next) = page.next else { break };
        assert!(!next.to_string().contains("spiffe"), "{next}");
        start = PageStart::Behind(next);
    }
    assert_eq!(seen.len(), 20);
    assert!(seen.iter().all(|path| path.starts_with("/shop/")));
    // Where a page of other filters ended is no place of these.
    for wrong in ["agent:up:0:0:1", "revoked:up:1:0:1"] {
        let behind = PageStart::Behind(wrong.parse().unwrap());
        let refused = store.svids(&all(), behind, 3, clock.now(), |_| true).await;
        assert!(matches!(refused, Err(PageError::OtherFilters)), "{wrong}");
    }
    let gone = PageStart::Behind("id:up:0:0:4711".parse().unwrap());
    assert!(matches!(store.svids(&all(), gone, 3, clock.now(), |_| true).await, Err(PageError::Gone)));
    task.finish().await;
}

async fn one_certificate_is_told_with_all_that_became_of_it(which: Which) {
    let Opened { store, task, clock, location, _folder, .. } = opened(which, 16).await;
    let agents = agents(&store, &clock);
    let until = clock.now() + Duration::from_secs(60);
    store.log(certificate(1, clock.now(), proof("a", until))).await.unwrap();
    let of = standing(&agents, 1).await.unwrap().number;
    let shows = |shown: u8| Attestation::Renewal { serial: vec![shown; 16], of };
    let beside = Attestation::Beside { serial: vec![1; 16], of };
    for (number, attestation) in [(2, beside), (3, shows(1)), (4, shows(3))] {
        store.log(certificate(number, clock.now(), attestation)).await.unwrap();
    }
    revoke(&store, &clock, RevocationTarget::Serials(vec![serial(3)])).await;
    let sha256 = |bytes: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec();

    let first = store.svid(&[1; 16]).await.unwrap().unwrap();
    assert_eq!(first.svid.certificate_sha256, sha256(&[1]));
    assert_eq!(first.svid.state(clock.now()).as_str(), "valid");
    assert_eq!((first.attested.unwrap().number, first.is_banned), (of, false));
    assert_eq!(first.successor.unwrap().serial, [3; 16], "not what it was given beside");
    assert!(first.revocation.is_none());
    let third = store.svid(&[3; 16]).await.unwrap().unwrap();
    let revocation = third.revocation.unwrap();
    assert_eq!((revocation.actor.as_str(), &*revocation.comment), ("uid:7", "ticket"));
    assert_eq!(third.svid.state(clock.now()).as_str(), "revoked");
    let last = store.svid(&[4; 16]).await.unwrap().unwrap();
    assert!(last.successor.is_none() && last.svid.evidence == Some(vec![3; 16]));
    assert!(store.svid(&[9; 16]).await.unwrap().is_none());
    let (begin, end) = (first.svid.log.unwrap(), last.svid.log.clone().unwrap());
    assert_eq!((begin.index, end.index, &begin.origin), (0, 3, &end.origin));
    // What was issued before there was a log.
    let mut connection = AnyConnection::connect(&url_of(&location)).await.unwrap();
    let without = "UPDATE issued SET log = NULL, log_index = NULL WHERE serial = $1";
    sqlx::query(without).bind(&[4_u8; 16][..]).execute(&mut connection).await.unwrap();
    assert!(store.svid(&[4; 16]).await.unwrap().unwrap().svid.log.is_none());

    clock.advance(time::Duration::seconds(80));
    assert_eq!(last.svid.state(clock.now()).as_str(), "expiring");
    clock.advance(time::Duration::seconds(21));
    assert_eq!(last.svid.state(clock.now()).as_str(), "expired");
    assert_eq!(third.svid.state(clock.now()).as_str(), "revoked");
    task.finish().await;
}

fn url_of(location: &Location) -> String {
    match location {
        Location::File(path) => format!("sqlite://{}", path.display()),
        Location::Postgres(url) => url.to_string(),
    }
}

async fn what_has_expired_leaves_after_its_time_and_its_key_stays_used(which: Which) {
    let Opened { store, task, clock, location, _folder, .. } = opened(which, 16).await;
    let until = clock.now() + Duration::from_secs(60);
    store.log(certificate(1, clock.now(), proof("a", until))).await.unwrap();
    for number in 2..=4 {
        store.log(certificate(number, clock.now(), Attestation::Issuer)).await.unwrap();
    }
    revoke(&store, &clock, RevocationTarget::Serials(vec![serial(2)])).await;
    let mut connection = AnyConnection::connect(&url_of(&location)).await.unwrap();
    let token = "INSERT INTO issued_jwts (jti, kind, spiffe_id, audience, key_id, issued_at, expires_at, serial, attestation_number) \
                 VALUES ($1, 'jwt_svid', '', '[]', '', 0, $2, $1, 1)";
    for (jti, expires_at) in [(1_u8, 50), (2, 90_000)] {
        let token = sqlx::query(token).bind(vec![jti; 16]).bind(clock.now().unix_timestamp() + expires_at);
        token.execute(&mut connection).await.unwrap();
    }
    let on_record =
        async || found(&store, &clock, &all(), PageStart::First(Some(Order::Issued), Direction::Up), 9).await;
    clock.advance(time::Duration::seconds(86_400 + 99));
    assert!(store.sweep(KEEP).await.unwrap());
    assert_eq!(on_record().await, [1, 2, 3, 4], "for a day");
    clock.advance(time::Duration::seconds(2));
    assert!(store.sweep(KEEP).await.unwrap());
    // What is revoked stays with its revocation, and the last one, whose number would be given again.
    assert_eq!(on_record().await, [2, 4]);
    let counts = store.counts(clock.now()).await.unwrap();
    assert_eq!(counts, Counts { expired: 2, ..Counts::default() });
    for number in [1, 4] {
        let mut again = certificate(number, clock.now(), Attestation::Issuer);
        again.serial = [9; 16];
        assert!(matches!(store.log(again).await, Err(LogError::KeyReused)), "{number}");
    }
    let jwts: Vec<i64> =
        sqlx::query_scalar("SELECT position FROM issued_jwts").fetch_all(&mut connection).await.unwrap();
    assert_eq!(jwts, [2]);
    store.log(certificate(5, clock.now(), Attestation::Issuer)).await.unwrap();
    clock.advance(time::Duration::days(7));
    assert!(store.sweep(KEEP).await.unwrap());
    assert_eq!(on_record().await, [5]);
    assert!(store.svid(&[2; 16]).await.unwrap().is_none());
    task.finish().await;
}

async fn much_leaves_in_parts(which: Which) {
    let Opened { store, task, clock, location, _folder, .. } = opened(which, 16).await;
    let mut connection = AnyConnection::connect(&url_of(&location)).await.unwrap();
    fill(&mut connection, which, 2_500, clock.now().unix_timestamp() - 100_000).await;
    store.log(certificate(1, clock.now(), Attestation::Issuer)).await.unwrap();
    let mut parts = vec![store.sweep(KEEP).await.unwrap()];
    while parts.last() == Some(&false) {
        parts.push(store.sweep(KEEP).await.unwrap());
    }
    // Nobody who issues waits for more than a part.
    assert!(parts.len() > 10 && parts.iter().position(|is_done| *is_done) == Some(parts.len() - 1), "{parts:?}");
    let (left, kept): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM issued), (SELECT count(*) FROM former_keys)")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!((left, kept), (1, 2_500));
    task.finish().await;
}

/// So many certificates of many identities, which end at `not_after`, one second after the other.
async fn fill(connection: &mut AnyConnection, which: Which, count: u32, not_after: i64) {
    let (bytes, analyze) = match which {
        Which::Sqlite => ("CAST(printf('%016d', number) AS BLOB)", "ANALYZE"),
        Which::Postgres => ("int8send(number)", "ANALYZE issued"),
    };
    let fill = format!(
        "WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < {count}) \
         INSERT INTO issued (serial, spiffe_id, key_sha256, not_before, not_after, issued_at, attestation, authority_key_id, \
         certificate_sha256) SELECT {bytes}, 'spiffe://example.org/n/' || (number % 1000), {bytes}, {not_after} - 3600, \
         {not_after} - number % 100, 0, 'issuer', {bytes}, {bytes} FROM numbers; {analyze}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(connection).await.unwrap();
}

async fn a_page_of_any_order_is_read_by_its_index(which: Which) {
    let Opened { task, clock, location, _folder, .. } = opened(which, 16).await;
    let now = clock.now().unix_timestamp();
    let mut connection = AnyConnection::connect(&url_of(&location)).await.unwrap();
    fill(&mut connection, which, 20_000, now + 3000).await;
    let explain = match which {
        Which::Sqlite => "EXPLAIN QUERY PLAN",
        Which::Postgres => "EXPLAIN",
    };
    let agent = || SvidFilter { agent: Some(AttestationNumber(1)), ..all() };
    let position = match which {
        // As it lies.
        Which::Sqlite => "issued",
        Which::Postgres => "issued_pkey",
    };
    for (filter, order, index) in [
        (SvidFilter::default(), None, "issued_by_expiry"),
        (SvidFilter { rule: Some("a".to_owned()), ..all() }, Some(Order::Issued), position),
        (pattern("spiffe://example.org/n/*1"), None, "issued_by_spiffe_id"),
        (pattern("spiffe://example.org/n/1"), None, "issued_by_spiffe_id"),
        (all(), Some(Order::Id), "issued_by_spiffe_id"),
        (agent(), None, "issued_by_attestation"),
    ] {
        for direction in [Direction::Up, Direction::Down] {
            for statement in crate::store::inventory::statements(&filter, order, direction, now) {
                let rows = statement.explained(explain).fetch_all(&mut connection).await.unwrap();
                let plan: Vec<String> = rows.iter().map(|row| row.get(row.len() - 1)).collect();
                let plan = plan.join("\n");
                // Those that end in one second are few.
                let is_by_index = plan.contains(index) || plan.contains("(not_after = ");
                assert!(is_by_index, "{statement:?}\n{plan}");
                let sorts = ["Sort Key: spiffe", "Seq Scan", "TEMP B-TREE", "Presorted Key: spiffe"];
                assert!(!sorts.iter().any(|sort| plan.contains(sort)), "{statement:?}\n{plan}");
            }
        }
    }
    connection.close().await.unwrap();
    task.finish().await;
}

async fn certificates_are_counted_by_their_state_and_their_end(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 16).await;
    for (number, hours) in [(1, 1), (2, 5), (3, 100), (4, 100), (5, 10_000)] {
        let mut one = certificate(number, clock.now(), Attestation::Issuer);
        one.validity.not_after = clock.now() + Duration::from_secs(3600 * hours);
        store.log(one).await.unwrap();
    }
    revoke(&store, &clock, RevocationTarget::Serials(vec![serial(2), serial(3)])).await;
    let within = [1, 2, 2, 4, 4];
    let counts = Counts { valid: 3, revoked: 2, within, ..Counts::default() };
    assert_eq!(store.counts(clock.now()).await.unwrap(), counts);
    clock.advance(time::Duration::hours(4));
    // One of five hours is late, and revoked: nobody waits for its successor.
    let counts = Counts { valid: 2, revoked: 2, expired: 1, within: [1, 1, 1, 3, 3], ..Counts::default() };
    assert_eq!(store.counts(clock.now()).await.unwrap(), counts);
    task.finish().await;
}

on_both! {
    pages_together_are_what_the_filters_ask_for_in_every_order,
    nobody_is_told_of_identities_that_they_do_not_see,
    one_certificate_is_told_with_all_that_became_of_it,
    what_has_expired_leaves_after_its_time_and_its_key_stays_used,
    much_leaves_in_parts,
    a_page_of_any_order_is_read_by_its_index,
    certificates_are_counted_by_their_state_and_their_end,
}
