//! What is in the stream: files, then a manifest of them, and what the log's key says about the manifest. Any `tar` reads it once it is opened.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{Error, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use signet_audit::{About, MAX_STATEMENT, Origin, Statement, StatementError, VerifierKey, sha256};

use crate::sealed::Sealer;

/// What a backup has.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub version: u32,
    pub software: String,
    pub trust_domain: String,
    /// The origin of the issuer's audit log.
    pub log: String,
    /// Entries of the log that are on record.
    pub entries: u64,
    /// Unix seconds.
    pub made: i64,
    /// Whether the records are in it; else they are in a database that has backups of its own.
    pub records: bool,
    /// By their names.
    pub files: BTreeMap<String, FileRecord>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// In bytes.
    pub length: u64,
    pub sha256: String,
}

#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("the backup cannot be written")]
    Write(#[source] Error),
    #[error("{name} cannot be read")]
    Read { name: String, source: Error },
    #[error("{name} was changed while it was read")]
    Changed { name: String },
    #[error("{name} is no name that a file of a backup can have")]
    Name { name: String },
    #[error("the manifest cannot be written")]
    Manifest(#[source] serde_json::Error),
    #[error("the manifest cannot be signed")]
    Sign(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("the backup cannot be read")]
    Read(#[source] Error),
    #[error("{path} cannot be written")]
    Write { path: String, source: Error },
    #[error("it has no manifest at its end: it is no backup that an issuer made")]
    NoManifest,
    #[error("its manifest is of version {found}; this program knows {VERSION}: take the program that made it")]
    Version { found: u32 },
    #[error("its manifest is not signed by the log of the issuer that it is said to be of")]
    Statement(#[from] StatementError),
    #[error("its manifest is not the one that was signed")]
    OtherManifest,
    #[error("{name} is not what the manifest says")]
    File { name: String },
    #[error("{name} is in it and not in its manifest")]
    Unknown { name: String },
    #[error("{name} is in its manifest and not in it")]
    Missing { name: String },
    #[error("{name} is no file that a backup has")]
    Name { name: String },
}

const VERSION: u32 = 1;
const MANIFEST: &str = "manifest.json";
const STATEMENT: &str = "manifest.sig";
/// All else is below it, so that no file has the name of those two.
const STATE: &str = "state/";
/// In bytes: for some hundred thousand files.
const MAX_MANIFEST: u64 = 128 << 20;
/// In bytes.
const MAX_NAME: usize = 512;

/// Packs files as they come. Little of it is in memory at any time.
pub struct Packer<W: Write> {
    tar: tar::Builder<Sealer<W>>,
    files: BTreeMap<String, FileRecord>,
}

impl<W: Write> Packer<W> {
    pub fn new(to: Sealer<W>) -> Self {
        Self { tar: tar::Builder::new(to), files: BTreeMap::new() }
    }

    /// Of `length` bytes, as `name` in the state folder.
    pub fn file(&mut self, name: &str, length: u64, from: &mut dyn Read) -> Result<(), PackError> {
        if !is_name(name) || self.files.contains_key(name) {
            return Err(PackError::Name { name: name.to_owned() });
        }
        let mut hashing = Hashing::new(from.take(length));
        append(&mut self.tar, &format!("{STATE}{name}"), length, &mut hashing)
            .map_err(|source| PackError::Read { name: name.to_owned(), source })?;
        if hashing.length != length {
            return Err(PackError::Changed { name: name.to_owned() });
        }
        self.files.insert(name.to_owned(), FileRecord { length, sha256: hashing.hex() });
        Ok(())
    }

    /// Of the files so far, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Behind all files. `signing` signs with the key of `key`.
    pub fn finish<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        mut self,
        mut manifest: Manifest,
        key: &VerifierKey,
        signing: impl FnOnce(&[u8]) -> Result<[u8; 64], E>,
    ) -> Result<W, PackError> {
        (manifest.version, manifest.files) = (VERSION, self.files);
        let json = serde_json::to_vec(&manifest).map_err(PackError::Manifest)?;
        let statement = said(key.origin(), &json).sign(key, signing).map_err(|error| PackError::Sign(error.into()))?;
        for (name, bytes) in [(MANIFEST, json.as_slice()), (STATEMENT, statement.as_bytes())] {
            append(&mut self.tar, name, bytes.len() as u64, bytes).map_err(PackError::Write)?;
        }
        let sealer = self.tar.into_inner().map_err(PackError::Write)?;
        sealer.finish().map_err(PackError::Write)
    }
}

impl Manifest {
    /// Without files yet.
    pub fn new(software: String, trust_domain: String, log: &Origin, entries: u64, made: i64, records: bool) -> Self {
        let (version, files) = (VERSION, BTreeMap::new());
        Self { version, software, trust_domain, log: log.to_string(), entries, made, records, files }
    }
}

/// Unpacks into a folder that is empty. Nothing in there is to be used unless this returns: files are compared at the end.
pub fn unpack(from: impl Read, key: &VerifierKey, to: &Path) -> Result<Manifest, UnpackError> {
    let mut tar = tar::Archive::new(from);
    let (mut found, mut manifest, mut statement) = (BTreeMap::new(), Vec::new(), Vec::new());
    for entry in tar.entries().map_err(UnpackError::Read)? {
        let mut entry = entry.map_err(UnpackError::Read)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let wrong = || UnpackError::Name { name: name.chars().take(MAX_NAME).collect() };
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(wrong());
        }
        let short = match name.as_str() {
            MANIFEST => Some((&mut manifest, MAX_MANIFEST)),
            STATEMENT => Some((&mut statement, MAX_STATEMENT as u64)),
            _ => None,
        };
        if let Some((into, most)) = short {
            if entry.size() > most || !into.is_empty() {
                return Err(wrong());
            }
            entry.read_to_end(into).map_err(UnpackError::Read)?;
            continue;
        }
        let file = name.strip_prefix(STATE).filter(|file| is_name(file) && !found.contains_key(*file));
        let file = file.ok_or_else(wrong)?;
        found.insert(file.to_owned(), write(&mut entry, &to.join(file))?);
    }
    check(found, &manifest, &statement, key)
}

fn check(
    mut found: BTreeMap<String, FileRecord>,
    manifest: &[u8],
    statement: &[u8],
    key: &VerifierKey,
) -> Result<Manifest, UnpackError> {
    if manifest.is_empty() || statement.is_empty() {
        return Err(UnpackError::NoManifest);
    }
    // Signed before it is read.
    if Statement::open(statement, About::Backup, key)? != said(key.origin(), manifest) {
        return Err(UnpackError::OtherManifest);
    }
    let manifest: Manifest = serde_json::from_slice(manifest).map_err(|_| UnpackError::NoManifest)?;
    if manifest.version != VERSION {
        return Err(UnpackError::Version { found: manifest.version });
    }
    for (name, record) in &manifest.files {
        match found.remove(name) {
            None => return Err(UnpackError::Missing { name: name.clone() }),
            Some(found) if found != *record => return Err(UnpackError::File { name: name.clone() }),
            Some(_) => {}
        }
    }
    match found.into_keys().next() {
        Some(name) => Err(UnpackError::Unknown { name }),
        None => Ok(manifest),
    }
}

fn said(log: &Origin, manifest: &[u8]) -> Statement {
    Statement::new(About::Backup, log.clone()).with("manifest", hex::encode(sha256(manifest)))
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, length: u64, from: impl Read) -> Result<(), Error> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(length);
    header.set_mode(0o600);
    header.set_mtime(0);
    tar.append_data(&mut header, name, from)
}

