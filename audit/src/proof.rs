//! That an entry is in a log, and that a log only grew: in a few hashes, which need nothing else to be believed.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra eyJ2IjoxLCJhY3QiOi…            the entry
//! index 73894
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=      siblings on the way to the root (RFC 6962 §2.1.1)
//!
//! example.org/audit/3f1c0d5a           the checkpoint, signed
//! …
//! ```

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tlog_tiles::{
    Hash, Tile, TileHashReader, TileReader, check_record, check_tree, prove_record, prove_tree, record_hash,
};

use crate::TILE;
use crate::bundle::MAX_ENTRY;
use crate::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use crate::resource::Width;
use crate::source::{ReadError, Source};
use crate::verifier_key::VerifierKey;

/// A detached proof for one entry (C2SP tlog-proof). It proves nothing before [`verify`](Self::verify) has said so.
#[derive(Clone, Debug, PartialEq)]
pub struct InclusionProof {
    pub entry: Vec<u8>,
    pub index: u64,
    hashes: Vec<Hash>,
    /// With its signatures.
    checkpoint: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("it is no proof (C2SP tlog-proof)")]
    Malformed,
    #[error("it has no entry; the proof of an entry that is kept elsewhere is not such as Signet makes")]
    NoEntry,
    #[error("its checkpoint is not believed: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("the entry is not number {index} of the log that the checkpoint is of: one of them was changed")]
    NotIncluded { index: u64 },
    #[error("there is no entry {index}: the log has {size}")]
    Beyond { index: u64, size: u64 },
    #[error(
        "the log of {size} entries does not begin with the {before} that were seen before: it was replaced by another"
    )]
    NotConsistent { before: u64, size: u64 },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the tiles do not come to the root of the checkpoint: some were changed")]
    Tiles,
}

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
/// A tree has fewer levels.
const MOST_HASHES: usize = 63;

/// The proof that entry `index` is in the log of a checkpoint: `note` is the same with its signatures.
pub fn inclusion(
    source: &impl Source,
    checkpoint: &Checkpoint,
    note: &str,
    index: u64,
) -> Result<InclusionProof, ProofError> {
    let size = checkpoint.size;
    if index >= size {
        return Err(ProofError::Beyond { index, size });
    }
    let tiles = Tiles::of(source);
    let hashes = prove_record(size, index, &TileHashReader::new(size, checkpoint.root, &tiles));
    let hashes = hashes.map_err(|_| tiles.failure())?;
    let bundle = index / TILE;
    // A part is whole where the tree says so.
    let width = Width::of(size - bundle * TILE).ok_or(ProofError::Beyond { index, size })?;
    let entries = source.entries(bundle, width)?.map_err(|_| ProofError::NotIncluded { index })?;
    let entry = entries.entries().nth((index % TILE) as usize).map(<[u8]>::to_vec);
    let entry = entry.ok_or(ProofError::NotIncluded { index })?;
    check_record(&hashes, size, checkpoint.root, index, record_hash(&entry))
        .map_err(|_| ProofError::NotIncluded { index })?;
    Ok(InclusionProof { entry, index, hashes, checkpoint: note.to_owned() })
}

/// That the log of `later` begins with all that was in it when it had `before` entries and this root.
pub fn consistency(
    source: &impl Source,
    (before, root): (u64, Hash),
    later: &Checkpoint,
) -> Result<Vec<Hash>, ProofError> {
    let hashes = proof_of_growth(source, before, later)?;
    if before > 0 {
        let checked = check_tree(&hashes, later.size, later.root, before, root);
        checked.map_err(|_| ProofError::NotConsistent { before, size: later.size })?;
    }
    Ok(hashes)
}

/// The same, for somebody who knows what the root was (RFC 6962 §2.1.2).
pub fn proof_of_growth(source: &impl Source, before: u64, later: &Checkpoint) -> Result<Vec<Hash>, ProofError> {
    if before > later.size {
        return Err(ProofError::NotConsistent { before, size: later.size });
    }
    if before == 0 {
        return Ok(Vec::new());
    }
    let tiles = Tiles::of(source);
    let hashes = prove_tree(later.size, before, &TileHashReader::new(later.size, later.root, &tiles));
    hashes.map_err(|_| tiles.failure())
}

