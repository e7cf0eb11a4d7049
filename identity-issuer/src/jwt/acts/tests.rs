#![allow(clippy::unwrap_used, clippy::panic)]
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signet_identity::{Clock as _, ManualClock};

use super::super::keys::Place;
use super::super::plan::Schedule;
use super::*;
use crate::authority::CustodyError;
use crate::authority::custody::{CaKey, Custody, JwtKey, LogKey, Memory, Purpose};
use crate::metrics::Metrics;

const HOUR: Duration = Duration::from_secs(3600);

/// A custody that may be in want of something.
#[derive(Debug, Default)]
struct Faulty {
    memory: Memory,
    makes_none: AtomicBool,
    destroys_none: AtomicBool,
    /// Nothing is made or destroyed while somebody holds it.
    hangs: Mutex<()>,
    /// How many keys of tokens rest here.
    rest: AtomicI32,
}

impl Custody for Faulty {
    fn make(&self) -> Result<CaKey, CustodyError> {
        self.memory.make()
    }

    fn open(&self, name: &KeyName) -> Result<CaKey, CustodyError> {
        self.memory.open(name)
    }

    fn make_for_tokens(&self, algorithm: Algorithm) -> Result<JwtKey, CustodyError> {
        drop(self.hangs.lock().unwrap_or_else(PoisonError::into_inner));
        if self.makes_none.load(Ordering::Relaxed) {
            return Err(CustodyError::Randomness);
        }
        self.rest.fetch_add(1, Ordering::Relaxed);
        self.memory.make_for_tokens(algorithm)
    }

    fn open_for_tokens(&self, name: &KeyName, algorithm: Algorithm) -> Result<JwtKey, CustodyError> {
        self.memory.open_for_tokens(name, algorithm)
    }

    fn make_for_log(&self) -> Result<LogKey, CustodyError> {
        self.memory.make_for_log()
    }

    fn open_for_log(&self, name: &KeyName) -> Result<LogKey, CustodyError> {
        self.memory.open_for_log(name)
    }

    fn destroy(&self, name: &KeyName, purpose: Purpose) -> Result<(), CustodyError> {
        drop(self.hangs.lock().unwrap_or_else(PoisonError::into_inner));
        if self.destroys_none.load(Ordering::Relaxed) {
            return Err(CustodyError::Randomness);
        }
        self.rest.fetch_sub(1, Ordering::Relaxed);
        self.memory.destroy(name, purpose)
    }

    fn check(&self) -> Result<(), CustodyError> {
        Ok(())
    }
}

struct Issuer {
    place: Place,
    custody: Arc<Faulty>,
    clock: ManualClock,
    _folder: tempfile::TempDir,
}

