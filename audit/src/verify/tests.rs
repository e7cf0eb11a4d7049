#![allow(clippy::unwrap_used, clippy::panic)]
use std::collections::BTreeMap;

use proptest::prelude::*;
use tlog_tiles::record_hash;

use super::*;
use crate::OfSize;
use crate::edge::Edge;
use crate::proof::{ProofError, consistency, inclusion};

/// A log in memory.
#[derive(Clone, Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Source for Files {
    fn read(&self, resource: Resource, most: usize) -> std::io::Result<Option<Vec<u8>>> {
        let found = self.0.get(&resource.to_string()).cloned();
        Ok(found.inspect(|bytes| assert!(bytes.len() <= most)))
    }
}

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

/// As it is published at this size.
fn log(size: u64) -> (Files, Checkpoint) {
    let (mut files, mut edge) = (Files::default(), Edge::default());
    grow(&mut files, &mut edge, size);
    let checkpoint = publish(&mut files, &edge);
    (files, checkpoint)
}

fn grow(files: &mut Files, edge: &mut Edge, size: u64) {
    while edge.size() < size {
        let entry = entry(edge.size());
        edge.append(&entry, |resource, bytes| drop(files.0.insert(resource.to_string(), bytes))).unwrap();
    }
}

fn publish(files: &mut Files, edge: &Edge) -> Checkpoint {
    for (resource, bytes) in edge.partial() {
        files.0.insert(resource.to_string(), bytes);
    }
    Checkpoint { origin: "example.org/audit".parse().unwrap(), size: edge.size(), root: edge.root() }
}

fn faults(files: &Files, checkpoint: &Checkpoint) -> Vec<String> {
    match verify(files, checkpoint, 0, 2, &()) {
        Ok(verified) => {
            assert_eq!(verified.entries, checkpoint.size);
            Vec::new()
        }
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
    }
}

/// Straight from RFC 6962 §2.1.
fn root_by_the_book(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => tlog_tiles::EMPTY_HASH,
        [leaf] => *leaf,
        leaves => {
            let left = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(left);
            tlog_tiles::node_hash(root_by_the_book(left), root_by_the_book(right))
        }
    }
}

#[test]
fn a_log_of_any_size_has_the_root_of_the_book_and_is_verified() {
    for size in [0, 1, 2, 3, 255, 256, 257, 511, 512, 1000, 65_535, 65_536, 65_537, 66_000] {
        let (files, checkpoint) = log(size);
        let leaves: Vec<Hash> = (0..size).map(|index| record_hash(&entry(index))).collect();
        assert_eq!(checkpoint.root, root_by_the_book(&leaves), "{size}");
        assert_eq!(faults(&files, &checkpoint), [""; 0], "{size}");
    }
}

#[test]
fn entries_are_read_in_their_order_and_none_behind_what_is_wrong() {
    let (mut files, checkpoint) = log(3000);
    for threads in [0, 1, 2, 7] {
        let mut read = Vec::new();
        let told = read_in_order(&files, &checkpoint, threads, |first, entries| {
            assert_eq!(first, read.len() as u64);
            read.extend(entries.map(<[u8]>::to_vec));
            Ok::<_, ()>(())
        });
        assert!(told.is_ok() && read.iter().cloned().eq((0..3000).map(entry)), "{threads}");
        for from in [1, 255, 256, 700, 2999, 3000] {
            let mut read = Vec::new();
            let told = read_in_order_from(&files, &checkpoint, from, threads, |first, entries| {
                assert_eq!(first, from + read.len() as u64);
                read.extend(entries.map(<[u8]>::to_vec));
                Ok::<_, ()>(())
            });
            assert!(told.is_ok() && read.iter().cloned().eq((from..3000).map(entry)), "{from}, {threads}");
        }
        let mut shown = 0;
        let ended = read_in_order(&files, &checkpoint, threads, |first, _| {
            shown += 1;
            if first == 256 { Err("enough") } else { Ok(()) }
        });
        assert!(matches!(ended, Err(Unread::Told("enough"))) && shown == 2);
    }
    *files.0.get_mut("tile/entries/004").unwrap().last_mut().unwrap() ^= 1;
    for threads in [1, 2, 7] {
        let mut last = 0;
        let told = read_in_order(&files, &checkpoint, threads, |first, _| {
            last = first;
            Ok::<_, ()>(())
        });
        let Err(Unread::Faults(faults)) = told else { panic!("{told:?}") };
        assert!(matches!(faults[..], [Fault::Entry { index: 1279, .. }]), "{faults:?}");
        assert_eq!(last, 768);
    }
}

