#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use signet_identity::{Clock, ManualClock, WorkloadId};

use sqlx::{AnyConnection, Connection as _};
use time::OffsetDateTime;

use super::*;
use crate::agents::{Agents, NoStanding, Whose};
use crate::attestation::{
    Attestation, AttestationNumber, Attested, Attestor as _, Evidence, JoinTokenError, JoinTokens, Method, NotAttested,
    ProofHash, Sources, Subject,
};
use crate::authority::KeyId;
use crate::certificate::Certificate;
use crate::csr::KeyHash;
use crate::distribution::Distribution;
use crate::policy::Actor;
use crate::profile::Validity;

#[derive(Clone, Copy)]
enum Which {
    Sqlite,
    Postgres,
}

struct Opened {
    store: Store,
    task: StoreTask,
    clock: ManualClock,
    readiness: Readiness,
    location: Location,
    _folder: tempfile::TempDir,
}

/// How long what has expired stays on record.
const KEEP: Duration = Duration::from_secs(86_400);

async fn opened(which: Which, pending: usize) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap());
    let readiness = Readiness::awaiting([STORE]);
    let location = match which {
        Which::Sqlite => Location::File(folder.path().join("issuer.db")),
        Which::Postgres => {
            Location::Postgres(PostgresUrl::new(&signet_test_postgres::shared().database(), None).unwrap())
        }
    };
    let trust_domain = "example.org".parse().unwrap();
    let opening =
        Store::open(&location, &trust_domain, AuditLog::unpublished(), pending, clock.shared(), readiness.clone());
    let (store, task) = opening.await.unwrap();
    Opened { store, task, clock, readiness, location, _folder: folder }
}

/// A connection that holds up whoever writes.
async fn holding(location: &Location) -> AnyConnection {
    let (url, hold) = match location {
        Location::File(path) => (format!("sqlite://{}", path.display()), "BEGIN IMMEDIATE".to_owned()),
        Location::Postgres(url) => {
            (url.to_string(), format!("BEGIN; SELECT 1 FROM pg_advisory_xact_lock({})", database::STANDING_LOCK))
        }
    };
    let mut connection = AnyConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(hold)).execute(&mut connection).await.unwrap();
    connection
}

fn id() -> WorkloadId {
    "spiffe://example.org/shop/cart".parse().unwrap()
}

fn renewal(of: AttestationNumber) -> Attestation {
    Attestation::Renewal { serial: vec![7], of }
}

/// What the store knows of the holder of a certificate that [`certificate`] made.
async fn standing(agents: &Agents, number: u8) -> Result<Origin, NoStanding> {
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[number]).as_ref().try_into().unwrap();
    agents.standing_of(&id(), &[number; 16], &sha256).await
}

/// A proof that is good once.
fn proof(text: &str, until: OffsetDateTime) -> Attestation {
    let attributes = signet_policy::Attributes::new([("k8s.pod".parse().unwrap(), "cart-0".to_owned())]).unwrap();
    Attestation::First(Attested {
        subject: Subject::Proved(attributes),
        evidence: Evidence::Proof {
            method: Method::KubernetesToken,
            hash: ProofHash::of(text.as_bytes()),
            once_until: Some(until),
        },
        shown: None,
    })
}

/// A certificate of 100 s for the key `number`.
fn certificate(number: u8, now: OffsetDateTime, attestation: Attestation) -> Certificate {
    Certificate {
        chain: vec![vec![number].into()],
        id: id(),
        profile: crate::profile::Profiles::new((Duration::from_secs(100), Duration::ZERO), []).workload(),
        rule: None,
        key_hash: KeyHash::of_spki(&[number]),
        serial: [number; 16],
        validity: Validity { not_before: now, not_after: now + Duration::from_secs(100) },
        issued_at: now,
        attestation,
        authority: KeyId::new(&[1; 20]),
    }
}

