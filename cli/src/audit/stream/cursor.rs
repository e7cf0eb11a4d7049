//! How far a receiver has a log. A file, written after the receiver has what it says.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use signet_audit::{Checkpoint, Hash, VerifierKey};

use crate::failure::Failure;
use crate::output;

/// Of one receiver: two who write to one file would leave entries out.
pub(super) struct Cursor {
    path: PathBuf,
    place: Place,
    seen: Option<(u64, Hash)>,
    /// Held for as long as this one is there.
    _lock: File,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// The log's public key.
    key: String,
    /// The first entry that the receiver may not have.
    next: u64,
    /// The log of which the entries before that were read: what it is later has to begin with it.
    size: u64,
    root: String,
}

impl Cursor {
    /// That in the file; where there is none, before the first entry.
    pub(super) fn open(path: &Path, key: &VerifierKey) -> Result<Self, Failure> {
        let wrong = |cause: &dyn std::fmt::Display| Failure::new(format!("{}: {cause}", path.display()));
        let lock = File::create(beside(path, ".lock")).map_err(|error| wrong(&error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                wrong(&"another stream has this cursor").remedy("give each receiver a cursor of its own")
            }
            TryLockError::Error(error) => wrong(&error),
        })?;
        let bad = |cause: &dyn std::fmt::Display| {
            wrong(cause).remedy("restore it, or remove it: all of the log is then sent again")
        };
        let (place, seen) = match std::fs::read(path) {
            Ok(json) => {
                let place: Place = serde_json::from_slice(&json).map_err(|error| bad(&error))?;
                let root = Hash::parse_hash(&place.root).map_err(|_| bad(&"it has no root"))?;
                if place.next > place.size {
                    return Err(bad(&"it is beyond the log that it names"));
                }
                let seen = Some((place.size, root));
                (place, seen)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                (Place { key: key.to_string(), next: 0, size: 0, root: String::new() }, None)
            }
            Err(error) => return Err(wrong(&error)),
        };
        match place.key == key.to_string() {
            true => Ok(Self { path: path.to_owned(), place, seen, _lock: lock }),
            false => Err(wrong(&"it is of a log with another key").remedy("give each log a cursor of its own")),
        }
    }

    pub(super) fn next(&self) -> u64 {
        self.place.next
    }

    /// How many entries the log had, and their root.
    pub(super) fn seen(&self) -> Option<(u64, Hash)> {
        self.seen
    }

    /// After the receiver has everything before `next`.
    pub(super) fn write(&mut self, next: u64, log: &Checkpoint) -> Result<(), Failure> {
        let place = Place { key: self.place.key.clone(), next, size: log.size, root: log.root.to_string() };
        let json = output::serialized(output::Format::Json, &place)?;
        let new = beside(&self.path, ".new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(json.as_bytes())?;
            // Empty after a power cut, it would be no cursor; the one before merely sends again.
            file.sync_all()?;
            std::fs::rename(&new, &self.path)
        };
        write().map_err(|error| Failure::new(format!("{}: {error}", self.path.display())))?;
        self.place = place;
        Ok(())
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(origin: &str) -> VerifierKey {
        VerifierKey::new(origin.parse().unwrap(), [7; 32])
    }

    fn log(size: u64) -> Checkpoint {
        Checkpoint { origin: "example.org/audit".parse().unwrap(), size, root: Hash([9; 32]) }
    }

    #[test]
    fn a_cursor_is_where_it_was_and_has_one_owner() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("cursor");
        let key = key("example.org/audit");
        let mut cursor = Cursor::open(&path, &key).unwrap();
        assert_eq!((cursor.next(), cursor.seen()), (0, None));
        cursor.write(5, &log(8)).unwrap();
        assert!(Cursor::open(&path, &key).err().unwrap().cause().contains("another stream"));
        drop(cursor);
        let cursor = Cursor::open(&path, &key).unwrap();
        assert_eq!((cursor.next(), cursor.seen()), (5, Some((8, Hash([9; 32])))));
    }

    #[test]
    fn a_cursor_that_is_not_of_this_log_or_none_at_all_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("cursor");
        Cursor::open(&path, &key("example.org/audit")).unwrap().write(5, &log(8)).unwrap();
        let refused = |path: &Path, name: &str| Cursor::open(path, &key(name)).err().unwrap().cause().to_owned();
        assert!(refused(&path, "example.org/other").contains("another key"));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"next\": 5", "\"next\": 9")).unwrap();
        assert!(refused(&path, "example.org/audit").contains("beyond"));
        std::fs::write(&path, "").unwrap();
        assert!(refused(&path, "example.org/audit").contains("EOF"));
    }
}