#[test]
fn a_log_is_verified_as_it_was_by_the_files_that_it_has_later() {
    for (before, after) in [(1, 2), (3, 256), (255, 700), (256, 257), (300, 301), (300, 66_000), (65_537, 66_000)] {
        let (mut files, mut edge) = (Files::default(), Edge::default());
        grow(&mut files, &mut edge, before);
        let earlier = publish(&mut Files::default(), &edge);
        grow(&mut files, &mut edge, after);
        let later = publish(&mut files, &edge);
        assert!(
            verify(&OfSize { source: &files, size: later.size }, &earlier, 0, 2, &()).is_ok(),
            "{before} of {after}"
        );
        let mut read = 0;
        let all = read_in_order(&OfSize { source: &files, size: later.size }, &earlier, 2, |_, entries| {
            read += entries.count() as u64;
            Ok::<_, ()>(())
        });
        assert!(all.is_ok() && read == before);
        let other = Checkpoint { size: before + 1, ..earlier };
        assert!(
            verify(&OfSize { source: &files, size: later.size }, &other, 0, 2, &()).is_err(),
            "{before} of {after}"
        );
    }
}

#[test]
fn whatever_is_changed_is_told_by_its_name() {
    let (files, checkpoint) = log(66_000);
    let changed = |resource: &str, change: fn(&mut Vec<u8>)| {
        let mut files = files.clone();
        change(files.0.get_mut(resource).unwrap());
        faults(&files, &checkpoint)
    };
    let flip: fn(&mut Vec<u8>) = |bytes| *bytes.last_mut().unwrap() ^= 1;
    for (resource, told) in [
        ("tile/entries/001", "entry 511 was changed: number 255 in tile/entries/001 is not what was logged"),
        (
            "tile/entries/257.p/208",
            "entry 65999 was changed: number 207 in tile/entries/257.p/208 is not what was logged",
        ),
        ("tile/0/001", "tile/0/001 was changed: its hashes do not come to the one that the tile above it has"),
        ("tile/1/000", "tile/1/000 was changed: its hashes do not come to the one that the tile above it has"),
        ("tile/0/257.p/208", "tile/0/257.p/208 was changed: hash 207 is not that of tile/entries/257.p/208"),
        ("tile/1/001.p/1", "tile/1/001.p/1 was changed: hash 0 is not that of tile/0/256"),
        ("tile/2/000.p/1", "tile/2/000.p/1 was changed: hash 0 is not that of tile/1/000"),
    ] {
        assert_eq!(changed(resource, flip), [told], "{resource}");
    }
    let cut: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() - 1);
    assert_eq!(changed("tile/entries/001", cut), ["tile/entries/001 was changed: it ends within entry 255"]);
    assert_eq!(changed("tile/0/001", cut), ["tile/0/001 has 8191 bytes, not 8192"]);
    let longer: fn(&mut Vec<u8>) = |bytes| bytes.extend([0, 1, 7]);
    assert_eq!(changed("tile/entries/001", longer), ["tile/entries/001 was changed: it has 257 entries, not 256"]);
}

#[test]
fn what_is_missing_is_told_by_its_name() {
    let (files, checkpoint) = log(66_000);
    // Each kind of file is among them.
    for resource in
        files.0.keys().filter(|name| name.contains('p') || name.ends_with('7') || name.starts_with("tile/1"))
    {
        let mut files = files.clone();
        files.0.remove(resource);
        assert!(faults(&files, &checkpoint).contains(&format!("{resource} is missing")), "{resource}");
    }
}

#[test]
fn entries_that_are_swapped_repeated_or_left_out_are_found() {
    let (files, checkpoint) = log(600);
    let replaced = |entries: Vec<u64>| {
        let mut bytes = Vec::new();
        entries.iter().for_each(|index| crate::push_entry(&mut bytes, &entry(*index)).unwrap());
        let mut files = files.clone();
        files.0.insert("tile/entries/000".to_owned(), bytes);
        faults(&files, &checkpoint)
    };
    assert_eq!(replaced((0..256).collect()), [""; 0]);
    let swapped = (0..256).map(|index| if index < 2 { 1 - index } else { index }).collect();
    assert_eq!(replaced(swapped), ["entry 0 was changed: number 0 in tile/entries/000 is not what was logged"]);
    let repeated = (0..256).map(|index| if index == 8 { 7 } else { index }).collect();
    assert_eq!(replaced(repeated), ["entry 8 was changed: number 8 in tile/entries/000 is not what was logged"]);
    let left_out = (0..=256).filter(|index| *index != 100).collect();
    assert_eq!(replaced(left_out), ["entry 100 was changed: number 100 in tile/entries/000 is not what was logged"]);
    let fewer = (0..255).collect();
    assert_eq!(replaced(fewer), ["tile/entries/000 was changed: it has 255 entries, not 256"]);
}

#[test]
fn what_is_new_since_a_smaller_log_is_what_that_one_lacks() {
    let names = |from, size| crate::resources(from, size).map(|resource| resource.to_string());
    for (from, size) in [(0, 0), (0, 1), (0, 66_000), (1, 256), (300, 300), (300, 301), (65_535, 65_536), (511, 66_000)]
    {
        let ((mut files, _), (all, checkpoint)) = (log(from), log(size));
        names(from, size).for_each(|name| {
            let bytes = all.0[&name].clone();
            files.0.insert(name, bytes);
        });
        assert_eq!(faults(&files, &checkpoint), [""; 0], "{from} {size}");
        let all: Vec<String> = all.0.into_keys().collect();
        assert!(names(0, size).all(|name| all.contains(&name)) && names(0, size).count() == all.len(), "{size}");
    }
    assert_eq!(names(300, 300).count(), 0);
}