impl Issuer {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let custody = Arc::new(Faulty::default());
        let place = Place {
            custody: custody.clone(),
            journal: folder.path().join("jwt-keys.json"),
            algorithm: Algorithm::Es256,
            schedule: Schedule { key_life: 24 * HOUR, publish_ahead: HOUR, longest_token: HOUR / 4 },
            outbox: crate::store::Outbox::default(),
        };
        let clock = ManualClock::new(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap());
        Self { place, custody, clock, _folder: folder }
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time.try_into().unwrap());
    }

    /// As after each restart.
    fn keys(&self) -> JwtKeys {
        let profiles = crate::profile::Profiles::new((HOUR, Duration::ZERO), []);
        let metrics = Metrics::register(&prometheus::Registry::new(), &profiles).unwrap();
        JwtKeys::open(self.place.clone(), metrics, self.clock.shared()).unwrap()
    }

    fn rests(&self, kid: &KeyName) -> bool {
        match self.place.custody.open_for_tokens(kid, Algorithm::Es256) {
            Ok(_) => true,
            Err(CustodyError::Gone { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

fn act() -> Act {
    Act { at: 1_800_000_000_000_000, actor: "uid:0".to_owned(), comment: "ticket 1".to_owned() }
}

fn signer(keys: &JwtKeys) -> KeyName {
    keys.signer(keys.now()).unwrap().key.key.name().clone()
}

fn stages(keys: &JwtKeys) -> Vec<(KeyName, Stage)> {
    keys.list().into_iter().map(|listed| (listed.kid, listed.stage)).collect()
}

fn is_published(keys: &JwtKeys, kid: &KeyName) -> bool {
    keys.published().borrow().public.named().any(|(known, _)| known == *kid)
}

fn revoke(keys: &JwtKeys, kid: &KeyName, insistence: Insistence) -> Result<(), ActError> {
    keys.revoke(kid, "key-compromise", act(), insistence, &BTreeSet::new())
}

#[test]
fn a_tainted_key_signs_no_more_and_is_known_until_its_last_token_has_expired() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let first = signer(&keys);
    keys.taint(&first, act()).unwrap();
    let second = signer(&keys);
    assert_eq!(stages(&keys), [(first.clone(), Stage::Tainted), (second.clone(), Stage::Active)]);
    assert!(is_published(&keys, &first) && is_published(&keys, &second));
    let stage = Stage::Tainted;
    assert!(matches!(keys.taint(&first, act()), Err(ActError::Already { stage: found, .. }) if found == stage));

    let keys = issuer.keys();
    assert_eq!(stages(&keys), [(first.clone(), Stage::Tainted), (second.clone(), Stage::Active)]);
    assert_eq!(keys.list()[0].act, Some(act()));
    issuer.pass(HOUR / 4);
    keys.advance(Known::Yes).unwrap();
    assert!(is_published(&keys, &first) && issuer.rests(&first));
    issuer.pass(HOUR / 4);
    keys.advance(Known::Yes).unwrap();
    assert!(!is_published(&keys, &first) && !issuer.rests(&first));
    assert_eq!(stages(&keys), [(second, Stage::Active)]);
}

#[test]
fn the_key_that_signs_is_revoked_by_force_alone_and_another_one_signs_at_once() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let first = signer(&keys);
    assert!(matches!(revoke(&keys, &first, Insistence::Careful), Err(ActError::Signs { .. })));
    assert!(is_published(&keys, &first) && signer(&keys) == first);
    revoke(&keys, &first, Insistence::Force).unwrap();
    let second = signer(&keys);
    for keys in [keys, issuer.keys()] {
        assert_eq!(stages(&keys), [(second.clone(), Stage::Active), (first.clone(), Stage::Revoked)]);
        assert!(!is_published(&keys, &first) && !issuer.rests(&first));
        assert!(keys.published().borrow().revoked.contains_key(&first));
        let again = revoke(&keys, &first, Insistence::Force);
        assert!(matches!(again, Err(ActError::Already { stage: Stage::Revoked, .. })));
    }
    // It is named for longer than any key lives, and no longer.
    for _ in 0..401 {
        issuer.pass(24 * HOUR);
        issuer.keys();
    }
    assert!(issuer.keys().published().borrow().revoked.is_empty());
}

#[test]
fn a_key_that_was_to_follow_or_has_retired_is_revoked_without_force() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let first = signer(&keys);
    keys.rotate(act()).unwrap();
    assert!(matches!(keys.rotate(act()), Err(ActError::UnderWay)));
    let prepared = stages(&keys)[1].0.clone();
    assert_eq!(keys.rotation().unwrap().1, issuer.clock.now() + HOUR);
    revoke(&keys, &prepared, Insistence::Careful).unwrap();
    assert_eq!(signer(&keys), first);
    // What somebody wanted is done all the same, also after a restart.
    let keys = issuer.keys();
    issuer.pass(HOUR);
    keys.advance(Known::No).unwrap();
    assert_eq!(signer(&keys), first);
    keys.advance(Known::Yes).unwrap();
    let second = signer(&keys);
    assert!(second != first && second != prepared);
    assert!(keys.rotation().is_none());
    revoke(&keys, &first, Insistence::Careful).unwrap();
    assert_eq!(signer(&keys), second);
}

#[test]
fn what_another_issuer_has_revoked_signs_no_more_and_ones_word_is_for_keys_of_others_too() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let (first, foreign) = (signer(&keys), KeyName::of(b"another issuer's"));
    assert!(matches!(revoke(&keys, &foreign, Insistence::Force), Err(ActError::Unknown { .. })));
    let published = BTreeSet::from([foreign.clone()]);
    keys.revoke(&foreign, "superseded", act(), Insistence::Careful, &published).unwrap();
    assert!(keys.published().borrow().revoked.contains_key(&foreign));
    keys.heed(&RevokedKeys::from([(foreign, 1)])).unwrap();
    assert_eq!(signer(&keys), first);
    keys.heed(&RevokedKeys::from([(first.clone(), 1)])).unwrap();
    keys.heed(&RevokedKeys::from([(first.clone(), 1)])).unwrap();
    assert_ne!(signer(&keys), first);
    assert!(!is_published(&keys, &first) && !issuer.rests(&first));
}

#[test]
fn what_other_issuers_have_revoked_is_remembered_as_long_as_they_would_and_leaves_room_for_ones_own() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let now = microseconds(keys.now());
    let names = |from: u32| (from..from + 200).map(|number| KeyName::of(&number.to_be_bytes()));
    let foreign = KeyName::of(b"another issuer's");
    let day = 24 * 3600 * 1_000_000_i64;
    keys.heed(&RevokedKeys::from([(foreign.clone(), now - 399 * day), (KeyName::of(b"long ago"), now - 401 * day)]))
        .unwrap();
    for keys in [&keys, &issuer.keys()] {
        assert_eq!(keys.published().borrow().revoked, RevokedKeys::from([(foreign.clone(), now - 399 * day)]));
    }
    // A clock that is ahead has nothing named for longer.
    keys.heed(&names(0).map(|kid| (kid, i64::MAX)).collect()).unwrap();
    let told = keys.published().borrow().revoked.clone();
    assert!(told.len() == MOST_REVOKED && told.values().all(|at| *at <= now));
    let own = signer(&keys);
    revoke(&keys, &own, Insistence::Force).unwrap();
    keys.heed(&RevokedKeys::from([(signer(&keys), now)])).unwrap();
    assert_eq!(issuer.keys().published().borrow().revoked.len(), MOST_REVOKED + 2);
    issuer.pass(2 * 24 * HOUR);
    drop(keys.advance(Known::Yes));
    assert!(!keys.published().borrow().revoked.contains_key(&foreign));
}