async fn certificates_are_counted_by_their_age(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 10).await;
    for number in 0..3 {
        store.log(certificate(number, clock.now(), Attestation::Issuer)).await.unwrap();
        clock.advance(time::Duration::seconds(80));
    }
    // They are 240, 160 and 80 s old.
    let counts = Counts { expiring: 1, expired: 2, within: [1; HORIZONS.len()], ..Counts::default() };
    assert_eq!(store.counts(clock.now()).await.unwrap(), counts);
    store.log(certificate(3, clock.now(), Attestation::Issuer)).await.unwrap();
    let counts = Counts { valid: 1, within: [2; HORIZONS.len()], ..counts };
    assert_eq!(store.counts(clock.now()).await.unwrap(), counts);
    task.finish().await;
}

async fn a_key_is_recorded_once_whoever_asks(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 10).await;
    store.log(certificate(1, clock.now(), Attestation::Issuer)).await.unwrap();
    let mut again = certificate(1, clock.now(), Attestation::Issuer);
    again.serial = [9; 16];
    assert!(matches!(store.log(again).await, Err(LogError::KeyReused)));
    assert_eq!(store.counts(clock.now()).await.unwrap().valid, 1);
    task.finish().await;
}

async fn a_token_is_used_up_with_the_record_and_not_before(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 10).await;
    let tokens = JoinTokens::new(store.clone(), clock.shared());
    let (token, _) = tokens.create(id(), Duration::from_secs(60), Actor::user(7)).await.unwrap();
    let attested = || tokens.attest(token.expose(), &[]);
    let attestation = Attestation::First(attested().await.unwrap());
    let same = Attestation::First(attested().await.unwrap());
    store.log(certificate(1, clock.now(), attestation)).await.unwrap();
    assert!(matches!(attested().await, Err(NotAttested::JoinToken(JoinTokenError::Used { .. }))));
    assert!(matches!(store.log(certificate(2, clock.now(), same)).await, Err(LogError::ProofUsed)));
    assert_eq!(store.counts(clock.now()).await.unwrap().valid, 1);
    task.finish().await;
}

async fn a_token_that_expires_between_look_up_and_record_yields_nothing(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 10).await;
    let tokens = JoinTokens::new(store.clone(), clock.shared());
    let (token, expires_at) = tokens.create(id(), Duration::from_secs(60), Actor::user(7)).await.unwrap();
    let attestation = Attestation::First(tokens.attest(token.expose(), &[]).await.unwrap());
    clock.set(expires_at);
    assert!(matches!(store.log(certificate(1, clock.now(), attestation)).await, Err(LogError::ProofUsed)));
    assert!(matches!(
        tokens.attest(token.expose(), &[]).await,
        Err(NotAttested::JoinToken(JoinTokenError::Expired { .. }))
    ));
    task.finish().await;
}

async fn a_key_that_was_certified_before_costs_no_token(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 10).await;
    let tokens = JoinTokens::new(store.clone(), clock.shared());
    store.log(certificate(1, clock.now(), Attestation::Issuer)).await.unwrap();
    let (token, _) = tokens.create(id(), Duration::from_secs(60), Actor::user(7)).await.unwrap();
    let attestation = Attestation::First(tokens.attest(token.expose(), &[]).await.unwrap());
    let mut reused = certificate(1, clock.now(), attestation);
    reused.serial = [9; 16];
    assert!(matches!(store.log(reused).await, Err(LogError::KeyReused)));
    tokens.attest(token.expose(), &[]).await.unwrap();
    task.finish().await;
}

