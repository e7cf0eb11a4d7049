//! A token, and the sessions with it: logged in, pooled, replaced when they are lost.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::object::ObjectHandle;
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use super::super::KeyName;
use super::error::{Remedy, pin_fault};
use super::module::{Entered, Module};
use super::{TokenError, TokenName, TokenPlace};
use crate::secret_file;

#[derive(Debug)]
pub(super) struct Token {
    place: TokenPlace,
    module: Arc<Module>,
    pool: Mutex<Pool>,
    returned: Condvar,
    /// Held while the token is asked, which may hang: no other lock is taken meanwhile.
    refused_pin: Mutex<Option<RefusedPin>>,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<LoggedIn>,
    /// Since when those work with the token who do now, by the number that each has.
    working: BTreeMap<u64, Instant>,
    next: u64,
}

/// A PIN that the token did not take. Its `Debug` shows nothing of it: a PIN is short, and so is its digest's way back.
struct RefusedPin {
    sha256: Zeroizing<Vec<u8>>,
    reason: &'static str,
}

/// A session in which the token's user is logged in. It is not closed when dropped: by then the library may have begun anew, and given its
/// number to another.
#[derive(Debug)]
pub(super) struct LoggedIn {
    pub(super) session: Session,
    generation: u64,
    keys: HashMap<KeyName, ObjectHandle>,
}

/// How long a request waits for others to be done; and how long one may take until others do not even wait: then the token hangs.
const PATIENCE: Duration = Duration::from_secs(5);

const MAX_PIN_BYTES: usize = 1024;

/// What a request may use: reading is enough to sign.
#[derive(Copy, Clone, Eq, PartialEq)]
enum Access {
    Reading,
    Writing,
}

impl Token {
    pub(super) fn new(place: TokenPlace) -> Result<Self, TokenError> {
        let module = Module::load(&place.module)?;
        Ok(Self { place, module, pool: Mutex::default(), returned: Condvar::new(), refused_pin: Mutex::default() })
    }

    /// Does it in a session. When that is lost, in a new one; when that does not help, with the module begun anew.
    pub(super) fn attempt<T>(&self, act: impl Fn(&mut LoggedIn) -> Result<T, TokenError>) -> Result<T, TokenError> {
        let _working = self.wait_for_a_place()?;
        self.attempt_with(Access::Reading, &act)
    }

    /// The same with a session of its own, in which the token can be changed.
    pub(super) fn attempt_writing<T>(&self, act: impl Fn(&Session) -> Result<T, TokenError>) -> Result<T, TokenError> {
        let _working = self.wait_for_a_place()?;
        self.attempt_with(Access::Writing, &|logged_in: &mut LoggedIn| act(&logged_in.session))
    }

    /// Whether the token is there and lets us in, by a new session. That sessions are open says nothing: some modules keep them when the token is gone.
    pub(super) fn look(&self) -> Result<(), TokenError> {
        self.attempt_writing(|_| Ok(()))
    }

    fn attempt_with<T>(
        &self,
        access: Access,
        act: &impl Fn(&mut LoggedIn) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let (mut generation, mut outcome) = self.try_once(access, self.pooled(access), act);
        for begin_anew in [false, true] {
            match &outcome {
                Err(error) if error.remedy() == Remedy::Again => {}
                _ => break,
            }
            if begin_anew {
                self.module.begin_anew(generation)?;
            }
            (generation, outcome) = self.try_once(access, None, act);
        }
        outcome
    }

    /// In this session, or in a new one. A session in which something went wrong is not used again.
    fn try_once<T>(
        &self,
        access: Access,
        pooled: Option<LoggedIn>,
        act: &impl Fn(&mut LoggedIn) -> Result<T, TokenError>,
    ) -> (u64, Result<T, TokenError>) {
        let entered = self.module.enter();
        let generation = entered.generation();
        let pooled = pooled.filter(|session| session.generation == generation);
        let mut session = match pooled.map_or_else(|| self.log_in(&entered, access), Ok) {
            Ok(session) => session,
            Err(error) => return (generation, Err(error)),
        };
        let outcome = act(&mut session);
        if outcome.is_ok() && access == Access::Reading {
            self.lock().idle.push(session);
        } else {
            // It may be gone already.
            let _ = session.session.close();
        }
        (generation, outcome)
    }

    fn pooled(&self, access: Access) -> Option<LoggedIn> {
        if access == Access::Reading { self.lock().idle.pop() } else { None }
    }

