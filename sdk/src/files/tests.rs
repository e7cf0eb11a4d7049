#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::SystemTime,
};

use signet_identity::{ManualClock, SharedClock, SystemClock};
use signet_test_pki::{Authority, Issued, pem};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{Event, IssuerLink, RotationResult, Running, Starting, State};

const ID: &str = "spiffe://example.org/shop/cart";

/// A folder with an identity in it.
struct Folder {
    folder: TempDir,
    authority: Authority,
}

impl Folder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), authority: Authority::root("example.org") }
    }

    fn paths(&self) -> FilePaths {
        FilePaths::within(self.folder.path())
    }

    fn issue(&self) -> Issued {
        self.authority.leaf(ID).issue()
    }

    fn bundle_pem(&self) -> String {
        pem("CERTIFICATE", self.authority.root_certificate())
    }

    fn write(&self, issued: &Issued) {
        let paths = self.paths();
        put(&paths.certificate, issued.chain_pem().as_bytes());
        put(&paths.key, issued.key_pem().as_bytes());
        put(&paths.bundle, self.bundle_pem().as_bytes());
    }

    fn begin(&self, clock: SharedClock) -> (Starting, broadcast::Receiver<Event>) {
        begin(followed(self.paths()), clock)
    }

    async fn start(&self) -> (Running, broadcast::Receiver<Event>) {
        let (starting, mut events) = self.begin(Arc::new(SystemClock));
        let running = starting.identity().await.unwrap();
        assert!(matches!(events.recv().await.unwrap(), Event::Rotated { .. }));
        (running, events)
    }
}

/// Renamed over, so that it is never seen half.
fn put(path: &Path, content: &[u8]) {
    let whole = path.with_extension("new");
    fs::write(&whole, content).unwrap();
    fs::rename(whole, path).unwrap();
}

/// Never looks without cause, and soon tells of what does not fit.
fn followed(paths: FilePaths) -> FilesSource {
    let pauses = Pauses { poll: HOUR, tell: Duration::from_millis(50), ..Pauses::USUAL };
    FilesSource { pauses, ..FilesSource::new(paths) }
}

const HOUR: Duration = Duration::from_secs(3_600);

fn begin(source: FilesSource, clock: SharedClock) -> (Starting, broadcast::Receiver<Event>) {
    let starting = crate::begin(source, TlsPolicies::new(clock), CancellationToken::new());
    let events = starting.monitor().events();
    (starting, events)
}

async fn next(events: &mut broadcast::Receiver<Event>) -> Event {
    tokio::time::timeout(Duration::from_secs(5), events.recv()).await.expect("an event").unwrap()
}

async fn refusal(events: &mut broadcast::Receiver<Event>) -> Arc<str> {
    loop {
        if let Event::Refused { reason } = next(events).await {
            return reason;
        }
    }
}

async fn rotation(events: &mut broadcast::Receiver<Event>) {
    while !matches!(next(events).await, Event::Rotated { .. }) {}
}

fn is_live(running: &Running, issued: &Issued) -> bool {
    running.live.load().svid().leaf() == &issued.chain[0]
}

#[tokio::test]
async fn a_new_certificate_in_the_files_becomes_live() {
    let folder = Folder::new();
    folder.write(&folder.issue());
    let (running, mut events) = folder.start().await;
    for _ in 0..3 {
        let next = folder.issue();
        folder.write(&next);
        rotation(&mut events).await;
        while !is_live(&running, &next) {
            rotation(&mut events).await;
        }
    }
    assert_eq!(running.monitor.issuer(), IssuerLink::NotUsed);
}

