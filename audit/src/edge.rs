//! The right edge of a growing tree: what has to be known of a log to append to it.
//!
//! ```text
//! level 2   ▪                              each level: the hashes of its last tile, while that is not whole
//! level 1   ▪▪▪
//! level 0   ▪▪▪▪▪▪▪   and their entries
//! ```

use tlog_tiles::{Hash, Tile, node_hash, record_hash};

use crate::bundle::{BundleError, MAX_ENTRY, push_entry};
use crate::resource::{MAX_LEVEL, Resource, Width};
use crate::source::{ReadError, Source};
use crate::{MOST_ENTRIES, TILE};

/// The last tiles of a tree, and its last entries: some hundred KiB, whatever its size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edge {
    size: u64,
    /// By level, fewer than 256 each. The highest may be empty.
    levels: Vec<Vec<Hash>>,
    /// The last entries, as a bundle has them.
    entries: Vec<u8>,
}

/// Why a log cannot be appended to.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{resource} cannot be read as such")]
    Bundle { resource: Resource, source: BundleError },
    #[error("{resource} does not have the entries that the tree has there")]
    Entries { resource: Resource },
}

/// Why an entry is not appended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AppendError {
    #[error("an entry has {length} bytes; {MAX_ENTRY} are the most")]
    TooLong { length: usize },
    #[error("a log has no more than {MOST_ENTRIES} entries")]
    Full,
}

impl Edge {
    /// That of the tree of this size, from its files. Whether its root is the right one, a checkpoint says.
    pub fn restore(source: &impl Source, size: u64) -> Result<Self, RestoreError> {
        let mut edge = Self { size, ..Self::default() };
        for (level, tile) in edge_tiles(size) {
            edge.levels.resize(usize::from(level) + 1, Vec::new());
            if let Some((index, width)) = tile {
                edge.levels[usize::from(level)] = source.tile(level, index, width)?;
            }
        }
        if let Some((0, Some((index, width)))) = edge_tiles(size).next() {
            let resource = Resource::Entries { index, width };
            let bundle = source.entries(index, width)?;
            let bundle = bundle.map_err(|source| RestoreError::Bundle { resource, source })?;
            if !bundle.entries().map(record_hash).eq(edge.levels[0].iter().copied()) {
                return Err(RestoreError::Entries { resource });
            }
            for entry in bundle.entries() {
                // They come from a bundle.
                let _ = push_entry(&mut edge.entries, entry);
            }
        }
        Ok(edge)
    }

    /// How many entries the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// RFC 6962 §2.1.
    pub fn root(&self) -> Hash {
        root(&self.levels)
    }

    /// Appends an entry. What becomes whole by it is given to `whole`: never to be changed again.
    pub fn append(&mut self, entry: &[u8], mut whole: impl FnMut(Resource, Vec<u8>)) -> Result<(), AppendError> {
        if self.size >= MOST_ENTRIES {
            return Err(AppendError::Full);
        }
        push_entry(&mut self.entries, entry).ok_or(AppendError::TooLong { length: entry.len() })?;
        self.size += 1;
        let mut hash = record_hash(entry);
        for level in 0_u8.. {
            let place = usize::from(level);
            if self.levels.len() <= place {
                self.levels.push(Vec::new());
            }
            self.levels[place].push(hash);
            if self.levels[place].len() < TILE as usize {
                break;
            }
            let tile = bytes_of(&std::mem::take(&mut self.levels[place]));
            hash = Tile::subtree_hash(&tile);
            let index = (self.size >> (8 * (u32::from(level) + 1))) - 1;
            if level == 0 {
                whole(Resource::Entries { index, width: Width::Whole }, std::mem::take(&mut self.entries));
            }
            whole(Resource::Tile { level, index, width: Width::Whole }, tile);
        }
        Ok(())
    }

    /// What a checkpoint of this size needs beside whole tiles.
    pub fn partial(&self) -> Vec<(Resource, Vec<u8>)> {
        let mut files = Vec::new();
        for (level, tile) in edge_tiles(self.size) {
            let Some((index, width)) = tile else { continue };
            if level == 0 {
                files.push((Resource::Entries { index, width }, self.entries.clone()));
            }
            files.push((Resource::Tile { level, index, width }, bytes_of(&self.levels[usize::from(level)])));
        }
        files
    }
}

/// The last tile of each level of a tree, from the lowest, where it is not whole.
pub(crate) fn edge_tiles(size: u64) -> impl Iterator<Item = (u8, Option<(u64, Width)>)> {
    (0..=MAX_LEVEL).map_while(move |level| {
        let hashes = size >> (8 * u32::from(level));
        (hashes > 0).then(|| (level, Width::of(hashes % TILE).map(|width| (hashes / TILE, width))))
    })
}

/// The files that a log of `size` entries has and one of `from` entries has not, but for the checkpoint: entries before the tiles over them.
pub fn resources(from: u64, size: u64) -> impl Iterator<Item = Resource> {
    edge_tiles(size).flat_map(move |(level, partial)| {
        let whole = |size: u64| size >> (8 * (u32::from(level) + 1));
        let whole = (whole(from)..whole(size)).map(|index| (index, Width::Whole));
        // The same part is there already.
        let partial = partial.filter(|_| size >> (8 * u32::from(level)) > from >> (8 * u32::from(level)));
        whole.chain(partial).flat_map(move |(index, width)| {
            let entries = (level == 0).then_some(Resource::Entries { index, width });
            entries.into_iter().chain([Resource::Tile { level, index, width }])
        })
    })
}

/// Each level has whole subtrees of powers of two, the largest first; they are put together from the right.
pub(crate) fn root(levels: &[Vec<Hash>]) -> Hash {
    let mut right = None;
    for level in levels {
        let mut end = level.len();
        while end > 0 {
            let start = end & (end - 1);
            let left = Tile::subtree_hash(&bytes_of(&level[start..end]));
            right = Some(right.map_or(left, |right| node_hash(left, right)));
            end = start;
        }
    }
    right.unwrap_or(tlog_tiles::EMPTY_HASH)
}

pub(crate) fn bytes_of(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}
