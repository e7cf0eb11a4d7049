#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::Condvar;

use prost::Message as _;
use signet_identity::{BundleSet, ManualClock};
use signet_process::admin::Readiness;
use signet_proto::identity::v1 as wire;

use super::*;
use crate::authority::custody::{
    Algorithm, CaKey, Custody, CustodyError, JwtKey, KeyName, LogKey, Pace, Purpose, Signs,
};
use crate::authority::{Place, Publication, testing};
use crate::bundles::Bundles;
use crate::key::P256Key;
use crate::policy::Actor;
use crate::profile::Profiles;
use crate::revocation::Reason;
use crate::store::{AuditLog, Location, NewRevocation, RevocationTarget, StoreTask};

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
}

/// So many, of which one in `expired` has.
fn live(count: u64, expired: u64) -> Live {
    let authority = Arc::new(KeyId::new(&[1; 20]));
    let entry = |epoch: u64| Entry {
        epoch,
        what: What::Serial(Arc::clone(&authority), SerialNumber::from_be_bytes(&epoch.to_be_bytes()).unwrap()),
        not_after: at(if epoch.is_multiple_of(expired) { -7_201 } else { 60 }).unix_timestamp(),
        revoked_at: at(0).unix_timestamp(),
        reason: Reason::Superseded,
    };
    Live { entries: (1..=count).map(entry).collect(), read: count, latest: count, ..Live::default() }
}

#[test]
fn from_wherever_somebody_comes_nothing_is_left_out_and_each_statement_has_an_end() {
    for (count, expired) in [(1, u64::MAX), (255, 7), (8192, u64::MAX), (8193, 3), (40_000, 2), (100_000, 1)] {
        let live = live(count, expired);
        for start in [0, 1, 200, 255, 256, 8191, 8192, 8193, 39_999].into_iter().filter(|start| *start < count) {
            for previous in [0, start] {
                let mut has = start;
                while has < count {
                    let span = live.span(has, previous, at(0));
                    assert!(span.after <= has && has < span.epoch && span.epoch <= count, "{has} of {count}: {span:?}");
                    let told = live.of(span).iter().filter(|entry| is_told(entry, at(0)));
                    assert!(told.count() as u64 <= CHUNK, "{span:?}");
                    has = span.epoch;
                }
            }
        }
    }
    // No client takes a longer one.
    let most = RevocationStatement::MAX_EPOCHS;
    let nearly_all_over = Live { read: 3 * most, latest: 3 * most, ..live(20, u64::MAX) };
    let first = nearly_all_over.span(0, 0, at(0));
    assert!(first.after == 0 && (most - CHUNK..=most).contains(&first.epoch), "{first:?}");
    // What has expired costs no statements.
    assert_eq!(live(100_000, 1).span(0, 0, at(0)), Span { after: 0, epoch: 100_000 });
    let one_more = live(20_001, u64::MAX).span(20_000, 20_000, at(0));
    assert_eq!(one_more, Span { after: 20_000, epoch: 20_001 }, "whoever is up to date gets what is new alone");
}

#[test]
fn a_thousand_who_come_back_at_once_cost_few_signatures() {
    let live = live(100_000, u64::MAX);
    let mut spans = HashSet::new();
    for client in 0..1000 {
        let mut has = client * 97;
        while has < 100_000 {
            let span = live.span(has, 0, at(0));
            has = span.epoch;
            spans.insert(span);
        }
    }
    let most = (100_000_u64.div_ceil(CHUNK) + CHUNK / STEP) as usize;
    assert!(spans.len() <= most, "{}", spans.len());
}

#[test]
fn a_statement_is_sent_again_as_long_as_it_is_true_and_by_the_authority_that_signs() {
    let root = testing::Root::new("example.org", at(0));
    let (one, other) = (Arc::new(root.authority(at(0))), Arc::new(root.authority(at(0))));
    let domain = "example.org".parse().unwrap();
    let lineage = Lineage::read(&[7; 8]).unwrap();
    let live = live(20_000, u64::MAX);
    let sign = |span: Span, latest| {
        let unsigned = Unsigned::new((&domain, lineage), (span, latest), live.of(span).iter(), at(0));
        unsigned.sign(&one).unwrap()
    };
    let mut signed = Signed::default();
    let (first, last) = (Span { after: 0, epoch: 8192 }, Span { after: 16_384, epoch: 20_000 });
    assert!(signed.get(first, 20_000, &one, at(0)).is_none());
    let kept = [first, last].map(|span| signed.keep(sign(span, 20_000)));
    for (span, kept) in [first, last].into_iter().zip(&kept) {
        assert!(Arc::ptr_eq(&signed.get(span, 20_000, &one, at(0)).unwrap(), kept));
    }
    // There is more: that the last one is so would be a lie, and whoever took it for one would serve too early.
    assert!(signed.get(first, 20_001, &one, at(0)).is_some() && signed.get(last, 20_001, &one, at(0)).is_none());
    signed.keep(sign(Span { after: 19_968, epoch: 20_000 }, 20_001));
    assert_eq!(signed.statements.len(), 2, "what nobody asks for any more is not kept");
    assert!(signed.get(first, 20_001, &one, at(-1)).is_none(), "made by a clock that was ahead");
    assert!(signed.get(first, 20_001, &other, at(0)).is_none(), "by an authority that signs no more");
}

