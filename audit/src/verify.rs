//! Whether the files of a log are those of the tree that its checkpoint names: each hash, each entry.
//!
//! ```text
//! root ─► tiles on the edge ─► the tiles below them ─► … ─► entries
//! ```
//! From the root down, so that what is wrong is told by name. Memory does not grow with the log: each thread holds one tile of each level.

mod in_order;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tlog_tiles::{Hash, Tile, record_hash};

use crate::TILE;
use crate::bundle::{Bundle, BundleError};
use crate::checkpoint::Checkpoint;
use crate::edge::{bytes_of, edge_tiles, root};
use crate::resource::{Resource, Width};
use crate::source::{ReadError, Source};

pub use in_order::{Unread, read_in_order, read_in_order_from};

/// What was found wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{resource} was changed: its hashes do not come to the one that the tile above it has")]
    Tile { resource: Resource },
    #[error("{resource} was changed: {cause}")]
    Bundle { resource: Resource, cause: BundleError },
    #[error("entry {index} was changed: number {number} in {resource} is not what was logged")]
    Entry { index: u64, number: usize, resource: Resource },
    #[error("{resource} was changed: hash {number} is not that of {below}")]
    Edge { resource: Resource, number: usize, below: Resource },
    #[error(
        "the files are of another tree than the checkpoint: they come to the root {found}, and it says {expected}; one of both was replaced"
    )]
    Root { found: Hash, expected: Hash },
}

/// What was verified.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verified {
    /// Of these entries each one was read.
    pub entries: u64,
}

/// Is told how far a verification is. Called by several threads.
pub trait Progress: Sync {
    /// `index` is that of the first.
    fn entries(&self, index: u64, entries: &mut dyn Iterator<Item = &[u8]>);
}

/// Nobody looks.
impl Progress for () {
    fn entries(&self, _index: u64, _entries: &mut dyn Iterator<Item = &[u8]>) {}
}

/// The most faults that are told: whoever has so many has lost the log.
const MOST_FAULTS: usize = 100;

/// Verifies all entries from `from` on, and all tiles that lead to them, against a checkpoint that is believed. Whoever verified up to
/// `from` before has to see that this checkpoint follows that one. Faults come in the order of the log; where none is found, all is well.
pub fn verify(
    source: &impl Source,
    checkpoint: &Checkpoint,
    from: u64,
    threads: usize,
    progress: &impl Progress,
) -> Result<Verified, Vec<Fault>> {
    let edge = read_edge(source, checkpoint)?;
    let walk =
        Walk { source, edge: &edge, size: checkpoint.size, faults: Mutex::default(), enough: AtomicBool::new(false) };
    // What a thread takes at a time: the tiles and entries below one tile of level 1.
    let parts = from / PART..checkpoint.size.div_ceil(PART);
    let next = AtomicU64::new(parts.start);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut path = Vec::new();
                while !walk.enough.load(Ordering::Relaxed) {
                    let part = next.fetch_add(1, Ordering::Relaxed);
                    if part >= parts.end {
                        break;
                    }
                    let bundles = (part * TILE).max(from / TILE)..(part + 1) * TILE;
                    walk.verify_bundles(bundles, &mut path, progress);
                }
            });
        }
    });
    let faults = walk.into_faults();
    match faults.is_empty() {
        true => Ok(Verified { entries: checkpoint.size - from.min(checkpoint.size) }),
        false => Err(faults),
    }
}

/// Entries.
const PART: u64 = TILE * TILE;

/// The hashes on the edge, by level, that come to the root.
fn read_edge(source: &impl Source, checkpoint: &Checkpoint) -> Result<Vec<Vec<Hash>>, Vec<Fault>> {
    let mut levels = Vec::new();
    let mut faults = Vec::new();
    for (level, tile) in edge_tiles(checkpoint.size) {
        let read = tile.map(|(index, width)| source.tile(level, index, width));
        levels.push(read.transpose().unwrap_or_else(|error| {
            faults.push(error.into());
            None
        }));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let levels: Vec<Vec<Hash>> = levels.into_iter().map(Option::unwrap_or_default).collect();
    let found = root(&levels);
    if found == checkpoint.root {
        return Ok(levels);
    }
    // One of them, or the checkpoint: each is compared with what is below it.
    Err(vec![
        wrong_on_the_edge(source, checkpoint.size, &levels).unwrap_or(Fault::Root { found, expected: checkpoint.root }),
    ])
}

/// The first hash on the edge that what is below it does not come to.
fn wrong_on_the_edge(source: &impl Source, size: u64, levels: &[Vec<Hash>]) -> Option<Fault> {
    for (level, tile) in edge_tiles(size) {
        let Some((index, width)) = tile else { continue };
        let resource = Resource::Tile { level, index, width };
        let hashes = &levels[usize::from(level)];
        if level == 0 {
            let below = Resource::Entries { index, width };
            let bundle = match source.entries(index, width) {
                Ok(Ok(bundle)) => bundle,
                Ok(Err(cause)) => return Some(Fault::Bundle { resource: below, cause }),
                Err(error) => return Some(error.into()),
            };
            let mut pairs = bundle.entries().map(record_hash).zip(hashes).enumerate();
            if let Some((number, _)) = pairs.find(|(_, (found, expected))| found != *expected) {
                return Some(Fault::Edge { resource, number, below });
            }
            continue;
        }
        for (number, expected) in hashes.iter().enumerate() {
            let (level, index) = (level - 1, index * TILE + number as u64);
            let below = Resource::Tile { level, index, width: Width::Whole };
            match source.tile(level, index, Width::Whole) {
                Ok(tile) if Tile::subtree_hash(&bytes_of(&tile)) == *expected => {}
                Ok(_) => return Some(Fault::Edge { resource, number, below }),
                Err(error) => return Some(error.into()),
            }
        }
    }
    None
}

struct Walk<'a, S> {
    source: &'a S,
    edge: &'a [Vec<Hash>],
    size: u64,
    /// With the bundle at which it was found.
    faults: Mutex<Vec<(u64, Fault)>>,
    enough: AtomicBool,
}

