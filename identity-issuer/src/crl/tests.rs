#![allow(clippy::unwrap_used)]

use std::ops::RangeInclusive;

use rcgen::PublicKeyData as _;
use signet_identity::{BundleSet, Clock, ManualClock};
use signet_process::admin::Readiness;
use sqlx::{AnyConnection, Connection as _};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::*;
use crate::attestation::Attestation;
use crate::authority::custody::{Custody, Memory};
use crate::authority::{Place as Home, Publication, testing};
use crate::bundles::Bundles;
use crate::certificate::Certificate;
use crate::csr::KeyHash;
use crate::distribution::Distribution;
use crate::policy::Actor;
use crate::profile::{Profiles, Validity};
use crate::revocation::{MOST, Reason, SerialNumber};
use crate::store::{AuditLog, Location, NewRevocation, RevocationTarget, StoreTask};

const DAY: Duration = Duration::from_secs(86_400);

/// An issuer whose first authority has retired.
struct Bench {
    crls: Crls,
    /// Of the first authority.
    name: String,
    key: crate::authority::custody::KeyName,
    clock: ManualClock,
    task: StoreTask,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new(shards: u32, most_entries: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let (manual, root) = (ManualClock::new(now), testing::Root::new("example.org", now));
        let (clock, trust_domain) = (manual.shared(), "example.org".parse().unwrap());
        let home = Home {
            trust_domain: signet_identity::TrustDomain::clone(&trust_domain),
            custody: Arc::new(Memory::default()) as Arc<dyn Custody>,
            journal: folder.path().join("authorities.json"),
            request: folder.path().join("authority.csr"),
            path_length: 0,
            outbox: crate::store::Outbox::default(),
        };
        let authorities = Authorities::open(home, Some(&root.bundle()), clock.clone()).unwrap();
        authorities.request(2).unwrap();
        let keys: Vec<_> = authorities.all().into_iter().map(|member| member.key).collect();
        for key in &keys {
            authorities.import(root.sign(key, now, 30 * DAY).as_bytes(), &root.bundle()).unwrap();
        }
        authorities.change(|kept, now| kept.activate(&keys[1].name(), now)).unwrap();
        let first = authorities.all().into_iter().next().unwrap().authority.unwrap();

        let location = Location::File(folder.path().join("issuer.db"));
        let opening =
            Store::open(&location, &trust_domain, AuditLog::unpublished(), 100, clock.clone(), Readiness::default());
        let (store, task) = opening.await.unwrap();
        let distribution = Distribution::new((Bundles::new(BundleSet::default()), Publication::new()), 10, 10);
        let parts = (trust_domain, store.clone(), authorities.clone(), distribution, clock.clone());
        let profiles = Profiles::new((DAY, Duration::ZERO), []);
        let metrics = Metrics::register(&prometheus::Registry::new(), &profiles).unwrap();
        let revocations = Revocations::load(parts.0, parts.1, parts.2, parts.3, parts.4, &metrics).await.unwrap();
        let points = DistributionPoints::new(Some("http://crl.example.org"), shards);
        let name = first.key_id().to_string();
        let crls =
            Crls::new(Parts { revocations, authorities, store, points, life: DAY, most_entries, metrics, clock });
        Self { crls, name, key: keys[0].name(), clock: manual, task, _folder: folder }
    }

    /// The first authority has signed so many.
    async fn has_signed(&self, count: u8) {
        self.has_signed_each(1..=count).await;
    }

    /// Those of these numbers, for a day.
    async fn has_signed_each(&self, numbers: RangeInclusive<u8>) {
        let Parts { store, authorities, .. } = &self.crls.0.parts;
        let authority = authorities.all()[0].authority.clone().unwrap();
        let now = self.clock.now();
        for number in numbers {
            let certificate = Certificate {
                chain: vec![vec![number].into()],
                id: "spiffe://example.org/a".parse().unwrap(),
                profile: Profiles::new((DAY, Duration::ZERO), []).workload(),
                rule: None,
                key_hash: KeyHash::of_spki(&[number]),
                serial: [number; 16],
                validity: Validity { not_before: now, not_after: now + DAY },
                issued_at: now,
                attestation: Attestation::Issuer,
                authority: KeyId::new(authority.key_id().as_bytes()),
            };
            store.log(certificate).await.unwrap();
        }
    }

    async fn has_revoked(&self, number: u8) {
        let Parts { store, revocations, .. } = &self.crls.0.parts;
        let target = RevocationTarget::Serials(vec![SerialNumber::from_be_bytes(&[number; 16]).unwrap()]);
        let (reason, actor, comment) = (Reason::Superseded, Actor::user(0), String::new());
        store.revoke(NewRevocation { target, reason, actor, comment, at: self.clock.now() }).await.unwrap();
        revocations.catch_up().await.unwrap();
    }