    fn log_in(&self, entered: &Entered<'_>, access: Access) -> Result<LoggedIn, TokenError> {
        let slot = self.slot(entered.library)?;
        let session = match access {
            Access::Reading => entered.library.open_ro_session_no_drop(slot)?,
            Access::Writing => entered.library.open_rw_session_no_drop(slot)?,
        };
        match self.present_pin(&session) {
            Ok(()) => Ok(LoggedIn { session, generation: entered.generation(), keys: HashMap::new() }),
            Err(error) => {
                let _ = session.close();
                Err(error)
            }
        }
    }

    /// The slot that the token is in now.
    fn slot(&self, library: &Pkcs11) -> Result<Slot, TokenError> {
        let module = || self.module.path().to_owned();
        let is_it = |slot: &Slot| match (library.get_token_info(*slot), &self.place.token) {
            (Ok(token), TokenName::Label(label)) => token.token_initialized() && token.label().trim_end() == label,
            (Ok(token), TokenName::Serial(serial)) => {
                token.token_initialized() && token.serial_number().trim_end() == serial
            }
            // A slot whose token was taken out.
            (Err(_), _) => false,
        };
        let slots: Vec<Slot> = library.get_slots_with_token()?.into_iter().filter(is_it).collect();
        match slots[..] {
            [slot] => Ok(slot),
            [] => Err(TokenError::NoToken { token: self.place.token.to_string(), module: module() }),
            _ => Err(TokenError::Ambiguous { token: self.place.token.to_string(), module: module() }),
        }
    }

    fn present_pin(&self, session: &Session) -> Result<(), TokenError> {
        // One login is for all sessions of a process; another would stand in the device's log as one that failed.
        if matches!(session.get_session_info()?.session_state(), SessionState::RoUser | SessionState::RwUser) {
            return Ok(());
        }
        let path = &self.place.pin_file;
        let (pin, sha256) = read_pin(path)?;
        let refused = |reason: &str| TokenError::Pin { path: path.clone(), reason: reason.to_owned() };
        // Held, so that several sessions do not try a wrong one at once.
        let mut refused_pin = self.refused_pin.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = &*refused_pin
            && before.sha256 == sha256
        {
            return Err(refused(before.reason));
        }
        match session.login(UserType::User, Some(&pin)) {
            // Another thread was quicker.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                *refused_pin = None;
                Ok(())
            }
            Err(error) => Err(match pin_fault(&error) {
                Some(reason) => {
                    tracing::error!(token = %self.place.token, reason, "the token refused the PIN");
                    *refused_pin = Some(RefusedPin { sha256, reason });
                    refused(reason)
                }
                None => error.into(),
            }),
        }
    }

    fn wait_for_a_place(&self) -> Result<Working<'_>, TokenError> {
        let deadline = Instant::now() + PATIENCE;
        let mut pool = self.lock();
        loop {
            // In the order of their numbers they began.
            if pool.working.values().next().is_some_and(|since| since.elapsed() > PATIENCE) {
                return Err(TokenError::Busy);
            }
            if pool.working.len() < self.place.sessions {
                let number = pool.next;
                pool.next = number.wrapping_add(1);
                pool.working.insert(number, Instant::now());
                return Ok(Working { token: self, number });
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Err(TokenError::Busy) };
            pool = self.returned.wait_timeout(pool, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of those who may work with the token at once.
struct Working<'a> {
    token: &'a Token,
    number: u64,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.token.lock().working.remove(&self.number);
        self.token.returned.notify_one();
    }
}

impl LoggedIn {
    /// The handle of a key, looked for once in each session.
    pub(super) fn key(
        &mut self,
        name: &KeyName,
        find: impl FnOnce(&Session) -> Result<ObjectHandle, TokenError>,
    ) -> Result<ObjectHandle, TokenError> {
        if let Some(found) = self.keys.get(name) {
            return Ok(*found);
        }
        let found = find(&self.session)?;
        self.keys.insert(name.clone(), found);
        Ok(found)
    }
}

/// The PIN, and its SHA-256.
fn read_pin(path: &Path) -> Result<(AuthPin, Zeroizing<Vec<u8>>), TokenError> {
    let unreadable = |source| TokenError::PinFile { path: path.to_owned(), source };
    let text = secret_file::read(path, MAX_PIN_BYTES).map_err(unreadable)?;
    match text.lines().next().map(str::trim_end) {
        Some(pin) if !pin.is_empty() => {
            Ok((AuthPin::new(pin.into()), digest(&SHA256, pin.as_bytes()).as_ref().to_vec().into()))
        }
        _ => Err(TokenError::NoPin { path: path.to_owned() }),
    }
}

impl std::fmt::Debug for RefusedPin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RefusedPin").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl std::fmt::Display for TokenName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Label(label) => write!(f, "`{label}`"),
            Self::Serial(serial) => write!(f, "with the serial number `{serial}`"),
        }
    }
}