/// A whole tile that is known to be what was logged, of each level from the lowest; None where none is at hand.
type TilesAbove = Vec<Option<(u64, Vec<Hash>)>>;

impl<S: Source> Walk<'_, S> {
    fn verify_bundles(&self, bundles: Range<u64>, path: &mut TilesAbove, progress: &impl Progress) {
        for bundle in bundles {
            let left = self.size.saturating_sub(bundle * TILE);
            let Some(width) = Width::of(left) else { return };
            if self.enough.load(Ordering::Relaxed) {
                return;
            }
            match self.verify_bundle(bundle, width, path) {
                Ok(verified) => progress.entries(bundle * TILE, &mut verified.entries()),
                Err(fault) => self.tell(bundle, fault),
            }
        }
    }

    fn verify_bundle(&self, index: u64, width: Width, path: &mut TilesAbove) -> Result<Bundle, Fault> {
        let resource = Resource::Entries { index, width };
        let bundle = self.source.entries(index, width)?;
        let bundle = bundle.map_err(|cause| Fault::Bundle { resource, cause })?;
        let found: Vec<Hash> = bundle.entries().map(record_hash).collect();
        match width {
            // It is on the edge.
            Width::Partial(_) => compare(&found, &self.edge[0], resource, index)?,
            Width::Whole => {
                let expected = self.hash_of(1, index, path)?;
                let tile = self.source.tile(0, index, Width::Whole);
                if Tile::subtree_hash(&bytes_of(&found)) != expected {
                    let tile = tile?;
                    if Tile::subtree_hash(&bytes_of(&tile)) != expected {
                        self.tell(index, Fault::Tile { resource: Resource::Tile { level: 0, index, width } });
                        return Err(Fault::Bundle { resource, cause: BundleError::Content });
                    }
                    compare(&found, &tile, resource, index)?;
                } else if tile? != found {
                    // The entries are all right.
                    return Err(Fault::Tile { resource: Resource::Tile { level: 0, index, width } });
                }
            }
        }
        Ok(bundle)
    }

    /// The hash with this number at a level: of a whole tile below it.
    fn hash_of(&self, level: u8, number: u64, path: &mut TilesAbove) -> Result<Hash, Fault> {
        let (index, place) = (number / TILE, (number % TILE) as usize);
        let hashes = self.size >> (8 * u32::from(level));
        if index == hashes / TILE {
            return Ok(self.edge[usize::from(level)][place]);
        }
        let slot = usize::from(level);
        if path.len() <= slot {
            path.resize(slot + 1, None);
        }
        if let Some((at_hand, tile)) = &path[slot]
            && *at_hand == index
        {
            return Ok(tile[place]);
        }
        let expected = self.hash_of(level + 1, index, path)?;
        let tile = self.source.tile(level, index, Width::Whole)?;
        if Tile::subtree_hash(&bytes_of(&tile)) != expected {
            return Err(Fault::Tile { resource: Resource::Tile { level, index, width: Width::Whole } });
        }
        let hash = tile[place];
        path[slot] = Some((index, tile));
        Ok(hash)
    }

    /// In the order of the log.
    fn into_faults(self) -> Vec<Fault> {
        let mut faults = self.faults.into_inner().unwrap_or_else(PoisonError::into_inner);
        faults.sort_by_key(|(bundle, _)| *bundle);
        faults.into_iter().map(|(_, fault)| fault).collect()
    }

    fn tell(&self, bundle: u64, fault: Fault) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        // A tile above many bundles is told of once.
        if let (Fault::Tile { resource }, true) = (&fault, faults.len() < MOST_FAULTS) {
            let is_known = |known: &Fault| matches!(known, Fault::Tile { resource: known } if known == resource);
            if faults.iter().any(|(_, known)| is_known(known)) {
                return;
            }
        }
        faults.push((bundle, fault));
        self.enough.store(faults.len() >= MOST_FAULTS, Ordering::Relaxed);
    }
}

fn compare(found: &[Hash], expected: &[Hash], resource: Resource, bundle: u64) -> Result<(), Fault> {
    match found.iter().zip(expected).position(|(found, expected)| found != expected) {
        None => Ok(()),
        Some(number) => Err(Fault::Entry { index: bundle * TILE + number as u64, number, resource }),
    }
}

#[cfg(test)]
mod tests;