async fn a_proof_is_good_once_until_it_is_good_no_more(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 10).await;
    let until = clock.now() + Duration::from_secs(60);
    store.log(certificate(1, clock.now(), proof("a", until))).await.unwrap();
    assert!(matches!(store.log(certificate(2, clock.now(), proof("a", until))).await, Err(LogError::ProofUsed)));
    store.log(certificate(2, clock.now(), proof("b", until))).await.unwrap();
    clock.set(until);
    // Over is over, whether it was used or not.
    for text in ["a", "c"] {
        assert!(matches!(store.log(certificate(3, clock.now(), proof(text, until))).await, Err(LogError::ProofUsed)));
    }
    // The clock was ahead: what was used then stays used.
    store.log(certificate(5, clock.now(), proof("e", until + Duration::from_secs(60)))).await.unwrap();
    clock.set(until - Duration::from_secs(30));
    assert!(matches!(store.log(certificate(3, clock.now(), proof("a", until))).await, Err(LogError::ProofUsed)));
    clock.set(until);
    // A proof that yields nothing is not used up.
    let later = until + Duration::from_secs(60);
    let mut reused = certificate(1, clock.now(), proof("d", later));
    reused.serial = [9; 16];
    assert!(matches!(store.log(reused).await, Err(LogError::KeyReused)));
    store.log(certificate(4, clock.now(), proof("d", later))).await.unwrap();
    task.finish().await;
}

async fn what_was_attested_is_known_at_each_renewal_until_it_is_evicted(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 10).await;
    let agents = agents(&store, &clock);
    let until = clock.now() + Duration::from_secs(60);
    store.log(certificate(1, clock.now(), proof("a", until))).await.unwrap();
    let origin = standing(&agents, 1).await.unwrap();
    assert_eq!(origin.attributes.unwrap().iter().map(|(_, value)| value).collect::<Vec<_>>(), ["cart-0"]);
    store.log(certificate(2, clock.now(), renewal(origin.number))).await.unwrap();
    let [(listed, connected)] = &agents.list(None, AttestationNumber(0), 10).await.unwrap()[..] else { unreachable!() };
    assert_eq!((listed.number, &listed.serial[..]), (origin.number, &[2; 16][..]));
    assert!(connected.is_none());
    assert!(agents.list(None, listed.number, 10).await.unwrap().is_empty());

    assert_eq!(agents.evict(Whose::Number(listed.number)).await.unwrap(), 1);
    assert_eq!(agents.evict(Whose::Number(listed.number)).await.unwrap(), 0);
    assert!(matches!(standing(&agents, 2).await, Err(NoStanding::Evicted)));
    // One that was asked for before, and is recorded after.
    let late = certificate(3, clock.now(), renewal(origin.number));
    assert!(matches!(store.log(late).await, Err(LogError::Evicted)));
    assert!(agents.list(None, AttestationNumber(0), 10).await.unwrap().is_empty());
    assert!(matches!(standing(&agents, 8).await, Err(NoStanding::NotOnRecord)));
    // Another certificate with a serial number that is on record.
    let other = agents.standing_of(&id(), &[2; 16], &[0; 32]).await;
    assert!(matches!(other, Err(NoStanding::NotOnRecord)), "{other:?}");
    // It may come back with another proof.
    store.log(certificate(4, clock.now(), proof("b", until))).await.unwrap();
    standing(&agents, 4).await.unwrap();
    clock.advance(time::Duration::seconds(101));
    assert!(agents.list(None, AttestationNumber(0), 10).await.unwrap().is_empty());
    task.finish().await;
}