impl InclusionProof {
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        let (head, checkpoint) = text.split_once("\n\n").ok_or(ProofError::Malformed)?;
        let mut lines = head.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return Err(ProofError::Malformed);
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra ")).ok_or(ProofError::NoEntry)?;
        let entry = STANDARD.decode(extra).ok().filter(|entry| entry.len() <= MAX_ENTRY);
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or(ProofError::Malformed)?;
        let number: u64 = index.parse().map_err(|_| ProofError::Malformed)?;
        let hash = |line: &str| {
            let bytes = STANDARD.decode(line).ok()?;
            Some(Hash(bytes.try_into().ok()?))
        };
        let hashes: Option<Vec<_>> = lines.map(hash).take(MOST_HASHES + 1).collect();
        let (Some(entry), Some(hashes)) = (entry, hashes) else { return Err(ProofError::Malformed) };
        match hashes.len() <= MOST_HASHES && number.to_string() == index {
            true => Ok(Self { entry, index: number, hashes, checkpoint: checkpoint.to_owned() }),
            false => Err(ProofError::Malformed),
        }
    }

    pub fn to_text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\nextra {}\nindex {}\n", STANDARD.encode(&self.entry), self.index);
        for hash in &self.hashes {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", STANDARD.encode(hash.0));
        }
        text + "\n" + &self.checkpoint
    }

    /// With all its signatures.
    pub fn checkpoint(&self) -> &str {
        &self.checkpoint
    }

    /// That the log of `key` has the entry: what its checkpoint says.
    pub fn verify(&self, key: &VerifierKey) -> Result<SignedCheckpoint, ProofError> {
        let signed = SignedCheckpoint::open(self.checkpoint.as_bytes(), key)?;
        let Checkpoint { size, root, .. } = signed.checkpoint;
        let is_included =
            self.index < size && check_record(&self.hashes, size, root, self.index, record_hash(&self.entry)).is_ok();
        is_included.then_some(signed).ok_or(ProofError::NotIncluded { index: self.index })
    }
}

/// A source, as the proofs of `tlog_tiles` read it.
struct Tiles<'a, S> {
    source: &'a S,
    /// What its own errors have no room for.
    failed: Mutex<Option<ReadError>>,
}

impl<'a, S: Source> Tiles<'a, S> {
    fn of(source: &'a S) -> Self {
        Self { source, failed: Mutex::new(None) }
    }

    fn failure(&self) -> ProofError {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(ProofError::Tiles, ProofError::Read)
    }
}

impl<S: Source> TileReader for Tiles<'_, S> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &Tile| {
            let width = Width::of(u64::from(tile.width())).ok_or(tlog_tiles::Error::InvalidTile)?;
            let hashes = self.source.tile(tile.level(), tile.level_index(), width).map_err(|error| {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                tlog_tiles::Error::InvalidTile
            })?;
            Ok(crate::edge::bytes_of(&hashes))
        };
        tiles.iter().map(read).collect()
    }

    fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use proptest::prelude::*;

    use super::*;
    use crate::edge::Edge;
    use crate::resource::Resource;

    struct One(Edge);

    impl Source for One {
        fn read(&self, resource: Resource, _most: usize) -> std::io::Result<Option<Vec<u8>>> {
            Ok(self.0.partial().into_iter().find(|(found, _)| *found == resource).map(|(_, bytes)| bytes))
        }
    }

    /// Of the fourth of five entries.
    fn proof() -> (InclusionProof, VerifierKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let key =
            VerifierKey::new("example.org/audit".parse().unwrap(), pair.public_key().as_ref().try_into().unwrap());
        let mut log = One(Edge::default());
        for entry in [&b"one"[..], b"two", b"three", b"four", b"five"] {
            log.0.append(entry, |_, _| {}).unwrap();
        }
        let checkpoint = Checkpoint { origin: key.origin().clone(), size: log.0.size(), root: log.0.root() };
        let signing = |message: &[u8]| Ok::<_, ()>(pair.sign(message).as_ref().try_into().unwrap());
        let note = crate::sign(&checkpoint, &key, 1_800_000_000, signing).unwrap();
        (inclusion(&log, &checkpoint, &note, 3).unwrap(), key)
    }

    #[test]
    fn a_proof_is_believed_by_whoever_has_the_key() {
        let (proof, key) = proof();
        let read = InclusionProof::parse(&proof.to_text()).unwrap();
        assert_eq!(read, proof);
        assert_eq!(read.entry, b"four");
        assert_eq!(read.verify(&key).unwrap().checkpoint.size, 5);
    }

    #[test]
    fn a_proof_proves_nothing_else() {
        let (proof, key) = proof();
        let changed = |change: fn(&mut InclusionProof)| {
            let mut proof = proof.clone();
            change(&mut proof);
            proof.verify(&key)
        };
        for refused in [
            changed(|proof| proof.entry = b"five".to_vec()),
            changed(|proof| proof.index = 2),
            changed(|proof| proof.index = 5),
            changed(|proof| proof.hashes.truncate(1)),
            changed(|proof| proof.hashes.push(Hash([0; 32]))),
            changed(|proof| proof.hashes.swap(0, 1)),
        ] {
            assert!(matches!(refused, Err(ProofError::NotIncluded { .. })), "{refused:?}");
        }
        assert!(matches!(
            changed(|proof| proof.checkpoint = proof.checkpoint.replace("\n5\n", "\n6\n")),
            Err(ProofError::Checkpoint(_))
        ));
        let other = VerifierKey::new(key.origin().clone(), [9; 32]);
        assert!(matches!(proof.verify(&other), Err(ProofError::Checkpoint(CheckpointError::NotSigned { .. }))));
    }

    proptest! {
        #[test]
        fn whatever_is_changed_in_its_text_it_is_refused_or_says_the_same(at: prop::sample::Index, byte: u8) {
            let (proof, key) = proof();
            let mut text = proof.to_text().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            if let Ok(read) = InclusionProof::parse(&String::from_utf8_lossy(&text)) && read.verify(&key).is_ok() {
                prop_assert_eq!((read.entry, read.index), (proof.entry, proof.index));
            }
        }
    }
}
