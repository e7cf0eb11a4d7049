#![allow(clippy::unwrap_used)]
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use signet_identity::{Clock, SystemClock};
use tempfile::TempDir;

use super::super::{Ceremony, RootError, Terms, Unlock, init};
use super::*;
use crate::authority::{Passphrase, SealStrength};

const YEAR: Duration = Duration::from_secs(365 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);

/// A root that signed some intermediates, and its record.
struct Place(TempDir);

impl Place {
    fn new(signings: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trust_domain = "example.org".parse().unwrap();
        init(folder.path(), &trust_domain, &passphrase(), SealStrength::MINIMAL, YEAR, &SystemClock).unwrap();
        let place = Self(folder);
        for _ in 0..signings {
            place.sign(1).unwrap();
        }
        place
    }

    fn sign(&self, requests: usize) -> Result<Vec<super::super::CaSummary>, RootError> {
        self.sign_at(requests, &SystemClock)
    }

    fn sign_at(&self, requests: usize, clock: &dyn Clock) -> Result<Vec<super::super::CaSummary>, RootError> {
        let requests: String = (0..requests).map(|_| request()).collect();
        let ceremony = Ceremony::plan(self.0.path(), requests.as_bytes(), &Terms::of(DAY), clock)?;
        ceremony.sign(&Unlock::Passphrase(&passphrase()), &witness(), clock)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("ceremonies.jsonl")
    }

    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(self.path()).unwrap().lines().map(str::to_owned).collect()
    }

    fn write(&self, lines: &[String]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(self.path(), text).unwrap();
    }

    #[track_caller]
    fn refused(&self) -> RecordError {
        let error = match verify(self.0.path()).unwrap_err() {
            RootError::Record(error) => error,
            error => unreachable!("{error}"),
        };
        // Whoever reads the record and whoever adds to it see the same.
        let torn = matches!(error, RecordError::Torn { .. });
        assert_eq!(self.sign(1).is_err(), !torn, "{error}");
        error
    }
}

/// That many seconds from now.
#[derive(Debug)]
struct Shifted(i64);

impl Clock for Shifted {
    fn now(&self) -> OffsetDateTime {
        SystemClock.now() + time::Duration::seconds(self.0)
    }
}

fn passphrase() -> Passphrase {
    Passphrase::read(&b"open sesame"[..]).unwrap()
}

fn witness() -> Witness {
    Witness { operator: "Ada \"the\" operator\n".to_owned(), host: "vault".to_owned() }
}