    fn is_revoked_in_the_journal(&self) {
        self.crls.0.parts.authorities.revoke(&self.key).unwrap();
    }

    async fn is_revoked_on_record(&self) {
        self.is_on_record(0).await;
    }

    async fn is_on_record(&self, position: usize) {
        let Parts { store, authorities, revocations, .. } = &self.crls.0.parts;
        let member = authorities.all().into_iter().nth(position).unwrap();
        let (authority, key) = (member.authority.unwrap(), KeyHash::of_spki(&member.key.subject_public_key_info()));
        let id = KeyId::new(authority.key_id().as_bytes());
        let target = RevocationTarget::Authority(id, key, authority.not_after());
        let (reason, actor, comment) = (Reason::CaCompromise, Actor::user(0), String::new());
        store.revoke(NewRevocation { target, reason, actor, comment, at: self.clock.now() }).await.unwrap();
        revocations.catch_up().await.unwrap();
    }

    /// How often all was read that an authority has signed.
    fn reads(&self) -> u64 {
        self.crls.0.reads.load(Ordering::SeqCst)
    }

    fn lists(&self) -> Vec<Arc<RevocationList>> {
        let of_first = self.crls.all().into_iter().filter(|(place, _)| place.authority == self.name);
        of_first.map(|(_, list)| list).collect()
    }

    /// The first bytes of what stands on all of them.
    fn revoked(&self) -> Vec<u8> {
        let mut serials = Vec::new();
        for list in self.lists() {
            let (_, parsed) = CertificateRevocationList::from_der(&list.der).unwrap();
            serials.extend(parsed.iter_revoked_certificates().map(|one| one.raw_serial()[0]));
        }
        serials.sort_unstable();
        serials
    }

    async fn end(self) {
        drop(self.crls);
        self.task.finish().await;
    }
}

#[tokio::test]
async fn on_the_last_lists_of_an_authority_stands_all_that_it_has_signed_and_they_are_signed_once() {
    let bench = Bench::new(5, MOST).await;
    bench.has_signed(30).await;
    bench.crls.refresh().await.unwrap();
    assert_eq!((bench.lists().len(), bench.revoked()), (5, vec![]));
    bench.is_revoked_in_the_journal();
    bench.is_revoked_on_record().await;
    bench.crls.refresh().await.unwrap();
    assert_eq!((bench.reads(), bench.revoked()), (1, (1..=30).collect::<Vec<_>>()));
    // At this start of the issuer, and none before, whatever the clock says.
    assert!(bench.lists().iter().all(|list| list.number >> 64 == bench.crls.0.parts.store.start().into()));
    let numbers = || bench.lists().iter().map(|list| list.number).collect::<Vec<_>>();
    let before = numbers();
    for _ in 0..3 {
        bench.clock.advance(time::Duration::hours(7));
        bench.crls.refresh().await.unwrap();
    }
    assert_eq!(numbers(), before);
    let end = bench.lists()[0].next_update;
    assert!(end > bench.clock.now() + 20 * DAY, "{end}");
    bench.end().await;
}

#[tokio::test]
async fn an_entry_leaves_its_list_once_its_certificate_has_expired_and_it_has_stood_in_one_past_its_end() {
    let bench = Bench::new(1, MOST).await;
    let hour = time::Duration::hours(1);
    bench.has_signed_each(1..=1).await;
    bench.has_revoked(1).await;
    bench.clock.advance(12 * hour);
    bench.has_signed_each(2..=2).await;
    bench.has_revoked(2).await;
    bench.crls.refresh().await.unwrap();
    assert_eq!(bench.revoked(), [1, 2]);
    let until = |at: OffsetDateTime| bench.clock.advance(at - bench.clock.now());
    let first_ends = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap() + DAY;

    // A list that is signed before the end, and the first one after it (RFC 5280 §3.3).
    for (at, expected) in [
        (first_ends - hour, &[1, 2][..]),
        (first_ends + 6 * hour, &[1, 2]),
        (first_ends + 13 * hour, &[2]),
        (first_ends + 20 * hour, &[]),
    ] {
        until(at);
        bench.crls.refresh().await.unwrap();
        let list = &bench.lists()[0];
        assert_eq!((list.this_update, bench.revoked()), (at, expected.to_vec()));
    }
    bench.end().await;
}

