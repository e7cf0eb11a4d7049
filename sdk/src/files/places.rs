//! Where a change would show: every folder on the way to the files, as the kernel goes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// As many as the kernel follows.
const MAX_SYMLINKS: usize = 40;

/// What to watch so that no change on the way to some files is missed. Paths have no symlinks in them.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Places {
    /// Each folder, with the names in it that lead on: a symlink, a file, or what is not there yet. A folder without a
    /// name leads on to another one, which tells by itself when it is moved or removed.
    pub(super) folders: BTreeMap<PathBuf, BTreeSet<OsString>>,
    /// The files themselves: who writes to one that is mounted here, or has another name, does not come by its folder.
    pub(super) files: BTreeSet<PathBuf>,
}

impl Places {
    pub(super) fn on_the_way_to<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut places = Self::default();
        paths.into_iter().for_each(|path| places.walk(path));
        places
    }

    fn walk(&mut self, path: &Path) {
        // There is no working folder any more, so the path leads nowhere.
        let Ok(path) = std::path::absolute(path) else { return };
        let mut ahead = steps(&path);
        let mut at = PathBuf::new();
        let mut symlinks = 0;
        while let Some(step) = ahead.pop() {
            match step.as_bytes() {
                b"/" => {
                    at = PathBuf::from("/");
                    self.folder(&at);
                    continue;
                }
                b"." => continue,
                b".." => {
                    at.pop();
                    continue;
                }
                _ => {}
            }
            let next = at.join(&step);
            match next.symlink_metadata() {
                Ok(found) if found.is_symlink() && symlinks < MAX_SYMLINKS => {
                    symlinks += 1;
                    self.folder(&at).insert(step);
                    let Ok(target) = next.read_link() else { return };
                    ahead.extend(steps(&target));
                }
                Ok(found) if found.is_dir() && !ahead.is_empty() => {
                    self.folder(&next);
                    at = next;
                }
                found => {
                    self.folder(&at).insert(step);
                    if found.is_ok_and(|found| found.is_file()) {
                        self.files.insert(next);
                    }
                    return;
                }
            }
        }
    }

    fn folder(&mut self, path: &Path) -> &mut BTreeSet<OsString> {
        self.folders.entry(path.to_owned()).or_default()
    }
}

/// A path's steps, the first one last.
fn steps(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|step| step.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// The folders at and below `root` with their names, and the files.
    fn below(root: &Path, path: &str) -> (Vec<(String, Vec<String>)>, Vec<String>) {
        let places = Places::on_the_way_to([&*root.join(path)]);
        let relative = |path: &Path| path.strip_prefix(root).ok().map(|path| path.display().to_string());
        let names = |names: &BTreeSet<OsString>| names.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
        let folders = places.folders.iter().filter_map(|(path, found)| Some((relative(path)?, names(found)))).collect();
        (folders, places.files.iter().filter_map(|path| relative(path)).collect())
    }

    #[test]
    fn every_folder_and_symlink_on_the_way_is_a_place() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/g7")).unwrap();
        fs::write(root.join("a/g7/file"), "").unwrap();
        symlink("g7", root.join("a/cur")).unwrap();
        symlink("../a/cur/file", root.join("a/up")).unwrap();
        symlink(root.join("a/loop"), root.join("a/loop")).unwrap();
        let place = |path: &str, names: &[&str]| (path.to_owned(), names.iter().map(|&name| name.to_owned()).collect());
        let file = || vec!["a/g7/file".to_owned()];
        for (path, folders, files) in [
            ("a/g7/file", vec![place("", &[]), place("a", &[]), place("a/g7", &["file"])], file()),
            ("a/cur/file", vec![place("", &[]), place("a", &["cur"]), place("a/g7", &["file"])], file()),
            ("a/./up", vec![place("", &[]), place("a", &["cur", "up"]), place("a/g7", &["file"])], file()),
            ("a/loop", vec![place("", &[]), place("a", &["loop"])], vec![]),
            ("a/later/on/file", vec![place("", &[]), place("a", &["later"])], vec![]),
            ("a/g7/file/below", vec![place("", &[]), place("a", &[]), place("a/g7", &["file"])], file()),
            ("a/g7", vec![place("", &[]), place("a", &["g7"])], vec![]),
        ] {
            assert_eq!(below(&root, path), (folders, files), "{path}");
        }
    }
}