#[test]
fn another_tree_of_the_same_size_is_told_of_as_such() {
    let (files, checkpoint) = log(600);
    let mut edge = Edge::default();
    for index in 0..600 {
        edge.append(&entry(index + 1), |_, _| {}).unwrap();
    }
    let forked = Checkpoint { root: edge.root(), ..checkpoint };
    assert!(matches!(verify(&files, &forked, 0, 1, &()).unwrap_err()[..], [Fault::Root { .. }]));
}

#[test]
fn a_whole_tile_stands_in_for_the_part_of_it_that_a_smaller_checkpoint_had() {
    let (mut files, mut edge) = (Files::default(), Edge::default());
    grow(&mut files, &mut edge, 300);
    let before = publish(&mut files, &edge);
    grow(&mut files, &mut edge, 600);
    let after = publish(&mut files, &edge);
    files.0.retain(|resource, _| !resource.contains("001.p/"));
    assert_eq!(faults(&files, &before), [""; 0]);
    assert_eq!(faults(&files, &after), [""; 0]);
}

#[test]
fn verification_goes_on_where_it_ended_and_reads_nothing_twice() {
    struct Seen(Mutex<Vec<u64>>);
    impl Progress for Seen {
        fn entries(&self, index: u64, entries: &mut dyn Iterator<Item = &[u8]>) {
            let mut seen = self.0.lock().unwrap();
            entries.enumerate().for_each(|(number, found)| {
                assert_eq!(found, entry(index + number as u64));
                seen.push(index + number as u64);
            });
        }
    }
    let (files, checkpoint) = log(70_000);
    let seen = Seen(Mutex::default());
    verify(&files, &checkpoint, 66_000, 2, &seen).unwrap();
    let mut seen = seen.0.into_inner().unwrap();
    seen.sort_unstable();
    // From the first bundle that was not whole then.
    assert!(seen.iter().copied().eq(65_792..70_000));
}

#[test]
fn a_log_that_was_replaced_is_not_taken_for_one_that_grew() {
    let (mut files, mut edge) = (Files::default(), Edge::default());
    grow(&mut files, &mut edge, 300);
    let before = publish(&mut files, &edge);
    grow(&mut files, &mut edge, 700);
    let after = publish(&mut files, &edge);
    consistency(&files, (before.size, before.root), &after).unwrap();
    consistency(&files, (0, before.root), &after).unwrap();
    consistency(&files, (after.size, after.root), &after).unwrap();
    for wrong in [(300, after.root), (299, before.root), (301, before.root), (701, after.root), (700, before.root)] {
        let refused = consistency(&files, wrong, &after);
        assert!(matches!(refused, Err(ProofError::NotConsistent { .. })), "{wrong:?}");
    }
    files.0.remove("tile/0/001");
    let unread = consistency(&files, (before.size, before.root), &after);
    assert!(matches!(unread, Err(ProofError::Read(ReadError::Missing { .. }))), "{unread:?}");
}

#[test]
fn no_entry_beyond_the_end_is_proved() {
    let (files, checkpoint) = log(300);
    assert!(matches!(inclusion(&files, &checkpoint, "", 300), Err(ProofError::Beyond { index: 300, size: 300 })));
    let (empty, nothing) = log(0);
    assert!(matches!(inclusion(&empty, &nothing, "", 0), Err(ProofError::Beyond { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_byte_that_is_changed_is_found(size in 1_u64..1500, file: prop::sample::Index, at: prop::sample::Index, bit in 0_u8..8) {
        let (mut files, checkpoint) = log(size);
        let resource = file.get(&files.0.keys().cloned().collect::<Vec<_>>()).clone();
        let bytes = files.0.get_mut(&resource).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(!faults(&files, &checkpoint).is_empty(), "{} {}", resource, at);
    }

    #[test]
    fn an_edge_that_is_read_back_goes_on_as_if_nothing_had_been(size in 0_u64..1500, more in 0_u64..600) {
        let (mut files, mut edge) = (Files::default(), Edge::default());
        grow(&mut files, &mut edge, size);
        publish(&mut files, &edge);
        let mut restored = Edge::restore(&files, size).unwrap();
        prop_assert_eq!(restored.root(), edge.root());
        grow(&mut files, &mut edge, size + more);
        grow(&mut files, &mut restored, size + more);
        prop_assert_eq!(edge, restored);
    }

    #[test]
    fn each_entry_is_proved(size in 1_u64..1500, index: prop::sample::Index) {
        let (files, checkpoint) = log(size);
        let index = index.index(size as usize) as u64;
        let proof = inclusion(&files, &checkpoint, "", index).unwrap();
        prop_assert_eq!(proof.entry, entry(index));
    }
}
