//! The files that rules are in.

use std::fs;
use std::path::{Path, PathBuf};

use signet_proto::admin::v1::PolicyFile;

use crate::failure::Failure;

/// The files, and those of the folders, in the order of their names.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<PolicyFile>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if metadata.is_dir() {
            let found = files.len();
            read_folder(path, 0, &mut files)?;
            if files.len() == found {
                return Err(Failure::new(format!("{}: no rules are in this folder", path.display()))
                    .remedy("put files with the ending .yaml or .yml there, or name another folder"));
            }
        } else {
            files.push(read_file(path)?);
        }
    }
    Ok(files)
}

fn read_folder(folder: &Path, depth: usize, files: &mut Vec<PolicyFile>) -> Result<(), Failure> {
    if depth > MAX_DEPTH {
        return Err(Failure::new(format!("{}: more than {MAX_DEPTH} folders deep", folder.display())));
    }
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(|error| unreadable(folder, &error))?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    for path in paths {
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden {
            continue;
        }
        if path.is_dir() {
            read_folder(&path, depth + 1, files)?;
        } else if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            files.push(read_file(&path)?);
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<PolicyFile, Failure> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Ok(PolicyFile { name: path.display().to_string(), text })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display())).remedy("name a file or a folder that you may read")
}

const MAX_DEPTH: usize = 16;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_is_read_in_order_without_what_is_hidden_or_no_yaml() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a/z.yml", "a/.git/c.yaml", ".hidden.yaml", "README.md"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        let texts = |paths: &[PathBuf]| read(paths).unwrap().into_iter().map(|file| file.text).collect::<Vec<_>>();
        assert_eq!(texts(&[folder.path().to_owned()]), ["a/z.yml", "b.yaml"]);
        assert_eq!(texts(&[folder.path().join("README.md")]), ["README.md"], "a file that is named is read");
        let empty = tempfile::tempdir().unwrap();
        assert!(read(&[empty.path().to_owned()]).unwrap_err().to_string().contains("no rules are in this folder"));
        assert!(read(&[empty.path().join("x")]).is_err());
    }
}
