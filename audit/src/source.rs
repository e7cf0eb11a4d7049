//! Where the files of a log are read from. Nothing that is read is believed before it was compared with a signed checkpoint.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use tlog_tiles::Hash;

use crate::TILE;
use crate::bundle::{Bundle, BundleError, MAX_ENTRY};
use crate::resource::{Resource, Width};
use crate::statement::MAX_STATEMENT;

/// A log's files. Several may be read at once.
pub trait Source: Sync {
    /// At most `most` bytes; longer files are an error. None where there is no such file.
    fn read(&self, resource: Resource, most: usize) -> std::io::Result<Option<Vec<u8>>>;

    /// The checkpoint, signatures and all.
    fn checkpoint(&self) -> Result<Vec<u8>, ReadError> {
        read(self, Resource::Checkpoint, MAX_CHECKPOINT).and_then(|found| found.ok_or(missing(Resource::Checkpoint)))
    }

    /// A file's bytes. Of a part that is gone, as many as it had, from the whole that took its place.
    fn file(&self, resource: Resource) -> Result<Vec<u8>, ReadError> {
        let width = match resource {
            Resource::Checkpoint => return self.checkpoint(),
            Resource::Witnessed => return read(self, resource, MAX_CHECKPOINT)?.ok_or(missing(resource)),
            Resource::Digest(_) | Resource::LatestDigest => {
                return read(self, resource, MAX_STATEMENT)?.ok_or(missing(resource));
            }
            Resource::Tile { width, .. } | Resource::Entries { width, .. } => width,
        };
        let (found, mut bytes) = or_whole(self, resource, MAX_BUNDLE)?;
        if found == resource {
            return Ok(bytes);
        }
        if let Resource::Tile { .. } = resource {
            bytes.truncate(width.count() * HASH);
            return Ok(bytes);
        }
        match Bundle::parse_all(bytes) {
            Ok(bundle) => Ok(bundle.cut(width).to_bytes()),
            Err(source) => Err(ReadError::Malformed { resource: found, source }),
        }
    }

    /// The hashes of a tile. A whole one stands in for a partial one that is gone.
    fn tile(&self, level: u8, index: u64, width: Width) -> Result<Vec<Hash>, ReadError> {
        let resource = Resource::Tile { level, index, width };
        let (found, bytes) = or_whole(self, resource, HASH * TILE as usize)?;
        let expected = HASH * if found == resource { width.count() } else { TILE as usize };
        match bytes.len() == expected {
            true => Ok(bytes.as_chunks::<HASH>().0.iter().take(width.count()).map(|hash| Hash(*hash)).collect()),
            false => Err(ReadError::Length { resource: found, found: bytes.len(), expected }),
        }
    }

    /// The entries of a bundle, which may be malformed.
    fn entries(&self, index: u64, width: Width) -> Result<Result<Bundle, BundleError>, ReadError> {
        let resource = Resource::Entries { index, width };
        let (found, bytes) = or_whole(self, resource, MAX_BUNDLE)?;
        Ok(match found == resource {
            true => Bundle::parse(bytes, width),
            false => Bundle::parse(bytes, Width::Whole).map(|bundle| bundle.cut(width)),
        })
    }
}

/// Why a file of a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{resource} is missing")]
    Missing { resource: Resource },
    #[error("{resource} has {found} bytes, not {expected}")]
    Length { resource: Resource, found: usize, expected: usize },
    #[error("{resource} is malformed")]
    Malformed { resource: Resource, source: BundleError },
    #[error("{resource} cannot be read")]
    Io { resource: Resource, source: std::io::Error },
}

/// A log in a folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

/// A log of this size, as those see it who have an older checkpoint: a part of a tile that is gone, or was never copied, is the beginning
/// of a longer one.
#[derive(Clone, Copy, Debug)]
pub struct OfSize<'a, S> {
    pub source: &'a S,
    /// Entries.
    pub size: u64,
}

const HASH: usize = 32;
/// In bytes, with all signatures.
pub const MAX_CHECKPOINT: usize = 64 << 10;
const MAX_BUNDLE: usize = TILE as usize * (2 + MAX_ENTRY);

impl Folder {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a file there, whole or not at all. Whether it stays after a power cut, the caller sees to.
    pub fn write(&self, resource: Resource, bytes: &[u8]) -> std::io::Result<()> {
        let path = self.path.join(resource.to_string());
        let next = beside(&path, ".new");
        let open = || OpenOptions::new().write(true).create(true).truncate(true).open(&next);
        let mut file = match (open(), path.parent()) {
            (Err(error), Some(folder)) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(folder)?;
                open()?
            }
            (opened, _) => opened?,
        };
        file.write_all(bytes)?;
        drop(file);
        std::fs::rename(&next, &path)?;
        if let Resource::Tile { width: Width::Whole, .. } | Resource::Entries { width: Width::Whole, .. } = resource {
            // The whole stands in for its parts. What is left of them does no harm.
            let _ = std::fs::remove_dir_all(beside(&path, ".p"));
        }
        Ok(())
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(suffix);
    path.into()
}

impl Source for Folder {
    fn read(&self, resource: Resource, most: usize) -> std::io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path.join(resource.to_string())) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            opened => opened?,
        };
        let mut bytes = Vec::new();
        file.take(most as u64 + 1).read_to_end(&mut bytes)?;
        match bytes.len() > most {
            true => Err(std::io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {most} bytes"))),
            false => Ok(Some(bytes)),
        }
    }
}

impl<S: Source> Source for OfSize<'_, S> {
    fn read(&self, resource: Resource, most: usize) -> std::io::Result<Option<Vec<u8>>> {
        let found = self.source.read(resource, most)?;
        if found.is_some() {
            return Ok(found);
        }
        let longer =
            |level: u8, index: u64| Width::of((self.size >> (8 * u32::from(level))).saturating_sub(index * TILE));
        match resource {
            Resource::Tile { level, index, width: Width::Partial(width) } => {
                let Some(longer) = longer(level, index) else { return Ok(None) };
                let found = self.source.read(Resource::Tile { level, index, width: longer }, HASH * TILE as usize)?;
                Ok(found.map(|mut bytes| {
                    bytes.truncate(usize::from(width.get()) * HASH);
                    bytes
                }))
            }
            Resource::Entries { index, width: width @ Width::Partial(_) } => {
                let Some(longer) = longer(0, index) else { return Ok(None) };
                let found = self.source.read(Resource::Entries { index, width: longer }, MAX_BUNDLE)?;
                Ok(found.and_then(|bytes| Bundle::parse_all(bytes).ok()).map(|bundle| bundle.cut(width).to_bytes()))
            }
            _ => Ok(None),
        }
    }
}

fn or_whole<S: Source + ?Sized>(source: &S, resource: Resource, most: usize) -> Result<(Resource, Vec<u8>), ReadError> {
    if let Some(bytes) = read(source, resource, most)? {
        return Ok((resource, bytes));
    }
    let whole = resource.whole();
    match (whole != resource).then(|| read(source, whole, most)).transpose()?.flatten() {
        Some(bytes) => Ok((whole, bytes)),
        None => Err(missing(resource)),
    }
}

fn read<S: Source + ?Sized>(source: &S, resource: Resource, most: usize) -> Result<Option<Vec<u8>>, ReadError> {
    source.read(resource, most).map_err(|source| ReadError::Io { resource, source })
}

fn missing(resource: Resource) -> ReadError {
    ReadError::Missing { resource }
}