#[tokio::test]
async fn files_that_are_not_there_yet_are_waited_for() {
    let folder = Folder::new();
    let (starting, mut events) = folder.begin(Arc::new(SystemClock));
    let reason = refusal(&mut events).await;
    assert!(reason.contains("svid.pem cannot be read"), "{reason}");
    assert_eq!(starting.monitor().state(), State::Waiting { reason });
    folder.write(&folder.issue());
    tokio::time::timeout(Duration::from_secs(5), starting.identity()).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn damaged_files_are_refused_once_each_and_the_old_identity_stays() {
    let folder = Folder::new();
    let good = folder.issue();
    folder.write(&good);
    let (running, mut events) = folder.start().await;
    let paths = folder.paths();
    let other = folder.issue();
    let foreign = Authority::root("example.org");
    let half = &good.chain_pem()[..good.chain_pem().len() / 2];
    let huge = vec![b'x'; (1 << 20) + 1];
    let foreign_bundle = pem("CERTIFICATE", foreign.root_certificate());
    let (other_key, other_chain) = (other.key_pem(), other.chain_pem());
    let damages: [(&Path, &[u8], &str); 9] = [
        (&paths.certificate, half.as_bytes(), "svid.pem"),
        (&paths.certificate, b"", "svid.pem"),
        (&paths.certificate, &huge, "larger than 1 MiB"),
        (&paths.certificate, other_chain.as_bytes(), "svid.pem"),
        (&paths.key, other_key.as_bytes(), "svid.key"),
        (&paths.key, b"-----BEGIN PRIVATE KEY-----\nAAAA", "svid.key"),
        (&paths.bundle, b"no pem at all", "bundle.pem"),
        (&paths.bundle, &half.as_bytes()[..40], "bundle.pem"),
        (&paths.bundle, foreign_bundle.as_bytes(), "refuse"),
    ];
    for (path, content, told) in damages {
        let counted = running.monitor.rotations(RotationResult::Refused);
        put(path, content);
        let reason = refusal(&mut events).await;
        assert!(reason.contains(told), "{reason} should tell of {told}");
        // It is tried again meanwhile, several times by the paused clock, and neither counted nor told again.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(is_live(&running, &good));
        assert!(matches!(running.monitor.state(), State::Live { .. }));
        assert!(running.monitor.rotations(RotationResult::Refused) == counted + 1, "counted again: {reason}");
        assert!(events.try_recv().is_err(), "told again: {reason}");
        folder.write(&good);
        while !matches!(next(&mut events).await, Event::BundlesChanged { .. }) {}
    }
    let last = folder.issue();
    folder.write(&last);
    while !is_live(&running, &last) {
        rotation(&mut events).await;
    }
}

#[tokio::test]
async fn a_certificate_whose_time_has_not_come_becomes_live_when_it_has() {
    let folder = Folder::new();
    let clock = ManualClock::new(OffsetDateTime::now_utc());
    let early = folder.authority.leaf(ID).valid(
        OffsetDateTime::now_utc() + Duration::from_secs(600),
        OffsetDateTime::now_utc() + Duration::from_secs(3600),
    );
    folder.write(&early.issue());
    let (starting, mut events) = folder.begin(clock.shared());
    refusal(&mut events).await;
    assert!(starting.monitor().live().is_none());
    clock.advance(time::Duration::minutes(20));
    tokio::time::timeout(Duration::from_secs(3), starting.identity()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_swapped_symlink_is_one_change_and_never_a_mixture() {
    let folder = Folder::new();
    let root = folder.folder.path();
    let generation = |number: usize| {
        let at = root.join(format!("g{number}"));
        fs::create_dir(&at).unwrap();
        let issued = folder.issue();
        fs::write(at.join("svid.pem"), issued.chain_pem()).unwrap();
        fs::write(at.join("svid.key"), issued.key_pem()).unwrap();
        fs::write(at.join("bundle.pem"), folder.bundle_pem()).unwrap();
        (at, issued)
    };
    let swap = |to: &Path| {
        symlink(to, root.join("next")).unwrap();
        fs::rename(root.join("next"), root.join("cur")).unwrap();
    };
    let (first, _) = generation(0);
    swap(&first);
    let (starting, mut events) = begin(followed(FilePaths::within(&root.join("cur"))), Arc::new(SystemClock));
    let running = starting.identity().await.unwrap();
    let mut newest = None;
    for number in 1..60 {
        let (at, issued) = generation(number);
        swap(&at);
        newest = Some(issued);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let newest = newest.unwrap();
    while !is_live(&running, &newest) {
        rotation(&mut events).await;
    }
    assert_eq!(running.monitor.rotations(RotationResult::Refused), 0);
    assert!(running.monitor.rotations(RotationResult::Rotated) > 10);
}

#[tokio::test]
async fn another_bundle_alone_is_a_change_of_trust() {
    let folder = Folder::new();
    let issued = folder.issue();
    folder.write(&issued);
    let (running, mut events) = folder.start().await;
    let epoch = running.live.load().trust_epoch();
    let other = Authority::root("example.org");
    let both = folder.bundle_pem() + &pem("CERTIFICATE", other.root_certificate());
    put(&folder.paths().bundle, both.as_bytes());
    while !matches!(next(&mut events).await, Event::BundlesChanged { .. }) {}
    assert!(running.live.load().trust_epoch() > epoch);
    assert!(is_live(&running, &issued));
}

#[tokio::test]
async fn a_pipe_is_no_identity_and_blocks_nothing() {
    let folder = Folder::new();
    folder.write(&folder.issue());
    fs::remove_file(folder.paths().certificate).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(folder.paths().certificate).status().unwrap().success());
    let (_starting, mut events) = folder.begin(Arc::new(SystemClock));
    let reason = refusal(&mut events).await;
    assert!(reason.contains("not a regular file"), "{reason}");
}

/// Sees what the kernel tells of, and nothing else: what it does not fit in between is not tried again by itself.
fn told_by_the_kernel(paths: FilePaths) -> FilesSource {
    FilesSource {
        pauses: Pauses { poll: HOUR, tell: HOUR, first_retry: HOUR, longest_retry: HOUR },
        ..FilesSource::new(paths)
    }
}

const NAMES: [&str; 3] = ["svid.pem", "svid.key", "bundle.pem"];

/// Fills a folder with an identity.
fn fill(folder: &Path, mesh: &Folder) -> Issued {
    let issued = mesh.issue();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("svid.pem"), issued.chain_pem()).unwrap();
    fs::write(folder.join("svid.key"), issued.key_pem()).unwrap();
    fs::write(folder.join("bundle.pem"), mesh.bundle_pem()).unwrap();
    issued
}

fn point(link: &Path, to: impl AsRef<Path>) {
    let next = link.with_file_name("next");
    symlink(to, &next).unwrap();
    fs::rename(next, link).unwrap();
}

/// Each way to replace an identity, thrice: `replace(root, n)` puts number `n` in place, the first one too.
async fn is_followed(within: &str, mut replace: impl FnMut(&Path, &Folder, usize) -> Issued) {
    let mesh = Folder::new();
    let root = mesh.folder.path();
    let mut issued = replace(root, &mesh, 0);
    let (starting, mut events) =
        begin(told_by_the_kernel(FilePaths::within(&root.join(within))), Arc::new(SystemClock));
    let running = starting.identity().await.unwrap();
    for number in 1..4 {
        assert!(is_live(&running, &issued));
        issued = replace(root, &mesh, number);
        while !is_live(&running, &issued) {
            rotation(&mut events).await;
        }
    }
    assert_eq!(running.monitor.rotations(RotationResult::Refused), 0);
}

#[tokio::test]
async fn files_written_in_place_are_seen_at_once() {
    is_followed("", |root, mesh, _| fill(root, mesh)).await;
}

#[tokio::test]
async fn files_renamed_over_are_seen_at_once() {
    is_followed("", |_, mesh, _| {
        let issued = mesh.issue();
        mesh.write(&issued);
        issued
    })
    .await;
}

#[tokio::test]
async fn a_swapped_symlink_to_the_folder_is_seen_at_once() {
    is_followed("live/cur", |root, mesh, number| {
        let issued = fill(&root.join(format!("live/g{number}")), mesh);
        point(&root.join("live/cur"), format!("g{number}"));
        issued
    })
    .await;
}

/// As a kubelet does it.
#[tokio::test]
async fn a_swapped_symlink_behind_symlinks_to_the_files_is_seen_at_once() {
    is_followed("", |root, mesh, number| {
        let issued = fill(&root.join(format!("..{number}")), mesh);
        point(&root.join("..data"), format!("..{number}"));
        if number == 0 {
            for name in NAMES {
                symlink(Path::new("..data").join(name), root.join(name)).unwrap();
            }
        }
        issued
    })
    .await;
}

#[tokio::test]
async fn a_file_written_in_place_behind_a_swapped_symlink_is_seen_at_once() {
    is_followed("cur", |root, mesh, number| {
        let generation = root.join(format!("g{}", number / 2));
        let issued = fill(&generation, mesh);
        if number % 2 == 0 {
            point(&root.join("cur"), &generation);
        }
        issued
    })
    .await;
}

#[tokio::test]
async fn a_folder_that_is_deleted_and_made_anew_is_seen_at_once() {
    is_followed("a/b", |root, mesh, number| {
        if number > 0 {
            fs::remove_dir_all(root.join("a")).unwrap();
        }
        fill(&root.join("a/b"), mesh)
    })
    .await;
}

#[tokio::test]
async fn a_folder_far_above_that_is_moved_and_replaced_is_seen_at_once() {
    is_followed("a/b/c", |root, mesh, number| {
        let issued = fill(&root.join(format!("new{number}/b/c")), mesh);
        if number > 0 {
            fs::rename(root.join("a"), root.join(format!("old{number}"))).unwrap();
        }
        fs::rename(root.join(format!("new{number}")), root.join("a")).unwrap();
        issued
    })
    .await;
}

/// As of a file that is mounted into a container.
#[tokio::test]
async fn a_file_written_by_another_name_is_seen_at_once() {
    is_followed("here", |root, mesh, number| {
        let issued = fill(&root.join("there"), mesh);
        if number == 0 {
            fs::create_dir(root.join("here")).unwrap();
            for name in NAMES {
                fs::hard_link(root.join("there").join(name), root.join("here").join(name)).unwrap();
            }
        }
        issued
    })
    .await;
}

#[tokio::test]
async fn files_and_folders_that_appear_later_are_seen_at_once() {
    let mesh = Folder::new();
    let root = mesh.folder.path();
    let (starting, mut events) = begin(told_by_the_kernel(FilePaths::within(&root.join("a/b"))), Arc::new(SystemClock));
    refusal(&mut events).await;
    let issued = fill(&root.join("a/b"), &mesh);
    let running = tokio::time::timeout(Duration::from_secs(5), starting.identity()).await.unwrap().unwrap();
    assert!(is_live(&running, &issued));
}

#[tokio::test]
async fn a_file_that_is_touched_without_end_delays_nothing_for_long() {
    let folder = Folder::new();
    folder.write(&folder.issue());
    let (starting, mut events) = begin(told_by_the_kernel(folder.paths()), Arc::new(SystemClock));
    let running = starting.identity().await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let toucher = std::thread::spawn({
        let (done, bundle) = (done.clone(), fs::File::open(folder.paths().bundle).unwrap());
        move || {
            while !done.load(Relaxed) {
                bundle.set_modified(SystemTime::now()).unwrap();
            }
        }
    });
    for _ in 0..5 {
        let issued = folder.issue();
        // The bundle is left alone.
        put(&folder.paths().certificate, issued.chain_pem().as_bytes());
        put(&folder.paths().key, issued.key_pem().as_bytes());
        while !is_live(&running, &issued) {
            rotation(&mut events).await;
        }
    }
    done.store(true, Relaxed);
    toucher.join().unwrap();
}

#[tokio::test]
async fn where_nothing_can_be_watched_changes_are_found_by_looking() {
    let folder = Folder::new();
    folder.write(&folder.issue());
    let source =
        FilesSource { inotify: || Err(std::io::ErrorKind::QuotaExceeded.into()), ..FilesSource::new(folder.paths()) };
    let (starting, mut events) = begin(source.poll_interval(Duration::from_millis(5)), Arc::new(SystemClock));
    let running = starting.identity().await.unwrap();
    let issued = folder.issue();
    folder.write(&issued);
    while !is_live(&running, &issued) {
        rotation(&mut events).await;
    }
}

#[tokio::test(start_paused = true)]
async fn halves_of_two_identities_are_never_live_and_told_only_if_they_stay() {
    let folder = Folder::new();
    let first = folder.issue();
    folder.write(&first);
    let source = FilesSource { pauses: Pauses { poll: HOUR, ..Pauses::USUAL }, ..FilesSource::new(folder.paths()) };
    let (starting, mut events) = begin(source, Arc::new(SystemClock));
    let running = starting.identity().await.unwrap();
    let second = folder.issue();
    put(&folder.paths().certificate, second.chain_pem().as_bytes());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(is_live(&running, &first));
    put(&folder.paths().key, second.key_pem().as_bytes());
    while !is_live(&running, &second) {
        rotation(&mut events).await;
    }
    assert_eq!(running.monitor.rotations(RotationResult::Refused), 0);

    put(&folder.paths().certificate, first.chain_pem().as_bytes());
    let reason = refusal(&mut events).await;
    assert!(reason.contains("are not a certificate with its key"), "{reason}");
    assert!(is_live(&running, &second));
}