/// Keys in a device that answers when it is let.
#[derive(Clone, Debug, Default)]
struct Device(Arc<(Mutex<Asked>, Condvar)>);

#[derive(Debug, Default)]
struct Asked {
    times: usize,
    hangs: bool,
}

struct DeviceKey(Device, P256Key);

impl Device {
    fn hang(&self, hangs: bool) {
        self.0.0.lock().unwrap().hangs = hangs;
        self.0.1.notify_all();
    }

    fn asked(&self) -> usize {
        self.0.0.lock().unwrap().times
    }
}

impl Signs for DeviceKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let (asked, changed) = &*self.0.0;
        let mut asked = asked.lock().unwrap();
        asked.times += 1;
        drop(changed.wait_while(asked, |asked| asked.hangs).unwrap());
        Signs::sign(&self.1, message)
    }

    fn pace(&self) -> Pace {
        Pace::Blocks
    }
}

impl Custody for Device {
    fn make(&self) -> Result<CaKey, CustodyError> {
        let key = P256Key::generate().unwrap();
        Ok(CaKey::new(rcgen::PublicKeyData::der_bytes(&key).to_vec(), DeviceKey(self.clone(), key)))
    }

    fn open(&self, name: &KeyName) -> Result<CaKey, CustodyError> {
        Err(CustodyError::Gone { name: name.clone() })
    }

    fn make_for_tokens(&self, _: Algorithm) -> Result<JwtKey, CustodyError> {
        Err(CustodyError::Randomness)
    }

    fn open_for_tokens(&self, name: &KeyName, _: Algorithm) -> Result<JwtKey, CustodyError> {
        Err(CustodyError::Gone { name: name.clone() })
    }

    fn make_for_log(&self) -> Result<LogKey, CustodyError> {
        Err(CustodyError::Randomness)
    }

    fn open_for_log(&self, name: &KeyName) -> Result<LogKey, CustodyError> {
        Err(CustodyError::Gone { name: name.clone() })
    }

    fn destroy(&self, _: &KeyName, _: Purpose) -> Result<(), CustodyError> {
        Ok(())
    }

    fn check(&self) -> Result<(), CustodyError> {
        Ok(())
    }
}

/// Of an issuer whose database is new.
struct Bench {
    revocations: Revocations,
    task: StoreTask,
    clock: ManualClock,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new(device: &Device) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (root, domain) = (testing::Root::new("example.org", at(0)), "example.org".parse().unwrap());
        let manual = ManualClock::new(at(0));
        let clock = manual.shared();
        let place = Place {
            trust_domain: TrustDomain::clone(&domain),
            custody: Arc::new(device.clone()),
            journal: folder.path().join("authorities.json"),
            request: folder.path().join("authority.csr"),
            path_length: 0,
            outbox: crate::store::Outbox::default(),
        };
        let authorities = Authorities::open(place, None, clock.clone()).unwrap();
        let certificate = root.sign(&authorities.all()[0].key, at(0), Duration::from_secs(86_400));
        authorities.import(certificate.as_bytes(), &root.bundle()).unwrap();
        let location = Location::File(folder.path().join("issuer.db"));
        let (store, task) =
            Store::open(&location, &domain, AuditLog::unpublished(), 10, clock.clone(), Readiness::default())
                .await
                .unwrap();
        let distribution = Distribution::new((Bundles::new(BundleSet::default()), Publication::new()), 10, 10);
        let profiles = Profiles::new((Duration::from_secs(3600), Duration::ZERO), []);
        let metrics = Metrics::register(&prometheus::Registry::new(), &profiles).unwrap();
        let revocations = Revocations::load(domain, store, authorities, distribution, clock, &metrics).await.unwrap();
        Self { revocations, task, clock: manual, _folder: folder }
    }

    async fn end(self) {
        drop(self.revocations);
        self.task.finish().await;
    }
}

