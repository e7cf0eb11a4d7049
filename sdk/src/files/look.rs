//! Looking at three files that somebody else may be writing. What comes back was all there at one time: the files were
//! the same ones, unchanged, before the first was read and after the last.

use std::{
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::FilePaths;

/// More than any chain, key or bundle needs.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// How often reading is begun again because something changed meanwhile, before it is left for the next look.
const MAX_READS: usize = 4;

/// What was read, of one time.
pub(super) struct Files {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) bundle: Vec<u8>,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{} cannot be read", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is larger than 1 MiB", path.display())]
    TooLarge { path: PathBuf },
}

/// Whether to read what did not change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ReadWhen {
    Changed,
    Always,
}

pub(super) struct Look {
    paths: FilePaths,
    seen: Option<[Stamp; 3]>,
    /// A change was read, once. It is read again at the next look: a file's time stamp has a granularity, so that a write
    /// right after the reading may not show in it.
    settled: bool,
}

impl Look {
    pub(super) fn new(paths: FilePaths) -> Self {
        Self { paths, seen: None, settled: false }
    }

    /// The files, if they may have changed since the last look. Blocks.
    pub(super) fn look(&mut self, read: ReadWhen) -> Option<Result<Files, ReadError>> {
        let mut before = self.stamps();
        let changed = self.seen != Some(before);
        if !changed && self.settled && read == ReadWhen::Changed {
            return None;
        }
        for _ in 0..MAX_READS {
            let files = self.read();
            let after = self.stamps();
            if before == after {
                self.settled = !changed;
                self.seen = Some(after);
                return Some(files);
            }
            before = after;
        }
        self.seen = None;
        None
    }

    fn read(&self) -> Result<Files, ReadError> {
        Ok(Files {
            certificate: read(&self.paths.certificate)?.to_vec(),
            key: read(&self.paths.key)?,
            bundle: read(&self.paths.bundle)?.to_vec(),
        })
    }

    fn stamps(&self) -> [Stamp; 3] {
        [&self.paths.certificate, &self.paths.key, &self.paths.bundle].map(|path| Stamp::of(path))
    }
}

impl Files {
    /// One digest over all three, each with its length: no two states share it.
    pub(super) fn sha256(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        for part in [&self.certificate[..], &self.key, &self.bundle] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(context.finish().as_ref());
        sha256
    }
}

/// What tells one state of a file from another without reading it. Symlinks are followed, so that a swapped one shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stamp {
    Absent(io::ErrorKind),
    File { device: u64, inode: u64, bytes: u64, modified: (i64, i64), changed: (i64, i64) },
}

impl Stamp {
    fn of(path: &Path) -> Self {
        std::fs::metadata(path).map_or_else(|error| Self::Absent(error.kind()), |file| Self::from(&file))
    }
}

impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        Self::File {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    // Before it is opened: opening a pipe would wait for its writer.
    let bytes = match std::fs::metadata(path).map_err(failed)? {
        file if file.is_file() => file.len(),
        _ => return Err(ReadError::NotAFile { path: path.to_owned() }),
    };
    // Room for all of it at once: a buffer that grows leaves copies of a key behind.
    let mut content = Zeroizing::new(Vec::with_capacity(bytes.min(MAX_FILE_BYTES) as usize + 64));
    File::open(path).map_err(failed)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    match content.len() as u64 <= MAX_FILE_BYTES {
        true => Ok(content),
        false => Err(ReadError::TooLarge { path: path.to_owned() }),
    }
}
