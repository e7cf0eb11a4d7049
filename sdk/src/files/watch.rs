//! Seeing at once, by inotify, that something changed on the way to the files. It cannot see everything: not what
//! another machine writes to a file system of a network, not what is mounted over a folder. So a watch is never all
//! that is relied upon, and that there is none is told and endured.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    future::pending,
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Instant,
};
use tracing::{debug, warn};

use super::{FilePaths, places::Places};

/// Watches the way to three files, whatever it is at the moment.
pub(super) struct Watches {
    paths: FilePaths,
    open: Open,
    inotify: Option<AsyncFd<OwnedFd>>,
    watched: Watched,
    /// The way to the files was another one at the last look: what changed since may not have been seen.
    behind: bool,
    /// Why something is not watched, as told.
    unwatched: Option<Arc<str>>,
    pace: Pace,
}

/// How inotify is opened.
pub(super) type Open = fn() -> io::Result<OwnedFd>;

/// By the kernel.
pub(super) fn by_kernel() -> io::Result<OwnedFd> {
    Ok(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)
}

impl Watches {
    pub(super) fn new(paths: FilePaths, open: Open) -> Self {
        Self {
            paths,
            open,
            inotify: None,
            watched: Watched::default(),
            behind: false,
            unwatched: None,
            pace: Pace::new(),
        }
    }

    /// Opens inotify unless it is open, for this runtime.
    pub(super) fn open(&mut self) {
        if self.inotify.is_some() {
            return;
        }
        match (self.open)().and_then(readable) {
            Ok(inotify) => self.inotify = Some(inotify),
            Err(cause) => self.tell(Some(format!("{cause}; fs.inotify.max_user_instances may be too low"))),
        }
    }

    /// Watches the way to the files as it is now. Whatever changed since the last call, or changes from now on, is seen by
    /// [`changed`](Self::changed). Blocks.
    pub(super) fn renew(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        let inotify = inotify.get_ref();
        let mut failed = None;
        for _ in 0..MAX_ROUNDS {
            let FilePaths { certificate, key, bundle } = &self.paths;
            let places = Places::on_the_way_to([&**certificate, key, bundle]);
            let (next, found) = Watched::begin(inotify, &places);
            for &gone in self.watched.names.keys().filter(|watch| !next.names.contains_key(watch)) {
                // Of what was deleted the kernel has removed it already.
                let _ = inotify::remove_watch(inotify, gone);
            }
            // A way that was walked while all of it was watched cannot have changed unseen.
            let known = next == self.watched;
            self.watched = next;
            failed = found;
            if known {
                break;
            }
            self.behind = true;
        }
        self.tell(failed);
    }

    /// Waits until something changed on the way to the files. May be dropped and called anew.
    pub(super) async fn changed(&mut self) {
        let Self { inotify: Some(inotify), watched, behind, pace, .. } = self else { return pending().await };
        if *behind {
            pace.turn().await;
            *behind = false;
            return;
        }
        let cause = loop {
            let mut ready = match inotify.readable().await {
                Ok(ready) => ready,
                Err(cause) => break cause,
            };
            pace.turn().await;
            match watched.drain(inotify.get_ref()) {
                Ok(drained) => {
                    if drained.empty {
                        ready.clear_ready();
                    }
                    if drained.concerned {
                        return;
                    }
                }
                Err(cause) => break cause.into(),
            }
        };
        self.tell(Some(cause.to_string()));
        self.inotify = None;
        // It is opened again at the next look: not now, or what fails for ever would be tried for ever.
        pending().await
    }

    /// Why something is not watched, once for each cause.
    fn tell(&mut self, unwatched: Option<String>) {
        let unwatched = unwatched.map(Arc::from);
        if unwatched == self.unwatched {
            return;
        }
        match &unwatched {
            Some(cause) => warn!(%cause, "an identity's files cannot be watched; changes are seen a little later"),
            None => debug!("an identity's files are watched"),
        }
        self.unwatched = unwatched;
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for types that may close or exchange what they hold; an OwnedFd does neither"
)]
fn readable(inotify: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(inotify, Interest::READABLE)
}

/// How often the way to the files is walked anew because it changed meanwhile, before that is left for the next look.
const MAX_ROUNDS: usize = 4;

/// What is watched: the kernel's number of each watch, with the names that matter there.
#[derive(Default, Eq, PartialEq)]
struct Watched {
    names: BTreeMap<i32, BTreeSet<OsString>>,
}

