#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;
use crate::{Act, Edge, sign};

/// A log whose hours end one after the other.
struct Log {
    pair: Ed25519KeyPair,
    key: VerifierKey,
    edge: Edge,
    files: BTreeMap<Resource, Vec<u8>>,
    last: Option<(Digest, Vec<u8>)>,
    hour: Hour,
}

impl Source for Log {
    fn read(&self, resource: Resource, _: usize) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.files.get(&resource).cloned())
    }
}

impl Log {
    fn new() -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        let key = VerifierKey::new("example.org/audit/1".parse().unwrap(), public);
        let hour = Hour::of(1_800_000_000).unwrap();
        Self { pair, key, edge: Edge::default(), files: BTreeMap::new(), last: None, hour }
    }

    fn sign(&self, digest: &Digest) -> Vec<u8> {
        let signing = |message: &[u8]| Ok::<_, ()>(self.pair.sign(message).as_ref().try_into().unwrap());
        digest.statement().sign(&self.key, signing).unwrap().into_bytes()
    }

    /// So much is logged in it.
    fn end_hour(&mut self, entries: u64) {
        for _ in 0..entries {
            // In the middle of the hour.
            let time = self.hour.time() + time::Duration::minutes(30);
            let act = Act::Started { software: format!("signet {}", self.edge.size()) };
            let entry = Entry::new(time, act).unwrap().encode().unwrap();
            let files = &mut self.files;
            self.edge.append(&entry, |resource, bytes| drop(files.insert(resource, bytes))).unwrap();
        }
        self.files.extend(self.edge.partial());
        let next = self.hour.next().unwrap();
        let digest = Digest {
            log: self.key.origin().clone(),
            from: self.hour,
            to: next,
            entries,
            size: self.edge.size(),
            root: self.edge.root(),
            previous: self.last.as_ref().map(|(last, note)| Link { from: last.from, hash: sha256(note) }),
        };
        self.put(digest);
        self.hour = next;
    }

    fn put(&mut self, digest: Digest) {
        let note = self.sign(&digest);
        self.files.insert(Resource::Digest(digest.from), note.clone());
        self.files.insert(Resource::LatestDigest, note.clone());
        self.last = Some((digest, note));
    }

    fn today(&self) -> SignedCheckpoint {
        let checkpoint =
            Checkpoint { origin: self.key.origin().clone(), size: self.edge.size(), root: self.edge.root() };
        let signing = |message: &[u8]| Ok::<_, ()>(self.pair.sign(message).as_ref().try_into().unwrap());
        let note = sign(&checkpoint, &self.key, self.hour.begins() + 600, signing).unwrap();
        SignedCheckpoint::open(note.as_bytes(), &self.key).unwrap()
    }

    fn verify(&self) -> Result<Option<Digests>, DigestFault> {
        verify_digests(self, &self.today(), &self.key, None, |_| ())
    }

    fn three_hours() -> Self {
        let mut log = Self::new();
        for entries in [300, 0, 700] {
            log.end_hour(entries);
        }
        log
    }

    /// The digest of the hour so many before the last.
    fn before(&self, count: u64) -> Digest {
        let hour = Hour(self.last.as_ref().unwrap().0.from.0 - count);
        Digest::open(&self.files[&Resource::Digest(hour)], Some(hour), &self.key).unwrap()
    }
}

#[test]
fn each_hour_has_one_also_where_nothing_was_logged() {
    let mut log = Log::new();
    assert_eq!(log.verify().unwrap(), None);
    let first = log.hour;
    for entries in [300, 0, 700] {
        log.end_hour(entries);
    }
    let found = log.verify().unwrap().unwrap();
    assert_eq!(found, Digests { count: 3, empty: 1, from: first, to: log.hour });
    let last = verify_digests(&log, &log.today(), &log.key, Some(log.before(0).from), |_| ());
    assert_eq!(last.unwrap().unwrap().count, 1);
}

#[test]
fn one_of_an_hour_that_was_not_over_is_found() {
    let mut log = Log::three_hours();
    let today = log.today();
    log.end_hour(0);
    assert!(matches!(
        verify_digests(&log, &today, &log.key, None, |_| ()),
        Err(DigestFault::Early { to }) if to == log.hour
    ));
    log.verify().unwrap();
}

#[test]
fn one_that_was_changed_replaced_or_taken_out_is_found() {
    let hour = |log: &Log, count| Resource::Digest(log.before(count).from);
    let mut log = Log::three_hours();
    let place = hour(&log, 1);
    let note = log.files.get_mut(&place).unwrap();
    let position = note.len() / 2;
    note[position] ^= 1;
    assert!(matches!(log.verify(), Err(DigestFault::Replaced { .. })));

    // By whoever has the key.
    let mut log = Log::three_hours();
    let mut other = log.before(1);
    other.root = Hash([9; 32]);
    let (place, note) = (hour(&log, 1), log.sign(&other));
    log.files.insert(place, note);
    assert!(matches!(log.verify(), Err(DigestFault::Replaced { .. })));

    let mut log = Log::three_hours();
    let place = hour(&log, 1);
    log.files.remove(&place);
    assert!(matches!(log.verify(), Err(DigestFault::Read(ReadError::Missing { .. }))));

    // The chain goes on behind an hour that is left out.
    let mut log = Log::three_hours();
    let mut last = log.before(0);
    let first = log.before(2);
    let place = Resource::Digest(first.from);
    last.previous = Some(Link { from: first.from, hash: sha256(&log.files[&place]) });
    log.put(last);
    assert!(matches!(log.verify(), Err(DigestFault::Gap { .. })));

    let mut log = Log::three_hours();
    let mut last = log.before(0);
    last.entries -= 1;
    log.put(last);
    assert!(matches!(log.verify(), Err(DigestFault::Sizes { .. })));

    // The last ones are kept back.
    let mut log = Log::three_hours();
    let kept = log.files[&hour(&log, 1)].clone();
    log.files.insert(Resource::LatestDigest, kept);
    assert!(matches!(log.verify(), Err(DigestFault::Late { .. })));
}

