//! The vendor's library. A process has it once, however many use it, and it can only be begun anew for all of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use super::TokenError;

/// Those that this process has loaded. None is ever unloaded: few libraries survive that.
static LOADED: LazyLock<Mutex<HashMap<PathBuf, Arc<Module>>>> = LazyLock::new(Mutex::default);

#[derive(Debug)]
pub(super) struct Module {
    path: PathBuf,
    library: Pkcs11,
    /// Held for reading by whoever calls the library, for writing while it begins anew.
    running: RwLock<Running>,
}

#[derive(Debug)]
pub(super) struct Running {
    /// Counts its beginnings: sessions and objects are of one of them.
    pub(super) generation: u64,
    began: Instant,
}

/// How long those who are at it are waited for before the library begins anew.
const PATIENCE: Duration = Duration::from_secs(5);

/// A library is begun anew so often at most: with a token that stays away, each request would do so.
const PAUSE: Duration = Duration::from_secs(1);

impl Module {
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, TokenError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.get(path) {
            return Ok(Arc::clone(module));
        }
        let library = Pkcs11::new(path).map_err(|source| TokenError::Module { path: path.to_owned(), source })?;
        begin(&library).map_err(|source| TokenError::Start { path: path.to_owned(), source })?;
        let running = Running { generation: 0, began: Instant::now() };
        let module = Arc::new(Self { path: path.to_owned(), library, running: RwLock::new(running) });
        loaded.insert(path.to_owned(), Arc::clone(&module));
        Ok(module)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// To call the library while it keeps running.
    pub(super) fn enter(&self) -> Entered<'_> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        Entered { running, library: &self.library }
    }

    /// Begins the library anew, unless somebody did since `generation`, or a moment ago. All sessions of before are gone.
    pub(super) fn begin_anew(&self, generation: u64) -> Result<(), TokenError> {
        let deadline = Instant::now() + PATIENCE;
        let mut running = loop {
            match self.running.try_write() {
                Ok(running) => break running,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                // Somebody is in it still. Calls are short, or the device hangs.
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Err(TokenError::Busy),
            }
        };
        if running.generation != generation || (generation > 0 && running.began.elapsed() < PAUSE) {
            return Ok(());
        }
        running.generation += 1;
        running.began = Instant::now();
        // One that was never begun cannot be ended; that it begins is what counts.
        let _ = self.library.clone().finalize();
        begin(&self.library).map_err(|source| TokenError::Start { path: self.path.clone(), source })
    }
}

fn begin(library: &Pkcs11) -> Result<(), Error> {
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        begun => begun,
    }
}

/// While this is held, the library is not begun anew.
#[derive(Debug)]
pub(super) struct Entered<'a> {
    running: RwLockReadGuard<'a, Running>,
    pub(super) library: &'a Pkcs11,
}

impl Entered<'_> {
    pub(super) fn generation(&self) -> u64 {
        self.running.generation
    }
}