fn request() -> String {
    CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

#[test]
fn each_signing_is_on_record_with_all_that_was_shown() {
    let place = Place::new(0);
    let signed = place.sign(2).unwrap();
    let found = verify(place.0.path()).unwrap();
    assert_eq!(found.entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(matches!(&found.entries[0].act, Act::Init { trust_domain, .. } if trust_domain == "example.org"));
    for (entry, signed) in found.entries[1..].iter().zip(&signed) {
        let Act::Sign(signing) = &entry.act else { unreachable!() };
        assert_eq!((&signing.subject, &signing.key_id), (&signed.subject, &signed.key_id));
        assert_eq!((entry.operator.as_str(), entry.host.as_str()), (witness().operator.as_str(), "vault"));
        assert_eq!(found.entry_of(&place.path(), &signed.certificate).unwrap(), entry);
    }
    assert!(found.grew_from(&place.path(), &found.head.sha256.to_uppercase()).is_ok());
    let unknown = found.grew_from(&place.path(), &"0".repeat(64));
    assert!(matches!(unknown, Err(RecordError::HeadUnknown { .. })));
}

#[test]
fn a_certificate_that_the_root_signed_beside_its_record_is_found() {
    let place = Place::new(1);
    let found = verify(place.0.path()).unwrap();
    // In the same root's name, by the same key, in a copy of the folder.
    let copy = tempfile::tempdir().unwrap();
    for file in ["root.key", "root.pem", "ceremonies.jsonl", "ceremonies.head"] {
        std::fs::copy(place.0.path().join(file), copy.path().join(file)).unwrap();
    }
    let beside = Place(copy).sign(1).unwrap();
    let error = found.entry_of(&place.path(), &beside[0].certificate).unwrap_err();
    assert!(matches!(error, RecordError::NotOnRecord { .. }), "{error}");
}

#[test]
fn an_altered_entry_is_found_wherever_it_was_altered() {
    let place = Place::new(2);
    let lines = place.lines();
    for (index, line) in lines.iter().enumerate() {
        for at in (0..line.len()).step_by(line.len() / 40) {
            let mut changed = lines.clone();
            let other = if line.as_bytes()[at] == b'0' { "1" } else { "0" };
            changed[index].replace_range(at..=at, other);
            place.write(&changed);
            let RecordError::Broken { line, .. } = place.refused() else { unreachable!() };
            assert_eq!(line, index as u64 + 1);
        }
    }
    place.write(&lines);
    verify(place.0.path()).unwrap();
}

#[test]
fn a_removed_repeated_or_moved_entry_is_found() {
    let place = Place::new(3);
    let lines = place.lines();
    let of = |order: &[usize]| order.iter().map(|index| lines[*index].clone()).collect::<Vec<_>>();
    for order in [&[1, 2, 3][..], &[0, 2, 3], &[0, 1, 3], &[0, 2, 1, 3], &[0, 1, 1, 2, 3], &[0, 1, 2, 3, 3], &[3]] {
        place.write(&of(order));
        assert!(matches!(place.refused(), RecordError::Broken { what: Break::Chain, .. }), "{order:?}");
    }
}

#[test]
fn a_record_whose_end_was_cut_off_is_found_by_its_head() {
    let place = Place::new(3);
    let lines = place.lines();
    let noted = verify(place.0.path()).unwrap().head;
    for kept in 0..lines.len() {
        place.write(&lines[..kept]);
        let error = place.refused();
        assert!(matches!(error, RecordError::CutOff { expected: 4, .. }), "{error}");
    }
    // A copy has no head; whoever noted it finds out.
    place.write(&lines[..3]);
    let root = place.0.path().join("root.pem");
    let copy = Verified::read(&place.path(), &root).unwrap();
    assert!(copy.grew_from(&place.path(), &noted.sha256).is_err());
    // Within a line, where the head was written.
    std::fs::write(place.path(), lines.join("\n")).unwrap();
    assert!(matches!(verify(place.0.path()), Err(RootError::Record(RecordError::CutOff { .. }))));
    assert!(matches!(Verified::read(&place.path(), &root), Err(RootError::Record(RecordError::Torn { .. }))));
    std::fs::remove_file(place.path()).unwrap();
    assert!(matches!(place.refused(), RecordError::Gone { .. }));
}

#[test]
fn a_ceremony_that_was_cut_short_leaves_nothing_that_counts() {
    let place = Place::new(1);
    let (whole, head) = (place.lines(), std::fs::read(place.0.path().join("ceremonies.head")).unwrap());
    place.sign(1).unwrap();
    let third = place.lines().pop().unwrap();
    // While the line was written.
    for written in [1, third.len() / 2, third.len()] {
        std::fs::write(place.path(), format!("{}\n{}", whole.join("\n"), &third[..written])).unwrap();
        std::fs::write(place.0.path().join("ceremonies.head"), &head).unwrap();
        assert!(matches!(verify(place.0.path()), Err(RootError::Record(RecordError::Torn { .. }))));
        place.sign(1).unwrap();
        assert_eq!(verify(place.0.path()).unwrap().head.number, 3);
    }
    // Between the line and the head: the number was given, and is not given again.
    place.write(&[&whole[..], &[third]].concat());
    std::fs::write(place.0.path().join("ceremonies.head"), &head).unwrap();
    place.sign(1).unwrap();
    assert_eq!(verify(place.0.path()).unwrap().head.number, 4);
}

#[test]
fn a_record_of_another_root_is_refused() {
    let (one, other) = (Place::new(1), Place::new(1));
    std::fs::copy(other.path(), one.path()).unwrap();
    assert!(matches!(one.refused(), RecordError::Broken { line: 1, what: Break::Signature, .. }));
    let lines = other.lines();
    let mixed = Place::new(1);
    mixed.write(&[mixed.lines()[0].clone(), lines[1].clone()]);
    assert!(matches!(mixed.refused(), RecordError::Broken { line: 2, what: Break::Signature, .. }));
}

#[test]
fn nothing_is_signed_while_the_clock_is_behind_the_record() {
    let place = Place::new(0);
    place.sign_at(1, &Shifted(0)).unwrap();
    let error = place.sign_at(1, &Shifted(-60)).unwrap_err();
    assert!(matches!(error, RootError::Record(RecordError::ClockWentBack { .. })), "{error}");
    let error = place.sign_at(1, &Shifted(-3600)).unwrap_err();
    assert!(matches!(error, RootError::NotYetValid { .. }), "{error}");
    let error = place.sign_at(1, &Shifted(400 * 86_400)).unwrap_err();
    assert!(matches!(error, RootError::Expired { .. }), "{error}");
    assert_eq!(verify(place.0.path()).unwrap().head.number, 2);
}

#[test]
fn a_clock_that_is_set_back_during_a_ceremony_does_not_spoil_the_record() {
    let place = Place::new(1);
    let ceremony = Ceremony::plan(place.0.path(), request().as_bytes(), &Terms::of(DAY), &SystemClock).unwrap();
    let error = ceremony.sign(&Unlock::Passphrase(&passphrase()), &witness(), &Shifted(-60)).unwrap_err();
    assert!(matches!(error, RootError::Record(RecordError::ClockWentBack { .. })), "{error}");
    assert_eq!(verify(place.0.path()).unwrap().head.number, 2);
    place.sign(1).unwrap();
}

#[test]
fn two_ceremonies_at_once_are_one_too_many() {
    let place = Place::new(0);
    let first = Ceremony::plan(place.0.path(), request().as_bytes(), &Terms::of(DAY), &SystemClock).unwrap();
    let error = place.sign(1).unwrap_err();
    assert!(matches!(error, RootError::Record(RecordError::Locked { .. })), "{error}");
    first.sign(&Unlock::Passphrase(&passphrase()), &witness(), &SystemClock).unwrap();
    place.sign(1).unwrap();
}

#[test]
fn what_is_not_signed_is_not_on_record() {
    let place = Place::new(0);
    let wrong = Passphrase::read(&b"open barley"[..]).unwrap();
    let plan = || Ceremony::plan(place.0.path(), request().as_bytes(), &Terms::of(DAY), &SystemClock).unwrap();
    drop(plan());
    plan().sign(&Unlock::Passphrase(&wrong), &witness(), &SystemClock).unwrap_err();
    let endless = Witness { operator: "a".repeat(Witness::MAX_BYTES + 1), ..witness() };
    plan().sign(&Unlock::Passphrase(&passphrase()), &endless, &SystemClock).unwrap_err();
    assert_eq!(verify(place.0.path()).unwrap().head.number, 1);
}

#[test]
fn no_certificate_is_made_when_the_record_cannot_be_written() {
    let place = Place::new(0);
    let ceremony = Ceremony::plan(place.0.path(), request().as_bytes(), &Terms::of(DAY), &SystemClock).unwrap();
    // The head is replaced by a file in the folder: none can be made where a folder lies.
    std::fs::create_dir(place.0.path().join(".ceremonies.head.new")).unwrap();
    let error = ceremony.sign(&Unlock::Passphrase(&passphrase()), &witness(), &SystemClock).unwrap_err();
    assert!(matches!(error, RootError::Record(RecordError::Io { .. })), "{error}");
}