fn write(from: &mut impl Read, path: &Path) -> Result<FileRecord, UnpackError> {
    let failed = |source| UnpackError::Write { path: path.display().to_string(), source };
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let mut hashing = Hashing::new(from);
    // What cannot be read and what cannot be written is not told apart here.
    std::io::copy(&mut hashing, &mut file).and_then(|_| file.sync_all()).map_err(failed)?;
    Ok(FileRecord { length: hashing.length, sha256: hashing.hex() })
}

/// Names in folders that lead nowhere else.
fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
        !matches!(part, "" | "." | "..") && part.bytes().all(is_plain)
    };
    name.len() <= MAX_NAME && name.split('/').all(is_part)
}

/// Hashes what is read.
struct Hashing<R> {
    from: R,
    length: u64,
    context: Context,
}

impl<R> Hashing<R> {
    fn new(from: R) -> Self {
        Self { from, length: 0, context: Context::new(&SHA256) }
    }

    fn hex(self) -> String {
        hex::encode(self.context.finish())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let count = self.from.read(into)?;
        self.context.update(&into[..count]);
        self.length += count as u64;
        Ok(count)
    }
}

impl<W: Write> std::fmt::Debug for Packer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use tempfile::TempDir;

    use super::*;
    use crate::{BackupSecret, Opener};

    struct Issuer {
        pair: Ed25519KeyPair,
        key: VerifierKey,
        secret: BackupSecret,
    }

    impl Issuer {
        fn new(seed: u8) -> Self {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
            let public = pair.public_key().as_ref().try_into().unwrap();
            let key = VerifierKey::new("example.org/audit/1".parse().unwrap(), public);
            Self { pair, key, secret: BackupSecret::generate().unwrap() }
        }

        fn packer(&self) -> Packer<Vec<u8>> {
            Packer::new(Sealer::new(Vec::new(), self.secret.public()).unwrap())
        }

        fn finish(&self, packer: Packer<Vec<u8>>) -> Vec<u8> {
            let log = self.key.origin();
            let manifest = Manifest::new("signet 1".to_owned(), "example.org".to_owned(), log, 7, 1_800_000_000, true);
            let signing = |message: &[u8]| Ok::<_, String>(self.pair.sign(message).as_ref().try_into().unwrap());
            packer.finish(manifest, &self.key, signing).unwrap()
        }

        fn unpack(&self, backup: &[u8]) -> Result<(TempDir, Manifest), UnpackError> {
            let to = TempDir::new().unwrap();
            let manifest = unpack(Opener::new(backup, &self.secret).unwrap(), &self.key, to.path())?;
            Ok((to, manifest))
        }
    }

    fn put(packer: &mut Packer<Vec<u8>>, name: &str, content: &[u8]) -> Result<(), PackError> {
        packer.file(name, content.len() as u64, &mut &*content)
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let issuer = Issuer::new(1);
        let mut packer = issuer.packer();
        let long = vec![7; 200_000];
        let deep = format!("audit/log/tile/0/x001/{}", "9".repeat(200));
        for (name, content) in [("issuer.db", &long[..]), ("audit/log.json", b"{}"), ("empty", b""), (&deep, b"d")] {
            put(&mut packer, name, content).unwrap();
        }
        let (to, manifest) = issuer.unpack(&issuer.finish(packer)).unwrap();
        assert_eq!(manifest.files.len(), 4);
        assert_eq!((manifest.entries, manifest.log.as_str()), (7, "example.org/audit/1"));
        assert_eq!(std::fs::read(to.path().join("issuer.db")).unwrap(), long);
        assert_eq!(std::fs::read(to.path().join(&deep)).unwrap(), b"d");
        assert_eq!(std::fs::read(to.path().join("empty")).unwrap(), b"");
    }

    #[test]
    fn what_another_made_is_refused() {
        let (issuer, mut other) = (Issuer::new(1), Issuer::new(2));
        other.secret = BackupSecret::parse(&issuer.secret.to_text()).unwrap();
        let mut packer = other.packer();
        put(&mut packer, "issuer.db", b"theirs").unwrap();
        let refused = issuer.unpack(&other.finish(packer)).unwrap_err();
        assert!(matches!(refused, UnpackError::Statement(StatementError::NotSigned { .. })), "{refused}");
    }

    /// By somebody who has the public key of the backup and a manifest that was signed once.
    #[test]
    fn files_that_the_manifest_does_not_have_are_refused() {
        let issuer = Issuer::new(1);
        let mut packer = issuer.packer();
        put(&mut packer, "a", b"a").unwrap();
        let good = issuer.finish(packer);
        let mut signed: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut tar = tar::Archive::new(Opener::new(&good[..], &issuer.secret).unwrap());
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            signed.insert(name, bytes);
        }
        let of = |files: &[(&str, &[u8])]| {
            let mut packer = issuer.packer();
            for (name, bytes) in files {
                append(&mut packer.tar, name, bytes.len() as u64, *bytes).unwrap();
            }
            let backup = packer.tar.into_inner().unwrap().finish().unwrap();
            issuer.unpack(&backup).map(drop).map_err(|error| error.to_string())
        };
        let (manifest, statement) = (signed[MANIFEST].as_slice(), signed[STATEMENT].as_slice());
        let (state, end) = (("state/a", &b"a"[..]), [(MANIFEST, manifest), (STATEMENT, statement)]);
        assert_eq!(of(&[&[state][..], &end].concat()), Ok(()));
        for (files, told) in [
            (vec![("state/a", &b"b"[..])], "a is not what the manifest says"),
            (vec![], "a is in its manifest and not in it"),
            (vec![state, ("state/b", b"")], "b is in it and not in its manifest"),
            (vec![state, state], "state/a is no file that a backup has"),
            (vec![state, ("a", b"a")], "a is no file that a backup has"),
            (vec![state, ("state/b\\c", b"")], "is no file that a backup has"),
        ] {
            let refused = of(&[&files[..], &end].concat()).unwrap_err();
            assert!(refused.contains(told), "{refused}");
        }
        let no_manifest = of(&[state]).unwrap_err();
        assert!(no_manifest.contains("no manifest"), "{no_manifest}");
        let other = of(&[state, (MANIFEST, b"{}"), (STATEMENT, statement)]).unwrap_err();
        assert!(other.contains("not the one that was signed"), "{other}");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        for good in ["a", "a/b", "a.b/..c", "x001/000.p/12"] {
            assert!(is_name(good), "{good}");
        }
        for wrong in ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a\\b", "a b", "ä", "a\n"] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
        assert!(!is_name(&"a".repeat(MAX_NAME + 1)));
    }

    #[test]
    fn links_and_the_like_are_refused() {
        let issuer = Issuer::new(1);
        let mut packer = issuer.packer();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        packer.tar.append_link(&mut header, "state/a", "/etc/passwd").unwrap();
        let backup = issuer.finish(packer);
        assert!(matches!(issuer.unpack(&backup).unwrap_err(), UnpackError::Name { .. }));
    }

    #[test]
    fn a_file_that_becomes_shorter_meanwhile_is_told_of() {
        let issuer = Issuer::new(1);
        let mut packer = issuer.packer();
        let changed = packer.file("a", 10, &mut &b"short"[..]).unwrap_err();
        assert!(matches!(changed, PackError::Changed { .. }), "{changed}");
    }
}
