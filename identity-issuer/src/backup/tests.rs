#![allow(clippy::unwrap_used)]
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use signet_backup::BackupSecret;
use tempfile::TempDir;

use super::*;

/// What is packed of a folder, as the names that may be seen in the manifest.
fn packed(state: &Path) -> Result<Vec<String>, String> {
    packed_without(state, &[])
}

fn packed_without(state: &Path, secrets: &[PathBuf]) -> Result<Vec<String>, String> {
    let secret = BackupSecret::generate().unwrap();
    let mut packer = Packer::new(Sealer::new(Vec::new(), secret.public()).unwrap());
    let packing = Walk { packer: &mut packer, secrets, above: Vec::new() }.pack_folder(state, "");
    packing.map_err(|error| signet_process::start::Report::of(&error).cause)?;
    Ok(packer.names().map(str::to_owned).collect())
}

fn state() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("policy.json"), "{}").unwrap();
    (folder, state)
}

#[test]
fn what_links_lead_to_is_packed_as_what_it_is_there() {
    let (folder, state) = state();
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("authorities")).unwrap();
    fs::write(elsewhere.join("authorities/1.key"), "sealed").unwrap();
    fs::write(elsewhere.join("file"), "").unwrap();
    symlink(elsewhere.join("authorities"), state.join("authorities")).unwrap();
    symlink("../elsewhere/file", state.join("linked")).unwrap();
    assert_eq!(packed(&state).unwrap(), ["authorities/1.key", "linked", "policy.json"]);
}

#[test]
fn a_link_that_leads_nowhere_or_back_is_told_of_by_its_path() {
    for (to, told) in
        [("gone", "cannot be used"), (".", "leads back to a folder that it is in"), ("link", "cannot be used")]
    {
        let (_folder, state) = state();
        symlink(to, state.join("link")).unwrap();
        let refused = packed(&state).unwrap_err();
        assert!(refused.contains(state.join("link").to_str().unwrap()) && refused.contains(told), "{refused}");
    }
}

#[test]
fn what_is_neither_file_nor_folder_is_told_of_and_sockets_are_left_out() {
    let (_folder, state) = state();
    let _listener = UnixListener::bind(state.join("issuer-admin.sock")).unwrap();
    assert_eq!(packed(&state).unwrap(), ["policy.json"]);
    symlink("/dev/null", state.join("device")).unwrap();
    let refused = packed(&state).unwrap_err();
    assert!(refused.contains("state/device is neither a file nor a folder"), "{refused}");
}

#[test]
fn a_name_that_no_backup_takes_is_told_of_by_its_path() {
    for name in [&b"a b"[..], "ä".as_bytes(), b"\xff"] {
        let (_folder, state) = state();
        let path = state.join(OsStr::from_bytes(name));
        fs::write(&path, "").unwrap();
        let refused = packed(&state).unwrap_err();
        let told = format!("{} has a name that no file of a backup has", path.display());
        assert!(refused.contains(&told), "{refused}");
    }
}

#[test]
fn what_a_file_system_has_found_is_left_out() {
    let (_folder, state) = state();
    fs::create_dir(state.join("lost+found")).unwrap();
    fs::write(state.join("lost+found/#1 2"), "").unwrap();
    assert_eq!(packed(&state).unwrap(), ["policy.json"]);
}

#[test]
fn what_the_configuration_keeps_secret_is_left_out_by_whatever_name() {
    let (folder, state) = state();
    let (inside, outside) = (state.join("passphrase"), folder.path().join("pin"));
    fs::write(&inside, "secret").unwrap();
    fs::write(&outside, "secret").unwrap();
    fs::hard_link(&inside, state.join("same")).unwrap();
    symlink(&outside, state.join("link")).unwrap();
    let through = folder.path().join("through");
    symlink(&state, &through).unwrap();
    let secrets = [through.join("passphrase"), outside, folder.path().join("gone")];
    assert_eq!(packed_without(&state, &secrets).unwrap(), ["policy.json"]);
    assert_eq!(packed(&state).unwrap(), ["link", "passphrase", "policy.json", "same"]);
}