#[test]
fn a_key_is_revoked_at_once_though_the_custody_is_away() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let first = signer(&keys);
    for fault in [&issuer.custody.makes_none, &issuer.custody.destroys_none] {
        fault.store(true, Ordering::Relaxed);
    }
    revoke(&keys, &first, Insistence::Force).unwrap();
    assert!(!is_published(&keys, &first) && keys.published().borrow().revoked.contains_key(&first));
    assert!(keys.signer(keys.now()).is_none() && issuer.rests(&first));
    for fault in [&issuer.custody.makes_none, &issuer.custody.destroys_none] {
        fault.store(false, Ordering::Relaxed);
    }
    // As after a look, or a restart.
    keys.advance(Known::No).unwrap();
    assert_ne!(signer(&keys), first);
    assert!(!issuer.rests(&first));
}

#[test]
fn a_custody_that_hangs_holds_up_no_revocation() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let first = signer(&keys);
    let hanging = issuer.custody.hangs.lock().unwrap();
    // As the look that finds half of its life gone.
    issuer.pass(13 * HOUR);
    let looking = {
        let keys = keys.clone();
        std::thread::spawn(move || keys.advance(Known::No))
    };
    revoke(&keys, &first, Insistence::Force).unwrap();
    assert!(!is_published(&keys, &first) && keys.published().borrow().revoked.contains_key(&first));
    drop(hanging);
    looking.join().unwrap().unwrap();
    keys.advance(Known::No).unwrap();
    assert_ne!(signer(&keys), first);
    // What was made in vain, late, is destroyed by whoever made it.
    let ends = std::time::Instant::now() + Duration::from_secs(10);
    while issuer.custody.rest.load(Ordering::Relaxed) > 1 || issuer.rests(&first) {
        assert!(std::time::Instant::now() < ends, "{} keys", issuer.custody.rest.load(Ordering::Relaxed));
        std::thread::yield_now();
    }
}

#[test]
fn keys_that_cannot_be_destroyed_hold_up_no_other_however_long() {
    let issuer = Issuer::new();
    issuer.custody.destroys_none.store(true, Ordering::Relaxed);
    let (keys, mut signers) = (issuer.keys(), BTreeSet::new());
    for _ in 0..400 {
        issuer.pass(6 * HOUR);
        drop(keys.advance(Known::Yes));
        signers.insert(signer(&keys));
        assert!(keys.list().len() <= 3, "{:?}", keys.list());
    }
    assert!(signers.len() > 100, "{}", signers.len());
    let keys = issuer.keys();
    issuer.custody.destroys_none.store(false, Ordering::Relaxed);
    keys.advance(Known::Yes).unwrap();
    for kid in signers.iter().rev().filter(|kid| is_published(&keys, kid)) {
        assert!(issuer.rests(kid));
    }
    assert!(issuer.custody.rest.load(Ordering::Relaxed) < i32::try_from(signers.len()).unwrap());
}

#[test]
fn what_cannot_be_written_down_leaves_no_key_behind() {
    let issuer = Issuer::new();
    let keys = issuer.keys();
    let first = signer(&keys);
    std::fs::remove_file(&issuer.place.journal).unwrap();
    std::fs::create_dir(&issuer.place.journal).unwrap();
    issuer.pass(13 * HOUR);
    for _ in 0..3 {
        assert!(matches!(keys.advance(Known::Yes), Err(JwtKeysError::Write { .. })));
        assert!(matches!(keys.taint(&first, act()), Err(ActError::Keys(JwtKeysError::Write { .. }))));
    }
    assert_eq!((issuer.custody.rest.load(Ordering::Relaxed), signer(&keys)), (1, first));
}

#[test]
fn what_operators_do_again_and_again_leaves_a_journal_that_can_be_read() {
    let mut issuer = Issuer::new();
    issuer.place.schedule.publish_ahead = Duration::ZERO;
    let keys = issuer.keys();
    let mut refused = [false; 2];
    for _ in 0..20 {
        refused[0] |= matches!(keys.rotate(act()), Err(ActError::TooMany));
        keys.advance(Known::Yes).unwrap();
        refused[1] |= matches!(keys.taint(&signer(&keys), act()), Err(ActError::TooMany));
        issuer.keys();
    }
    assert_eq!(refused, [true; 2]);
    let all = |from: u32| (from..from + 130).map(|number| KeyName::of(&number.to_be_bytes())).collect::<BTreeSet<_>>();
    for kid in all(0) {
        let revoked = keys.revoke(&kid, "superseded", act(), Insistence::Careful, &all(0));
        assert!(matches!(revoked, Ok(()) | Err(ActError::TooMany)));
    }
    assert_eq!(stages(&issuer.keys()).len(), MOST_HELD + MOST_REVOKED);
}
