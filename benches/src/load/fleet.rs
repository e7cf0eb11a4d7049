//! The client identities of a run, read from files and, with `--follow`, read again when they change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Far below the life of any certificate, and cheap: one `stat`.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where identities come from.
#[derive(Clone, Debug)]
pub struct FleetSource {
    location: Location,
    current: Arc<ArcSwap<Fleet>>,
}

#[derive(Clone, Debug)]
enum Location {
    /// Each `NAME.pem` (leaf first) with its `NAME.key`.
    Folder(PathBuf),
    Pair {
        chain: PathBuf,
        key: PathBuf,
    },
}

/// All client identities of one generation. Never empty.
#[derive(Debug)]
pub struct Fleet {
    generation: u64,
    members: Vec<Arc<CertifiedKey>>,
}

/// Why identities could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("{}: cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: not the PEM that was expected", path.display())]
    Pem { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("{}: chain and key do not make an identity", path.display())]
    Identity { path: PathBuf, source: rustls::Error },
    #[error("{}: no NAME.pem with a NAME.key", path.display())]
    Empty { path: PathBuf },
}

impl FleetSource {
    pub fn folder(path: PathBuf) -> Result<Self, FleetError> {
        Self::of(Location::Folder(path))
    }

    pub fn pair(chain: PathBuf, key: PathBuf) -> Result<Self, FleetError> {
        Self::of(Location::Pair { chain, key })
    }

    fn of(location: Location) -> Result<Self, FleetError> {
        let members = location.read()?;
        Ok(Self { location, current: Arc::new(ArcSwap::from_pointee(Fleet { generation: 0, members })) })
    }

    /// Reads the files again whenever they change, for as long as the process lives. Files that are no identities, such as half
    /// written ones, are read again at the next look; until then the old identities stay.
    pub fn follow(&self) -> io::Result<()> {
        let source = self.clone();
        std::thread::Builder::new().name("follow-identities".into()).spawn(move || source.look_forever())?;
        Ok(())
    }

    pub(super) fn current(&self) -> arc_swap::Guard<Arc<Fleet>> {
        self.current.load()
    }

    fn look_forever(&self) {
        let mut known = None;
        loop {
            let stamp = self.location.changed_at();
            if stamp != known {
                match self.location.read() {
                    Ok(members) => {
                        let generation = self.current.load().generation + 1;
                        self.current.store(Arc::new(Fleet { generation, members }));
                        known = stamp;
                    }
                    Err(error) => eprintln!("identities not taken up: {error}"),
                }
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Location {
    fn read(&self) -> Result<Vec<Arc<CertifiedKey>>, FleetError> {
        match self {
            Self::Pair { chain, key } => Ok(vec![read_pair(chain, key)?]),
            Self::Folder(folder) => {
                // A link that moves under us must not give half of each: all are read from what it points at now.
                let folder =
                    fs::canonicalize(folder).map_err(|source| FleetError::Read { path: folder.clone(), source })?;
                let mut chains =
                    pem_files(&folder).map_err(|source| FleetError::Read { path: folder.clone(), source })?;
                chains.sort();
                if chains.is_empty() {
                    return Err(FleetError::Empty { path: folder });
                }
                chains.iter().map(|chain| read_pair(chain, &chain.with_extension("key"))).collect()
            }
        }
    }

    /// When the identities last changed: what `cur` points at, or the newest of the two files.
    fn changed_at(&self) -> Option<(PathBuf, SystemTime)> {
        let (path, others) = match self {
            Self::Folder(folder) => (folder, None),
            Self::Pair { chain, key } => (chain, Some(key)),
        };
        let modified = |path: &Path| fs::metadata(path).and_then(|facts| facts.modified()).ok();
        let newest = others.and_then(|other| modified(other)).max(modified(path))?;
        Some((fs::canonicalize(path).ok()?, newest))
    }
}

impl Fleet {
    /// Grows with each change of the files.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The identity of `number`, counted round the fleet.
    pub(super) fn member(&self, number: usize) -> &Arc<CertifiedKey> {
        &self.members[number % self.members.len()]
    }
}

fn pem_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "pem") && path.with_extension("key").exists() {
            found.push(path);
        }
    }
    Ok(found)
}

fn read_pair(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, FleetError> {
    let identity = |source| FleetError::Identity { path: chain.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| FleetError::Pem { path: chain.to_owned(), source })?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|source| FleetError::Pem { path: key.to_owned(), source })?;
    let certified = CertifiedKey::new(certificates, any_supported_type(&private).map_err(identity)?);
    certified.keys_match().map_err(identity)?;
    Ok(Arc::new(certified))
}
