#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use tempfile::TempDir;

use super::*;

/// A folder with three files, and watches on the way to them.
fn folder(open: Open) -> (TempDir, Watches) {
    let folder = tempfile::tempdir().unwrap();
    let paths = FilePaths::within(folder.path());
    for path in [&paths.certificate, &paths.key, &paths.bundle] {
        fs::write(path, "").unwrap();
    }
    let mut watches = Watches::new(paths, open);
    watches.open();
    watches.renew();
    watches.behind = false;
    (folder, watches)
}

async fn changed(watches: &mut Watches) {
    tokio::time::timeout(Duration::from_secs(5), watches.changed()).await.expect("a change")
}

/// Whether there is nothing to see, as soon as what happened before was told.
async fn quiet(watches: &mut Watches) -> bool {
    tokio::time::timeout(Duration::from_millis(50), watches.changed()).await.is_err()
}

#[tokio::test]
async fn only_what_happens_to_the_files_is_a_change() {
    let (folder, mut watches) = folder(by_kernel);
    assert!(quiet(&mut watches).await);
    fs::write(folder.path().join("other"), "").unwrap();
    fs::read(folder.path().join("svid.pem")).unwrap();
    assert!(quiet(&mut watches).await);
    fs::write(folder.path().join("svid.pem"), "").unwrap();
    changed(&mut watches).await;
    assert!(quiet(&mut watches).await);
}

#[tokio::test]
async fn another_way_to_the_files_is_a_change_once_it_is_watched() {
    let (folder, mut watches) = folder(by_kernel);
    fs::rename(folder.path().join("svid.pem"), folder.path().join("old")).unwrap();
    changed(&mut watches).await;
    fs::write(folder.path().join("svid.pem"), "").unwrap();
    watches.renew();
    changed(&mut watches).await;
    while !quiet(&mut watches).await {}
    watches.renew();
    assert!(quiet(&mut watches).await, "the same way");
}

#[tokio::test]
async fn watches_do_not_pile_up() {
    let (folder, mut watches) = folder(by_kernel);
    let begun = watches.watched.names.len();
    for _ in 0..50 {
        fs::rename(folder.path().join("svid.pem"), folder.path().join("old")).unwrap();
        fs::write(folder.path().join("svid.pem"), "").unwrap();
        changed(&mut watches).await;
        watches.renew();
        assert_eq!(watches.watched.names.len(), begun);
    }
    assert_eq!(kernel_counts(&watches), begun);
}

/// The watches that the kernel has for it.
fn kernel_counts(watches: &Watches) -> usize {
    use std::os::fd::AsRawFd as _;
    let number = watches.inotify.as_ref().unwrap().get_ref().as_raw_fd();
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
    told.lines().filter(|line| line.starts_with("inotify wd:")).count()
}

#[tokio::test]
async fn more_events_than_the_kernel_keeps_are_a_change() {
    let (folder, mut watches) = folder(by_kernel);
    let kept = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    for number in 0..=kept.trim().parse::<usize>().unwrap() {
        // Another name each time: the kernel tells of the same event once.
        let name = if number % 2 == 0 { "other" } else { "another" };
        fs::write(folder.path().join(name), "").unwrap();
    }
    changed(&mut watches).await;
}

/// One file, written as fast as a thread can.
#[tokio::test]
async fn events_without_end_are_taken_in_turns() {
    let (folder, mut watches) = folder(by_kernel);
    let done = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (done, path) = (done.clone(), folder.path().join("svid.pem"));
        move || {
            while !done.load(Relaxed) {
                fs::write(&path, "").unwrap();
            }
        }
    });
    let begin = Instant::now();
    for _ in 0..TURNS_AT_ONCE + PACED {
        changed(&mut watches).await;
    }
    let took = begin.elapsed();
    done.store(true, Relaxed);
    writer.join().unwrap();
    assert!(took >= TURN * (PACED - 1), "{took:?}");
}

const PACED: u32 = 10;

#[tokio::test]
async fn no_instance_of_inotify_is_endured_and_asked_for_again() {
    let (_folder, mut watches) = folder(|| Err(Errno::MFILE.into()));
    assert!(watches.unwatched.as_deref().unwrap().contains("max_user_instances"));
    assert!(quiet(&mut watches).await);
    watches.open = by_kernel;
    watches.open();
    watches.renew();
    assert_eq!(watches.unwatched, None);
}

/// A descriptor that takes no watches, as an instance whose user has too many.
#[tokio::test]
async fn watches_that_are_refused_are_endured() {
    let (folder, mut watches) = folder(|| {
        let (open, peer) = UnixStream::pair()?;
        std::mem::forget(peer);
        open.set_nonblocking(true)?;
        Ok(open.into())
    });
    assert!(watches.unwatched.is_some());
    fs::write(folder.path().join("svid.pem"), "").unwrap();
    assert!(quiet(&mut watches).await);
    assert!(not_watched(Path::new("/run/svid.pem"), Errno::NOSPC).ends_with("raise fs.inotify.max_user_watches"));
}
