//! Looking at three files that somebody else may be writing. What comes back was all there at one time: symlinks are
//! resolved once, a folder that they share in common, and the files that were found must be the same ones, unchanged,
//! before the first is read and after the last, or hold the same when all are read again.

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
    seen: Option<[Found; 3]>,
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
        let mut before = self.find();
        let changed = self.seen.as_ref() != Some(&before);
        if !changed && self.settled && read == ReadWhen::Changed {
            return None;
        }
        let mut previous = None;
        for _ in 0..MAX_READS {
            let files = read_all(&before);
            let after = self.find();
            let sha256 = files.as_ref().ok().map(Files::sha256);
            // A file that is touched without end has another time stamp each time, and the same content.
            let touched = sha256.is_some() && sha256 == previous;
            if before == after || touched {
                self.settled = !changed && !touched;
                self.seen = Some(after);
                return Some(files);
            }
            (before, previous) = (after, sha256);
        }
        self.seen = None;
        None
    }

    fn find(&self) -> [Found; 3] {
        let FilePaths { certificate, key, bundle } = &self.paths;
        let folder = certificate.parent();
        let shared = folder.filter(|_| key.parent() == folder && bundle.parent() == folder);
        let resolved = shared.and_then(|folder| folder.canonicalize().ok());
        [certificate, key, bundle].map(|path| match (&resolved, path.file_name()) {
            (Some(folder), Some(name)) => Found::at(&folder.join(name)),
            _ => Found::at(path),
        })
    }
}

fn read_all([certificate, key, bundle]: &[Found; 3]) -> Result<Files, ReadError> {
    Ok(Files {
        certificate: read(&certificate.path)?.to_vec(),
        key: read(&key.path)?,
        bundle: read(&bundle.path)?.to_vec(),
    })
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

/// A file, all symlinks resolved, in the state that it was found in.
#[derive(Debug, Eq, PartialEq)]
struct Found {
    path: PathBuf,
    stamp: Stamp,
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stamp {
    Absent(io::ErrorKind),
    File { device: u64, inode: u64, bytes: u64, modified: (i64, i64), changed: (i64, i64) },
}

impl Found {
    fn at(path: &Path) -> Self {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let stamp =
            std::fs::metadata(&path).map_or_else(|error| Stamp::Absent(error.kind()), |file| Stamp::from(&file));
        Self { path, stamp }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        fs,
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering::Relaxed},
    };

    use super::*;

    /// A folder whose three files all hold the number.
    fn generation(root: &Path, number: usize) -> PathBuf {
        let folder = root.join(format!("g{number}"));
        fs::create_dir(&folder).unwrap();
        for name in ["svid.pem", "svid.key", "bundle.pem"] {
            fs::write(folder.join(name), number.to_string()).unwrap();
        }
        folder
    }

    fn swap(root: &Path, name: &str, to: &Path) {
        symlink(to, root.join("next")).unwrap();
        fs::rename(root.join("next"), root.join(name)).unwrap();
    }

    /// Looks as often as it can while `disturb` runs; how often something was read.
    fn never_mixed(paths: FilePaths, disturb: impl FnOnce() + Send) -> usize {
        let done = AtomicBool::new(false);
        let mut look = Look::new(paths);
        let mut read = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                disturb();
                done.store(true, Relaxed);
            });
            while !done.load(Relaxed) {
                let Some(files) = look.look(ReadWhen::Always) else { continue };
                let files = files.unwrap();
                assert_eq!([&files.certificate, &*files.key], [&files.bundle; 2], "files of two times");
                read += 1;
            }
        });
        read
    }

    #[test]
    fn a_folder_that_is_swapped_to_and_fro_is_never_read_mixed() {
        let root = tempfile::tempdir().unwrap();
        let folders = [generation(root.path(), 0), generation(root.path(), 1)];
        swap(root.path(), "cur", &folders[0]);
        let read = never_mixed(FilePaths::within(&root.path().join("cur")), || {
            (0..20_000).for_each(|number| swap(root.path(), "cur", &folders[number % 2]));
        });
        assert!(read > 100, "{read}");
    }

    /// As a kubelet does it: each file is a symlink through a folder that is a symlink.
    #[test]
    fn files_behind_a_swapped_symlink_are_never_read_mixed() {
        let root = tempfile::tempdir().unwrap();
        let folders: Vec<_> = (0..1000).map(|number| generation(root.path(), number)).collect();
        swap(root.path(), "data", &folders[0]);
        for name in ["svid.pem", "svid.key", "bundle.pem"] {
            symlink(Path::new("data").join(name), root.path().join(name)).unwrap();
        }
        let read = never_mixed(FilePaths::within(root.path()), || {
            for folder in &folders {
                swap(root.path(), "data", folder);
                // Long enough that a look between two swaps can be had at all.
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
        });
        assert!(read > 100, "{read}");
    }

    #[test]
    fn a_change_is_read_twice_and_then_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let mut look = Look::new(FilePaths::within(&generation(root.path(), 0)));
        assert!(look.look(ReadWhen::Changed).is_some());
        assert!(look.look(ReadWhen::Changed).is_some(), "a write right after the reading may not show in a time stamp");
        assert!(look.look(ReadWhen::Changed).is_none());
        fs::write(root.path().join("g0/svid.pem"), "longer").unwrap();
        assert!(look.look(ReadWhen::Changed).is_some());
    }
}