async fn nothing_is_recorded_for_whoever_is_banned(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 10).await;
    let agents = agents(&store, &clock);
    let until = clock.now() + Duration::from_secs(60);
    store.log(certificate(1, clock.now(), proof("a", until))).await.unwrap();
    let origin = standing(&agents, 1).await.unwrap();
    agents.ban(id(), Actor::user(0), "stolen".to_owned()).await.unwrap();
    agents.ban(id(), Actor::user(1), "stolen, really".to_owned()).await.unwrap();
    assert!(matches!(standing(&agents, 1).await, Err(NoStanding::Banned(_))));
    for attestation in [proof("b", until), renewal(origin.number)] {
        assert!(matches!(store.log(certificate(2, clock.now(), attestation)).await, Err(LogError::Banned)));
    }
    let bans = agents.bans("", 10).await.unwrap();
    let [ban] = &bans[..] else { unreachable!() };
    assert_eq!((ban.actor.as_str(), ban.reason.as_str()), ("uid:1", "stolen, really"));
    assert!(agents.unban(id()).await.unwrap());
    assert!(!agents.unban(id()).await.unwrap());
    store.log(certificate(2, clock.now(), renewal(origin.number))).await.unwrap();
    // The ban cost no proof.
    store.log(certificate(3, clock.now(), proof("b", until))).await.unwrap();
    task.finish().await;
}

async fn unused_tokens_of_whoever_is_banned_or_evicted_are_void(which: Which) {
    let Opened { store, task, clock, _folder, .. } = opened(which, 16).await;
    let tokens = JoinTokens::new(store.clone(), clock.shared());
    let agents = agents(&store, &clock);
    let maker = Actor::identity(&id());
    let mut made = Vec::new();
    for by in [maker.clone(), maker, Actor::user(7)] {
        made.push(tokens.create(id(), Duration::from_secs(60), by).await.unwrap().0);
    }
    let is_good = async |index: usize| tokens.attest(made[index].expose(), &[]).await.is_ok();
    agents.evict(Whose::Id(id())).await.unwrap();
    assert!(!is_good(0).await && !is_good(1).await && is_good(2).await);
    // Those of others, made for it, are of no use while it is banned, and stay.
    agents.ban(id(), Actor::user(7), String::new()).await.unwrap();
    assert!(is_good(2).await);
    // Long after its end, nothing is told of a token any more.
    clock.advance(time::Duration::days(8));
    store.sweep(KEEP).await.unwrap();
    tokens.create(id(), Duration::from_secs(60), Actor::user(7)).await.unwrap();
    let gone = tokens.attest(made[2].expose(), &[]).await.unwrap_err();
    assert!(matches!(gone, NotAttested::JoinToken(JoinTokenError::Unknown)), "{gone:?}");
    task.finish().await;
}

fn agents(store: &Store, clock: &ManualClock) -> Agents {
    let distribution = Distribution::new(
        (crate::bundles::Bundles::new(signet_identity::BundleSet::default()), crate::authority::Publication::new()),
        10,
        10,
    );
    Agents { store: store.clone(), distribution, sources: Sources::default(), clock: clock.shared() }
}