#[tokio::test]
async fn whoever_claims_to_have_heard_of_more_silences_nobody_and_costs_few_readings() {
    let bench = Bench::new(&Device::default()).await;
    let Bench { revocations, .. } = &bench;
    let client: WorkloadId = "spiffe://example.org/client".parse().unwrap();
    let version = |epoch: u64| revocations.lineage().epoch_of(revocations.lineage().version(epoch));
    assert_eq!((version(u64::MAX), version(1 << 63), version(7)), (None, None, Some(7)), "no record comes so far");

    // The liar first: whoever comes after it is named all the same, a minute later at most.
    let liar = revocations.is_ahead(i64::MAX as u64, &client).await.unwrap();
    assert!(liar.is_some() && !revocations.is_to_be_told());
    let other: WorkloadId = "spiffe://example.org/other".parse().unwrap();
    let _honest = revocations.is_ahead(7, &other).await.unwrap();
    let told = revocations.0.ahead.summary().unwrap();
    assert_eq!((told.clients, told.least, told.named.contains(&other)), (2, 7, true));
    *revocations.0.lost.lock().unwrap() = Some(Instant::now() - SILENCE);
    assert!(revocations.is_to_be_told());

    let before = revocations.0.begun.load(Ordering::SeqCst);
    let mut claims: tokio::task::JoinSet<bool> = (0..100)
        .map(|_| {
            let (revocations, client) = (revocations.clone(), client.clone());
            async move { revocations.is_ahead(1, &client).await.unwrap().is_some() }
        })
        .collect();
    while let Some(is_behind) = claims.join_next().await {
        assert!(is_behind.unwrap());
    }
    let readings = revocations.0.begun.load(Ordering::SeqCst) - before;
    assert!((1..10).contains(&readings), "{readings}");
    drop(claims);
    bench.end().await;
}

#[tokio::test]
async fn a_clock_that_was_ahead_has_nobody_told_too_little() {
    let bench = Bench::new(&Device::default()).await;
    let Bench { revocations, clock, .. } = &bench;
    let target = RevocationTarget::Key(KeyHash::of_spki(b"stolen"), at(300));
    let (reason, actor) = (Reason::KeyCompromise, Actor::user(7));
    let revocation = NewRevocation { target, reason, actor, comment: String::new(), at: at(0) };
    revocations.0.store.revoke(revocation).await.unwrap();
    revocations.catch_up().await.unwrap();
    // What whoever knows nothing yet is told, and what stands in lists.
    let told = async || {
        let signed = revocations.next_for(None).await.unwrap().unwrap();
        assert_eq!(signed.epoch(), 1);
        let statement = wire::RevocationStatement::decode(&signed.told.statement[..]).unwrap();
        (statement.keys.len(), revocations.count())
    };
    clock.set(at(4 * 3_600));
    assert_eq!(told().await, (0, 1));
    clock.set(at(1_500));
    assert_eq!(told().await, (1, 1), "others have clocks of their own, which may be right");
    clock.set(at(1));
    assert_eq!(told().await, (1, 1), "what was signed by a clock that was ahead is told no more");
    // Days ahead, nothing is remembered. The record has it.
    clock.set(at(3 * 86_400));
    revocations.sweep().await.unwrap();
    assert_eq!(told().await, (1, 0), "what was signed is told as long as it is good");
    clock.set(at(2));
    assert_eq!(told().await, (1, 1), "whoever asks first after that is told all");
    // Nor is anything passed over for good that is recorded while the clock is ahead.
    clock.set(at(5 * 86_400));
    revocations.live().read = 0;
    revocations.live().entries.clear();
    revocations.catch_up().await.unwrap();
    assert_eq!(revocations.count(), 0);
    clock.set(at(3));
    assert_eq!(told().await, (1, 1));
    bench.end().await;
}

#[tokio::test]
async fn a_key_that_hangs_is_asked_once_however_many_give_up_waiting() {
    let device = Device::default();
    let bench = Bench::new(&device).await;
    let revocations = &bench.revocations;
    let before = device.asked();
    device.hang(true);
    for _ in 0..3 {
        let revocations = revocations.clone();
        let waiting = tokio::spawn(async move { revocations.next_for(None).await.map(drop) });
        let asked = async {
            while device.asked() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap();
        // As when its stream ends.
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
    }
    device.hang(false);
    let told = revocations.next_for(None).await.unwrap().unwrap();
    assert_eq!((told.epoch(), device.asked()), (0, before + 1));
    bench.end().await;
}
