#![allow(clippy::unwrap_used)]
use signet_identity::{Clock as _, ManualClock};

use super::*;
use crate::authority::custody::{KeyFileError, KeyName, Memory, Passphrase, SealStrength, SealedFolder};

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn place(folder: &std::path::Path, custody: Arc<dyn Custody>) -> Place {
    Place {
        custody,
        journal: folder.join("jwt-keys.json"),
        algorithm: Algorithm::Es256,
        schedule: Schedule { key_life: 24 * HOUR, publish_ahead: HOUR / 2, longest_token: HOUR },
        outbox: Outbox::default(),
    }
}

fn sealed(folder: &std::path::Path, passphrase: &str) -> Arc<dyn Custody> {
    let passphrase = Passphrase::read(passphrase.as_bytes()).unwrap();
    Arc::new(SealedFolder::new(folder.join("jwt"), passphrase, SealStrength::MINIMAL))
}

fn open_keys(place: &Place, clock: &ManualClock) -> Result<JwtKeys, JwtKeysError> {
    let profiles = crate::profile::Profiles::new((HOUR, Duration::ZERO), []);
    let metrics = Metrics::register(&prometheus::Registry::new(), &profiles).unwrap();
    JwtKeys::open(place.clone(), metrics, clock.shared())
}

fn kid(keys: &JwtKeys, clock: &ManualClock) -> KeyName {
    keys.signer(clock.now()).unwrap().key.key.name().clone()
}

#[test]
fn keys_outlive_a_restart_at_each_step_of_their_lives() {
    let folder = tempfile::tempdir().unwrap();
    let (place, clock) = (place(folder.path(), sealed(folder.path(), "open sesame")), ManualClock::new(now()));
    let mut signers = vec![kid(&open_keys(&place, &clock).unwrap(), &clock)];
    for _ in 0..60 {
        clock.advance(time::Duration::hours(1));
        let keys = open_keys(&place, &clock).unwrap();
        let kid = kid(&keys, &clock);
        let files = std::fs::read_dir(folder.path().join("jwt")).unwrap().count();
        assert_eq!(files, keys.published().borrow().public.len());
        if signers.last() != Some(&kid) {
            signers.push(kid);
        }
    }
    assert!(signers.len() >= 4, "{signers:?}");
    let gone = place.custody.open_for_tokens(&signers[0], Algorithm::Es256);
    assert!(matches!(gone, Err(CustodyError::Gone { .. })));
}

#[test]
fn an_issuer_that_stopped_between_a_keys_end_and_the_journal_starts_and_one_whose_key_is_lost_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (place, clock) = (place(folder.path(), Arc::new(Memory::default())), ManualClock::new(now()));
    let first = kid(&open_keys(&place, &clock).unwrap(), &clock);
    place.custody.destroy(&first, Purpose::Tokens(Algorithm::Es256)).unwrap();
    let lost = open_keys(&place, &clock);
    assert!(matches!(lost, Err(JwtKeysError::Custody(CustodyError::Gone { .. }))));
    clock.advance(time::Duration::hours(25));
    assert_ne!(kid(&open_keys(&place, &clock).unwrap(), &clock), first);
}

#[test]
fn keys_that_are_not_what_the_journal_says_are_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let (place, clock) = (place(folder.path(), sealed(folder.path(), "open sesame")), ManualClock::new(now()));
    let first = kid(&open_keys(&place, &clock).unwrap(), &clock);
    let wrong = Place { custody: sealed(folder.path(), "open barley"), ..place.clone() };
    let refused = open_keys(&wrong, &clock);
    let is_passphrase =
        |error: &CustodyError| matches!(error, CustodyError::File(KeyFileError::WrongPassphrase { .. }));
    assert!(matches!(&refused, Err(JwtKeysError::Custody(error)) if is_passphrase(error)));

    let file = |name: &KeyName| folder.path().join(format!("jwt/{name}.key"));
    let other = place.custody.make_for_tokens(Algorithm::Es256).unwrap();
    std::fs::rename(file(other.name()), file(&first)).unwrap();
    let refused = open_keys(&place, &clock);
    let is_damaged = |error: &CustodyError| matches!(error, CustodyError::File(KeyFileError::Damaged { .. }));
    assert!(matches!(&refused, Err(JwtKeysError::Custody(error)) if is_damaged(error)));
    let entry = |kid: &str, at: i64| {
        format!(
            r#"{{"version": 1, "keys": [{{"kid": "{kid}", "algorithm": "ES256", "made_at": {at}, "not_after": 0}}]}}"#
        )
    };
    for journal in ["", "{}", r#"{"version": 2, "keys": []}"#, &entry("../a", 0), &entry(first.as_str(), i64::MAX)] {
        std::fs::write(&place.journal, journal).unwrap();
        assert!(matches!(open_keys(&place, &clock), Err(JwtKeysError::Journal { .. })), "{journal}");
    }
}
