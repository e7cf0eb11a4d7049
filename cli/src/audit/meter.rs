//! How far a log is read, told to whoever waits at a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use signet_audit::Progress;

pub(super) struct Meter {
    read: AtomicU64,
    all: u64,
    began: Instant,
    shows: bool,
    told: Mutex<Instant>,
}

const EACH: Duration = Duration::from_millis(500);

impl Meter {
    /// Of so many entries.
    pub(super) fn new(all: u64) -> Self {
        let (began, shows) = (Instant::now(), std::io::stderr().is_terminal());
        Self { read: AtomicU64::new(0), all, began, shows, told: Mutex::new(began) }
    }

    pub(super) fn add(&self, count: u64) {
        self.show(self.read.fetch_add(count, Ordering::Relaxed) + count);
    }

    /// Whoever counts elsewhere is so far.
    pub(super) fn reach(&self, read: u64) {
        self.show(read);
    }

    fn show(&self, read: u64) {
        let Some(mut told) = Some(&self.told).filter(|_| self.shows).and_then(|told| told.try_lock().ok()) else {
            return;
        };
        if told.elapsed() < EACH {
            return;
        }
        *told = Instant::now();
        let rate = read as f64 / self.began.elapsed().as_secs_f64();
        // Whoever watches no more loses nothing.
        let _ = write!(std::io::stderr(), "\r{read} of {} entries, {rate:.0}/s ", self.all);
    }

    pub(super) fn end(&self) {
        if self.shows {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Progress for Meter {
    fn entries(&self, _index: u64, entries: &mut dyn Iterator<Item = &[u8]>) {
        self.add(entries.count() as u64);
    }
}
