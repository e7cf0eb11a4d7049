//! The folder that holds everything of one development mesh.
//!
//! ```text
//! .signet/                    mode 0700
//!   root/                     the root CA: certificate, sealed key, and its passphrase
//!   root-next/                the root to come, while it takes over; root-before: the one that it replaced
//!   issuer/                   the issuer's sealed keys, their certificates, its database, its passphrase
//!   signet-dev                shows that the folder is ours; locked while a mesh runs
//!   issuer.yaml, gateway-*.yaml, gateway-*.token
//!   issuer-admin.sock
//! ```
//!
//! A real root is offline and its passphrase elsewhere; here convenience wins, and the folder's mode is all that protects it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::ceremony;
use crate::failure::Failure;
use crate::token::write_new;

#[derive(Debug)]
pub(crate) struct State {
    folder: PathBuf,
    /// Locked as long as this mesh runs.
    _mark: File,
}

/// What shows that a folder is one of ours, before anything in it is used or removed.
const MARK: &str = "signet-dev";
const MARK_TEXT: &str = "State of `signet dev`. `signet dev --fresh` removes this folder.\n";

impl State {
    /// Opens the folder, or makes it. With `fresh`, what an earlier run left is removed.
    pub(crate) fn open(folder: &Path, fresh: bool) -> Result<Self, Failure> {
        if fresh && let Some(_mark) = claim(folder)? {
            fs::remove_dir_all(folder).map_err(|error| unusable(folder, &error))?;
        }
        create_private(folder)?;
        let folder = fs::canonicalize(folder).map_err(|error| unusable(folder, &error))?;
        let mark = match claim(&folder)? {
            Some(mark) => mark,
            None => {
                fs::write(folder.join(MARK), MARK_TEXT).map_err(|error| unusable(&folder, &error))?;
                claim(&folder)?
                    .ok_or_else(|| Failure::new(format!("{} changes while it is opened", folder.display())))?
            }
        };
        let state = Self { folder, _mark: mark };
        if !state.root().exists() && state.next_root().exists() {
            ceremony::replace(&state.root(), &state.next_root())?;
        }
        create_private(&state.root())?;
        create_private(&state.issuer())?;
        Ok(state)
    }

    pub(crate) fn root(&self) -> PathBuf {
        root_in(&self.folder)
    }

    /// Where the next root is, while it takes over.
    pub(crate) fn next_root(&self) -> PathBuf {
        next_root_in(&self.folder)
    }

    pub(crate) fn issuer(&self) -> PathBuf {
        self.folder.join("issuer")
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.folder.join("issuer-admin.sock")
    }

    pub(crate) fn root_certificate(&self) -> PathBuf {
        self.root().join("root.pem")
    }

    /// The file of the passphrase of what `folder` holds, drawn at the first call.
    pub(crate) fn passphrase_file(&self, folder: &Path) -> Result<PathBuf, Failure> {
        draw_passphrase(folder)
    }

    /// Writes a file anew, whole or not at all, readable by its owner alone.
    pub(crate) fn replace(&self, name: &str, content: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.join(name);
        let fresh = self.folder.join(format!("{name}.new"));
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(&fresh, &error)),
            _ => {}
        }
        write_new(&fresh, content.trim_end())?;
        fs::rename(&fresh, &path).map_err(|error| unusable(&path, &error))?;
        Ok(path)
    }
}

pub(crate) fn root_in(folder: &Path) -> PathBuf {
    folder.join("root")
}

pub(crate) fn next_root_in(folder: &Path) -> PathBuf {
    folder.join("root-next")
}

/// Whether it is a state folder of `signet dev`.
pub(crate) fn is_ours(folder: &Path) -> bool {
    folder.join(MARK).is_file()
}

/// The file of the passphrase of what the folder holds, drawn at the first call. The folder is made if it is not there.
pub(crate) fn draw_passphrase(folder: &Path) -> Result<PathBuf, Failure> {
    create_private(folder)?;
    let path = passphrase_of(folder);
    if !path.exists() {
        let mut random = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(random.as_mut_slice()).map_err(|_| Failure::new("the system has no random numbers"))?;
        write_new(&path, &Zeroizing::new(hex::encode(random.as_slice())))?;
    }
    Ok(path)
}

pub(crate) fn passphrase_of(folder: &Path) -> PathBuf {
    folder.join("passphrase")
}

/// What is there can't be used as it is: only the user may decide to throw it away.
pub(crate) fn damaged(path: &Path, what: impl std::fmt::Display) -> Failure {
    damaged_by(format!("{}: {what}", path.display()))
}

/// The same, for a cause that names what is damaged.
pub(crate) fn damaged_by(cause: impl std::fmt::Display) -> Failure {
    Failure::new(cause)
        .remedy("restore it, or begin anew with `signet dev --fresh` (every identity of this mesh is then void)")
}

fn create_private(folder: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| unusable(folder, &error))?;
    let mut mode = fs::metadata(folder).map_err(|error| unusable(folder, &error))?.permissions();
    if mode.mode() & 0o077 != 0 {
        mode.set_mode(0o700);
        fs::set_permissions(folder, mode).map_err(|error| unusable(folder, &error))?;
    }
    Ok(())
}

/// The locked mark of a folder of ours; none where there is no folder or an empty one. Refuses somebody else's.
fn claim(folder: &Path) -> Result<Option<File>, Failure> {
    let mark = match File::open(folder.join(MARK)) {
        Ok(mark) => mark,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
                Ok(true) => Err(Failure::new(format!(
                    "{} is not empty, and not a state folder of `signet dev`",
                    folder.display()
                ))
                .remedy("name another folder by --state")),
                Ok(false) => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(unusable(folder, &error)),
            };
        }
        Err(error) => return Err(unusable(folder, &error)),
    };
    match mark.try_lock() {
        Ok(()) => Ok(Some(mark)),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::new(format!("another `signet dev` runs on {}", folder.display()))
                .remedy("end it, or name another folder by --state"))
        }
        Err(TryLockError::Error(error)) => Err(unusable(folder, &error)),
    }
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
        .remedy("the state folder must be writable; name another by --state")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_second_start_finds_what_the_first_one_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let first = State::open(&path, false).unwrap();
        let passphrase = |state: &State| fs::read(state.passphrase_file(&state.root()).unwrap()).unwrap();
        let drawn = passphrase(&first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);

        assert!(State::open(&path, false).is_err(), "used by two at once");
        assert!(State::open(&path, true).is_err(), "removed under the one that runs");
        drop(first);

        let second = State::open(&path, false).unwrap();
        assert_eq!(passphrase(&second), drawn);

        drop(second);
        let fresh = State::open(&path, true).unwrap();
        assert_ne!(passphrase(&fresh), drawn);
    }

    #[test]
    fn a_folder_of_somebody_else_is_neither_used_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let photo = folder.path().join("holiday.jpg");
        fs::write(&photo, "sea").unwrap();
        assert!(State::open(folder.path(), false).is_err());
        assert!(State::open(folder.path(), true).is_err());
        assert!(photo.exists());
    }
}