/// As by somebody who has the log's key.
#[test]
fn a_chain_that_begins_anew_or_is_gone_is_found() {
    let mut log = Log::new();
    (0..3).for_each(|hour| log.end_hour(hour + 1));
    log.last = None;
    let next = log.hour.next().unwrap();
    let (size, root) = (log.edge.size(), log.edge.root());
    log.put(Digest {
        log: log.key.origin().clone(),
        from: log.hour,
        to: next,
        entries: size,
        size,
        root,
        previous: None,
    });
    let first = log.hour;
    log.hour = next;
    log.end_hour(2);
    let began = log.verify().unwrap_err();
    assert!(matches!(began, DigestFault::Begun { first: found, .. } if found == first), "{began}");
    // What was asked for lies before it, or is it.
    for from in [Hour::of(1_800_000_000).unwrap(), first] {
        let began = verify_digests(&log, &log.today(), &log.key, Some(from), |_| ()).unwrap_err();
        assert!(matches!(began, DigestFault::Begun { .. }), "{began}");
    }
    // Behind it, nobody asks.
    assert!(verify_digests(&log, &log.today(), &log.key, Some(next), |_| ()).is_ok());
    log.files.remove(&Resource::LatestDigest);
    let none = log.verify().unwrap_err();
    assert!(matches!(none, DigestFault::NoDigest { .. }), "{none}");
}

#[test]
fn what_is_logged_just_before_an_hour_ends_may_have_its_digest_with_the_next() {
    let mut log = Log::new();
    log.end_hour(1);
    (log.last, log.files) =
        (None, log.files.into_iter().filter(|(file, _)| !matches!(file, Resource::Digest(_))).collect());
    let next = log.hour.next().unwrap();
    let (size, root) = (log.edge.size(), log.edge.root());
    let (from, origin) = (log.hour, log.key.origin().clone());
    log.put(Digest { log: origin, from, to: next, entries: size, size, root, previous: None });
    log.hour = next;
    assert_eq!(log.verify().unwrap().unwrap().count, 1);
    log.files.remove(&Resource::LatestDigest);
    log.hour = from;
    assert_eq!(log.verify().unwrap(), None);
}

#[test]
fn one_of_another_log_or_another_hour_is_none() {
    let log = Log::three_hours();
    let (digest, note) = log.last.clone().unwrap();
    let other = Digest::open(&note, digest.to.next(), &log.key);
    assert!(matches!(other, Err(DigestFault::Form { .. })), "{other:?}");
    let key = VerifierKey::new("example.org/audit/2".parse().unwrap(), [1; 32]);
    assert!(matches!(Digest::open(&note, Some(digest.from), &key), Err(DigestFault::Statement { .. })));
    for wrong in [
        Digest { to: digest.from, ..digest.clone() },
        Digest { entries: digest.size + 1, ..digest.clone() },
        Digest { previous: None, ..digest.clone() },
        Digest { previous: Some(Link { from: digest.from, hash: [0; 32] }), ..digest.clone() },
    ] {
        let opened = Digest::open(&log.sign(&wrong), Some(digest.from), &log.key);
        assert!(matches!(opened, Err(DigestFault::Form { .. })), "{wrong:?}");
    }
}

/// The log has other entries than when the hour ended.
#[test]
fn a_digest_of_another_past_is_found() {
    let (good, mut log) = (Log::three_hours(), Log::three_hours());
    log.edge = Edge::default();
    log.files.retain(|resource, _| matches!(resource, Resource::Digest(_) | Resource::LatestDigest));
    for number in 0..good.edge.size() {
        let entry = format!("other {number}");
        let files = &mut log.files;
        log.edge.append(entry.as_bytes(), |resource, bytes| drop(files.insert(resource, bytes))).unwrap();
    }
    log.files.extend(log.edge.partial());
    assert!(matches!(log.verify(), Err(DigestFault::OtherLog { .. })));
    good.verify().unwrap();
}

#[test]
fn hours_are_written_in_one_way() {
    let hour = Hour::of(1_800_000_000).unwrap();
    assert_eq!(hour.to_string(), "2027-01-15T08:00:00Z");
    assert_eq!(Resource::Digest(hour).to_string(), "digest/2027/01/15/08");
    assert_eq!(Resource::parse("digest/2027/01/15/08"), Some(Resource::Digest(hour)));
    assert_eq!(Resource::parse("digest/latest"), Some(Resource::LatestDigest));
    for wrong in [
        "digest",
        "digest/",
        "digest/2027/1/15/08",
        "digest/2027/02/30/08",
        "digest/2027/01/15/24",
        "digest/2027/01/15/+8",
        "digest/2027/01/15/08/",
        "digest/1969/12/31/23",
        "digest/../../../../etc",
    ] {
        assert_eq!(Resource::parse(wrong), None, "{wrong}");
    }
    assert_eq!(Hour::of(u64::MAX), None);
    assert_eq!(Hour(END - 1).to_string(), "9999-12-31T23:00:00Z");
    assert_eq!(Hour(END - 1).next(), None);
    for wrong in ["2027-01-15T08:30:00Z", "2027-01-15T08:00:00+00:00", "2027-01-15t08:00:00Z"] {
        assert_eq!(wrong.parse::<Hour>(), Err(()), "{wrong}");
    }
}
