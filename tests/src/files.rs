//! Identities as files: of a PKI that the test made itself, or of an issuer that runs.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use signet_test_pki::{Authority, Issued, pem};

/// A chain and its key, PEM.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl IdentityFiles {
    /// `FOLDER/NAME.pem` and `FOLDER/NAME.key`; what stands there is replaced, each file at once.
    pub fn write(folder: &Path, name: &str, issued: &Issued) -> Self {
        Self::write_pem(folder, name, &issued.chain_pem(), &issued.key_pem())
    }

    pub fn write_pem(folder: &Path, name: &str, chain: &str, key: &str) -> Self {
        let files = Self { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
        replace(&files.key, key);
        replace(&files.certificate, chain);
        files
    }
}

/// A root, an intermediate below it, and the root's file for those who are to trust it.
#[derive(Debug)]
pub struct Pki {
    pub root: Authority,
    pub issuing: Authority,
    pub bundle: PathBuf,
    folder: PathBuf,
}

impl Pki {
    /// Of `trust_domain`, its files in `folder`.
    pub fn new(folder: &Path, trust_domain: &str) -> Self {
        let root = Authority::root(trust_domain);
        let issuing = root.intermediate();
        let bundle = folder.join("bundle.pem");
        fs::create_dir_all(folder).expect("a folder");
        replace(&bundle, &pem("CERTIFICATE", root.certificate()));
        Self { root, issuing, bundle, folder: folder.to_owned() }
    }

    /// A good identity for an hour.
    pub fn identity(&self, name: &str, path: &str) -> IdentityFiles {
        let id = format!("spiffe://{}{path}", self.root.trust_domain());
        self.write(name, &self.issuing.leaf(&id).issue())
    }

    pub fn write(&self, name: &str, issued: &Issued) -> IdentityFiles {
        IdentityFiles::write(&self.folder, name, issued)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Puts a whole file in the place of another: no reader sees half of it.
pub fn replace(path: &Path, text: &str) {
    let folder = path.parent().expect("a file in a folder");
    let mut file = tempfile::NamedTempFile::new_in(folder).expect("a file");
    file.write_all(text.as_bytes()).expect("space for a file");
    file.persist(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A file or a folder with all that is in it, as it is.
pub fn copy_all(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}