#[tokio::test]
async fn nothing_that_a_revoked_authority_has_signed_is_called_good_whoever_remembers_that_it_is() {
    // The record alone: this issuer was away, or cannot write it down.
    let bench = Bench::new(1, MOST).await;
    bench.has_signed(3).await;
    bench.crls.refresh().await.unwrap();
    assert_eq!(bench.revoked(), Vec::<u8>::new());
    bench.is_revoked_on_record().await;
    bench.crls.refresh().await.unwrap();
    let end = bench.crls.0.parts.authorities.all()[0].authority.clone().unwrap().not_after();
    assert_eq!((bench.revoked(), bench.lists()[0].next_update), (vec![1, 2, 3], end));
    // The one that signs, too, as far as it has signed.
    bench.is_on_record(1).await;
    bench.crls.refresh().await.unwrap();
    let others = bench.crls.all().into_iter().filter(|(place, _)| place.authority != bench.name);
    assert!(others.map(|(_, list)| list).all(|list| list.next_update < end), "it is not its last");
    bench.end().await;

    // This issuer alone: the record was lost. And it is signed once, not at each look.
    let bench = Bench::new(1, MOST).await;
    bench.has_signed(3).await;
    bench.is_revoked_in_the_journal();
    bench.crls.refresh().await.unwrap();
    let first = bench.lists()[0].number;
    for _ in 0..5 {
        bench.crls.refresh().await.unwrap();
    }
    assert_eq!((bench.lists()[0].number, bench.revoked()), (first, vec![1, 2, 3]));
    bench.is_revoked_on_record().await;
    bench.crls.refresh().await.unwrap();
    assert!(bench.lists()[0].number > first, "with the reason on record");
    assert_eq!(bench.revoked(), [1, 2, 3]);
    bench.end().await;
}

#[tokio::test]
async fn a_last_list_by_a_clock_that_was_ahead_is_signed_again_with_what_it_left_out() {
    let bench = Bench::new(1, MOST).await;
    bench.has_signed(3).await;
    bench.is_revoked_on_record().await;
    bench.clock.advance(time::Duration::days(2));
    bench.crls.refresh().await.unwrap();
    assert_eq!(bench.revoked(), Vec::<u8>::new());
    bench.clock.advance(time::Duration::days(-2));
    bench.crls.refresh().await.unwrap();
    assert_eq!(bench.revoked(), [1, 2, 3]);
    assert!(bench.lists()[0].this_update <= bench.clock.now());
    bench.end().await;
}

#[tokio::test]
async fn a_last_list_that_would_leave_something_out_is_not_signed_and_the_one_before_stays() {
    let bench = Bench::new(5, 4).await;
    bench.has_signed(5).await;
    bench.crls.refresh().await.unwrap();
    let before: Vec<_> = bench.lists().iter().map(|list| list.number).collect();
    bench.is_revoked_in_the_journal();
    bench.is_revoked_on_record().await;
    // It is said as long as it is so, of which authority, and what was read is not read again, for no part and at no look.
    for _ in 0..3 {
        let refused = bench.crls.refresh().await.unwrap_err();
        assert!(matches!(refused, ListError::TooMany { most: 4, .. }), "{refused}");
        assert!(refused.to_string().contains(&bench.name), "{refused}");
    }
    assert_eq!(bench.reads(), 1);
    assert_eq!(bench.lists().iter().map(|list| list.number).collect::<Vec<_>>(), before);
    // Others have theirs.
    bench.clock.advance(time::Duration::hours(7));
    bench.crls.refresh().await.unwrap_err();
    let others = bench.crls.all().into_iter().filter(|(place, _)| place.authority != bench.name);
    assert!(others.map(|(_, list)| list).all(|list| list.this_update > bench.clock.now() - Duration::from_secs(2)));
    bench.end().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_asked_for_once_for_all_parts_of_a_list() {
    let bench = Bench::new(5, MOST).await;
    bench.has_signed(5).await;
    bench.is_revoked_in_the_journal();
    bench.is_revoked_on_record().await;
    let path = bench._folder.path().join("issuer.db");
    let mut database = AnyConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    sqlx::query("ALTER TABLE issued RENAME TO elsewhere").execute(&mut database).await.unwrap();
    let refused = bench.crls.refresh().await.unwrap_err();
    assert!(matches!(refused, ListError::Store(_)), "{refused}");
    assert_eq!((bench.reads(), bench.lists().len()), (1, 0));
    sqlx::query("ALTER TABLE elsewhere RENAME TO issued").execute(&mut database).await.unwrap();
    bench.crls.refresh().await.unwrap();
    assert_eq!((bench.reads(), bench.revoked()), (2, vec![1, 2, 3, 4, 5]));
    bench.end().await;
}

/// It goes on by ten days each time that it is read.
#[derive(Debug)]
struct Leaping(ManualClock);

impl Clock for Leaping {
    fn now(&self) -> OffsetDateTime {
        let now = self.0.now();
        self.0.advance(time::Duration::days(10));
        now
    }
}

#[tokio::test]
async fn an_authority_that_ends_while_its_list_is_signed_needs_none_and_nobody_complains() {
    let mut bench = Bench::new(1, MOST).await;
    Arc::get_mut(&mut bench.crls.0).unwrap().parts.clock = Arc::new(Leaping(bench.clock.clone()));
    for _ in 0..5 {
        bench.crls.refresh().await.unwrap();
    }
    assert!(bench.crls.all().is_empty());
    bench.end().await;
}