async fn what_waits_is_bounded_and_answered_at_the_end(which: Which) {
    let Opened { store, task, clock, location, _folder, .. } = opened(which, 2).await;
    // Somebody else holds the database: the committer waits with what it took.
    let mut other = holding(&location).await;
    let log = |number| {
        let (store, certificate) = (store.clone(), certificate(number, clock.now(), Attestation::Issuer));
        tokio::spawn(async move { store.log(certificate).await })
    };
    let mut waiting = vec![log(1)];
    tokio::time::sleep(Duration::from_millis(200)).await;
    waiting.extend([log(2), log(3)]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let refused = store.log(certificate(4, clock.now(), Attestation::Issuer)).await;
    assert!(matches!(refused, Err(LogError::Store(StoreError::Busy))));
    // Nobody waits for this one any more when its turn comes.
    waiting.pop().unwrap().abort();
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    task.finish().await;
    for logged in waiting {
        logged.await.unwrap().unwrap();
    }
    let recorded: i64 = sqlx::query_scalar("SELECT count(*) FROM issued").fetch_one(&mut other).await.unwrap();
    assert_eq!(recorded, 2);
    let late = store.log(certificate(5, clock.now(), Attestation::Issuer)).await;
    assert!(matches!(late, Err(LogError::Store(StoreError::Closed))));
}

async fn requests_of_one_batch_each_get_their_own_answer(which: Which) {
    let Opened { store, task, clock, location, _folder, .. } = opened(which, 200).await;
    let mut other = holding(&location).await;
    // Each key is asked for twice, the second time far from the first.
    let requests: Vec<_> = (0..150_u8)
        .map(|number| {
            let mut certificate = certificate(number % 75, clock.now(), Attestation::Issuer);
            certificate.serial = [number; 16];
            let store = store.clone();
            tokio::spawn(async move { store.log(certificate).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    let mut released = Vec::new();
    let mut reused = 0;
    for request in requests {
        match request.await.unwrap() {
            Ok(logged) => released.push(logged.release().serial.to_vec()),
            Err(LogError::KeyReused) => reused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((released.len(), reused), (75, 75));
    let mut recorded: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT serial FROM issued ORDER BY serial").fetch_all(&mut other).await.unwrap();
    released.sort();
    recorded.sort();
    assert_eq!(released, recorded);
    task.finish().await;
}

async fn the_store_is_ready_once_it_is_open(which: Which) {
    let Opened { task, readiness, _folder, .. } = opened(which, 1).await;
    tokio::time::timeout(Duration::from_secs(5), async {
        while !readiness.reasons().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    task.finish().await;
}

#[tokio::test]
async fn a_truncated_database_is_damaged_and_not_made_anew() {
    let Opened { store, task, clock, location, _folder, .. } = opened(Which::Sqlite, 10).await;
    for number in 0..50 {
        store.log(certificate(number, clock.now(), Attestation::Issuer)).await.unwrap();
    }
    task.finish().await;
    let Location::File(path) = &location else { unreachable!() };
    let whole = std::fs::read(path).unwrap();
    for length in [whole.len() / 2, 4096, 100] {
        std::fs::write(path, &whole[..length]).unwrap();
        let trust_domain = "example.org".parse().unwrap();
        let refused =
            Store::open(&location, &trust_domain, AuditLog::unpublished(), 1, clock.shared(), Readiness::default())
                .await;
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{length}: {refused:?}");
    }
}

async fn a_database_of_a_newer_version_or_another_trust_domain_is_left_alone(which: Which) {
    let Opened { task, clock, location, _folder, .. } = opened(which, 10).await;
    let open = async |trust_domain: &str| {
        let trust_domain = trust_domain.parse().unwrap();
        Store::open(&location, &trust_domain, AuditLog::unpublished(), 1, clock.shared(), Readiness::default())
            .await
            .map(|(_, task)| task)
    };
    task.finish().await;
    assert!(matches!(open("other.org").await.unwrap_err(), OpenError::OtherTrustDomain { .. }));
    open("example.org").await.unwrap().finish().await;
    let url = match &location {
        Location::File(path) => format!("sqlite://{}", path.display()),
        Location::Postgres(url) => url.to_string(),
    };
    let mut connection = AnyConnection::connect(&url).await.unwrap();
    let newer =
        "UPDATE _sqlx_migrations SET version = 4711 WHERE version = (SELECT max(version) FROM _sqlx_migrations)";
    sqlx::query(newer).execute(&mut connection).await.unwrap();
    let refused = open("example.org").await.unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 4711, .. }), "{refused:?}");
}

async fn each_start_has_a_larger_number_whatever_the_clock_says(which: Which) {
    let Opened { store, task, clock, location, _folder, .. } = opened(which, 10).await;
    let domain = "example.org".parse().unwrap();
    let mut numbers = vec![store.start()];
    task.finish().await;
    for seconds in [0, 1, -3600, -3600, 3600] {
        clock.advance(time::Duration::seconds(seconds));
        let (store, task) =
            Store::open(&location, &domain, AuditLog::unpublished(), 10, clock.shared(), Readiness::default())
                .await
                .unwrap();
        numbers.push(store.start());
        task.finish().await;
    }
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    assert_eq!(numbers[0], clock.now().unix_timestamp() as u64 + 3599, "the time, where nothing is against it");
}

/// As an issuer of each version before this one left it.
async fn a_database_of_an_earlier_version_is_brought_to_this_one(which: Which) {
    let known = match which {
        Which::Sqlite => database::Kind::Sqlite.migrations(),
        Which::Postgres => database::Kind::Postgres(PostgresUrl::new("postgres:///x", None).unwrap()).migrations(),
    };
    for earlier in 1..known.len() {
        let folder = tempfile::tempdir().unwrap();
        let (location, url) = match which {
            Which::Sqlite => {
                let path = folder.path().join("issuer.db");
                std::fs::write(&path, "").unwrap();
                let url = format!("sqlite://{}", path.display());
                (Location::File(path), url)
            }
            Which::Postgres => {
                let url = signet_test_postgres::shared().database();
                (Location::Postgres(PostgresUrl::new(&url, None).unwrap()), url)
            }
        };
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(&url).await.unwrap();
        database::migrator(&known[..earlier]).run_direct(None, &mut connection, false).await.unwrap();
        let insertion = "INSERT INTO issued (serial, spiffe_id, key_sha256, not_before, not_after, issued_at, attestation, \
                         authority_key_id, certificate) VALUES ($1, $2, $3, 0, 4000000000, 0, 'join_token', $1, $1)";
        let insertion = sqlx::query(insertion).bind(&[8_u8; 16][..]).bind(id().to_string());
        insertion.bind(KeyHash::of_spki(&[9]).as_bytes().to_vec()).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();

        let (clock, readiness) = (ManualClock::new(OffsetDateTime::UNIX_EPOCH), Readiness::awaiting([STORE]));
        let domain = "example.org".parse().unwrap();
        let opening = Store::open(&location, &domain, AuditLog::unpublished(), 10, clock.shared(), readiness);
        let (store, task) = opening.await.unwrap();
        let issued = store.issued_to(&crate::distribution::Holder::Id(id()), 10).await.unwrap();
        assert_eq!((issued.len(), issued[0].profile.as_str()), (1, "workload"), "from {earlier}");
        let svid = store.svid(&[8; 16]).await.unwrap().unwrap().svid;
        let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[8; 16]);
        assert_eq!(svid.certificate_sha256, sha256.as_ref(), "from {earlier}");
        // What was certified then is not certified again, and other keys are.
        let again = store.log(certificate(9, clock.now(), Attestation::Issuer)).await;
        assert!(matches!(again, Err(LogError::KeyReused)));
        store.log(certificate(1, clock.now(), Attestation::Issuer)).await.unwrap();
        task.finish().await;
    }
}

/// Of a file there is one writer.
#[tokio::test]
async fn a_ban_is_told_to_be_on_record_when_nothing_that_was_begun_before_can_come_behind_it() {
    let Opened { store, task, clock, location, _folder, .. } = opened(Which::Postgres, 10).await;
    let Location::Postgres(url) = &location else { unreachable!() };
    // Another issuer that is about to record a certificate, and has looked for bans already.
    let mut other = AnyConnection::connect(&url.to_string()).await.unwrap();
    let begin = format!("BEGIN; SELECT 1 FROM pg_advisory_xact_lock_shared({})", database::STANDING_LOCK);
    sqlx::raw_sql(sqlx::AssertSqlSafe(begin)).execute(&mut other).await.unwrap();
    let agents = agents(&store, &clock);
    let mut banning = std::pin::pin!(agents.ban(id(), Actor::user(0), String::new()));
    assert!(tokio::time::timeout(Duration::from_millis(300), banning.as_mut()).await.is_err());
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    banning.await.unwrap();
    task.finish().await;
}

/// Two issuers on one database.
async fn of_two_who_record_one_proof_one_does(which: Which) {
    let Opened { store, task, clock, location, _folder, .. } = opened(which, 200).await;
    let other = match which {
        // Of a file there is one writer.
        Which::Sqlite => None,
        Which::Postgres => {
            let trust_domain = "example.org".parse().unwrap();
            Some(
                Store::open(
                    &location,
                    &trust_domain,
                    AuditLog::unpublished(),
                    200,
                    clock.shared(),
                    Readiness::default(),
                )
                .await
                .unwrap(),
            )
        }
    };
    let until = clock.now() + Duration::from_secs(60);
    let log = |store: &Store, number: u8, proof: Attestation| {
        let (store, mut certificate) = (store.clone(), certificate(number, clock.now(), proof));
        certificate.serial[0] = number;
        tokio::spawn(async move { store.log(certificate).await })
    };
    let mut requests = Vec::new();
    for number in 0..40 {
        let (store, text) = (
            &other.as_ref().map_or(&store, |(other, _)| if number % 2 == 0 { &store } else { other }),
            (number / 4).to_string(),
        );
        requests.push(log(store, number, proof(&text, until)));
    }
    let mut recorded = 0;
    for request in requests {
        match request.await.unwrap() {
            Ok(_) => recorded += 1,
            Err(LogError::ProofUsed) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(recorded, 10);
    task.finish().await;
    if let Some((_, task)) = other {
        task.finish().await;
    }
}

/// What an issuer says of one who has gone to another since, counts for nothing.
#[tokio::test]
async fn whoever_came_to_another_issuer_later_is_there() {
    let Opened { store, task, clock, _folder, .. } = opened(Which::Postgres, 10).await;
    let now = clock.now();
    let record = |issuer: &str, seconds: u64, revision| ProgressRecord {
        authorities: None,
        issuer: issuer.to_owned(),
        number: AttestationNumber(1),
        connected_at: now + Duration::from_secs(seconds),
        revision,
        is_current: true,
        since: now,
        refused: String::new(),
        revocations: None,
        jwt: None,
    };
    let is_at = async || -> Vec<(String, i64)> {
        let rows = sqlx::query_as("SELECT issuer, revision FROM agent_progress");
        rows.fetch_all(&store.database.lists).await.unwrap()
    };
    store.share_progress(&[record("two", 5, 7)]).await.unwrap();
    store.share_progress(&[record("one", 4, 6)]).await.unwrap();
    store.forget_progress("one", &[AttestationNumber(1)]).await.unwrap();
    assert_eq!(is_at().await, [("two".to_owned(), 7)]);
    store.share_progress(&[record("one", 6, 8)]).await.unwrap();
    assert_eq!(is_at().await, [("one".to_owned(), 8)]);
    store.forget_all_progress("one").await.unwrap();
    assert!(is_at().await.is_empty());
    task.finish().await;
}

/// One suite for each of the databases.
macro_rules! on_both {
    ($($test:ident,)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Which::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Which::Postgres).await;
            })*
        }
    };
}

mod inventory;
mod revoking;

on_both! {
    certificates_are_counted_by_their_age,
    a_key_is_recorded_once_whoever_asks,
    a_token_is_used_up_with_the_record_and_not_before,
    a_token_that_expires_between_look_up_and_record_yields_nothing,
    a_key_that_was_certified_before_costs_no_token,
    a_proof_is_good_once_until_it_is_good_no_more,
    what_was_attested_is_known_at_each_renewal_until_it_is_evicted,
    nothing_is_recorded_for_whoever_is_banned,
    unused_tokens_of_whoever_is_banned_or_evicted_are_void,
    what_waits_is_bounded_and_answered_at_the_end,
    requests_of_one_batch_each_get_their_own_answer,
    the_store_is_ready_once_it_is_open,
    a_database_of_a_newer_version_or_another_trust_domain_is_left_alone,
    each_start_has_a_larger_number_whatever_the_clock_says,
    a_database_of_an_earlier_version_is_brought_to_this_one,
    of_two_who_record_one_proof_one_does,
}