impl Watched {
    /// Begins or goes on to watch these places; also says why one of them is not watched, if it should be.
    fn begin(inotify: &OwnedFd, places: &Places) -> (Self, Option<String>) {
        let mut watched = Self::default();
        let mut masks = BTreeMap::new();
        let mut failed = None;
        let folders = places.folders.iter().map(|(path, names)| (path, names.clone()));
        let files = places.files.iter().map(|path| (path, BTreeSet::new()));
        for (path, mask, names) in folders
            .map(|(path, names)| (path, if names.is_empty() { PASSED } else { SEARCHED }, names))
            .chain(files.map(|(path, names)| (path, WRITTEN, names)))
        {
            match inotify::add_watch(inotify, path, mask) {
                Ok(watch) => {
                    // One folder that is mounted at two places, or a file with two names, has one watch.
                    let all = *masks.entry(watch).and_modify(|all| *all |= mask).or_insert(mask);
                    if all != mask {
                        // The watch was made a moment ago; if its place is gone since, the next round finds out.
                        let _ = inotify::add_watch(inotify, path, all | WatchFlags::MASK_ADD);
                    }
                    watched.names.entry(watch).or_default().extend(names);
                }
                // It changed since it was walked; the next round finds out.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                // Who may only pass through a folder may not watch it; such folders are hardly ever moved.
                Err(Errno::ACCESS) if mask == PASSED => {}
                Err(cause) => failed = Some(not_watched(path, cause)),
            }
        }
        (watched, failed)
    }

    /// Takes the events that have come.
    fn drain(&self, inotify: &OwnedFd) -> Result<Drained, Errno> {
        let mut buffer = [MaybeUninit::uninit(); EVENT_BUFFER_BYTES];
        let mut events = inotify::Reader::new(inotify, &mut buffer);
        let mut concerned = false;
        let mut reads = 0;
        loop {
            if events.is_buffer_empty() {
                if reads == MAX_READS {
                    return Ok(Drained { concerned, empty: false });
                }
                reads += 1;
            }
            match events.next() {
                Ok(event) => concerned |= self.concerns(&event),
                Err(Errno::AGAIN) => return Ok(Drained { concerned, empty: true }),
                Err(Errno::INTR) => {}
                Err(cause) => return Err(cause),
            }
        }
    }

    fn concerns(&self, event: &inotify::Event<'_>) -> bool {
        if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
            return true;
        }
        // Events of a watch that was removed may still come: there is a look after each removal.
        let Some(names) = self.names.get(&event.wd()) else { return false };
        event.file_name().is_none_or(|name| names.contains(OsStr::from_bytes(name.to_bytes())))
    }
}

/// What became of the events that had come.
struct Drained {
    /// Whether one of them may have changed the files.
    concerned: bool,
    /// Whether there were no more.
    empty: bool,
}

fn not_watched(path: &Path, cause: Errno) -> String {
    let fix = if cause == Errno::NOSPC { "; raise fs.inotify.max_user_watches" } else { "" };
    format!("{}: {cause}{fix}", path.display())
}

/// A folder that only leads on to another.
const PASSED: WatchFlags =
    WatchFlags::DELETE_SELF.union(WatchFlags::MOVE_SELF).union(WatchFlags::ONLYDIR).union(WatchFlags::DONT_FOLLOW);
/// A folder in which a name matters. A change of permissions too: it may be what makes a file readable.
const SEARCHED: WatchFlags = PASSED
    .union(WatchFlags::CREATE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB);
const WRITTEN: WatchFlags = WatchFlags::CLOSE_WRITE.union(WatchFlags::DONT_FOLLOW);

/// A hundred events and more.
const EVENT_BUFFER_BYTES: usize = 4096;
/// How many buffers of events are read in one turn, so that a turn ends while events go on coming.
const MAX_READS: usize = 16;

/// Whose turn it is when events never end: many in a row at first, then so many a second.
struct Pace {
    /// Until when the turns that were taken last.
    taken_until: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { taken_until: Instant::now() }
    }

    async fn turn(&mut self) {
        self.taken_until = self.taken_until.max(Instant::now()) + TURN;
        let begin = self.taken_until - TURN * TURNS_AT_ONCE;
        if begin > Instant::now() {
            tokio::time::sleep_until(begin).await;
        }
    }
}

/// A look costs about fifty times less. A replacement takes about five turns.
const TURN: Duration = Duration::from_millis(10);
const TURNS_AT_ONCE: u32 = 64;

#[cfg(test)]
mod tests;
